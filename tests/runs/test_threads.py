"""The number of threads: what may be used of the machine, and who has the last word."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf

from seq2seq.errors import UserError
from seq2seq.runs import threads
from seq2seq.runs.threads import available_cores, free_cores, set_threads

V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)


@pytest.fixture
def machine(request, monkeypatch):
    """Sixteen cores, a user who sets nothing, and what reaches PyTorch."""
    request.getfixturevalue("sixteen_cores")
    numbers = []
    monkeypatch.setattr(threads, "GIVEN", None)
    monkeypatch.setattr(threads, "CGROUPS", ROOT / "absent")
    monkeypatch.setattr(threads, "STATE", ROOT / "absent")
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "50000 100000\n"}, 1),  # half a core
        ({"cpu.max": "9000000 100000\n"}, 16),  # more than there are
        ({"cpu.max": "odd\n"}, 16),
        (dict(zip(V1, ("250000\n", "100000\n"), strict=True)), 2),
        (dict(zip(V1, ("-1\n", "100000\n"), strict=True)), 16),
    ],
)
def test_what_a_container_may_use_counts(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({"threads": "auto"}, 16),
        ({"threads": 3}, 3),
        ({"threads": "auto", "trainer": {"devices": 4}}, 4),
        ({"threads": "auto", "trainer": {"devices": [0, 1, 2]}}, 5),
        ({"threads": "auto", "trainer": {"devices": 99}}, 1),
        ({"threads": 3, "trainer": {"devices": 2}}, 3),
    ],
)
def test_the_product_of_threads_and_processes_is_not_above_the_cores(machine, config, number):
    set_threads(OmegaConf.create(config))

    assert (os.environ[threads.VARIABLE], machine) == (str(number), [number])


@pytest.mark.parametrize("devices", ["auto", -1])
def test_where_only_lightning_knows_the_number_of_processes_it_divides(machine, devices):
    set_threads(OmegaConf.create({"threads": "auto", "trainer": {"devices": devices}}))

    assert machine == []


def test_the_environment_of_the_user_wins(machine, monkeypatch):
    monkeypatch.setattr(threads, "GIVEN", "7")

    set_threads(OmegaConf.create({"threads": 3}))

    assert machine == []


@pytest.mark.parametrize(
    ("others", "config", "number"),
    [
        (0, {"threads": "auto"}, 16),
        (1, {"threads": "auto"}, 15),
        (99, {"threads": "auto"}, 1),
        (4, {"threads": "auto", "trainer": {"devices": 2}}, 6),
        (99, {"threads": 8}, 8),
        (99, {"threads": "auto", "workers": "auto"}, 16),  # which do not wait for each other
    ],
)
def test_cores_that_others_use_are_left_to_them(machine, monkeypatch, tmp_path, others, config, number):
    (tmp_path / "stat").write_text(f"cpu  1 2 3\nprocs_running {others + 1}\nprocs_blocked 9\n")
    monkeypatch.setattr(threads, "STATE", tmp_path / "stat")

    set_threads(OmegaConf.create(config))

    assert machine == [number]


@pytest.mark.usefixtures("machine")
def test_a_moment_in_which_others_run_does_not_count(monkeypatch):
    counts = iter([1, 9, 1, 1, 9])
    state = SimpleNamespace(read_text=lambda encoding: f"procs_running {next(counts)}".encode().decode(encoding))
    monkeypatch.setattr(threads, "STATE", state)

    assert free_cores() == 16


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
@pytest.mark.usefixtures("machine")
def test_how_threads_wait_can_be_said_in_the_environment(monkeypatch, given, spins):
    for name, value in given.items():
        monkeypatch.setitem(os.environ, name, value)

    set_threads(OmegaConf.create({"threads": "auto"}))

    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("value", [0, -1, "all", True, 1.5, None])
def test_anything_else_is_one_line(value):
    with pytest.raises(UserError, match=f"^threads={value} must be auto or a whole number of at least 1"):
        set_threads(OmegaConf.create({"threads": value}))


def test_pytorch_starts_with_that_number():
    environment = {name: value for name, value in os.environ.items() if name != threads.VARIABLE}
    code = (
        "from seq2seq.runs.console import find_command\nfrom omegaconf import OmegaConf\n"
        "find_command('predict.predict', OmegaConf.create({'threads': 1, 'parts': None}))\n"
        "import torch\nprint(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"
