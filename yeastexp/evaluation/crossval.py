"""An experiment on every fold of its images, so that each is scored by weights that never saw it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data import folds, images
from yeastexp.data.folds import Folds
from yeastexp.errors import UserError
from yeastexp.evaluation.out_of_fold import FOLDS, PER_IMAGE, RESULT, Key, deviation, means, turn_folder
from yeastexp.metrics.intervals import interval
from yeastexp.metrics.pixels import most_likely
from yeastexp.metrics.summary import as_csv, rows_of
from yeastexp.prediction.predictor import Which, load_predictor
from yeastexp.system import files, locks
from yeastexp.system.formatting import format_interval, format_score
from yeastexp.training import build, checkpoints, run_directory
from yeastexp.training.progress import Validation
from yeastexp.training.resume import resume
from yeastexp.training.run import run

PREDICTIONS = "predictions"

NAMED = 3
"""Pairs of look-alikes that a note names."""
LAST: Which = "last"


@dataclass(frozen=True)
class Turn:
    """One fold held out with one seed, and the run directory of it."""

    seed: int
    fold: int
    folder: Path


@dataclass(frozen=True)
class Scored:
    """The score of every image by metric, class and seed (rows: seeds, columns: images), from weights without it."""

    names: list[str]
    seeds: list[int]
    scores: dict[Key, np.ndarray]
    baselines: dict[str, dict[Key, float | None]]
    notes: list[str]
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of each metric, beyond which no mean lies."""


def crossval(
    path: Path,
    settings: Sequence[str] = (),
    *,
    dealt: int | Path = 5,
    repeats: int = 1,
    group_by: str | None = None,
    blocks: bool = False,
    output: Path | None = None,
    console: Console,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train an experiment once a fold and seed, score every image by the `last` weights that never saw it.

    The folds are dealt anew (a number, the same for every experiment on the same images) or those of a file. An
    `output` that was begun goes on where it was.
    """
    if isinstance(dealt, Path) and (group_by or blocks):
        raise UserError(f"--folds {dealt}: is a file of folds; --group-by and --blocks deal new ones")
    loaded = load_experiment(path, settings)
    dataset = loaded.dataset.build()
    names = [name for split, some in dataset.splits.items() if split != "test" for name in some]
    chosen = folds.read(dealt) if isinstance(dealt, Path) else folds.deal(names, dealt, group_by, blocks=blocks)
    folder = output or files.claim_directory(Path("runs") / f"{loaded.name}_crossval")
    folder.mkdir(parents=True, exist_ok=True)
    with locks.held(folder):
        _begin(folder, loaded, chosen)
        notes = [*_leaks(loaded, dataset), *_alike(dataset, chosen)]
        for note in notes:
            say(note)
        turns = list(_turns(folder, loaded, chosen, repeats))
        for turn in turns:
            _train(path, settings, turn, folder, console, say)
        found = _scored(turns, names, notes, chosen)
        _write(folder, found, loaded)
    console.print(table(found))
    return folder


def _begin(folder: Path, loaded: Experiment, chosen: Folds) -> None:
    """Write what all turns share; UserError where the folder was begun with something else."""
    resolved, fresh = folder / run_directory.EXPERIMENT, not (folder / FOLDS).exists()
    if fresh:
        chosen.write(folder / FOLDS)
        files.write_text(resolved, loaded.resolved())
    elif folds.read(folder / FOLDS) != chosen:
        raise UserError(f"{folder / FOLDS}: holds other folds; name another output")
    elif resolved.read_text(encoding="utf-8") != loaded.resolved():
        raise UserError(f"{resolved}: is of another experiment; name another output")


def _leaks(loaded: Experiment, dataset: Any) -> list[str]:
    """By which ways the images held out have a say in their own scores."""
    found = []
    if loaded.validation.patience:
        found.append(
            "[validation] patience chooses the last step by the held-out images: their scores are optimistically biased"
        )
    if dataset.normalization and dataset.normalization.get("fit") != "none":
        found.append("the data are stored normalised: the images held out had a say in the figures")
    return found


def _alike(dataset: Any, chosen: Folds) -> list[str]:
    names = [name for some in chosen.folds for name in some]
    pairs = folds.near_duplicates({name: folds.thumbnail(dataset.read(name).image) for name in names}, chosen)
    if not pairs:
        return []
    closest = sorted(pairs, key=lambda pair: -pair[2])[:NAMED]
    shown = [f"'{one}' and '{other}' (correlation {r:.3f})" for one, other, r in closest]
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    remedy = "" if chosen.blocks or chosen.group_by else "; --group-by or --blocks keeps such images together"
    return [f"images in different folds look alike, so that scores flatter: {', '.join(shown)}{more}{remedy}"]


def _turns(folder: Path, loaded: Experiment, chosen: Folds, repeats: int) -> Iterator[Turn]:
    for seed in range(loaded.train.seed, loaded.train.seed + repeats):
        for fold in range(1, len(chosen.folds) + 1):
            yield Turn(seed, fold, turn_folder(folder, seed, fold))


def _train(
    path: Path, settings: Sequence[str], turn: Turn, folder: Path, console: Console, say: Callable[[str], None]
) -> None:
    """Let a turn's run be finished: begun, taken up again, or left as it is."""
    if (turn.folder / run_directory.RESULT).is_file():
        return
    say(f"seed {turn.seed}, fold {turn.fold}: {turn.folder}")
    own = {"validation.folds": str((folder / FOLDS).resolve()), "validation.fold": turn.fold, "train.seed": turn.seed}
    changes = [f"{key}={json.dumps(value)}" for key, value in own.items()]
    try:
        if (turn.folder / run_directory.EXPERIMENT).is_file():
            resume(turn.folder, console=console)
        else:
            turn.folder.mkdir(exist_ok=True)
            run(path, [*settings, *changes], started=time.monotonic(), console=console, folder=turn.folder)
    except UserError as error:
        remedy = f"the same command with -o {folder} goes on from there"
        raise UserError(
            *error.faults, f"{folder}: seed {turn.seed}, fold {turn.fold} is not done; {remedy}", status=error.status
        ) from error


def _scored(turns: Sequence[Turn], names: Sequence[str], notes: list[str], chosen: Folds) -> Scored:
    """Put the held-out scores of all turns together, and write the held-out predictions."""
    ordered, seeds = sorted(names), sorted({turn.seed for turn in turns})
    scores: dict[Key, np.ndarray] = {}
    bounds: dict[str, tuple[float, float]] = {}
    for turn in turns:
        classes = load_experiment(turn.folder / run_directory.EXPERIMENT, data=False).task.classes
        validation = _last(turn.folder)
        for metric, found in validation.scores.items():
            bounds[metric] = found.bounds
            for name, values in rows_of(found, classes).items():
                table = scores.setdefault((metric, name), np.full((len(seeds), len(ordered)), np.nan))
                columns = [ordered.index(image) for image in validation.losses]
                table[seeds.index(turn.seed), columns] = values
        _predict(turn)
    return Scored(ordered, seeds, scores, _baselines(turns, seeds[0], chosen), notes, bounds)


def _last(folder: Path) -> Validation:
    state = checkpoints.load(folder / checkpoints.FOLDER / checkpoints.LAST)
    found = Validation.of(state["validations"]["last"])
    assert found is not None, "the last step always validates"
    return found


def _predict(turn: Turn) -> None:
    """Write what the last weights say of the images held out, as class indices."""
    predictor = load_predictor(turn.folder, LAST)
    dataset = build.build_dataset(predictor.experiment)
    for name in dataset.splits["val"]:
        target = turn.folder / PREDICTIONS / f"{name}.png"
        if not target.exists():
            logits = predictor.logits(dataset.read(name))
            images.write_png(target, most_likely(logits).cpu().numpy().astype(np.uint8))


def _baselines(turns: Sequence[Turn], seed: int, chosen: Folds) -> dict[str, dict[Key, float | None]]:
    """What answers without learning get on average, fitted on the training images of each fold; no seed matters."""
    sums: dict[str, dict[Key, list[float]]] = {}
    for turn in turns:
        if turn.seed != seed:
            continue
        result = json.loads((turn.folder / run_directory.RESULT).read_text(encoding="utf-8"))
        for baseline, summary in result["baselines"].items():
            for metric, by_class in summary.items():
                for name, row in by_class.items():
                    both = sums.setdefault(baseline, {}).setdefault((metric, name), [0.0, 0.0])
                    both[0] += (row["per_image"] or 0.0) * row["images"]
                    both[1] += row["images"]
    return {
        baseline: {key: total / count if count else None for key, (total, count) in found.items()}
        for baseline, found in sums.items()
    }


def figures(found: Scored) -> dict[str, dict[str, dict[str, Any]]]:
    """By metric and class: the mean over images of their mean over seeds with its interval, and both spreads.

    `between_images` is the standard deviation of the images' means, `between_seeds` that of the seeds' means.
    """
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for (metric, name), table in found.scores.items():
        by_image, by_seed = means(table, 0), means(table, 1)
        over = interval(by_image, found.bounds.get(metric, (-math.inf, math.inf)))
        numbers = {
            "per_image": over.mean,
            "low": over.low,
            "high": over.high,
            "between_images": deviation(by_image),
            "between_seeds": deviation(by_seed),
        }
        entry: dict[str, Any] = {key: None if math.isnan(one) else one for key, one in numbers.items()}
        baselines = {baseline: by_key[metric, name] for baseline, by_key in found.baselines.items()}
        summary.setdefault(metric, {})[name] = {**entry, "images": over.images, "baselines": baselines}
    return summary


def _write(folder: Path, found: Scored, loaded: Experiment) -> None:
    rows = [
        {"image": image, "seed": seed, "metric": metric, "class": name, "score": float(table[i, j])}
        for (metric, name), table in found.scores.items()
        for i, seed in enumerate(found.seeds)
        for j, image in enumerate(found.names)
    ]
    files.write_text(folder / PER_IMAGE, as_csv(rows))
    written = {
        "name": loaded.name,
        "images": found.names,
        "seeds": found.seeds,
        "checkpoint": LAST,
        "notes": found.notes,
        "scores": figures(found),
    }
    files.write_text(folder / RESULT, json.dumps(written, indent=1))


def table(found: Scored) -> Table:
    """Scores with intervals, the spread between images beside that between seeds, and the baselines."""
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    title = f"{len(found.names)} images, each scored by the last weights that never saw it; {seeds}"
    made = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("metric", "class"):
        made.add_column(heading)
    for heading in ("per image", "95 % interval", "sd of images", "sd of seeds", *found.baselines):
        made.add_column(heading, justify="right")
    for metric, by_class in figures(found).items():
        for name, row in by_class.items():
            spread = format_interval(row["low"], row["high"])
            spreads = [format_score(row[key]) for key in ("between_images", "between_seeds")]
            beside = [format_score(row["baselines"][baseline]) for baseline in found.baselines]
            made.add_row(metric, name, format_score(row["per_image"]), spread, *spreads, *beside)
        made.add_section()
    return made
