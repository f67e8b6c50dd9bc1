"""How many threads compute: as many as there are cores for this process.

PyTorch takes as many as the process may run on, but it does not know that a container may use fewer, or that several
processes or programs share them. The number is set before PyTorch is imported, which this module does not do.

Threads wait for each other after each small operation. They spin meanwhile, as an operation takes less time than waking
up. If another process has the core of one of them, all wait for it, and spinning takes the cores from those that could
compute: beside two busy processes, two threads were six times as slow as one (docs/benchmark.md). So busy cores are
not counted. Others may come later, so threads do not spin for long.
"""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from seq2seq.errors import UserError

VARIABLE = "OMP_NUM_THREADS"
"""If the environment sets it, as a user, joblib or ``torchrun`` may, nothing is changed."""

GIVEN = os.environ.get(VARIABLE)

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux says how much of the cores a container may use."""

SPINS = ("GOMP_SPINCOUNT", "10000")
"""How often a thread asks whether the others are done before it sleeps, unless the environment says how they wait."""

STATE = Path("/proc/stat")
"""Where Linux says how many processes run or wait for a core, on the whole machine."""


def available_cores(cgroups: Path = CGROUPS) -> int:
    """Return how many cores this process may use, by its affinity and by the limits of a container, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # of version 2 and 1
        try:
            quota, period = " ".join((cgroups / name).read_text(encoding="ascii") for name in names).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal():  # otherwise there is no limit
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def set_threads(config: DictConfig) -> None:
    """Set the number of threads that the key ``threads`` of a command's config gives.

    It is a number, or ``auto``: the cores that this process may use and nobody else uses, divided by the processes of
    ``trainer.devices``. Commands with worker processes, which do not wait for each other, count busy cores, too.

    Raises:
        UserError: If it is neither.
    """
    number = config.threads
    if number != "auto" and not (type(number) is int and number > 0):
        raise UserError(f"threads={number} must be auto or a whole number of at least 1")
    processes = processes_of(OmegaConf.select(config, "trainer.devices"))
    if GIVEN is not None or processes is None:  # Lightning finds out how many there are, and divides
        return
    if number == "auto":
        cores = available_cores() if "workers" in config else free_cores()
        number = max(1, cores // processes)
    os.environ[VARIABLE] = str(number)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SPINS)
    if torch := sys.modules.get("torch"):  # a sweep's further runs
        torch.set_num_threads(number)


def free_cores() -> int:
    """Return how many of the available cores nobody else uses, the median of five moments, at least 1."""
    available, others = available_cores(), []
    for _ in range(5):
        try:
            running = re.search(r"^procs_running (\d+)$", STATE.read_text(encoding="ascii"), re.MULTILINE)
        except OSError:  # another system
            return available
        others.append(int(running[1]) - 1 if running else 0)  # without this process
        time.sleep(0.01)
    return max(1, min(available, (os.cpu_count() or 1) - sorted(others)[2]))


def processes_of(devices: Any) -> int | None:  # noqa: ANN401 - whatever the config holds
    """Return how many processes a value of ``trainer.devices`` makes, None if only Lightning knows."""
    if isinstance(devices, ListConfig):
        return max(1, len(devices))
    return 1 if devices is None else devices if type(devices) is int and devices > 0 else None
