"""An experiment checked without training it: all faults of its file, then one training step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yeastexp.config.loading import load_experiment
from yeastexp.system import environment
from yeastexp.training import build


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
    peak_memory_mb: int | None


def check(path: Path, settings: Sequence[str] = ()) -> CheckResult:
    """Check a file, build its parts, and take one training step with a model that is discarded; writes nothing."""
    assembly = build.assemble(load_experiment(path, settings))
    for _ in assembly.samples("val"):
        pass  # reading them checks their labels
    trainer = build.build_trainer(assembly)
    batch = assembly.sampler.batch(0)
    start = time.monotonic()
    loss: Any = trainer.run([batch], max_epochs=1).output
    labels: Counter[int] = Counter()
    for mask in assembly.sampler.source.labels():
        labels.update(dict(zip(*(values.tolist() for values in mask.unique(return_counts=True)), strict=True)))
    return CheckResult(
        train_images=len(assembly.dataset.splits["train"]),
        validation_images=len(assembly.dataset.splits["val"]),
        labels=dict(sorted(labels.items())),
        parameters=sum(parameter.numel() for parameter in assembly.model.parameters()),
        batch_shape=tuple(batch[0].shape),
        steps_per_epoch=assembly.sampler.steps_per_epoch,
        validate_every=assembly.validate_every,
        loss=float(loss),
        seconds=time.monotonic() - start,
        peak_memory_mb=environment.peak_memory_mb(),
    )
