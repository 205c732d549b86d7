"""The checked content of one experiment file, in frozen form."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, StringConstraints

from yeastexp import plugins
from yeastexp.config.settings import SETTINGS, Patches, Runtime, Train, Validation
from yeastexp.config.toml_document import Keys, Place
from yeastexp.errors import UserError
from yeastexp.registry import KINDS, Schema

TABLES = {"dataset": "dataset", "model": "model", "loss": "loss", "optimizer": "optimizer", "scheduler": "scheduler"}
"""The tables that name a part, and its kind."""

ARRAYS = {"transform": "transform", "augment": "transform", "metric": "metric", "handler": "handler"}
"""The arrays of tables that name parts, and their kind."""

OPTIONAL = ("scheduler", "transform", "augment", "handler", "patches", "validation", "runtime")

FREE: Mapping[str, Collection[str]] = {"runtime": ("device", "threads", "workers", "checkpoint_minutes")}
"""By table, the keys that may change while a run is under way: where it computes, how often it keeps a checkpoint."""

LENGTH = ("epochs", "steps")
"""The keys of `[train]` by which a run may become longer."""

ClassName = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^/\\\s\x00-\x1f\x7f-\x9f]+$")]


@dataclass(frozen=True)
class TaskTable:
    """`[task]`: image channels, the class names in the order of their label values, and what is learnt of them."""

    channels: Annotated[int, Field(ge=1)]
    classes: Annotated[
        tuple[ClassName, ...],
        Field(min_length=2, max_length=120, description="no spaces, slashes or control characters in a name"),
    ]


TASK = Schema(TaskTable)
"""Of the keys that every task has."""

DEFAULT_TASK = "semantic"


@dataclass(frozen=True)
class Part:
    """A part as the file names it; `build` makes it, and names the line of the file where its factory refuses."""

    kind: str
    name: str
    options: dict[str, Any]
    table: str
    place: Place = field(compare=False)
    places: dict[str, Place] = field(default_factory=dict, compare=False)

    @property
    def label(self) -> str:
        """The part's table as the file writes it."""
        return f"[[{self.table}]]" if self.table in ARRAYS else f"[{self.table}]"

    @property
    def named(self) -> str:
        """Where the file names it, as the beginning of a message."""
        return f"{self.place}: {self.label} name"

    def make(self, *given: Any) -> Any:
        """Call the factory with what the file cannot hold, then the keys of the table."""
        entry = KINDS[self.kind].find(self.name)
        instance = entry.factory(*given, **self.options)
        plugins.remember(instance, entry)
        return instance

    def faults(self, error: UserError) -> list[tuple[Place, str]]:
        """What the factory refused, and where the file wrote it."""
        place = self.places.get(error.key or "", self.place)
        where = f"{self.label} {error.key or 'name'}"
        return [(place, f"{where}: {fault}") for fault in error.faults]

    def build(self, *given: Any) -> Any:
        """`make`, with the place in the file before each fault."""
        try:
            return self.make(*given)
        except UserError as error:
            faults = (f"{place}: {message}" for place, message in self.faults(error))
            raise UserError(*faults, status=error.status) from error


@dataclass(frozen=True)
class Task:
    """What `[task]` says: image channels, class names, and the part that says what is learnt of them."""

    channels: int
    classes: tuple[str, ...]
    part: Part


@dataclass(frozen=True)
class Experiment:
    """The checked content of one experiment file."""

    name: str
    task: Task
    patches: Patches
    train: Train
    validation: Validation
    runtime: Runtime
    dataset: Part
    model: Part
    loss: Part | None
    optimizer: Part
    scheduler: Part | None
    transforms: tuple[Part, ...]
    augmentations: tuple[Part, ...]
    metrics: tuple[Part, ...]
    handlers: tuple[Part, ...] = ()
    plugins: tuple[Path, ...] = ()
    withheld: tuple[str, ...] = ()
    """Why some of them were not executed; of the parts that only they may know, the options are as written."""

    @property
    def parts(self) -> Iterator[Part]:
        """All parts in the order of the file."""
        single = (self.model, self.loss, self.optimizer, self.scheduler)
        yield from (self.dataset, *self.transforms, *self.augmentations, *(part for part in single if part))
        yield from (*self.metrics, *self.handlers)

    @property
    def loss_name(self) -> str:
        """The name of the loss, or of the task that has one of its own."""
        return self.loss.name if self.loss else self.task.part.name

    @property
    def monitor(self) -> str:
        """The metric (or 'loss') that picks the best checkpoint."""
        return self.validation.monitor or self.metrics[0].name

    def resolved(self, plugin_folder: str = "plugins") -> str:
        """The whole experiment as TOML, every default written out; data paths absolute, plugins the run's copies."""
        head: dict[str, Any] = {"name": self.name}
        if self.plugins:
            head["plugins"] = [f"{plugin_folder}/{path.name}" for path in self.plugins]
        return "\n".join([tomli_w.dumps(head), *(_table(label, options) for label, options in self._tables())])

    def _tables(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The label of each table, and its keys with every default."""
        task = {"name": self.task.part.name, "channels": self.task.channels, "classes": self.task.classes}
        yield "[task]", {**task, **_with_defaults(self.task.part)}
        yield from ((part.label, {"name": part.name, **_with_defaults(part)}) for part in self.parts)
        yield from ((f"[{table}]", vars(getattr(self, table))) for table in SETTINGS)

    def identity(self) -> dict[str, Any]:
        """What makes a run this one and no other, as a checkpoint keeps it: all keys but those of `FREE`.

        Of paths the last name stays: files may move, and their digests are compared elsewhere.
        """
        tree: dict[str, Any] = {"plugins": [path.name for path in self.plugins]}
        for label, options in self._tables():
            table = label.strip("[]")
            kept = each(lambda _, leaf: leaf.name if isinstance(leaf, Path) else leaf, options)
            plain = {key: value for key, value in kept.items() if key not in FREE.get(table, ())}
            if label.startswith("[["):
                tree.setdefault(table, []).append(plain)
            else:
                tree[table] = plain
        return tree

    def options(self) -> dict[str, bool | int | float | str]:
        """All options by dotted key, arrays as text: one flat table for people who compare runs."""
        flat: dict[str, bool | int | float | str] = {}
        for table, options in tomllib.loads(self.resolved()).items():
            for index, one in enumerate(options if isinstance(options, list) else [options]):
                at = f"{table}.{index}" if isinstance(options, list) else table
                pairs = one.items() if isinstance(one, dict) else [("", one)]
                flat |= {f"{at}.{k}".rstrip("."): v if isinstance(v, int | float | str) else str(v) for k, v in pairs}
        return flat


def _table(label: str, options: Mapping[str, Any]) -> str:
    """A table as TOML, or an element of an array of tables, with the tables in it below it."""
    name = label.strip("[]")
    return label + tomli_w.dumps({name: _plain(options)}).removeprefix(f"[{name}]")


def _with_defaults(part: Part) -> dict[str, Any]:
    if part.name not in KINDS[part.kind]:
        return part.options
    schema = KINDS[part.kind].find(part.name).schema
    defaults = {p.name: p.default for p in schema.parameters if p.default is not p.empty}
    return {**defaults, **part.options}


def _plain(value: Any) -> Any:
    """Options as TOML holds them: no nothing, and paths as text."""
    return each(lambda _, leaf: str(leaf) if isinstance(leaf, Path) else leaf, value)


def each(change: Callable[[Keys, Any], Any], value: Any, keys: Keys = ()) -> Any:
    """A value with all that lies in its tables and arrays changed by place and kind; a table loses its `None`s."""
    if isinstance(value, Mapping):
        return {key: each(change, inner, (*keys, key)) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return type(value)(each(change, inner, (*keys, index)) for index, inner in enumerate(value))
    return change(keys, value)
