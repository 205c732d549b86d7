"""Memory: how much a device has left, and whether it ran out."""

from __future__ import annotations

import os
from pathlib import Path

import torch


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
