"""Bending."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.data.transforms.geometry import places
from yeastexp.randomness import draw_key, normal_fields, sent
from yeastexp.registry import transform

SPLINE_STD = 151 / 315
"""Mean standard deviation of a two-dimensional cubic B-spline whose coefficients are independent unit normals.

It is the integral of the squared one-dimensional kernel: its square root on each of two axes.
"""


@transform("elastic")
@dataclass(frozen=True)
class Elastic(BasicTransform2D):
    """Moves pixels by a smooth random field of standard deviation up to `shift_px` on each axis, with probability `p`.

    The field is a cubic B-spline over normal numbers on a lattice of `spacing_px` pixels about the patch's centre
    (after Simard et al. 2003, with a spline in place of their Gaussian).
    """

    shift_px: Annotated[float, Field(gt=0, le=100)] = 2.0
    spacing_px: Annotated[float, Field(ge=4, le=1000)] = 24.0
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def draw(self, generator: np.random.Generator) -> tuple[float, int]:
        strength = generator.uniform(0, self.shift_px) * (generator.random() < self.p)
        return float(strength), draw_key(generator)

    def geometry(self, size: Size, params: tuple[float, int]) -> tuple[np.ndarray | Tensor, Size]:
        strength, key = params
        if not strength:
            return np.eye(3), size
        device = torch.get_default_device()
        rows, columns = (_spline(length, self.spacing_px, device) for length in size)
        # Always drawn on the host: the logarithm and the cosine of a GPU may differ in the last bits.
        knots = normal_fields([key], (2, rows.shape[1], columns.shape[1]), torch.device("cpu"))[0].to(device)
        shift = (rows @ knots @ columns.T).mul_(strength / SPLINE_STD)
        for plane, place in zip(shift, places(size, device), strict=True):
            plane += place
        return shift, size

    def shifts(
        self, size: Size, params: Sequence[tuple[float, int]], device: torch.device
    ) -> tuple[Tensor, np.ndarray]:
        weights = [_spline(length, self.spacing_px, torch.device("cpu")) for length in size]
        strengths, keys = zip(*params, strict=True)
        knots = normal_fields(keys, (2, weights[0].shape[1], weights[1].shape[1]), torch.device("cpu"))
        knots *= (torch.tensor(strengths) / SPLINE_STD)[:, None, None, None]
        rows, numbers, columns = sent(device, *(each.numpy() for each in (weights[0], knots, weights[1])))
        # A B-spline is a weighted mean of its coefficients, so the largest of these bounds the shift without a look at
        # the field, for which the host would have to wait.
        return rows @ numbers @ columns.T, knots.abs().amax(dim=(2, 3)).numpy()


@lru_cache(maxsize=64)
def _spline(length: int, spacing: float, device: torch.device) -> Tensor:
    """Weights (length, knots) of the cubic B-spline at each pixel.

    The number of knots is odd and the middle one lies at the centre: as random numbers are counted from there too, a
    longer field holds the shorter one, but for rounding.
    """
    places = (torch.arange(length, device=device) - (length - 1) / 2) / spacing
    reach = math.ceil((length - 1) / 2 / spacing) + 2
    away = (places[:, None] - torch.arange(-reach, reach + 1, device=device)[None, :]).abs()
    near = 2 / 3 - away**2 + away**3 / 2
    far = (2 - away).clamp_min(0) ** 3 / 6
    return torch.where(away < 1, near, far)
