"""An experiment's data looked through before training, and whether its model can learn them at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data import folds
from yeastexp.errors import UserError
from yeastexp.inspection.preflight import alignment, data_rules, overfit, patch_rules, registration
from yeastexp.inspection.preflight.alignment import Carried
from yeastexp.inspection.preflight.finding import Finding, Severity, ordered
from yeastexp.inspection.preflight.overfit import Overfit
from yeastexp.inspection.preflight.registration import Placement
from yeastexp.inspection.preflight.statistics import Figures, measure
from yeastexp.system.formatting import format_count
from yeastexp.training import build
from yeastexp.training.build import Transforms

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Preflight:
    """All findings, the worst first; the figures of the images that could be read; what was tried on the model."""

    experiment: Experiment
    splits: dict[str, int]
    """How many images each split has, those that cannot be read among them."""
    findings: list[Finding]
    images: list[Figures]
    carried: list[Carried]
    overfit: Overfit | None

    def count(self, severity: Severity) -> int:
        """How many findings are so severe."""
        return sum(one.severity == severity for one in self.findings)


@dataclass
class _Data:
    """What one pass over the images gives."""

    figures: list[Figures]
    placements: list[Placement]
    unreadable: dict[str, str]


def preflight(
    path: Path, settings: Sequence[str] = (), *, steps: int = overfit.STEPS, progress: Progress = iter
) -> Preflight:
    """Look through all images, one at a time, then carry spots through the augmentations and overfit one batch.

    Writes nothing. UserError where the experiment file itself has faults.
    """
    loaded = build.configure_torch(load_experiment(path, settings))
    dataset = build.build_dataset(loaded)
    transforms, unfitted = _transforms(loaded, dataset)
    seen = _look(dataset, transforms, progress)
    found = [*_unreadable(seen.unreadable), *data_rules.findings(seen.figures, loaded.task.classes)]
    found += [*data_rules.single_images(dataset.splits), *registration.findings(seen.placements)]
    found += patch_rules.findings(loaded, seen.figures, build.build_model(loaded))
    splits = {split: len(names) for split, names in dataset.splits.items()}
    errors = any(one.severity == "error" for one in found)
    if unfitted and not errors:
        found.append(unfitted)
    if errors or unfitted:
        return Preflight(loaded, splits, ordered([*found, _not_tried()]), seen.figures, [], None)
    assembly = build.assemble(loaded)
    moved = alignment.carried(assembly)
    learnt = overfit.overfit(assembly, steps, progress)
    said = overfit.finding(learnt)
    found += [*alignment.findings(moved), *([said] if said else [])]
    return Preflight(loaded, splits, ordered(found), seen.figures, moved, learnt)


def _transforms(loaded: Experiment, dataset: Any) -> tuple[Transforms | None, Finding | None]:
    """The fitted transforms, or what kept them from being fitted."""
    try:
        return build.fitted_transforms(loaded, dataset), None
    except UserError as error:
        what = "; ".join(error.faults)
        return None, Finding("error", "transforms not fitted", what, "Training would stop there", "mend the images")


def _look(dataset: Any, transforms: Transforms | None, progress: Progress) -> _Data:
    """Read every image once."""
    seen = _Data([], [], {})
    names = [(split, name) for split, some in dataset.splits.items() for name in some]
    looked_at = set(range(0, len(names), max(1, -(-len(names) // registration.IMAGES))))
    for index, (split, name) in enumerate(progress(names)):
        try:
            sample = dataset.read(name)
            seen.figures.append(measure(sample, split, folds.stored_dtype(dataset, name), transforms))
        except UserError as error:
            seen.unreadable[name] = "; ".join(error.faults)
            continue
        if index in looked_at and (found := registration.placement(sample)):
            seen.placements.append(found)
    return seen


def _unreadable(faults: dict[str, str]) -> Iterator[Finding]:
    if faults:
        yield Finding(
            "error",
            "unreadable images",
            f"{format_count(len(faults), 'image')}: {next(iter(faults.values()))}",
            "Training would stop there",
            "mend or remove them",
            tuple(faults),
        )


def _not_tried() -> Finding:
    return Finding(
        "note",
        "model not tried",
        "neither the augmentations were looked at nor was a batch learnt by heart",
        "With the errors above, training would not begin",
        "mend them and call this again",
    )
