"""Pretrained weights that come with the package, named where a run is: `predict yeast`, `init_from = "yeast"`.

Each is a run directory without what training leaves (optimizer, logs, scores). `docs/starting-point.md` has the command
that makes one, and what it is worth.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from yeastexp.errors import UserError
from yeastexp.system import files

FOLDER = Path(__file__).parents[1] / "weights"
RANDOM = "random"
"""In place of a run: no weights to start from, in a file that extends one with some."""

EXPERIMENT, WEIGHTS = "experiment.toml", "checkpoints/best.pt"
DIGESTS: Mapping[str, str] = {"yeast": "d3a7385d6dae9671cea435146465435c8b2dd4c54de1f0765aa4e6d199711fbb"}
"""The SHA-256 of the weights of each, so that a truncated installation is told from a bad prediction."""


def is_run(path: Path, folder: Path | None = None) -> bool:
    """Whether a run directory is there, which goes before what the name means otherwise."""
    return ((folder or Path.cwd()) / path / EXPERIMENT).is_file()


def located(path: Path, folder: Path | None = None) -> Path:
    """Return the run directory that comes with the package under this name, or any other path as it is.

    A run directory of that name in `folder` (default: the working directory) goes first; a folder of images may have
    it, too. Raises UserError if the weights are missing or damaged.
    """
    name = str(path)
    if name not in DIGESTS or is_run(path, folder):
        return path
    run = FOLDER / name
    weights = run / WEIGHTS
    if not weights.is_file() or files.digest(weights) != DIGESTS[name]:
        raise UserError(f"{weights}: missing or damaged; install yeastexp again")
    return run


def meant(path: Path) -> str:
    """Return a suggestion for a path that is nowhere and nearly the name of weights of the package; else empty."""
    near = difflib.get_close_matches(path.name.lower(), DIGESTS, n=1, cutoff=0.8)
    return f"did you mean '{near[0]}', the weights that come with the package?" if near and not path.exists() else ""


def written(path: Path) -> str:
    """Return a path as a resolved experiment names it: weights of the package by name, for they move with it."""
    return path.name if path.parent == FOLDER else str(path)
