"""An experiment on every fold of its images, so that each has out-of-fold predictions."""

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
from yeastexp.data.folds import Folds, near_duplicates, read, split_into_folds, thumbnail
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
from yeastexp.training import build, checkpoints, inputs
from yeastexp.training.loop import refuse_differences
from yeastexp.training.progress import Validation
from yeastexp.training.resume import is_concluded, resume
from yeastexp.training.run import run
from yeastexp.training.run_directory import RunDirectory, Which
from yeastexp.training.timing import is_timed, settled

PAIRS_NAMED = 3
"""Pairs of near-duplicates that a note names."""

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
    """The out-of-fold score of every image by metric, class and seed (rows: seeds, columns: images).

    `bounds` are those of each metric.
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
    """Train an experiment once a fold and seed; score each image by the `last` checkpoint that was not trained on it.

    The images are split into a number of folds, the same for every experiment on the same images, or as a file of
    folds says. An `output` that was begun is continued. So many `jobs` at a time are processes of their own; those that
    a launcher started take each their share of the folds.
    """
    among = processes.current()
    if jobs > 1 and among.count > 1:
        raise UserError("--jobs: torchrun or srun has started the processes; omit it")
    if isinstance(folds, Path) and (group_by or blocks):
        raise UserError(f"--folds {folds}: is a file of folds; --group-by and --blocks are for a number of folds")
    loaded = load_experiment(path, settings)
    trust.remember(loaded.plugins)
    dataset = loaded.dataset.build()
    names = [name for split, members in dataset.splits.items() if split != "test" for name in members]
    if isinstance(folds, Path):
        chosen = read(folds)
    else:
        groups = getattr(dataset, "groups", {})
        chosen = split_into_folds(names, folds, group_by, blocks=blocks, groups=groups)
    refuse_differences(loaded, among)
    claimed = (output or files.claim_directory(Path("runs") / f"{loaded.name}_crossval")) if among.writes else Path()
    folder = among.agreed(claimed)
    folder.mkdir(parents=True, exist_ok=True)
    RunDirectory(folder).refuse_links()
    with locks.held(folder) if among.writes else nullcontext():
        notes: list[str] = []
        if among.writes:
            _begin(folder, loaded, chosen)
            notes += [*_leaks(loaded, dataset), *_duplicates(dataset, chosen)]
        for note in notes:
            say(note)
        fold_runs = list(_fold_runs(folder, loaded, chosen, repeats))
        _refuse_other_inputs(fold_runs, loaded)
        training = _Training(path, tuple(settings), folder, tuple(loaded.plugins))
        alike = among.agreed(_alike(training, fold_runs, loaded, max(jobs, among.on_machine)))
        training = replace(training, settings=(*settings, *alike))
        if among.count > 1:
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
    """Write what all runs share. Raises UserError if the folder was begun with something else."""
    split, resolved = folder / FOLDS, RunDirectory(folder).experiment
    if split.exists() and read(split) != chosen:
        raise UserError(f"{split}: holds other folds; name another output")
    if resolved.exists() and resolved.read_text(encoding="utf-8") != loaded.resolved():
        raise UserError(f"{resolved}: is of another experiment; name another output")
    missing = [path for path in (split, resolved) if not path.exists()]
    if missing and (resolved.exists() or any(RunDirectory(path).is_run for path in folder.glob("seed_*"))):
        raise UserError(f"{missing[0]}: is missing; bring it back, or name another output")
    if missing:
        chosen.write(split)
        RunDirectory(folder).copy_plugins(loaded.plugins)
        files.write_text(resolved, loaded.resolved())


def _refuse_other_inputs(fold_runs: Sequence[FoldRun], loaded: Experiment) -> None:
    """Raises UserError if a run that was begun read other files than the next one would."""
    listed, kinds = inputs.inputs_of(loaded), [kind for kind in inputs.HOLDS if kind != "folds"]
    for directory in (RunDirectory(fold_run.folder) for fold_run in fold_runs):
        if directory.is_run and (changed := inputs.changed(directory.read_environment(), listed, kinds)):
            raise UserError(f"{directory}: {changed[0]}; bring back what it was begun with, or name another output")


def _leaks(loaded: Experiment, dataset: Any) -> list[str]:
    """How the held-out images influence their own scores."""
    notes = []
    if loaded.validation.patience:
        notes.append(
            "[validation] patience chooses the last step by the held-out images: their scores are optimistically biased"
        )
    if dataset.normalization and dataset.normalization.get("fit") != "none":
        notes.append("the data are stored normalised: the held-out images contributed to its statistics")
    return notes


def _duplicates(dataset: Any, chosen: Folds) -> list[str]:
    names = [name for fold in chosen.folds for name in fold]
    pairs = near_duplicates({name: thumbnail(dataset.read(name).image) for name in names}, chosen)
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
    """The number of threads and the precision of all folds: of one that was begun, or what is fastest now."""
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
    """What trains a fold of an experiment, and predicts its images; it can be pickled."""

    path: Path
    settings: tuple[str, ...]
    folder: Path
    plugins: tuple[Path, ...]

    @property
    def remedy(self) -> str:
        return f"the same command with -o {self.folder} continues it"

    def unfinished(self, fold_run: FoldRun) -> str:
        """What to say of a fold that was not trained to its end."""
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
        """The settings of a fold."""
        changes = {
            "validation.folds": str((self.folder / FOLDS).resolve()),
            "validation.fold": fold_run.fold,
            "train.seed": fold_run.seed,
        }
        return [*self.settings, *(f"{key}={json.dumps(value)}" for key, value in changes.items())]


def _in_processes(training: _Training, fold_runs: Sequence[FoldRun], count: int, say: Callable[[str], None]) -> None:
    """Train so many folds at a time, each in a process of its own."""
    jobs = [
        Job(str(fold_run), partial(_train_alone, training, fold_run), training.unfinished(fold_run))
        for fold_run in fold_runs
        if not is_concluded(RunDirectory(fold_run.folder)) or _unpredicted(fold_run)
    ]
    side_by_side(jobs, count, f"{training.folder}: interrupted; {training.remedy}", say)


def _train_alone(training: _Training, fold_run: FoldRun, columns: int) -> None:
    training(fold_run, console_into(sys.stdout, columns), lambda line: None)


def _scores(fold_runs: Sequence[FoldRun], names: Sequence[str], notes: list[str]) -> CrossvalScores:
    """Put the held-out scores of all runs together."""
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
    state = checkpoints.load(RunDirectory(folder).checkpoint("last"))
    validation = Validation.of(state["validations"]["last"])
    assert validation is not None, "the last step always validates"
    return validation


def _unpredicted(fold_run: FoldRun) -> list[str]:
    """The held-out images whose predictions are not there: classes, and ids if cells are scored."""
    directory = RunDirectory(fold_run.folder)
    loaded = directory.load()
    kinds = [directory.prediction, *([directory.cells] if scores_cells(loaded) else [])]
    names = build.build_dataset(loaded).splits["val"]
    return [name for name in names if not all(path(name).exists() for path in kinds)]


def _predict(fold_run: FoldRun) -> None:
    """Write the predictions of the last checkpoint on the held-out images that lack them."""
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
    """The mean scores over images of the baselines of each fold, which do not depend on the seed."""
    sums: dict[str, dict[Key, list[float]]] = {}
    for fold_run in fold_runs:
        result = RunDirectory(fold_run.folder).read_result()
        for baseline, summary in result["baselines"].items():
            for metric, by_class in summary.items():
                for name, row in by_class.items():
                    total = sums.setdefault(baseline, {}).setdefault((metric, name), [0.0, 0.0])
                    total[0] += (row["per_image"] or 0.0) * row["images"]
                    total[1] += row["images"]
    return {
        baseline: {key: total / count if count else None for key, (total, count) in by_key.items()}
        for baseline, by_key in sums.items()
    }


def summarise(scores: CrossvalScores) -> dict[str, dict[str, dict[str, Any]]]:
    """By metric and class: the mean over images of their mean over seeds with its interval, and both spreads.

    `between_images` is the standard deviation of the images' means, `between_seeds` that of the seeds' means.
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
    """Write the result and the score of every image; the result."""
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
    """The scores of a result with intervals, the spread between images beside that between seeds, and the baselines."""
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
