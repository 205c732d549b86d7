"""What data sets that draw their pictures themselves have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from yeastexp.data.splits import default_validation
from yeastexp.errors import UserError
from yeastexp.sample import Sample

LARGEST_REMEMBERED_PX = 512
"""Of a side: 64 larger pictures would fill the memory."""

Picture = Mapping[str, npt.NDArray[Any]]
"""`raw` (H, W) with `gt` and the maps, as a file stores them."""


class Drawn:
    """Square pictures, each of which depends on the look, the seed and its number alone; the last `val` validate."""

    name: str
    maps: tuple[str, ...] = ("instances",)
    normalization = None
    pixel_um: float | None = None
    draw: Callable[[Any, int, int], Picture]
    """Draw the picture of a look, a seed and a number."""

    def __init__(self, look: Hashable, size: int, prefix: str, images: int, seed: int, val: int | None) -> None:
        if val is not None and val >= images:
            raise UserError(f"{val} of {images} images leave none to train on", key="val")
        self.look = look
        self.size = size
        self.seed = seed
        names = [f"{prefix}_{index:03d}" for index in range(images)]
        self._indices = {name: index for index, name in enumerate(names)}
        first = images - (val or default_validation(images))
        self.splits = {"train": names[:first], "val": names[first:]}

    def draws_like(self, other: Drawn) -> bool:
        """Whether pictures of the same number are equal."""
        mine, theirs = ((type(each), each.look, each.size, each.seed) for each in (self, other))
        return mine == theirs

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return 1, self.size, self.size

    def dtype(self, name: str) -> str:
        """The type that an image would be stored in."""
        return "uint16"

    def arrays(self, name: str) -> Picture:
        """A picture with its labels, as a file stores them."""
        draw = _remembered if self.size <= LARGEST_REMEMBERED_PX else _drawn
        return draw(type(self).draw, self.look, self.seed, self._indices[name])

    def read(self, name: str) -> Sample:
        """An image with its labels."""
        arrays = self.arrays(name)
        maps = {key: torch.from_numpy(arrays[key].astype(np.int64)) for key in self.maps}
        labels = torch.from_numpy(arrays["gt"].astype(np.int64))
        return Sample(torch.from_numpy(arrays["raw"].astype(np.float32))[None], labels, name, self.pixel_um, maps)


def _drawn(draw: Callable[[Any, int, int], Picture], look: Hashable, seed: int, index: int) -> Picture:
    return draw(look, seed, index)


_remembered = functools.lru_cache(maxsize=64)(_drawn)
