"""The data set in one HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from yeastexp.data.hdf5_file import UNLABELLED, Reader
from yeastexp.data.normalization import refuse_incomplete
from yeastexp.data.splits import chosen, refuse_parted
from yeastexp.errors import UserError
from yeastexp.registry import InputFile, dataset
from yeastexp.sample import Sample

Choice = tuple[str, ...] | Annotated[int, Field(ge=1)]


class Hdf5:
    """The labelled images of a file, in whatever splits it has; `val` chooses other ones, `part_groups` or not."""

    def __init__(self, path: Path, val: Choice | None = None, part_groups: bool = False) -> None:
        self._reader = Reader(path)
        try:
            contents = self._reader.contents
        except UserError as error:
            raise UserError(*error.faults, key="path") from None
        self.maps: tuple[str, ...] = contents.maps
        self.normalization = contents.normalization
        self.groups = contents.origin.groups
        self.channel_names = contents.origin.channel_names
        try:
            refuse_incomplete(self.normalization, self.shape(contents.names[0])[0])
        except UserError as error:
            raise UserError(f"{path}: {error}", key="path") from None
        self.splits = {split: list(names) for split, names in contents.splits.items() if split != UNLABELLED}
        if val is not None:
            groups = {} if part_groups else self.groups
            self.splits |= _resplit(contents.labelled, set(self.splits.get("test", ())), val, groups)

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self._reader.shape(name)

    def dtype(self, name: str) -> str:
        """The type that an image is stored in."""
        return str(self._reader.forms[name]["raw"][1])

    def read(self, name: str) -> Sample:
        """An image with its labels, its stored values as float32; raises UserError if one is not finite."""
        arrays = self._reader.read(name)
        with np.errstate(over="ignore"):  # what float32 cannot hold is found as infinite
            image = arrays["raw"].astype(np.float32)
        if not np.isfinite(image).all():
            raise UserError(f"{self._reader.path}: image '{name}' holds NaN or infinite values; fix or remove it")
        maps = {key: _integers(arrays[key]) for key in self.maps}
        pixel_um = self._reader.contents.pixel_um
        return Sample(torch.from_numpy(image), _integers(arrays["gt"]), name, pixel_um, maps)


@dataset("hdf5")
def hdf5(path: InputFile, val: Choice | None = None, part_groups: bool = False) -> Hdf5:
    """A file of `pack` or `normalize`, or a plain one with stacked `raw` and `gt`, whose last 8 of 18 images validate.

    `val` chooses other images to validate: so many from the end, or by name or glob; all others but `test` train.
    Images of one group, such as the frames of a movie, stay together, unless `part_groups` is true.
    """
    made = Hdf5(path, val, part_groups)
    for split, act in (("train", "training"), ("val", "validation")):
        if not made.splits.get(split):
            key = "path" if val is None else "val"
            raise UserError(f"{path}: leaves no {act} image; choose others with 'val'", key=key)
    return made


def _resplit(
    names: tuple[str, ...], test: set[str], val: tuple[str, ...] | int, groups: Mapping[str, str]
) -> dict[str, list[str]]:
    candidates = [name for name in names if name not in test]
    try:
        picked = chosen(candidates, val, groups=groups)
        refuse_parted(candidates, picked, groups, "set 'part_groups = true' (scores are then optimistically biased)")
    except UserError as error:
        raise UserError(*error.faults, key="val") from None
    gone = set(picked)
    return {"train": [name for name in candidates if name not in gone], "val": list(picked)}


def _integers(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))
