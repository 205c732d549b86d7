"""Light added to a window."""

from __future__ import annotations

import numpy as np
import torch

from yeastexp.data.transforms.uneven_illumination import UnevenIllumination
from yeastexp.randomness import generator


def test_slope_and_bowl_have_their_closed_form() -> None:
    light = UnevenIllumination(reach_px=10).image(torch.zeros(2, 21, 31), (2.0, -1.0, 3.0))
    rows, columns = np.mgrid[-10:11, -15:16] / 10
    expected = torch.from_numpy(2 * rows - columns + 3 * (rows**2 + columns**2)).float()
    torch.testing.assert_close(light, expected.expand(2, -1, -1))
    assert float(light[0, 10, 15]) == 0 and float(light[0, 20, 15]) == 5


def test_a_larger_window_holds_the_smaller() -> None:
    part, whole = (UnevenIllumination().image(torch.zeros(1, n, n), (1.0, 0.5, -0.7)) for n in (16, 30))
    torch.testing.assert_close(whole[:, 7:23, 7:23], part)


def test_draws_keep_within_the_strength() -> None:
    params = np.array([UnevenIllumination(2.0, p=0.3).draw(generator(0, "x", 0, index)) for index in range(2000)])
    some = params[(params != 0).any(axis=1)]
    assert abs(len(some) / 2000 - 0.3) < 0.04
    slopes = np.hypot(some[:, 0], some[:, 1])
    assert 1.9 < slopes.max() <= 2 and 1.9 < np.abs(some[:, 2]).max() <= 2
    assert abs(some.mean(axis=0)).max() < 0.2
