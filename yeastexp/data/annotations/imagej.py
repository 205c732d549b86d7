"""ImageJ's regions of interest, one in a `.roi` file or many in a zip."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import roifile
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from yeastexp.data import archives
from yeastexp.data.annotations import polygons
from yeastexp.data.annotations.contract import Annotation, Frames, of_shapes
from yeastexp.data.annotations.polygons import FARTHEST, Shape
from yeastexp.errors import UserError, in_one_line
from yeastexp.system.formatting import format_count

BEGINNING = b"Iout"
LARGEST_ENTRY, LARGEST_ZIP = 1 << 26, 1 << 30
"""Bytes of a region, and of all in a zip."""

OUTLINES = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
FROM_PYTHON = ROI_OPTIONS.OVERLAY_BACKGROUNDS | ROI_OPTIONS.OVERLAY_LABELS
"""What roifile sets in regions from points, as Cellpose writes them: these are indices of an array."""

# roifile logs what it does not understand; without a handler Python would print that beside the one line.
roifile.logger().addHandler(logging.NullHandler())


class ImageJ:
    """Regions with an area are cells. Their position in the stack says their frame, their group the class."""

    name, title, suffixes, names_images = "imagej_roi", "ImageJ ROI", (".roi", ".zip"), False

    def recognises(self, path: Path) -> bool:
        """Whether it is a region, or a zip that is named so or has some."""
        with path.open("rb") as file:
            beginning = file.read(4)
        if beginning == BEGINNING or path.suffix.lower() == ".roi":
            return True
        return beginning in (b"PK\x03\x04", b"PK\x05\x06") and path.suffix.lower() == ".zip"

    def read(self, path: Path, *, frames: Frames) -> Annotation:
        """The labels of the image, or of the frames of the stack, that the file lies beside."""
        rois: list[tuple[ImagejRoi, Shape, bool]] = []
        lines = 0
        for place, data in _members(path):
            roi = _parsed(place, data)
            if (region := _region(place, roi)) is None:
                lines += 1
            else:
                rois.append((roi, *region))
        if not rois:
            raise UserError(f"{path}: holds no region with an area; annotate the image, or remove the file")
        outlines = [shape for _, shape, is_box in rois if not is_box]
        from_python = all(FROM_PYTHON in roi.options for roi, _, is_box in rois if not is_box)
        usual = polygons.are_whole(outlines) or not from_python
        at_corners = polygons.count_corners(outlines, usual=usual)
        groups = sorted({roi.group for roi, _, _ in rois})
        classes = [f"group {group}" if group else "no group" for group in groups] if any(groups) else []
        by_frame: dict[str, list[Shape]] = {}
        for (roi, shape, is_box), name in zip(rois, _frames(path, [roi for roi, _, _ in rois], frames), strict=True):
            labelled = replace(shape, label=groups.index(roi.group) + 1 if classes else 0)
            shifted = polygons.from_corners([labelled])[0] if is_box or at_corners else labelled
            by_frame.setdefault(name, []).append(shifted)
        notes = [f"{format_count(lines, 'region')} without an area left out"] if lines else []
        return of_shapes(self.name, by_frame, frames, classes, notes=notes)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Regions as they are stored, and what to call them in a message."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_ENTRY + 1)
        if data[:2] != b"PK":
            if len(data) > LARGEST_ENTRY:
                raise UserError(f"{path}: is larger than a region ever is; save it again")
            yield str(path), data
            return
        for name, content in archives.zip_members(path, LARGEST_ZIP, LARGEST_ENTRY):
            if name.lower().endswith(".roi") and not name.startswith("__MACOSX/"):
                yield f"{path}: {name!r}", content
    except archives.Refused as error:
        raise UserError(f"{path}: {error}; save the regions again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file") from None


def _parsed(place: str, data: bytes) -> ImagejRoi:
    try:
        return ImagejRoi.frombytes(data)
    except Exception as error:  # on damaged regions roifile raises all kinds of exceptions
        raise UserError(f"{place}: is no region of ImageJ, or damaged ({in_one_line(error)}); save it again") from None


def _region(place: str, roi: ImagejRoi) -> tuple[Shape, bool] | None:
    """Its outline, and whether it is a box, which runs along the corners of pixels; None if it has no area."""
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.ARROW, ROI_SUBTYPE.IMAGE):
        return None
    is_box = roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL)
    rings: list[np.ndarray[Any, Any]]
    if roi.composite:
        try:
            rings = list(roi.coordinates(multi=True))
        except NotImplementedError:
            raise UserError(f"{place}: has curves, which are not read; interpolate it in Fiji") from None
        except Exception as error:  # as in `_parsed`
            raise UserError(f"{place}: is damaged ({in_one_line(error)}); save it again") from None
    elif is_box:
        left, top, right, bottom = float(roi.left), float(roi.top), float(roi.right), float(roi.bottom)
        if roi.subpixelrect:
            left, top, right, bottom = roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
        rings = [polygons.rectangle((left, top), (right, bottom))]
        if roi.roitype == ROI_TYPE.OVAL:
            radii = ((right - left) / 2, (bottom - top) / 2)
            rings = [polygons.ellipse(((left + right) / 2, (top + bottom) / 2), radii)]
    elif roi.roitype in OUTLINES:
        rings = list(roi.coordinates(multi=True))
    else:
        return None
    rings = [np.asarray(ring, np.float64) for ring in rings if len(ring) > 2]
    if any(not (np.abs(ring) <= FARTHEST).all() for ring in rings):
        raise UserError(f"{place}: has coordinates that lie outside of any image; fix or remove it")
    return Shape((tuple(rings),) if rings else ()), is_box or roi.composite


def _frames(path: Path, rois: list[ImagejRoi], frames: Frames) -> Iterator[str]:
    """The frame of each region. Raises UserError if one has none, or one that is not there."""
    names = list(frames)
    positions = [roi.t_position or roi.z_position or roi.position for roi in rois]
    if len(names) == 1 and len(set(positions)) == 1:  # an image that was cut from a stack
        positions = [1] * len(rois)
    for roi, position in zip(rois, positions, strict=True):
        if len(names) > 1 and position == 0:
            raise UserError(
                f"{path}: region {roi.name!r} has no position, but there are {len(names):,} frames; "
                "set its frame (Properties in Fiji's ROI manager)"
            )
        if not max(position, 1) <= len(names):
            raise UserError(
                f"{path}: region {roi.name!r} lies on frame {position}, but the image has "
                f"{format_count(len(names), 'frame')}; pair the file with its stack"
            )
        yield names[max(position, 1) - 1]
