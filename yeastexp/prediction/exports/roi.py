"""ImageJ's regions of interest in a zip, for Fiji's ROI manager: outlines along the corners of pixels."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

from yeastexp.prediction.exports import outlines
from yeastexp.prediction.exports.contract import Labelled, stacks, writing

MOVE, LINE, CLOSE = 0.0, 1.0, 4.0
"""Instructions of a path."""


class Roi:
    """Names are ids, of stacks with the frame before them. Cells of one ring are traced regions, others composite."""

    name, title, form, needs = "roi", "ImageJ ROI", "roi/NAME.zip", ""

    def write(self, images: Sequence[Labelled], output: Path) -> None:
        """A zip an image, or a stack."""
        for stem, members in stacks(images):
            with (
                writing(output / self.name / f"{stem}.zip") as path,
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            ):
                for image in members:
                    for label, mask, top, left in image.cells():
                        rings = [ring for part in outlines.polygons(mask, top, left) for ring in part]
                        name = f"{image.frame + 1:04}-{label:04}" if image.stack else f"{label:04}"
                        # A date of its own would make two files of the same cells differ.
                        archive.writestr(zipfile.ZipInfo(f"{name}.roi"), region(rings, name, image).tobytes())


def region(rings: Sequence[outlines.Ring], name: str, image: Labelled) -> ImagejRoi:
    """A region by its rings; on the frame of its image, if that is one."""
    points = np.array([point for ring in rings for point in ring])
    roi = ImagejRoi.frompoints(points, name=name)
    if len(rings) == 1:
        roi.roitype, roi.options = ROI_TYPE.TRACED, roi.options & ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    else:
        path = [value for ring in rings for value in _path(ring)]
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        roi = ImagejRoi(
            roitype=ROI_TYPE.RECT, left=left, top=top, right=right, bottom=bottom, name=name,
            multi_coordinates=np.array(path, np.float32), shape_roi_size=len(path),
        )  # fmt: skip
    if image.stack and image.channels > 1:  # ImageJ counts slices of all channels, frames by themselves
        roi.t_position = image.frame + 1
    elif image.stack:
        roi.position = image.frame + 1
    return roi


def _path(ring: outlines.Ring) -> list[float]:
    (x, y), *others = ring
    return [MOVE, x, y, *(value for point in others for value in (LINE, *point)), CLOSE]
