"""Random numbers that depend on nothing but what they are for.

Every draw is keyed by (seed, purpose, epoch, index, position), so it does not depend on the number of workers, on the
batch before it, or on a resume. The generator is numpy's Philox, which is counter-based. Per-pixel fields come from an
integer hash of a drawn key and the pixel's place, computed on the device: the same integers on a CPU and a GPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_LOW_32 = 0xFFFFFFFF


def generator(seed: int, purpose: str, epoch: int = 0, index: int = 0, position: int = 0) -> np.random.Generator:
    """The generator of one purpose: e.g. ("augment", epoch, sample, place of the augmentation in its list)."""
    counter = np.array([0, position, index, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=counter))


@lru_cache(maxsize=256)
def _key(seed: int, purpose: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.frombuffer(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest(), dtype=np.uint64)


def draw_key(source: np.random.Generator) -> int:
    """A key for a per-pixel field."""
    return int(source.integers(2**62))


def uniform_fields(keys: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Independent numbers in [0, 1), (B, C, H, W) float32: one field for each key.

    A number depends on its key, its channel and its place counted from the field's centre, so that a larger field of
    the same parity holds the smaller one.
    """
    channels, height, width = shape
    mixed = torch.tensor(keys, dtype=torch.int64, device=device)[:, None, None, None]
    state = _mixed((mixed & _LOW_32) ^ _mixed(mixed >> 32))
    for axis, length in ((2, height), (3, width)):
        place = 2 * torch.arange(length, device=device) - (length - 1)
        view = [1, 1, 1, 1]
        view[axis] = length
        state = _mixed(state ^ (place & _LOW_32).view(view))
    state = _mixed(state ^ (torch.arange(channels, device=device) * 0x9E3779B1 & _LOW_32).view(1, -1, 1, 1))
    return (state >> 8).to(torch.float32) * 2.0**-24


def normal_fields(keys: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Independent standard normal numbers, (B, C, H, W) float32: Box and Muller's formula on two uniform fields."""
    radius = uniform_fields(keys, shape, device)
    turn = uniform_fields([key ^ 0x5DEECE66D for key in keys], shape, device)
    return torch.sqrt(-2 * torch.log1p(-radius)) * torch.cos(2 * math.pi * turn)


def _mixed(state: Tensor) -> Tensor:
    """A 32-bit integer hash with low bias (Wellons 2018, lowbias32), in the low half of int64."""
    state = state & _LOW_32
    state = ((state ^ (state >> 16)) * 0x7FEB352D) & _LOW_32
    state = ((state ^ (state >> 15)) * 0x846CA68B) & _LOW_32
    return state ^ (state >> 16)
