"""An experiment checked without training it: all faults of its file, then one training step."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from yeastexp import plugins
from yeastexp.config.loading import load_experiment
from yeastexp.errors import UserError
from yeastexp.inspection.preflight import Finding, data_rules, ordered
from yeastexp.inspection.preflight.statistics import LabelStatistics, count_labels
from yeastexp.metrics.pixels import PerImageMetric
from yeastexp.system import environment
from yeastexp.system.progress import Say
from yeastexp.training import build
from yeastexp.training.build import Assembly
from yeastexp.training.initial_weights import initialize
from yeastexp.training.timing import assembled, seconds_per_step
from yeastexp.training.training_images import fewer_scenes
from yeastexp.training.validation import build_validator

PATIENCE = 3.0
"""The time in seconds after which no further step is timed."""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check: the sizes of an experiment, the cost of one step, and findings on the labels."""

    train_images: int
    validation_images: int
    labels: dict[int, int]
    parameters: int
    batch_shape: tuple[int, ...]
    steps_per_epoch: int
    validate_every: int
    loss: float
    seconds: float
    """The time of a step in seconds, with the threads that `run` would take now."""
    threads: int
    peak_memory_mb: int | None
    findings: list[Finding]
    """Findings on the masks, the worst first."""

    @property
    def errors(self) -> int:
        """The number of findings that make training impossible, or its scores wrong."""
        return sum(finding.severity == "error" for finding in self.findings)


def _updates(assembly: Assembly) -> int:
    """The number of updates of the run, or of an epoch if a budget of time ends the run."""
    train, epoch = assembly.experiment.train, assembly.sampler.steps_per_epoch
    return -(-(train.steps or (train.epochs or 1) * epoch) // train.accumulation_steps)


def _step_through(scheduler: LRScheduler, updates: int) -> None:
    """Step a scheduler as often as a run would, or for about a second: it may fail late."""
    end = time.monotonic() + 1
    for _ in range(updates):
        scheduler.step()
        if time.monotonic() > end:
            break


def _check_headline(assembly: Assembly, name: str, metric: PerImageMetric, rows: Collection[str]) -> None:
    headline: object = metric.headline(rows, assembly.classes)
    if headline not in rows:
        part = next((part for part in assembly.experiment.metrics if part.name == name), None)
        fault = f"'headline' of '{name}' gives {headline!r}, which is none of its rows: {', '.join(rows)}"
        raise UserError(f"{part.place}: [[metric]] name: {fault}" if part else fault)


@plugins.blamed()
def check(
    path: Path, settings: Sequence[str] = (), say: Say = lambda line: None, *, scenes: float = 1.0
) -> CheckResult:
    """Check a file, take one training step, and score two images with a model that is discarded; writes nothing.

    Of the scenes that `pasted_cells` makes, a share `scenes` is composed, with which a run would need less memory.
    Raises UserError with every fault of the file, or with the first one of the data or of a part.
    """
    # All that a run would do once is done here, for a fault of a plugin's metric or scheduler is better found now than
    # after hours: scoring, the whole course of the learning rate, and the choice of a metric's row.
    loaded = fewer_scenes(load_experiment(path, settings), scenes)
    say(f"{path}: reading its images, then timing a step")
    assembly, step, _ = assembled(loaded)
    dataset = assembly.dataset
    held_out = [LabelStatistics(sample.name, "val", count_labels(sample.labels)) for sample in assembly.samples("val")]
    for line in initialize(assembly).told:
        say(line)
    optimization = build.optimization_of(assembly)
    scheduler = assembly.scheduler(optimization.optimizer, updates := _updates(assembly))
    trainer = build.build_trainer(assembly, optimization)
    batch = assembly.sampler.batch(0)
    loss: Any = trainer.run([batch], max_epochs=1).output
    if scheduler is not None:
        _step_through(scheduler, updates)
    smallest = sorted(dataset.splits["val"], key=lambda name: math.prod(dataset.shape(name)))[:2]
    # Two images, as metrics also have to add up the counts of several.
    scored: Any = build_validator(assembly).run([dataset.read(name) for name in smallest])
    for name, metric in assembly.metrics.items():
        _check_headline(assembly, name, metric, scored.summary[name])
    masks = zip(dataset.splits["train"], assembly.images.labels(), strict=True)
    trained = [LabelStatistics(name, "train", count_labels(mask)) for name, mask in masks]
    labels: Counter[int] = Counter()
    for image in trained:
        labels.update(image.counts)
    return CheckResult(
        train_images=len(trained),
        validation_images=len(held_out),
        labels=dict(sorted(labels.items())),
        parameters=sum(parameter.numel() for parameter in assembly.model.parameters()),
        batch_shape=tuple(batch[0].shape),
        steps_per_epoch=assembly.sampler.steps_per_epoch,
        validate_every=assembly.validate_every,
        loss=float(loss),
        seconds=step or seconds_per_step(assembly, 0.0, at_most=PATIENCE),
        threads=torch.get_num_threads(),
        peak_memory_mb=environment.peak_memory_mb(),
        findings=ordered(data_rules.label_findings([*trained, *held_out], assembly.classes)),
    )
