"""OME-Zarr 0.4: an image with its cells as labels, written band by band, for images that other files cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yeastexp.data.pieces import StoredImage, bands
from yeastexp.data.recordings.optional import optional
from yeastexp.prediction.exports.contract import Labelled, stacks, writing
from yeastexp.system import files

VERSION, FORMAT = "0.4", 2
CHUNK = 1024
"""Pixels of the side of a chunk."""


class OmeZarr:
    """The image at full resolution, frames and channels as they were, and `labels/cells`."""

    name, title, form, needs = "zarr", "OME-Zarr", "zarr/NAME.zarr", "zarr"

    def write(self, images: Sequence[Labelled], output: Path) -> None:
        """A folder an image, or a stack, in which frames that are not there are empty."""
        for stem, members in stacks(images):
            with writing(output / self.name / f"{stem}.zarr", files.replacing) as path:
                zarr = optional(self.needs, path, self.title)
                axes = "tcyx" if members[0].stack else "cyx"
                root = zarr.open_group(str(path), mode="w", zarr_format=FORMAT)
                _fill(root, stem, axes, members, lambda image: image.image())
                holder = root.create_group("labels")
                holder.attrs["labels"] = ["cells"]
                cells = holder.create_group("cells")
                _fill(cells, "cells", axes.replace("c", ""), members, lambda image: image.open(), np.dtype(np.uint32))
                cells.attrs["image-label"] = {"version": VERSION, "source": {"image": "../../"}}


def _fill(
    group: Any,
    name: str,
    axes: str,
    members: Sequence[Labelled],
    opened: Callable[[Labelled], StoredImage],
    dtype: np.dtype[Any] | None = None,
) -> None:
    """Write frames into an array of a group, and what its axes are."""
    first = opened(members[0])
    shape = {
        "t": max(member.frame for member in members) + 1,
        "c": first.shape[0],
        "y": first.size[0],
        "x": first.size[1],
    }
    pixel_um = members[0].pixel_um
    array = group.create_array(
        "0",
        shape=tuple(shape[axis] for axis in axes),
        chunks=tuple(min(CHUNK, shape[axis]) if axis in "yx" else 1 for axis in axes),
        dtype=dtype or first.dtype,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    for member in members:
        image = opened(member)
        for rows in bands(image.size):
            piece = image.read(rows, slice(0, image.size[1]))
            at = (
                *((member.frame,) if "t" in axes else ()),
                *((slice(None),) if "c" in axes else ()),
                rows,
                slice(None),
            )
            array[at] = piece if "c" in axes else piece[0]
    kinds = {"t": "time", "c": "channel"}
    unit = {"unit": "micrometer"} if pixel_um else {}
    said = [
        {"name": axis, "type": kinds.get(axis, "space"), **(unit if axis in "yx" else {})} for axis in axes
    ]  # fmt: skip
    scale = [(pixel_um or 1.0) if axis in "yx" else 1.0 for axis in axes]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    group.attrs["multiscales"] = [{"version": VERSION, "name": name, "axes": said, "datasets": [dataset]}]
