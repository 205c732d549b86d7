"""Mirroring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.registry import transform


@transform("reflect")
@dataclass(frozen=True)
class Reflect(BasicTransform2D):
    """Mirrors along x, along y, along both or not at all, each axis with its own probability."""

    moves_whole_pixels = True

    x: Annotated[float, Field(ge=0, le=1)] = 0.5
    y: Annotated[float, Field(ge=0, le=1)] = 0.5

    def draw(self, generator: np.random.Generator) -> tuple[bool, bool]:
        along_y, along_x = generator.random(2) < (self.y, self.x)
        return bool(along_x), bool(along_y)

    def geometry(self, size: Size, params: tuple[bool, bool]) -> tuple[np.ndarray, Size]:
        matrix = np.eye(3)
        for axis, mirrored in enumerate(reversed(params)):
            if mirrored:
                matrix[axis, axis], matrix[axis, 2] = -1, size[axis] - 1
        return matrix, size
