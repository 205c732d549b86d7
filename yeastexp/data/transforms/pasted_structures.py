"""Things in a microscope's field that are no cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.errors import UserError
from yeastexp.randomness import draw_key
from yeastexp.registry import transform
from yeastexp.sample import IGNORE

Params = tuple[int, int]
"""How many structures, and the key that the rest follows from."""

Kind = Literal["wall", "pillar", "dust"]
Pixels = Annotated[float, Field(gt=0, le=1000)]

ENDLESS_PX = 1e4
DUST_PX = (1.0, 5.0)
FRINGE_PX = (0.7, 4.0)


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
        images = images.clone()
        for rows, structures in self.layers(params, images.device):
            away = distance(structures, (images.shape[-2], images.shape[-1]))[:, None]
            inside, edge, fringe_px, cover = structures[:, 5:].view(-1, 4, 1, 1, 1).unbind(1)
            below = images[rows]
            drawn_over = below + cover * torch.sigmoid(-2 * away) * (inside - below)
            ring = torch.exp(-((away / fringe_px) ** 2)) - 0.5 * torch.exp(-((away / fringe_px - 2) ** 2))
            images[rows] = drawn_over + edge * ring
        return images

    def labels(self, labels: Tensor, params: Params) -> Tensor:
        for _, structures in self.layers([params], labels.device):
            inside = distance(structures, (labels.shape[-2], labels.shape[-1]))[0] <= 0
            labels = labels.masked_fill(inside & (labels != IGNORE), 0)
        return labels

    def layers(self, params: Sequence[Params], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """The n-th structures of all patches that have so many: the patches' indices, and a row (N, 9) for each."""
        patches = [self.structures(*given) for given in params]
        for layer in range(max(map(len, patches), default=0)):
            rows = [row for row, structures in enumerate(patches) if len(structures) > layer]
            chosen = np.stack([patches[row][layer] for row in rows])
            yield torch.tensor(rows, device=device), torch.tensor(chosen, dtype=torch.float32, device=device)

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


def distance(structures: Tensor, size: Size) -> Tensor:
    """Signed distance in pixels to each structure's outline, negative inside, from the patch's centre: (N, H, W).

    Corners are as round as the shorter side allows, so the outline is where the distance to a straight piece is half
    that side. (A wall is so long that its corners are never in the patch.)
    """
    y, x, angle, long_px, short_px = structures[:, :5, None, None].unbind(1)
    rows, columns = (torch.arange(n, device=structures.device) - (n - 1) / 2 for n in size)
    down, right = rows[:, None] - y, columns[None, :] - x
    along = (down * angle.cos() + right * angle.sin()).abs()
    across = (right * angle.cos() - down * angle.sin()).abs()
    corner = torch.minimum(long_px, short_px)
    return torch.hypot((along - long_px + corner).clamp_min(0), (across - short_px + corner).clamp_min(0)) - corner
