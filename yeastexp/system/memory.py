"""Free memory of a device, errors of memory that ran out, and keeping freed memory for the next training step."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Options of glibc's `mallopt`: how much free memory at the heap's end, and which size of a freed block, the system
gets back."""

LARGEST = 2**25
"""The largest MMAP_THRESHOLD in bytes; twice that is the largest TRIM_THRESHOLD that glibc chooses by itself."""


def free(device: torch.device) -> int:
    """Return the bytes of a device, or of main memory for the CPU, that this process can still allocate."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # in PyTorch's own cache
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    known = [one for one in (_of_machine(), _of_container()) if one is not None]
    return max(0, min(known)) if known else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_exhausted(error: BaseException) -> bool:
    """Whether an exception of PyTorch says that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def kept_for_next_step() -> Iterator[None]:
    """Keep the memory of freed tensors of up to 32 MiB in the process within the block, if the C library is glibc.

    Each step needs as much again. Memory that was returned comes back as new pages, which the system has to clear:
    1,200 to 3,000 pages in a step of 40 ms, which takes 3 ms of it (measured).
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
    """Return the bytes that the container may still allocate; cached files count as free, as they are dropped first."""
    try:
        most, now = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        return None
    return most - now + _named(group / "memory.stat").get("inactive_file", 0)


def _named(path: Path) -> dict[str, int]:
    """Return the numbers by name of a system file with a name and a number in each line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}
