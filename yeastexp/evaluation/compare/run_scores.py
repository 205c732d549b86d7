"""The scores of runs on the same images."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from yeastexp.errors import UserError, did_you_mean
from yeastexp.evaluation import record
from yeastexp.evaluation.compare.result import ByClass, Run, Scored, Wanted, and_more
from yeastexp.evaluation.evaluate import Split, evaluate
from yeastexp.evaluation.record import Evaluation
from yeastexp.system import files
from yeastexp.training import checkpoints, run_directory


def refuse_unknown_metric(runs: Sequence[Run], metric: str) -> None:
    """UserError where not every run can be scored with a metric."""
    shared = set.intersection(*({part.name for part in run.experiment.metrics} for run in runs))
    known = [*record.SHARES, *sorted(shared - {*record.SHARES})]
    if metric not in known:
        raise UserError(f"--metric: '{metric}' is no metric of all these runs{did_you_mean(metric, known)}")


def usual_split(runs: Sequence[Run], data: Path | None) -> Split:
    """The images that validate, or all of a file that no run was trained on."""
    if data is None:
        return "val"
    if not data.is_file():
        raise UserError(f"{data}: no such file; name an HDF5 file, as 'pack' makes it")
    digest = files.digest(data)
    return "val" if any(digest in run.data_digests.values() for run in runs) else "all"


def scored(
    runs: Sequence[Run], wanted: Wanted, device: str, progress: Callable[[Iterable[str]], Iterable[str]]
) -> list[Scored]:
    """The scores of each run: those it stored, or where one has none, those of evaluations."""
    return _stored(runs, wanted) or [_evaluated(run, wanted, device, progress) for run in runs]


def _stored(runs: Sequence[Run], wanted: Wanted) -> list[Scored] | None:
    """What the runs themselves kept, where all kept it of the same images and counted it alike."""
    if wanted.data or wanted.checkpoint != "best" or wanted.split not in ("val", "test"):
        return None
    if any(run.counted(wanted.metric) != runs[0].counted(wanted.metric) for run in runs):
        return None
    found = [_kept(run, wanted) for run in runs]
    return [one for one in found if one] if all(found) else None


def _kept(run: Run, wanted: Wanted) -> Scored | None:
    """The scores that a run wrote when it ended."""
    place = run.path / run_directory.PER_IMAGE
    if not (run.path / run_directory.RESULT).is_file() or not place.is_file():
        return None
    by_class: ByClass = {}
    with place.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if (row["split"], row["metric"]) == (wanted.split, wanted.metric):
                by_class.setdefault(row["class"], {})[row["image"]] = float(row["score"]) if row["score"] else None
    images = dict.fromkeys(next(iter(by_class.values()), {}), "")
    return Scored(by_class, place, images, selected=wanted.split == "val") if by_class else None


def _evaluated(run: Run, wanted: Wanted, device: str, progress: Callable[[Iterable[str]], Iterable[str]]) -> Scored:
    """The scores of an evaluation, made now unless a good one is there."""
    folder, found = _earlier(run, wanted) or evaluate(
        run.path,
        wanted.data,
        split=wanted.split,
        checkpoint=wanted.checkpoint,
        tolerance_px=wanted.tolerance_px,
        device=device,
        progress=progress,
    )
    if wanted.metric not in found.per_image:
        raise UserError(
            f"{found.path or found.data}: lacks the map that '{wanted.metric}' needs; choose another --metric"
        )
    by_class = {
        name: dict(zip(found.images, scores, strict=True)) for name, scores in found.per_image[wanted.metric].items()
    }
    return Scored(by_class, folder / record.FIGURES, found.images, selected=bool(found.selected_on))


def _earlier(run: Run, wanted: Wanted) -> tuple[Path, Evaluation] | None:
    """An evaluation of the same weights on the same images, where there is one."""
    weights = run.path / checkpoints.FOLDER / f"{wanted.checkpoint}.pt"
    if not weights.is_file():
        return None
    good: set[str | None] = {files.digest(wanted.data)} if wanted.data else {*run.data_digests.values(), None}
    how = wanted.checkpoint, files.digest(weights), wanted.split, wanted.tolerance_px
    for place in sorted((run.path / record.FOLDER).glob(f"*/{record.FIGURES}")):
        found = record.read(place.parent)
        if found is None or found.data_digest not in good or wanted.metric not in found.per_image:
            continue
        if (found.checkpoint, found.checkpoint_digest, found.split, found.boundary_tolerance_px) == how:
            return place.parent, found
    return None


def refuse_other_images(runs: Sequence[Run], found: Sequence[Scored]) -> None:
    """UserError names the first run that was scored on other images, or on others of the same names."""
    first, remedy = found[0].images, "compare them on one file, with --data"
    for run, one in zip(runs, found, strict=True):
        for holder, own, others in ((runs[0], first, one.images), (run, one.images, first)):
            if alone := [name for name in own if name not in others]:
                raise UserError(
                    f"{run.path}: was scored on other images than {runs[0].path}: '{alone[0]}'{and_more(alone)} to "
                    f"{holder.path} alone; {remedy}"
                )
        if other := [name for name in first if first[name] != one.images[name]]:
            raise UserError(
                f"{run.path}: image '{other[0]}' is not the one of {runs[0].path} "
                f"({len(other)} of {len(first)} have other pixels or labels under the same name); {remedy}"
            )
