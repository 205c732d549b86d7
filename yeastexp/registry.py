"""Registries from names to factories of parts, and schemas of their tables, read off the factories' signatures.

A part is made by calling its factory with arguments that a file cannot hold, by position, then with the keys of its
table by name. The signature (type hints, `Annotated` ranges, defaults) is the schema of that table.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model

from yeastexp.errors import UserError, did_you_mean, in_one_line

Factory = TypeVar("Factory", bound=Callable[..., Any])

LONGEST_QUOTE = 100
"""The number of characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class MustExist:
    """Marks a path that must exist before an experiment starts; `holding` names a file that must be in the folder."""

    what: str = "file"
    holding: str = ""


InputFile = Annotated[Path, MustExist()]


@dataclass(frozen=True)
class Problem:
    """One fault of a table: the keys of the faulty value, and what is wrong with it."""

    keys: tuple[str | int, ...]
    message: str


class Schema:
    """The keys of a table, read off a factory's signature; its first parameters, those `given` by position, are none.

    Raises UserError if the signature cannot be one of a table.
    """

    def __init__(self, factory: Callable[..., Any], given: Sequence[str] = ()) -> None:
        parameters = list(inspect.signature(factory, eval_str=True).parameters.values())
        self.given = [parameter.name for parameter in parameters[: len(given)]]
        self.parameters = parameters[len(given) :]
        called = f"it is called as f({', '.join([*given, '**table'])})"
        if len(self.given) < len(given):
            raise UserError(
                f"takes {len(self.given)} of the {len(given)} arguments that are given by position; {called}"
            )
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                raise UserError(f"takes *{parameter.name}; name every option, so that a misspelt one is found")
        for parameter in parameters[: len(given)]:
            if parameter.kind is parameter.KEYWORD_ONLY:
                raise UserError(f"takes '{parameter.name}' by name only; it is given by position: {called}")
        for parameter in self.parameters:
            if parameter.kind is parameter.POSITIONAL_ONLY or parameter.name.startswith("_"):
                raise UserError(f"option '{parameter.name}' cannot be a TOML key; drop the '/' or the underscore")
            if parameter.annotation is parameter.empty:
                hint = "the hint is the schema of the TOML key"
                raise UserError(f"option '{parameter.name}' has no type hint; {hint}, and {called}")
            # In the signature of a dataclass this placeholder stands for `default_factory`.
            if repr(parameter.default) == "<factory>":
                raise UserError(f"option '{parameter.name}' has a default factory; give it a plain, immutable default")
            if parameter.name == "name":
                raise UserError("option 'name' would hide the name of the part; call it something else")

    @functools.cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model of the table: unknown keys are faults, and no value is converted."""
        fields: dict[str, Any] = {
            p.name: (p.annotation, ... if p.default is p.empty else p.default) for p in self.parameters
        }
        config = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Field name .* shadows")  # an option may be called `copy`
            return create_model("table", __config__=config, **fields)

    @property
    def keys(self) -> list[str]:
        """The names of the keys."""
        return [parameter.name for parameter in self.parameters]

    def must_exist(self, key: str) -> MustExist | None:
        """Return the `MustExist` of a key whose path, or each of whose paths, must exist; None for any other key."""
        annotations = [parameter.annotation for parameter in self.parameters if parameter.name == key]
        return next((marked for annotation in annotations for marked in _marks(annotation)), None)

    def check(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """Return the typed values of a table, none if it has faults, and all its faults."""
        problems = list(_foreign(values))
        try:
            # Validated as JSON, since pydantic's strict mode for Python refuses a list or a string where the hint is a
            # tuple or a Path. For JSON it converts these, but still no string to a number. `default=str` is for dates,
            # which are faults already.
            table = self.model.model_validate_json(json.dumps(values, default=str))
        except ValidationError as error:
            named = {problem.keys[0] for problem in problems}
            return {}, [*problems, *(problem for problem in self._problems(error) if problem.keys[0] not in named)]
        # Only the keys that are written: the factory itself supplies the defaults.
        return ({}, problems) if problems else ({key: getattr(table, key) for key in values}, [])

    def _problems(self, error: ValidationError) -> Iterator[Problem]:
        merged: dict[tuple[str | int, ...], list[str]] = {}
        faults = error.errors(include_url=False)
        for fault in faults:
            if fault["type"] == "too_short" and any(other["loc"][:-1] == fault["loc"] for other in faults):
                continue  # pydantic counts sound elements only, so the faults of the others say it all
            # A union reports each of its members as a further element of the location; a TOML path ends before.
            where = fault["loc"][:1] if fault["loc"][1:] and isinstance(fault["loc"][1], str) else fault["loc"]
            merged.setdefault(where, []).append(self._message(fault))
        for where, messages in merged.items():
            yield Problem(where, " or ".join(dict.fromkeys(messages)))

    def _message(self, fault: Any) -> str:
        if fault["type"] == "extra_forbidden":
            return "unknown key" + did_you_mean(str(fault["loc"][-1]), self.keys)
        if fault["type"] == "missing":
            key = fault["loc"][-1]
            return f"missing; add '{key} = …'" if isinstance(key, str) else f"missing; give {key + 1} values"
        wanted = re.sub("^(Input|String|Tuple|Value error,) | after validation, not [0-9]+$", "", fault["msg"])
        if fault["type"] == "string_pattern_mismatch" and (
            meant := self.model.model_fields[fault["loc"][0]].description
        ):
            wanted = f"wants {meant}"
        message = f"{wanted}, got {_quoted(fault['input'])}"
        if fault["type"] == "literal_error" and isinstance(fault["input"], str):
            message += did_you_mean(fault["input"], re.findall("'(.*?)'", fault["ctx"]["expected"]))
        return message


def _quoted(value: Any) -> str:
    """Return a value as JSON, cut after LONGEST_QUOTE characters."""
    written = json.dumps(value)
    return written if len(written) <= LONGEST_QUOTE else f"{written[:LONGEST_QUOTE]}…"


def _marks(annotation: Any) -> Iterator[MustExist]:
    """Yield the `MustExist` in a hint, also in its unions and tuples."""
    if isinstance(annotation, MustExist):
        yield annotation
    for inner in get_args(annotation):
        yield from _marks(inner)


def _foreign(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Yield faults for values that TOML allows and no option takes: dates, times, and integers beyond 64 bits."""
    if isinstance(value, date | time):
        yield Problem(keys, f"should be no date or time, got {value}; put text in quotes")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield Problem(keys, f"should fit into 64 bits, got {_quoted(value)}")
    elif isinstance(value, Mapping | list):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _foreign(inner, (*keys, key))


@dataclass(frozen=True)
class Entry:
    """One registered part."""

    kind: str
    name: str
    factory: Callable[..., Any]
    schema: Schema
    plugin: Path | None

    @functools.cached_property
    def place(self) -> str:
        """Where the part is defined, as `file:line`."""
        return source_of(self.factory)

    @property
    def foreign(self) -> bool:
        """Whether the part is not from this package, so that errors in it are its author's and get one line."""
        module: str = getattr(self.factory, "__module__", "")
        return module.partition(".")[0] != __name__.partition(".")[0]

    @property
    def doc(self) -> str:
        """The part's docstring, empty if it has none; the signature that dataclasses generate is none."""
        written = inspect.getdoc(self.factory) or ""
        return "" if written.startswith(f"{getattr(self.factory, '__name__', '')}(") else written

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.partition("\n")[0]


class Registry:
    """The parts of one kind by name. Calling it with a name gives the decorator that registers a factory."""

    loading: Path | None = None
    """The plugin file that is being loaded, to which the parts registered meanwhile belong."""

    faults: ClassVar[list[str] | None] = None
    """Collects the faults of parts while a plugin is loaded, so that its sound parts are registered all the same; if it
    is None, the first fault is raised."""

    def __init__(self, kind: str, *given: str, says: str = "") -> None:
        self.kind = kind
        self.given = given
        self.says = says
        """A bool attribute that a class must have, since any default would be silently wrong for some classes."""
        self._entries: dict[str, Entry] = {}

    def __call__(self, name: str) -> Callable[[Factory], Factory]:
        # `@loss` without a name calls this with the factory. The fault is reported, and the factory left as it is.
        unnamed: Any = name
        if not isinstance(unnamed, str):
            fault = f"@{self.kind} needs a name, as in @{self.kind}('mine')"
            if Registry.faults is None or not callable(unnamed):
                raise TypeError(fault)
            Registry.faults.append(f"{source_of(unnamed)}: {fault}")
            return cast("Callable[[Factory], Factory]", unnamed)

        def register(factory: Factory) -> Factory:
            try:
                self._entries[name] = self._entry(name, factory)
            except UserError as error:
                if Registry.faults is None:
                    raise
                Registry.faults += error.faults
            return factory

        return register

    def _entry(self, name: str, factory: Callable[..., Any]) -> Entry:
        if taken := self._entries.get(name):
            raise UserError(_taken(source_of(factory), taken))
        try:
            schema = Schema(factory, self.given)
            if self.says and isinstance(factory, type) and not hasattr(factory, self.says):
                raise UserError(f"does not say '{self.says}'; add '{self.says} = True', or False, to the class")
            # Hints that pydantic cannot use are found when the schema is built. For the package's own parts a test does
            # that, since it would slow down every import.
            if Registry.loading:
                schema.model.model_json_schema()
        except PydanticUserError as error:
            fault = f"has a hint that no TOML value fits: {error.message.partition('. ')[0]}"
        except UserError as error:
            fault = str(error)
        except (NameError, AttributeError, SyntaxError) as error:
            fault = f"has a hint that cannot be evaluated: {in_one_line(error)}"
        else:
            return Entry(self.kind, name, factory, schema, Registry.loading)
        raise UserError(f"{source_of(factory)}: {self.kind} '{name}' {fault}")

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self.find(name).factory

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def find(self, name: str) -> Entry:
        """Return the entry of a name. Raises UserError with the known names if there is none."""
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}'{did_you_mean(name, self)}")
        return self._entries[name]

    def entries(self) -> list[Entry]:
        """Return all entries, sorted by name."""
        return [self._entries[name] for name in self]

    def forget(self, plugins: Iterable[Path]) -> None:
        """Remove the parts that plugins registered."""
        gone = set(plugins)
        self._entries = {name: entry for name, entry in self._entries.items() if entry.plugin not in gone}

    def restore(self, entries: Iterable[Entry]) -> list[str]:
        """Register entries again. Returns a fault for each whose name another part has taken meanwhile."""
        taken = [(entry, self._entries.setdefault(entry.name, entry)) for entry in entries]
        return [_taken(entry.place, by) for entry, by in taken if by is not entry]


def _taken(place: str, by: Entry) -> str:
    return f"{place}: {by.kind} '{by.name}' is taken by {by.place}; choose another name"


def source_of(factory: Callable[..., Any]) -> str:
    """Return `file:line` of a factory's definition, or its dotted name if it has no source."""
    try:
        return f"{inspect.getsourcefile(factory)}:{inspect.getsourcelines(factory)[1]}"
    except (OSError, TypeError):
        return f"{getattr(factory, '__module__', '?')}.{getattr(factory, '__qualname__', '?')}"


def missing(instance: object, contract: type) -> list[str]:
    """Return the public names of a contract that an object lacks.

    The type is asked first: `hasattr` of an instance would run its properties, which may read files.
    """
    names = [name for name in vars(contract) if not name.startswith("_")]
    return [name for name in names if not hasattr(type(instance), name) and not hasattr(instance, name)]


def described(value: Any) -> str:
    """Describe a value that a part returned, for a message: type, dtype and shape, or keys."""
    kind = type(value).__name__
    if value is None:
        return "None"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        kind = f"{str(value.dtype).removeprefix('torch.')} {kind.lower()} {tuple(value.shape)}"
    elif isinstance(value, tuple) and value:
        kind = f"tuple of {', '.join(map(described, value))}"
    elif isinstance(value, Mapping):
        kind = f"{kind} of {', '.join(map(repr, value)) or 'nothing'}"
    return f"{'an' if kind.startswith('i') else 'a'} {kind}"


dataset = Registry("dataset")
transform = Registry("transform")
model = Registry("model", "channels", "outputs")
loss = Registry("loss", "classes")
optimizer = Registry("optimizer", "parameters")
scheduler = Registry("scheduler", "optimizer", "steps")
metric = Registry("metric", "classes", says="higher_is_better")
task = Registry("task", "channels", "classes")
handler = Registry("handler", "context")

KINDS = {r.kind: r for r in (dataset, transform, task, model, loss, optimizer, scheduler, metric, handler)}


@contextmanager
def preserved() -> Iterator[None]:
    """Restore the registered parts at the end of the block, but keep parts of modules that are imported within.

    `yeastexp.plugins.preserved` also restores plugin files.
    """
    entries = {registry: dict(registry._entries) for registry in KINDS.values()}
    modules = set(sys.modules)
    try:
        yield
    finally:
        imported_now = sys.modules.keys() - modules
        for registry, before in entries.items():
            # A module registers its parts only when it is first imported: they could not be registered again.
            imported = {
                name: entry
                for name, entry in registry._entries.items()
                if entry.plugin is None and entry.factory.__module__ in imported_now
            }
            registry._entries = imported | before
