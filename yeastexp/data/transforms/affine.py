"""Turning, scaling and shearing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.registry import transform

Drawn = tuple[float, float, float]


@transform("affine")
@dataclass(frozen=True)
class Affine(BasicTransform2D):
    """Turns up to ± `rotation`, magnifies by 1 / `scale` to `scale`, shears by up to ± `shear`, with probability `p`.

    Angles are in degrees; the magnification is drawn log-uniformly. All are about the centre of the patch.
    """

    rotation: Annotated[float, Field(ge=0, le=180, description="degrees")] = 15.0
    scale: Annotated[float, Field(ge=1, le=4, description="factor")] = 1.25
    shear: Annotated[float, Field(ge=0, le=45, description="degrees")] = 5.0
    p: Annotated[float, Field(ge=0, le=1)] = 1.0

    def draw(self, generator: np.random.Generator) -> Drawn:
        rotation, magnified, shear = generator.uniform(-1, 1, 3)
        if generator.random() >= self.p:
            return 0.0, 1.0, 0.0
        angle = math.radians(rotation * self.rotation)
        return angle, float(self.scale**magnified), math.tan(math.radians(shear * self.shear))

    def geometry(self, size: Size, params: Drawn) -> tuple[np.ndarray, Size]:
        angle, magnification, shear = params
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        linear = turn @ np.array([[1.0, 0.0], [shear, 1.0]]) / magnification
        centre = (np.array(size) - 1) / 2
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = centre - linear @ centre
        return matrix, size
