"""The ids of cells, as a preflight describes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from yeastexp.config.loading import load_experiment
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.inspection.preflight import instance_rules, patch_rules
from yeastexp.inspection.preflight.statistics import ImageStatistics, measure
from yeastexp.metrics import cells

QUICK = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"
YEAST = SyntheticYeast(images=3, size=96, val=1)


def ids() -> torch.Tensor:
    """Of cells 5 (with a far piece), 7 below it, 8 (in two near pieces) and 9 (one pixel)."""
    plane = torch.zeros(96, 96, dtype=torch.int32)
    plane[0:4, 0:4], plane[4:8, 4:8], plane[75:78, 80:83], plane[12, 12] = 5, 7, 5, 9
    plane[30:34, 30:34], plane[30:34, 35:37] = 8, 8
    return plane


def images(plane: torch.Tensor) -> list[ImageStatistics]:
    sample = YEAST.read("yeast_000")
    return [measure(replace(sample, maps={"instances": plane}), "train", "uint16", ())]


def test_statistics_of_ids() -> None:
    told = cells.measure(ids())
    assert (told.count, told.touching, told.cut, told.longest_px) == (4, 2, 1, 4)
    assert (told.single_pixels, told.in_pieces, told.distant) == ((9,), (5, 8), (5,))


def test_a_hundred_thousand_cells() -> None:
    squares = torch.arange(1, 102_401).view(320, 320).repeat_interleave(4, 0).repeat_interleave(4, 1)
    told = cells.measure(squares)
    assert (told.count, told.touching, told.cut, told.in_pieces) == (102_400, 102_400, 1_276, ())


def test_odd_ids_are_named() -> None:
    told = {finding.about: finding for finding in instance_rules.findings(images(ids()), needed=True)}
    assert list(told) == ["ids shared by distant cells", "ids in several pieces", "cells of one pixel"]
    assert told["ids in several pieces"].what.endswith("1 in yeast_000 (ids 8)")
    assert instance_rules.cells_line(images(ids())).startswith("4 cells in 1 image: 4 to 4 an image; median diameter")


def test_ids_that_8_bits_cut_are_told() -> None:
    plane = torch.zeros(96, 96, dtype=torch.int32)
    plane[2::4, 2::4] = (torch.arange(576) % 256).view(24, 24)
    (told,) = instance_rules.findings(images(plane.repeat_interleave(2, 0)[:96]), needed=True)
    assert told.remedy.endswith("; the largest id is 255, the most that 8 bits hold: save ids in 16")


def test_no_cells_to_learn_from() -> None:
    empty = images(torch.zeros(96, 96, dtype=torch.int32))
    assert [finding.severity for finding in instance_rules.findings(empty, needed=True)] == ["error"]
    assert not list(instance_rules.findings(empty, needed=False))
    assert instance_rules.cells_line(empty) == "none in the map 'instances' of 1 image"


def test_a_cell_larger_than_patch_and_receptive_field() -> None:
    plane = ids()
    plane[50, 5:85] = 11
    told = patch_rules.findings(load_experiment(QUICK), images(plane), nn.Conv2d(1, 3, 33, padding=16))
    abouts = {finding.about for finding in told}
    assert {"cells larger than patches", "largest cell larger than the receptive field"} <= abouts


def test_a_pixel_that_the_border_leaves_of_a_cell_is_no_speck() -> None:
    ids = torch.zeros(12, 12, dtype=torch.int64)
    ids[0, 3], ids[5, 5] = 1, 2
    assert cells.measure(ids).single_pixels == (2,)
