"""The preflight: a data set is checked before training, and whether the model can learn it at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yeastexp import plugins
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data import folds
from yeastexp.errors import UserError
from yeastexp.inspection.preflight import (
    alignment,
    data_rules,
    duplicates,
    instance_rules,
    overfit,
    patch_rules,
    registration,
)
from yeastexp.inspection.preflight.alignment import Alignment
from yeastexp.inspection.preflight.finding import Finding, Severity, ordered
from yeastexp.inspection.preflight.overfit import Overfit
from yeastexp.inspection.preflight.registration import Registration
from yeastexp.inspection.preflight.statistics import ImageStatistics, measure
from yeastexp.system.formatting import format_count
from yeastexp.system.progress import Say
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.training import build
from yeastexp.training.device import configure_torch
from yeastexp.training.initial_weights import initialize
from yeastexp.training.timing import assembled
from yeastexp.training.training_images import Transforms

NOT_TRIED = Finding(
    "note",
    "model not tried",
    "neither the alignment under augmentations nor overfitting was tried",
    "With the errors above, training would not begin",
    "fix them and check again",
)


@dataclass(frozen=True)
class Preflight:
    """The result of a preflight: all findings, the worst first, and the measurements that they rest on."""

    experiment: Experiment
    splits: dict[str, int]
    """How many images each split has, unreadable ones included."""
    findings: list[Finding]
    images: list[ImageStatistics]
    alignment: list[Alignment]
    overfit: Overfit | None

    def count(self, severity: Severity) -> int:
        """The number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)


@plugins.blamed()
def preflight(
    path: Path,
    settings: Sequence[str] = (),
    *,
    steps: int = overfit.STEPS,
    progress: ProgressBar[Any] = iter,
    say: Say = lambda line: None,
) -> Preflight:
    """Check all images, one at a time, then the alignment of labels under transforms, then overfit one batch.

    Writes nothing. Raises UserError if the experiment file itself is wrong.
    """
    written = load_experiment(path, settings)
    loaded = configure_torch(written)
    dataset = build.build_dataset(loaded)
    say(f"{path}: checking {format_count(sum(map(len, dataset.splits.values())), 'image')}")
    transforms, unfitted = _transforms(loaded, dataset)
    images, registrations, faults = _read_all(dataset, transforms, progress)
    findings: list[Finding] = []
    if faults:
        what = f"{format_count(len(faults), 'image')}: {next(iter(faults.values()))}"
        why, remedy = "Training would stop there", "fix or remove them"
        findings.append(Finding("error", "unreadable images", what, why, remedy, tuple(faults)))
    findings += data_rules.findings(images, loaded.task.classes)
    findings += data_rules.single_images(dataset.splits)
    findings += duplicates.known_to_weights(loaded, images)
    findings += registration.findings(registrations)
    findings += instance_rules.findings(images, needed="instances" in build.build_task(loaded).maps)
    findings += patch_rules.findings(loaded, images, build.build_model(loaded))
    splits = {split: len(names) for split, names in dataset.splits.items()}
    errors = any(finding.severity == "error" for finding in findings)
    if unfitted and not errors:
        findings.append(unfitted)  # else the errors above are why they could not be fitted
    # The data come first: with errors in them the model's training would stop, and its checks would blame the model.
    if unfitted or errors:
        return Preflight(loaded, splits, ordered([*findings, NOT_TRIED]), images, [], None)
    say("timing a step, and comparing labels with their images under each augmentation")
    assembly, _, _ = assembled(written)
    for line in initialize(assembly).told:
        say(line)
    alignments = alignment.check_alignment(assembly)
    findings += alignment.findings(alignments)
    say(f"overfitting one batch, in at most {format_count(steps, 'step')}")
    result = overfit.overfit(assembly, steps, progress)
    if finding := overfit.finding(result):
        findings.append(finding)
    return Preflight(loaded, splits, ordered(findings), images, alignments, result)


def _transforms(loaded: Experiment, dataset: Any) -> tuple[Transforms | None, Finding | None]:
    """The fitted transforms; or None, and the finding that says why they could not be fitted."""
    try:
        return build.fitted_transforms(loaded, dataset), None
    except UserError as error:
        what, why = "; ".join(error.faults), "Training would stop there"
        return None, Finding("error", "transforms not fitted", what, why, "fix the images")


def _read_all(
    dataset: Any, transforms: Transforms | None, progress: ProgressBar[Any]
) -> tuple[list[ImageStatistics], list[Registration], dict[str, str]]:
    """The statistics of all images, the registration of some of them, and the faults of those that cannot be read."""
    images, registrations, faults = [], [], {}
    names = [(split, name) for split, members in dataset.splits.items() for name in members]
    interval = max(1, -(-len(names) // registration.MAX_IMAGES))
    for index, (split, name) in enumerate(progress(names)):
        try:
            sample = dataset.read(name)
            images.append(measure(sample, split, folds.stored_dtype(dataset, name), transforms))
        except UserError as error:
            faults[name] = "; ".join(error.faults)
            continue
        if index % interval == 0 and (registered := registration.register(sample)):
            registrations.append(registered)
    return images, registrations, faults
