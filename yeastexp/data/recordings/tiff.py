"""TIFF files of several pages: stacks, hyperstacks of ImageJ, OME-TIFF, and what else tifffile knows the axes of."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from yeastexp.data import images, tiff_file
from yeastexp.data.pieces import decoding
from yeastexp.data.recordings.recording import UNKNOWN, Array, Select, StoredArray, one_image
from yeastexp.errors import UserError

UNSAID = "QI"
"""Letters of tifffile for axes of which a file does not say what they are."""

MICROMETRES = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4}
MICROMETRES |= {"\\u00B5m": 1.0, "m": 1e6, "micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "meter": 1e6}
"""Of a unit as programs write it."""


def arrays(path: Path, name: str, labels: bool, *, planes: bool = False) -> list[StoredArray]:
    """The arrays of a file: several where OME says so. Raises UserError if it cannot be read, or is one of a set.

    The colours of an image are taken for `planes` of a stack where a file may be one.
    """
    with decoding(path), tifffile.TiffFile(path) as tiff:
        kind = "OME-TIFF" if tiff.is_ome else "ImageJ TIFF" if tiff.is_imagej else "TIFF"
        _refuse_cut_short(path, tiff)
        planes = planes and tiff_file.may_be_a_stack(path, of_any_program=True)
        alone = tiff_file.stack_fault(path) is None and not planes
        ome = _ome_images(tiff.ome_metadata if tiff.is_ome else None)
        if alone:
            read = images.read_labels if labels else images.read_image
            read = partial(_read_or_ask, read) if tiff_file.may_be_a_stack(path, of_any_program=True) else read
            return [one_image(path, name, kind, read, *_said(tiff, ome, 0))]
        series = list(tiff.series)
        if tiff.is_ome and sum(_pages(each) for each in series) > len(tiff.pages):
            raise UserError(f"{path}: is one of several files of an OME recording; export all of it as one file")
        if len(series) > 1 and not tiff.is_ome:
            sizes = ", ".join(" × ".join(map(str, each.shape)) for each in series[:3])
            raise UserError(f"{path}: holds {len(series)} images that differ ({sizes}); save each as a file of its own")
        several = len(series) > 1
        return [
            _array(
                path,
                f"{name}_s{index}" if several else name,
                kind,
                tiff,
                index,
                labels,
                planes,
                _said(tiff, ome, index),
            )
            for index in range(len(series))
        ]


def _read_or_ask(read: Callable[[Path], Array], path: Path) -> Array:
    """What `read` gives of planes that are tagged as colours, which faults that colours have are blamed on."""
    try:
        return read(path)
    except UserError as error:
        raise UserError(*(f"{fault}; if its planes are frames, add --axes TYX" for fault in error.faults)) from None


def _refuse_cut_short(path: Path, tiff: tifffile.TiffFile) -> None:
    """Raises UserError if pages are said to lie behind the end: tifffile goes on without them, and logs that."""
    complaints: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    tifffile.logger().addHandler(handler)
    try:
        len(tiff.pages)
    finally:
        tifffile.logger().removeHandler(handler)
    if any("invalid page offset" in complaint for complaint in complaints):
        raise UserError(f"{path}: cannot be decoded (pages are missing); the file is damaged")


def _array(
    path: Path,
    name: str,
    kind: str,
    tiff: tifffile.TiffFile,
    index: int,
    labels: bool,
    planes: bool,
    said: tuple[tuple[str, ...], float | None],
) -> StoredArray:
    series = tiff.series[index]
    page: Any = series.keyframe
    lead = len(series.shape) - len(page.shape)
    letters = "".join(UNKNOWN if axis in UNSAID else axis for axis in series.axes)
    if lead < 0 or series.shape[lead:] != page.shape:
        raise UserError(f"{path}: holds {page.shape} values a page ({series.axes}), which is not read; save it again")
    samples = len(page.shape) == 3
    sample_axis, rows = "", letters[lead:]
    count = page.samplesperpixel
    if samples:  # pages are read with their samples first
        sample_axis = rows[0] if page.axes[0] == "S" else rows[-1]
        rows = rows.replace(sample_axis, "", 1)
        if page.photometric == tiff_file.RGB and not planes and tiff_file.has_alpha(path, page):
            count -= 1
    axes, shape = letters[:lead] + sample_axis + rows, (*series.shape[:lead], *((count,) if samples else ()))
    if page.photometric == tiff_file.PALETTE and not labels:
        axes, shape = f"{letters[:lead]}S{rows}", (*shape, 3)
        samples = True
    if labels and sample_axis == "S" and not planes:  # equal channels are one
        axes, shape, samples = letters[:lead] + rows, shape[:lead], False
    height, width = (page.imagelength, page.imagewidth)
    if tiff_file.is_transposed(page):
        height, width = width, height
    if count * height * width > images.LARGEST:
        raise UserError(f"{path}: claims {height} × {width} pixels, more than this program reads; cut it into pieces")
    shape = (*shape, height, width)
    opened = partial(_opened, path, index, shape[:lead], samples, labels, planes)
    return StoredArray(path, name, kind, axes, shape, np.dtype(page.dtype), opened, *said)


@contextmanager
def _opened(path: Path, index: int, lead: Sequence[int], samples: bool, labels: bool, planes: bool) -> Iterator[Select]:
    """Open a series, to read parts of it page by page."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[index]

        def page_of(number: int) -> Array:
            stored = _stored(path, tiff, series, number)
            stored = replace(stored, alpha=False) if planes else stored
            place = f"{path} (page {number + 1})"
            if labels and planes:
                return images.as_integers(place, stored.values)
            page = images.as_labels(place, stored)[None] if labels else images.as_image(place, stored)
            return page if samples else page[0]

        def select(at: tuple[int | slice, ...]) -> Array:
            parts = [range(size)[part] for part, size in zip(at, lead, strict=False)]
            wanted = [part if isinstance(part, range) else (part,) for part in parts]
            numbers = [int(np.ravel_multi_index(place, tuple(lead))) for place in itertools.product(*wanted)] or [0]
            pages = np.stack([page_of(number)[at[len(lead) :]] for number in numbers])
            return pages.reshape(*(len(part) for part in parts if isinstance(part, range)), *pages.shape[1:])

        yield select


def _stored(path: Path, tiff: tifffile.TiffFile, series: Any, number: int) -> tiff_file.Stored:
    """A page of a series; ImageJ writes those of a large stack one after the other, with tags for the first alone."""
    if len(series.pages) < math.prod(series.shape) // max(1, series.keyframe.size):
        page = series.keyframe
        size = page.size * page.dtype.itemsize
        if series.dataoffset is None or series.dataoffset + (number + 1) * size > tiff.filehandle.size:
            raise UserError(f"{path}: cannot be decoded (pages are missing); the file is damaged")
        dtype = np.dtype(page.dtype).newbyteorder(tiff.byteorder)
        values = np.fromfile(path, dtype, page.size, offset=series.dataoffset + number * size)
        return tiff_file.stored(path, page, values.reshape(page.shaped))
    page = series.pages[number]
    if page is None:
        raise UserError(f"{path}: cannot be decoded (page {number + 1} is missing); the file is damaged")
    page = page.aspage()
    tiff_file.refuse_page(path, tiff, page)
    return tiff_file.stored(path, page)


def _pages(series: Any) -> int:
    return int(math.prod(series.shape) // max(1, series.keyframe.size))


# What a file says of channels and pixels


def _said(tiff: tifffile.TiffFile, ome: Sequence[Any], index: int) -> tuple[tuple[str, ...], float | None]:
    """The names of channels and the size of a pixel in micrometres, if a file says them."""
    if index < len(ome):
        pixels = ome[index]
        keys = [f"PhysicalSize{axis}" for axis in "XY"]
        sizes = [_length(pixels.get(key), pixels.get(f"{key}Unit", "µm")) for key in keys]
        named = tuple(str(child.get("Name") or "") for child in pixels if child.tag.endswith("}Channel"))
        return named if all(named) else (), _equal(sizes)
    if tiff.is_imagej:
        said: dict[str, Any] = tiff.imagej_metadata or {}
        page: Any = tiff.pages[0]
        tags = [page.tags.get(f"{axis}Resolution") for axis in "XY"]
        across = [tag.value[1] / tag.value[0] if tag and tag.value[0] else None for tag in tags]
        unit = str(said.get("unit", ""))
        labels, count = said.get("Labels") or [], int(said.get("channels", 1))
        named = tuple(map(str, labels)) if 1 < count == len(labels) and int(said.get("images", 0)) == count else ()
        return named, _equal([None if size is None else _length(size, unit) for size in across])
    return (), None


def _ome_images(text: str | None) -> list[Any]:
    """The Pixels of each image in OME-XML, from which tifffile makes the series."""
    if not text:
        return []
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return []
    return [child for image in root if image.tag.endswith("}Image") for child in image if child.tag.endswith("}Pixels")]


def _length(value: Any, unit: str) -> float | None:
    try:
        length = float(value) * MICROMETRES[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return length if 0 < length < math.inf else None


def _equal(sizes: Sequence[float | None]) -> float | None:
    """The size of a pixel if both sides are known and equal, but for rounding."""
    across, down = sizes
    return across if across and down and math.isclose(across, down, rel_tol=0.01) else None
