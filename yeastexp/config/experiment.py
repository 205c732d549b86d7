"""The immutable result of reading and checking an experiment file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, StringConstraints

from yeastexp import plugins
from yeastexp.config import pretrained
from yeastexp.config.settings import SETTINGS, Patches, Runtime, Train, Validation
from yeastexp.config.toml_document import UNNAMED, Keys, Place
from yeastexp.errors import UserError
from yeastexp.registry import KINDS, Schema

TABLES = {"dataset": "dataset", "model": "model", "loss": "loss", "optimizer": "optimizer", "scheduler": "scheduler"}
"""The kind of part that each table names."""

ARRAYS = {"transform": "transform", "augment": "transform", "metric": "metric", "handler": "handler"}
"""The kind of part that the elements of each array of tables name."""

OPTIONAL = ("scheduler", "transform", "augment", "handler", "patches", "validation", "runtime")

FREE: Mapping[str, Collection[str]] = {"runtime": ("device", "threads", "workers", "checkpoint_minutes")}
"""By table, the keys that may change when a run is resumed: where it computes, and how often it saves a checkpoint."""

LENGTH = ("epochs", "steps")
"""The keys of `[train]` by which a run can be extended."""

ClassName = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^/\\\s\x00-\x1f\x7f-\x9f]+$")]


@dataclass(frozen=True)
class TaskTable:
    """The keys of `[task]` that every task has: image channels, and class names in the order of their label values."""

    channels: Annotated[int, Field(ge=1)]
    classes: Annotated[
        tuple[ClassName, ...],
        Field(min_length=2, max_length=120, description="no spaces, slashes or control characters in a name"),
    ]


TASK = Schema(TaskTable)
"""The schema of the keys that every task has."""

DEFAULT_TASK = UNNAMED["task",]


@dataclass(frozen=True)
class Part:
    """A part as the file names it: `build` calls its factory, and errors of the factory begin with the file's line."""

    kind: str
    name: str
    options: dict[str, Any]
    table: str
    place: Place = field(compare=False)
    places: dict[str, Place] = field(default_factory=dict, compare=False)

    @property
    def label(self) -> str:
        """The header of the part's table, such as [model] or [[augment]]."""
        return f"[[{self.table}]]" if self.table in ARRAYS else f"[{self.table}]"

    @property
    def named(self) -> str:
        """The place where the file names the part, as the beginning of a message."""
        return f"{self.place}: {self.label} name"

    def make(self, *given: Any) -> Any:
        """Call the factory with the arguments `given` by position, then with the options of the table."""
        entry = KINDS[self.kind].find(self.name)
        instance = entry.factory(*given, **self.options)
        plugins.remember(instance, entry)
        return instance

    def faults(self, error: UserError) -> list[tuple[Place, str]]:
        """Return the faults of an error that the factory raised, each with the place of the option to blame."""
        place = self.places.get(error.key or "", self.place)
        where = f"{self.label} {error.key or 'name'}"
        return [(place, f"{where}: {fault}") for fault in error.faults]

    def build(self, *given: Any) -> Any:
        """Like `make`, but a UserError of the factory gets the place in the file before each fault."""
        try:
            return self.make(*given)
        except UserError as error:
            faults = (f"{place}: {message}" for place, message in self.faults(error))
            raise UserError(*faults, status=error.status) from error


@dataclass(frozen=True)
class Task:
    """The content of `[task]`: image channels, class names, and the task itself as a part."""

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
    """Why some plugins were not executed, a line each; options of parts that only these may define are unchecked."""

    @property
    def parts(self) -> Iterator[Part]:
        """All parts in the order of the file."""
        single = (self.model, self.loss, self.optimizer, self.scheduler)
        yield from (self.dataset, *self.transforms, *self.augmentations, *(part for part in single if part))
        yield from (*self.metrics, *self.handlers)

    @property
    def loss_name(self) -> str:
        """The name of the loss, or of the task if it computes the loss itself."""
        return self.loss.name if self.loss else self.task.part.name

    @property
    def monitor(self) -> str:
        """The name of the metric that chooses the best checkpoint, or 'loss'."""
        return self.validation.monitor or self.metrics[0].name

    def resolved(self, plugin_folder: str = "plugins") -> str:
        """Return the experiment as TOML with every default, absolute data paths, and plugins in `plugin_folder`."""
        head: dict[str, Any] = {"name": self.name}
        if self.plugins:
            head["plugins"] = [f"{plugin_folder}/{path.name}" for path in self.plugins]
        return "\n".join([tomli_w.dumps(head), *(_table(label, options) for label, options in self._tables())])

    def _tables(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the header and the options of each table, with every default."""
        task = {"name": self.task.part.name, "channels": self.task.channels, "classes": self.task.classes}
        yield "[task]", {**task, **_with_defaults(self.task.part)}
        yield from ((part.label, {"name": part.name, **_with_defaults(part)}) for part in self.parts)
        yield from ((f"[{table}]", vars(getattr(self, table))) for table in SETTINGS)

    def identity(self) -> dict[str, Any]:
        """Return all options that must not change when a run is resumed, as a checkpoint has them: all but `FREE`.

        Paths are reduced to their last component: files may be moved, and `inputs` compares their digests.
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
        """Return all options by dotted key, with arrays as text, for flat tables that compare runs."""
        flat: dict[str, bool | int | float | str] = {}
        for table, options in tomllib.loads(self.resolved()).items():
            for index, one in enumerate(options if isinstance(options, list) else [options]):
                at = f"{table}.{index}" if isinstance(options, list) else table
                pairs = one.items() if isinstance(one, dict) else [("", one)]
                flat |= {f"{at}.{k}".rstrip("."): v if isinstance(v, int | float | str) else str(v) for k, v in pairs}
        return flat


def _table(label: str, options: Mapping[str, Any]) -> str:
    """Return a table, or an element of an array of tables, as TOML; `label` is its header."""
    # `tomli_w` would write an array of tables inline. So an element is written as a table, and gets its header here.
    name = label.strip("[]")
    return label + tomli_w.dumps({name: _plain(options)}).removeprefix(f"[{name}]")


def defaults(kind: str, name: str) -> dict[str, Any]:
    """Return the options of a part that have defaults, with these; none if its plugin is not loaded."""
    if name not in KINDS[kind]:
        return {}
    return {p.name: p.default for p in KINDS[kind].find(name).schema.parameters if p.default is not p.empty}


def _with_defaults(part: Part) -> dict[str, Any]:
    return {**defaults(part.kind, part.name), **part.options}


def _plain(value: Any) -> Any:
    """Return options as TOML has them: without None, and with paths as text."""
    return each(lambda _, leaf: pretrained.written(leaf) if isinstance(leaf, Path) else leaf, value)


def each(change: Callable[[Keys, Any], Any], value: Any, keys: Keys = ()) -> Any:
    """Return a value in which `change(keys, leaf)` replaces every leaf of its tables and arrays; None is dropped."""
    if isinstance(value, Mapping):
        return {key: each(change, inner, (*keys, key)) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return type(value)(each(change, inner, (*keys, index)) for index, inner in enumerate(value))
    return change(keys, value)
