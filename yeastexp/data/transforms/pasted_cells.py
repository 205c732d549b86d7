"""Colonies of single cells from the training images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.colonies import Colonies, backgrounds, cut_out
from yeastexp.errors import UserError
from yeastexp.registry import transform
from yeastexp.sample import Sample

Scale = Annotated[float, Field(ge=0.05, le=20)]


@transform("pasted_cells")
@dataclass(frozen=True)
class PastedCells(BasicTransform2D):
    """Takes a patch, with probability `p`, from one of `count` images packed of the training images' single cells.

    A scene has one to four colonies on a background of the training images, `size` pixels at most a side. Its cells
    are `scale` times as large as they were, each one up to e^`spread` times more or less, and a share `buds` of them
    0.3 to 0.65 times that. They are taken from the map `instances`, or are connected regions of the labels; only those
    are taken that hardly touch others. Colonies teach a network cells that touch, and sizes that it would not meet
    (Ghiasi et al. 2021, arXiv:2012.07177, paste objects at random places, without packing them). Runs with a budget
    below five minutes pack as many fewer.
    """

    count: Annotated[int, Field(ge=1, le=10_000)] = 100
    size: Annotated[int, Field(ge=16, le=4096)] = 300
    scale: tuple[Scale, Scale] = (0.4, 1.1)
    spread: Annotated[float, Field(ge=0, le=2)] = 0.35
    buds: Annotated[float, Field(ge=0, le=1)] = 0.2
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        if self.scale[0] > self.scale[1]:
            raise UserError(f"the first of {list(self.scale)} is the smallest, and larger than the second", key="scale")

    def draw(self, generator: np.random.Generator) -> int | None:
        number = int(generator.integers(self.count))
        return number if generator.random() < self.p else None

    def scenes(self, samples: Sequence[Sample], generator: Callable[[int], np.random.Generator]) -> Iterator[Sample]:
        cells = cut_out(samples)
        if not cells:
            raise UserError("[[augment]] pasted_cells: the training images hold no whole cell; omit it")
        grounds = backgrounds(samples, self.size, generator(self.count))
        colonies = Colonies(self.scale, self.spread, self.buds)
        for number in range(self.count):
            source = generator(number)
            yield colonies.scene(cells, grounds[int(source.integers(len(grounds)))], f"scene {number}", source)

    def scene(self, params: int | None) -> int | None:
        return params
