"""Images of any size: read piece by piece from TIFF and HDF5 files, and written band by band to tiled TIFF files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt
import tifffile
from filelock import FileLock, Timeout
from torch import Tensor

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files

Array = npt.NDArray[Any]
Size = tuple[int, int]

TILE = 256
"""Pixels of a side of the tiles that are written."""

HELD = 1 << 26
"""Bytes of decoded strips or tiles that are kept, for the next piece often lies in the same ones."""

LARGEST_SEGMENT = 1 << 28
"""Bytes of a strip, tile or chunk that is decoded to read a piece of it."""

INVERTED, GREY, RGB = 0, 1, 2
"""Photometric interpretations of TIFF; inverted grey is read as its stored values."""


BAND = 1 << 22
"""Pixels of the bands in which a whole image is gone through."""


@dataclass(frozen=True)
class Pieces:
    """An image of `size`, or logits on one, of which `cut(rows, columns)` gives pieces (C, h, w).

    It is iterated in bands of rows (C, h, W), from top to bottom, as often as one likes.
    """

    size: Size
    cut: Callable[[slice, slice], Tensor]

    @classmethod
    def of(cls, values: Tensor) -> Pieces:
        """Those of an image (C, H, W) that lies in memory."""
        return cls((values.shape[1], values.shape[2]), lambda rows, columns: values[:, rows, columns])

    @property
    def whole(self) -> Tensor:
        """All of it."""
        return self.cut(slice(0, self.size[0]), slice(0, self.size[1]))

    def __iter__(self) -> Iterator[Tensor]:
        return (self.cut(rows, slice(0, self.size[1])) for rows in bands(self.size, max(1, BAND // self.size[1])))


@dataclass(frozen=True)
class Picture:
    """An image (C, H, W) in the type it is stored in, of which `read(rows, columns)` gives pieces.

    `normalization` holds the figures it was stored with, if any.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[slice, slice], Array]
    normalization: dict[str, Any] | None = None

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.shape[1], self.shape[2]

    @property
    def whole(self) -> Array:
        """All of it."""
        return self.read(slice(0, self.shape[1]), slice(0, self.shape[2]))


def moved(one: slice, by: int) -> slice:
    """Rows or columns that lie so many further on."""
    return slice(one.start + by, one.stop + by)


def bands(size: Size, rows: int) -> Iterator[slice]:
    """An image cut into bands of so many rows."""
    return (slice(row, min(row + rows, size[0])) for row in range(0, size[0], rows))


def checked(name: str, piece: Array) -> Array:
    """A piece; UserError where a value is not finite."""
    if piece.dtype.kind == "f" and not np.isfinite(piece).all():
        raise UserError(f"{name}: holds NaN or infinite values; mend or remove it")
    return piece


# TIFF


BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def tiff_values(path: Path) -> int:
    """How many values a TIFF file claims to hold, 0 for a file that is none."""
    if not path.is_file():
        return 0
    try:
        with path.open("rb") as file:
            if file.read(4) not in BEGINNINGS:
                return 0
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            return int(page.imagewidth) * int(page.imagelength) * int(page.samplesperpixel)
    except Exception:  # on bad files tifffile raises all kinds of exceptions; who reads all of it says what is wrong
        return 0


def tiff(path: Path) -> Picture:
    """The picture in a TIFF file: grey or RGB; UserError where pieces of it cannot be read."""
    try:
        return _tiff(path)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be decoded ({_one_line(error)}); the file is damaged") from None


def _tiff(path: Path) -> Picture:
    with tifffile.TiffFile(path) as found:
        page: Any = found.pages[0]
        if len(found.pages) > 1:
            raise UserError(f"{path}: has {len(found.pages)} pages; save each as a file of its own")
        if page.photometric not in (INVERTED, GREY, RGB):
            raise UserError(f"{path}: is stored as {page.photometric.name}; save it as grey or RGB")
        if page.imagedepth > 1 or page.samplesperpixel != (3 if page.photometric == RGB else 1):
            raise UserError(f"{path}: holds {page.shape} values; save one grey or RGB picture without alpha channel")
        if page.dtype not in (np.uint8, np.uint16, np.float32):
            raise UserError(f"{path}: holds {page.dtype} values; save it as 8 or 16 bit unsigned integers or float32")
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if not ends or max(ends) > found.filehandle.size or 0 in page.databytecounts:
            raise UserError(f"{path}: cannot be decoded (pixels are missing); the file is damaged")
        planes, _, height, width, samples = page.shaped
        shape = (planes * samples, height, width)
        dtype = np.dtype(page.dtype).newbyteorder(found.byteorder)
        read: Callable[[slice, slice], Array]
        if page.is_contiguous:
            read = partial(_contiguous, path, page.dataoffsets[0], dtype, page.shaped)
        else:
            segment = math.prod(page.chunks) * page.dtype.itemsize
            if segment > LARGEST_SEGMENT:
                raise UserError(f"{path}: is compressed in one piece of {segment:,} bytes; save it in tiles")
            read = _Segments(path, page).read
    native = dtype.newbyteorder("=")
    return Picture(str(path), shape, native, lambda rows, columns: read(rows, columns).astype(native, copy=False))


def _contiguous(
    path: Path, offset: int, dtype: np.dtype[Any], shaped: tuple[int, ...], rows: slice, columns: slice
) -> Array:
    """A piece of pixels that lie in the file as they would in memory."""
    planes, _, height, width, samples = shaped
    h, w = rows.stop - rows.start, columns.stop - columns.start
    pieces = []
    with path.open("rb") as file:
        for plane in range(planes):
            if w == width:
                found = _taken(file, offset, dtype, (plane * height + rows.start) * width * samples, h * w * samples)
            else:
                places = (((plane * height + row) * width + columns.start) * samples for row in _each(rows))
                found = np.concatenate([_taken(file, offset, dtype, place, w * samples) for place in places])
            pieces.append(np.moveaxis(found.reshape(h, w, samples), -1, 0))
    return np.concatenate(pieces)


def _each(chosen: slice) -> range:
    return range(chosen.start, chosen.stop)


def _taken(file: BinaryIO, offset: int, dtype: np.dtype[Any], place: int, count: int) -> Array:
    file.seek(offset + place * dtype.itemsize)
    return np.frombuffer(file.read(count * dtype.itemsize), dtype)


class _Segments:
    """The strips or tiles of a TIFF page, decoded when a piece needs them."""

    def __init__(self, path: Path, page: Any) -> None:
        self.path = path
        self.decode = page.decode
        self.places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        self.planes, _, self.height, self.width, self.samples = page.shaped
        self.side: Size = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.width)
        self.dtype = np.dtype(page.dtype)
        self.compression = page.compression
        self.held: dict[int, Array] = {}

    def read(self, rows: slice, columns: slice) -> Array:
        """A piece (C, h, w)."""
        made = np.empty((self.planes * self.samples, rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        across, down = -(-self.width // self.side[1]), -(-self.height // self.side[0])
        for plane in range(self.planes):
            channels = slice(plane * self.samples, (plane + 1) * self.samples)
            for i in range(rows.start // self.side[0], -(-rows.stop // self.side[0])):
                for j in range(columns.start // self.side[1], -(-columns.stop // self.side[1])):
                    segment = self.segment((plane * down + i) * across + j)
                    into, source = _overlap(rows, columns, (i * self.side[0], j * self.side[1]), segment.shape[:2])
                    made[channels][:, into[0], into[1]] = np.moveaxis(segment[source], -1, 0)
        return made

    def segment(self, index: int) -> Array:
        """One strip or tile (h, w, samples)."""
        if index not in self.held:
            if sum(one.nbytes for one in self.held.values()) > HELD:
                self.held.clear()
            offset, count = self.places[index]
            with self.path.open("rb") as file:
                file.seek(offset)
                stored = file.read(count)
            try:
                decoded = self.decode(stored, index)[0]
            except Exception as error:  # decoders raise all kinds of exceptions
                raise UserError(f"{self.path}: {self.why(error)}") from None
            self.held[index] = decoded[0]
        return self.held[index]

    def why(self, error: Exception) -> str:
        """What is wrong with a segment, and the remedy."""
        if "imagecodecs" in str(error):
            return (
                f"is compressed by {self.compression.name}, which needs the package imagecodecs; "
                "install it, or save the file without compression"
            )
        return f"cannot be decoded ({_one_line(error)}); the file is damaged"


def _overlap(rows: slice, columns: slice, corner: Size, size: Sequence[int]) -> tuple[Any, Any]:
    """Where a segment lies in a piece, and what of it does."""
    into, source = [], []
    for wanted, first, length in zip((rows, columns), corner, size, strict=True):
        start, stop = max(wanted.start, first), min(wanted.stop, first + length)
        into.append(slice(start - wanted.start, stop - wanted.start))
        source.append(slice(start - first, stop - first))
    return tuple(into), tuple(source)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# HDF5


def hdf5(path: Path) -> list[Picture]:
    """The images under `raw` of an HDF5 file: a stack (N, H, W) or (N, C, H, W), or a group with an array a name.

    Nothing else of the file is asked for: images to be predicted need no truth.
    """
    try:
        with h5py.File(path, "r") as file:
            return list(_pictures(path, file))
    except UserError as error:
        raise UserError(*(f"{path}: {fault}" for fault in error.faults)) from None
    except OSError as error:
        short = "it is cut short" if "truncated" in str(error) else "it is no HDF5 file"
        reason = os.strerror(error.errno) if error.errno else short
        raise UserError(f"{path}: cannot be opened ({reason}); name an HDF5 file with images under 'raw'") from None
    except (RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py raises on damaged files
        raise UserError(f"{path}: cannot be read ({_one_line(error)}); the file is damaged") from None


def _pictures(path: Path, file: h5py.File) -> Iterator[Picture]:
    if "raw" not in set(file):
        raise UserError(f"has no 'raw' (it holds {', '.join(sorted(file)) or 'nothing'}); store images as 'raw'")
    stored = _own(file, "raw")
    normalization = _normalization(file)
    names = [str(one) for one in _own(file, "names").asstr()[()]] if "names" in set(file) else None
    if isinstance(stored, h5py.Group):
        for name in names if names is not None else sorted(stored):
            if name not in set(stored):
                raise UserError(f"'raw' has no array '{name}'; make the file again")
            yield _stored(path, name, _own(stored, name), f"raw/{name}", None, normalization)
        return
    count = stored.shape[0] if stored.ndim in (3, 4) else 0
    if not count:
        raise UserError(f"'raw' has shape {stored.shape}; it must be (N, H, W) or (N, C, H, W)")
    names = names or [f"{index:0{max(3, len(str(count - 1)))}d}" for index in range(count)]
    if len(names) != count:
        raise UserError(f"'raw' holds {count} images, but 'names' names {len(names)}; make the file again")
    for index, name in enumerate(names):
        yield _stored(path, name, stored, "raw", index, normalization)


def _own(parent: Any, key: str) -> Any:
    """A member that lies in this very file."""
    if not isinstance(parent.get(key, getlink=True), h5py.HardLink):
        raise UserError(f"'{key}' is a link, which may lead out of the file; copy the data into the file")
    member = parent[key]
    if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
        raise UserError(f"'{key}' is kept in another file; copy the data into this file")
    return member


def _normalization(file: h5py.File) -> dict[str, Any] | None:
    found = json.loads(file.attrs["normalization"]) if "normalization" in file.attrs else None
    if found is not None and not (isinstance(found, dict) and {"mean", "std"} <= found.keys()):
        raise UserError("attribute 'normalization' has no 'mean' and 'std'; make the file again")
    return found


def _stored(
    path: Path, name: str, array: Any, key: str, index: int | None, normalization: dict[str, Any] | None
) -> Picture:
    shape = array.shape if index is None else array.shape[1:]
    if len(shape) not in (2, 3) or 0 in shape:
        raise UserError(f"'raw' of image '{name}' has shape {shape}; it must be (H, W) or (C, H, W)")
    if array.dtype.kind not in "uif":
        raise UserError(f"'raw' holds {array.dtype} values; store numbers")
    if math.prod(array.chunks or ()) * array.dtype.itemsize > LARGEST_SEGMENT:
        raise UserError("'raw' is stored in chunks of more than 256 MiB; store it in smaller ones")
    channels, height, width = (1, *shape)[-3:]
    place = () if index is None else (index,)

    def read(rows: slice, columns: slice) -> Array:
        try:
            with h5py.File(path, "r") as file:
                found: Array = file[key][(*place, ..., rows, columns)]
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            reason = _one_line(error)
            raise UserError(f"{path}: image '{name}' cannot be read ({reason}); the file is damaged") from None
        return found.reshape(channels, *found.shape[-2:])

    return Picture(f"{path}/{name}", (channels, height, width), array.dtype, read, normalization)


def write_tiff(path: Path, values: Array) -> None:
    """Write (H, W), or (K, H, W) as pages, compressed without loss."""
    try:
        with files.appearing(path) as temporary:
            tifffile.imwrite(
                temporary, values, photometric="minisblack", compression="zlib", metadata=None, software=False
            )
    except OSError as error:
        fault = f"{path}: cannot be written ({error.strerror}); make room or name another place"
        raise UserError(fault, status=RUN_FAILED) from error


# Files that grow


class Growing:
    """Tiled TIFF files that are written band by band under hidden names, and the record of how far they came.

    `rows` of them are on disk, whatever happens next; all are made in pieces of one `side`, where that matters.
    """

    def __init__(
        self, forms: Mapping[Path, tuple[tuple[int, ...], Any]], identity: Mapping[str, Any], side: int | None = None
    ) -> None:
        self.forms = forms
        self.identity = dict(identity)
        self.side = side
        self.parts = {target: target.with_name(f".{target.name}.part") for target in forms}
        self.rows = 0
        self.seconds = 0.0
        self.offsets: dict[Path, list[int]] = {}

    @property
    def record(self) -> Path:
        """Where the progress stands."""
        return record_of(next(iter(self.forms)))

    def begin(self) -> None:
        """Go on with what a command with the same identity left behind, or make empty files."""
        found = _read_record(self.record)
        with self._explained():
            self._begin(found)

    def _begin(self, found: Mapping[str, Any] | None) -> None:
        if found and found["identity"] == self.identity and all(one.is_file() for one in self.parts.values()):
            self.rows, self.seconds, self.side = found["rows"], found["seconds"], found["side"]
        else:
            self.record.unlink(missing_ok=True)  # it is not of the files that are made now
            for target, part in self.parts.items():
                shape, dtype = self.forms[target]
                # A TIFF whose offsets of 32 bits do not suffice is a BigTIFF; the room it takes is taken now.
                big = math.prod(shape) * np.dtype(dtype).itemsize > 1 << 31
                tifffile.imwrite(
                    part, None, shape=shape, dtype=dtype, tile=(TILE, TILE), photometric="minisblack", bigtiff=big,
                    metadata=None, software=False,
                )  # fmt: skip
        for target, part in self.parts.items():
            with tifffile.TiffFile(part) as tiff:
                self.offsets[target] = [page.dataoffsets[0] for page in tiff.pages]

    def write(self, target: Path, rows: slice, columns: slice, values: Array) -> None:
        """Write (h, w) or (K, h, w) of values; rows and columns begin at multiples of `TILE`, and end there or last."""
        across = -(-self.forms[target][0][-1] // TILE)
        with self._explained(), self.parts[target].open("r+b") as file:
            for offset, plane in zip(self.offsets[target], values.reshape(-1, *values.shape[-2:]), strict=True):
                padded = np.pad(plane, [(0, -n % TILE) for n in plane.shape])
                for i, strip in enumerate(np.split(padded, padded.shape[0] // TILE)):
                    first = (rows.start // TILE + i) * across + columns.start // TILE
                    file.seek(offset + first * TILE * TILE * padded.itemsize)
                    file.write(strip.reshape(TILE, -1, TILE).swapaxes(0, 1).tobytes())

    def note(self, rows: int, seconds: float) -> None:
        """All rows above are written: keep them from now on."""
        with self._explained():
            for part in self.parts.values():
                _sync(part)
            self.rows, self.seconds = rows, seconds
            self._record(None)

    def appear(self, finished: Mapping[str, Any]) -> None:
        """Let the files be seen, the first one last; `finished` is kept with the record until that is removed."""
        targets = list(self.parts)
        with self._explained():
            for target in [*targets[1:], targets[0]]:
                self.parts[target].replace(target)
            self._record(finished)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A full disk, and whatever else keeps a file from being written, in a line."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or _one_line(error)
            fault = f"{next(iter(self.forms))}: cannot be written ({reason}); make room, and the same command goes on"
            raise UserError(fault, status=RUN_FAILED) from error

    def _record(self, finished: Mapping[str, Any] | None) -> None:
        state = {
            "identity": self.identity,
            "side": self.side,
            "rows": self.rows,
            "seconds": self.seconds,
            "finished": finished,
        }
        files.write_text(self.record, json.dumps(state))


def record_of(target: Path) -> Path:
    """Where the progress of a file that grows stands."""
    return target.with_name(f".{target.name}.progress")


def finished(targets: Sequence[Path], identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """What stands in the record of files that a command with this identity has finished, if one has."""
    found = _read_record(record_of(targets[0]))
    if not found or found["identity"] != dict(identity) or not all(one.is_file() for one in targets):
        return None
    kept: dict[str, Any] | None = found["finished"]
    return kept


RECORDED = {"identity", "side", "rows", "seconds", "finished"}


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= RECORDED else None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def growing(
    forms: Mapping[Path, tuple[tuple[int, ...], Any]], identity: Mapping[str, Any], side: int | None = None
) -> Iterator[Growing]:
    """Tiled TIFF files of such shapes (H, W) or (K, H, W) and types, held by one process; UserError on a full disk."""
    made = Growing(forms, identity, side)
    first = next(iter(forms))
    with made._explained():
        for target in forms:
            target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(first.with_name(f".{first.name}.lock"), blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{first}: another process is writing it; wait for it, or name another folder") from None
    try:
        made.begin()
        yield made
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
