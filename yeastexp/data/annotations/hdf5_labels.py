"""Labels in HDF5 files of others: pytorch-3dunet's `label`, ilastik's exports with their axes, YeaZ's `FOV0/T0`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from yeastexp.data.annotations.contract import Annotation, Frames, Labels, of_values
from yeastexp.data.hdf5_file import BEGINNING
from yeastexp.errors import UserError, did_you_mean, in_one_line
from yeastexp.system import trials
from yeastexp.system.formatting import format_count

USUAL = ("label", "labels", "masks", "mask", "segmentation", "instances", "gt", "exported_data", "data")
"""Names of datasets of labels, the first of which is taken."""

FIELD, FRAME = re.compile(r"FOV\d+"), re.compile(r"T(\d+)")


@dataclass(frozen=True)
class Hdf5Labels:
    """Labels (H, W), or (T, H, W) or (Z, H, W) of frames; other axes have one entry. `dataset` names the array."""

    dataset: str | None = None
    name = "hdf5"
    title = "HDF5"
    suffixes = (".h5", ".hdf5", ".hdf")
    names_images = False

    def recognises(self, path: Path) -> bool:
        """Whether it is an HDF5 file."""
        with path.open("rb") as file:
            return file.read(8) == BEGINNING

    def read(self, path: Path, *, frames: Frames) -> Annotation:
        """The labels of the image, or of the frames of the stack, that the file lies beside."""
        if h5py.is_hdf5(path):
            trials.refuse_if_fatal(path, lambda: _opened(path, lambda file: self._annotation(path, file, frames)))
        return _opened(path, lambda file: self._annotation(path, file, frames))

    def _annotation(self, path: Path, file: h5py.File, frames: Frames) -> Annotation:
        fields = [key for key in file if FIELD.fullmatch(key) and isinstance(file.get(key), h5py.Group) and file[key]]
        if self.dataset is None and fields:
            planes = _of_yeaz(path, file, fields, list(frames))
            dataset = fields[0]
        else:
            dataset = self.dataset or _usual(path, file)
            array = file.get(dataset)
            if not isinstance(array, h5py.Dataset):
                raise UserError(f"{path}: has no dataset '{dataset}'{did_you_mean(dataset, _datasets(file))}")
            planes = _planes(path, array, list(frames))

        def labels(name: str) -> Labels:
            key, index = planes[name]
            values = _opened(path, lambda opened: _plane(path, opened[key], index, frames[name]))
            return of_values(path, values, frames[name])

        return Annotation(self.name, tuple(planes), labels, notes=(f"labels from '{dataset}'",))


Index = tuple[int | slice, ...]
T = TypeVar("T")


def _opened(path: Path, use: Callable[[h5py.File], T]) -> T:
    """What a function gives for the open file. Raises UserError if it is damaged."""
    try:
        with h5py.File(path, "r") as file:
            return use(file)
    except UserError:
        raise
    except Exception as error:  # on damaged files h5py raises all kinds of exceptions
        raise UserError(f"{path}: cannot be read ({in_one_line(error)}); it is damaged; save it again") from None


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _usual(path: Path, file: h5py.File) -> str:
    there = _datasets(file)
    if (usual := next((name for name in USUAL if name in there), None)) is not None:
        return usual
    if len(there) == 1 and there != ["raw"]:
        return there[0]
    raise UserError(
        f"{path}: has no dataset 'label'; name the one with labels (there: {', '.join(map(repr, there)) or 'none'})"
    )


def _axes(array: h5py.Dataset) -> str:
    """The axes as letters, from the attribute that ilastik writes, else by their number."""
    if (tags := array.attrs.get("axistags")) is not None:
        return "".join(str(axis["key"]) for axis in json.loads(tags)["axes"])
    return "tczyx"[-array.ndim :] if array.ndim > 3 else "zyx"[-array.ndim :]


def _planes(path: Path, array: h5py.Dataset, names: list[str]) -> dict[str, tuple[str, Index]]:
    """Where the labels of each frame lie: the dataset, and the index of a plane of it."""
    axes = _axes(array)
    if len(axes) != array.ndim or not {"x", "y"} <= set(axes) or array.dtype.kind not in "biuf":
        shape = " × ".join(map(str, array.shape)) or "no"
        raise UserError(f"{path}: {array.name!r} holds {shape} values of {array.dtype}, not labels; name the dataset")
    long = [axis for axis, length in zip(axes, array.shape, strict=True) if axis not in "xy" and length > 1]
    count = array.shape[axes.index(long[0])] if long else 1
    if len(long) > 1 or count != len(names):
        sizes = ", ".join(f"{axis} {length}" for axis, length in zip(axes, array.shape, strict=True))
        raise UserError(
            f"{path}: {array.name!r} has the axes {sizes}, but the image has {format_count(len(names), 'frame')}; "
            "pair it with its stack"
        )
    return {
        name: (array.name, tuple(slice(None) if axis in "xy" else frame if axis in long else 0 for axis in axes))
        for frame, name in enumerate(names)
    }


def _plane(path: Path, array: h5py.Dataset, index: Index, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    axes = [axis for axis in _axes(array) if axis in "xy"]
    shape = [array.shape[_axes(array).index(axis)] for axis in "yx"]
    # Before anything is read, for a file may claim more than there is memory for.
    if tuple(shape) != size:
        raise UserError(
            f"{path}: holds labels of {shape[0]} × {shape[1]} pixels, but the image has {size[0]} × {size[1]}; "
            "pair it with its image"
        )
    plane: np.ndarray[Any, Any] = array[index]
    return plane.T if axes == ["x", "y"] else plane


def _of_yeaz(path: Path, file: h5py.File, fields: list[str], names: list[str]) -> dict[str, tuple[str, Index]]:
    """The frames that are annotated, which need not be all."""
    if len(fields) > 1:
        raise UserError(f"{path}: has labels of {', '.join(fields)}; save one field of view a file")
    planes: dict[str, tuple[str, Index]] = {}
    for key in file[fields[0]]:
        if match := FRAME.fullmatch(key):
            if int(match[1]) >= len(names):
                there = format_count(len(names), "frame")
                raise UserError(f"{path}: has labels of frame {match[1]}, but the image has {there}; check the stack")
            planes[names[int(match[1])]] = (f"{fields[0]}/{key}", (slice(None), slice(None)))
    return {name: planes[name] for name in names if name in planes}
