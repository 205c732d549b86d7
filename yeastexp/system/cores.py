"""How many processor cores this process was given."""

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
"""Environment variables by which a user or a cluster says how many threads to take."""

BUSY = 0.2
"""Share of the time spent waiting for a core from which on a machine counts as busy."""

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


class Waiting:
    """How much of the time from now on goes by in waiting for others who have the cores."""

    def __init__(self, seconds_waited: Callable[[], Mapping[str, float]] = seconds_waited) -> None:
        self.seconds_waited = seconds_waited
        self.began, self.before = time.monotonic(), seconds_waited()

    @property
    def seconds(self) -> float:
        """How long it has been watched."""
        return time.monotonic() - self.began

    @property
    def share(self) -> float:
        """That of the thread that waited longest, of those that were there when it began; 0 if it is not known."""
        after = self.seconds_waited()
        waits = [waited - self.before[thread] for thread, waited in after.items() if thread in self.before]
        return min(max(waits, default=0.0) / max(self.seconds, 1e-9), 0.99)


class OneThread(ContextDecorator):
    """Meanwhile PyTorch computes on one thread, as far as its OpenMP and MKL are within reach.

    Threads that share small operators wait for each other in each: beside busy processes, twenty times as long as one
    takes. `torch.set_num_threads` drops what oneDNN has prepared, which a tiny step takes a fifth longer for.
    """

    def __enter__(self) -> None:
        self.before = [(change, change(1)) for change in _thread_setters()]

    def __exit__(self, *raised: object) -> None:
        for change, before in self.before:
            change(before)


@cache
def _thread_setters() -> list[Callable[[int], int]]:
    """Functions that set a number of threads for the calling thread, and give what it was before."""
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
