"""MONAI's mean IoU."""

from __future__ import annotations

from monai.metrics import MeanIoU
from monai.networks.utils import one_hot

from benchmarks.measuring import Tick
from benchmarks.metrics import Setting, images


def count(tick: Tick, setting: Setting) -> None:
    """Image by image, from the one-hot maps that it takes; its answer is a mean over images."""
    pairs, metric = images(setting), MeanIoU()
    while True:
        metric.reset()
        for logits, labels in pairs:
            prediction = logits.argmax(dim=0)[None, None]
            metric(one_hot(prediction, 2), one_hot(labels[None, None], 2))
        tick(float(metric.aggregate()))
