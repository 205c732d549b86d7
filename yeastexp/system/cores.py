"""How many processor cores this process was given."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

ASKED = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""Environment variables by which a user or a cluster says how many threads to take."""

GROUPS = Path("/sys/fs/cgroup")


def allowed() -> tuple[int, str]:
    """The most compute threads that this process may take, and what says so."""
    return min(_limits(), key=lambda limit: limit[0])


def keep_to_allowed() -> None:
    """Let PyTorch, which knows of no control group and no cluster, take no more threads than that."""
    torch.set_num_threads(min(torch.get_num_threads(), allowed()[0]))


def seconds_waited() -> dict[str, float]:
    """How long each thread of this process was ready to run while others had the cores; nothing but on Linux."""
    waited = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # of a thread that has ended
            waited[file.parent.name] = int(file.read_text(encoding="ascii").split()[1]) / 1e9
    return waited


def _limits() -> Iterator[tuple[int, str]]:
    yield os.cpu_count() or 1, "cores of the machine"
    if hasattr(os, "sched_getaffinity"):
        yield len(os.sched_getaffinity(0)), "cores that the process is bound to"
    for quota in _quotas():
        yield max(1, int(quota)), "cores that the control group gets"
    for name in ASKED:
        first = re.match(r"\s*(\d+)\s*(,|$)", os.environ.get(name, ""))  # a list has one for each level of nesting
        if first and int(first[1]):
            yield int(first[1]), name


def _quotas(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """The cores that control groups grant, of both versions: this process's own, and those around it."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        lines = []
    of_version_1 = next((path for _, kinds, path in lines if "cpu" in kinds.split(",")), "/")
    of_version_2 = next((path for number, _, path in lines if number == "0"), "/")
    for folder in _with_parents(groups, of_version_2):
        yield from _quota(folder / "cpu.max")
    for folder in _with_parents(groups / "cpu", of_version_1):
        yield from _quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _with_parents(root: Path, path: str) -> list[Path]:
    inner = root / path.lstrip("/")
    return [folder for folder in (inner, *inner.parents) if folder == root or root in folder.parents]


def _quota(*files: Path) -> Iterator[float]:
    """A quota divided by its period, from a file with both or from two; nothing where there is no limit."""
    try:
        quota, period = " ".join(file.read_text(encoding="ascii") for file in files).split()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file; or 'max'
        return
    if cores > 0:
        yield cores
