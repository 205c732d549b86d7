"""Cross-validation: an experiment trained once a fold and seed, so that every image has out-of-fold predictions."""

from __future__ import annotations

import json
import math
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from yeastexp.config import trust
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data import images, tiff_file
from yeastexp.data.folds import Folds, Thumbnail, near_duplicates, read, split_into_folds, thumbnail
from yeastexp.drawing import pictures
from yeastexp.errors import UserError
from yeastexp.evaluation.measure import approximate_in, scores_cells
from yeastexp.evaluation.out_of_fold import FOLDS, PER_IMAGE, RESULT, Key, deviation, fold_folder, means
from yeastexp.metrics.intervals import interval
from yeastexp.metrics.summary import ScoreTable, as_csv, formatter, rows_of, shown
from yeastexp.prediction.predictor import load_predictor
from yeastexp.system import files, locks, processes
from yeastexp.system.console import console_into
from yeastexp.system.formatting import format_count, format_interval
from yeastexp.system.jobs import Job, side_by_side
from yeastexp.system.processes import Processes, working_together
from yeastexp.tasks.mask_cells import METHOD
from yeastexp.training import build, cautions, checkpoints, inputs
from yeastexp.training.initial_weights import refuse_unfitting
from yeastexp.training.loop import refuse_differences
from yeastexp.training.progress import Validation
from yeastexp.training.resume import is_concluded, resume
from yeastexp.training.run import run
from yeastexp.training.run_directory import RunDirectory, Which
from yeastexp.training.timing import is_timed, settled

PAIRS_NAMED = 3
"""The most pairs of near-duplicates that a note names."""

LAST: Which = "last"


@dataclass(frozen=True)
class FoldRun:
    """The run that holds out one fold with one seed, and its run directory."""

    seed: int
    fold: int
    folder: Path

    def __str__(self) -> str:
        return f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class CrossvalScores:
    """The out-of-fold scores, (seeds, images) by metric and class, beside the baselines' means.

    `bounds` are the limits of each metric's scores.
    """

    names: list[str]
    seeds: list[int]
    scores: dict[Key, np.ndarray]
    baselines: dict[str, dict[Key, float | None]]
    notes: list[str]
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)


def crossval(
    path: Path,
    settings: Sequence[str] = (),
    *,
    folds: int | Path = 5,
    repeats: int = 1,
    group_by: str | None = None,
    blocks: bool = False,
    output: Path | None = None,
    jobs: int = 1,
    console: Console,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train an experiment once a fold and seed, and score each image by checkpoints that were not trained on it.

    `folds` is a number of folds, which splits the same images alike for every experiment, or a file of folds. An
    `output` that was begun is continued. `jobs` folds are trained at a time, each in a process of its own; processes
    that torchrun or srun started share the folds. Returns the folder. Raises UserError if options contradict each
    other, or if `output` holds another cross-validation.
    """
    # Only `last` checkpoints are scored: `best` is chosen by the held-out images, which then would not be held out.
    among = processes.current()
    if jobs > 1 and among.count > 1:
        raise UserError("--jobs: torchrun or srun has started the processes; omit it")
    if isinstance(folds, Path) and (group_by or blocks):
        raise UserError(f"--folds {folds}: is a file of folds; --group-by and --blocks are for a number of folds")
    loaded = load_experiment(path, settings)
    trust.remember(loaded.plugins)
    dataset = loaded.dataset.build()
    # Images of a test split stay out of the folds: they are kept for a last score, which nothing was chosen by.
    names = [name for split, members in dataset.splits.items() if split != "test" for name in members]
    if isinstance(folds, Path):
        chosen = read(folds)
        if (odd := chosen.unlike(names)) is not None:
            raise UserError(f"--folds: '{folds}' is of other images: '{odd}' is in one of the two alone")
    else:
        groups = getattr(dataset, "groups", {})
        chosen = split_into_folds(names, folds, group_by, blocks=blocks, groups=groups)
    refuse_differences(loaded, among)
    refuse_unfitting(loaded)
    # One process claims the folder and tells the others; were each to claim, each would get a folder of its own.
    claimed = (output or files.claim_directory(Path("runs") / f"{loaded.name}_crossval")) if among.writes else Path()
    folder = among.agreed(claimed)
    folder.mkdir(parents=True, exist_ok=True)
    RunDirectory(folder).refuse_links()
    with locks.held(folder) if among.writes else nullcontext():
        notes: list[str] = []
        if among.writes:
            _begin(folder, loaded, chosen)
            thumbnails = {name: thumbnail(dataset.read(name).image) for name in names}
            notes += [*_leaks(loaded, dataset, thumbnails), *_duplicates(thumbnails, chosen)]
        for note in notes:
            say(note)
        fold_runs = list(_fold_runs(folder, loaded, chosen, repeats))
        _refuse_other_inputs(fold_runs, loaded)
        training = _Training(path, tuple(settings), folder, tuple(loaded.plugins))
        # Threads and precision are settled once for all folds: they change the last bits of a result, and what is
        # fastest could differ from fold to fold.
        alike = among.agreed(_alike(training, fold_runs, loaded, max(jobs, among.on_machine)))
        training = replace(training, settings=(*settings, *alike))
        if among.count > 1:
            # Within, each process counts as alone: a fold is trained by one process, not by all of them together.
            with among.apart(training.remedy), working_together(Processes(on_machine=among.on_machine)):
                for fold_run in fold_runs[among.rank :: among.count]:
                    training(fold_run, console, say)
        elif jobs > 1:
            _in_processes(training, fold_runs, jobs, say)
        else:
            for fold_run in fold_runs:
                training(fold_run, console, say)
        if not among.writes:
            return folder
        scores = _scores(fold_runs, names, notes)
        result = _write(folder, scores, loaded)
    console.print(table(result))
    return folder


def _begin(folder: Path, loaded: Experiment, chosen: Folds) -> None:
    """Write the folds, the experiment and its plugins. Raises UserError if the folder was begun with others."""
    split, resolved = folder / FOLDS, RunDirectory(folder).experiment
    if split.exists() and read(split) != chosen:
        raise UserError(f"{split}: holds other folds; name another output")
    # An earlier version may have had fewer keys, whose defaults are those of this one: reading the file adds them.
    same = not resolved.exists() or resolved.read_text(encoding="utf-8") == loaded.resolved()
    if not same and RunDirectory(folder).load(data=False).resolved() != loaded.resolved():
        raise UserError(f"{resolved}: is of another experiment; name another output")
    # Of the two files the experiment is written last. If it is there, or a run is, a missing file was removed: to write
    # it anew could mix folds of two splits. Otherwise the command was killed in between, and starts once more.
    missing = [path for path in (split, resolved) if not path.exists()]
    if missing and (resolved.exists() or any(RunDirectory(path).is_run for path in folder.glob("seed_*"))):
        raise UserError(f"{missing[0]}: is missing; bring it back, or name another output")
    if missing:
        chosen.write(split)
        RunDirectory(folder).copy_plugins(loaded.plugins)
        files.write_text(resolved, loaded.resolved())


def _refuse_other_inputs(fold_runs: Sequence[FoldRun], loaded: Experiment) -> None:
    """Raises UserError if a run that was begun read other files than the next one would."""
    # Files of folds are not compared: the folder's own, which all runs read, was compared in `_begin`.
    listed, kinds = inputs.inputs_of(loaded), [kind for kind in inputs.HOLDS if kind != "folds"]
    for directory in (RunDirectory(fold_run.folder) for fold_run in fold_runs):
        if directory.is_run and (changed := inputs.changed(directory.read_environment(), listed, kinds)):
            raise UserError(f"{directory}: {changed[0]}; bring back what it was begun with, or name another output")


def _leaks(loaded: Experiment, dataset: Any, thumbnails: Mapping[str, Thumbnail]) -> list[str]:
    """Notes on how the held-out images influence their own scores."""
    notes = [*cautions.of_initial_weights(loaded, thumbnails)]
    if loaded.validation.patience:
        notes.append(
            "[validation] patience chooses the last step by the held-out images: their scores are optimistically biased"
        )
    if dataset.normalization and dataset.normalization.get("fit") != "none":
        notes.append("the data are stored normalised: the held-out images contributed to its statistics")
    return notes


def _duplicates(thumbnails: Mapping[str, Thumbnail], chosen: Folds) -> list[str]:
    """A note on images that nearly equal one of another fold, if there are any."""
    pairs = near_duplicates(thumbnails, chosen)
    if not pairs:
        return []
    closest = sorted(pairs, key=lambda pair: -pair[2])[:PAIRS_NAMED]
    named = [f"'{one}' and '{other}' (correlation {r:.3f})" for one, other, r in closest]
    more = f" and {len(pairs) - PAIRS_NAMED} more" if len(pairs) > PAIRS_NAMED else ""
    remedy = "" if chosen.blocks or chosen.group_by else "; --group-by or --blocks keeps such images together"
    return [
        "images in different folds are near-duplicates, so that scores are optimistically biased: "
        f"{', '.join(named)}{more}{remedy}"
    ]


def _fold_runs(folder: Path, loaded: Experiment, chosen: Folds, repeats: int) -> Iterator[FoldRun]:
    for seed in range(loaded.train.seed, loaded.train.seed + repeats):
        for fold in range(1, len(chosen.folds) + 1):
            yield FoldRun(seed, fold, fold_folder(folder, seed, fold))


def _alike(training: _Training, fold_runs: Sequence[FoldRun], loaded: Experiment, at_once: int) -> list[str]:
    """Settings of the threads and the precision of all folds: those of a run that was begun, else the fastest ones."""
    begun = next((run for run in (RunDirectory(each.folder) for each in fold_runs) if run.is_run), None)
    if begun is not None:
        tables = tomllib.loads(begun.experiment.read_text(encoding="utf-8"))
        return [f"runtime.threads={tables['runtime']['threads']}", f"train.precision={tables['train']['precision']}"]
    if not is_timed(loaded):
        return []
    chosen = settled(load_experiment(training.path, training.options(fold_runs[0])), at_once)
    return [f"runtime.threads={chosen.runtime.threads}", f"train.precision={chosen.train.precision}"]


@dataclass(frozen=True)
class _Training:
    """Trains a fold of an experiment and predicts its held-out images; picklable, for processes of `--jobs`."""

    path: Path
    settings: tuple[str, ...]
    folder: Path
    plugins: tuple[Path, ...]

    @property
    def remedy(self) -> str:
        return f"the same command with -o {self.folder} continues it"

    def unfinished(self, fold_run: FoldRun) -> str:
        """The message on a fold that was not trained to its end."""
        return f"{self.folder}: {fold_run} is not finished; {self.remedy}"

    def __call__(self, fold_run: FoldRun, console: Console, say: Callable[[str], None]) -> None:
        """Run or resume the training of a fold unless it is finished, then predict its images."""
        if fold_run.folder.is_symlink():
            raise UserError(f"{fold_run.folder}: is a symbolic link; put the run that it leads to in its place")
        trust.remember(self.plugins)
        if not is_concluded(RunDirectory(fold_run.folder)):
            say(f"{fold_run}: {fold_run.folder}")
            try:
                self._train(fold_run, console)
            except UserError as error:
                raise UserError(*error.faults, self.unfinished(fold_run), status=error.status) from error
        _predict(fold_run)

    def _train(self, fold_run: FoldRun, console: Console) -> None:
        if RunDirectory(fold_run.folder).is_run:
            resume(fold_run.folder, console=console)
            return
        fold_run.folder.mkdir(exist_ok=True)
        run(self.path, self.options(fold_run), started=time.monotonic(), console=console, folder=fold_run.folder)

    def options(self, fold_run: FoldRun) -> list[str]:
        """The `--set` options of a fold's run."""
        changes = {
            "validation.folds": str((self.folder / FOLDS).resolve()),
            "validation.fold": fold_run.fold,
            "train.seed": fold_run.seed,
        }
        return [*self.settings, *(f"{key}={json.dumps(value)}" for key, value in changes.items())]


def _in_processes(training: _Training, fold_runs: Sequence[FoldRun], count: int, say: Callable[[str], None]) -> None:
    """Train `count` folds at a time, each in a process of its own."""
    # Finished folds are left out here, though training one is a no-op: starting a process takes seconds.
    jobs = [
        Job(str(fold_run), partial(_train_alone, training, fold_run), training.unfinished(fold_run))
        for fold_run in fold_runs
        if not is_concluded(RunDirectory(fold_run.folder)) or _unpredicted(fold_run)
    ]
    side_by_side(jobs, count, f"{training.folder}: interrupted; {training.remedy}", say)


def _train_alone(training: _Training, fold_run: FoldRun, columns: int) -> None:
    training(fold_run, console_into(sys.stdout, columns), lambda line: None)


def _scores(fold_runs: Sequence[FoldRun], names: Sequence[str], notes: list[str]) -> CrossvalScores:
    """Gather the held-out scores of all runs."""
    # By name, not in the order of folds: tables and rounding must not depend on how the images were split.
    ordered, seeds = sorted(names), sorted({fold_run.seed for fold_run in fold_runs})
    scores: dict[Key, np.ndarray] = {}
    bounds: dict[str, tuple[float, float]] = {}
    for fold_run in fold_runs:
        classes = RunDirectory(fold_run.folder).load(data=False).task.classes
        validation = _last_validation(fold_run.folder)
        columns = [ordered.index(image) for image in validation.losses]
        for metric, of_metric in validation.scores.items():
            bounds[metric] = of_metric.bounds
            for name, values in rows_of(of_metric, classes).items():
                table = scores.setdefault((metric, name), np.full((len(seeds), len(ordered)), np.nan))
                table[seeds.index(fold_run.seed), columns] = values
    first_seed = [fold_run for fold_run in fold_runs if fold_run.seed == seeds[0]]
    return CrossvalScores(ordered, seeds, scores, _baselines(first_seed), notes, bounds)


def _last_validation(folder: Path) -> Validation:
    # From the checkpoint, as the run's own table of images has the scores of its `best` one, chosen by these images.
    state = checkpoints.load(RunDirectory(folder).checkpoint("last"))
    validation = Validation.of(state["validations"]["last"])
    assert validation is not None, "the last step always validates"
    return validation


def _unpredicted(fold_run: FoldRun) -> list[str]:
    """The held-out images that lack a file of predictions: of classes, or of ids if cells are scored."""
    directory = RunDirectory(fold_run.folder)
    loaded = directory.load()
    kinds = [directory.prediction, *([directory.cells] if scores_cells(loaded) else [])]
    names = build.build_dataset(loaded).splits["val"]
    return [name for name in names if not all(path(name).exists() for path in kinds)]


def _predict(fold_run: FoldRun) -> None:
    """Write the predictions of the last checkpoint on the held-out images that lack them."""
    # This is checked image by image, as a run that has ended may have been interrupted while it was predicted.
    directory = RunDirectory(fold_run.folder)
    directory.refuse_links()
    if not (names := _unpredicted(fold_run)):
        return
    predictor = load_predictor(fold_run.folder, LAST)
    dataset, with_cells = build.build_dataset(predictor.experiment), scores_cells(predictor.experiment)
    for name in names:
        sample = dataset.read(name)
        prediction = predictor.predict(sample)
        palette = pictures.palette(len(predictor.classes))
        images.write_png(directory.prediction(name), prediction.labels.cpu().numpy().astype(np.uint8), palette)
        if with_cells:
            ids = prediction.asked({"instances"})["instances"].cpu().numpy()
            tiff_file.write(directory.cells(name), ids.astype(np.min_scalar_type(max(256, ids.max()))), sample.pixel_um)


def _baselines(fold_runs: Sequence[FoldRun]) -> dict[str, dict[Key, float | None]]:
    """The baselines' mean scores over the images of all folds; baselines do not depend on the seed."""
    of_folds = [RunDirectory(fold_run.folder).read_result()["baselines"] for fold_run in fold_runs]
    # A short budget may have had no time for the initial weights in some folds.
    in_all = [name for name in of_folds[0] if all(name in of_fold for of_fold in of_folds)]
    # Folds may differ in size: their means are weighted by the numbers of images that have a score.
    sums: dict[str, dict[Key, list[float]]] = {}
    for of_fold in of_folds:
        for baseline in in_all:
            for metric, by_class in of_fold[baseline].items():
                for name, row in by_class.items():
                    total = sums.setdefault(baseline, {}).setdefault((metric, name), [0.0, 0.0])
                    total[0] += (row["per_image"] or 0.0) * row["images"]
                    total[1] += row["images"]
    return {
        baseline: {key: total / count if count else None for key, (total, count) in by_key.items()}
        for baseline, by_key in sums.items()
    }


def summarise(scores: CrossvalScores) -> dict[str, dict[str, dict[str, Any]]]:
    """By metric and class: the mean of the images' scores with its interval, and the spreads of images and of seeds.

    Each image counts once, by its mean over seeds: its scores with several seeds are not independent, so that counting
    each would make the interval too narrow. `between_images` is the standard deviation of the images' means over seeds,
    `between_seeds` that of the seeds' means over images.
    """
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for (metric, name), table in scores.scores.items():
        by_image, by_seed = means(table, 0), means(table, 1)
        mean = interval(by_image, scores.bounds.get(metric, (-math.inf, math.inf)))
        numbers = {
            "per_image": mean.mean,
            "low": mean.low,
            "high": mean.high,
            "between_images": deviation(by_image),
            "between_seeds": deviation(by_seed),
        }
        entry: dict[str, Any] = {key: None if math.isnan(value) else value for key, value in numbers.items()}
        baselines = {baseline: by_key[metric, name] for baseline, by_key in scores.baselines.items()}
        summary.setdefault(metric, {})[name] = {**entry, "images": mean.images, "baselines": baselines}
    return summary


def _write(folder: Path, scores: CrossvalScores, loaded: Experiment) -> dict[str, Any]:
    """Write the scores of every image, then the result, which is returned."""
    # The result is written last: its file says that the cross-validation is finished.
    rows = [
        {"image": image, "seed": seed, "metric": metric, "class": name, "score": float(table[i, j])}
        for (metric, name), table in scores.scores.items()
        for i, seed in enumerate(scores.seeds)
        for j, image in enumerate(scores.names)
    ]
    files.write_text(folder / PER_IMAGE, as_csv(rows))
    result = {
        "name": loaded.name,
        "images": scores.names,
        "seeds": scores.seeds,
        "checkpoint": LAST,
        "notes": scores.notes,
        "approximate": list(approximate_in(loaded)),
        "scores": summarise(scores),
    }
    files.write_text(folder / RESULT, json.dumps(result, indent=1))
    return result


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result: scores with intervals, the spreads between images and between seeds, and the baselines."""
    seeds, approximate = format_count(len(result["seeds"]), "seed"), result.get("approximate", ())
    title = f"{len(result['images'])} images, out-of-fold predictions of the last checkpoints; {seeds}"
    title += f", cells {METHOD}" if approximate else ""
    rows = [row for by_class in result["scores"].values() for row in by_class.values()]
    baselines = list(dict.fromkeys(baseline for row in rows for baseline in row["baselines"]))
    headings = ("per image", "95 % interval", "sd of images", "sd of seeds", *baselines)
    table = ScoreTable(title, ("metric", "class"), headings)
    for metric, by_class in result["scores"].items():
        for name, row in by_class.items():
            form = formatter(metric, name)
            spreads = [form(row[key]) for key in ("between_images", "between_seeds")]
            others = [form(row["baselines"].get(baseline)) for baseline in baselines]
            mean, ends = form(row["per_image"]), format_interval(row["low"], row["high"], form)
            table.add_row(shown(metric, approximate), escape(name), mean, ends, *spreads, *others)
        table.add_section()
    return table
