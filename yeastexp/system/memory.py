"""Memory: how much a device has left, whether it ran out, and what is kept of it between training steps."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`: how much free memory at the end goes back to the system, and how large a freed piece does."""

LARGEST = 2**25
"""Bytes, the most that glibc takes for the second; twice that is the most that it comes to by itself for the first."""


def free(device: torch.device) -> int:
    """Bytes of a device, or of main memory, that this process can still have, as far as the system tells."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch's to give again
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    known = [one for one in (_of_machine(), _of_container()) if one is not None]
    return max(0, min(known)) if known else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_exhausted(error: BaseException) -> bool:
    """Whether an exception of torch says that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def kept_for_next_step() -> Iterator[None]:
    """Meanwhile the process keeps the memory that tensors of up to 32 MiB leave, where the C library is glibc.

    Each step needs as much again, and what was given back comes as new pages, which the system has to clear: measured,
    1,200 to 3,000 of them in a step of 40 ms, some 3 ms of it.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        yield
        return
    library.mallopt(MMAP_THRESHOLD, LARGEST)
    library.mallopt(TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        library.mallopt(TRIM_THRESHOLD, 2 * LARGEST)
        library.malloc_trim(0)


def _of_machine() -> int | None:
    free = _named(Path("/proc/meminfo")).get("MemAvailable:")
    return None if free is None else free * 1024


def _of_container(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take; files that are kept in memory make room."""
    try:
        most, now = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        return None
    return most - now + _named(group / "memory.stat").get("inactive_file", 0)


def _named(path: Path) -> dict[str, int]:
    """The numbers of a file of the system, a name and a number a line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}
