"""A reader for napari: packed files and the output of `predict` as layers of lazily read images."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from yeastexp.data import images
from yeastexp.data.hdf5_file import UNLABELLED, Reader
from yeastexp.data.recordings.recording import Reading
from yeastexp.errors import UserError
from yeastexp.prediction.predict import AS_SAID, CELLS, IDS, TABLE, Source, sources_of

Array = npt.NDArray[Any]
Layer = tuple[Any, dict[str, Any], str]
"""A layer as napari takes it from plugins: data, keywords, and the name of its type."""

KEPT = 8
"""The number of images that are kept in memory; all layers of a file share them."""

IN_MEMORY = 1 << 28
"""The most bytes of label maps that are read at once, so that they can be painted on."""

COLOURS = {1: ("gray",), 2: ("magenta", "green")}
MORE_COLOURS = ("cyan", "magenta", "yellow", "blue", "green", "red")
"""The colour maps of channels by their number, and those of more channels, as napari itself chooses them."""


class Frames:
    """Images of one or several sizes as one array-like (N, H, W), each read when it is indexed.

    Smaller images are padded with zeros to the right and below; `frame` returns them without padding.
    """

    ndim = 3

    def __init__(self, sizes: Sequence[tuple[int, int]], dtype: Any, read: Callable[[int], Array]) -> None:
        height, width = np.max(np.array(sizes), axis=0).tolist()
        self.shape = (len(sizes), int(height), int(width))
        self.dtype = np.dtype(dtype)
        self.size = int(np.prod(self.shape))
        self.nbytes = self.size * self.dtype.itemsize
        self.frame = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [first, *rest]
        index = np.arange(len(self))[first]
        if np.ndim(index) == 0:
            return np.asarray(self._padded(int(index))[tuple(rest)])
        planes = [self._padded(int(each))[tuple(rest)] for each in index]
        return np.stack(planes) if planes else np.empty((0, *self.shape[1:]), self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _padded(self, index: int) -> Array:
        plane = self.frame(index)
        margins = [(0, most - length) for most, length in zip(self.shape[1:], plane.shape, strict=True)]
        return np.pad(plane, margins).astype(self.dtype, copy=False)


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[Layer]] | None:
    """The function that reads a path, or the first of several; None if this package wrote no such file."""
    first = Path(path if isinstance(path, str) else path[0])
    if first.name == TABLE:
        with first.open(encoding="utf-8", errors="replace") as file:
            return _each(predicted) if file.readline().startswith("file,height,width") else None
    try:
        with h5py.File(first) as file:
            return _each(packed) if {"raw", "gt"} <= set(file) else None
    except OSError:
        return None


def _each(read: Callable[[Path], list[Layer]]) -> Callable[[Any], list[Layer]]:
    def read_each(paths: str | Sequence[str]) -> list[Layer]:
        several = [paths] if isinstance(paths, str) else paths
        return [layer for path in several for layer in read(Path(path))]

    return read_each


def packed(path: Path) -> list[Layer]:
    """The layers of a packed file: channels, label maps and names of images. Raises UserError if it is damaged."""
    reader = Reader(path)
    contents = reader.contents
    names, forms = contents.names, reader.forms
    # One cache for all layers: those of an image are drawn together, and a read gives its channels and all its maps.
    read = lru_cache(KEPT)(lambda index: reader.read(names[index]))
    sizes = [reader.shape(name)[1:] for name in names]
    placed = _placed(contents.pixel_um)
    known = {**placed, "metadata": {"normalization": contents.normalization}}
    dtype = np.result_type(*(forms[name]["raw"][1] for name in names))
    channels = reader.shape(names[0])[0]
    layers = _channels(path.stem, sizes, dtype, channels, lambda index: read(index)["raw"], known)
    for key, title in (("gt", "classes"), *((name, name) for name in contents.maps)):
        frames = Frames(sizes, forms[names[0]][key][1], lambda index, key=key: read(index)[key])  # type: ignore[misc]
        shown = key == ("instances" if "instances" in contents.maps else "gt")
        layers.append((_paintable(frames), {**placed, "name": f"{path.stem} {title}", "visible": shown}, "labels"))
    split_of = {name: split for split, its_names in contents.splits.items() for name in its_names}
    said = [f"{name} ({split_of.get(name, UNLABELLED)})" for name in names]
    return _of_one(layers) if len(names) == 1 else _titled(layers, f"{path.stem} names", said, placed)


def predicted(path: Path) -> list[Layer]:
    """The layers of what `predict` wrote beside a table, with the images if they are found; UserError without masks."""
    with path.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    if not rows:
        raise UserError(f"{path}: has no rows; predict again")
    folder, names = path.resolve().parent, [row["file"] for row in rows]
    sizes = [(int(row["height"]), int(row["width"])) for row in rows]
    found = _images_of(names, folder)
    layers, placed = list[Layer](), _placed(None)
    if found:
        first = found[0].open()
        placed = _placed(first.pixel_um)
        read = lru_cache(KEPT)(lambda index: found[index].open().whole)
        known = {**placed, "metadata": {"normalization": first.normalization}}
        layers += _channels(folder.name, sizes, first.dtype, first.shape[0], read, known)
    stems = [source.stem for source in found] or [Path(name).stem for name in names]
    tells_cells = "cells" in rows[0]
    for place, title in ((folder, "cells" if tells_cells else "classes"), (folder / IDS, "approximate cells")):
        if place == folder or place.is_dir():
            files = [_mask(place, stem) for stem in stems]
            frames = Frames(sizes, np.int32, lambda index, files=files: images.read_labels(files[index])[0])  # type: ignore[misc]
            keywords = {**placed, "name": f"{folder.name} {title}"}
            layers.append((_paintable(frames), keywords, "labels"))
    if len(rows) > 1:
        return _titled(layers, f"{folder.name} names", names, placed)
    if (folder / CELLS).exists():
        layers[-1][1]["features"] = _features(folder / CELLS)
    return _of_one(layers)


def _mask(folder: Path, stem: str) -> Path:
    for path in (folder / f"{stem}.png", folder / f"{stem}.tif"):
        if path.exists():
            return path
    raise UserError(f"{folder}: has no mask of '{stem}', which its table names; predict again")


def _features(path: Path) -> dict[str, list[Any]]:
    """The measurements of one image's cells as features of a layer, which napari shows for the cell at the pointer."""
    with path.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ()) if name != "image"}
    return {"index": [int(row["label"]) for row in rows], **{k: v for k, v in columns.items() if k != "label"}}


def _images_of(names: Sequence[str], folder: Path) -> list[Source]:
    """The images of given names, looked up from the working directory, then from `folder` and the folders above it.

    Empty if not all are found in one place.
    """
    for base in (Path(), folder, *folder.parents):
        paths = dict.fromkeys(_file_of(base / name) for name in names)
        if None not in paths:
            try:
                there = {each.name: each for each in sources_of([*map(str, paths)], [], AS_SAID, Reading())}
                return [there[str(base / name)] for name in names]
            except (UserError, KeyError):  # what was read with --axes or --z cannot be told from its name
                continue
    return []


def _file_of(name: Path) -> Path | None:
    """The file that holds an image; the name of a frame is the path of its stack with the frame's name below."""
    return next((path for path in (name, *name.parents) if path.is_file() or images.is_zarr(path)), None)


def _channels(
    stem: str,
    sizes: Sequence[tuple[int, int]],
    dtype: Any,
    channels: int,
    read: Callable[[int], Array],
    keywords: Mapping[str, Any],
) -> list[Layer]:
    """An image layer for each channel; several are blended additively in colours."""
    layers = list[Layer]()
    for channel in range(channels):
        frames = Frames(sizes, dtype, lambda index, channel=channel: read(index)[channel])  # type: ignore[misc]
        # Limits from three images, as reading all of a large stack would take too long.
        looked_at = [frames.frame(index) for index in {0, len(frames) // 2, len(frames) - 1}]
        low, high = min(float(each.min()) for each in looked_at), max(float(each.max()) for each in looked_at)
        colours = COLOURS.get(channels, MORE_COLOURS)
        own = {
            "name": stem if channels == 1 else f"{stem} channel {channel}",
            "contrast_limits": (low, high if high > low else low + 1),
            "colormap": colours[channel % len(colours)],
            "blending": "additive" if channel else "translucent_no_depth",
        }
        layers.append((frames, {**keywords, **own}, "image"))
    return layers


def _placed(pixel_um: float | None) -> dict[str, Any]:
    """The keywords that place a layer (N, H, W): axes, and the scale where it is known."""
    axes: dict[str, Any] = {"axis_labels": ("image", "y", "x")}
    if pixel_um is None:
        return axes
    return {**axes, "scale": (1, pixel_um, pixel_um), "units": ("pixel", "micrometer", "micrometer")}


def _paintable(frames: Frames) -> Any:
    """Label maps as an array in memory, which napari needs to paint on them, unless they are too large."""
    return np.asarray(frames) if frames.nbytes <= IN_MEMORY else frames


def _titled(layers: list[Layer], name: str, titles: Sequence[str], placed: Mapping[str, Any]) -> list[Layer]:
    """Layers with one more that shows each image's name above it."""
    # The names come second: napari fits its view to the first layer and selects the last one.
    points = np.array([(index, 0, 0) for index in range(len(titles))], float)
    text = {"string": "{title}", "anchor": "upper_left", "color": "white", "size": 10}
    look = {"size": 0, "features": {"title": [*titles]}, "text": text}
    return [layers[0], (points, {**placed, "name": name, **look}, "points"), *layers[1:]]


def _of_one(layers: Sequence[Layer]) -> list[Layer]:
    """Layers (1, H, W) of a single image without their first axis."""
    own = ("scale", "units", "axis_labels")
    return [
        (np.asarray(data[0]), {key: value[1:] if key in own else value for key, value in keywords.items()}, kind)
        for data, keywords, kind in layers
    ]
