"""A description of what a run depends on beside its experiment: versions, machine, revision, data."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("yeastexp", "torch", "pytorch-ignite", "numpy", "scipy", "h5py", "tensorboard", "pydantic")
COMPARED = ("versions", "platform", "device", "threads", "git", "source", "digests")


def describe(device: torch.device, digests: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description as far as it is known before training, with `digests` of the files that are read."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "git": revision(Path.cwd()),
        "source": source(),
        "command": sys.argv,
        "digests": digests,
        "started": now(),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}


@functools.cache  # what is imported stays, whatever is installed meanwhile
def installed(package: str) -> str | None:
    """Return the version of a package; None if it is not installed, but run from its source folder."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def ended(environment: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return a description with the end of the run, its duration in seconds and its peak memory added."""
    return {**environment, "ended": now(), "seconds": round(seconds, 1), "peak_memory_mb": peak_memory_mb()}


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return, by dotted name, the pairs of values that differ between two descriptions and can change results."""
    flattened = [dict(flat({key: description.get(key) for key in COMPARED})) for description in (first, other)]
    names = dict.fromkeys([*flattened[0], *flattened[1]])
    pairs = {name: (flattened[0].get(name), flattened[1].get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the values of nested tables with their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def revision(folder: Path) -> dict[str, Any] | None:
    """Return the git revision of a folder and whether it has changes; None outside a repository."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return {"revision": head, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def source() -> dict[str, Any] | None:
    """Return the git revision of this package; None if it is not run from its repository."""
    here = Path(__file__).resolve()
    # An installed copy may lie inside the repository of another project, as in its virtual environment. Only the
    # repository that tracks this file counts.
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
    except (OSError, subprocess.SubprocessError):
        return None
    return revision(here.parent)


def _git(folder: Path, *words: str) -> str:
    output = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return output.stdout.strip()


def now() -> str:
    """Return the time in UTC, to the second, in ISO format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_memory_mb() -> int | None:
    """Return the peak memory of this process in MB (2^20 bytes); None if the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) // 1024 if lines else None
