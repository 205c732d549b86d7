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
"""Shape, (H, W) or (K, H, W), and type of the values of a file."""

STRIP = 256
"""Rows of a strip: programs that read strips at once need not read all of an image."""

RECORDED = {"identity", "side", "rows", "seconds", "finished"}


class GrowingTiffs:
    """Files that are written together, and the record of how far they came.

    `rows` of them are on disk, whatever happens next; all tiles have one `side`, if that matters.
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
        """Go on with what a command with the same identity left behind, or make empty files."""
        with _writing(next(iter(self.forms))):
            self._begin(_read_record(self.record))

    def _begin(self, state: Mapping[str, Any] | None) -> None:
        if state and state["identity"] == self.identity and all(part.is_file() for part in self.parts.values()):
            self.rows, self.seconds, self.side = state["rows"], state["seconds"], state["side"]
        else:
            self.record.unlink(missing_ok=True)  # it is not that of the files that are made now
            for left in _left(next(iter(self.forms))):
                left.unlink()
            for target, part in self.parts.items():
                _create(part, *self.forms[target])

    def arrays(self) -> list[Array]:
        """The pixels of each file: what is assigned to them is written.

        They are mapped into memory anew, for a few assignments: pages that stay mapped would count as this process's
        memory, until it is all of the files.
        """
        return [
            tifffile.memmap(self.parts[target], mode="r+").reshape(shape) for target, (shape, _) in self.forms.items()
        ]

    def keep(self, rows: int, seconds: float) -> None:
        """All rows above are written: keep them from now on."""
        with _writing(next(iter(self.forms))):
            for part in self.parts.values():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
            self.rows, self.seconds = rows, seconds
            self._write_record(None)

    def appear(self, finished: Mapping[str, Any]) -> None:
        """Let the files be seen, the first one last; `finished` is kept with the record until that is removed."""
        targets = list(self.parts)
        with _writing(targets[0]):
            for target in [*targets[1:], targets[0]]:
                self.parts[target].replace(target)
            self._write_record(finished)

    def _write_record(self, finished: Mapping[str, Any] | None) -> None:
        state = {key: getattr(self, key) for key in RECORDED - {"finished"}}
        files.write_text(self.record, json.dumps({**state, "finished": finished}))


def _create(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """An empty file whose room is taken: a write through memory to a disk that is full would kill the process."""
    tifffile.memmap(
        path, shape=shape, dtype=dtype, photometric="minisblack", rowsperstrip=STRIP, metadata=None, software=False,
        bigtiff=math.prod(shape) * np.dtype(dtype).itemsize > 1 << 31,  # offsets of 32 bits do not suffice
    )  # fmt: skip
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def record_of(target: Path) -> Path:
    """Where the progress of a file that grows is kept."""
    return target.with_name(f".{target.name}.progress")


def _left(mask: Path) -> Iterator[Path]:
    """What a killed process may have left in the folders beside a mask; not what belongs to a mask there."""
    for part in mask.parent.glob(f"*/.{glob.escape(mask.name)}.part"):
        other = part.parent / mask.name
        if not record_of(other).exists() and not _lock_of(other).exists():
            yield part


def remember(target: Path, identity: Mapping[str, Any], finished: Mapping[str, Any]) -> None:
    """Keep, with a file that was written at once, what `finished` will give for it."""
    with _writing(target):
        state = {"identity": dict(identity), "side": None, "rows": 0, "seconds": 0.0, "finished": dict(finished)}
        files.write_text(record_of(target), json.dumps(state))


def finished(targets: Sequence[Path], identity: Mapping[str, Any], but: str = "") -> dict[str, Any] | None:
    """What was kept with files that a command with this identity, but for a key, has finished; None if it has not."""
    state = _read_record(record_of(targets[0]))
    if not state or not all(target.is_file() for target in targets):
        return None
    if {key: value for key, value in state["identity"].items() if key != but} != dict(identity):
        return None
    kept: dict[str, Any] | None = state["finished"]
    return kept


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and state.keys() >= RECORDED else None


@contextmanager
def growing(forms: Mapping[Path, Form], identity: Mapping[str, Any], side: int | None = None) -> Iterator[GrowingTiffs]:
    """Files that no other process writes meanwhile. Raises UserError if they cannot be written, as on a full disk."""
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
    """A full disk, and whatever else keeps files from being written, in a line."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise files.unwritten(first, error) from error
        reason = error.strerror or one_line(error)
        fault = f"{first}: cannot be written ({reason}); make room, and the same command continues"
        raise UserError(fault, status=RUN_FAILED) from error
