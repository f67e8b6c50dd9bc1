"""The inference loop: what encoding, searching and decoding give, batch by batch."""

import os
from functools import partial

import pytest
import torch
from conftest import make_model

from seq2seq.data import Batch
from seq2seq.decoding import Beam, Ensemble, Inference, Results
from seq2seq.errors import UserError

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("float64")


def make_batch(seed, batch, source_steps, target_steps):
    torch.manual_seed(seed)
    source, target = torch.randint(4, 10, (batch, source_steps)), torch.randint(4, 9, (batch, target_steps))
    lengths = [torch.randint(1, steps + 1, (batch,)) for steps in (source_steps, target_steps)]
    return Batch.from_padded(source, lengths[0], target, lengths[1], torch.arange(batch))


@pytest.fixture
def batches():
    return [make_batch(1, 4, 5, 6), make_batch(2, 3, 7, 2)]


@pytest.fixture
def ensemble():
    return Ensemble([make_model(seed=seed, scale=3, cell=cell) for seed, cell in ((1, "gru"), (2, "lstm"))])


def test_a_search_gives_what_it_gives_for_each_encoded_batch(ensemble, batches):
    search = Beam(max_length=6, beam_size=3, n_best=2, normalisation="average")
    results = Results(ensemble, CPU, batches.__getitem__, lambda _, __, encoded: search(ensemble, encoded))

    for batch, found in zip(batches, Inference(results)(range(2)), strict=True):
        expected = search(ensemble, ensemble.encode(batch.source, batch.source_lengths))
        assert torch.equal(found.tokens, expected.tokens)
        torch.testing.assert_close(found.log_probs, expected.log_probs)


def test_decoding_the_targets_gives_teacher_forcing_without_gradients(ensemble, batches):
    results = Results(ensemble, CPU, batches.__getitem__, lambda _, own, encoded: ensemble.decode(own.inputs, encoded))

    for batch, found in zip(batches, Inference(results)(range(2)), strict=True):
        expected = ensemble(batch.source, batch.source_lengths, batch.inputs)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, check_device=False)
        assert expected[0].requires_grad
        assert not found[0].requires_grad


def test_a_batch_is_read_when_its_turn_comes_and_outside_gradients_are_as_before(ensemble, batches):
    taken = []

    def read(number):
        taken.append(number)
        return batches[number]

    results = Inference(Results(ensemble, CPU, read, lambda number, batch, _: (number, len(batch.source))))([1, 0])

    assert next(results) == (1, 3)
    assert taken == [1]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert list(results) == [(0, 4)]


def of_worker(batches, number, batch, _):
    """What tells where a batch was computed, and how; 5 and 6 fail."""
    if number == 5:
        raise UserError("five is not allowed")
    if number == 6:
        os._exit(1)
    return number, os.getpid(), torch.get_num_threads(), torch.equal(batch.source, batches[0].source)


@pytest.fixture
def inference(ensemble, batches):
    return Inference(Results(ensemble, CPU, lambda _: batches[0], partial(of_worker, batches)), workers=2)


def test_workers_give_the_results_in_order_with_one_thread_each_and_stay(inference):
    first, second = (list(inference(keys)) for keys in ([0, 1, 2, 3, 4], [9, 8, 7, 4, 3]))

    assert [one[0] for one in first + second] == [0, 1, 2, 3, 4, 9, 8, 7, 4, 3]
    processes = {one[1] for one in first}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {one[1] for one in second} == processes
    assert {one[2:] for one in first} == {(1, True)}


def test_for_a_few_batches_no_worker_is_started(inference):
    assert {one[1] for one in inference([0, 1, 2, 3])} == {os.getpid()}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_user_in_a_worker_stays_one_line(inference, workers):
    inference.workers = workers

    with pytest.raises(UserError, match=r"^five is not allowed$"):
        list(inference([0, 1, 2, 3, 4, 5, 7, 8]))


def test_a_worker_that_dies_is_one_line(inference):
    with pytest.raises(UserError, match=r"^workers=2: a worker process has ended unexpectedly"):
        list(inference([0, 1, 2, 6, 3, 4]))


@pytest.mark.parametrize(("threads", "workers"), [(4, 4), (1, 0)])
def test_auto_is_a_worker_for_each_thread(monkeypatch, inference, threads, workers):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    assert Inference(inference.results, "auto").workers == workers


def test_on_a_gpu_there_are_none(ensemble):
    results = Results(ensemble, torch.device("meta"), list, len)

    assert Inference(results, "auto").workers == 0
    with pytest.raises(UserError, match=r"^workers=2 does not fit device=meta; give 0, or device=cpu"):
        Inference(results, 2)


class Recorder:
    """In the place of an ensemble: encodes a batch as itself."""

    def encode(self, source, lengths, _features):
        return source, lengths


def test_ids_are_moved_to_the_device_and_lengths_stay_on_the_cpu(batches):
    meta = torch.device("meta")

    results = Results(Recorder(), meta, batches.__getitem__, lambda _, batch, encoded: (batch, *encoded))

    for moved, source, lengths in Inference(results)(range(2)):
        assert moved.source.device == source.device == moved.target.device == meta
        assert moved.source_lengths.device == lengths.device == CPU
