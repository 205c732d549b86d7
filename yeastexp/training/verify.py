"""A part of a run, repeated and compared bit for bit."""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from yeastexp.config.loading import load_experiment
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import environment
from yeastexp.training import build, checkpoints, run_directory
from yeastexp.training.loop import Training, never

TIMES = re.compile(r"rows\.\d+\.seconds")


@dataclass(frozen=True)
class Verified:
    """The steps repeated, how many tensors and numbers were compared, and what is not as it was for the run."""

    first: int
    last: int
    compared: int
    elsewhere: list[str]


def verify(run: Path, *, console: Console) -> Verified:
    """Repeat a run between its last two checkpoints; UserError says what differs first from what it had come to."""
    before, after = (_checkpoint(run, name) for name in (checkpoints.PREVIOUS, checkpoints.LAST))
    loaded = build.configure_torch(load_experiment(run / run_directory.EXPERIMENT))
    assembly = build.assemble(loaded)
    elsewhere = _elsewhere(run, run_directory.described(assembly))
    with tempfile.TemporaryDirectory() as folder:
        late = (lambda step: step == after["step"]) if after["stopped"] == "by budget" else never
        training = Training(assembly, Path(folder), console, time.monotonic(), late, until=after["step"])
        training.go_on(before, run)
        training.train()
        training.tracker.close()
        found = checkpoints.plain(training.state_dict())
    wanted = [dict(_compared(state)) for state in (found, after)]
    if difference := checkpoints.first_difference(*wanted):
        others = f"; not as it was: {'; '.join(elsewhere)}" if elsewhere else ""
        raise UserError(
            f"{run}: steps {before['step']} to {after['step']} do not repeat: {difference}{others}", status=RUN_FAILED
        )
    return Verified(before["step"], after["step"], len(wanted[0]), elsewhere)


def _checkpoint(run: Path, name: str) -> dict[str, Any]:
    path = run / checkpoints.FOLDER / name
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; a run is verified between two of them")
    return checkpoints.load(path)


def _compared(state: dict[str, Any]) -> list[checkpoints.Leaf]:
    return [leaf for leaf in checkpoints.leaves(state) if not TIMES.fullmatch(leaf[0])]


def _elsewhere(run: Path, now: dict[str, Any]) -> list[str]:
    others = environment.differences(run_directory.read_environment(run), now)
    return [f"{name} was {was}, is {is_}" for name, (was, is_) in others.items()]
