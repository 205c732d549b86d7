"""Label images as ImageJ opens them: stacks in one file, with the size of a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from yeastexp.errors import UserError
from yeastexp.prediction.exports.contract import Labelled, stacks, writing

LARGEST = (1 << 32) - (1 << 20)
"""Bytes of a TIFF file that ImageJ opens, without its tags."""


class ImageJTiff:
    """Ids in 16 bits, above 65,535 cells in float32, since ImageJ has no integers of 32."""

    name, title, form, needs = "tif", "ImageJ TIFF", "tif/NAME.tif", ""

    def write(self, images: Sequence[Labelled], output: Path) -> None:
        """A file an image, or a stack."""
        for stem, members in stacks(images):
            target = output / self.name / f"{stem}.tif"
            most, pixel_um = max(image.most for image in members), members[0].pixel_um
            dtype = np.dtype(np.uint16 if most < 1 << 16 else np.float32)
            shape = (len(members), *members[0].size)
            if math.prod(shape) * dtype.itemsize > LARGEST or most > 1 << 24:
                raise UserError(f"{target}: is too large for ImageJ, which takes 4 GB a file; take --format tif")
            with writing(target) as path:
                tifffile.imwrite(
                    path, (image.open().whole[0].astype(dtype) for image in members), shape=shape, dtype=dtype,
                    imagej=True, compression="zlib", software=False,
                    resolution=(1 / pixel_um, 1 / pixel_um) if pixel_um else None,
                    metadata={"axes": "TYX", "min": 0, "max": max(most, 1), **({"unit": "um"} if pixel_um else {})},
                )  # fmt: skip
