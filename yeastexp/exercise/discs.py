"""Synthetic fields of discs with a given foreground fraction: live cells, buds, and dead cells as background."""

from __future__ import annotations

import math
from itertools import cycle

import numpy as np
import numpy.typing as npt
import torch

from yeastexp.randomness import generator
from yeastexp.sample import Sample

SIZE = 256
"""The side of a field in pixels."""

CELL_RADIUS_PX = 13.2
BUD_RADIUS_PX = 5.0
DEAD_RADIUS_PX = 12.0

PITCH_PX = 27.4
"""The spacing of the hexagonal grid of centres, at which the largest discs keep a gap of one pixel."""

KINDS = ("dead", "cell", "bud", "cell", "cell", "cell", "cell")
"""The kinds of successive discs, repeated."""

RADII_PX = {"cell": CELL_RADIUS_PX, "bud": BUD_RADIUS_PX}

SMALLEST_PX = 4
"""The side of the square whose area is the least remaining area that a further cell is placed for."""

Ids = npt.NDArray[np.int64]


def field(share: float, number: int) -> Sample:
    """A field whose live cells cover the fraction `share` (at most about 0.55), deterministic in `number`.

    The image (1, H, W) equals the foreground mask; the maps are `instances` and `dead`.
    """
    instances, dead = _placed(share, number)
    labels = torch.from_numpy((instances > 0).astype(np.int64))
    maps = {"instances": torch.from_numpy(instances), "dead": torch.from_numpy(dead)}
    return Sample(labels[None].float(), labels, f"field_{number}", maps=maps)


def _placed(share: float, number: int) -> tuple[Ids, Ids]:
    """Ids of live and of dead cells, placed on grid points in random order until the share is reached."""
    # The last cell is shrunk to the remaining area. The area that is left is counted in pixels, not by formula: a disc
    # may be cut by the border.
    live, dead = np.zeros((2, SIZE, SIZE), np.int64)
    area = share * SIZE**2
    for disc_id, ((row, column), kind) in enumerate(zip(_grid(number), cycle(KINDS), strict=False), start=1):
        if kind == "dead":
            dead[_disc(row, column, DEAD_RADIUS_PX)] = disc_id
            continue
        disc = _disc(row, column, min(RADII_PX[kind], math.sqrt(area / math.pi)))
        live[disc] = disc_id
        area -= int(disc.sum())
        if area < SMALLEST_PX**2:
            break
    return live, dead


def _grid(number: int) -> list[tuple[float, float]]:
    """The points of a hexagonal grid with a random offset, in random order."""
    source = generator(0, "field of discs", index=number)
    height = PITCH_PX * np.sqrt(3) / 2
    offset = source.uniform(0, 1, 2) * (height, PITCH_PX)
    rows = np.arange(offset[0], SIZE, height)
    points = [
        (float(row), float(column))
        for index, row in enumerate(rows)
        for column in np.arange(offset[1] - index % 2 * PITCH_PX / 2, SIZE, PITCH_PX)
        if column >= 0
    ]
    return [points[index] for index in source.permutation(len(points))]


def _disc(row: float, column: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[:SIZE, :SIZE]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)
