"""A packed file for other Python code: its images by index or by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from yeastexp.data.hdf5_file import Reader
from yeastexp.errors import UserError, did_you_mean

Array = npt.NDArray[Any]


class PackedImage(NamedTuple):
    """An image (C, H, W) and its labels (H, W), both in their stored types, its name, and the side of a pixel."""

    image: Array
    labels: Array
    name: str
    pixel_um: float | None


class PackedData:
    """The images of a file of `pack`: `data[0]`, `data[-1]`, `data["name"]`, `len(data)`, `for each in data`.

    Each is read when it is asked for. Labels are class indices, and -1 where nobody annotated.
    """

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        contents = self._reader.contents
        self.path = path
        self.names = contents.names
        self.splits: Mapping[str, tuple[str, ...]] = contents.splits
        self.maps = contents.maps
        """Which further label maps there are: `instances`, `dead`."""
        self.pixel_um = contents.pixel_um
        self.normalization = contents.normalization
        """`mean` and `std` if values are stored normalised, for `TrainedModel.predict`."""

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[PackedImage]:
        return (self[index] for index in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, index: int | str) -> PackedImage:
        name = self._name(index)
        arrays = self._reader.read(name)
        return PackedImage(arrays["raw"], arrays["gt"], name, self.pixel_um)

    def map(self, index: int | str, which: str) -> Array:
        """A further label map (H, W) of an image. Raises UserError if there is none of that name."""
        if which not in self.maps:
            raise UserError(f"{self.path}: no map '{which}'{did_you_mean(which, self.maps)}")
        return self._reader.read(self._name(index))[which]

    def _name(self, index: int | str) -> str:
        if not isinstance(index, str):
            return self.names[index]
        if index not in self.names:
            raise UserError(f"{self.path}: no image '{index}'; the attribute 'names' lists all")
        return index

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(names)} {split}" for split, names in self.splits.items())
        return f"PackedData({str(self.path)!r}: {splits})"


def open_packed(path: str | os.PathLike[str]) -> PackedData:
    """The images of a file that `pack` wrote, or of a plain HDF5 file with stacked `raw` and `gt`.

    Raises UserError if it is no such file, or damaged.
    """
    return PackedData(Path(path))
