"""One small batch learnt by heart: a model that cannot do that learns nothing from many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.data.patches import Batch, LazyImages, PatchSampler
from yeastexp.errors import UserError
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.metrics.pixels import confusion
from yeastexp.sample import IGNORE
from yeastexp.system.formatting import format_count
from yeastexp.training.build import Assembly, Prepared
from yeastexp.training.loop import options_of
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep
from yeastexp.training.step import check_finite, make_trainer

WINDOWS = 4
"""Of a batch at most: more take longer to learn by heart, and show no more."""

STEPS = 300
"""At most; measured: the experiments of this package need 57 to 210."""

NEAR_ZERO = 0.1
"""Of what the best constant answer loses beyond the least possible; predictions are then right but for outlines."""

STILL_FALLING = 0.05
"""The share of its loss that a model loses in the last fifth of its steps, from which on more steps would help."""

CONFIDENCES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Logits of the true class with which the least possible loss is looked for."""

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Overfit:
    """How far a batch was learnt: the losses of all steps, and mean IoU and accuracy on it after the last one.

    `constant` is the loss of the best answer that is the same everywhere, `least` that of the true labels themselves.
    """

    windows: int
    steps: int
    losses: tuple[float, ...]
    constant: float
    least: float
    iou: float
    accuracy: float
    broke: str = ""
    """What ended it, where a loss was not finite."""

    @property
    def left(self) -> float:
        """The share of what the best constant answer loses, beyond the least possible, that the model still loses."""
        return left(self.losses[-1], self.constant, self.least)

    @property
    def near_zero(self) -> bool:
        """Whether the batch was learnt by heart."""
        return not self.broke and self.left <= NEAR_ZERO

    @property
    def falling(self) -> bool:
        """Whether the loss was still going down when the steps were over."""
        before = self.losses[-max(2, len(self.losses) // 5)]
        return before - self.losses[-1] > STILL_FALLING * (before - self.least)


def left(loss: float, constant: float, least: float) -> float:
    """How much of the way from the best constant answer (1) to the least possible loss (0) is left, or NaN."""
    return (loss - least) / (constant - least) if constant > least else math.nan


def overfit(assembly: Assembly, steps: int, progress: Progress) -> Overfit | None:
    """Train the experiment's model on a few windows with cells, always the same, until it knows them by heart.

    With the loss and the optimizer of the experiment, at the learning rate given there throughout, without augmentation
    and dropout. Nothing where the windows have one class alone: there is nothing to be learnt. The model is used up.
    """
    images, labels = batch = _batch(assembly)
    classes = len(assembly.classes)
    if len(labels[labels != IGNORE].unique()) < 2:
        return None
    losses: list[float] = []
    least, constant = _least(assembly.loss, labels, classes), _constant(assembly.loss, labels, classes)
    update = _update(assembly)
    _without_dropout(assembly.model.train())
    trainer = make_trainer(update, assembly.loss, AccumulationSchedule(1, [1], steps), classes)

    def batches() -> Iterator[Batch]:
        for _ in progress(range(steps)):
            if losses and left(losses[-1], constant, least) <= NEAR_ZERO:
                break
            yield batch

    broke = ""
    try:
        for one in batches():
            loss: Any = trainer.run([one], max_epochs=1).output
            losses += check_finite(loss[None], len(losses) + 1)
    except UserError as error:
        if "loss is" not in str(error):
            raise
        broke = f"the loss was not finite in step {len(losses) + 1}"
    with torch.no_grad():
        counts = confusion(assembly.model(images).argmax(dim=1), labels, classes)
    iou, accuracy = _scores(counts)
    return Overfit(len(images), steps, tuple(losses), constant, least, iou, accuracy, broke)


def _batch(assembly: Assembly) -> Batch:
    """A few windows without augmentation, centred on pixels of the foreground where there are any."""
    stream, train = assembly.sampler, assembly.experiment.train
    read = Prepared(assembly.dataset, assembly.transforms, len(assembly.classes))
    source = LazyImages(read, stream.source.sizes, assembly.experiment.task.channels, foreground=True)
    plan = replace(stream.plan, corners=None)
    windows = PatchSampler(source, plan, min(stream.size, WINDOWS), (), train.seed, foreground=1.0)
    images, labels = windows.batch(0)
    return images.to(assembly.device), labels.to(assembly.device)


def _update(assembly: Assembly) -> OptimizationStep:
    """The experiment's optimizer without a scheduler; each batch is an update, and no weights are averaged."""
    options = replace(options_of(assembly), accumulate=1, ema=None)
    return OptimizationStep(assembly.model, assembly.optimizer(assembly.model), None, options, assembly.device)


def _without_dropout(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.eval()


def _least(loss: nn.Module, labels: Tensor, classes: int) -> float:
    """The loss of the true labels, said with the confidence that suits it best."""
    truth = functional.one_hot(labels.clamp_min(0), classes).movedim(-1, 1).float()
    return _lowest(float(loss(confidence * truth, labels)) for confidence in CONFIDENCES)


def _constant(loss: nn.Module, labels: Tensor, classes: int) -> float:
    """The loss of the best answer that is the same everywhere: how often classes occur, or one class for sure."""
    counts = torch.stack([(labels == label).sum() for label in range(classes)]).float()
    answers = [(counts / counts.sum()).clamp_min(1e-6).log()]
    answers += [
        8.0 * functional.one_hot(torch.tensor(label, device=labels.device), classes) for label in range(classes)
    ]
    shape = (labels.shape[0], classes, *labels.shape[1:])
    same = (answer.float()[None, :, None, None].expand(shape).contiguous() for answer in answers)
    return _lowest(float(loss(logits, labels)) for logits in same)


def _lowest(losses: Iterable[float]) -> float:
    return min((loss for loss in losses if math.isfinite(loss)), default=math.nan)


def _scores(counts: Tensor) -> tuple[float, float]:
    """Mean IoU over the classes there are, and accuracy, from counts (K, K)."""
    hits, either = counts.diagonal(), counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
    there = either > 0
    return float((hits[there] / either[there]).mean()), float(hits.sum() / counts.sum())


def finding(done: Overfit | None) -> Finding | None:
    """What it means where a batch could not be learnt."""
    if done is None:
        return Finding(
            "note",
            "nothing to learn by heart",
            "the windows that were drawn hold one class alone",
            "Whether the model learns at all could not be tried",
            "look at the masks, or take larger windows",
        )
    if done.near_zero:
        return None
    tried = f"{format_count(done.windows, 'window')}, {format_count(len(done.losses), 'step')}"
    why = "What a model cannot learn by heart, it will not learn from many images"
    if done.broke:
        return Finding(
            "error",
            "loss not finite",
            f"{tried}: {done.broke}",
            "Training would end there",
            "lower [optimizer] learning_rate; look for values far from 0, and for a loss that divides by 0",
        )
    if not done.constant > done.least:
        return Finding(
            "error",
            "loss prefers no right answer",
            f"the true labels lose {done.least:.3g}, and an answer that is the same everywhere {done.constant:.3g}",
            "What is lowered in training is not what is wanted",
            "look at [loss]: does it have the wrong sign, or weights that leave a class out?",
        )
    figures = f"{tried}: loss {done.losses[0]:.3g} to {done.losses[-1]:.3g}, mean IoU {done.iou:.2f}"
    if done.falling:
        return Finding(
            "note" if done.left < 0.5 else "warning",
            "one batch learnt slowly",
            f"{figures}; {100 * done.left:.0f} % of what a constant answer loses is left, and still falling",
            "Training may take long",
            "try more --steps here, or a higher [optimizer] learning_rate",
        )
    return Finding(
        "warning",
        "one batch not learnt by heart",
        f"{figures}; {100 * done.left:.0f} % of what a constant answer loses is left, and no longer falling",
        why,
        "look whether masks fit their images ('preview'), then at [optimizer] learning_rate (10 times lower, 10 times "
        "higher), then at a larger model",
    )


__all__ = ["STEPS", "Overfit", "finding", "overfit"]
