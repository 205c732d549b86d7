"""ImageJ's regions of interest in a zip file, for Fiji's ROI manager: outlines along the edges of pixels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

from yeastexp.prediction.exports import outlines
from yeastexp.prediction.exports.contract import Labelled, Named, NamedT, stacks, writing

MOVE, LINE, CLOSE = 0.0, 1.0, 4.0
"""The instructions of a composite region's path."""


class Roi:
    """Regions named by ids, in stacks with the frame before them; a cell of several rings is a composite region."""

    name, title, form, needs = "roi", "ImageJ ROI", "roi/NAME.zip", ""

    def targets(self, images: Sequence[NamedT], output: Path) -> Mapping[Path, Sequence[NamedT]]:
        """Return a file for each image or stack."""
        return {output / self.name / f"{stem}.zip": members for stem, members in stacks(images)}

    def write(self, images: Sequence[Labelled], output: Path, asked: Sequence[Named]) -> None:
        """Write a zip file for each image or stack."""
        for stem, members in stacks(images):
            with (
                writing(output / self.name / f"{stem}.zip") as path,
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            ):
                for image in members:
                    for label, mask, top, left in image.cells():
                        rings = [ring for part in outlines.polygons(mask, top, left) for ring in part]
                        name = f"{image.frame + 1:04}-{label:04}" if image.stack else f"{label:04}"
                        # `ZipInfo` has a fixed date; that of today would make two files of the same cells differ.
                        archive.writestr(zipfile.ZipInfo(f"{name}.roi"), region(rings, name, image).tobytes())


def region(rings: Sequence[outlines.Ring], name: str, image: Labelled) -> ImagejRoi:
    """Return the region with some rings, on the frame and the plane in depth of its image if that is in a stack."""
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
    frame = image.frame + 1 if image.stack else 0
    plane = image.plane + 1 if image.planes > 1 and image.plane is not None else 0
    # A position counts the slices along all axes, so with several of them only the numbers along each are right. 0
    # stands for all slices along an axis.
    if (image.channels > 1) + (image.planes > 1) + bool(image.stack) > 1:
        roi.z_position, roi.t_position = plane, frame
    else:
        roi.position = frame or plane
    return roi


def _path(ring: outlines.Ring) -> list[float]:
    """Return a ring as instructions of a path."""
    (x, y), *others = ring
    return [MOVE, x, y, *(value for point in others for value in (LINE, *point)), CLOSE]
