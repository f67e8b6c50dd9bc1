"""The parts from which training by several processes is made, without starting any."""

import pytest
import torch
from conftest import TINY, make_model
from torch import distributed

from seq2seq.errors import Stopped, UserError
from seq2seq.training import processes
from seq2seq.training.build import choose_devices


def test_the_average_of_weighted_means_is_the_mean_over_all(monkeypatch):
    first, second = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([4.0])
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda total: total.fill_(4))

    weights = [processes.share_of(torch.tensor(len(one)), torch.device("cpu")) for one in (first, second)]

    average = (first.mean() * weights[0] + second.mean() * weights[1]) / 2
    assert average == torch.cat([first, second]).mean()


def test_parameters_that_no_loss_reaches_are_not_waited_for():
    model = make_model(bridge="zeros", attention="none")

    processes.freeze_unused(model)

    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert all(parameter.requires_grad for parameter in model.decoder.parameters())


@pytest.mark.parametrize(
    ("node", "devices", "nodes"),
    [
        ({"devices": 2, "accelerator": "cpu"}, 2, 1),
        ({"devices": "auto", "accelerator": "cpu"}, "auto", 1),
        ({"devices": 2, "num_nodes": 3, "strategy": "ddp"}, 2, 3),
    ],
)
def test_devices_go_on_to_lightning(node, devices, nodes):
    chosen = choose_devices(node)

    assert (chosen["devices"], chosen["num_nodes"]) == (devices, nodes)


def test_under_torchrun_auto_means_what_it_has_started(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)

    assert choose_devices({"devices": "auto"}) == {"devices": 2, "num_nodes": 3, "strategy": "auto"}


@pytest.mark.parametrize("node", [{"strategy": "fsdp"}, {"strategy": 3}, {"num_nodes": 0}])
def test_other_strategies_are_refused(node):
    (key,) = node
    with pytest.raises(UserError, match=rf"trainer\.{key}={node[key]} must be"):
        choose_devices(node)


def test_a_batch_smaller_than_the_number_of_processes_is_refused(compose, tmp_path):
    from seq2seq.commands.train import train

    config = compose("train", *TINY, "data.batch_size=2", "trainer=ddp", "trainer.devices=3", "trainer.accelerator=cpu")
    with pytest.raises(UserError, match=r"data\.batch_size=2 must be at least the 3 processes"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Launcher(processes._SubprocessScriptLauncher):
    def __init__(self, *codes):
        self.procs = [Process(code) for code in codes]


class Process:
    def __init__(self, code):
        self.returncode = code

    def poll(self):
        return self.returncode


def trainer_with(launcher, first=True):
    class Trainer:
        world_size = 2
        is_global_zero = first

        class strategy:  # noqa: N801
            pass

    Trainer.strategy.launcher = launcher
    return Trainer


@pytest.mark.parametrize(
    ("launcher", "first", "kind", "message"),
    [
        (Launcher(0, 1), True, SystemExit, "1"),  # it has told why
        (Launcher(0, 143), True, Stopped, "143"),
        (Launcher(0, -9), True, UserError, "a process of this run was ended by SIGKILL"),
        (
            Launcher(0, None),
            True,
            UserError,
            "the connection to another process of this run is lost: Connection closed",
        ),
        (None, True, UserError, "the connection to another process of this run is lost: Connection"),
        (None, False, SystemExit, "1"),
    ],
)
def test_who_lost_another_process_says_so_once(monkeypatch, launcher, first, kind, message):
    monkeypatch.setattr(processes, "PATIENCE", 0.1)

    with pytest.raises(kind, match=message), processes.one_message(trainer_with(launcher, first)):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shapes"), processes.one_message(trainer_with(None)):
        raise RuntimeError("shapes do not fit")
