"""albumentations, on OpenCV."""

from __future__ import annotations

import math

import albumentations
import numpy as np
import torch

from benchmarks.augmentation import (
    GAMMA,
    HIGH,
    LOW,
    NOISE_STD,
    ROTATION,
    SCALE,
    SHEAR,
    SHIFT_PX,
    SPACING_PX,
    Setting,
    windows,
)
from benchmarks.measuring import Tick


def augment(tick: Tick, setting: Setting) -> None:
    """The same list, window by window; a brightness curve wants values from 0 to 1."""
    sigma = SPACING_PX / 2
    alpha = SHIFT_PX * 2 * math.sqrt(3 * math.pi) * sigma  # of uniform noise that is smoothed
    steps = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=1),
            albumentations.VerticalFlip(p=1),
            albumentations.RandomRotate90(p=1),
            albumentations.Affine(
                rotate=(-ROTATION, ROTATION), scale=(1 / SCALE, SCALE), shear=(-SHEAR, SHEAR), border_mode=2, p=1
            ),
            albumentations.ElasticTransform(alpha=alpha, sigma=sigma, p=1),
            albumentations.GaussNoise(std_range=(0.0, NOISE_STD / (HIGH - LOW)), p=1),
            albumentations.RandomGamma(gamma_limit=(100 / GAMMA, 100 * GAMMA), p=1),
        ]
    )
    for images, labels in windows(setting):
        unit = ((images - LOW) / (HIGH - LOW)).permute(0, 2, 3, 1).numpy()
        pairs = zip(unit, labels[:, 0].view(torch.uint8).numpy(), strict=True)
        done = [steps(image=image, mask=mask) for image, mask in pairs]
        torch.from_numpy(np.stack([one["image"] for one in done])).permute(0, 3, 1, 2).mul(HIGH - LOW).add(LOW)
        torch.from_numpy(np.stack([one["mask"] for one in done])).long()
        tick()
