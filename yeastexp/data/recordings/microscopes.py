"""Files of Nikon (.nd2) and Leica (.lif), read by optional packages: an image for each position or series."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from yeastexp.data import images
from yeastexp.data.pieces import decoding
from yeastexp.data.recordings.optional import optional
from yeastexp.data.recordings.recording import Array, Select, StoredArray
from yeastexp.data.tiff_file import Stored

ND2_BEGINS = (b"\xda\xce\xbe\x0a", b"\x00\x00\x00\x0cjP  ")
LIF_BEGINS = b"\x70\x00\x00\x00"
OF_A_FRAME = "CYXS"


def nd2_arrays(path: Path, name: str) -> list[StoredArray]:
    """The array of a file, or of each position in it."""
    nd2 = optional("nd2", path, "a file of Nikon")
    with decoding(path), nd2.ND2File(path) as file:
        sizes, dtype = dict(file.sizes), np.dtype(file.dtype)
        voxel = file.voxel_size()
        pixel_um = float(voxel.x) if voxel.x > 0 and math.isclose(voxel.x, voxel.y, rel_tol=0.01) else None
        named = tuple(str(each.channel.name) for each in (getattr(file.metadata, "channels", None) or ()))
    positions = sizes.get("P", 1)
    lead = [axis for axis in sizes if axis not in OF_A_FRAME]
    axes = "".join(axis for axis in sizes if axis != "P")
    return [
        StoredArray(
            path,
            f"{name}_p{position}" if positions > 1 else name,
            "ND2",
            axes,
            tuple(sizes[axis] for axis in axes),
            dtype,
            partial(_nd2_opened, path, lead, [sizes[axis] for axis in lead], position),
            named if len(named) == sizes.get("C", 1) > 1 else (),
            pixel_um,
        )
        for position in range(positions)
    ]


@contextmanager
def _nd2_opened(path: Path, lead: Sequence[str], sizes: Sequence[int], position: int) -> Iterator[Select]:
    nd2 = optional("nd2", path, "a file of Nikon")
    with decoding(path), nd2.ND2File(path) as file:
        inner = tuple(size for axis, size in file.sizes.items() if axis in OF_A_FRAME)

        def select(at: tuple[int | slice, ...]) -> Array:
            given = iter(at)
            parts = [position if axis == "P" else next(given) for axis in lead]
            rest = tuple(given)
            ranges = [range(size)[part] for size, part in zip(sizes, parts, strict=True)]
            places = itertools.product(*(part if isinstance(part, range) else (part,) for part in ranges))
            numbers = [int(np.ravel_multi_index(place, tuple(sizes))) if place else 0 for place in places]
            frames = np.stack([np.asarray(file.read_frame(number)).reshape(inner)[rest] for number in numbers])
            values = frames.reshape(*(len(part) for part in ranges if isinstance(part, range)), *frames.shape[1:])
            return images.as_image(path, Stored(values, None, alpha=False, white=None))

        yield select


def lif_arrays(path: Path, name: str) -> list[StoredArray]:
    """The array of each series of a file."""
    liffile = optional("liffile", path, "a file of Leica")
    with decoding(path), liffile.LifFile(path) as file:
        return [
            StoredArray(
                path,
                f"{name}_s{index}" if len(file.images) > 1 else name,
                "LIF",
                "".join(image.frames.dims),
                tuple(image.frames.shape),
                np.dtype(image.dtype),
                partial(_lif_opened, path, index),
                pixel_um=_lif_pixel_um(image.coords),
            )
            for index, image in enumerate(file.images)
        ]


def _lif_pixel_um(places: Mapping[str, Array]) -> float | None:
    """The size of a pixel by the places of rows and columns in metres, if both have the same."""
    steps = [(along[-1] - along[0]) / (len(along) - 1) for axis, along in places.items() if axis in "YX"]
    if len(steps) != 2 or min(steps) <= 0 or not math.isclose(*steps, rel_tol=0.01):
        return None
    return float(steps[1]) * 1e6


@contextmanager
def _lif_opened(path: Path, index: int) -> Iterator[Select]:
    liffile = optional("liffile", path, "a file of Leica")
    with decoding(path), liffile.LifFile(path) as file:
        image = file.images[index]
        frames, count = image.frames, image.frames.ndim - len(image.frames.frame_dims)

        def select(at: tuple[int | slice, ...]) -> Array:
            lead, rest = at[:count], at[count:]
            ranges = [range(size)[part] for size, part in zip(frames.shape, lead, strict=False)]
            places = itertools.product(*(part if isinstance(part, range) else (part,) for part in ranges))
            pages = np.stack([np.asarray(frames[place])[rest] for place in places])
            values = pages.reshape(*(len(part) for part in ranges if isinstance(part, range)), *pages.shape[1:])
            return images.as_image(path, Stored(values, None, alpha=False, white=None))

        yield select
