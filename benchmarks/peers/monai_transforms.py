"""MONAI's transforms."""

from __future__ import annotations

import math

import torch
from monai import transforms

from benchmarks.augmentation import GAMMA, NOISE_STD, ROTATION, SCALE, SHEAR, SHIFT_PX, SPACING_PX, Setting, windows
from benchmarks.measuring import Tick

KEYS = ("image", "label")
MODES = ("bilinear", "nearest")


def augment(tick: Tick, setting: Setting) -> None:
    """The same list, window by window."""
    shear = math.tan(math.radians(SHEAR))
    steps = transforms.Compose(
        [
            transforms.RandFlipd(KEYS, prob=1, spatial_axis=0),
            transforms.RandFlipd(KEYS, prob=1, spatial_axis=1),
            transforms.RandRotate90d(KEYS, prob=1),
            transforms.RandAffined(
                KEYS,
                prob=1,
                rotate_range=math.radians(ROTATION),
                scale_range=((1 / SCALE - 1, SCALE - 1),) * 2,
                shear_range=shear,
                mode=MODES,
                padding_mode="reflection",
            ),
            transforms.Rand2DElasticd(
                KEYS,
                spacing=(SPACING_PX, SPACING_PX),
                magnitude_range=(0, SHIFT_PX),
                prob=1,
                mode=MODES,
                padding_mode="reflection",
            ),
            transforms.RandGaussianNoised("image", prob=1, std=NOISE_STD),
            transforms.RandAdjustContrastd("image", prob=1, gamma=(1 / GAMMA, GAMMA)),
        ]
    )
    for images, labels in windows(setting):
        done = [steps({"image": image, "label": label.float()}) for image, label in zip(images, labels, strict=True)]
        torch.stack([one["image"].as_tensor() for one in done])
        torch.stack([one["label"].as_tensor() for one in done]).long()
        tick()
