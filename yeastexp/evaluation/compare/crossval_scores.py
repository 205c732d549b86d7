"""The out-of-fold scores of cross-validations, averaged over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from yeastexp.errors import UserError, did_you_mean
from yeastexp.evaluation import out_of_fold
from yeastexp.evaluation.compare import run_scores
from yeastexp.evaluation.compare.result import ByClass, Run, RunScores, Spread, and_more
from yeastexp.evaluation.measure import metric_of
from yeastexp.evaluation.out_of_fold import OutOfFold
from yeastexp.evaluation.source import image_digest, map_digests


def read(runs: Sequence[Run], metric: str) -> list[OutOfFold]:
    """Read the scores of cross-validations. Raises UserError if folds, images or the metric's options differ."""
    scores = [out_of_fold.read(run.path) for run in runs]
    _refuse_different_folds(scores)
    _refuse_different_data(runs, scores, metric)
    known = sorted(set.intersection(*({metric for metric, _ in each.scores} for each in scores)))
    if metric not in known:
        raise UserError(
            f"--metric: '{metric}' is no metric of all these cross-validations{did_you_mean(metric, known)}"
        )
    return scores


def refuse_mixture(runs: Sequence[Run]) -> None:
    """Raises UserError if `runs` are neither all runs nor all cross-validations."""
    crossvals = [run.path for run in runs if out_of_fold.is_crossval(run.path)]
    single = [run.path for run in runs if not out_of_fold.is_crossval(run.path)]
    if single:
        raise UserError(
            f"{single[0]}: is a run, but {crossvals[0]} a cross-validation; compare runs with each other, and "
            "cross-validations with each other"
        )


def _refuse_different_folds(scores: Sequence[OutOfFold]) -> None:
    """Raises UserError naming the first cross-validation with other images or folds than the first one."""
    # Other folds mean other training images: a difference of scores could then come from the images that a model was
    # trained on. As sets, because the numbers of folds do not matter.
    first = scores[0]
    for other in scores[1:]:
        for holder, names, others in ((first, first.names, other.names), (other, other.names, first.names)):
            if alone := [name for name in names if name not in others]:
                raise UserError(
                    f"{other.folder}: has other images than {first.folder}: '{alone[0]}'{and_more(alone)} to "
                    f"{holder.folder} alone; cross-validate both on the same data"
                )
        if {frozenset(names) for names in other.folds.folds} != {frozenset(names) for names in first.folds.folds}:
            raise UserError(
                f"{other.folder}: has other folds than {first.folder}, so that the training images differ; repeat one "
                f"of them with --folds {first.folder / out_of_fold.FOLDS}"
            )


def _refuse_different_data(runs: Sequence[Run], scores: Sequence[OutOfFold], metric: str) -> None:
    """Raises UserError if images of the same names differ, or what the metric counts."""
    run_scores.refuse_other_options(runs, metric)
    for run in runs[1:]:
        *data, _, _ = run.provenance(metric)
        *first_data, _, _ = runs[0].provenance(metric)
        # What was recorded settles most cases. Only if it differs are the images read and compared one by one: the same
        # images may have been packed anew.
        if data == first_data:
            continue
        pairs = (run, runs[0]), (runs[0], run)
        digests, first = (_digests(each, scores[0].names, metric, other) for each, other in pairs)
        if different := [name for name in first if first[name] != digests[name]]:
            raise UserError(
                f"{run.path}: image '{different[0]}' is not the one of {runs[0].path} ({len(different)} of "
                f"{len(first)} have other pixels, labels or cells under the same name); cross-validate both on the "
                "same data"
            )


def _digests(run: Run, names: Sequence[str], metric: str, other: Run) -> dict[str, str]:
    """The digests of a run's images with the maps that the metric asks for, by name, to compare with another run's."""
    with _readable(other):
        normalization = other.experiment.dataset.build().normalization
    with _readable(run):
        dataset = run.experiment.dataset.build()
        samples, scored = (dataset.read(name) for name in names), [metric_of(run.experiment, metric)]
        return {
            sample.name: " ".join(
                [image_digest(sample, dataset.normalization, normalization), *map_digests(sample, scored).values()]
            )
            for sample in samples
        }


@contextmanager
def _readable(run: Run) -> Iterator[None]:
    """Raises UserError if a run's data cannot be read within the block."""
    try:
        yield
    except (UserError, OSError, KeyError) as error:
        raise UserError(
            f"{run.path}: its data differ from the others' or are elsewhere, and cannot be read to tell whether the "
            f"images are the same ({error}); cross-validate on the same data"
        ) from None


def mean_over_seeds(scores: OutOfFold, metric: str) -> RunScores:
    """Each image's mean score over seeds, by class."""
    by_class: ByClass = {}
    for (other, name), table in scores.scores.items():
        if other == metric:
            means = out_of_fold.means(table, 0)
            by_class[name] = {
                image: None if math.isnan(mean) else mean for image, mean in zip(scores.names, means, strict=True)
            }
    return RunScores(by_class, scores.folder / out_of_fold.PER_IMAGE, dict.fromkeys(scores.names, ""), selected=False)


def spread(scores: OutOfFold, key: out_of_fold.Key) -> Spread:
    """The spread of the scores of a metric and class between images and between seeds."""
    table = scores.scores[key]
    by_image, by_seed = (out_of_fold.deviation(out_of_fold.means(table, axis)) for axis in (0, 1))
    return Spread(scores.seeds, by_image, by_seed)
