"""torchmetrics' Jaccard index."""

from __future__ import annotations

from torchmetrics.classification import MulticlassJaccardIndex

from benchmarks.measuring import Tick
from benchmarks.metrics import Setting, images


def count(tick: Tick, setting: Setting) -> None:
    """Image by image."""
    pairs, metric = images(setting), MulticlassJaccardIndex(2)
    while True:
        metric.reset()
        for logits, labels in pairs:
            metric.update(logits[None], labels[None])
        tick(float(metric.compute()))
