"""Targets in 16 bits, from the task to the loss: as small as they say, and what floats would have been."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from yeastexp.data import kept_images
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.kept_images import CachedImages, LazyImages
from yeastexp.data.patches import PatchPlan, PatchSampler
from yeastexp.data.transforms.affine import Affine
from yeastexp.data.transforms.elastic import Elastic
from yeastexp.data.transforms.gaussian_noise import GaussianNoise
from yeastexp.data.transforms.reflect import Reflect
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks.instances import Instances
from yeastexp.tasks.shares import STEPS, UNKNOWN, as_floats, in_16_bits
from yeastexp.training.training_images import Prepared

DATA = SyntheticYeast(images=4, size=64)
PREPARED = Prepared(DATA, (), 2, Instances(1, 2))
COUNT = len(PREPARED.names)
SIZES = PREPARED.sizes
PLANES = 1 + len(Instances.planes)


def read(index: int) -> Sample:
    """An image of which a corner is unlabelled."""
    stored = PREPARED.stored(index)
    labels = stored.labels.clone()
    labels[:20, :20] = IGNORE
    return PREPARED.seen(replace(stored, labels=labels))


def in_floats(index: int) -> Sample:
    sample = read(index)
    return replace(sample, maps={**sample.maps, "target 1": as_floats(sample.maps["target 1"])})


def sampler(source: CachedImages | LazyImages, moves: tuple[object, ...]) -> PatchSampler:
    plan = PatchPlan(32, np.repeat(np.arange(COUNT), 4), None)
    return PatchSampler(source, plan, 6, moves, 3, 0.5, Instances.planes)  # type: ignore[arg-type]


def cached(source: object = read) -> CachedImages:
    return CachedImages.reading(source, SIZES, torch.device("cpu"), foreground=True)  # type: ignore[arg-type]


def test_every_code_comes_back_from_its_share() -> None:
    codes = torch.arange(UNKNOWN, STEPS + 1).to(torch.int16)
    shares = as_floats(codes)
    assert shares.isnan().tolist() == [True] + [False] * (STEPS + 1) and shares[1] == 0 and shares[-1] == 1
    assert torch.equal(in_16_bits(shares), codes)
    assert as_floats(shares) is shares


def test_targets_take_half_of_what_floats_do() -> None:
    kept, wide = cached().pixels, cached(in_floats).pixels
    held, before = (
        sum(part.nbytes for part in (each.values, each.labels, each.soft) if part is not None) for each in (kept, wide)
    )
    pixels = int(SIZES.prod(axis=1).sum())
    assert (held, before) == (10 * pixels, 16 * pixels)
    assert held == kept_images.bytes_of(SIZES, 1, PLANES, quantized=True)
    _, targets = sampler(cached(), ()).batch(0)
    assert targets.dtype == torch.int16


MOVES = [(), (Reflect(),), (Affine(p=1.0),), (Elastic(p=1.0), GaussianNoise(p=1.0), Affine(p=1.0))]


@pytest.mark.parametrize("moves", MOVES)
def test_patches_have_the_targets_that_floats_would_give(moves: tuple[object, ...]) -> None:
    small, wide = sampler(cached(), moves), sampler(cached(in_floats), moves)
    unknown = 0
    for step in range(small.steps_per_epoch):
        (images, targets), (expected, floats) = small.batch(step), wide.batch(step)
        assert torch.equal(images, expected) and torch.equal(targets[:, 0].float(), floats[:, 0])
        hill = as_floats(targets[:, 1])
        assert torch.equal(hill.isnan(), floats[:, 1].isnan())
        assert float((hill - floats[:, 1]).nan_to_num().abs().max()) <= 0.501 / STEPS
        unknown += int(hill.isnan().sum())
    assert unknown, "some pixels are unlabelled"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_cache_and_workers_change_no_bit_of_them(workers: int) -> None:
    lazy = LazyImages(read, SIZES, 1, True, PLANES, quantized=True)
    made = sampler(lazy, MOVES[-1]).batches(0, 3, workers)
    batches: list[tuple[Tensor, Tensor]] = [sampler(cached(), MOVES[-1]).batch(step) for step in range(3)]
    for batch, again in zip(batches, made, strict=True):
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(batch, again, strict=True))


def test_the_loss_takes_them_as_they_come() -> None:
    task = Instances(1, 2)
    sample = read(0)
    targets = torch.stack([sample.maps["target 0"].to(torch.int16), sample.maps["target 1"]])[None]
    floats = torch.cat([targets[:, :1].float(), as_floats(targets[:, 1:])], dim=1)
    outputs = torch.randn(1, 3, *sample.size, generator=torch.Generator().manual_seed(0))

    def zero(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.sum() * 0

    assert task.loss(outputs, targets, zero) == task.loss(outputs, floats, zero)
    assert all(
        torch.equal(a, b)
        for name in ("certain", "constant")
        for a, b in zip(getattr(task, name)(targets), getattr(task, name)(floats), strict=True)
    )
