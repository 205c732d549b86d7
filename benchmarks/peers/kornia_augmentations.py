"""kornia's augmentations, on whole batches."""

from __future__ import annotations

import kornia.augmentation
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
    """The same list; a brightness curve wants values from 0 to 1."""
    side = 2 * int(1.5 * SPACING_PX) + 1
    sigma, shift = SPACING_PX / 2, 2 * SHIFT_PX / setting.window  # shifts are shares of half a window
    steps = kornia.augmentation.AugmentationSequential(
        kornia.augmentation.RandomHorizontalFlip(p=1.0),
        kornia.augmentation.RandomVerticalFlip(p=1.0),
        kornia.augmentation.RandomRotation90((0, 3), p=1.0),
        kornia.augmentation.RandomAffine(
            ROTATION, scale=(1 / SCALE, SCALE), shear=SHEAR, padding_mode="reflection", p=1.0
        ),
        kornia.augmentation.RandomElasticTransform(
            (side, side), (sigma, sigma), (shift, shift), padding_mode="reflection", p=1.0
        ),
        kornia.augmentation.RandomGaussianNoise(std=NOISE_STD / (HIGH - LOW), p=1.0),
        kornia.augmentation.RandomGamma((1 / GAMMA, GAMMA), p=1.0),
        data_keys=["input", "mask"],
    )
    for images, labels in windows(setting):
        with torch.no_grad():
            done, masks = steps((images - LOW) / (HIGH - LOW), labels.float())
        done * (HIGH - LOW) + LOW
        masks.long()
        tick()
