"""Scores of an experiment's model, and of baselines, on its whole images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from yeastexp.drawing import pictures
from yeastexp.metrics import baselines
from yeastexp.metrics.summary import Summary, summarise
from yeastexp.sample import Sample
from yeastexp.training.build import Assembly
from yeastexp.training.progress import Validation
from yeastexp.training.step import score, validate_model


def validate(
    assembly: Assembly, model: nn.Module, split: str = "val", look: Callable[[Sample, Tensor], None] | None = None
) -> Validation:
    """A model's scores and losses on the whole images of a split."""
    samples = assembly.samples(split)
    return validate_model(model, assembly.transforms, assembly.loss, samples, assembly.metrics, assembly.device, look)


def scored_baselines(assembly: Assembly) -> dict[str, Summary]:
    """The scores of baselines, fitted on the training images, on the validation images."""
    fitted = baselines.fit(assembly.samples("train"), assembly.classes)
    return {name: _score_baseline(assembly, baseline) for name, baseline in fitted.items()}


def _score_baseline(assembly: Assembly, baseline: baselines.Baseline) -> Summary:
    samples = assembly.samples("val")
    scores = score(lambda sample: baseline(sample.image), samples, assembly.metrics, torch.device("cpu"))
    return summarise(scores, assembly.classes)


def panel(sample: Sample, prediction: Tensor) -> pictures.Picture:
    """Image, truth, prediction and where they differ, side by side, as (H, W, 3) uint8."""
    return pictures.panel(sample.image.numpy(), sample.labels.numpy(), prediction.cpu().numpy())
