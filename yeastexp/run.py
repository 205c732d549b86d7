"""From an experiment file to a run directory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from yeastexp import assemble, engine, execution, experiment, files, scoring
from yeastexp.assemble import Assembly
from yeastexp.errors import UserError
from yeastexp.experiment import Experiment
from yeastexp.training import Training, options_of
from yeastexp.updates import Options

RESERVE = 0.06
"""Share of a time budget kept for a machine that slows down."""

TIMING = 0.02
"""Share of a time budget that finds out how long a step takes."""

CLOSING = 0.01
CLOSING_SECONDS = 5.0
"""Kept of a time budget, with that share of it, for tables, pictures and files at the end and for leaving Python."""


def run(path: Path, settings: Sequence[str] = (), *, started: float | None = None, console: Console) -> Path:
    """Train the experiment of a file, measure it and return its run directory.

    `started` is the monotonic clock at the start of the command, from which a `budget` counts.
    """
    began = time.monotonic() if started is None else started
    loaded = assemble.fixed_threads(experiment.load(path, settings))
    assembly = assemble.assemble(loaded)
    options = options_of(assembly)
    deadline = began + experiment.seconds(loaded.train.budget) if loaded.train.budget else math.inf
    baselines = scoring.scored_baselines(assembly) if loaded.train.budget else None  # they count as well
    counted, last_step_by = counted_steps(assembly, options, deadline)
    assembly = replace(assembly, experiment=counted)
    folder = files.claim_directory(Path("runs") / loaded.name)
    with execution.holding(folder) as interruption:
        execution.open_directory(folder, assembly)
        late = _after(last_step_by)
        training = Training(assembly, folder, console, began, late, interruption, baselines=baselines)
        training.begin()
        execution.carry_out(training)
    return folder


def _after(moment: float) -> Callable[[int], bool]:
    return lambda step: time.monotonic() > moment


def counted_steps(assembly: Assembly, options: Options, deadline: float) -> tuple[Experiment, float]:
    """The experiment with a time budget turned into the number of steps that fits it, and when the last one must end.

    Steps and validations are timed on throwaway copies. A machine that slows down later cuts the run short at that
    moment, for the command keeps its time; the result says so.
    """
    train = assembly.experiment.train
    if not train.budget:
        return assembly.experiment, deadline
    step = engine.seconds_per_step(
        assembly.model,
        assembly.loss,
        assembly.optimizer,
        options,
        assembly.stream.batch,
        assembly.device,
        len(assembly.classes),
        seconds=TIMING * experiment.seconds(train.budget),
    )
    validation = min(_seconds(lambda: scoring.validate(assembly, assembly.model)) for _ in range(2))
    deadline -= CLOSING_SECONDS + CLOSING * experiment.seconds(train.budget)
    deadline -= validation * (1 + assembly.pixels("test") / assembly.pixels("val"))
    left = deadline - time.monotonic() - RESERVE * experiment.seconds(train.budget)
    deadline -= (options.accumulate - 1) * step  # a group of batches that is under way then is finished
    steps = int(left / (step + validation / (assembly.validate_every * assembly.stream.steps_per_epoch)))
    if steps < 1:
        raise UserError(
            f"[train] budget: {train.budget} is too short; a step takes {step:.2f} s, a validation {validation:.1f} s"
        )
    return replace(assembly.experiment, train=replace(train, budget=None, steps=steps)), deadline


def _seconds(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start
