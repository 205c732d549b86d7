"""Repeating the last steps of a run, and comparing the outcome bit by bit with its checkpoint."""

from __future__ import annotations

import json
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import environment
from yeastexp.training import build, checkpoints, inputs
from yeastexp.training.build import Assembly
from yeastexp.training.context import RunContext, never
from yeastexp.training.device import configure_torch
from yeastexp.training.loop import continue_from, described, train
from yeastexp.training.resume import as_trained
from yeastexp.training.run_directory import RunDirectory

APART = re.compile(r"rows\.\d+\.seconds$|experiment\.")
"""The leaves of a state that are not compared: times, and the experiment, which `as_trained` has compared."""


@dataclass(frozen=True)
class Verified:
    """The first and last step repeated, how many tensors and values were compared, and how the environment differs."""

    first: int
    last: int
    compared: int
    elsewhere: list[str]


def verify(run: Path, *, console: Console) -> Verified:
    """Repeat a run between its last two checkpoints. Raises UserError with the first difference from the second one.

    Files, versions and machine may have changed, and are named if they did; an edited experiment is refused.
    """
    directory = RunDirectory.existing(run)
    directory.refuse_folder_of_runs()
    before, after = (_checkpoint(directory, which) for which in ("previous", "last"))
    loaded = directory.load(_settings(directory, before["step"]))
    as_trained(directory, loaded, after)
    if before["step"] == after["step"] and not directory.is_finished:
        step, remedy = before["step"], f"'python -m yeastexp resume {directory}' makes steps to verify"
        raise UserError(f"{directory}: both of its checkpoints are of step {step}; {remedy}")
    assembly = build.assemble(configure_torch(loaded))
    elsewhere = _elsewhere(directory, assembly)
    with tempfile.TemporaryDirectory() as folder:
        # Whether a budget ended the run, and where it changed the plan, was decided by a clock. The decisions stand in
        # the checkpoint, and are repeated from there.
        late = (lambda step: step == after["step"]) if after["stopped"] == "by budget" else never
        earlier = {each["at"]: each["end"] for each in [after.get("remade")] if each}.get
        again = RunDirectory(Path(folder))
        context = RunContext(assembly, again, console, time.monotonic(), late, earlier, until=after["step"])
        continue_from(context, before)
        if context.over or context.step < after["step"]:
            train(context)
        if after["stopped"] == "early" and not context.over:  # by a handler, as late as here, where training pauses
            context.end_as_handlers_ask()
        context.tracker.close()
        found = checkpoints.plain(context.state_dict())
    wanted = [dict(_compared(state)) for state in (found, after)]
    if difference := checkpoints.first_difference(*wanted):
        others = f"; not as it was: {'; '.join(elsewhere)}" if elsewhere else ""
        raise UserError(
            f"{run}: steps {before['step']} to {after['step']} do not repeat: {difference}{others}", status=RUN_FAILED
        )
    return Verified(before["step"], after["step"], len(wanted[0]), elsewhere)


def _settings(run: RunDirectory, step: int) -> list[str]:
    """Return the settings with which a run went on from a checkpoint, as `resume` may have been given other ones."""
    resumed = [entry for entry in run.read_environment().get("resumed", []) if entry["step"] <= step]
    runtime = resumed[-1].get("runtime", {}) if resumed else {}  # earlier versions recorded none
    return [f"runtime.{key}={json.dumps(value)}" for key, value in runtime.items()]


def _checkpoint(run: RunDirectory, which: Literal["previous", "last"]) -> dict[str, Any]:
    path = run.checkpoint(which)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; a run is verified between two of them")
    return checkpoints.load(path)


def _compared(state: dict[str, Any]) -> list[checkpoints.Leaf]:
    """Return the leaves of a state that have to repeat."""
    return [leaf for leaf in checkpoints.leaves(state) if not APART.match(leaf[0])]


def _elsewhere(run: RunDirectory, assembly: Assembly) -> list[str]:
    """Return a phrase for each file, version or property of the machine that is not as it was in the run."""
    recorded = run.read_environment()
    others = environment.differences(recorded, described(assembly))
    return [
        *inputs.changed(recorded, inputs.inputs_of(assembly.experiment)),
        *(f"{name} was {was}, is {is_}" for name, (was, is_) in others.items() if not name.startswith("digests.")),
    ]
