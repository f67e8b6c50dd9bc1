"""How many threads compute, as many as there are cores for this process, and how they wait for each other.

PyTorch takes as many as the process may run on, but it does not know that a container may use less of them, or that
several processes share them. Both are set before PyTorch is imported, which this module does not do.
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


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""How OpenMP's threads wait. If the environment sets one of them, nothing is changed."""

SPINS = 10_000
"""A thread asks as often, for some microseconds, whether the others are done, before it sleeps."""

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

    It is a number, or ``auto``: the cores that this process may use, divided by the processes of ``trainer.devices``.

    Raises:
        UserError: If it is neither.
    """
    number = config.threads
    if number != "auto" and not (type(number) is int and number > 0):
        raise UserError(f"threads={number} must be auto or a whole number of at least 1")
    processes = processes_of(OmegaConf.select(config, "trainer.devices"))
    if GIVEN is not None or processes is None:  # Lightning finds out how many there are, and divides
        return
    number = max(1, available_cores() // processes) if number == "auto" else number
    os.environ[VARIABLE] = str(number)
    if number > 1 and not any(name in os.environ for name in WAITING):
        os.environ.update(waiting(number * processes))
    if torch := sys.modules.get("torch"):  # a sweep's further runs
        torch.set_num_threads(number)


def waiting(threads: int) -> dict[str, str]:
    """Return how so many threads wait, as the environment says it; what they compute does not depend on it.

    A small operation takes microseconds, and a thread that sleeps wakes up later than that, so threads spin while they
    wait. But if another process has the core of the one that they wait for, spinning only keeps that one waiting, too:
    beside two other processes, training was 20 times as slow. So they spin for a short time, and sleep at once if the
    machine has no cores left for them when a command starts. docs/benchmark.md has the figures.
    """
    left = (os.cpu_count() or 1) - busy_cores()
    return {"OMP_WAIT_POLICY": "passive"} if threads > left else {"GOMP_SPINCOUNT": str(SPINS)}


def busy_cores() -> int:
    """Return how many other threads run or wait for a core, the median of five moments; 0 where Linux does not say."""
    counts = []
    for _ in range(5):
        try:
            found = re.search(r"^procs_running (\d+)$", STATE.read_text(encoding="ascii"), re.MULTILINE)
        except OSError:
            return 0
        counts.append(int(found[1]) - 1 if found else 0)  # without this one
        time.sleep(0.01)
    return sorted(counts)[2]


def processes_of(devices: Any) -> int | None:  # noqa: ANN401 - whatever the config holds
    """Return how many processes a value of ``trainer.devices`` makes, None if only Lightning knows."""
    if isinstance(devices, ListConfig):
        return max(1, len(devices))
    return 1 if devices is None else devices if type(devices) is int and devices > 0 else None
