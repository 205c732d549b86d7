"""The files that a run reads: one list with digests, kept in `environment.json`, to compare with what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from yeastexp.config.experiment import Experiment, Part, each
from yeastexp.registry import KINDS
from yeastexp.system import files
from yeastexp.training.run_directory import RunDirectory

HOLDS = {"data": "data", "files": "contents", "folds": "folds", "plugins": "code", "init_from": "weights"}
"""The kinds of files, and what they hold: the data set's, those of other parts, and what `[train]`, `[validation]` and
`plugins` name."""


@dataclass(frozen=True)
class Input:
    """A file, or a folder of them, that a run reads; its name tells it from others of its kind."""

    kind: str
    name: str
    path: Path

    @cached_property
    def digest(self) -> str | None:
        """The SHA-256 of a file, or of the names and digests of a folder's files; None if it is not there."""
        if self.path.is_file():
            return files.digest(self.path)
        if not self.path.is_dir():
            return None
        sha256 = hashlib.sha256()
        for path in sorted(path for path in self.path.rglob("*") if path.is_file()):
            sha256.update(f"{path.relative_to(self.path).as_posix()}\0{files.digest(path)}\n".encode())
        return sha256.hexdigest()


def inputs_of(experiment: Experiment) -> list[Input]:
    """What an experiment reads, wherever its file names it."""
    listed: list[Input] = []
    for kind, name, path in _named(experiment):
        count = sum(known.kind == kind and known.name.partition("#")[0] == name for known in listed)
        listed.append(Input(kind, f"{name}#{count + 1}" if count else name, path))
    return listed


def _named(experiment: Experiment) -> Iterator[tuple[str, str, Path]]:
    for part in (experiment.task.part, *experiment.parts):
        for path in _paths(part):
            yield "data" if part is experiment.dataset else "files", path.name, path
    if folds := experiment.validation.folds:
        yield "folds", folds.name, folds
    for plugin in experiment.plugins:
        yield "plugins", plugin.name, plugin
    if run := experiment.train.init_from:
        best = RunDirectory(run).checkpoint("best")
        yield "init_from", f"{run.parent.name}/{run.name}/{best.name}", best


def _paths(part: Part) -> list[Path]:
    """The paths in a part's options; of one that is no data set, those that have to exist: the others it may write."""
    found: list[Path] = []

    def note(keys: Sequence[str | int], value: Any) -> Any:
        if isinstance(value, Path) and (
            part.kind == "dataset" or KINDS[part.kind].find(part.name).schema.must_exist(str(keys[0]))
        ):
            found.append(value)
        return value

    each(note, part.options)
    return found


def digests(experiment: Experiment) -> dict[str, dict[str, str]]:
    """The list as `environment.json` holds it: by kind and name, the digests of the files that are there."""
    listed: dict[str, dict[str, str]] = {kind: {} for kind in HOLDS}
    for entry in inputs_of(experiment):
        if entry.digest:
            listed[entry.kind][entry.name] = entry.digest
    return listed


def changed(
    environment: Mapping[str, Any], inputs: Collection[Input], kinds: Collection[str] = tuple(HOLDS)
) -> list[str]:
    """What is no longer what a run read when it recorded its environment, a phrase for each file."""
    phrases = []
    for kind in kinds:
        recorded: Mapping[str, str] | None = environment["digests"].get(kind)
        if recorded is None:
            continue  # an earlier version did not list these
        now = {entry.name: entry for entry in inputs if entry.kind == kind}
        for name, entry in now.items():
            if entry.digest is None:
                phrases += [f"no file '{entry.path}'"] * (name in recorded or kind == "data")
            elif entry.digest != recorded.get(name) and (name in recorded or entry.path.is_file()):
                phrases.append(f"'{entry.path}' has changed and holds other {HOLDS[kind]} now")
        phrases += [f"'{name}' is not named any more" for name in recorded if name not in now]
    return phrases
