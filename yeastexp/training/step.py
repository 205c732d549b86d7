"""Parts to Ignite engines: one that trains on windows, one that sees whole images."""

from __future__ import annotations

import copy
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.metrics.pixels import PerImageMetric, Scores, most_likely
from yeastexp.sample import Sample
from yeastexp.system import full_precision
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options
from yeastexp.training.profiling import BACKWARD, FORWARD, LOSS, UPDATE, part
from yeastexp.training.progress import Validation

Loss = Callable[[Tensor, Tensor], Tensor]
Transforms = tuple[BasicTransform2D, ...]

logging.getLogger("ignite").addHandler(logging.NullHandler())  # it repeats every exception that is raised anyway

TIMED_STEPS = 7


class NonFiniteLoss(UserError):
    """A loss that is NaN or infinite, or images that make it so."""


def checked_logits(logits: Tensor, images: Tensor, classes: int) -> Tensor:
    """The logits; UserError where they are not (B, K, H, W) for images (B, C, H, W)."""
    wanted = (images.shape[0], classes, *images.shape[-2:])
    if logits.shape != wanted:
        raise UserError(
            f"[model] name: gives {tuple(logits.shape)} for images {tuple(images.shape)}, not {wanted} (B, K, H, W); "
            "choose a model that segments"
        )
    return logits


def make_trainer(update: OptimizationStep, loss: Loss, groups: AccumulationSchedule, classes: int) -> Engine:
    """An engine whose step takes (images, labels) forward and back, and gives the loss without waiting for it.

    The weights change with the last step of each group. On the CPU, where reading a loss costs nothing, one that is not
    finite ends the run before they do.
    """

    def step(engine: Engine, batch: tuple[Tensor, Tensor]) -> Tensor:
        number = engine.state.iteration
        images, labels = (one.to(update.device, non_blocking=True) for one in batch)
        if groups.ends(number - 1):
            update.begin()
        with part(FORWARD), update.options.autocast(update.device):
            logits = checked_logits(update.forward(images), images, classes)
        with part(LOSS):
            value = loss(logits.float(), labels)
        if update.device.type == "cpu":
            check_finite(value.detach()[None], number, images)
        with part(BACKWARD):
            update.add(value, groups.share(number))
        if groups.ends(number):
            with part(UPDATE):
                update.apply(number)
        return value.detach()

    return Engine(step)


def check_finite(losses: Tensor, last_step: int, images: Tensor | None = None) -> list[float]:
    """The losses of the steps up to `last_step` as numbers; NonFiniteLoss names the first that is not.

    With the `images` of that step it also tells whether it was their values.
    """
    values: list[float] = losses.tolist()
    for index, value in enumerate(values):
        if not math.isfinite(value):
            step = last_step - len(values) + 1 + index
            if images is not None and not images.isfinite().all():
                raise NonFiniteLoss(
                    f"step {step}: the windows hold NaN or infinite values; 'check --data' tells which transform gives "
                    "them. The last good checkpoint is kept",
                    status=RUN_FAILED,
                )
            raise NonFiniteLoss(
                f"step {step}: the loss is {value}; lower [optimizer] learning_rate, or look for bad values in the "
                "images. The last good checkpoint is kept",
                status=RUN_FAILED,
            )
    return values


def start_at(engine: Engine, step: int, steps_per_epoch: int, epochs: int) -> None:
    """Let an engine's next run begin behind `step` steps, in the epoch they belong to."""
    engine.load_state_dict({"iteration": step, "epoch_length": steps_per_epoch, "max_epochs": epochs})


@torch.no_grad()
def whole_image_logits(model: nn.Module, transforms: Transforms, sample: Sample, device: torch.device) -> Tensor:
    """Logits (K, H, W) on the pixels of the original image, as validation, evaluation and prediction all see it."""
    moved = replace(sample, image=sample.image.to(device), labels=sample.labels.to(device), maps={})
    seen = pipeline.whole(transforms, moved)
    with full_precision.in_full(device):
        logits = model(seen.image[None])[0]
    return pipeline.restore(transforms, logits, sample.size)


def evaluator(
    answer: Callable[[Sample], Tensor], metrics: Mapping[str, PerImageMetric], device: torch.device
) -> Engine:
    """An engine over samples that scores `answer(sample)`, class indices (H, W), with every metric."""

    def step(engine: Engine, sample: Sample) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        maps = {name: labels.to(device) for name, labels in sample.maps.items()}
        return answer(sample).to(device), sample.labels.to(device), maps

    engine = Engine(step)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    return engine


def score(
    answer: Callable[[Sample], Tensor],
    samples: Iterable[Sample],
    metrics: Mapping[str, PerImageMetric],
    device: torch.device,
) -> dict[str, Scores]:
    """The scores of an answer on whole images."""
    engine = evaluator(answer, metrics, device)
    return dict(engine.run(samples).metrics)


def validate_model(
    model: nn.Module,
    transforms: Transforms,
    loss: Loss,
    samples: Iterable[Sample],
    metrics: Mapping[str, PerImageMetric],
    device: torch.device,
    look: Callable[[Sample, Tensor], None] | None = None,
) -> Validation:
    """The model's scores and losses on whole images; `look` is shown each sample with its predicted classes (H, W)."""
    losses: dict[str, Tensor] = {}

    def answer(sample: Sample) -> Tensor:
        logits = whole_image_logits(model, transforms, sample, device)
        losses[sample.name] = loss(logits[None], sample.labels.to(device)[None])
        prediction = most_likely(logits)
        if look is not None:
            look(sample, prediction)
        return prediction

    training = model.training
    model.eval()
    with torch.no_grad():
        scores = score(answer, samples, metrics, device)
    model.train(training)
    return Validation(scores, {name: float(value) for name, value in losses.items()})


def seconds_per_step(
    model: nn.Module,
    loss: Loss,
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer],
    options: Options,
    batch_of: Callable[[int], tuple[Tensor, Tensor]],
    device: torch.device,
    classes: int,
    seconds: float,
) -> float:
    """Time of a training step: the median over about so many seconds of groups of steps of a copy.

    The model and all generators stay as they are.
    """
    size = options.accumulate
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        throwaway = copy.deepcopy(model).train()
        update = OptimizationStep(throwaway, optimizer_of(throwaway), None, options, device)
        engine = make_trainer(update, loss, AccumulationSchedule(size, [1] * size, sys.maxsize), classes)
        engine.run([batch_of(0), batch_of(1)], max_epochs=1)  # allocations and kernel choices
        times: list[float] = []
        while len(times) * size < TIMED_STEPS or sum(times) * size < seconds:
            start = time.monotonic()
            first = len(times) * size
            engine.run(map(batch_of, range(first, first + size)), max_epochs=1, epoch_length=size)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append((time.monotonic() - start) / size)
        return statistics.median(times)
