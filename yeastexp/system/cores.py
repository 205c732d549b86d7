"""The processor cores that this process may use, and how long its threads wait for them."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ContextDecorator, suppress
from functools import cache
from pathlib import Path

import torch

ASKED = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""Environment variables by which a user or a cluster limits the number of threads."""

BUSY = 0.2
"""A machine counts as busy if a thread spends more than this share of the time waiting for a core."""

GROUPS = Path("/sys/fs/cgroup")


def allowed() -> tuple[int, str]:
    """Return the largest number of compute threads that this process may use, and what limits it, as text."""
    return min(_limits(), key=lambda limit: limit[0])


def keep_to_allowed() -> None:
    """Limit PyTorch's threads to `allowed`: PyTorch itself ignores control groups and clusters."""
    torch.set_num_threads(min(torch.get_num_threads(), allowed()[0]))


def seconds_waited() -> dict[str, float]:
    """Return for how long each thread was ready to run but had no core, in seconds, by thread; empty but on Linux."""
    waited = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # of a thread that has ended
            waited[file.parent.name] = int(file.read_text(encoding="ascii").split()[1]) / 1e9
    return waited


class Waiting:
    """Measures, from its construction on, the share of the time that threads wait for a core."""

    def __init__(self, seconds_waited: Callable[[], Mapping[str, float]] = seconds_waited) -> None:
        self.seconds_waited = seconds_waited
        self.began, self.before = time.monotonic(), seconds_waited()

    @property
    def seconds(self) -> float:
        """Seconds since the construction."""
        return time.monotonic() - self.began

    @property
    def share(self) -> float:
        """The share of the thread that waited longest, of those that existed at the construction; 0 if unknown.

        The slowest thread counts, not the mean: the threads of an operator all wait for it.
        """
        after = self.seconds_waited()
        waits = [waited - self.before[thread] for thread, waited in after.items() if thread in self.before]
        return min(max(waits, default=0.0) / max(self.seconds, 1e-9), 0.99)


class OneThread(ContextDecorator):
    """Lets PyTorch compute on one thread within the block, if the functions of its OpenMP and MKL can be called.

    Threads that share small operators wait for each other in each of them: beside busy processes that takes twenty
    times as long as one thread does. `torch.set_num_threads` would do the same, but also drops what oneDNN has
    prepared, which makes the next tiny step a fifth longer.
    """

    def __enter__(self) -> None:
        self.before = [(change, change(1)) for change in _thread_setters()]

    def __exit__(self, *raised: object) -> None:
        for change, before in self.before:
            change(before)


@cache
def _thread_setters() -> list[Callable[[int], int]]:
    """Return functions that set the number of threads of the calling thread and return the number before."""
    library = ctypes.CDLL(torch._C.__file__)  # finds what PyTorch was linked with
    setters: list[Callable[[int], int]] = []
    if hasattr(library, "omp_set_num_threads"):

        def of_openmp(threads: int) -> int:
            before: int = library.omp_get_max_threads()
            library.omp_set_num_threads(threads)
            return before

        setters.append(of_openmp)
    if hasattr(library, "MKL_Set_Num_Threads_Local"):
        setters.append(library.MKL_Set_Num_Threads_Local)  # 0: as many as PyTorch says
    return setters


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
    """Yield the cores that control groups of both versions grant, in the process's own group and those around it."""
    # A limit of an outer group holds for all inner ones, but is not repeated in their files.
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
    """Yield quota / period, from one file with both numbers or two files; nothing if there is no limit."""
    try:
        quota, period = " ".join(file.read_text(encoding="ascii") for file in files).split()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file; or 'max'
        return
    if cores > 0:
        yield cores
