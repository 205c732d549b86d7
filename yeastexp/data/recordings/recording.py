"""Arrays in files, with their axes, as sequences of images (C, H, W) that are read one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from yeastexp.data.images import LARGEST
from yeastexp.data.pieces import decoding
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_count

Array = npt.NDArray[Any]
Select = Callable[[tuple[int | slice, ...]], Array]
"""A function that reads part of an array, given an index or a slice for each axis."""

LETTERS = {"T": "frames", "C": "channels", "Z": "planes in depth", "Y": "rows", "X": "columns"}
NUMBER = np.dtype(np.uint8)
WHOLE = slice(None)
UNKNOWN = "?"
"""The letter of an axis whose meaning the file does not say."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file that is opened to be read in parts; `axes` has a letter for each length of `shape`.

    Without axes it is one image (C, H, W), whose shape is known once it is read. Its images are named after `name`;
    `kind` names the file format in messages. Samples of colour (S) are channels like others.
    """

    path: Path
    name: str
    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    opened: Callable[[], AbstractContextManager[Select]] | Callable[[Path], Array]
    channel_names: tuple[str, ...] = ()
    pixel_um: float | None = None
    in_pieces: bool = False
    """Whether rows and columns can be read without the rest of a plane."""

    def open(self) -> AbstractContextManager[Select]:
        """Open the file as a function that reads part of it; without axes, each call reads the whole image."""
        if not self.axes:
            return _at_once(self.path, cast(Callable[[Path], Array], self.opened))
        return cast(Callable[[], AbstractContextManager[Select]], self.opened)()

    @property
    def unknown(self) -> int:
        """The length of the axis whose meaning is unknown; 1 if there is none."""
        return math.prod(size for axis, size in zip(self.axes, self.shape, strict=True) if axis == UNKNOWN)

    @property
    def size(self) -> str:
        """The shape as text, such as `5 × 64 × 64`."""
        return " × ".join(map(str, self.shape))


@dataclass(frozen=True)
class Choices:
    """Options for files that leave something open: their axes, the plane in depth, the arrays in HDF5 files."""

    axes: str | None = None
    z: str | None = None
    dataset: str | None = None
    label_dataset: str | None = None

    def __post_init__(self) -> None:
        if self.axes is not None:
            letters = self.axes.upper()
            odd = set(letters) - set(LETTERS)
            if odd or len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters):
                known = ", ".join(f"{letter} {word}" for letter, word in LETTERS.items())
                raise UserError(f"--axes {self.axes}: is no list of axes; name each once, as TYX or YXC ({known})")
            object.__setattr__(self, "axes", letters)
        if self.z is not None and self.z not in ("max", "middle") and not self.z.isdecimal():
            raise UserError(f"--z {self.z}: is no plane; give max (of all planes), middle, or a number from 0 on")


@dataclass(frozen=True, slots=True)
class Recording:
    """The images of an array: each frame (T) is one, of all channels (C) and one plane in depth (Z) or their maximum.

    `axes` is a letter for each axis of the array, those of length 1 that no letter was given as `1`.
    """

    array: StoredArray
    axes: str
    z: str | None = None

    @property
    def frames(self) -> int:
        """How many images there are."""
        return self.length("T")

    @property
    def is_stack(self) -> bool:
        """Whether there are several frames."""
        return self.frames > 1

    @property
    def channels(self) -> int:
        """The number of channels of each image."""
        return self.length("C") * self.length("S")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""
        return self.channels, self.length("Y"), self.length("X")

    def length(self, axis: str) -> int:
        """The length of an axis; 1 if there is no such axis."""
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1

    def image_name(self, frame: int) -> str:
        """The name of an image: that of the array, with the index if there are several frames, as in `stack_t0003`."""
        width = max(4, len(str(self.frames - 1)))
        return f"{self.array.name}_t{frame:0{width}d}" if self.is_stack else self.array.name

    def select(self, select: Select, frame: int, rows: slice = WHOLE, columns: slice = WHOLE) -> Array:
        """The image (C, H, W) of a frame, or some rows and columns of it, read by an opened array."""
        if not self.axes:
            return select(())
        parts = {"T": frame, "Z": slice(None) if self.plane is None else self.plane, "1": 0, "Y": rows, "X": columns}
        at = tuple(parts.get(axis, WHOLE) for axis in self.axes)
        # An index removes its axis, so the order is that of the axes read by a slice.
        there = [axis for axis, part in zip(self.axes, at, strict=True) if isinstance(part, slice)]
        order = [there.index(axis) for axis in "ZCSYX" if axis in there]
        with decoding(self.array.path):
            values = select(at)
        values = np.transpose(values, order)
        if "Z" in there:
            values = values.max(axis=0)
        return np.ascontiguousarray(values.reshape(self.channels, *values.shape[-2:]))

    @property
    def plane(self) -> int | None:
        """The index of the plane in depth that is read; None if it is the maximum of all."""
        planes = self.length("Z")
        if planes == 1 or self.z is None:
            return 0
        return None if self.z == "max" else planes // 2 if self.z == "middle" else int(self.z)

    def read(self, frame: int = 0) -> Array:
        """The image (C, H, W) of a frame."""
        with self.array.open() as select:
            return self.select(select, frame)

    @property
    def letters(self) -> str:
        """The axes without those of length 1 that have no letter."""
        return self.axes.replace("1", "")

    def described(self) -> str:
        """A line that says what the file is and which part of it is read."""
        if not self.axes:
            return self.array.kind
        held = [format_count(self.frames, "frame")] if self.is_stack else []
        held += [format_count(self.channels, "channel")] if self.channels > 1 else []
        if (planes := self.length("Z")) > 1:
            chosen = f"plane {self.plane} of 0 to {planes - 1}" if self.z != "max" else f"maximum of {planes} planes"
            held.append(chosen)
        return f"{self.array.kind} {self.letters} {self.array.size}" + (f": {', '.join(held)}" if held else "")


def as_recording(array: StoredArray, choices: Choices, *, in_pieces: bool = False) -> Recording:
    """An array as images. Raises UserError, with the option to add, if its axes leave open how, or do not fit.

    Images too large for memory are refused, unless the caller reads `in_pieces` and the file can be read so.
    """
    if not array.axes:
        return Recording(array, "")
    axes = _said(array, choices.axes) if choices.axes else array.axes
    lengths = {axis: size for axis, size in zip(axes, array.shape, strict=True) if size > 1}
    place = array.path
    if UNKNOWN in lengths:
        count = array.unknown
        what, size = "pages" if array.kind.endswith("TIFF") else "planes", " × ".join(map(str, array.shape[-2:]))
        raise UserError(
            f"{place}: holds {count} {what} of {size} and does not say what they are; "
            "add --axes TYX if they are frames, CYX if channels, ZYX with --z if planes in depth"
        )
    if odd := set(lengths) - set("TCZYXS"):
        raise UserError(
            f"{place}: has an axis '{min(odd)}' of {lengths[min(odd)]} ({axes} {array.size}); "
            f"say what it is by --axes, with {len(axes)} letters of {''.join(LETTERS)}"
        )
    axes = "".join(axis if axis in "TCZYXS" else "1" for axis in axes)
    if not {"Y", "X"} <= set(axes):
        raise UserError(f"{place}: has the axes {axes} ({array.size}), not rows Y and columns X; name all by --axes")
    planes = lengths.get("Z", 1)
    if planes > 1 and choices.z is None:
        frames = (
            f", or --axes {axes.replace('1', '').replace('Z', 'T')} if they are frames" if "T" not in lengths else ""
        )
        remedy = f"add --z max, --z middle or --z 0 to {planes - 1}{frames}"
        raise UserError(f"{place}: holds {planes} planes in depth; {remedy}")
    if planes > 1 and choices.z and choices.z.isdecimal() and int(choices.z) >= planes:
        raise UserError(f"{place}: holds {planes} planes in depth; --z {choices.z} is not one of 0 to {planes - 1}")
    recording = Recording(array, axes, choices.z if planes > 1 else None)
    if math.prod(recording.shape) > LARGEST and not (in_pieces and array.in_pieces):
        raise UserError(f"{place}: holds images of {array.size}, larger than this program reads; cut them into pieces")
    return recording


def _said(array: StoredArray, axes: str) -> str:
    """The letters of `--axes` for every axis of an array; they may be given for axes longer than 1 alone."""
    if len(axes) == len(array.shape):
        return axes
    long = [index for index, size in enumerate(array.shape) if size > 1]
    if len(long) <= 2 and array.axes[-2:] == "YX":  # a single plane among stacks
        return array.axes
    if len(long) != len(axes):
        raise UserError(
            f"{array.path}: has {len(array.shape)} axes ({array.axes.replace(UNKNOWN, '')} {array.size}), which --axes "
            f"{axes} does not fit; give a letter for each"
        )
    letters = dict(zip(long, axes, strict=True))
    return "".join(letters.get(index, "1") for index in range(len(array.shape)))


@dataclass
class Reading:
    """Reads images of many recordings and keeps the file of the last one open, as frames mostly follow one another."""

    _stack: ExitStack = field(default_factory=ExitStack)
    _last: StoredArray | None = None
    _select: Select | None = None

    def close(self) -> None:
        """Close the file that is open."""
        self._stack.close()
        self._last = None

    def read(self, recording: Recording, frame: int, rows: slice = WHOLE, columns: slice = WHOLE) -> Array:
        """The image (C, H, W) of a frame, or some rows and columns of it."""
        if self._last is not recording.array or self._select is None:
            self.close()
            self._select = self._stack.enter_context(recording.array.open())
            self._last = recording.array
        return recording.select(self._select, frame, rows, columns)


def one_image(
    path: Path,
    name: str,
    kind: str,
    read: Callable[[Path], Array],
    channel_names: tuple[str, ...] = (),
    pixel_um: float | None = None,
) -> StoredArray:
    """The array of a file of one image (C, H, W) that is read as a whole; its shape is unknown until then."""
    return StoredArray(path, name, kind, "", (), NUMBER, read, channel_names, pixel_um)


@contextmanager
def _at_once(path: Path, read: Callable[[Path], Array]) -> Iterator[Select]:
    yield lambda at: read(path)


def of_channels(paths: Sequence[Path], name: str, kind: str, read: Callable[[Path], Array]) -> StoredArray:
    """The array of an image whose channels are in files of their own."""

    def together(path: Path) -> Array:
        first, *others = (read(each) for each in paths)
        if odd := [each for each, other in zip(paths[1:], others, strict=True) if other.shape != first.shape]:
            raise UserError(f"{path} and {odd[0]}: are channels of one image, but differ in size; save them alike")
        return np.concatenate([first, *others])

    return one_image(paths[0], name, kind, together if len(paths) > 1 else read)
