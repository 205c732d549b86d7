"""Random numbers that are keyed by their use, and so do not depend on the order in which they are drawn.

Every draw is keyed by (seed, purpose, epoch, index, position), so it does not depend on the number of workers, on the
previous batch, or on a resume. The generator is NumPy's Philox, which is counter-based. Per-pixel fields are an integer
hash of a drawn key and the pixel's coordinates, computed on the device: the same integers on a CPU and a GPU.
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
"""How many numbers a CPU computes at a time, so that intermediate results stay in its caches; a GPU computes all."""

FEW = 2**14
"""Up to this many numbers NumPy is faster than PyTorch, whose calls have more overhead."""

ALIGNED = 8
"""The alignment of arrays in the buffer of `sent`, in bytes: the size of the largest number type."""

_CHANNEL = 0x9E3779B1 - 2**32
"""Knuth's prime multiplier (near 2^32 divided by the golden ratio), as int32: spreads channel indices over all bits."""

Words = TypeVar("Words", npt.NDArray[np.int32], Tensor)
"""int32 arrays of NumPy or PyTorch, whose operators give the same bits."""


def generator(seed: int, purpose: str, epoch: int = 0, index: int = 0, position: int = 0) -> np.random.Generator:
    """Return the generator of one use: e.g. ("augment", epoch, sample, index of the augmentation in its list)."""
    # Word 0 counts the blocks within a stream, so streams of different uses do not overlap.
    counter = np.array([0, position, index, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=counter))


class Generators:
    """Like `generator(seed, purpose, …)`, for many uses in turn: one object is set to each, which ends the one before.

    Making a new generator takes six times as long, most of the time of drawing a patch's random variables.
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
    """Draw a key for a per-pixel field."""
    return int(source.integers(2**62))


def uniform_fields(keys: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return independent uniform numbers in [0, 1), (B, C, H, W) float32: one field for each of B keys.

    A number depends on its key, channel and offset from the field's centre, so that a larger field of the same parity
    contains the smaller one. `shape` is (C, H, W).
    """
    key = np.array(keys, dtype=np.int64).reshape(-1, 1, 1, 1)
    channels, *sides = (np.arange(n, dtype=np.int32) for n in shape)
    rows, columns = (2 * side - (len(side) - 1) for side in sides)
    words = key >> 32, key, rows.reshape(1, 1, -1, 1), columns.reshape(1, 1, 1, -1), channels.reshape(1, -1, 1, 1)
    narrow = [word.astype(np.int32) for word in words]
    narrow[-1] *= _CHANNEL
    # The hash takes one word after the other, so the words of the key and the row, which all pixels of a line share,
    # are hashed once a line, on the CPU. Only columns and channels are hashed for each pixel, on the device.
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
    """Return independent standard normal numbers, (B, C, H, W) float32, by the Box-Muller transform."""
    count = max(1, AT_ONCE // math.prod(shape)) if device.type == "cpu" else len(keys)
    return torch.cat([_normal(keys[first : first + count], shape, device) for first in range(0, len(keys), count)])


def _normal(keys: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    both = uniform_fields([*keys, *(key ^ 0x5DEECE66D for key in keys)], shape, device)
    radius, turn = both[: len(keys)], both[len(keys) :]
    # log(1 - u) and not log(u), as u may be 0 and is never 1. In place, to stay in the caches.
    radius.neg_().log1p_().mul_(-2).sqrt_()
    return turn.mul_(2 * math.pi).cos_().mul_(radius)


# lowbias32 (Wellons 2018), a 32-bit integer hash, of one word after the other. A round is x ^= x >> 16, `_stirred`, and
# x ^= x >> 16 again. This fold is its own inverse: the one that ends a round and the one that begins the next cancel,
# except for the word that is added in between, which therefore is `_folded` by itself. int32 has the bits of uint32:
# products wrap around, but >> copies the sign bit, which `_shifted` clears.


def _hashed(words: Sequence[Words], state: Words | None = None) -> Words:
    """Return the state of the hash after some int32 words, which are broadcast together."""
    for word in words:
        state = _stirred(_folded(word) if state is None else state ^ _folded(word))
    assert state is not None
    return state


def _upper(state: Words) -> Words:
    """Finish the hash and return its upper 24 bits, as many as float32 represents exactly."""
    return _shifted(_folded(state), 8)


def _folded(state: Words) -> Words:
    return state ^ _shifted(state, 16)


def _stirred(state: Words) -> Words:
    """Apply the two multiplications of the hash, in place."""
    state *= 0x7FEB352D
    state ^= _shifted(state, 15)
    state *= 0x846CA68B - 2**32
    return state


def _shifted(state: Words, bits: int) -> Words:
    shifted = state >> bits
    shifted &= 0xFFFFFFFF >> bits
    return shifted


def sent(device: torch.device, *arrays: np.ndarray) -> list[Tensor]:
    """Return arrays as tensors on a device, copied there together.

    The copy is asynchronous, through pinned memory, which PyTorch's allocator does not reuse before the copy has ended.
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
