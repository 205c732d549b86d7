"""The watershed: what is a cell, the same in any bands, and cells from the hills of true cells."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy import ndimage

from yeastexp.data.datasets.yeast_scene import Field, Look
from yeastexp.metrics.matching import overlap
from yeastexp.sample import Sample
from yeastexp.tasks.hills import hills
from yeastexp.tasks.instances import Instances
from yeastexp.tasks.watershed import Watershed

EIGHT = np.ones((3, 3), bool)
Float = npt.NDArray[np.float32]


def field(seed: int) -> tuple[Float, Float]:
    """Hills and foreground (H, W): rough, smooth, or in steps, which make plateaus and equal passes."""
    source = np.random.default_rng(seed)
    size = tuple(source.integers(1, 60, 2))
    hill = source.random(size)
    if seed % 2:
        hill = ndimage.gaussian_filter(hill, 1.5)
        hill = (hill - hill.min()) / (np.ptp(hill) + 1e-9)
    if seed % 3 == 0:
        hill = np.round(hill * 6) / 6
    foreground = np.clip(1.1 * ndimage.uniform_filter(source.random(size), 5), 0, 1)
    return hill.astype(np.float32), foreground.astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_bands_of_any_height_give_the_same(seed: int) -> None:
    hill, foreground = field(seed)
    rule = Watershed(0.6, 0.1 * (seed % 3), 3, 0.3, float(seed % 2))
    whole = rule.cells(hill, foreground)
    for rows in (1, 2, 3, 5, 7, 30):
        labels = np.zeros(hill.shape, np.uint32)
        count = rule.fill(lambda part: (hill[part], foreground[part]), lambda: labels, rows * hill.shape[1])  # noqa: B023
        assert np.array_equal(labels, whole) and count == whole.max()


@pytest.mark.parametrize("seed", range(40))
def test_a_cell_is_a_region_above_the_least_height_and_what_leads_to_it(seed: int) -> None:
    hill, foreground = field(seed)
    labels = Watershed(0.6, 0.0, 0, 0.0, 0.0).cells(hill, foreground)
    inside = foreground > 0.5
    regions, count = ndimage.label(inside & (hill >= 0.6), EIGHT)
    assert labels.max() == count
    for number in range(1, count + 1):
        assert len(np.unique(labels[regions == number])) == 1
        assert ndimage.label(labels == number, EIGHT)[1] == 1
    assert not labels[~inside].any()
    seeded = np.unique(ndimage.label(inside, EIGHT)[0][regions > 0])
    assert np.array_equal(labels > 0, np.isin(ndimage.label(inside, EIGHT)[0], seeded) & inside)


def test_numbers_are_in_reading_order() -> None:
    hill, foreground = field(5)
    labels = Watershed(0.55, 0.0, 0, 0.0, 0.0).cells(hill, foreground)
    _, first = np.unique(labels[labels > 0], return_index=True)
    assert len(first) > 3 and (np.diff(first) > 0).all()


def test_what_is_small_or_unlikely_is_no_cell() -> None:
    ids = np.zeros((40, 60), np.int32)
    ids[5:20, 5:20], ids[25:35, 30:50], ids[2:4, 50:52] = 1, 2, 3
    hill, certain = hills(ids), (ids > 0).astype(np.float32)
    doubtful = np.where(ids == 2, np.float32(0.7), certain)
    assert Watershed(0.5, least_area=15, smoothing_px=0).cells(hill, certain).max() == 2
    assert Watershed(0.5, least_area=1, smoothing_px=0).cells(hill, certain).max() == 3
    assert np.array_equal(Watershed(0.5, least_area=15, smoothing_px=0).cells(hill, doubtful) > 0, ids == 1)
    assert not Watershed().cells(hill, np.zeros_like(certain)).any()


def average_precision(images: list[npt.NDArray[np.int32]]) -> float:
    """That at an IoU of one half, pooled, of cells from the hills of true ones, decoded as for training on these."""
    task = Instances(1, 2)
    task.fit(
        Sample(torch.zeros(1, *image.shape), torch.from_numpy(image > 0).long(), "", None, {"instances": ids})
        for image, ids in ((image, torch.from_numpy(image.astype(np.int64))) for image in images)
    )
    decoded = [task.watershed.cells(hills(image), (image > 0).astype(np.float32)) for image in images]
    tables = [overlap(true, found) for true, found in zip(images, decoded, strict=True)]
    hits = sum(len(table.reaching(50)) for table in tables)
    return hits / (sum(len(table.true_ids) + len(table.predicted_ids) for table in tables) - hits)


@pytest.mark.parametrize("scenes", [50, pytest.param(200, marks=pytest.mark.fuzz)])
def test_true_hills_give_the_true_cells_of_made_scenes(scenes: int) -> None:
    """From isolated cells to packed ones, with buds."""
    assert average_precision([scene(seed) for seed in range(scenes)]) >= 0.99


def scene(seed: int) -> npt.NDArray[np.int32]:
    field = Field(Look(80, 16.0, (seed % 10) / 9, 0.0, 1.0, 1.0), np.random.default_rng(seed))
    field.fill()
    inside = slice(field.margin, field.margin + 80)
    return field.taken[inside, inside].clip(0).astype(np.int32)


@pytest.mark.skipif("YEASTEXP_IMAGES" not in os.environ, reason="needs real images")
@pytest.mark.parametrize("folder", ["yeast_phase", "yeast_trap", "t98g_phase"])
def test_true_hills_give_the_true_cells_of_real_images(folder: str) -> None:
    files = sorted((Path(os.environ["YEASTEXP_IMAGES"]) / folder / "labels").iterdir())
    assert average_precision([np.asarray(Image.open(path)).astype(np.int32) for path in files]) >= 0.99
