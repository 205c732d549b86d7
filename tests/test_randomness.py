"""Draws that depend on nothing but what they are for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from yeastexp.randomness import generator


def test_the_same_key_draws_the_same() -> None:
    assert np.array_equal(generator(3, "augment", 1, 2, 4).random(5), generator(3, "augment", 1, 2, 4).random(5))


def test_every_part_of_the_key_matters() -> None:
    keys = [
        (s, p, e, i, n) for s, p in ((0, "a"), (1, "a"), (0, "b")) for e, i, n in itertools.product((0, 1), repeat=3)
    ]
    assert len({generator(*key).random() for key in keys}) == len(keys)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_neighbouring_samples_are_independent(seed: int) -> None:
    """Streams of one purpose lie apart in the counter: no draw of one is a draw of the next."""
    drawn = np.stack([generator(seed, "window", 0, index).random(1000) for index in range(20)])
    assert np.abs(np.corrcoef(drawn) - np.eye(20)).max() < 0.15
    assert len(np.unique(drawn)) == drawn.size


def test_the_numbers_never_change() -> None:
    """Or old runs could not be repeated."""
    assert generator(0, "augment", 1, 2, 3).integers(1_000_000, size=3).tolist() == FROZEN


FROZEN = [1095, 30859, 536286]
