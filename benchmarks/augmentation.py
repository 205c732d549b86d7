"""Augmented windows a second: mirrored, turned, bent, noisy and darkened ones, all of it on every window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import Contender, Tick, machine, measure, table
from yeastexp.data.kept_images import CachedImages
from yeastexp.data.patches import PatchPlan, PatchSampler
from yeastexp.data.transforms.affine import Affine
from yeastexp.data.transforms.elastic import Elastic
from yeastexp.data.transforms.gamma import Gamma
from yeastexp.data.transforms.gaussian_noise import GaussianNoise
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.data.transforms.reflect import Reflect
from yeastexp.data.transforms.rotate90 import Rotate90

ROTATION, SCALE, SHEAR = 15.0, 1.25, 5.0
"""Degrees, factor, degrees: at most, for every contender, as the rest."""

SHIFT_PX, SPACING_PX = 2.0, 24.0
NOISE_STD = 0.2
GAMMA = 1.5
LOW, HIGH = -3.0, 3.0
"""The range that a brightness curve bends."""


@dataclass(frozen=True)
class Setting:
    """Windows of images of normal numbers, with labels of two classes."""

    batch: int = 16
    window: int = 256
    images: int = 4
    side: int = 1024


CONTENDERS = (
    Contender("yeastexp", "benchmarks.augmentation:yeastexp"),
    Contender("albumentations", "benchmarks.peers.albumentations_transforms:augment"),
    Contender("MONAI", "benchmarks.peers.monai_transforms:augment"),
    Contender("kornia", "benchmarks.peers.kornia_augmentations:augment"),
    Contender("no augmentation", "benchmarks.augmentation:plain"),
)


def images(setting: Setting) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W) and their labels (N, 1, H, W) int8."""
    source = torch.Generator().manual_seed(0)
    shape = setting.images, 1, setting.side, setting.side
    values = torch.randn(shape, generator=source).clamp_(LOW, HIGH)
    return values, (values > 0.5).to(torch.int8)


def windows(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows (B, 1, h, w) at random places, and their labels (B, 1, h, w): what most programs augment."""
    values, labels = images(setting)
    source, side = np.random.default_rng(0), setting.window
    room = setting.side - side + 1
    while True:
        places = source.integers((setting.images, room, room), size=(setting.batch, 3)).tolist()
        cut = [(i, slice(None), slice(y, y + side), slice(x, x + side)) for i, y, x in places]
        yield torch.stack([values[one] for one in cut]), torch.stack([labels[one] for one in cut])


def yeastexp(tick: Tick, setting: Setting) -> None:
    """The stream that training reads."""
    steps = (
        Reflect(x=1.0, y=1.0),
        Rotate90(),
        Affine(ROTATION, SCALE, SHEAR),
        Elastic(SHIFT_PX, SPACING_PX, p=1.0),
        GaussianNoise(NOISE_STD, p=1.0),
        Gamma(GAMMA, LOW, HIGH, p=1.0),
    )
    values, labels = images(setting)
    pixels = Pixels.of(list(values), list(labels))
    plan = PatchPlan(setting.window, np.arange(10**5) % setting.images, None)
    stream = PatchSampler(CachedImages(pixels), plan, setting.batch, steps, seed=0)
    step = 0
    while True:
        stream.batch(step)
        step += 1
        tick()


def plain(tick: Tick, setting: Setting) -> None:
    """Nothing but cutting windows: the most that any could reach."""
    for _ in windows(setting):
        tick()


def report(
    setting: Setting | None = None,
    contenders: Sequence[Contender] = CONTENDERS,
    rounds: int = 9,
    units: int = 6,
) -> str:
    """Markdown: a table, and the machine."""
    chosen = setting or Setting()
    results = measure(contenders, chosen, rounds=rounds, units=units, warm_up=2)
    title = f"### batches of {chosen.batch} patches of {chosen.window}², {torch.get_num_threads()} threads"
    rows = table(results, contenders[0].name, "patches", per_unit=chosen.batch)
    return f"{title}\n\n{rows}\n\n{machine()}"
