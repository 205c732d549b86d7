"""Images that are read piece by piece, so that they need not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from yeastexp.errors import UserError

Array = npt.NDArray[Any]
Size = tuple[int, int]

BAND = 1 << 22
"""Pixels of a band of rows, as many as are in memory at a time."""


@dataclass(frozen=True)
class Pieces:
    """An image or logits of `size` (H, W) whose pieces (C, h, w) are given by `cut(rows, columns)`.

    Iterating yields bands of rows (C, h, W), from top to bottom, and may be repeated.
    """

    size: Size
    cut: Callable[[slice, slice], Tensor]

    @classmethod
    def of(cls, values: Tensor) -> Pieces:
        """Pieces of an image (C, H, W) that is in memory."""
        return cls((values.shape[1], values.shape[2]), lambda rows, columns: values[:, rows, columns])

    @property
    def whole(self) -> Tensor:
        """The whole image (C, H, W)."""
        return self.cut(slice(0, self.size[0]), slice(0, self.size[1]))

    def __iter__(self) -> Iterator[Tensor]:
        return (self.cut(rows, slice(0, self.size[1])) for rows in bands(self.size))


@dataclass(frozen=True)
class StoredImage:
    """An image (C, H, W) whose pieces (C, h, w) are given by `read(rows, columns)`, in the type they are stored in.

    `normalization` holds the mean and standard deviation that it was normalised with, if it was; `pixel_um` is the
    side of a pixel in micrometres, and `channel_names` are those of its channels, if known.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[slice, slice], Array]
    normalization: dict[str, Any] | None = None
    pixel_um: float | None = None
    channel_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, values: Array) -> StoredImage:
        """A stored image of values (C, H, W) that are in memory."""
        channels, height, width = values.shape
        return cls(name, (channels, height, width), values.dtype, lambda rows, columns: values[:, rows, columns])

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.shape[1], self.shape[2]

    @property
    def whole(self) -> Array:
        """The whole image (C, H, W)."""
        return self.read(slice(0, self.shape[1]), slice(0, self.shape[2]))


def one_of_equal_channels(image: StoredImage) -> StoredImage:
    """The first channel of an image whose three channels are equal, as many programs save grey; else the image.

    Compared band by band, up to the first that differs: a coloured image is told by its first band.
    """
    columns = slice(0, image.size[1])
    if image.shape[0] != 3 or image.normalization:
        return image
    for rows in bands(image.size):
        piece = image.read(rows, columns)
        if (piece != piece[:1]).any():
            return image
    return replace(image, shape=(1, *image.size), read=lambda rows, columns: image.read(rows, columns)[:1])


def refuse_other_order(named: str, given: Sequence[str], trained: Sequence[str], run: str = "the run") -> None:
    """Raise UserError if the channels of something `named` are those that `run` was trained on, in another order."""
    order, wanted = ([*map(str.casefold, names)] for names in (given, trained))
    if order != wanted and sorted(order) == sorted(wanted):
        raise UserError(
            f"{named}: has the channels {', '.join(given)}, but {run} was trained on {', '.join(trained)}; save "
            "them in this order"
        )


def shifted(part: slice, by: int) -> slice:
    """A range of rows or columns moved by `by` pixels."""
    return slice(part.start + by, part.stop + by)


def bands(size: Size) -> Iterator[slice]:
    """The rows of an image, from top to bottom, as slices of at most `BAND` pixels, but at least one row."""
    height, width = size
    rows = max(1, BAND // width)
    return (slice(row, min(row + rows, height)) for row in range(0, height, rows))


def refuse_nan(name: str | Path, values: Array) -> None:
    """Raises UserError if a value is not finite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{name}: holds NaN or infinite values; fix or remove it")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn any exception, as decoders raise on damaged files, into a UserError of one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be decoded ({one_line(error)}); the file is damaged") from None


def one_line(error: Exception) -> str:
    """The message of an exception in one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
