"""Runs, or cross-validations, beside each other: what differs, and whether images that all saw can tell them apart.

`compare` gives a `Comparison`; `findings`, `tables`, `title`, `as_json` and `draw` say what is in it. Of
cross-validations every image has its score from weights that never saw it, the mean over seeds.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from yeastexp import (
    assemble,
    checkpoints,
    differences,
    evaluation,
    execution,
    experiment,
    files,
    out_of_fold,
    plots,
    tracking,
)
from yeastexp.differences import Rows
from yeastexp.errors import UserError, did_you_mean
from yeastexp.evaluate import Split, evaluate
from yeastexp.evaluation import Evaluation
from yeastexp.experiment import Experiment
from yeastexp.out_of_fold import OutOfFold
from yeastexp.statistics import Interval, Paired, holm, interval, paired
from yeastexp.trained import Which

LEVEL = 0.05
"""Of the tests of all pairs together."""

HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""A git revision or a SHA-256; tables show the first twelve letters."""

ABSENT = "–"

ByClass = dict[str, dict[str, float | None]]
"""By class and image, the score of a metric; nothing where an image has none."""


@dataclass(frozen=True)
class Run:
    """A run directory, or that of a cross-validation, what tables call it, and what it was.

    The environment of a cross-validation is that of its first run.
    """

    path: Path
    label: str
    experiment: Experiment
    environment: dict[str, Any]

    @property
    def data_digests(self) -> dict[str, str]:
        """The digests of the files it was trained on, by name."""
        found: dict[str, str] = self.environment["digests"]["data"]
        return found


@dataclass(frozen=True)
class Wanted:
    """Which scores are compared."""

    metric: str
    checkpoint: Which
    data: Path | None
    split: Split
    tolerance_px: float


@dataclass(frozen=True)
class Scored:
    """The scores of a run under one metric, where they were read, and the images, with digests unless all have one."""

    by_class: ByClass
    place: Path
    images: dict[str, str]
    selected: bool


@dataclass(frozen=True)
class Spread:
    """Of a cross-validation: standard deviations of the images' means over seeds, and of the seeds' means over images.

    NaN where there are fewer than two.
    """

    seeds: list[int]
    between_images: float
    between_seeds: float

    @property
    def of_mean(self) -> float:
        """The standard deviation of the mean over seeds, as other seeds would give it."""
        return self.between_seeds / math.sqrt(len(self.seeds))


@dataclass(frozen=True)
class Comparison:
    """What differs between runs, the scores of each (images in the same order), and each beside the first.

    `spreads` has one for each cross-validation, and `notes` what they said of their data; both are empty for runs.
    """

    runs: list[Run]
    wanted: Wanted
    class_name: str
    higher_is_better: bool
    selected: bool
    places: list[Path]
    experiments: Rows
    environments: Rows
    images: list[str]
    scores: list[list[float | None]]
    means: list[Interval]
    pairs: list[Paired]
    adjusted: list[float]
    spreads: list[Spread] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def out_of_fold(self) -> bool:
        """Whether cross-validations are compared."""
        return bool(self.spreads)


def compare(
    paths: Sequence[Path],
    *,
    metric: str = "iou",
    class_name: str | None = None,
    checkpoint: Which = "best",
    data: Path | None = None,
    split: Split | None = None,
    device: str = "auto",
    output: Path | None = None,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Comparison:
    """Compare runs image by image; UserError where they do not have the same images, or where none draws `output`.

    Scores that were stored are used; where one is missing, that run is evaluated, which writes `RUN/evaluations/…`.
    Cross-validations are compared among themselves, dealt into the same folds, by what they stored of their `last`
    weights: `checkpoint` means nothing to them, and `data` and `split` are refused.
    """
    if output and output.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"{output}: figures are written as .png or .svg; name such a file")
    runs = _runs(paths)
    _refuse_other_classes(runs)
    if any(out_of_fold.is_one(path) for path in paths):
        return _compare_out_of_fold(runs, metric, class_name, data, split)
    _refuse_unknown_metric(runs, metric)
    tolerance = evaluation.tolerance_of(runs[0].experiment)
    wanted = Wanted(metric, checkpoint, data, split or _usual_split(runs, data), tolerance)
    found = _stored(runs, wanted) or [_evaluated(run, wanted, device, progress) for run in runs]
    _refuse_other_images(runs, found)
    return _compared(runs, wanted, found, _class_of(runs, found[0].by_class, class_name))


def _compared(runs: list[Run], wanted: Wanted, found: Sequence[Scored], class_name: str) -> Comparison:
    images = list(found[0].images)
    scores = [[one.by_class[class_name][image] for image in images] for one in found]
    numbers = [[math.nan if score is None else score for score in row] for row in scores]
    within = (0.0, 1.0) if wanted.metric in evaluation.SHARES else (-math.inf, math.inf)
    pairs = [paired(numbers[0], other) for other in numbers[1:]]
    return Comparison(
        runs=runs,
        wanted=wanted,
        class_name=class_name,
        higher_is_better=_higher_is_better(runs[0].experiment, wanted.metric),
        selected=any(one.selected for one in found),
        places=[one.place for one in found],
        experiments=differences.of_experiments([run.experiment for run in runs]),
        environments=differences.of_environments([run.environment for run in runs]),
        images=images,
        scores=scores,
        means=[interval(row, within) for row in numbers],
        pairs=pairs,
        adjusted=holm([one.p for one in pairs]),
    )


def _runs(paths: Sequence[Path]) -> list[Run]:
    if len(paths) < 2:
        raise UserError(f"{' '.join(map(str, paths))}: nothing to compare with; name two runs or more")
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if not (path / execution.EXPERIMENT).is_file():
            raise UserError(f"{path}: no run directory; the last line that 'run' prints is one")
        if resolved.count(place) > 1:
            raise UserError(f"{path}: is named twice; name different runs")
    short = [f"{place.parent.name}/{place.name}" for place in resolved]
    labels = short if len(set(short)) == len(short) else [str(path) for path in paths]
    loaded = (experiment.load(path / execution.EXPERIMENT, data=False) for path in paths)
    return [Run(path, label, one, _environment(path)) for path, label, one in zip(paths, labels, loaded, strict=True)]


def _environment(path: Path) -> dict[str, Any]:
    if not out_of_fold.is_one(path):
        return execution.read_environment(path)
    seed = min(out_of_fold.read(path).seeds)
    return execution.read_environment(out_of_fold.turn_folder(path, seed, 1))


def _compare_out_of_fold(
    runs: list[Run], metric: str, class_name: str | None, data: Path | None, split: Split | None
) -> Comparison:
    """Compare cross-validations, whose scores are averaged over seeds image by image."""
    _refuse_mixture(runs)
    for option, given in (("--data", data), ("--split", split)):
        if given:
            raise UserError(f"{option}: cross-validations are compared on the images they held out; leave it away")
    found = [out_of_fold.read(run.path) for run in runs]
    _refuse_other_folds(found)
    _refuse_other_data(runs, found, metric)
    known = sorted(set.intersection(*({metric for metric, _ in one.scores} for one in found)))
    if metric not in known:
        raise UserError(
            f"--metric: '{metric}' is no metric of all these cross-validations{did_you_mean(metric, known)}"
        )
    scored = [_averaged(one, metric) for one in found]
    class_name = _class_of(runs, scored[0].by_class, class_name)
    wanted = Wanted(metric, "last", None, "val", evaluation.tolerance_of(runs[0].experiment))
    spreads = [_spread(one, (metric, class_name)) for one in found]
    notes = list(dict.fromkeys(note for one in found for note in one.notes))
    return replace(_compared(runs, wanted, scored, class_name), spreads=spreads, notes=notes)


def _refuse_mixture(runs: Sequence[Run]) -> None:
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
                    f"{one.folder}: is of other images than {first.folder}: '{alone[0]}'{_and_more(alone)} to "
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
        *data, how, _ = _counted(run, metric)
        *first_data, first_how, _ = _counted(runs[0], metric)
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
        return {name: evaluation.digest(dataset.read(name), dataset.normalization) for name in names}
    except (UserError, OSError, KeyError) as error:
        raise UserError(
            f"{run.path}: its data differ from the others' or are elsewhere, and cannot be read to tell whether the "
            f"images are the same ({error}); cross-validate on the same data"
        ) from None


def _averaged(found: OutOfFold, metric: str) -> Scored:
    """The mean over seeds of each image's scores."""
    by_class: ByClass = {}
    for (own, name), table in found.scores.items():
        if own == metric:
            means = out_of_fold.means(table, 0)
            by_class[name] = {
                image: None if math.isnan(mean) else mean for image, mean in zip(found.names, means, strict=True)
            }
    return Scored(by_class, found.folder / out_of_fold.PER_IMAGE, dict.fromkeys(found.names, ""), selected=False)


def _spread(found: OutOfFold, key: out_of_fold.Key) -> Spread:
    table = found.scores[key]
    by_image, by_seed = (out_of_fold.deviation(out_of_fold.means(table, axis)) for axis in (0, 1))
    return Spread(found.seeds, by_image, by_seed)


def _refuse_other_classes(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.experiment.task.classes != runs[0].experiment.task.classes:
            names = [", ".join(some.experiment.task.classes) for some in (run, runs[0])]
            raise UserError(
                f"{run.path}: has the classes {names[0]}, but {runs[0].path} {names[1]}; compare runs of one task"
            )


def _refuse_unknown_metric(runs: Sequence[Run], metric: str) -> None:
    shared = set.intersection(*({part.name for part in run.experiment.metrics} for run in runs))
    known = [*evaluation.SHARES, *sorted(shared - {*evaluation.SHARES})]
    if metric not in known:
        raise UserError(f"--metric: '{metric}' is no metric of all these runs{did_you_mean(metric, known)}")


def _usual_split(runs: Sequence[Run], data: Path | None) -> Split:
    """The images that validate, or all of a file that no run was trained on."""
    if data is None:
        return "val"
    if not data.is_file():
        raise UserError(f"{data}: no such file; name an HDF5 file, as 'pack' makes it")
    digest = files.digest(data)
    return "val" if any(digest in run.data_digests.values() for run in runs) else "all"


def _higher_is_better(loaded: Experiment, metric: str) -> bool:
    own = assemble.build_metrics(loaded)
    return own[metric].higher_is_better if metric in own else True


def _stored(runs: Sequence[Run], wanted: Wanted) -> list[Scored] | None:
    """What the runs themselves kept, where all kept it of the same images and counted it alike."""
    if wanted.data or wanted.checkpoint != "best" or wanted.split not in ("val", "test"):
        return None
    if any(_counted(run, wanted.metric) != _counted(runs[0], wanted.metric) for run in runs):
        return None
    found = [_kept(run, wanted) for run in runs]
    return [one for one in found if one] if all(found) else None


def _counted(run: Run, metric: str) -> tuple[object, ...]:
    """What the scores that a run kept depend on beside its predictions."""
    dataset, own = run.experiment.dataset, run.environment
    options = {key: value for key, value in dataset.options.items() if not isinstance(value, Path)}
    generated = None if run.data_digests else (own["versions"]["yeastexp"], own["digests"]["plugins"])
    how = [part.options for part in run.experiment.metrics if part.name == metric]
    return dataset.name, options, sorted(run.data_digests.values()), generated, how, run.experiment.task


def _kept(run: Run, wanted: Wanted) -> Scored | None:
    """The scores that a run wrote when it ended."""
    place = run.path / execution.PER_IMAGE
    if not (run.path / execution.RESULT).is_file() or not place.is_file():
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
    return Scored(by_class, folder / evaluation.FIGURES, found.images, selected=bool(found.selected_on))


def _earlier(run: Run, wanted: Wanted) -> tuple[Path, Evaluation] | None:
    """An evaluation of the same weights on the same images, where there is one."""
    weights = run.path / checkpoints.FOLDER / f"{wanted.checkpoint}.pt"
    if not weights.is_file():
        return None
    good: set[str | None] = {files.digest(wanted.data)} if wanted.data else {*run.data_digests.values(), None}
    how = wanted.checkpoint, files.digest(weights), wanted.split, wanted.tolerance_px
    for place in sorted((run.path / evaluation.FOLDER).glob(f"*/{evaluation.FIGURES}")):
        found = evaluation.read(place.parent)
        if found is None or found.data_digest not in good or wanted.metric not in found.per_image:
            continue
        if (found.checkpoint, found.checkpoint_digest, found.split, found.boundary_tolerance_px) == how:
            return place.parent, found
    return None


def _refuse_other_images(runs: Sequence[Run], found: Sequence[Scored]) -> None:
    """UserError names the first run that was scored on other images, or on others of the same names."""
    first, remedy = found[0].images, "compare them on one file, with --data"
    for run, one in zip(runs, found, strict=True):
        for holder, own, others in ((runs[0], first, one.images), (run, one.images, first)):
            if alone := [name for name in own if name not in others]:
                raise UserError(
                    f"{run.path}: was scored on other images than {runs[0].path}: '{alone[0]}'{_and_more(alone)} to "
                    f"{holder.path} alone; {remedy}"
                )
        if other := [name for name in first if first[name] != one.images[name]]:
            raise UserError(
                f"{run.path}: image '{other[0]}' is not the one of {runs[0].path} "
                f"({len(other)} of {len(first)} have other pixels or labels under the same name); {remedy}"
            )


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more belong" if len(names) > 1 else " belongs"


def _class_of(runs: Sequence[Run], by_class: ByClass, wanted: str | None) -> str:
    """The row of a metric that is compared: the one wanted, else the only one, the foreground or the mean."""
    classes = runs[0].experiment.task.classes
    usual = "all" if "all" in by_class else classes[1] if len(classes) == 2 else tracking.MEAN
    if wanted is not None and wanted not in by_class:
        raise UserError(f"--class: the scores have none '{wanted}'{did_you_mean(wanted, by_class)}")
    return wanted or usual


def findings(done: Comparison) -> list[str]:
    """What the pairs say, in a sentence each, and what they cannot say."""
    said = [_finding(done, index) for index in range(len(done.pairs))]
    if not done.out_of_fold:
        return [*said, "Each is one run: that another seed would give other scores, these images cannot show."]
    return [*said, *_of_seeds(done), *_of_notes(done)]


def _of_seeds(done: Comparison) -> Iterator[str]:
    """What seeds have to do with it."""
    counts = sorted({len(one.seeds) for one in done.spreads})
    seeds = " or ".join(map(str, counts))
    yield (
        f"Every image counts once, scored by weights that never saw it: {'the mean of' if counts[-1] > 1 else 'of'} "
        f"{seeds} seed{'s' if counts[-1] > 1 else ''}. Images of one fold share a model, so that they are less "
        "independent than the test takes them for."
    )
    told = [
        f"{spread.between_seeds:.4f} from seed to seed and {_number(spread.between_images)} from image to image in "
        f"{run.label}"
        for run, spread in zip(done.runs, done.spreads, strict=True)
        if not math.isnan(spread.between_seeds)
    ]
    if told:
        yield f"Scores scatter (standard deviations of means) by {', by '.join(told)}."
    if counts[0] < 2:
        yield "Of one seed alone it cannot be told how much another would change; 'crossval --repeats 3' would show it."


def _of_notes(done: Comparison) -> Iterator[str]:
    if done.notes:
        more = f" ({len(done.notes) - 1} more in {out_of_fold.RESULT})" if len(done.notes) > 1 else ""
        yield f"Noted when they were trained: {done.notes[0]}{more}."


def _finding(done: Comparison, index: int) -> str:
    first, other, pair = done.runs[0].label, done.runs[index + 1].label, done.pairs[index]
    found, count = pair.difference, pair.difference.images
    if not count:
        return f"{other} against {first}: no image has a score in both."
    images = f"{count} image{'s' if count > 1 else ''}"
    what = f"{other} against {first}: {_signed(found.mean, found)} {done.wanted.metric} on {images}"
    if count > 1:
        several = f" (Holm, {len(done.pairs)} pairs)" if len(done.pairs) > 1 else ""
        what += f", 95 % interval {_signed_range(found)}, p = {shown_p(done.adjusted[index])}{several}"
    return f"{what}. {_verdict(done, index)}"


def _verdict(done: Comparison, index: int) -> str:
    first, other, pair = done.runs[0].label, done.runs[index + 1].label, done.pairs[index]
    if done.adjusted[index] < LEVEL:
        better = other if (pair.difference.mean > 0) == done.higher_is_better else first
        return f"On these images {better} is better{_but(done, index)}."
    if pair.difference.low == pair.difference.high == 0:
        return "The scores are the same on every image."
    least = min(1.0, pair.smallest_p * len(done.pairs))
    if least >= LEVEL:
        return f"The data cannot tell the two apart: so few images never give a p below {shown_p(least)}."
    return "The data cannot tell the two apart."


def _but(done: Comparison, index: int) -> str:
    """Whether other seeds could have given a difference of that size where there is none."""
    if not done.out_of_fold:
        return ""
    by_seeds = math.hypot(done.spreads[0].of_mean, done.spreads[index + 1].of_mean)
    if abs(done.pairs[index].difference.mean) < 2 * by_seeds:
        return (
            f", but other seeds alone change the difference by ± {2 * by_seeds:.4f}, so that it may go away with them"
        )
    return ""


def shown_p(p: float) -> str:
    """A p value as tables show it."""
    return ABSENT if math.isnan(p) else f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def tables(done: Comparison) -> Iterator[Table]:
    """What differs, and the scores, for people."""
    labels = [run.label for run in done.runs]
    for title, rows in (("experiment", done.experiments), ("environment", done.environments)):
        if rows:
            yield _differences_table(f"what differs in the {title}", labels, rows)
    yield _scores_table(done)


def _differences_table(title: str, labels: Sequence[str], rows: Rows) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("", *labels):
        table.add_column(escape(heading), overflow="fold")
    for key, values in rows.items():
        table.add_row(escape(key), *(escape(_shown(value)) for value in values))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{text[:12]}…" if HASH.fullmatch(text) else text


def _scores_table(done: Comparison) -> Table:
    table = Table(title=escape(title(done)), title_justify="left", title_style="bold")
    table.add_column("cross-validation" if done.out_of_fold else "run")
    several = len(done.pairs) > 1
    for heading in (
        "per image",
        "95 % interval",
        *(["sd of images", "sd of seeds"] if done.out_of_fold else []),
        "difference",
        "95 % interval",
        "p",
        *(["p (Holm)"] if several else []),
    ):
        table.add_column(heading, justify="right")
    for index, (run, mean) in enumerate(zip(done.runs, done.means, strict=True)):
        cells = [_number(mean.mean), _range(mean)]
        if done.out_of_fold:
            cells += [_number(done.spreads[index].between_images), _number(done.spreads[index].between_seeds)]
        if index:
            pair = done.pairs[index - 1]
            cells += [_signed(pair.difference.mean, pair.difference), _signed_range(pair.difference), shown_p(pair.p)]
            cells += [shown_p(done.adjusted[index - 1])] if several else []
        table.add_row(escape(run.label), *cells)
    return table


def title(done: Comparison) -> str:
    """Which scores are compared, on what, and what the images had to do with the weights."""
    wanted = done.wanted
    row = "" if done.class_name == "all" else f" of {done.class_name}"
    if done.out_of_fold:
        return f"{wanted.metric}{row}: {len(done.images)} images, each scored by the last weights that never saw it"
    data = f" of {wanted.data}" if wanted.data else ""
    chosen = ", selected on these images" if done.selected else ""
    images = f"{len(done.images)} images{data} ({wanted.split})"
    return f"{wanted.metric}{row}: {images}, {wanted.checkpoint} checkpoints{chosen}"


def _number(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.4f}"


def _range(found: Interval) -> str:
    return f"{_number(found.low)} – {_number(found.high)}" if found.images > 1 else ABSENT


def _signed(value: float, within: Interval) -> str:
    """A difference with as many digits as show two of its interval's width."""
    width = within.high - within.low
    digits = min(8, max(4, 1 - math.floor(math.log10(width / 2)))) if width > 0 else 4
    return ABSENT if math.isnan(value) else f"{value:+z.{digits}f}"


def _signed_range(found: Interval) -> str:
    return f"{_signed(found.low, found)} to {_signed(found.high, found)}" if found.images > 1 else ABSENT


def as_json(done: Comparison) -> dict[str, Any]:
    """All figures, for scripts; runs and the rows of differences and scores are in the same order."""
    wanted = done.wanted
    runs = zip(done.runs, done.places, done.means, strict=True)
    pairs = zip(done.runs[1:], done.pairs, done.adjusted, strict=True)
    return {
        "out_of_fold": done.out_of_fold,
        "metric": wanted.metric,
        "class": done.class_name,
        "checkpoint": wanted.checkpoint,
        "split": wanted.split,
        "data": str(wanted.data) if wanted.data else None,
        "boundary_tolerance_px": wanted.tolerance_px,
        "selected_on_these_images": done.selected,
        "runs": [
            {"path": str(run.path), "label": run.label, "scores": str(place), **_json_interval(mean)}
            for run, place, mean in runs
        ],
        "experiment": done.experiments,
        "environment": done.environments,
        "seeds": [
            {
                "seeds": one.seeds,
                "between_images": _json(one.between_images),
                "between_seeds": _json(one.between_seeds),
            }
            for one in done.spreads
        ],
        "notes": done.notes,
        "images": done.images,
        "scores": done.scores,
        "pairs": [
            {
                "one": done.runs[0].label,
                "other": run.label,
                **_json_interval(pair.difference),
                **{key: _json(p) for key, p in (("p", pair.p), ("p_holm", p_holm), ("smallest_p", pair.smallest_p))},
                "exact": pair.exact,
            }
            for run, pair, p_holm in pairs
        ],
        "findings": findings(done),
    }


def _json_interval(found: Interval) -> dict[str, Any]:
    return {"mean": _json(found.mean), "low": _json(found.low), "high": _json(found.high), "images": found.images}


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def draw(done: Comparison, output: Path) -> list[Path]:
    """Write a picture of the scores of each run beside the first: to `output`, or numbered where there are several."""
    row = "" if done.class_name == "all" else f" of {done.class_name}"
    first, *others = ([math.nan if score is None else score for score in scores] for scores in done.scores)
    written = []
    for index, other in enumerate(others, start=1):
        path = output.with_name(f"{output.stem}_{index}{output.suffix}") if len(others) > 1 else output
        labels = done.runs[0].label, done.runs[index].label
        plots.save(plots.paired(done.images, first, other, labels=labels, x_label=f"{done.wanted.metric}{row}"), path)
        written.append(path)
    return written
