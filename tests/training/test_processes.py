"""The parts from which training by several processes is made, without starting any."""

import signal

import pytest
import torch
from conftest import TINY, make_model
from torch import distributed

from seq2seq.data.dataset import FlatSequences, PairDataset, Shares
from seq2seq.errors import UserError
from seq2seq.training import processes
from seq2seq.training.build import choose_devices


def test_the_average_of_the_shares_of_a_batch_is_the_mean_over_all():
    sequences = FlatSequences([[5], [6, 7], [8, 9, 10, 11], [12, 13]])
    dataset, indices = PairDataset(sequences, sequences), [2, 0, 3, 1]
    losses = {token: float(token) ** 2 for token in range(20)}

    def mean(batch):
        tokens = [losses[token] for ids, n in zip(batch.labels.tolist(), batch.target_lengths, strict=True)
                  for token in ids[:n]]  # fmt: skip
        return sum(tokens) / len(tokens)

    shares = [Shares(dataset, rank, 3)[indices] for rank in range(3)]

    assert sum(mean(share) * share.share for share in shares) / 3 == pytest.approx(mean(dataset[indices]))
    assert dataset[indices].share == 1


def test_a_share_of_a_batch_smaller_than_the_number_of_processes_is_empty():
    sequences = FlatSequences([[5], [6, 7]])

    empty = Shares(PairDataset(sequences, sequences), 1, 2)[[1]]

    assert (len(empty.indices), empty.share) == (0, 0)


def test_with_one_process_a_request_is_granted_at_once():
    requests = processes.Requests()
    requests.own.add(processes.SAVE)

    assert requests.granted == {processes.SAVE}
    assert requests.exchange(torch.tensor(2.0)) == 2
    requests.own.discard(processes.SAVE)
    assert not requests.granted


def test_with_several_processes_a_request_is_granted_to_all_when_the_loss_is_averaged(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    other = torch.tensor([4.0, 0.0, 0.0, 1.0, 0.0])  # its loss, and that it has heard SIGTERM
    monkeypatch.setattr(distributed, "all_reduce", lambda total: total.add_(other))
    requests = processes.Requests()
    requests.own.add(processes.SAVE)

    assert not requests.granted
    assert requests.exchange(torch.tensor(1.0)) == 2.5
    assert requests.granted == {"save", signal.SIGTERM}


def test_parameters_that_no_loss_reaches_are_not_waited_for():
    model = make_model(bridge="zeros", attention="none")

    processes.freeze_unused(model)

    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert all(parameter.requires_grad for parameter in model.decoder.parameters())


def test_under_torchrun_auto_means_what_it_has_started(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)

    assert choose_devices({"devices": "auto"}) == {"devices": 2, "num_nodes": 3}
    assert choose_devices({"devices": 4}) == {}


def test_a_list_of_devices_is_their_number_on_a_cpu():
    assert choose_devices({"devices": [0, 1], "accelerator": "cpu"}) == {"devices": 2}


def test_a_batch_smaller_than_the_number_of_processes_is_refused(compose, tmp_path):
    from seq2seq.commands.train import train

    config = compose("train", *TINY, "data.batch_size=2", "trainer=ddp", "trainer.devices=3", "trainer.accelerator=cpu")
    with pytest.raises(UserError, match=r"data\.batch_size=2 must be at least the 3 processes"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
