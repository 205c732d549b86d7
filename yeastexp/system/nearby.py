"""Suggestions for a path that is no run or no experiment file: what is near it and may be meant."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

MOST = 1000
"""The largest number of entries of a folder that are considered."""

MOST_NAMED = 4
"""The largest number of runs that a message names."""

RUNS = Path("runs")
"""The folder that 'run' makes run directories in."""


def run_meant(path: Path, holding: str) -> str:
    """Return a suggestion for a path that is no run: a folder near it with a file named `holding`; empty if none.

    In this order: the path itself or the same under runs/, the newest run inside it, the run that it is a part of, the
    newest run of an experiment file, and the run with the most similar path.
    """
    cwd = Path.cwd()
    for folder in (path, RUNS / path):
        if _holds(folder, holding):
            return f"did you mean '{folder}'?"
        if runs := _runs(folder, holding):
            return f"did you mean '{runs[-1]}', the newest in it?"
    for parent in path.parents:
        if _holds(parent, holding) and not cwd.is_relative_to(parent.resolve()):
            return f"did you mean '{parent}', in which it is?"
    if path.suffix == ".toml" and os.path.isfile(path):  # noqa: PTH113
        runs = _runs(RUNS / _name(path), holding)
        return f"did you mean '{runs[-1]}', the newest run of it?" if runs else f"'run {path}' makes one"
    around = next((parent for parent in path.parents if parent.is_dir()), cwd)
    runs = _runs(RUNS if around.resolve() == cwd else around, holding)
    if os.path.exists(path) or not runs:  # noqa: PTH110
        return ""
    known = {str(run): str(run) for run in runs}
    named = ("…, " if len(runs) > MOST_NAMED else "") + ", ".join(map(str, runs[-MOST_NAMED:]))
    return _nearest(str(path), known) or f"there {'is' if len(runs) == 1 else 'are'} {named}"


def newest_within(folder: Path, holding: str) -> Path | None:
    """Return the newest folder, at most two levels down, with a file named `holding`; None if there is none."""
    return next(reversed(_runs(folder, holding)), None)


def file_meant(path: Path, suffix: str, others: Mapping[str, str]) -> str:
    """Return a suggestion for a path that is no file with `suffix`: one beside it or in it, or of `others` by name."""
    is_folder = os.path.isdir(path)  # noqa: PTH112
    names = {place.stem: str(place) for place in _entries(path if is_folder else path.parent) if place.suffix == suffix}
    if is_folder:
        return f"did you mean '{next(iter(names.values()))}'?" if len(names) == 1 else "it is a folder; name a file"
    return _nearest(path.stem, {**others, **names})


def _nearest(word: str, known: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{known[near[0]]}'?" if near else ""


def _name(experiment: Path) -> str:
    """Return the name of an experiment file, which is that of the folder of its runs."""
    try:
        name = tomllib.loads(experiment.read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError):
        name = None
    return name if isinstance(name, str) else experiment.stem


def _runs(folder: Path, holding: str) -> list[Path]:
    """Return the folders one and two levels down that have a file named `holding`, the newest last."""
    level = [place for place in _entries(folder) if place.is_dir()]
    places = {*level, *(inner for place in level for inner in _entries(place))}
    runs = [place for place in places if _holds(place, holding)]
    return sorted(runs, key=lambda run: ((run / holding).stat().st_mtime_ns, str(run)))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(islice(folder.iterdir(), MOST))
    except OSError:
        return []


def _holds(folder: Path, name: str) -> bool:
    return os.path.isfile(folder / name)  # noqa: PTH113  # pathlib raises of a name that no file can have
