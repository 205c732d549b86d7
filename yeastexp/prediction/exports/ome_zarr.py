"""OME-Zarr 0.4: an image with its cells as labels, written band by band, for images that other files cannot hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yeastexp.data.pieces import StoredImage
from yeastexp.data.recordings.optional import optional
from yeastexp.prediction.exports.contract import Array, Labelled, Named, NamedT, stacks, writing
from yeastexp.system import files

VERSION, FORMAT = "0.4", 2
CHUNK = 512
"""The side of a chunk in pixels. Larger images are also stored at half the size, and so on, down to one chunk."""


class OmeZarr:
    """The image with its frames and channels, and `labels/cells`, both in several resolutions."""

    name, title, form, needs = "zarr", "OME-Zarr", "zarr/NAME.zarr", "zarr"

    def targets(self, images: Sequence[NamedT], output: Path) -> Mapping[Path, Sequence[NamedT]]:
        """Return a folder for each image or stack."""
        return {output / self.name / f"{stem}.zarr": members for stem, members in stacks(images)}

    def write(self, images: Sequence[Labelled], output: Path, asked: Sequence[Named]) -> None:
        """Write a folder for each image or stack; missing frames are empty."""
        for stem, members in stacks(images):
            with writing(output / self.name / f"{stem}.zarr", files.replacing) as path:
                zarr = optional(self.needs, path, self.title)
                axes = "tcyx" if members[0].stack else "cyx"
                root = zarr.open_group(str(path), mode="w", zarr_format=FORMAT)
                _fill(root, stem, axes, members, lambda image: image.image())
                holder = root.create_group("labels")
                holder.attrs["labels"] = ["cells"]
                cells = holder.create_group("cells")
                _fill(cells, "cells", axes.replace("c", ""), members, lambda image: image.open())
                cells.attrs["image-label"] = {"version": VERSION, "source": {"image": "../../"}}


def means(values: Array) -> Array:
    """Return the means of 2×2 pixels of an array (…, H, W), rounded for integers.

    An odd last row or column counts twice.
    """
    height, width = values.shape[-2:]
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(0, height % 2), (0, width % 2)], mode="edge")
    mean = sum(padded[..., row::2, column::2] * 0.25 for row in range(2) for column in range(2))
    return np.asarray(np.rint(mean) if values.dtype.kind in "iu" else mean).astype(values.dtype)


def every_second(labels: Array) -> Array:
    """Return every second row and column of labels (…, H, W), since means of ids would be other ids."""
    return labels[..., ::2, ::2]


def _fill(
    group: Any,
    name: str,
    axes: str,
    members: Sequence[Labelled],
    opened: Callable[[Labelled], StoredImage],
) -> None:
    """Write frames into the arrays of a group, one for each resolution, and the group's axes and scales.

    A row of chunks is in memory at a time. `axes` of labels have no "c".
    """
    first, is_image = opened(members[0]), "c" in axes
    sizes = [first.size]
    while max(sizes[-1]) > CHUNK:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    lead = {"t": max(member.frame for member in members) + 1, "c": first.shape[0]}
    dtype, reduce = (first.dtype, means) if is_image else (np.dtype(np.uint32), every_second)
    arrays = [
        group.create_array(
            str(level),
            shape=(*(lead[axis] for axis in axes[:-2]), *size),
            chunks=(*(1 for _ in axes[:-2]), *(min(CHUNK, length) for length in size)),
            dtype=dtype,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        for level, size in enumerate(sizes)
    ]
    for member in members:
        image, frame = opened(member), (member.frame,) if "t" in axes else ()
        for rows in _rows(arrays[0]):
            _put(arrays[0], frame, rows, image.read(rows, slice(0, image.size[1])))
        for larger, smaller in itertools.pairwise(arrays):
            for rows in _rows(smaller):
                twice = slice(2 * rows.start, 2 * rows.stop)
                _put(smaller, frame, rows, reduce(larger[(*frame, ..., twice, slice(None))]))
    pixel_um = members[0].pixel_um
    kinds = {"t": "time", "c": "channel"}
    unit = {"unit": "micrometer"} if pixel_um else {}
    said = [
        {"name": axis, "type": kinds.get(axis, "space"), **(unit if axis in "yx" else {})} for axis in axes
    ]  # fmt: skip
    datasets = []
    for level in range(len(arrays)):
        scale, factor = pixel_um or 1.0, 2**level
        steps = {"scale": factor * scale, "translation": (factor - 1) / 2 * scale}
        transformations = [
            {"type": kind, kind: [step if axis in "yx" else float(kind == "scale") for axis in axes]}
            for kind, step in steps.items()
            # The mean of pixels lies between them, and a pixel that is taken stays where it was.
            if kind == "scale" or (level and is_image)
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    group.attrs["multiscales"] = [{"version": VERSION, "name": name, "axes": said, "datasets": datasets}]


def _rows(array: Any) -> Iterator[slice]:
    """Yield the rows of pixels of each row of chunks."""
    height = array.shape[-2]
    return (slice(row, min(row + CHUNK, height)) for row in range(0, height, CHUNK))


def _put(array: Any, frame: tuple[int, ...], rows: slice, values: Array) -> None:
    """Write values (…, h, W) into rows of a frame."""
    array[(*frame, ..., rows, slice(None))] = values.reshape(*array.shape[len(frame) : -2], *values.shape[-2:])
