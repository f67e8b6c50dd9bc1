"""The inference loop: what encoding, searching and decoding give, batch by batch."""

import pytest
import torch
from conftest import make_model

from seq2seq.data import Batch
from seq2seq.decoding import Beam, Ensemble, infer

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

    results = list(infer(ensemble, batches, CPU, lambda _, encoded: search(ensemble, encoded)))

    for batch, (moved, found) in zip(batches, results, strict=True):
        expected = search(ensemble, ensemble.encode(batch.source, batch.source_lengths))
        assert torch.equal(moved.indices, batch.indices)
        assert torch.equal(found.tokens, expected.tokens)
        torch.testing.assert_close(found.log_probs, expected.log_probs)


def test_decoding_the_targets_gives_teacher_forcing_without_gradients(ensemble, batches):
    results = list(infer(ensemble, batches, CPU, lambda batch, encoded: ensemble.decode(batch.inputs, encoded)))

    for batch, (_, found) in zip(batches, results, strict=True):
        expected = ensemble(batch.source, batch.source_lengths, batch.inputs)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, check_device=False)
        assert expected[0].requires_grad
        assert not found[0].requires_grad


def test_a_batch_is_encoded_when_its_turn_comes(ensemble, batches):
    taken = []

    def given():
        for batch in batches:
            taken.append(batch)
            yield batch

    results = infer(ensemble, given(), CPU, lambda batch, _: len(batch.source))

    assert next(results)[1] == 4
    assert len(taken) == 1
    assert [size for _, size in results] == [3]


def test_outside_the_loop_gradients_are_as_before(ensemble, batches):
    for _ in infer(ensemble, batches, CPU, lambda *_: None):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


class Recorder:
    """In the place of an ensemble: encodes a batch as itself."""

    def encode(self, source, lengths, _features):
        return source, lengths


def test_ids_are_moved_to_the_device_and_lengths_stay_on_the_cpu(batches):
    meta = torch.device("meta")

    results = list(infer(Recorder(), batches, meta, lambda batch, encoded: (batch.target, *encoded)))

    for moved, (target, source, lengths) in results:
        assert moved.source.device == source.device == target.device == meta
        assert moved.source_lengths.device == lengths.device == CPU
