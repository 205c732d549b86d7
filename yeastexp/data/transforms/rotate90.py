"""Quarter turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.registry import transform


@transform("rotate90")
@dataclass(frozen=True)
class Rotate90(BasicTransform2D):
    """Turns by a random multiple of 90 degrees counter-clockwise, with probability `p`; all four are equally likely."""

    moves_whole_pixels = True

    p: Annotated[float, Field(ge=0, le=1)] = 1.0

    def draw(self, generator: np.random.Generator) -> int:
        turns = int(generator.integers(4))
        return turns if generator.random() < self.p else 0

    def geometry(self, size: Size, params: int) -> tuple[np.ndarray, Size]:
        height, width = size
        rows = {
            0: ((1, 0, 0), (0, 1, 0)),
            1: ((0, 1, 0), (-1, 0, width - 1)),
            2: ((-1, 0, height - 1), (0, -1, width - 1)),
            3: ((0, -1, height - 1), (1, 0, 0)),
        }[params]
        return np.array([*rows, (0, 0, 1)], dtype=np.float64), (width, height) if params % 2 else size
