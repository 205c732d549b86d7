"""Differences between experiments, and between the environments of runs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yeastexp.config.experiment import LENGTH, Experiment
from yeastexp.system import environment

Rows = dict[str, list[Any]]
"""By dotted key, the value in each run; None for a run without the key."""


def of_experiments(experiments: Sequence[Experiment]) -> Rows:
    """Return the keys whose values are not the same in all experiments; a part that some lack is a row as a whole.

    Parts in a list are identified by name, and the second of the same name by its number: `augment.gamma#2.most`.
    """
    return _of_trees([tomllib.loads(experiment.resolved()) for experiment in experiments])


def edits(was: Mapping[str, Any], now: Experiment, file: Path) -> Rows:
    """Return the keys in which a run's experiment file differs from the identity that its checkpoint has.

    `was` is that identity, `now` the experiment read from `file`.
    """
    # A later version of this package may have new keys with defaults: they are in `now`, but neither in the checkpoint
    # nor in the file, so they are no edits. Checkpoints of the best weights have no length.
    rows = _of_trees([was, now.identity()])
    written = _of_trees([was, tomllib.loads(file.read_text(encoding="utf-8"))])
    length = () if {*LENGTH} & was["train"].keys() else [f"train.{key}" for key in LENGTH]
    return {key: values for key, values in rows.items() if key in written and key not in length}


def phrase(rows: Rows) -> str:
    """Return rows of two runs in words, as in `train.seed was 0, is 1`."""
    words = {key: ["nothing" if value is None else value for value in values] for key, values in rows.items()}
    return "; ".join(f"{key} was {was}, is {now}" for key, (was, now) in words.items())


def _of_trees(trees: Sequence[Mapping[str, Any]]) -> Rows:
    rows: Rows = {}
    for table in dict.fromkeys(table for tree in trees for table in tree if table != "name"):
        values = [tree.get(table) for tree in trees]
        if any(isinstance(value, list) and value and isinstance(value[0], dict) for value in values):
            rows |= _differing_lists(table, [value or [] for value in values])
        else:
            rows |= _differing({table: value} for value in values)
    return rows


def _differing_lists(table: str, values: Sequence[list[dict[str, Any]]]) -> Rows:
    named = [dict(_by_name(value)) for value in values]
    rows: Rows = {}
    for name in dict.fromkeys(name for parts in named for name in parts):
        options = [parts.get(name) for parts in named]
        if None in options:
            rows[f"{table}.{name}"] = [keys if keys is None else _written(keys) for keys in options]
        else:
            rows |= _differing({f"{table}.{name}": keys} for keys in options)
    shared = set.intersection(*(set(parts) for parts in named))
    orders = [", ".join(name for name in parts if name in shared) for parts in named]
    return rows | (_differing({f"{table} (order)": order} for order in orders))


def _by_name(parts: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    seen: dict[str, int] = {}
    for part in parts:
        name = part["name"]
        seen[name] = seen.get(name, 0) + 1
        options = {key: value for key, value in part.items() if key != "name"}
        yield (f"{name}#{seen[name]}" if seen[name] > 1 else name), options


def _written(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in options.items()) or "yes"


def _differing(trees: Iterable[Mapping[str, Any]]) -> Rows:
    """Return the rows of the dotted keys whose values are not all the same."""
    flattened = [dict(environment.flat(tree)) for tree in trees]
    rows = {
        key: [flat.get(key) for flat in flattened] for key in dict.fromkeys(key for flat in flattened for key in flat)
    }
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def of_environments(environments: Sequence[Mapping[str, Any]]) -> Rows:
    """Return the rows of environments that differ and can change results: versions, machine, revision, digests."""
    rows: Rows = {}
    for index, description in enumerate(environments):
        for name, (first, other) in environment.differences(environments[0], description).items():
            rows.setdefault(name, [first] * len(environments))[index] = other
    rows.pop("digests.experiment", None)
    return rows
