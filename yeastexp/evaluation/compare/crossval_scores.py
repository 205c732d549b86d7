"""The scores of cross-validations: of every image by weights that never saw it, the mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from yeastexp.errors import UserError, did_you_mean
from yeastexp.evaluation import out_of_fold, record
from yeastexp.evaluation.compare.result import ByClass, Run, Scored, Spread, and_more
from yeastexp.evaluation.out_of_fold import OutOfFold


def read(runs: Sequence[Run], metric: str) -> list[OutOfFold]:
    """What each cross-validation found; UserError where they have other folds or images, or not all have the metric."""
    found = [out_of_fold.read(run.path) for run in runs]
    _refuse_other_folds(found)
    _refuse_other_data(runs, found, metric)
    known = sorted(set.intersection(*({metric for metric, _ in one.scores} for one in found)))
    if metric not in known:
        raise UserError(
            f"--metric: '{metric}' is no metric of all these cross-validations{did_you_mean(metric, known)}"
        )
    return found


def refuse_mixture(runs: Sequence[Run]) -> None:
    """UserError where some are runs and some cross-validations."""
    crossed = [run.path for run in runs if out_of_fold.is_one(run.path)]
    single = [run.path for run in runs if not out_of_fold.is_one(run.path)]
    if single:
        raise UserError(
            f"{single[0]}: is a run, but {crossed[0]} a cross-validation; compare runs with each other, and "
            "cross-validations with each other"
        )


def _refuse_other_folds(found: Sequence[OutOfFold]) -> None:
    """UserError names the first whose images, or whose folds of the same images, are others."""
    first = found[0]
    for one in found[1:]:
        for holder, own, others in ((first, first.names, one.names), (one, one.names, first.names)):
            if alone := [name for name in own if name not in others]:
                raise UserError(
                    f"{one.folder}: is of other images than {first.folder}: '{alone[0]}'{and_more(alone)} to "
                    f"{holder.folder} alone; cross-validate both on the same data"
                )
        if {frozenset(names) for names in one.folds.folds} != {frozenset(names) for names in first.folds.folds}:
            raise UserError(
                f"{one.folder}: has other folds than {first.folder}, so that others were trained on the same images; "
                f"repeat one of them with --folds {first.folder / out_of_fold.FOLDS}"
            )


def _refuse_other_data(runs: Sequence[Run], found: Sequence[OutOfFold], metric: str) -> None:
    """UserError where images of the same names are not the same, or where a metric counts otherwise."""
    for run in runs[1:]:
        *data, how, _ = run.counted(metric)
        *first_data, first_how, _ = runs[0].counted(metric)
        if how != first_how:
            raise UserError(
                f"{run.path}: counts '{metric}' with other options than {runs[0].path}; choose another --metric"
            )
        if data == first_data:
            continue
        own, first = (_digests(one, found[0].names) for one in (run, runs[0]))
        if other := [name for name in first if first[name] != own[name]]:
            raise UserError(
                f"{run.path}: image '{other[0]}' is not the one of {runs[0].path} ({len(other)} of {len(first)} have "
                "other pixels or labels under the same name); cross-validate both on the same data"
            )


def _digests(run: Run, names: Sequence[str]) -> dict[str, str]:
    """The digests of images as they were recorded; UserError where the data are gone."""
    try:
        dataset = run.experiment.dataset.build()
        return {name: record.digest(dataset.read(name), dataset.normalization) for name in names}
    except (UserError, OSError, KeyError) as error:
        raise UserError(
            f"{run.path}: its data differ from the others' or are elsewhere, and cannot be read to tell whether the "
            f"images are the same ({error}); cross-validate on the same data"
        ) from None


def averaged(found: OutOfFold, metric: str) -> Scored:
    """The mean over seeds of each image's scores."""
    by_class: ByClass = {}
    for (own, name), table in found.scores.items():
        if own == metric:
            means = out_of_fold.means(table, 0)
            by_class[name] = {
                image: None if math.isnan(mean) else mean for image, mean in zip(found.names, means, strict=True)
            }
    return Scored(by_class, found.folder / out_of_fold.PER_IMAGE, dict.fromkeys(found.names, ""), selected=False)


def spread(found: OutOfFold, key: out_of_fold.Key) -> Spread:
    """How the scores of a metric and class scatter."""
    table = found.scores[key]
    by_image, by_seed = (out_of_fold.deviation(out_of_fold.means(table, axis)) for axis in (0, 1))
    return Spread(found.seeds, by_image, by_seed)
