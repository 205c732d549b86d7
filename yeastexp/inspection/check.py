"""An experiment checked without training it: all faults of its file, then one training step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yeastexp import plugins
from yeastexp.config.loading import load_experiment
from yeastexp.inspection.preflight import Finding, data_rules, ordered
from yeastexp.inspection.preflight.statistics import LabelStatistics, count_labels
from yeastexp.system import environment
from yeastexp.system.progress import Say
from yeastexp.training import build
from yeastexp.training.timing import assembled, seconds_per_step
from yeastexp.training.validation import build_validator

PATIENCE = 3.0
"""Seconds after which no further step is timed."""


@dataclass(frozen=True)
class CheckResult:
    """The sizes of an experiment, and the cost of one step."""

    train_images: int
    validation_images: int
    labels: dict[int, int]
    parameters: int
    batch_shape: tuple[int, ...]
    steps_per_epoch: int
    validate_every: int
    loss: float
    seconds: float
    """Of a step, with the threads that `run` would take now."""
    threads: int
    peak_memory_mb: int | None
    findings: list[Finding]
    """About the masks, the worst first."""

    @property
    def errors(self) -> int:
        """How many findings make training impossible, or its scores wrong."""
        return sum(finding.severity == "error" for finding in self.findings)


@plugins.blamed()
def check(path: Path, settings: Sequence[str] = (), say: Say = lambda line: None) -> CheckResult:
    """Check a file, take one training step, and score an image with a model that is discarded; writes nothing."""
    loaded = load_experiment(path, settings)
    say(f"{path}: reading its images, then timing a step")
    assembly, step, _ = assembled(loaded)
    dataset = assembly.dataset
    held_out = [LabelStatistics(sample.name, "val", count_labels(sample.labels)) for sample in assembly.samples("val")]
    optimization = build.optimization_of(assembly)
    assembly.scheduler(optimization.optimizer, assembly.sampler.steps_per_epoch)
    trainer = build.build_trainer(assembly, optimization)
    batch = assembly.sampler.batch(0)
    loss: Any = trainer.run([batch], max_epochs=1).output
    smallest = min(dataset.splits["val"], key=lambda name: math.prod(dataset.shape(name)))
    build_validator(assembly).run([dataset.read(smallest)])
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
