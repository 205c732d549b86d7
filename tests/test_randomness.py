"""Draws that depend on nothing but what they are for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from yeastexp.randomness import Generators, generator, uniform_fields

FROZEN_FIRST = [7800264732414960, 2722031417030632, 7264895071412117, 1769808456732560]


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


def test_generators_set_anew_are_those_made_anew() -> None:
    """Also behind draws that leave half of a word, or of what was computed at once, unused."""
    sources = Generators(5, "augment")
    for key in ((0, 0, 0), (3, 2**40, 1), (3, 2**40, 2)):
        source, fresh = sources(*key), generator(5, "augment", *key)
        assert [source.integers(9, dtype=np.int32), source.normal(), *source.random(5)] == [
            fresh.integers(9, dtype=np.int32),
            fresh.normal(),
            *fresh.random(5),
        ]


def test_a_draw_of_one_purpose_does_not_move_another() -> None:
    one = generator(0, "augment", 0, 0)
    one.random(1000)
    assert generator(0, "augment", 0, 1).random() == generator(0, "augment", 0, 1).random()
    assert one.random() == generator(0, "augment", 0, 0).random(1001)[-1]


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ((0, "model"), FROZEN_FIRST[0]),
        ((0, "order", 7), FROZEN_FIRST[1]),
        ((2**63 - 1, "window", 3, 17), FROZEN_FIRST[2]),
        ((5, "augment", 10**6, 10**6, 9), FROZEN_FIRST[3]),
    ],
)
def test_the_first_numbers_of_every_purpose_never_change(key: tuple[int, ...], wanted: int) -> None:
    assert int(generator(*key).integers(2**53)) == wanted


FROZEN = [1095, 30859, 536286]


def lowbias32(number: int) -> int:
    """Wellons' hash as he gives it."""
    number ^= number >> 16
    number = number * 0x7FEB352D % 2**32
    number ^= number >> 15
    number = number * 0x846CA68B % 2**32
    return number ^ number >> 16


@pytest.mark.parametrize("key", [0, 1, 123456789, 2**32 + 5, 2**62 - 1])
def test_a_field_is_the_published_hash_of_one_word_after_the_other(key: int) -> None:
    shape = (2, 5, 4)
    found = (uniform_fields([7, key], shape, torch.device("cpu"))[1] * 2**24).long()
    for channel, row, column in np.ndindex(shape):
        state = lowbias32(key % 2**32 ^ lowbias32(key >> 32))
        for word in (2 * row - 4, 2 * column - 3, channel * 0x9E3779B1):
            state = lowbias32(state ^ word % 2**32)
        assert found[channel, row, column] == state >> 8
