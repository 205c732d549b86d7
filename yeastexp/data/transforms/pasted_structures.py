"""Things in a microscope's field that are no cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.data.transforms.rows import Rows, float32
from yeastexp.errors import UserError
from yeastexp.randomness import draw_key, sent
from yeastexp.registry import transform
from yeastexp.sample import IGNORE

Params = tuple[int, int]
"""How many structures, and the key that the rest follows from."""

Kind = Literal["wall", "pillar", "dust"]
Pixels = Annotated[float, Field(gt=0, le=1000)]

ENDLESS_PX = 1e4
DUST_PX = (1.0, 5.0)
FRINGE_PX = (0.7, 4.0)

NOWHERE = np.array([1e6, 1e6, 0, 0.5, 0.5, 0, 0, 1, 0])
"""A structure that nothing of is seen, as `PastedStructures.structure` gives one."""


@transform("pasted_structures")
@dataclass(frozen=True)
class PastedStructures(BasicTransform2D):
    """Draws 1 to `max_count` bright or dark walls, pillars and specks of dust over a patch, with probability `p`.

    Their pixels become background (label 0). All are rectangles with round corners: a wall is endless and as wide as
    `size_px` allows, a pillar has two sides of such lengths, a speck is a few pixels large. Each has an inside, half of
    the time as bright as the image's mean, and an edge with a fringe of the opposite sign around it, both up to
    ± `strength` in standard deviations (after `zscore`). Places are within `reach_px` of the patch's centre.
    """

    max_count: Annotated[int, Field(ge=1, le=50)] = 3
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("wall", "pillar", "dust")
    size_px: tuple[Pixels, Pixels] = (4.0, 48.0)
    strength: Annotated[float, Field(gt=0, le=1e6)] = 6.0
    reach_px: Pixels = 128.0
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        if self.size_px[0] > self.size_px[1]:
            raise UserError(
                f"the first of {list(self.size_px)} is the smallest, and larger than the second", key="size_px"
            )

    def draw(self, generator: np.random.Generator) -> Params:
        count = int(generator.integers(1, self.max_count, endpoint=True))
        return count * bool(generator.random() < self.p), draw_key(generator)

    def image(self, image: Tensor, params: Params) -> Tensor:
        return self.batch(image[None], [params])[0]

    def batch(self, images: Tensor, params: Sequence[Params]) -> Tensor:
        return self.batch_with_labels(images, [], params)[0]

    def labels(self, labels: Tensor, params: Params) -> Tensor:
        planes = labels[None, None]
        return self.batch_with_labels(planes.float(), [planes], [params])[1][0][0, 0]

    def batch_with_labels(
        self, images: Tensor, planes: Sequence[Tensor], params: Sequence[Params]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        patches = [_structures(self, *given) for given in params]
        if not (depth := max(map(len, patches))):
            return images, planes
        if images.device.type != "cpu":  # which draws one more sooner than it picks images
            patches = [[*structures, *[NOWHERE] * (depth - len(structures))] for structures in patches]
        rows = [np.array([row for row, own in enumerate(patches) if len(own) > layer]) for layer in range(depth)]
        listed = float32([patches[row][layer] for layer, images_of in enumerate(rows) for row in images_of])
        layers = [Rows.of(images, images_of) for images_of in rows]
        (structures,) = sent(images.device, listed)
        away = distance(structures, (images.shape[-2], images.shape[-1]))[:, None]
        inside, edge, fringe_px, cover = structures[:, 5:].view(-1, 4, 1, 1, 1).unbind(1)
        share = cover * torch.sigmoid(-2 * away)
        far = away / fringe_px
        ring = edge * (torch.exp(-(far**2)) - 0.5 * torch.exp(-((far - 2) ** 2)))
        parts = [
            slice(last - len(own), last) for own, last in zip(rows, np.cumsum([*map(len, rows)]).tolist(), strict=True)
        ]
        for layer, part in zip(layers, parts, strict=True):
            chosen = replace(layer, batch=images)
            below = chosen.images
            images = chosen.replaced(below + share[part] * (inside[part] - below) + ring[part])
        if planes:
            within = away <= 0
            covered = within.new_zeros(len(images), *within.shape[1:])
            for layer, part in zip(layers, parts, strict=True):
                chosen = replace(layer, batch=covered)
                covered = chosen.replaced(chosen.images | within[part])
            planes = [plane.masked_fill(covered & (plane != IGNORE), 0) for plane in planes]
        return images, planes

    def structures(self, count: int, key: int) -> list[np.ndarray]:
        """Each structure as centre (y, x), angle, half sides, inside, edge, width of the fringe and cover."""
        source = np.random.Generator(np.random.Philox(key=key))
        return [self.structure(source) for _ in range(count)]

    def structure(self, source: np.random.Generator) -> np.ndarray:
        """One structure of any kind."""
        kind = self.kinds[int(source.integers(len(self.kinds)))]
        smallest, largest = DUST_PX if kind == "dust" else self.size_px
        sides = smallest * (largest / smallest) ** source.random(2)
        if kind == "wall":
            sides[0] = ENDLESS_PX
        elif source.random() < 0.5:
            sides[1] = sides[0]  # round: what is most like a cell
        inside = source.uniform(-1, 1) * self.strength * (source.random() < 0.5)
        fringe_px = FRINGE_PX[0] * (FRINGE_PX[1] / FRINGE_PX[0]) ** source.random()
        place = source.uniform(-self.reach_px, self.reach_px, 2)
        turned, cover = source.uniform(0, math.pi), source.uniform(0.7, 1)
        edge = source.choice([-1, 1]) * source.uniform(0.2, 1) * self.strength
        return np.array([*place, turned, *(sides / 2), inside, edge, fringe_px, cover])


@lru_cache(maxsize=1024)
def _structures(transform: PastedStructures, count: int, key: int) -> list[np.ndarray]:
    return transform.structures(count, key)


def distance(structures: Tensor, size: Size) -> Tensor:
    """Signed distance in pixels to each structure's outline, negative inside, from the patch's centre: (N, H, W).

    Corners are as round as the shorter side allows, so the outline is where the distance to a straight piece is half
    that side. (A wall is so long that its corners are never in the patch.)
    """
    y, x, angle, long_px, short_px = structures[:, :5, None, None].unbind(1)
    rows, columns = sent(structures.device, *(np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in size))
    down, right = rows[:, None] - y, columns[None, :] - x
    cosine, sine = angle.cos(), angle.sin()
    along = (down * cosine + right * sine).abs()
    across = (right * cosine - down * sine).abs()
    corner = torch.minimum(long_px, short_px)
    return torch.hypot((along - long_px + corner).clamp_min(0), (across - short_px + corner).clamp_min(0)) - corner
