"""TOML files merged into one tree in which every value knows where it was written."""

from __future__ import annotations

import bisect
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from yeastexp.config import starters
from yeastexp.errors import UserError

Keys = tuple[str | int, ...]

LARGEST_FILE = 1_000_000
"""Bytes; an experiment file fits on a screen, so a larger file is none."""

DEEPEST = 20
"""The largest depth of tables and arrays, so that functions can walk a document recursively."""

LONGEST_SHOWN = 200
"""The number of characters of a setting that messages show."""

LARGEST_FAMILY = 20
"""The largest number of files that extend one another."""


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file with line and column, or an option of the command line."""

    source: str
    line: int = 0
    column: int = 0
    folder: Path = field(default_factory=Path.cwd, compare=False)
    """The folder that relative paths in this value start from."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass
class Document:
    """The merged values, and the place of each by its keys (indices for array elements)."""

    top: Place
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, Place] = field(default_factory=dict)

    def place(self, keys: Keys) -> Place:
        """Return the place of a value, or that of the innermost table around it that has one."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, self.top)

    def assign(self, keys: Keys, value: Any, places: Mapping[Keys, Place]) -> None:
        """Set a value, replacing any other with its places; `places` are those of the value and of all inside it."""
        self.drop(keys)
        table: Any = self.values
        for key in keys[:-1]:
            table = table.setdefault(key, {}) if isinstance(table, dict) else table[key]
        table[keys[-1]] = value
        self.places.update(places)

    def drop(self, keys: Keys) -> None:
        """Remove a value with its places and those of all inside it."""
        self.places = {k: place for k, place in self.places.items() if k[: len(keys)] != keys}
        table: Any = self.values
        for key in keys[:-1]:
            table = table.get(key, {}) if isinstance(table, dict) else table[key]
        if isinstance(table, dict):
            table.pop(keys[-1], None)


def read(path: Path, exclusive: Mapping[Keys, Collection[str]]) -> Document:
    """Read a file, merged with all files that it extends.

    `exclusive` has, by table, keys that exclude each other: a file that sets one drops the others that it inherits.
    """
    return _read(path, exclusive, ())


def _read(path: Path, exclusive: Mapping[Keys, Collection[str]], children: tuple[Path, ...]) -> Document:
    child = parse(_text(path), source=str(path), folder=path.parent)
    return _with_parents(child, exclusive, (*children, path.resolve()))


def of(values: Mapping[str, Any], exclusive: Mapping[Keys, Collection[str]]) -> Document:
    """Return the document of an experiment given as a dictionary, merged with all files that it extends.

    Paths start from the working directory. Raises UserError if a value could not stand in a TOML file.
    """
    source = "experiment"
    # Written and parsed again, so that it passes the same checks as a file. The positions in that text mean nothing to
    # the user and are replaced.
    child = parse(tomli_w.dumps(_plain(values, source, ())), source, Path.cwd())
    child.top = Place(source)
    child.places = {keys: Place(source) for keys in child.places}
    return _with_parents(child, exclusive, ())


def _plain(value: Any, source: str, keys: Keys) -> Any:
    """Return tables, arrays, paths and NumPy's scalars as values that TOML has. Raises UserError for all others."""
    dotted = ".".join(map(str, keys))
    if len(keys) > DEEPEST:
        raise UserError(f"{source}: nested too deeply; an experiment needs three levels")
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise UserError(f"{source}: {dotted or 'keys'}: should be strings, got {wrong[0]!r}")
        return {key: _plain(inner, source, (*keys, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, source, (*keys, index)) for index, inner in enumerate(value)]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None:
        raise UserError(f"{source}: {dotted}: is None; omit it")
    if not isinstance(value, bool | int | float | str | date | time):
        kind = type(value).__name__
        raise UserError(f"{source}: {dotted}: should be a number, a string, an array or a table, got {kind}")
    return value


def _with_parents(child: Document, exclusive: Mapping[Keys, Collection[str]], family: tuple[Path, ...]) -> Document:
    """Return a document merged with all that it extends; `family` has its own file and the files that extend it."""
    parent_name = child.values.get("extends")
    if parent_name is None:
        return child
    place = child.place(("extends",))
    if not isinstance(parent_name, str):
        raise UserError(f"{place}: extends: should be one file name, got {parent_name!r}")
    try:
        starter = starters.find(parent_name)
    except UserError as error:
        raise UserError(f"{place}: extends: {error}") from None
    # A null character makes functions of the system raise ValueError; replaced, the path is simply not there.
    parent_path = starter or place.folder / parent_name.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if not is_file(parent_path):
        starter_meant = parent_path.stem in starters.names()
        meant = f"; did you mean '{starters.PREFIX}{parent_path.stem}'?" if starter_meant else ""
        raise UserError(f"{place}: extends: no file '{parent_path}'{meant}")
    if parent_path.resolve() in family:
        raise UserError(f"{place}: extends: '{parent_name}' extends this file in turn; break the circle")
    if len(family) == LARGEST_FAMILY:
        raise UserError(f"{place}: extends: {LARGEST_FAMILY} files extend one another by now; write some as one")
    merged = _read(parent_path, exclusive, family)
    child.values.pop("extends")
    merged.drop(("name",))  # the name of an experiment is its own, never inherited
    merge(merged, child, exclusive)
    merged.top = child.top
    return merged


def is_file(path: Path) -> bool:
    """Whether a file exists; False also for impossible paths (too long, or with a null), for which pathlib raises."""
    return os.path.isfile(path)  # noqa: PTH113


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: {path.stat().st_size} bytes are more than an experiment file has; wrong file?")
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def parse(text: str, source: str, folder: Path) -> Document:
    """Parse a TOML text. Raises UserError with the line of a syntax error."""
    # `tomllib` gives values without positions. It also proves the text valid, which the scanner of positions assumes.
    try:
        values = _loads(text)
        found = positions(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(_syntax_error(str(error), text, source)) from None
    except ValueError:  # Python reads no integer of thousands of digits
        raise UserError(f"{source}: an integer has thousands of digits; TOML's have 64 bits") from None
    except RecursionError:
        raise UserError(f"{source}: nested too deeply; an experiment needs three levels") from None
    except _TooDeep as error:
        line, column = error.args
        raise UserError(f"{source}:{line}:{column}: nested too deeply; an experiment needs three levels") from None
    places = {keys: Place(source, *position, folder) for keys, position in found.items()}
    return Document(Place(source, 1, 1, folder), values, places)


def _loads(text: str) -> dict[str, Any]:
    """Return the values of a TOML text. Raises _TooDeep for dotted keys that `tomllib` would need minutes for."""
    if found := _LONG_KEY.search(text):
        before = text[: found.start()]
        raise _TooDeep(before.count("\n") + 1, found.start() - before.rfind("\n"))
    return tomllib.loads(text)


def _syntax_error(message: str, text: str, source: str) -> str:
    if found := re.search(r" \(at line (\d+), column (\d+)\)", message):
        return f"{source}:{found[1]}:{found[2]}: {message[: found.start()]}"
    last = text.rstrip("\n").count("\n") + 1
    return f"{source}:{last}:1: {message.removesuffix(' (at end of document)')} at the end of the file"


KEPT: Mapping[Keys, Collection[str]] = {("task",): ("channels", "classes")}
"""By table, keys that are not options of the part that it names, and are inherited even if the part changes."""


UNNAMED: Mapping[Keys, str] = {("task",): "semantic"}
"""The part that a table without a name means."""


def merge(parent: Document, child: Document, exclusive: Mapping[Keys, Collection[str]]) -> None:
    """Write a child's values over its parent's: tables are merged key by key, all else is replaced."""
    _merge(parent, child, (), child.values, exclusive)


def _merge(
    parent: Document, child: Document, at: Keys, table: Mapping[str, Any], exclusive: Mapping[Keys, Collection[str]]
) -> None:
    group = exclusive.get(at, ())
    if any(key in table for key in group):
        for key in group:
            parent.drop((*at, key))
    for key, value in table.items():
        keys = (*at, key)
        old = _value(parent, keys)
        # A table that names another part replaces the old one, whose options would be unknown keys of the new part.
        if isinstance(value, dict) and isinstance(old, dict) and _names_the_same(keys, old, value):
            if keys in child.places:
                parent.places[keys] = child.places[keys]
            _merge(parent, child, keys, value, exclusive)
        else:
            kept = [
                key for key in KEPT.get(keys, ()) if isinstance(old, dict) and key in old and isinstance(value, dict)
            ]
            inherited = {key: old[key] for key in kept}
            places = {k: place for k, place in parent.places.items() if k[:-1] == keys and k[-1] in inherited}
            places |= {k: place for k, place in child.places.items() if k[: len(keys)] == keys}
            parent.assign(keys, inherited | value if inherited else value, places)


def _element(document: Document, keys: Keys) -> Any:
    """The value at keys that are known to lead somewhere, with indices of arrays among them."""
    value: Any = document.values
    for key in keys:
        value = value[key]
    return value


def _names_the_same(keys: Keys, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a table is of the same part as the one that it is merged into."""
    named = old.get("name", UNNAMED.get(keys))
    return bool(new.get("name", named) == named)


def _value(document: Document, keys: Keys) -> Any:
    value: Any = document.values
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


@dataclass(frozen=True)
class Setting:
    """A value for a key from outside the file, with the option or argument that it comes from."""

    keys: Keys
    value: Any
    place: Place

    @classmethod
    def parse(cls, written: str) -> Setting:
        """Parse `key.key=value`, as `--set` takes it. A value that is not valid TOML is a string."""
        dotted, equals, value = written.partition("=")
        place = Place(f"--set {written if len(written) <= LONGEST_SHOWN else f'{written[:LONGEST_SHOWN]}…'}")
        keys = keys_of(dotted.strip())
        if not equals or not all(str(key) for key in keys):
            raise UserError(f"{place}: should be key=value, as in train.epochs=2")
        return cls(keys, _toml_or_string(value.strip(), place), place)

    @classmethod
    def of(cls, key: str, value: Any) -> Setting:
        """Return the setting of a dotted key, such as "train.epochs", to a value given in Python."""
        source, keys = f"setting {key}", keys_of(key)
        if not all(str(part) for part in keys):
            raise UserError(f"{source}: should be a key, as in train.epochs")
        return cls(keys, _plain(value, source, keys), Place(source))


def keys_of(dotted: str) -> Keys:
    """Split `table.key` or `table.0.key` into its keys; digits are indices of arrays."""
    return tuple(int(key) if re.fullmatch("[0-9]{1,9}", key) else key for key in dotted.split("."))


def override(document: Document, setting: str | Setting, exclusive: Mapping[Keys, Collection[str]]) -> None:
    """Apply a setting to a document. Raises UserError if its keys lead nowhere."""
    setting = Setting.parse(setting) if isinstance(setting, str) else setting
    keys, value, place = setting.keys, setting.value, setting.place
    if len(keys) > DEEPEST:
        raise UserError(f"{place}: nested too deeply; an experiment needs three levels")
    if keys[0] == "extends":
        raise UserError(f"{place}: 'extends' belongs in the file; here it would come too late")
    if any(isinstance(key, int) for key in keys):
        around = _check_address(document, keys, place)
        if isinstance(keys[-1], int) and isinstance(_element(document, keys), dict) and not isinstance(value, dict):
            dotted = ".".join(map(str, keys))
            raise UserError(f"{place}: '{dotted}' is a table; set a key of it, as in {dotted}.name")
        if keys[-1] == "name" and around.get("name") != value:
            # As in `merge`, another part starts without the options of the old one.
            keys, value = keys[:-1], {"name": value}
        document.assign(keys, value, {keys: place})
        return
    # Without an index the setting is merged like a file that extends the document, so that both follow the same rules
    # for exclusive keys and for tables that name another part.
    child = Document(place)
    for depth in range(1, len(keys)):
        _refuse_value(document, keys[:depth], place)
    child.assign(keys, value, {keys[:depth]: place for depth in range(1, len(keys) + 1)})
    inherited = dict(document.places)
    merge(document, child, exclusive)
    for depth in range(1, len(keys)):  # a table that a file wrote keeps its line
        if keys[:depth] in inherited:
            document.places[keys[:depth]] = inherited[keys[:depth]]


def _toml_or_string(written: str, place: Place) -> Any:
    # Positions are not needed here, but finding them checks the depth.
    text = f"value = {written}"
    try:
        values = _loads(text)
        positions(text)
    except (ValueError, RecursionError):
        return written
    except _TooDeep:
        raise UserError(f"{place}: nested too deeply; an experiment needs three levels") from None
    if len(values) > 1:
        raise UserError(f"{place}: sets more than one key; give each a --set of its own")
    return values["value"]


def _refuse_value(document: Document, keys: Keys, place: Place) -> None:
    value = _value(document, keys)
    if value is not None and not isinstance(value, dict):
        dotted = ".".join(map(str, keys))
        remedy = f"name an element, as in {dotted}.0" if isinstance(value, list) else "it has no keys"
        raise UserError(f"{place}: '{dotted}' is {'an array' if isinstance(value, list) else 'a value'}; {remedy}")


def _check_address(document: Document, keys: Keys, place: Place) -> Mapping[str, Any]:
    """Return the table that holds the last key, or an empty one. Raises UserError if the keys lead nowhere."""
    value: Any = document.values
    around: Any = {}
    for depth, key in enumerate(keys):
        dotted = ".".join(map(str, keys[:depth]))
        around = value
        if isinstance(key, int):
            if not isinstance(value, list):
                raise UserError(f"{place}: '{dotted or key}' is no array, so that '{key}' addresses nothing")
            if key >= len(value):
                raise UserError(f"{place}: '{dotted}' has {len(value)} elements, counted from 0")
            value = value[key]
        elif isinstance(value, dict):
            value = value.get(key, {})
        else:
            raise UserError(f"{place}: '{dotted}' is no table")
    return around if isinstance(around, dict) else {}


_LONG_KEY = re.compile(r"""(?<![\w.'"-])(?:(?:[A-Za-z0-9_-]++|"(?:\\.|[^"\\\n])*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""")
"""Finds a dotted key of a hundred parts: the time of `tomllib` grows with their square.

Possessive quantifiers (`++`) keep the search itself linear: without them it would backtrack through every key.
"""

_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}\n#]+")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def positions(text: str) -> dict[Keys, tuple[int, int]]:
    """Return line and column (from 1) of every key and array element of a TOML text that is known to be valid."""
    return _Scanner(text).scan()


class _TooDeep(Exception):
    """Keys are nested deeper than `DEEPEST`; the arguments are line and column."""


class _Scanner:
    """Finds the positions of keys and array elements in a valid TOML text.

    It relies on `tomllib` having accepted the text: it only skips over values, and tells strings from other scalars
    because brackets, commas and '#' have no meaning inside strings.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self.at = 0
        self.found: dict[Keys, tuple[int, int]] = {}
        self.elements: dict[Keys, int] = {}

    def scan(self) -> dict[Keys, tuple[int, int]]:
        table: Keys = ()
        self.skip_space()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip_space()
        return self.found

    def header(self) -> Keys:
        start = self.at
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        keys = self.resolved(self.key())
        if brackets == 2:
            index = self.elements.get(keys, 0)
            self.elements[keys] = index + 1
            keys = (*keys, index)
        for depth in range(1, len(keys) + 1):  # [a.b.c] also makes tables a and a.b, which may have no header
            self.note(keys[:depth], start)
        self.at = self.text.index("]", self.at) + brackets
        return keys

    def resolved(self, keys: Sequence[str]) -> Keys:
        """Return a header's keys with the index of the current element after each array of tables on the way.

        In TOML, [a.b] after [[a]] is a table of the last element of a.
        """
        out: Keys = ()
        for depth, key in enumerate(keys):
            out = (*out, key)
            if depth < len(keys) - 1 and out in self.elements:
                out = (*out, self.elements[out] - 1)
        return out

    def pair(self, table: Keys) -> None:
        start = self.at
        keys = table
        for key in self.key():
            keys = (*keys, key)
            self.note(keys, start)
        self.at = self.text.index("=", self.at) + 1
        self.value(keys)

    def key(self) -> list[str]:
        keys = []
        while True:
            self.skip_space()
            if self.text[self.at] in "\"'":
                match = _STRING.match(self.text, self.at)
                assert match
                # Quoted keys may have escapes, which `tomllib` resolves.
                keys.append(str(tomllib.loads(f"k = {match[0]}")["k"]))
            else:
                match = _BARE.match(self.text, self.at)
                assert match
                keys.append(match[0])
            self.at = match.end()
            self.skip_space()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def value(self, keys: Keys) -> None:
        self.skip_space()
        opening = self.text[self.at]
        if opening == "[":
            self.sequence("]", lambda index: self.element((*keys, index)))
        elif opening == "{":
            self.sequence("}", lambda _: self.pair(keys))
        else:
            match = _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
            assert match
            self.at = match.end()

    def sequence(self, closing: str, item: Callable[[int], None]) -> None:
        self.at += 1
        index = 0
        self.skip_space()
        while self.text[self.at] != closing:
            item(index)
            index += 1
            self.skip_space()
            if self.text[self.at] == ",":
                self.at += 1
                self.skip_space()
        self.at += 1

    def element(self, keys: Keys) -> None:
        self.note(keys, self.at)
        self.value(keys)

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        assert found
        self.at = found.end()

    def note(self, keys: Keys, start: int) -> None:
        line = bisect.bisect(self.lines, start)
        place = (line, start - self.lines[line - 1] + 1)
        if len(keys) > DEEPEST:
            raise _TooDeep(*place)
        self.found.setdefault(keys, place)  # the first mention counts, as of a table that several headers extend
