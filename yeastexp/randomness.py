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
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

AT_ONCE = 2**17
"""Numbers that a CPU makes at once, so that its caches hold them on the way; a GPU makes all in one."""

FEW = 2**14
"""Numbers that numpy makes sooner than PyTorch, whose calls cost more."""

ALIGNED = 8
"""Bytes: the largest number that is sent."""

_CHANNEL = 0x9E3779B1 - 2**32

Words = TypeVar("Words", npt.NDArray[np.int32], Tensor)
"""Of numpy or PyTorch, whose operators give the same bits."""


def generator(seed: int, purpose: str, epoch: int = 0, index: int = 0, position: int = 0) -> np.random.Generator:
    """The generator of one purpose: e.g. ("augment", epoch, sample, place of the augmentation in its list)."""
    counter = np.array([0, position, index, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=counter))


class Generators:
    """`generator(seed, purpose, …)` for many draws, each of which ends before the next begins: one object set anew.

    To make one takes six times as long, which is most of what a patch's random variables cost.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._source = np.random.Philox(key=_key(seed, purpose))
        self._begin, self._generator = self._source.state, np.random.Generator(self._source)

    def __call__(self, epoch: int = 0, index: int = 0, position: int = 0) -> np.random.Generator:
        self._begin["state"]["counter"][:] = 0, position, index, epoch
        self._source.state = self._begin
        return self._generator


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
    key = np.array(keys, dtype=np.int64).reshape(-1, 1, 1, 1)
    channels, *sides = (np.arange(n, dtype=np.int32) for n in shape)
    rows, columns = (2 * side - (len(side) - 1) for side in sides)
    words = key >> 32, key, rows.reshape(1, 1, -1, 1), columns.reshape(1, 1, 1, -1), channels.reshape(1, -1, 1, 1)
    narrow = [word.astype(np.int32) for word in words]
    narrow[-1] *= _CHANNEL
    lines = _hashed(narrow[:3])
    if device.type == "cpu" and len(keys) * math.prod(shape) <= FEW:
        state = torch.from_numpy(_upper(_hashed(narrow[3:], lines)))
    else:
        first, *rest = sent(device, lines, *map(_folded, narrow[3:]))
        for word in rest:
            first = _stirred(first ^ word)
        state = _upper(first)
    return state.to(torch.float32).mul_(2.0**-24)


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


def _hashed(words: Sequence[Words], state: Words | None = None) -> Words:
    """The state after words in int32, of the shape that they have together."""
    for word in words:
        state = _stirred(_folded(word) if state is None else state ^ _folded(word))
    assert state is not None
    return state


def _upper(state: Words) -> Words:
    """24 bits of a state."""
    return _shifted(_folded(state), 8)


def _folded(state: Words) -> Words:
    return state ^ _shifted(state, 16)


def _stirred(state: Words) -> Words:
    """In place."""
    state *= 0x7FEB352D
    state ^= _shifted(state, 15)
    state *= 0x846CA68B - 2**32
    return state


def _shifted(state: Words, bits: int) -> Words:
    shifted = state >> bits
    shifted &= 0xFFFFFFFF >> bits
    return shifted


def sent(device: torch.device, *arrays: np.ndarray) -> list[Tensor]:
    """Arrays as tensors on a device, all of them in one copy.

    A GPU is not waited for: they go through pinned memory, which PyTorch gives to nobody else until the copy has ended.
    """
    if device.type == "cpu" or not arrays:
        return [torch.from_numpy(array) for array in arrays]
    ends = np.cumsum([-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays]).tolist()
    host = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for begin, array in zip([0, *ends], arrays, strict=False):
        host.numpy()[begin : begin + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    there = host.to(device, non_blocking=True)
    return [
        there[begin : begin + array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
        for begin, array in zip([0, *ends], arrays, strict=False)
    ]
