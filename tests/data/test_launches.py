"""Augmentations on a GPU: how many kernels a batch takes, that nothing is waited for, and that patches are the same."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended import Pretended

from yeastexp.data.kept_images import CachedImages
from yeastexp.data.patches import Batch, PatchPlan, PatchSampler
from yeastexp.data.transforms import elastic
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.registry import transform

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "hdf5.toml"
NINE: list[dict[str, Any]] = [
    table for table in tomllib.loads(EXPERIMENT.read_text())["augment"] if table["name"] != "pasted_cells"
]
"""All but the one that makes scenes, which no batch does."""
OTHERS = ("elastic", "poisson_noise", "invert_contrast")
TWELVE = [*NINE, *({"name": name} for name in OTHERS)]
ALWAYS = [{**table, "p": 1.0} for table in TWELVE if table["name"] != "reflect"]


def stream(tables: Sequence[dict[str, Any]], batch: int, device: str, seed: int = 0, soft: int = 0) -> PatchSampler:
    """Batches from images of several sizes, with a soft plane or none; some patches reach beyond theirs."""
    source = torch.Generator().manual_seed(0)
    sizes = [(80, 100), (166, 142), (150, 150), (48, 48)]
    images = [torch.randn(1 + soft, *size, generator=source) for size in sizes]
    labels = [torch.randint(-1, 3, (1 + soft, *size), generator=source, dtype=torch.int32) for size in sizes]
    augmentations = tuple(
        transform[table["name"]](**{k: v for k, v in table.items() if k != "name"}) for table in tables
    )
    pixels = Pixels.of(images, labels).to(torch.device(device))
    plan = PatchPlan(48, np.arange(4 * batch) % len(sizes), None)
    planes = ("nearest", "bilinear") if soft else ()
    return PatchSampler(CachedImages(pixels), plan, batch, augmentations, seed, 0.0, planes)  # type: ignore[arg-type]


def cut_on_gpu(*arguments: Any, **options: Any) -> tuple[Batch, int, list[str]]:
    """A batch, the kernels it took, and what the program waited for."""
    elastic._spline.cache_clear()
    with Pretended() as gpu:
        patches = stream(*arguments, "cuda", **options)
        launches, waits = gpu.launches, len(gpu.waits)
        batch = patches.batch(0)
        return batch, gpu.launches - launches, gpu.waits[waits:]


@pytest.mark.parametrize("batch", [2, 16, 64])
@pytest.mark.parametrize(("tables", "most"), [(NINE, 150), (TWELVE, 300)], ids=["nine", "twelve"])
@pytest.mark.parametrize("soft", [0, 1])
def test_a_batch_is_a_limited_number_of_kernels_whatever_its_size_and_waits_for_nothing(
    tables: list[dict[str, Any]], most: int, batch: int, soft: int
) -> None:
    _, launches, waits = cut_on_gpu(tables, batch, soft=soft)
    assert waits == [] and launches <= most + 25 * soft  # planes of their own are copied, masked and stacked


@pytest.mark.parametrize("tables", [TWELVE, *([table] for table in ALWAYS)], ids=lambda tables: tables[-1]["name"])
@pytest.mark.parametrize("soft", [0, 1])
def test_patches_cut_on_a_gpu_are_those_cut_on_a_cpu(tables: list[dict[str, Any]], soft: int) -> None:
    """To the last digits of fields, which are computed with others around them."""
    (images, targets), _, waits = cut_on_gpu(tables, 6, seed=3, soft=soft)
    same_images, same_targets = stream(tables, 6, "cpu", 3, soft).batch(0)
    assert waits == []
    torch.testing.assert_close(images, same_images, rtol=0, atol=2e-4)
    torch.testing.assert_close(targets, same_targets, rtol=0, atol=2e-4, equal_nan=True)


@pytest.mark.parametrize("tables", [[table] for table in ALWAYS], ids=lambda tables: tables[0]["name"])
def test_a_patch_has_the_same_bits_whatever_batch_it_is_in(tables: list[dict[str, Any]]) -> None:
    together = torch.cat([stream(tables, 8, "cpu").batch(step)[0] for step in range(4)])
    patches = stream(tables, 8, "cpu")
    patches.size = 1
    assert torch.equal(together, torch.cat([patches.batch(step)[0] for step in range(32)]))


RECORDED = {
    "reflect": (-13.659, -90.509),
    "rotate90": (106.415, -65.678),
    "affine": (-49.246, -42.822),
    "pasted_structures": (108.608, -47.554),
    "brightness_contrast": (225.58, -43.808),
    "gamma": (150.755, -50.621),
    "uneven_illumination": (149.629, -53.027),
    "gaussian_blur": (83.516, -110.325),
    "gaussian_noise": (149.127, -35.333),
    "elastic": (62.587, -88.065),
    "poisson_noise": (178.205, -12.773),
    "invert_contrast": (134.128, -11.808),
}


@pytest.mark.parametrize("table", TWELVE, ids=lambda table: table["name"])
@pytest.mark.parametrize("seed", [0, 1])
def test_patches_are_what_they_were(table: dict[str, Any], seed: int) -> None:
    """A sum of values, each with a weight of its own, as versions before this one gave it."""
    images, targets = stream([{**table, "p": 0.5} if table["name"] != "reflect" else table], 5, "cpu", seed).batch(1)
    values = torch.cat([images.double().flatten(), targets.double().flatten()])
    weights = torch.arange(len(values), dtype=torch.float64).sin()
    assert float(values @ weights) == pytest.approx(RECORDED[table["name"]][seed], abs=1e-2)
