"""Fields of discs with a wanted share of foreground: live cells, buds, and dead cells, which are background."""

from __future__ import annotations

import math
from itertools import cycle

import numpy as np
import numpy.typing as npt
import torch

from yeastexp.randomness import generator
from yeastexp.sample import Sample

SIZE = 256
"""Pixels of a side."""

CELL_RADIUS_PX = 13.2
BUD_RADIUS_PX = 5.0
DEAD_RADIUS_PX = 12.0

PITCH_PX = 27.4
"""Between the centres of a hexagonal grid: the largest discs keep a gap of one pixel."""

ORDER = ("dead", "cell", "bud", "cell", "cell", "cell", "cell")
"""What the places are given to, over and over, in the order in which they are filled."""

RADII_PX = {"cell": CELL_RADIUS_PX, "bud": BUD_RADIUS_PX}

SMALLEST_PX = 4
"""Of a last cell's side; less is left as it is."""

Ids = npt.NDArray[np.int64]


def field(share: float, number: int) -> Sample:
    """A field whose live cells cover about `share` of it, at most about 0.55; the same for the same number.

    The image (1, H, W) is the foreground itself; the maps are `instances` and `dead`.
    """
    instances, dead = _placed(share, number)
    labels = torch.from_numpy((instances > 0).astype(np.int64))
    maps = {"instances": torch.from_numpy(instances), "dead": torch.from_numpy(dead)}
    return Sample(labels[None].float(), labels, f"field_{number}", maps=maps)


def _placed(share: float, number: int) -> tuple[Ids, Ids]:
    """Ids of live and of dead cells: places of a grid are filled in random order until the share is met.

    The last cell is as large as what is left of the share.
    """
    live, dead = np.zeros((2, SIZE, SIZE), np.int64)
    left = share * SIZE**2
    for number_of, ((row, column), kind) in enumerate(zip(_places(number), cycle(ORDER), strict=False), start=1):
        if kind == "dead":
            dead[_disc(row, column, DEAD_RADIUS_PX)] = number_of
            continue
        disc = _disc(row, column, min(RADII_PX[kind], math.sqrt(left / math.pi)))
        live[disc] = number_of
        left -= int(disc.sum())
        if left < SMALLEST_PX**2:
            break
    return live, dead


def _places(number: int) -> list[tuple[float, float]]:
    """The places of a hexagonal grid, laid at random over the field, in random order."""
    source = generator(0, "field of discs", index=number)
    height = PITCH_PX * np.sqrt(3) / 2
    first = source.uniform(0, 1, 2) * (height, PITCH_PX)
    rows = np.arange(first[0], SIZE, height)
    found = [
        (float(row), float(column))
        for index, row in enumerate(rows)
        for column in np.arange(first[1] - index % 2 * PITCH_PX / 2, SIZE, PITCH_PX)
        if column >= 0
    ]
    return [found[index] for index in source.permutation(len(found))]


def _disc(row: float, column: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[:SIZE, :SIZE]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)
