"""Reading an experiment file and checking it: all faults are collected and reported together."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from yeastexp import contracts, nets, plugins, tasks
from yeastexp.config import pretrained, starters, toml_document, trust
from yeastexp.config.experiment import ARRAYS, DEFAULT_TASK, OPTIONAL, TABLES, TASK, Experiment, Part, Task, each
from yeastexp.config.renamed import home_of, renamed
from yeastexp.config.settings import SCHEMAS, SETTINGS, Runtime, Train
from yeastexp.config.toml_document import Document, Keys, Place, Setting
from yeastexp.data import datasets, transforms
from yeastexp.data.datasets.form import fault_of_dataset, fault_of_sample
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.errors import UserError, did_you_mean, in_one_line
from yeastexp.metrics import instances, pixels
from yeastexp.metrics.pixels import PerImageMetric
from yeastexp.nets import losses, optimizers, schedulers
from yeastexp.registry import KINDS, MustExist, Schema, missing
from yeastexp.system import nearby

PARTS = (datasets, transforms, tasks, nets, losses, optimizers, schedulers, pixels, instances)
"""The modules whose import registers the parts of this package."""

LENGTHS = ("epochs", "steps", "budget")
EXCLUSIVE: Mapping[Keys, Sequence[str]] = {("train",): LENGTHS}

LONGEST_NAME = 200
"""Bytes; file systems allow 255, and some names have an experiment's name and more."""

IDLE = "does nothing: it has none of the hooks image, batch, labels and geometry; look how they are spelt"


def _lacking(marked: MustExist, path: Path) -> str | None:
    if not os.path.exists(path):  # noqa: PTH110  # pathlib raises of a long one
        meant = (pretrained.meant(path) or nearby.run_meant(path, marked.holding)) if marked.holding else ""
        return f"no {marked.what} '{path}'" + (f"; {meant}" if meant else "")
    if marked.holding and not (path / marked.holding).is_file():
        meant = nearby.run_meant(path, marked.holding) or f"name a {marked.what} that does"
        return f"'{path}' holds no {marked.holding}; {meant}"
    return None


def load_experiment(
    path: Path,
    settings: Sequence[str | Setting] = (),
    *,
    data: bool = True,
    received: bool = False,
    execute: bool = True,
    begun: bool = False,
) -> Experiment:
    """Read, merge and check an experiment file. Raises UserError with all faults, one line each.

    Without `data` the data set is not checked, since prediction works without it; nor are the initial weights of a run
    that has `begun`, whose checkpoint has taken their place. Plugins that were `received` in a run
    directory and are not trusted raise UserError; without `execute` they are withheld instead, and the options of parts
    that only they may define stay as written, unchecked.
    """
    return _Checker(_open(path, settings), path.stem, data, received, execute, begun).experiment()


def experiment(
    source: str | os.PathLike[str] | Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the checked experiment of a file, of a starter such as "yeastexp:base", or of a dictionary of its tables.

    A dictionary may extend a file or a starter; its paths start from the working directory. `settings` change keys, as
    in `{"train.epochs": 2}`. Raises UserError with all faults, one line each.
    """
    changes = [Setting.of(key, value) for key, value in (settings or {}).items()]
    if not isinstance(source, Mapping):
        address = os.fspath(source)
        return load_experiment(starters.find(address) or Path(address), changes)
    return _Checker(_changed(toml_document.of(source, EXCLUSIVE), changes), "experiment", True).experiment()


def load_plugins(path: Path) -> list[str]:
    """Load the plugins of an experiment file into the registry. Returns why plugins are withheld, a line each."""
    checker = _Checker(_open(path, ()), path.stem, data=False, execute=False)
    checker.plugins()
    if checker.faults:
        raise UserError(*(f"{place}: {message}" for place, message in checker.faults))
    return checker.withheld


def _open(path: Path, settings: Sequence[str | Setting]) -> Document:
    if not toml_document.is_file(path):
        meant = nearby.file_meant(path, ".toml", {name: f"{starters.PREFIX}{name}" for name in starters.names()})
        raise UserError(f"{path}: no such experiment file" + (f"; {meant}" if meant else ""))
    return _changed(toml_document.read(path, EXCLUSIVE), settings)


def _changed(tree: Document, settings: Sequence[str | Setting]) -> Document:
    for setting in settings:
        toml_document.override(tree, setting, EXCLUSIVE)
    return tree


class _Checker:
    """Walks a document once and collects its faults; its results are only used if there are none.

    Tables are checked by themselves first, then their relations. A fault that only follows from another one is not
    reported: a check whose input is faulty is left out, or returns nothing.
    """

    def __init__(
        self,
        tree: Document,
        stem: str,
        data: bool,
        received: bool = False,
        execute: bool = True,
        begun: bool = False,
    ) -> None:
        self.tree = tree
        self.stem = stem
        self.with_data = data
        self.received = received
        self.execute = execute
        self.begun = begun
        self.withheld: list[str] = []
        """Why plugins are not executed, a line each."""
        self.absent = False
        """Whether a file that must exist is missing, so that the data set is not opened."""
        self.own_loss = False
        """Whether the task computes its loss itself, so that `[loss]` must be left out."""
        self.unsound: list[str] = []
        """The text of plugins with a fault. A part whose name occurs in it is not reported as unknown: it probably
        appears once the fault is corrected."""
        self.faults: list[tuple[Place, str]] = []

    def experiment(self) -> Experiment:
        paths = self.plugins()
        self.unknown_tables()
        name = self.name()
        # The task comes before the tables of parts, since it decides whether there has to be a [loss].
        task = self.task()
        if task is not None and task.part.name in KINDS["task"]:
            self.own_loss = not getattr(KINDS["task"][task.part.name], "needs_loss", True)
        elif self.withheld:
            self.own_loss = True
        self.length()
        settings = {table: self.settings(table) for table in SETTINGS}
        single = {table: self.part(table) for table in TABLES}
        lists = {table: self.parts(table) for table in ARRAYS}
        if not self.withheld:  # else what the file names cannot be made; it was checked when it was run
            self.relations(task, settings, single, lists)
        # By file and line, whatever the order of the checks; what two checks find is reported once.
        if self.faults:
            ordered = sorted(self.faults, key=lambda fault: (fault[0].source, fault[0].line, fault[0].column))
            raise UserError(*dict.fromkeys(f"{place}: {message}" for place, message in ordered))
        assert task is not None
        return Experiment(
            name=name,
            task=task,
            transforms=lists["transform"],
            augmentations=lists["augment"],
            metrics=lists["metric"],
            handlers=lists["handler"],
            plugins=paths,
            withheld=tuple(self.withheld),
            **{table: SETTINGS[table](**values) for table, values in settings.items() if values is not None},
            **single,  # type: ignore[arg-type]  # required ones are there where no fault was found
        )

    def fault(self, keys: Keys, message: str) -> None:
        self.faults.append((self.tree.place(keys), message))

    def plugins(self) -> tuple[Path, ...]:
        # Plugins of an experiment that was read before must not provide parts to this one.
        plugins.load_installed()
        plugins.load([])
        written = self.tree.values.get("plugins", [])
        if not isinstance(written, list) or not all(isinstance(file, str) for file in written):
            self.fault(("plugins",), f"plugins: should be an array of file names, got {written!r}")
            return ()
        good: list[Path] = []
        withheld: list[Path] = []
        for index, file in enumerate(written):
            place = self.tree.place(("plugins", index))
            path = place.folder / file
            if not toml_document.is_file(path):
                self.faults.append((place, f"plugins: no file '{os.path.abspath(path)}'"))  # noqa: PTH100
                continue
            path = path.resolve()
            if refused := trust.refusal(path, place.folder, self.received):
                self.withheld.append(refused)
                withheld.append(path)
                continue
            good.append(path)
            try:
                faults = plugins.add(good[-1])
            except UserError as error:
                faults = error.faults
            self.faults += [(place, f"plugins: {fault}") for fault in faults]
            self.unsound += [good[-1].read_text(encoding="utf-8", errors="replace")] if faults else []
        # A plugin that is not trusted is the only fault to report: without it, its parts would be unknown as well.
        if self.withheld and self.execute:
            raise UserError(*self.withheld)
        good += withheld
        if len({path.name for path in good}) < len(good):
            self.fault(("plugins",), "plugins: two files of one name; a run keeps its copies side by side")
        return tuple(good)

    def unknown_tables(self) -> None:
        known = ["name", "extends", "plugins", "task", *SETTINGS, *TABLES, *ARRAYS]
        for key in self.tree.values:
            if key not in known:
                home = home_of(key)
                within = f"; it belongs to {home}" if home else did_you_mean(key, known)
                self.fault((key,), f"{key}: unknown table or key{within}")

    def name(self) -> str:
        name = self.tree.values.get("name", self.stem)
        plain = isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= LONGEST_NAME
        if not plain or set(name) & set("/\\") or name.startswith("."):
            self.fault(("name",), f"name: should be a plain name for a folder, got {name!r}")
        return str(name)

    def task(self) -> Task | None:
        """Check `[task]`: the keys that every task has, and the options of the task that it names."""
        values = self.tree.values.get("task")
        if not isinstance(values, dict):
            self.missing_or_wrong("task", values, "a table")
            return None
        shared = {key: value for key, value in values.items() if key in TASK.keys}
        rest = {key: value for key, value in values.items() if key not in TASK.keys}
        part = self.one("task", "task", ("task",), "[task]", {"name": DEFAULT_TASK, **rest}, known=TASK.keys)
        typed = self.checked(("task",), "[task]", TASK, shared, "task")
        return Task(**typed, part=part) if typed is not None and part is not None else None

    def length(self) -> None:
        """Check that the length of the training is set by exactly one key."""
        table = self.tree.values.get("train")
        lengths = [key for key in LENGTHS if isinstance(table, dict) and key in table]
        if len(lengths) > 1:
            others = " and ".join(f"'{key}'" for key in lengths[:-1])
            self.fault(("train", lengths[-1]), f"[train] {lengths[-1]}: stands beside {others}; keep one of them")
        if isinstance(table, dict) and not lengths:
            self.fault(("train",), "[train]: needs one of 'epochs', 'steps' and 'budget'")

    def settings(self, table: str) -> dict[str, Any] | None:
        """Return the typed values of a table of settings, empty for an optional one; None if it has faults."""
        if table in OPTIONAL and table not in self.tree.values:
            return {}
        return self.table(table, SCHEMAS[table])

    def table(self, name: str, schema: Schema) -> dict[str, Any] | None:
        """Return the typed values of a table that is no part; None if it has faults."""
        values = self.tree.values.get(name)
        if not isinstance(values, dict):
            self.missing_or_wrong(name, values, "a table")
            return None
        return self.checked((name,), f"[{name}]", schema, values, name)

    def missing_or_wrong(self, name: str, value: Any, wanted: str) -> None:
        if value is None:
            self.faults.append((self.tree.top, f"[{name}]: missing; every experiment needs it"))
        else:
            self.fault((name,), f"{name}: should be {wanted}, got {value!r}")

    def checked(
        self, at: Keys, label: str, schema: Schema, values: Mapping[str, Any], owner: str, also: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        typed, problems = schema.check(values)
        for problem in problems:
            key = ".".join(map(str, problem.keys))
            known = isinstance(problem.keys[0], str) and problem.keys[0] in schema.keys
            message = problem.message
            if not known and (now := renamed(owner, key)):
                message = f"is now {now}"
            elif not known and (home := home_of(key) or self.home_among_parts(key)):
                message = f"belongs to {home}"
            elif not known and also:
                message = "unknown key" + did_you_mean(key, [*also, *schema.keys])
            self.fault((*at, *problem.keys), f"{label} {key}: {message}")

        def rooted(keys: Keys, value: Any) -> Any:
            marked = schema.must_exist(str(keys[0]))
            # Of a table with other faults nothing is typed, but which file is missing can be told all the same.
            if isinstance(value, Path) or (problems and marked and keys[1:] == () and isinstance(value, str)):
                return self.rooted((*at, *keys), f"{label} {'.'.join(map(str, keys))}", marked, Path(value))
            return value

        rooted_values: dict[str, Any] = each(rooted, values if problems else typed)
        return None if problems else rooted_values

    def rooted(self, keys: Keys, label: str, marked: MustExist | None, path: Path) -> Path | None:
        """Return a path as absolute from the folder of the file that has it. A fault if it is marked and missing."""
        try:
            folder = self.tree.place(keys).folder
            if marked and marked.holding:
                if str(path) == pretrained.RANDOM and not pretrained.is_run(path, folder):
                    return None
                path = pretrained.located(path, folder)
            path = (folder / path.expanduser()).resolve()
        except (RuntimeError, ValueError) as error:  # no such user's home; a circle of links; a null character
            self.fault(keys, f"{label}: no path ({error}), got {json.dumps(str(path))}")
            self.absent = True
            return path
        wanted = self.with_data and not (self.begun and marked and marked.holding)
        if wanted and marked and (wrong := _lacking(marked, path)):
            if self.tree.place(keys).folder == starters.folder():
                wrong += f"; name yours in a file that extends this one, or with --set {'.'.join(map(str, keys))}=…"
            self.fault(keys, f"{label}: {wrong}")
            self.absent = True
        return path

    def home_among_parts(self, key: str) -> str | None:
        """Return the table of the part, of those that the file names, which has such an option."""
        for table, kind in TABLES.items():
            values = self.tree.values.get(table)
            name = values.get("name") if isinstance(values, dict) else None
            if isinstance(name, str) and name in KINDS[kind] and key in KINDS[kind].find(name).schema.keys:
                return f"[{table}] {key}"
        return None

    def part(self, table: str) -> Part | None:
        values = self.tree.values.get(table)
        if values is None and (table in OPTIONAL or (table == "loss" and self.own_loss)):
            return None
        if not isinstance(values, dict):
            self.missing_or_wrong(table, values, "a table")
            return None
        return self.one(table, TABLES[table], (table,), f"[{table}]", values)

    def parts(self, table: str) -> tuple[Part, ...]:
        values = self.tree.values.get(table, [])
        if not isinstance(values, list) or not all(isinstance(table_of_part, dict) for table_of_part in values):
            self.fault((table,), f"{table}: should be an array of tables, [[{table}]], got {values!r}")
            return ()
        if not values and table not in OPTIONAL:
            self.faults.append((self.tree.top, f"[[{table}]]: missing; every experiment needs one"))
        parts = [
            self.one(table, ARRAYS[table], (table, i), f"[[{table}]]", table_of_part)
            for i, table_of_part in enumerate(values)
        ]
        return tuple(part for part in parts if part)

    def one(
        self, table: str, kind: str, at: Keys, label: str, values: Mapping[str, Any], known: Sequence[str] = ()
    ) -> Part | None:
        name = values.get("name")
        if not isinstance(name, str):
            message = "missing; add 'name = …'" if name is None else f"should be a string, got {name!r}"
            self.fault((*at, "name"), f"{label} name: {message} (known: {', '.join(KINDS[kind])})")
            return None
        # A withheld plugin may define the part, so its name and options cannot be checked.
        if name not in KINDS[kind] and self.withheld:
            options = {key: value for key, value in values.items() if key not in ("name", *known)}
            return Part(kind, name, options, table, self.tree.place((*at, "name")))
        # Likewise, a plugin that could not be loaded may define the part: its own fault is enough.
        if name not in KINDS[kind] and any(f"{quote}{name}{quote}" in text for text in self.unsound for quote in "'\""):
            self.own_loss |= kind == "task"  # which nobody can know before
            return None
        if name not in KINDS[kind]:
            self.fault((*at, "name"), f"{label} name: unknown {kind} '{name}'{did_you_mean(name, KINDS[kind])}")
            return None
        rest = {key: value for key, value in values.items() if key != "name"}
        typed = self.checked(at, label, KINDS[kind].find(name).schema, rest, name, known)
        if typed is None:
            return None
        places = {key: self.tree.place((*at, key)) for key in rest}
        return Part(kind, name, typed, table, self.tree.place((*at, "name")), places)

    def relations(
        self,
        task: Task | None,
        settings: Mapping[str, Mapping[str, Any] | None],
        single: Mapping[str, Part | None],
        lists: Mapping[str, tuple[Part, ...]],
    ) -> None:
        """Check what involves several tables, or a part that has to be made. Tables with faults are left out."""
        # Names are read off the document, not off the parts: a metric with a fault is still one that can be monitored.
        tables = self.tree.values.get("metric")
        names = (
            [str(table.get("name")) for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
        )
        for part in lists["metric"]:
            if names.count(part.name) > 1:
                self.faults.append(
                    (part.place, f"[[metric]] name: '{part.name}' stands {names.count(part.name)} times")
                )
        self.settings_relations({table: values or {} for table, values in settings.items()}, names)
        for table, check in (("transform", self.whole_image_transform), ("augment", self.augmentation)):
            for part in lists[table]:
                with self.blamed(part):
                    check(part)
        if task is None:
            return
        if len(set(task.classes)) < len(task.classes):
            self.fault(("task", "classes"), f"[task] classes: a name stands twice in {list(task.classes)}")
        if taken := {"all", "mean"} & set(task.classes):
            self.fault(
                ("task", "classes"), f"[task] classes: '{min(taken)}' names a row of every table; rename the class"
            )
        classes = len(task.classes)
        learnt = self.guarded(task.part, task.channels, classes, instance_of=contracts.Task)
        if learnt is not None and (malformed := _fault_of_task(learnt)):
            self.faults.append((task.part.place, f"[task] name: '{task.part.name}' {malformed}"))
        for part in lists["handler"]:  # not made here: their factories need a run
            factory = KINDS["handler"][part.name]
            if isinstance(factory, type) and missing(factory, contracts.Handler):
                self.faults.append((part.place, f"[[handler]] name: '{part.name}' has no 'attach'"))
            elif isinstance(factory, type) and not _takes(factory.attach, "self", "trainer", "validator"):  # type: ignore[attr-defined]
                message = f"'attach' of '{part.name}' is called as attach(trainer, validator)"
                self.faults.append((part.place, f"[[handler]] name: {message}"))
        if single["loss"]:
            self.guarded(single["loss"], classes, instance_of=contracts.Loss)
            if self.own_loss:
                self.faults.append((single["loss"].place, "[loss] name: the task has a loss of its own; omit [loss]"))
        metrics_ = [(part, self.guarded(part, classes, instance_of=PerImageMetric)) for part in lists["metric"]]
        for part, metric in metrics_:
            # Not `hasattr`: Ignite's metrics return an object for any unknown attribute.
            if metric is not None and not isinstance(metric.higher_is_better, bool):
                message = (
                    f"'{part.name}' does not say whether 'higher_is_better', as True or False; add it to the class"
                )
                self.faults.append((part.place, f"[[metric]] name: {message}"))
            elif metric is not None and not _is_range(metric.bounds):
                message = f"'{part.name}' has bounds = {metric.bounds!r}; say the lowest and the highest score"
                self.faults.append((part.place, f"[[metric]] name: {message}"))
        if self.with_data and single["dataset"] and not self.absent:
            with self.blamed(single["dataset"]):
                self.data(task, learnt, single["dataset"], metrics_)

    def settings_relations(self, settings: Mapping[str, Mapping[str, Any]], metric_names: Sequence[str]) -> None:
        patches, validation, runtime = (settings[table] for table in ("patches", "validation", "runtime"))
        if (monitor := validation.get("monitor")) and monitor not in (*metric_names, "loss"):
            known = did_you_mean(monitor, [*metric_names, "loss"])
            self.fault(("validation", "monitor"), f"[validation] monitor: no metric '{monitor}'{known}")
        # With 'random', as with weights that do not fit, what extends a file with a share need not take it back.
        if settings["train"].get("init_share") and "init_from" not in self.tree.values["train"]:
            self.fault(("train", "init_share"), "[train] init_share: has no effect without 'init_from'")
        if settings["train"].get("plain_steps") and "augment" not in self.tree.values:
            self.fault(("train", "plain_steps"), "[train] plain_steps: has no effect without [[augment]]")
        for key, other in (("folds", "fold"), ("fold", "folds")):
            if validation.get(key) and not validation.get(other):
                self.fault(("validation", key), f"[validation] {key}: has no effect without '{other}'")
        for key in ("per_image", "foreground_fraction"):
            if patches.get("stride") and patches.get(key):
                self.fault(
                    ("patches", "stride"),
                    f"[patches] stride: is for sliding patches, '{key}' for random ones; keep one of them",
                )
        if runtime.get("cache") == "device" and runtime.get("workers"):
            fault = "worker processes cut patches from memory; set 'workers = 0', or another cache"
            self.fault(("runtime", "cache"), f"[runtime] cache: {fault}")
        batch, shards = settings["train"].get("batch_size", Train.batch_size), runtime.get("shards", Runtime.shards)
        if batch < shards:
            fault = f"a batch of {batch} has no {shards} parts; set [train] batch_size = {shards}"
            self.fault(("runtime", "shards"), f"[runtime] shards: {fault}")

    def guarded(self, part: Part, *given: Any, instance_of: type = object) -> Any:
        """Make a part and return it; None, with a fault recorded, if that fails or makes something else."""
        with self.blamed(part):
            instance = part.make(*given)
            if isinstance(instance, instance_of) and instance is not None:
                return instance
            fault = "makes None" if instance is None else f"is no {instance_of.__name__}"
            self.faults.append((part.place, f"{part.label} name: '{part.name}' {fault}"))
        return None

    @contextmanager
    def blamed(self, part: Part) -> Iterator[None]:
        """Record errors within the block as faults of a part; other errors than UserError only if it is user code.

        In a part of this package they are bugs, and keep their traceback.
        """
        try:
            yield
        except UserError as error:
            self.faults += part.faults(error)
        except Exception as error:
            if not KINDS[part.kind].find(part.name).foreign:
                raise
            said = plugins.fault_of(error) or in_one_line(error)
            self.faults.append((part.place, f"{part.label} name: '{part.name}' fails: {said}"))

    def whole_image_transform(self, part: Part) -> None:
        transform = self.guarded(part, instance_of=BasicTransform2D)
        if transform is None:
            return
        if not transform.acts():
            self.faults.append((part.place, f"[[transform]] name: '{part.name}' {IDLE}"))
        elif transform.draws():
            message = f"'{part.name}' draws random numbers; it belongs under [[augment]]"
            self.faults.append((part.place, f"[[transform]] name: {message}"))
        elif transform.has("geometry") and not transform.has("restore"):
            message = f"'{part.name}' changes the grid and has no 'restore'; scores are on the original pixels"
            self.faults.append((part.place, f"[[transform]] name: {message}"))

    def augmentation(self, part: Part) -> None:
        transform = self.guarded(part, instance_of=BasicTransform2D)
        if transform is not None and not transform.acts():
            self.faults.append((part.place, f"[[augment]] name: '{part.name}' {IDLE}"))
        elif transform is not None and (transform.whole_images or transform.has("fit") or transform.has("statistics")):
            message = f"'{part.name}' is for whole images; it belongs under [[transform]]"
            self.faults.append((part.place, f"[[augment]] name: {message}"))

    def data(self, task: Task, learnt: contracts.Task | None, part: Part, metrics_: Sequence[tuple[Part, Any]]) -> None:
        dataset = self.guarded(part)
        if dataset is None:
            return
        if lacking := missing(dataset, contracts.Dataset):
            wanted = "splits, maps, normalization, shape(name) and read(name)"
            fault = f"'{part.name}' has no {' and no '.join(lacking)}; a data set has {wanted}"
            self.faults.append((part.place, f"[dataset] name: {fault}"))
            return
        foreign = KINDS["dataset"].find(part.name).foreign
        if foreign and (malformed := fault_of_dataset(dataset)):
            self.faults.append((part.place, f"[dataset] name: '{part.name}': {malformed}"))
            return
        for split, act in (("train", "train"), ("val", "validate")):
            if not dataset.splits.get(split):
                self.faults.append((part.place, f"[dataset] name: '{part.name}' has no images to {act} on"))
        names = [name for split in dataset.splits.values() for name in split]
        wrong = [name for name in names if dataset.shape(name)[0] != task.channels]
        if wrong:
            has = dataset.shape(wrong[0])[0]
            message = f"is {task.channels}, but image '{wrong[0]}' has {has} (and {len(wrong) - 1} more)"
            self.fault(("task", "channels"), f"[task] channels: {message}")
        if names and foreign and (malformed := fault_of_sample(dataset, names[0])):
            self.faults.append((part.place, f"[dataset] name: '{part.name}': {malformed}"))
        for wanted in learnt.maps if learnt else ():
            if wanted not in dataset.maps:
                message = f"'{task.part.name}' {_without_map(wanted, dataset.maps)}"
                self.faults.append((task.part.place, f"[task] name: {message}"))
        for metric_part, metric in metrics_:
            for wanted in metric.maps if metric is not None else ():
                name = wanted.removeprefix("predicted_")
                if name == wanted and name not in dataset.maps:
                    message = _without_map(name, dataset.maps)
                    message += "; it can be left out: [[metric]] tables of your file replace those that it extends"
                elif (
                    name != wanted
                    and learnt is not None
                    and name not in learnt.values
                    and not (learnt.approximates and name == "instances")
                ):
                    known = ", ".join(learnt.values) or "classes alone"
                    message = f"needs predicted {name}; the task '{task.part.name}' predicts {known}"
                else:
                    continue
                self.faults.append((metric_part.place, f"[[metric]] name: '{metric_part.name}' {message}"))


def _takes(function: Callable[..., Any], *given: object) -> bool:
    """Whether a function can be called with this number of positional arguments."""
    try:
        inspect.signature(function).bind(*given)
    except TypeError:
        return False
    return True


def _is_range(bounds: object) -> bool:
    """Whether `bounds` is a pair of numbers, the lower one first."""
    numbers = isinstance(bounds, tuple | list) and len(bounds) == 2 and all(isinstance(n, int | float) for n in bounds)
    return isinstance(bounds, tuple | list) and numbers and bounds[0] < bounds[1]


def _fault_of_task(task: contracts.Task) -> str | None:
    """Return what is wrong with the attributes of a task; None if nothing is."""
    outputs: object = task.outputs
    if not isinstance(outputs, int) or outputs < 1:
        return f"has outputs = {outputs!r}; say how many channels the model has to give"
    planes: object = task.planes
    if not isinstance(planes, tuple | list) or set(planes) - {*get_args(contracts.Interpolation)}:
        return f"has planes = {planes!r}; say 'nearest' or 'bilinear' of each plane of its targets, in a tuple"
    return None


def _without_map(name: str, there: Sequence[str]) -> str:
    remedy = "; pack label files that give each cell an id, with --labels instance" if name == "instances" else ""
    return f"needs the map '{name}'; the data has {', '.join(there) or 'no further maps'}{remedy}"
