"""Structures that are no cells: where they lie, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from yeastexp.data.transforms.pasted_structures import ENDLESS_PX, Params, PastedStructures, distance
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE

ALWAYS = PastedStructures(p=1.0)


def row(y: float, x: float, angle: float, long_px: float, short_px: float) -> Tensor:
    return torch.tensor([[y, x, angle, long_px, short_px, 0.0, 1.0, 1.0, 1.0]])


def test_a_structure_of_equal_sides_is_a_disc() -> None:
    rows, columns = np.mgrid[-20:21, -30:31]
    found = distance(row(3, -5, 0.7, 8, 8), (41, 61))[0]
    expected = torch.from_numpy(np.hypot(rows - 3, columns + 5) - 8).float()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2])
def test_a_wall_is_all_that_lies_between_two_lines(angle: float) -> None:
    rows, columns = np.mgrid[-20:21, -20:21]
    found = distance(row(2, 1, angle, ENDLESS_PX, 4), (41, 41))[0]
    across = (columns - 1) * np.cos(angle) - (rows - 2) * np.sin(angle)
    torch.testing.assert_close(found, torch.from_numpy(np.abs(across) - 4).float(), atol=1e-3, rtol=0)


def listed(params: Params) -> Tensor:
    """Rows (N, 1, 9)."""
    return torch.tensor(np.stack(ALWAYS.structures(*params)), dtype=torch.float32)[:, None]


def test_labels_inside_become_background_and_ignored_ones_stay() -> None:
    labels = torch.ones(61, 61, dtype=torch.int64)
    labels[:30] = IGNORE
    for index in range(20):
        params = ALWAYS.draw(generator(0, "augment", 0, index))
        found = ALWAYS.labels(labels, params)
        inside = torch.zeros(61, 61, dtype=torch.bool)
        for structures in listed(params):
            inside |= distance(structures, (61, 61))[0] <= 0
        assert torch.equal(found[30:], (~inside[30:]).long()) and bool((found[:30] == IGNORE).all())


def test_pixels_far_from_every_structure_stay() -> None:
    image = torch.randn(1, 101, 101, generator=torch.Generator().manual_seed(0))
    changed = 0
    for index in range(20):
        params = ALWAYS.draw(generator(0, "augment", 0, index))
        found = ALWAYS.image(image, params)
        away = torch.full((101, 101), 1e9)
        for structures in listed(params):
            away = torch.minimum(away, distance(structures, (101, 101))[0] / structures[0, 7].clamp_min(1))
        assert torch.allclose(found[0][away > 7], image[0][away > 7], rtol=0, atol=1e-5)
        changed += bool((found != image).any())
    assert changed > 10


def test_number_kinds_and_probability() -> None:
    params = [PastedStructures(max_count=4, p=0.25).draw(generator(0, "augment", 0, index)) for index in range(4000)]
    counts = np.bincount([count for count, _ in params], minlength=5)
    assert counts[0] / 4000 == pytest.approx(0.75, abs=0.03)
    assert counts[1:] / counts[1:].sum() == pytest.approx(np.full(4, 0.25), abs=0.05)
    walls = PastedStructures(kinds=("wall",), max_count=3, size_px=(6.0, 10.0)).structures(300, key=1)
    assert all(one[3] == ENDLESS_PX / 2 and 3 <= one[4] <= 5 for one in walls)
    dust = PastedStructures(kinds=("dust",)).structures(300, key=1)
    assert all(max(one[3:5]) <= 2.5 for one in dust)
    assert {len(ALWAYS.structures(3, key)) for key in range(5)} == {3}


def test_a_larger_window_holds_the_smaller() -> None:
    image = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    params = (3, 12345)
    whole = ALWAYS.image(image, params)
    part = ALWAYS.image(image[:, 16:48, 16:48], params)
    torch.testing.assert_close(whole[:, 16:48, 16:48], part, rtol=0, atol=1e-5)


def test_sizes_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(UserError) as error:
        PastedStructures(size_px=(9.0, 4.0))
    assert error.value.key == "size_px"
    assert str(error.value) == "the first of [9.0, 4.0] is the smallest, and larger than the second"
