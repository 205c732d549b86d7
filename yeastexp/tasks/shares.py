"""Shares from 0 to 1 in 16 bits, as targets are kept and sent: whole numbers of 32767ths, below 0 where unknown."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 32767
UNKNOWN = -1


def in_16_bits(shares: Tensor) -> Tensor:
    """Return shares in [0, 1], NaN where they are unknown, as int16."""
    return (shares * STEPS).round_().nan_to_num_(nan=UNKNOWN).to(torch.int16)


def as_floats(planes: Tensor) -> Tensor:
    """Return the result of `in_16_bits` as float32 with NaN again; planes of floats are returned as they are."""
    if planes.is_floating_point():
        return planes
    return planes.float().div_(STEPS).masked_fill_(planes < 0, torch.nan)
