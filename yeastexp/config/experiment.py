"""One TOML file, checked: every fault of it in one go, and what it says in frozen form."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, StringConstraints

from yeastexp import nets, plugins
from yeastexp.config import toml_document
from yeastexp.config.toml_document import Document, Keys, Place
from yeastexp.data import datasets, transforms
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.errors import UserError, did_you_mean
from yeastexp.metrics import pixels
from yeastexp.metrics.pixels import PerImageMetric
from yeastexp.nets import losses, optimizers, schedulers
from yeastexp.registry import KINDS, MustExist, Schema

ROOMS = (datasets, transforms, nets, losses, optimizers, schedulers, pixels)
"""Importing them is what fills the registries."""

LENGTHS = ("epochs", "steps", "budget")
EXCLUSIVE: Mapping[Keys, Sequence[str]] = {("train",): LENGTHS}
TABLES = {"dataset": "dataset", "model": "model", "loss": "loss", "optimizer": "optimizer", "scheduler": "scheduler"}
ARRAYS = {"transform": "transform", "augment": "transform", "metric": "metric"}
OPTIONAL = ("scheduler", "transform", "augment")

LONGEST_NAME = 200
"""Bytes; file systems take 255, and run directories are not all that is named after an experiment."""

ClassName = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^/\\\s\x00-\x1f\x7f-\x9f]+$")]
Duration = Annotated[str, StringConstraints(pattern=r"^\d{1,6}(\.\d{1,6})?[smh]$")]


@dataclass(frozen=True)
class Task:
    """What is segmented: image channels, and the class names in the order of their label values."""

    channels: Annotated[int, Field(ge=1)]
    classes: Annotated[
        tuple[ClassName, ...],
        Field(min_length=2, max_length=120, description="no spaces, slashes or control characters in a name"),
    ]


@dataclass(frozen=True)
class Train:
    """How training runs: exactly one of `epochs`, `steps` and `budget`, and the rest."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    budget: Annotated[Duration | None, Field(description="wall-clock time of the whole command, as in '5m'")] = None
    window: Annotated[int | None, Field(ge=1, le=2**15, description="side in pixels; 128, or the smallest image")] = (
        None
    )
    batch: Annotated[int, Field(ge=1, description="windows a step")] = 8
    windows_per_image: Annotated[
        int | None,
        Field(ge=1, le=10**6, description="random windows of each image an epoch; as many as cover its area"),
    ] = None
    foreground: Annotated[
        float, Field(ge=0, le=1, description="share of random windows that are centred on a pixel of no class 0")
    ] = 0.0
    stride: Annotated[int | None, Field(ge=1, description="pixels between sliding windows, instead of random")] = None
    monitor: Annotated[str | None, Field(description="the metric that picks the best checkpoint, or 'loss'")] = None
    validate_every: Annotated[
        int | None, Field(ge=1, description="epochs; as often as costs about a twentieth of the training")
    ] = None
    early_stopping: Annotated[
        int | None,
        Field(ge=1, description="validations without improvement that end the run, wherever the scheduler then is"),
    ] = None
    accumulate: Annotated[int, Field(ge=1, description="batches whose gradients add up to one update")] = 1
    clip_norm: Annotated[float | None, Field(gt=0, description="largest L2 norm of all gradients together")] = None
    ema: Annotated[
        float | None, Field(gt=0, lt=1, description="decay of the average of the weights that is kept and scored")
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Field(description="of the model in training; float16 needs a GPU, and whole images are always seen in float32"),
    ] = "float32"
    channels_last: Annotated[
        bool, Field(description="colours of a pixel beside each other in memory; a step takes a tenth less on a CPU")
    ] = True
    compile: Annotated[
        bool, Field(description="by torch.compile: half a minute at the start, then a few percent faster on a CPU")
    ] = False
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cache: Annotated[
        Literal["auto", "device", "memory", "none"],
        Field(description="where the training images are kept; 'none' reads them again for every batch"),
    ] = "auto"
    workers: Annotated[int, Field(ge=0, le=64, description="processes that cut windows; 0: the training process")] = 0
    threads: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] | None,
        Field(description="compute threads; all cores, or 'auto': as many as a step is fastest with"),
    ] = None
    checkpoint_minutes: Annotated[
        float, Field(gt=0, description="most time between checkpoints; there is one after every epoch anyway")
    ] = 10.0
    deterministic: bool = True
    initial: Annotated[
        Path | None,
        MustExist("run", holding="checkpoints/best.pt"),
        Field(description="a run whose best weights training starts from"),
    ] = None
    folds: Annotated[
        Path | None,
        MustExist("file of folds"),
        Field(description="a file of 'crossval', in place of the data's splits"),
    ] = None
    fold: Annotated[int | None, Field(ge=1, description="of the folds, the one that validates")] = None


IDLE = "does nothing: it has none of the hooks image, batch, labels and geometry; look how they are spelt"

TASK, TRAIN = Schema(Task), Schema(Train)


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

    def make(self, *given: Any) -> Any:
        """Call the factory with what the file cannot hold, then the keys of the table."""
        return KINDS[self.kind][self.name](*given, **self.options)

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
class Experiment:
    """The checked content of one experiment file."""

    name: str
    task: Task
    train: Train
    dataset: Part
    model: Part
    loss: Part
    optimizer: Part
    scheduler: Part | None
    transforms: tuple[Part, ...]
    augmentations: tuple[Part, ...]
    metrics: tuple[Part, ...]
    plugins: tuple[Path, ...] = ()

    @property
    def parts(self) -> Iterator[Part]:
        """All parts in the order of the file."""
        yield from (self.dataset, *self.transforms, *self.augmentations, self.model, self.loss, self.optimizer)
        yield from (*([self.scheduler] if self.scheduler else []), *self.metrics)

    @property
    def monitor(self) -> str:
        """The metric (or 'loss') that picks the best checkpoint."""
        return self.train.monitor or self.metrics[0].name

    def resolved(self, plugin_folder: str = "plugins") -> str:
        """The whole experiment as TOML, every default written out; data paths absolute, plugins the run's copies."""
        head: dict[str, Any] = {"name": self.name}
        if self.plugins:
            head["plugins"] = [f"{plugin_folder}/{path.name}" for path in self.plugins]
        tables = [("[task]", vars(self.task))]
        tables += [(part.label, {"name": part.name, **_with_defaults(part)}) for part in self.parts]
        tables += [("[train]", vars(self.train))]
        return "\n".join([tomli_w.dumps(head), *(_table(label, options) for label, options in tables)])

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
    schema = KINDS[part.kind].find(part.name).schema
    defaults = {p.name: p.default for p in schema.parameters if p.default is not p.empty}
    return {**defaults, **part.options}


def _plain(value: Any) -> Any:
    """Options as TOML holds them: no nothing, and paths as text."""
    return _each(lambda _, leaf: str(leaf) if isinstance(leaf, Path) else leaf, value)


def _lacking(marked: MustExist, path: Path) -> str | None:
    if not os.path.exists(path):  # noqa: PTH110  # pathlib raises of a long one
        return f"no {marked.what} '{path}'"
    if marked.holding and not (path / marked.holding).is_file():
        return f"'{path}' holds no {marked.holding}; name a {marked.what} that does"
    return None


def _each(change: Callable[[Keys, Any], Any], value: Any, keys: Keys = ()) -> Any:
    """A value with all that lies in its tables and arrays changed by place and kind; a table loses its `None`s."""
    if isinstance(value, Mapping):
        return {key: _each(change, inner, (*keys, key)) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return type(value)(_each(change, inner, (*keys, index)) for index, inner in enumerate(value))
    return change(keys, value)


def load(path: Path, settings: Sequence[str] = (), *, data: bool = True) -> Experiment:
    """Read, merge and check an experiment file; UserError lists every fault, a line each.

    Without `data` nothing is asked of the data set, which need not be there to predict.
    """
    return _Checker(_open(path, settings), path.stem, data).experiment()


def load_plugins(path: Path) -> None:
    """Load the plugins of an experiment file and nothing else, so that the registry holds what it can name."""
    checker = _Checker(_open(path, ()), path.stem, data=False)
    checker.plugins()
    if checker.faults:
        raise UserError(*(f"{place}: {message}" for place, message in checker.faults))


def _open(path: Path, settings: Sequence[str]) -> Document:
    if not toml_document.is_file(path):
        raise UserError(f"{path}: no such experiment file")
    tree = toml_document.read(path, EXCLUSIVE)
    for setting in settings:
        toml_document.override(tree, setting, EXCLUSIVE)
    return tree


class _Checker:
    """Walks a document once, collecting faults; what it returns is only used where it found none."""

    def __init__(self, tree: Document, stem: str, data: bool) -> None:
        self.tree = tree
        self.stem = stem
        self.with_data = data
        self.absent = False
        """Whether a file that has to exist does not."""
        self.faults: list[tuple[Place, str]] = []

    def experiment(self) -> Experiment:
        paths = self.plugins()
        self.unknown_tables()
        name = self.name()
        task = self.table("task", TASK)
        train = self.train()
        single = {table: self.part(table) for table in TABLES}
        lists = {table: self.parts(table) for table in ARRAYS}
        self.relations(task, train, single, lists)
        if self.faults:
            ordered = sorted(self.faults, key=lambda fault: (fault[0].source, fault[0].line, fault[0].column))
            raise UserError(*dict.fromkeys(f"{place}: {message}" for place, message in ordered))
        assert task is not None and train is not None
        return Experiment(
            name=name,
            task=Task(**task),
            train=Train(**train),
            transforms=lists["transform"],
            augmentations=lists["augment"],
            metrics=lists["metric"],
            plugins=paths,
            **single,  # type: ignore[arg-type]  # required ones are there where no fault was found
        )

    def fault(self, keys: Keys, message: str) -> None:
        self.faults.append((self.tree.place(keys), message))

    def plugins(self) -> tuple[Path, ...]:
        plugins.load_installed()
        plugins.load([])
        written = self.tree.values.get("plugins", [])
        if not isinstance(written, list) or not all(isinstance(one, str) for one in written):
            self.fault(("plugins",), f"plugins: should be an array of file names, got {written!r}")
            return ()
        good: list[Path] = []
        for index, one in enumerate(written):
            place = self.tree.place(("plugins", index))
            path = place.folder / one
            if not toml_document.is_file(path):
                self.faults.append((place, f"plugins: no file '{os.path.abspath(path)}'"))  # noqa: PTH100
                continue
            path = path.resolve()
            try:
                plugins.load([*good, path])
                good.append(path)
            except UserError as error:
                self.faults.append((place, f"plugins: {error}"))
                plugins.load(good)
        if len({path.name for path in good}) < len(good):
            self.fault(("plugins",), "plugins: two files of one name; a run keeps its copies side by side")
        return tuple(good)

    def unknown_tables(self) -> None:
        known = ["name", "extends", "plugins", "task", "train", *TABLES, *ARRAYS]
        for key in self.tree.values:
            if key not in known:
                within = f"; did you mean 'train.{key}'?" if key in TRAIN.keys else did_you_mean(key, known)
                self.fault((key,), f"{key}: unknown table or key{within}")

    def name(self) -> str:
        name = self.tree.values.get("name", self.stem)
        plain = isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= LONGEST_NAME
        if not plain or set(name) & set("/\\") or name.startswith("."):
            self.fault(("name",), f"name: should be a plain name for a folder, got {name!r}")
        return str(name)

    def train(self) -> dict[str, Any] | None:
        table = self.tree.values.get("train")
        lengths = [key for key in LENGTHS if isinstance(table, dict) and key in table]
        if len(lengths) > 1:
            others = " and ".join(f"'{key}'" for key in lengths[:-1])
            self.fault(("train", lengths[-1]), f"[train] {lengths[-1]}: stands beside {others}; keep one of them")
        if isinstance(table, dict) and not lengths:
            self.fault(("train",), "[train]: needs one of 'epochs', 'steps' and 'budget'")
        return self.table("train", TRAIN)

    def table(self, name: str, schema: Schema) -> dict[str, Any] | None:
        """A table that is no part, typed; nothing where it has faults."""
        values = self.tree.values.get(name)
        if not isinstance(values, dict):
            self.missing_or_wrong(name, values, "a table")
            return None
        return self.checked((name,), f"[{name}]", schema, values)

    def missing_or_wrong(self, name: str, value: Any, wanted: str) -> None:
        if value is None:
            self.faults.append((self.tree.top, f"[{name}]: missing; every experiment needs it"))
        else:
            self.fault((name,), f"{name}: should be {wanted}, got {value!r}")

    def checked(self, at: Keys, label: str, schema: Schema, values: Mapping[str, Any]) -> dict[str, Any] | None:
        typed, problems = schema.check(values)
        for problem in problems:
            key = ".".join(map(str, problem.keys))
            self.fault((*at, *problem.keys), f"{label} {key}: {problem.message}")

        def rooted(keys: Keys, value: Any) -> Any:
            marked = schema.must_exist(str(keys[0]))
            # Of a table with other faults nothing is typed, but which file is missing can be told all the same.
            if isinstance(value, Path) or (problems and marked and keys[1:] == () and isinstance(value, str)):
                return self.rooted((*at, *keys), f"{label} {'.'.join(map(str, keys))}", marked, Path(value))
            return value

        found: dict[str, Any] = _each(rooted, values if problems else typed)
        return None if problems else found

    def rooted(self, keys: Keys, label: str, marked: MustExist | None, path: Path) -> Path:
        """A path made absolute from the folder of the file that wrote it; a fault where it has to exist and is not."""
        try:
            path = (self.tree.place(keys).folder / path.expanduser()).resolve()
        except (RuntimeError, ValueError) as error:  # no such user's home; a circle of links; a null character
            self.fault(keys, f"{label}: no path ({error}), got {json.dumps(str(path))}")
            self.absent = True
            return path
        if self.with_data and marked and (wrong := _lacking(marked, path)):
            self.fault(keys, f"{label}: {wrong}")
            self.absent = True
        return path

    def part(self, table: str) -> Part | None:
        values = self.tree.values.get(table)
        if values is None and table in OPTIONAL:
            return None
        if not isinstance(values, dict):
            self.missing_or_wrong(table, values, "a table")
            return None
        return self.one(table, TABLES[table], (table,), f"[{table}]", values)

    def parts(self, table: str) -> tuple[Part, ...]:
        values = self.tree.values.get(table, [])
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            self.fault((table,), f"{table}: should be an array of tables, [[{table}]], got {values!r}")
            return ()
        if not values and table not in OPTIONAL:
            self.faults.append((self.tree.top, f"[[{table}]]: missing; every experiment needs one"))
        made = [self.one(table, ARRAYS[table], (table, i), f"[[{table}]]", one) for i, one in enumerate(values)]
        return tuple(part for part in made if part)

    def one(self, table: str, kind: str, at: Keys, label: str, values: Mapping[str, Any]) -> Part | None:
        name = values.get("name")
        if not isinstance(name, str):
            message = "missing; add 'name = …'" if name is None else f"should be a string, got {name!r}"
            self.fault((*at, "name"), f"{label} name: {message} (known: {', '.join(KINDS[kind])})")
            return None
        if name not in KINDS[kind]:
            self.fault((*at, "name"), f"{label} name: unknown {kind} '{name}'{did_you_mean(name, KINDS[kind])}")
            return None
        rest = {key: value for key, value in values.items() if key != "name"}
        typed = self.checked(at, label, KINDS[kind].find(name).schema, rest)
        if typed is None:
            return None
        places = {key: self.tree.place((*at, key)) for key in rest}
        return Part(kind, name, typed, table, self.tree.place((*at, "name")), places)

    def relations(
        self,
        task: Mapping[str, Any] | None,
        train: Mapping[str, Any] | None,
        single: Mapping[str, Part | None],
        lists: Mapping[str, tuple[Part, ...]],
    ) -> None:
        """What no table can know by itself; of tables with faults nothing is asked."""
        names = [part.name for part in lists["metric"]]
        for part in lists["metric"]:
            if names.count(part.name) > 1:
                self.faults.append(
                    (part.place, f"[[metric]] name: '{part.name}' stands {names.count(part.name)} times")
                )
        if train is not None:
            self.train_relations(train, names)
        for part in lists["transform"]:
            self.whole_image_transform(part)
        for part in lists["augment"]:
            self.augmentation(part)
        if task is None:
            return
        if len(set(task["classes"])) < len(task["classes"]):
            self.fault(("task", "classes"), f"[task] classes: a name stands twice in {list(task['classes'])}")
        if taken := {"all", "mean"} & set(task["classes"]):
            self.fault(
                ("task", "classes"), f"[task] classes: '{min(taken)}' names a row of every table; rename the class"
            )
        classes = len(task["classes"])
        if single["loss"]:
            self.guarded(single["loss"], classes)
        metrics_ = [(part, self.guarded(part, classes, instance_of=PerImageMetric)) for part in lists["metric"]]
        if self.with_data and single["dataset"] and not self.absent:
            try:
                self.data(task, single["dataset"], metrics_)
            except UserError as error:  # a data set may find out late what is wrong with its files
                self.faults += single["dataset"].faults(error)

    def train_relations(self, train: Mapping[str, Any], metric_names: Sequence[str]) -> None:
        if (monitor := train.get("monitor")) and monitor not in (*metric_names, "loss"):
            known = did_you_mean(monitor, [*metric_names, "loss"])
            self.fault(("train", "monitor"), f"[train] monitor: no metric '{monitor}'{known}")
        for one, other in (("folds", "fold"), ("fold", "folds")):
            if train.get(one) and not train.get(other):
                self.fault(("train", one), f"[train] {one}: means nothing without '{other}'")
        if train.get("stride") and train.get("windows_per_image"):
            self.fault(("train", "stride"), "[train] stride: sliding windows are not counted; drop 'windows_per_image'")
        if train.get("stride") and train.get("foreground"):
            self.fault(("train", "stride"), "[train] stride: sliding windows cannot be centred; set 'foreground = 0'")

        if train.get("cache") == "device" and train.get("workers"):
            fault = "worker processes cut windows from memory; set 'workers = 0', or another cache"
            self.fault(("train", "cache"), f"[train] cache: {fault}")

    def guarded(self, part: Part, *given: Any, instance_of: type = object) -> Any:
        """The part made, or nothing and a fault."""
        try:
            made = part.make(*given)
        except UserError as error:
            self.faults += part.faults(error)
            return None
        if isinstance(made, instance_of):
            return made
        self.faults.append((part.place, f"{part.label} name: '{part.name}' is no {instance_of.__name__}"))
        return None

    def whole_image_transform(self, part: Part) -> None:
        made = self.guarded(part, instance_of=BasicTransform2D)
        if made is None:
            return
        if not made.acts():
            self.faults.append((part.place, f"[[transform]] name: '{part.name}' {IDLE}"))
        elif made.draws():
            message = f"'{part.name}' draws random numbers; it belongs under [[augment]]"
            self.faults.append((part.place, f"[[transform]] name: {message}"))
        elif made.has("geometry") and not made.has("restore"):
            message = f"'{part.name}' changes the grid and has no 'restore'; scores are on the original pixels"
            self.faults.append((part.place, f"[[transform]] name: {message}"))

    def augmentation(self, part: Part) -> None:
        made = self.guarded(part, instance_of=BasicTransform2D)
        if made is not None and not made.acts():
            self.faults.append((part.place, f"[[augment]] name: '{part.name}' {IDLE}"))
        elif made is not None and (made.whole_images or made.has("fit") or made.has("statistics")):
            message = f"'{part.name}' is for whole images; it belongs under [[transform]]"
            self.faults.append((part.place, f"[[augment]] name: {message}"))

    def data(self, task: Mapping[str, Any], part: Part, metrics_: Sequence[tuple[Part, Any]]) -> None:
        made = self.guarded(part)
        if made is None:
            return
        for split, act in (("train", "train"), ("val", "validate")):
            if not made.splits.get(split):
                self.faults.append((part.place, f"[dataset] name: '{part.name}' has no images to {act} on"))
        names = [name for split in made.splits.values() for name in split]
        wrong = [name for name in names if made.shape(name)[0] != task["channels"]]
        if wrong:
            has = made.shape(wrong[0])[0]
            message = f"is {task['channels']}, but image '{wrong[0]}' has {has} (and {len(wrong) - 1} more)"
            self.fault(("task", "channels"), f"[task] channels: {message}")
        for metric_part, metric in metrics_:
            for wanted in metric.maps if metric is not None else ():
                if wanted not in made.maps:
                    known = f"; the data has {', '.join(made.maps) or 'no further maps'}"
                    message = f"'{metric_part.name}' needs the map '{wanted}'{known}"
                    self.faults.append((metric_part.place, f"[[metric]] name: {message}"))


def seconds(duration: str) -> float:
    """Seconds of a `budget` such as '90s', '5m' or '1.5h'."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
