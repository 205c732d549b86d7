"""OME-Zarr 0.4 and 0.5: the image of full resolution, with its axes, channels and size of a pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from yeastexp.data import images
from yeastexp.data.pieces import decoding
from yeastexp.data.recordings.optional import optional
from yeastexp.data.recordings.recording import Array, Select, StoredArray
from yeastexp.data.tiff_file import Stored
from yeastexp.errors import UserError

MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


def arrays(path: Path, name: str, labels: bool) -> list[StoredArray]:
    """The image of a folder, or its labels. Raises UserError if it is laid out otherwise."""
    zarr = optional("zarr", path, "OME-Zarr")
    with decoding(path):
        group = zarr.open(str(path), mode="r")
        inner = ""
        if labels and not isinstance(group, zarr.Array) and "labels" in group:
            names = list(_said(group["labels"]).get("labels") or group["labels"].group_keys())
            if len(names) != 1:
                held = ", ".join(map(repr, names)) or "none"
                raise UserError(
                    f"{path}: has the labels {held}; name one, as {path / 'labels' / (names or ['cells'])[0]}"
                )
            inner = f"labels/{names[0]}"
            group = group[inner]
        if isinstance(group, zarr.Array) or not (scales := _said(group).get("multiscales")):
            what = "is a plate; name an image of it, as A/1/0" if "plate" in _said(group) else "has no 'multiscales'"
            raise UserError(f"{path}: {what}; OME-Zarr 0.4 and 0.5 are read")
        (scale, *_) = scales
        dataset = scale["datasets"][0]
        place = "/".join(part for part in (inner, str(dataset["path"])) if part)
        stored = group[dataset["path"]]
        axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in scale.get("axes") or "tczyx"]
        letters = "".join(str(axis["name"]).upper()[:1] for axis in axes)
        if len(letters) != stored.ndim:
            raise UserError(f"{path}: has {stored.ndim} axes, but names {len(letters)} ({letters}); export it again")
        sizes = _sizes(scale, dataset, stored.ndim)
        sides = [
            size * MICROMETRES.get(str(axis.get("unit", "")), math.nan)
            for axis, letter, size in zip(axes, letters, sizes, strict=True)
            if letter in "YX"
        ]
        equal = len(sides) == 2 and math.isclose(*sides, rel_tol=0.01)
        said = (_said(group).get("omero") or {}).get("channels", [])
        channels = [str(channel.get("label") or "") for channel in said]
        return [
            StoredArray(
                path,
                name,
                "OME-Zarr",
                letters,
                tuple(stored.shape),
                np.dtype(stored.dtype).newbyteorder("="),
                partial(_opened, path, place, labels),
                tuple(channels) if all(channels) else (),
                sides[1] if equal else None,
                in_pieces=True,
            )
        ]


def _said(group: Any) -> dict[str, Any]:
    """The metadata of a group: version 0.5 has them under `ome`."""
    attributes = dict(group.attrs)
    return dict(attributes.get("ome") or attributes)


def _sizes(scale: Mapping[str, Any], dataset: Mapping[str, Any], ndim: int) -> list[float]:
    """What a step along each axis is, in its unit."""
    sizes = [1.0] * ndim
    for holder in (dataset, scale):
        for transformation in holder.get("coordinateTransformations") or ():
            if transformation.get("type") == "scale":
                sizes = [size * float(by) for size, by in zip(sizes, transformation["scale"], strict=True)]
    return sizes


@contextmanager
def _opened(path: Path, place: str, labels: bool) -> Iterator[Select]:
    """Open an array, to read parts of it."""
    zarr = optional("zarr", path, "OME-Zarr")
    with decoding(path):
        stored = zarr.open(str(path), mode="r")[place]

    def select(at: tuple[int | slice, ...]) -> Array:
        values = Stored(np.asarray(stored[at]), None, alpha=False, white=None)
        return images.as_integers(path, values.values) if labels else images.as_image(path, values)

    yield select
