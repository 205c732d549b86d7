"""The files of a cross-validation: its folds, and every image's scores from weights that were not trained on it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yeastexp.data import folds
from yeastexp.data.folds import Folds
from yeastexp.errors import UserError

FOLDS, RESULT, PER_IMAGE = "folds.json", "crossval.json", "per_image.csv"

Key = tuple[str, str]
"""Metric and class."""


@dataclass(frozen=True)
class OutOfFold:
    """The score of every image by metric, class and seed (rows: seeds, columns: images), NaN if it has none."""

    folder: Path
    folds: Folds
    names: list[str]
    seeds: list[int]
    scores: dict[Key, np.ndarray]
    notes: list[str]


def fold_folder(folder: Path, seed: int, fold: int) -> Path:
    """The run directory of one fold, counted from 1, held out with one seed."""
    return folder / f"seed_{seed}_fold_{fold}"


def is_crossval(folder: Path) -> bool:
    """Whether a folder is of a cross-validation, finished or not."""
    return (folder / FOLDS).is_file()


def read(folder: Path) -> OutOfFold:
    """The scores of a finished cross-validation. Raises UserError if it is not finished, or damaged."""
    if not (folder / RESULT).is_file():
        raise UserError(f"{folder}: is not finished; the same 'crossval' command with -o {folder} continues it")
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        names, seeds = [str(name) for name in result["images"]], [int(seed) for seed in result["seeds"]]
        scores: dict[Key, np.ndarray] = {}
        columns = {name: index for index, name in enumerate(names)}
        rows = {str(seed): index for index, seed in enumerate(seeds)}
        with (folder / PER_IMAGE).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                table = scores.setdefault((row["metric"], row["class"]), np.full((len(seeds), len(names)), np.nan))
                table[rows[row["seed"]], columns[row["image"]]] = float(row["score"] or "nan")
        notes = [str(note) for note in result["notes"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}: its scores cannot be read ({type(error).__name__}: {error}); run the same 'crossval' command "
            f"with -o {folder} again"
        ) from None
    return OutOfFold(folder, folds.read(folder / FOLDS), names, seeds, scores, notes)


def means(table: np.ndarray, axis: int) -> list[float]:
    """Means along an axis (0: over seeds, 1: over images) of the values that are not NaN."""
    rows = table.T if axis == 0 else table
    return [float(np.mean(row[~np.isnan(row)])) if not np.isnan(row).all() else math.nan for row in rows]


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of the values that are not NaN; NaN of fewer than two."""
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan
