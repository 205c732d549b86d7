"""TIFF files that grow band by band under hidden names; a killed process leaves what the next one continues from."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from filelock import FileLock, Timeout

from yeastexp.data.pieces import one_line
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files

Array = npt.NDArray[Any]
Form = tuple[tuple[int, ...], type[np.generic]]
"""The shape, (H, W) or (K, H, W), and the type of the values of a file."""

STRIP = 256
"""Rows of a strip; programs that read whole strips then need not read all of an image."""

RECORDED = {"identity", "side", "rows", "seconds", "finished"}


class GrowingTiffs:
    """Files that are written together, and the record of how far they came.

    The first `rows` rows of all files are on the disk, whatever happens next. `side` is that of tiles, if outputs
    depend on it.
    """

    def __init__(self, forms: Mapping[Path, Form], identity: Mapping[str, Any], side: int | None = None) -> None:
        self.forms = forms
        self.identity = dict(identity)
        self.side = side
        self.parts = {target: target.with_name(f".{target.name}.part") for target in forms}
        self.record = record_of(next(iter(forms)))
        self.rows = 0
        self.seconds = 0.0

    def begin(self) -> None:
        """Continue the files that a command with the same identity left behind, or make empty ones."""
        with _writing(next(iter(self.forms))):
            self._begin(_read_record(self.record))

    def _begin(self, state: Mapping[str, Any] | None) -> None:
        if state and state["identity"] == self.identity and all(part.is_file() for part in self.parts.values()):
            self.rows, self.seconds, self.side = state["rows"], state["seconds"], state["side"]
        else:
            # The record goes first: if the process is killed in between, it must not vouch for rows of empty files.
            self.record.unlink(missing_ok=True)
            for left in _left(next(iter(self.forms))):
                left.unlink()
            for target, part in self.parts.items():
                _create(part, *self.forms[target])

    def arrays(self) -> list[Array]:
        """Return the pixels of each file as an array; what is assigned to it is written to the file."""
        # Mapped anew at each call, for a few assignments: pages that stay mapped would count as this process's memory,
        # in the end with all of the files.
        return [
            tifffile.memmap(self.parts[target], mode="r+").reshape(shape) for target, (shape, _) in self.forms.items()
        ]

    def keep(self, rows: int, seconds: float) -> None:
        """Record that the first `rows` rows are written, so that the next process continues from there."""
        # Pixels reach the disk before the record that says so: after a power cut it may say too little, never too much.
        with _writing(next(iter(self.forms))):
            for part in self.parts.values():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
            self.rows, self.seconds = rows, seconds
            self._write_record(None)

    def appear(self, finished: Mapping[str, Any]) -> None:
        """Give the files their names, the first one last; `finished` is kept in the record until that is removed."""
        targets = list(self.parts)
        with _writing(targets[0]):
            for target in [*targets[1:], targets[0]]:
                self.parts[target].replace(target)
            self._write_record(finished)

    def _write_record(self, finished: Mapping[str, Any] | None) -> None:
        state = {key: getattr(self, key) for key in RECORDED - {"finished"}}
        files.write_text(self.record, json.dumps({**state, "finished": finished}))


def _create(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """Create a TIFF file of zeros with all of its blocks allocated."""
    # Allocated, because writing through mapped memory to a full disk ends in SIGBUS, which kills the process. The
    # 32-bit offsets of a plain TIFF do not suffice above 2 GB.
    tifffile.memmap(
        path, shape=shape, dtype=dtype, photometric="minisblack", rowsperstrip=STRIP, metadata=None, software=False,
        bigtiff=math.prod(shape) * np.dtype(dtype).itemsize > 1 << 31,
    )  # fmt: skip
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def record_of(target: Path) -> Path:
    """Return the path of the record about a file that grows."""
    return target.with_name(f".{target.name}.progress")


def _left(mask: Path) -> Iterator[Path]:
    """Yield what a killed process may have left in the subfolders beside a mask; not what belongs to a mask there."""
    for part in mask.parent.glob(f"*/.{glob.escape(mask.name)}.part"):
        other = part.parent / mask.name
        if not record_of(other).exists() and not _lock_of(other).exists():
            yield part


def remember(target: Path, identity: Mapping[str, Any], finished: Mapping[str, Any]) -> None:
    """Record for a file that was written at once what `finished` is to return for it."""
    with _writing(target):
        state = {"identity": dict(identity), "side": None, "rows": 0, "seconds": 0.0, "finished": dict(finished)}
        files.write_text(record_of(target), json.dumps(state))


def finished(targets: Sequence[Path], identity: Mapping[str, Any], but: str = "") -> dict[str, Any] | None:
    """Return what was recorded with files that a command with this identity has finished; None if it has not.

    `but` is a key that the recorded identity may have besides.
    """
    state = _read_record(record_of(targets[0]))
    if not state or not all(target.is_file() for target in targets):
        return None
    if {key: value for key, value in state["identity"].items() if key != but} != dict(identity):
        return None
    kept: dict[str, Any] | None = state["finished"]
    return kept


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return a record; None if it is not there or damaged, which means to begin anew."""
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and state.keys() >= RECORDED else None


@contextmanager
def growing(forms: Mapping[Path, Form], identity: Mapping[str, Any], side: int | None = None) -> Iterator[GrowingTiffs]:
    """Hold a lock on files that grow and yield them, begun or continued.

    Raises UserError if another process writes them, or if they cannot be written, as on a full disk.
    """
    first = next(iter(forms))
    lock = FileLock(_lock_of(first), blocking=False)
    with _writing(first):
        for target in forms:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{first}: another process is writing it; wait for it, or name another folder") from None
    try:
        tiffs = GrowingTiffs(forms, identity, side)
        tiffs.begin()
        yield tiffs
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


@contextmanager
def _writing(first: Path) -> Iterator[None]:
    """Turn an OSError, such as that of a full disk, into a UserError that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise files.unwritten(first, error) from error
        reason = error.strerror or one_line(error)
        fault = f"{first}: cannot be written ({reason}); make room, and the same command continues"
        raise UserError(fault, status=RUN_FAILED) from error
