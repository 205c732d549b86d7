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

AT_ONCE = 2**17
"""Numbers that a CPU makes at once, so that its caches hold them on the way; a GPU makes all in one."""

_CHANNEL = 0x9E3779B1 - 2**32


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
    key = torch.tensor(keys, dtype=torch.int64, device=device).view(-1, 1, 1, 1)
    channels, *sides = (torch.arange(n, dtype=torch.int32, device=device) for n in shape)
    rows, columns = (2 * side - (len(side) - 1) for side in sides)
    words = (key >> 32).int(), key.int(), rows.view(1, 1, -1, 1), columns, (channels * _CHANNEL).view(1, -1, 1, 1)
    state = torch.zeros((), dtype=torch.int32, device=device)
    for word in words:
        state = _stirred(state ^ _folded(word))
    return _shifted(_folded(state), 8).to(torch.float32).mul_(2.0**-24)


def normal_fields(keys: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Independent standard normal numbers, (B, C, H, W) float32: Box and Muller's formula on two uniform fields."""
    count = max(1, AT_ONCE // math.prod(shape)) if device.type == "cpu" else len(keys)
    return torch.cat([_normal(keys[first : first + count], shape, device) for first in range(0, len(keys), count)])


def _normal(keys: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    both = uniform_fields([*keys, *(key ^ 0x5DEECE66D for key in keys)], shape, device)
    radius, turn = both[: len(keys)], both[len(keys) :]
    radius.neg_().log1p_().mul_(-2).sqrt_()
    return turn.mul_(2 * math.pi).cos_().mul_(radius)


# A 32-bit integer hash with low bias (Wellons 2018, lowbias32), of one word after the other: it folds, stirs and folds
# again. Two folds cancel each other, so that between words one of the new word alone is left. int32 has the bits of
# uint32: products wrap around, and shifts have to be cleared of the sign.


def _folded(state: Tensor) -> Tensor:
    return state ^ _shifted(state, 16)


def _stirred(state: Tensor) -> Tensor:
    """In place."""
    state.mul_(0x7FEB352D)
    return state.bitwise_xor_(_shifted(state, 15)).mul_(0x846CA68B - 2**32)


def _shifted(state: Tensor, bits: int) -> Tensor:
    return torch.bitwise_right_shift(state, bits).bitwise_and_(0xFFFFFFFF >> bits)
