"""The files of a cross-validation: its folds, and the out-of-fold scores of every image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from yeastexp.data import folds
from yeastexp.data.folds import Folds
from yeastexp.errors import UserError
from yeastexp.system import records
from yeastexp.system.formatting import format_count

FOLDS, RESULT, PER_IMAGE = "folds.json", "crossval.json", "per_image.csv"

Key = tuple[str, str]
"""Metric and class."""


@dataclass(frozen=True)
class OutOfFold:
    """The out-of-fold scores of a cross-validation, (seeds, images) by metric and class; NaN where there is none."""

    folder: Path
    folds: Folds
    names: list[str]
    seeds: list[int]
    scores: dict[Key, np.ndarray]
    notes: list[str]


def fold_folder(folder: Path, seed: int, fold: int) -> Path:
    """The run directory of one seed that holds out one fold, counted from 1."""
    return folder / f"seed_{seed}_fold_{fold}"


def is_crossval(folder: Path) -> bool:
    """Whether a folder holds a cross-validation, finished or not."""
    return (folder / FOLDS).is_file()


class _Score(TypedDict):
    per_image: float | None
    low: float | None
    high: float | None
    between_images: float | None
    between_seeds: float | None
    images: int
    baselines: dict[str, float | None]


class _Result(TypedDict):
    images: list[str]
    seeds: list[int]
    notes: list[str]
    scores: dict[str, dict[str, _Score]]


_RESULT = TypeAdapter(_Result)


def read_result(folder: Path) -> dict[str, Any]:
    """The content of a cross-validation's result file. Raises UserError if it is damaged."""
    return records.read_json(folder / RESULT, _RESULT, _written_anew(folder))


def _written_anew(folder: Path) -> str:
    return f"the same 'crossval' command with -o {folder} writes it anew"


def read(folder: Path) -> OutOfFold:
    """The scores of a finished cross-validation. Raises UserError if it is not finished, or damaged."""
    if not (folder / RESULT).is_file():
        raise UserError(f"{folder}: is not finished; the same 'crossval' command with -o {folder} continues it")
    result, path, remedy = read_result(folder), folder / PER_IMAGE, _written_anew(folder)
    names, seeds = result["images"], result["seeds"]
    scores: dict[Key, np.ndarray] = {}
    columns = {name: index for index, name in enumerate(names)}
    counted: dict[Key, set[tuple[str, str]]] = {}
    rows = {str(seed): index for index, seed in enumerate(seeds)}
    for row in records.read_table(path, ("metric", "class", "seed", "image", "score"), remedy):
        if row["seed"] not in rows or row["image"] not in columns:
            fault = f"image '{row['image']}' with seed {row['seed']} is not of this cross-validation"
            raise records.damaged(path, fault, remedy)
        known = counted.setdefault((row["metric"], row["class"]), set())
        known.add((row["seed"], row["image"]))
        table = scores.setdefault((row["metric"], row["class"]), np.full((len(seeds), len(names)), np.nan))
        value = records.number(path, row["score"], remedy)
        table[rows[row["seed"]], columns[row["image"]]] = math.nan if value is None else value
    for (metric, name), known in counted.items():
        if missing := len(names) * len(seeds) - len(known):
            raise records.damaged(path, f"lacks {format_count(missing, 'row')} of '{metric}', '{name}'", remedy)
    notes = result["notes"]
    return OutOfFold(folder, folds.read(folder / FOLDS), names, seeds, scores, notes)


def means(table: np.ndarray, axis: int) -> list[float]:
    """Means along an axis (0: over seeds, 1: over images) of the values that are not NaN; NaN where there are none."""
    # np.nanmean warns of rows without a value, which are usual here: an image without cells has no score.
    rows = table.T if axis == 0 else table
    return [float(np.mean(row[~np.isnan(row)])) if not np.isnan(row).all() else math.nan for row in rows]


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of the values that are not NaN; NaN of fewer than two."""
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan
