"""Random numbers that depend on nothing but what they are for.

Every draw is keyed by (seed, purpose, epoch, index, position), so it does not depend on the number of workers, on the
batch before it, or on a resume. The generator is numpy's Philox, which is counter-based.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


def generator(seed: int, purpose: str, epoch: int = 0, index: int = 0, position: int = 0) -> np.random.Generator:
    """The generator of one purpose: e.g. ("augment", epoch, sample, place of the augmentation in its list)."""
    counter = np.array([0, position, index, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=counter))


@lru_cache(maxsize=256)
def _key(seed: int, purpose: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.frombuffer(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest(), dtype=np.uint64)
