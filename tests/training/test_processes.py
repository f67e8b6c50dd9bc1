"""The parts from which training by several processes is made, without starting any."""

from types import SimpleNamespace

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
    monkeypatch.setattr(distributed, "all_reduce", lambda total: total.copy_(torch.tensor([4.0, 0.0])))

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
    """A process that has ended with an exit code, or goes on until it is killed."""

    def __init__(self, code):
        self.code = code
        self.killed = False

    def poll(self):
        return self.code

    def kill(self):
        self.killed = True


def trainer_with(launcher, first=True):
    return SimpleNamespace(world_size=2, is_global_zero=first, strategy=SimpleNamespace(launcher=launcher))


LOST = RuntimeError("Connection closed by peer [127.0.0.1]:1234")


@pytest.mark.parametrize(
    ("launcher", "first", "error", "kind", "message"),
    [
        (Launcher(0, 1), True, LOST, SystemExit, "^1$"),  # it has told why
        (Launcher(75, 1), True, processes.FailedElsewhereError(), SystemExit, "^1$"),
        (Launcher(1, 143), True, LOST, Stopped, "143"),
        (Launcher(1, -9), True, LOST, UserError, "a process of this run was ended by SIGKILL"),
        (Launcher(0, None), True, LOST, UserError, "connection to another process of this run is lost: Connection"),
        (Launcher(75, 75), True, LOST, UserError, "connection to another process of this run is lost: Connection"),
        (None, True, LOST, UserError, "connection to another process of this run is lost: Connection"),
        (None, True, processes.FailedElsewhereError(), SystemExit, "^1$"),
        (None, False, LOST, SystemExit, "^75$"),
    ],
)
def test_of_several_processes_one_tells_why_the_run_ends(monkeypatch, launcher, first, error, kind, message):
    monkeypatch.setattr(processes, "PATIENCE", 0.1)

    with pytest.raises(kind, match=message), processes.one_message(trainer_with(launcher, first)):
        raise error


def test_a_process_that_does_not_end_with_the_first_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.1)
    launcher = Launcher(None)

    with pytest.raises(UserError), processes.one_message(trainer_with(launcher)):
        raise UserError("a full disk")

    assert launcher.procs[0].killed


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shapes"), processes.one_message(trainer_with(None)):
        raise RuntimeError("shapes do not fit")
