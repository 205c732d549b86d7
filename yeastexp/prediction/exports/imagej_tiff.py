"""Label images as ImageJ opens them: stacks in one file, with the size of a pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from yeastexp.data import tiff_file
from yeastexp.errors import UserError
from yeastexp.prediction.exports.contract import Labelled, Named, NamedT, rows_of, stacks, writing

LARGEST = (1 << 32) - (1 << 20)
"""The most bytes of pixels in a TIFF file that ImageJ opens; the rest of its 4 GB is left for tags."""


class ImageJTiff:
    """Ids in 16 bits or, above 65,535 cells, in float32, because ImageJ has no 32-bit integers."""

    name, title, form, needs = "tif", "ImageJ TIFF", "tif/NAME.tif", ""

    def targets(self, images: Sequence[NamedT], output: Path) -> Mapping[Path, Sequence[NamedT]]:
        """Return a file for each image or stack."""
        return {output / self.name / f"{stem}.tif": members for stem, members in stacks(images)}

    def write(self, images: Sequence[Labelled], output: Path, asked: Sequence[Named]) -> None:
        """Write a file for each image or stack; missing frames are empty."""
        for stem, members in stacks(images):
            target = output / self.name / f"{stem}.tif"
            most, pixel_um = max(image.most for image in members), members[0].pixel_um
            dtype = np.dtype(np.uint16 if most < 1 << 16 else np.float32)
            shape = (max(image.frame for image in members) + 1, *members[0].size)
            # Float32 holds integers exactly up to 2²⁴.
            if math.prod(shape) * dtype.itemsize > LARGEST or most > 1 << 24:
                raise UserError(f"{target}: is too large for ImageJ, which takes 4 GB a file; take --format tif")
            with writing(target) as path:
                tiff_file.write_pages(
                    path, shape, dtype, rows_of({image.frame: image for image in members}, shape[1:]), imagej=True,
                    resolution=(1 / pixel_um, 1 / pixel_um) if pixel_um else None,
                    metadata={"axes": "TYX", "min": 0, "max": max(most, 1), **({"unit": "um"} if pixel_um else {})},
                )  # fmt: skip
