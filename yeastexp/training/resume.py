"""A run that was interrupted, taken up where it was."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from yeastexp.config.experiment import Experiment
from yeastexp.errors import UserError
from yeastexp.system import environment
from yeastexp.training import build, checkpoints
from yeastexp.training.context import RunContext
from yeastexp.training.device import configure_torch
from yeastexp.training.loop import begin, carry_out, continue_from, described, holding
from yeastexp.training.run_directory import RunDirectory

LENGTH = ("epochs", "steps")
"""Keys of [train] that may change."""
FREE = ("workers", "checkpoint_minutes")
"""Keys of [runtime] that change no result."""


def resume(run: Path, settings: Sequence[str] = (), *, started: float | None = None, console: Console) -> bool:
    """Continue from the newest good checkpoint of a run directory to its result; whether there was anything to do."""
    began = time.monotonic() if started is None else started
    directory = RunDirectory(run)
    if not directory.is_run:
        raise UserError(f"{run}: not a run directory, or a run that ended before it began; {directory.meant}")
    before, loaded = directory.load(), directory.load(settings)
    longer = _longer(before, loaded)
    if directory.is_finished and not longer:
        return False
    with holding(directory) as interruption:
        assembly = build.assemble(configure_torch(loaded))
        context = RunContext(assembly, directory, console, began, interruption=interruption)
        now = described(assembly)
        _refuse_other_inputs(directory, now)
        state = checkpoints.newest(directory.checkpoints, directory.log, assembly.model)
        if state and longer:
            _extend(context, before, state)
        if state is None:
            directory.log("no good checkpoint; from the beginning")
            begin(context)
        else:
            continue_from(context, state)
        _record(directory, now, context.step)
        carry_out(context)
    return True


def _longer(before: Experiment, now: Experiment) -> bool:
    """Whether the length changed; raises UserError if anything else did that affects the result."""
    train = replace(now.train, **{key: getattr(before.train, key) for key in LENGTH})
    runtime = replace(now.runtime, **{key: getattr(before.runtime, key) for key in FREE})
    if replace(now, train=train, runtime=runtime).resolved() != before.resolved():
        free = ", ".join([*(f"train.{key}" for key in LENGTH), *(f"runtime.{key}" for key in FREE)])
        raise UserError(
            f"--set: a run continues as it began; only {free} can change. For anything else start a new run, with "
            "train.init_from to start from its weights"
        )
    return any(getattr(now.train, key) != getattr(before.train, key) for key in LENGTH)


def _refuse_other_inputs(run: RunDirectory, now: dict[str, Any]) -> None:
    was = run.read_environment()["digests"]
    for kind in ("data", "plugins"):
        for name, digest in was[kind].items():
            if now["digests"][kind].get(name) != digest:
                raise UserError(
                    f"{run}: '{name}' is not what the run began with; bring it back, or start a new run, with "
                    "train.init_from where the weights are wanted"
                )


def _extend(context: RunContext, before: Experiment, state: dict[str, Any]) -> None:
    """Let the run be a longer one from this checkpoint on, and write that down; raises UserError if it cannot be."""
    run, step = context.directory, state["step"]
    steps = before.train.steps or (before.train.epochs or 0) * context.steps_per_epoch
    if context.steps <= step:
        raise UserError(f"--set: {step} steps are done; a length of {context.steps} steps does not extend them")
    if not context.schedule.ends(step):
        raise UserError(
            f"--set: step {step} would lie within a group of [train] accumulation_steps = {context.schedule.size} "
            "steps of the longer run; start a new run"
        )
    updates = [build.schedule_of(context.assembly, length).updates for length in (steps, context.steps)]
    if (update := _first_other_rate(before, *updates)) is not None:
        name = before.scheduler.name if before.scheduler else ""
        raise UserError(
            f"--set: [scheduler] '{name}' was fitted to {steps} steps: in a run of {context.steps} steps the learning "
            f"rate would have been another from update {update} on; start a new run"
        )
    state["stopped"] = None
    run.put_result_aside(steps)
    run.write_experiment(context.assembly.experiment)
    recorded = run.read_environment()
    recorded.setdefault("extended", []).append(
        {"at": step, "from_steps": steps, "to_steps": context.steps, "when": environment.now()}
    )
    run.write_environment(recorded)
    run.log(f"extended from {steps} to {context.steps} steps at step {step}")


def _first_other_rate(loaded: Experiment, updates: int, more: int) -> int | None:
    """The first update, counted from 1, whose learning rates depend on how many there will be, if any does."""
    short, long = _rates(loaded, updates, updates), _rates(loaded, more, updates)
    return next((index + 1 for index in range(updates) if short[index] != long[index]), None)


def _rates(loaded: Experiment, planned: int, updates: int) -> list[list[float]]:
    optimizer = loaded.optimizer.build(torch.nn.Linear(1, 1).parameters())
    scheduler = loaded.scheduler.build(optimizer, planned) if loaded.scheduler else None
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scheduler whose optimizer takes no step
        for _ in range(updates):
            rates.append([group["lr"] for group in optimizer.param_groups])
            if scheduler is not None:
                scheduler.step()
    return rates


def _record(run: RunDirectory, now: dict[str, Any], step: int) -> None:
    """Write down that the run went on, and what was not as at its beginning."""
    recorded = run.read_environment()
    other = environment.differences(recorded, now)
    other.pop("digests.experiment", None)
    entry = {"step": step, "started": now["started"], "command": now["command"], "differs": other}
    recorded.setdefault("resumed", []).append(entry)
    run.write_environment(recorded)
    run.log(f"resumed at step {step}")
    for name, (was, is_) in other.items():
        run.log(f"not as at the beginning: {name} was {was}, is {is_}")
