"""MONAI's sliding windows."""

from __future__ import annotations

import torch
from monai.inferers import SlidingWindowInferer

from benchmarks.measuring import Tick
from benchmarks.prediction import CONTENDERS, Setting, keep, prepared


def windows_of_256(tick: Tick, setting: Setting) -> None:
    """Windows of 256 pixels."""
    _windows(tick, setting, 256, CONTENDERS[2].name)


def windows_of_512(tick: Tick, setting: Setting) -> None:
    """Windows of 512 pixels."""
    _windows(tick, setting, 512, CONTENDERS[3].name)


def _windows(tick: Tick, setting: Setting, side: int, name: str) -> None:
    """Overlapping by a quarter, weighted by Gaussians, four at once."""
    net, image = prepared(setting)
    side = min(side, setting.side)
    inferer = SlidingWindowInferer((side, side), sw_batch_size=4, overlap=0.25, mode="gaussian")
    with torch.no_grad():
        while True:
            keep(setting, name, inferer(image[None], net)[0])
            tick()
