"""The search space of a sweep: a TOML table of keys of the experiment, each with a range or choices.

"optimizer.learning_rate" = { low = 1e-4, high = 1e-1, log = true }
"train.batch_size" = { low = 2, high = 8, step = 2 }
"loss.name" = { choices = ["cross_entropy", "dice"] }
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yeastexp.config import toml_document
from yeastexp.config.loading import load_experiment
from yeastexp.config.toml_document import Document, Keys, Place, Setting
from yeastexp.errors import UserError
from yeastexp.registry import Schema

FIXED = {
    "name": "names the runs",
    "extends": "belongs in the experiment's file",
    "plugins": "belongs in the experiment's file",
    "dataset": "decides which images are scored, and trials are compared on the same images",
    "metric": "decides what is scored, and trials are compared by the same score",
    "validation": "decides what is scored, and trials are compared by the same score",
    "train.seed": "is for --repeats: a seed that scores well here says nothing of new images",
}
"""The keys, or tables, that have to be the same in all trials, and why."""

MOST_NAMES = 100
"""The most combinations of parts' names that the other values are checked with."""

Value = bool | int | float | str | list[Any] | dict[str, Any]


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high` (included), on a logarithmic scale if `log`, in steps if `step`."""

    key: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False


@dataclass(frozen=True)
class Choice:
    """A set of values without an order."""

    key: str
    choices: tuple[Any, ...]


Dimension = Range | Choice


@dataclass(frozen=True)
class _Entry:
    """The schema of the table behind a key of the file."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Any, ...] | None = None


ENTRY = Schema(_Entry)


def settings(values: Mapping[str, Value]) -> list[str]:
    """The values of a trial as `--set` options."""
    # Names of parts come first: a table whose name changes starts empty, and would lose keys that were set before.
    ordered = sorted(values, key=lambda key: not key.endswith(".name"))
    return [f"{key}={_toml(values[key])}" for key in ordered]


def _toml(value: Value) -> str:
    """A value on one line of TOML."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def read(path: Path, experiment: Path, changes: Sequence[str] = ()) -> list[Dimension]:
    """Read the dimensions of a file and check that all their ends and choices fit the experiment.

    Raises UserError with every fault.
    """
    if not toml_document.is_file(path):
        raise UserError(f"{path}: no such file; it holds a table of keys, each with {{ low = …, high = … }} or choices")
    document = toml_document.read(path, {})
    faults: list[tuple[Place, str]] = []
    written = [_dimension(document, keys, entry, faults) for keys, entry in _entries(document, faults)]
    dimensions = [dimension for dimension in written if dimension is not None]
    if not dimensions and not faults:
        faults.append((document.top, 'holds no key; add one, as "optimizer.learning_rate" = { low = …, high = … }'))
    if twice := {one.key for one in dimensions if sum(one.key == other.key for other in dimensions) > 1}:
        faults.append((document.top, f"{min(twice)}: stands twice; keep one of them"))
    if faults:
        ordered = sorted(faults, key=lambda fault: (fault[0].line, fault[0].column))
        raise UserError(*(f"{place}: {message}" for place, message in ordered))
    return _fitting(document, dimensions, experiment, changes)


def _entries(document: Document, faults: list[tuple[Place, str]]) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """The keys of each table with a range or choices, and the table; keys may be dotted inside quotes or without."""

    def walk(keys: Keys, value: Any) -> Iterator[tuple[Keys, dict[str, Any]]]:
        if not isinstance(value, dict) or not value:
            wanted = "should be a table with low and high, or with choices"
            faults.append((document.place(keys), f"{'.'.join(map(str, keys))}: {wanted}, got {json.dumps(value)}"))
        elif keys and not all(isinstance(inner, dict) for inner in value.values()):
            yield keys, value
        else:
            for key, inner in value.items():
                yield from walk((*keys, key), inner)

    for key, value in document.values.items():
        yield from walk((key,), value)


def _dimension(
    document: Document, keys: Keys, entry: dict[str, Any], faults: list[tuple[Place, str]]
) -> Dimension | None:
    """The dimension of one key; None, and faults are added, if something is wrong with the entry by itself."""
    key = ".".join(map(str, keys))
    fixed = next((name for name in FIXED if key == name or key.startswith(f"{name}.")), None)
    typed, problems = ENTRY.check(entry)
    for problem in problems:
        where = ".".join(map(str, problem.keys))
        faults.append((document.place((*keys, *problem.keys)), f"{key} {where}: {problem.message}"))
    wrong = f"is the same in all trials: it {FIXED[fixed]}" if fixed else None if problems else _wrong(typed)
    if wrong:
        faults.append((document.place(keys), f"{key}: {wrong}"))
    if wrong or problems:
        return None
    if "choices" in typed:
        return Choice(key, tuple(entry["choices"]))
    numbers = [typed[name] for name in ("low", "high", "step") if name in typed]
    return Range(key, **typed, integer=all(isinstance(number, int) for number in numbers))


def _wrong(typed: Mapping[str, Any]) -> str | None:
    """The fault of a range or of choices whose values are of the right types; None if there is none."""
    if "choices" in typed:
        choices = [json.dumps(choice) for choice in typed["choices"]]
        if len(typed) > 1:
            return f"has choices and '{next(name for name in typed if name != 'choices')}'; keep one of them"
        if not choices:
            return "has no choices"
        return "a choice stands twice" if len(set(choices)) < len(choices) else None
    if lacking := [name for name in ("low", "high") if name not in typed]:
        return f"has no '{lacking[0]}'; a range has low and high, a list of values is choices = […]"
    low, high, log, step = typed["low"], typed["high"], typed.get("log", False), typed.get("step")
    if low >= high:
        return f"low = {low} should be less than high = {high}"
    if log and low <= 0:
        return f"low = {low} has no logarithm; it should be greater than 0"
    if log and step is not None:
        return "has log and step; keep one of them"
    if step is not None and (step <= 0 or step > high - low):
        return f"step = {step} should be greater than 0, and at most high - low"
    if step is not None and not math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-9):
        return f"step = {step} does not lead from {low} to {high}"
    return None


def _fitting(
    document: Document, dimensions: Sequence[Dimension], experiment: Path, changes: Sequence[str]
) -> list[Dimension]:
    """Check the dimensions against the experiment; ranges of whole numbers stay so only where keys need integers.

    Raises UserError with every fault.
    """

    def setting(dimension: Dimension, value: Value, entry: str = "") -> Setting:
        keys = toml_document.keys_of(dimension.key)
        at = keys if keys in document.places else (dimension.key,)
        return Setting(keys, value, document.place((*at, entry)))

    def values(dimension: Dimension) -> list[Setting]:
        if isinstance(dimension, Choice):
            return [setting(dimension, choice, "choices") for choice in dimension.choices]
        return [setting(dimension, getattr(dimension, end), end) for end in ("low", "high")]

    def faults_of(chosen: Sequence[Setting]) -> tuple[str, ...]:
        try:
            load_experiment(experiment, [*changes, *chosen], data=False)
        except UserError as error:
            return error.faults
        return ()

    named = [dimension for dimension in dimensions if dimension.key.endswith(".name")]
    others = [values(dimension) for dimension in dimensions if dimension not in named]
    # All combinations of names are checked, as a name decides which other keys exist. The ends and choices of the other
    # keys only have to fit one by one: in each pass every key takes its next value, which makes as many passes as
    # the longest list has values, not as many as there are combinations.
    found: dict[str, str] = {}
    for names in itertools.islice(itertools.product(*map(values, named)), MOST_NAMES):
        for index in range(max(map(len, others), default=1)):
            chosen = [*names, *(each[min(index, len(each) - 1)] for each in others)]
            for fault in faults_of(chosen):
                found.setdefault(fault.partition(": ")[2], fault)  # a key is unknown at both of its ends
    if found:
        raise UserError(*found.values())
    # `low = 1, high = 8` may stand for integers or for real numbers: a fraction that the key refuses tells which.
    names = tuple(values(dimension)[0] for dimension in named)
    fitting: list[Dimension] = []
    for dimension in dimensions:
        if isinstance(dimension, Range) and dimension.integer and dimension.step is None:
            between = setting(dimension, dimension.low + 0.5)
            fitting.append(
                Range(
                    dimension.key,
                    dimension.low,
                    dimension.high,
                    dimension.log,
                    None,
                    bool(faults_of([*names, between])),
                )
            )
        else:
            fitting.append(dimension)
    return fitting
