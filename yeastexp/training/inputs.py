"""The list of files that a run reads, with digests, which `environment.json` keeps to find later changes."""

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
"""The kinds of files, and the word for their contents in messages: `data` are the data set's, `files` those of other
parts; the rest are named by `[validation] folds`, `plugins` and `[train] init_from`."""


@dataclass(frozen=True)
class Input:
    """A file or folder that a run reads; the name is unique among those of its kind, wherever the file is."""

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
    """Return all files that an experiment reads."""
    # Names and not paths tell files apart, so that a data set may be moved. Files of equal names are numbered.
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
    """Return the paths in a part's options; those that need not exist only of data sets: other parts may write them."""
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
    """Return the digests of the files that exist, by kind and name, as `environment.json` has them."""
    listed: dict[str, dict[str, str]] = {kind: {} for kind in HOLDS}
    for entry in inputs_of(experiment):
        if entry.digest:
            listed[entry.kind][entry.name] = entry.digest
    return listed


def changed(
    environment: Mapping[str, Any], inputs: Collection[Input], kinds: Collection[str] = tuple(HOLDS)
) -> list[str]:
    """Return a phrase for each file that is not what the run read when it recorded its environment."""
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
