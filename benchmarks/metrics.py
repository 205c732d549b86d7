"""Mean IoU of whole images from their logits: counted and computed, images a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ignite.metrics
import torch
from torch import Tensor

from benchmarks.measuring import Contender, Tick, machine, measure, table
from yeastexp.metrics.pixels import IoU, most_likely


@dataclass(frozen=True)
class Setting:
    """So many square images of two classes."""

    images: int = 18
    side: int = 1024


CONTENDERS = (
    Contender("yeastexp", "benchmarks.metrics:yeastexp"),
    Contender("bincount", "benchmarks.metrics:bincount"),
    Contender("torchmetrics", "benchmarks.peers.torchmetrics_iou:count"),
    Contender("MONAI", "benchmarks.peers.monai_iou:count"),
    Contender("Ignite", "benchmarks.metrics:confusion_matrix"),
)


def images(setting: Setting) -> list[tuple[Tensor, Tensor]]:
    """Logits (K, H, W) and labels (H, W), two thirds of them right."""
    source = torch.Generator().manual_seed(0)
    made = []
    for _ in range(setting.images):
        labels = torch.randint(2, (setting.side, setting.side), generator=source)
        logits = torch.randn(2, setting.side, setting.side, generator=source)
        made.append((logits.scatter_add_(0, labels[None], torch.full_like(logits[:1], 0.6)), labels))
    return made


def yeastexp(tick: Tick, setting: Setting) -> None:
    """The metric as validation uses it, with a row of counts an image."""
    pairs, metric = images(setting), IoU(2)
    while True:
        metric.reset()
        for logits, labels in pairs:
            metric.update((most_likely(logits), labels, {}))
        tick(float(metric.compute().pooled.mean()))


def bincount(tick: Tick, setting: Setting) -> None:
    """The few lines by hand, for two classes."""
    pairs = images(setting)
    while True:
        counts = torch.zeros(2, 2, dtype=torch.int64)
        for logits, labels in pairs:
            both = labels * 2 + (logits[1] > logits[0])
            counts += both.flatten().bincount(minlength=4).view(2, 2)
        tick(float((counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())).mean()))


def confusion_matrix(tick: Tick, setting: Setting) -> None:
    """Ignite's metric, image by image."""
    pairs, matrix = images(setting), ignite.metrics.ConfusionMatrix(2)
    mean = ignite.metrics.mIoU(matrix)
    while True:
        matrix.reset()
        for logits, labels in pairs:
            matrix.update((logits[None], labels[None]))
        tick(float(mean.compute()))


def report(
    setting: Setting | None = None, contenders: Sequence[Contender] = CONTENDERS, rounds: int = 9, units: int = 1
) -> str:
    """Markdown: a table with each contender's answer, and the machine."""
    chosen = setting or Setting()
    results = measure(contenders, chosen, rounds=rounds, units=units, warm_up=1)
    title = f"### {chosen.images} images of {chosen.side}², {torch.get_num_threads()} threads"
    rows = table(results, contenders[0].name, "images", per_unit=chosen.images, answer="mean IoU")
    return f"{title}\n\n{rows}\n\n{machine()}"
