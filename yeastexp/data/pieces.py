"""Images of any size, in memory or in a file, of which pieces can be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
"""Pixels of a band, which are in memory together."""


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
        return (self.cut(rows, slice(0, self.size[1])) for rows in bands(self.size))


@dataclass(frozen=True)
class StoredImage:
    """An image (C, H, W) in the type it is stored in, of which `read(rows, columns)` gives pieces.

    `normalization` holds the mean and standard deviation it was normalised with, if it was, and `pixel_um` the side of
    a pixel, if it is known.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[slice, slice], Array]
    normalization: dict[str, Any] | None = None
    pixel_um: float | None = None

    @classmethod
    def of(cls, name: str, values: Array) -> StoredImage:
        """One that was read at once."""
        channels, height, width = values.shape
        return cls(name, (channels, height, width), values.dtype, lambda rows, columns: values[:, rows, columns])

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.shape[1], self.shape[2]

    @property
    def whole(self) -> Array:
        """All of it."""
        return self.read(slice(0, self.shape[1]), slice(0, self.shape[2]))


def one_of_equal_channels(image: StoredImage) -> StoredImage:
    """The first channel of an image whose three are equal, as many programs save a grey one; else the image."""
    columns = slice(0, image.size[1])
    if image.shape[0] != 3 or image.normalization:
        return image
    for rows in bands(image.size):
        piece = image.read(rows, columns)
        if (piece != piece[:1]).any():
            return image
    return replace(image, shape=(1, *image.size), read=lambda rows, columns: image.read(rows, columns)[:1])


def shifted(part: slice, by: int) -> slice:
    """Rows or columns moved by a number of pixels."""
    return slice(part.start + by, part.stop + by)


def bands(size: Size) -> Iterator[slice]:
    """The rows of an image in bands of about `BAND` pixels, so that all of it can be gone through in little memory."""
    height, width = size
    rows = max(1, BAND // width)
    return (slice(row, min(row + rows, height)) for row in range(0, height, rows))


def refuse_nan(name: str | Path, values: Array) -> None:
    """Raises UserError if a value is not finite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{name}: holds NaN or infinite values; fix or remove it")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns what decoders raise on damaged files, which may be of any class, into a UserError of one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be decoded ({one_line(error)}); the file is damaged") from None


def one_line(error: Exception) -> str:
    """What an exception says, or else its class."""
    return " ".join(str(error).split()) or type(error).__name__
