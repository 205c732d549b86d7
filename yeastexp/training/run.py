"""The whole of a new run: an experiment file is read, planned, trained and measured into a run directory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from yeastexp import plugins
from yeastexp.config import loading, trust
from yeastexp.config.experiment import Experiment
from yeastexp.contracts import Handler
from yeastexp.data.folds import Thumbnail
from yeastexp.errors import UserError
from yeastexp.metrics.summary import Summary
from yeastexp.system import deadline, processes
from yeastexp.system.console import console
from yeastexp.system.formatting import format_count
from yeastexp.system.processes import Processes
from yeastexp.system.progress import say_to
from yeastexp.training.budget import TIMING, Budget
from yeastexp.training.build import Assembly
from yeastexp.training.context import RunContext, as_planned, never
from yeastexp.training.device import torch_as_it_was
from yeastexp.training.initial_weights import Start, initialize
from yeastexp.training.loop import (
    begin,
    carry_out,
    holding,
    open_directory,
    refuse_differences,
    refuse_shards,
)
from yeastexp.training.progress import Validation
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.timing import TRIAL_SECONDS, assembled, is_timed
from yeastexp.training.validation import initial_validation, scored_baselines


def train(
    experiment: str | os.PathLike[str] | Mapping[str, Any] | Experiment,
    settings: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """Train and measure an experiment as the command `run` does: `train("mine.toml", {"train.epochs": 2})`.

    `experiment` is a file, a starter such as "yeastexp:base", a dictionary of tables, or the result of `experiment()`.
    Returns the run directory, `runs/NAME/001` or the next free number, for `load` and `read_result`. Raises UserError
    as the command does.
    """
    if not isinstance(experiment, Experiment):
        experiment = loading.experiment(experiment, settings)
    elif settings:
        raise UserError("settings: go with the file or the dictionary of an experiment, which is checked with them")
    with torch_as_it_was():
        return RunDirectory(run(experiment, console=console()))


def run(
    source: Path | Experiment,
    settings: Sequence[str] = (),
    *,
    started: float | None = None,
    console: Console,
    profiled: int = 0,
    folder: Path | None = None,
    observer: Callable[[RunContext], Handler] | None = None,
) -> Path:
    """Train an experiment, measure it and return its run directory: `folder`, or the next free one of its name.

    `started` is the monotonic clock at the start of the command, from which a `budget` counts. `profiled` is the number
    of steps to profile. `observer` makes a handler for the caller, attached beside those of the experiment.
    """
    began = time.monotonic() if started is None else started
    if isinstance(source, Experiment):
        loaded = source
        plugins.load(loaded.plugins)  # another experiment may have been loaded since
    else:
        loaded = loading.load_experiment(source, settings)
    trust.remember(loaded.plugins)
    budget = Budget(loaded.train.budget, began) if loaded.train.budget else None
    if budget:
        budget.refuse_if_over()
        loaded = budget.fewer_scenes(loaded)
    among = processes.current()
    refuse_shards(loaded, among)
    say = say_to(console)
    say(
        f"{loaded.name if loaded is source else source}: reading its images"
        + (", then timing a step" if is_timed(loaded) else "")
    )
    thumbnails: dict[str, Thumbnail] = {}
    prepared = _prepared(loaded, budget, among, thumbnails, say)
    assembly = prepared.assembly
    refuse_differences(assembly.experiment, among)
    # No directory is claimed before all that can be refused is refused.
    claimed = (folder or RunDirectory.claim(loaded.name).path) if among.writes else Path()
    directory = RunDirectory(among.agreed(claimed), among.writes)
    with holding(directory) as interruption:
        open_directory(directory, assembly)
        for line in prepared.told:
            directory.log(line)
        context = RunContext(
            assembly,
            directory,
            console,
            began,
            budget.late if budget else never,
            budget.earlier if budget else as_planned,
            interruption,
            baselines=prepared.baselines,
            thumbnails=thumbnails,
            profiled=profiled,
            budget=budget,
            observer=observer,
            among=among,
        )
        context.progress.initial_validation, context.fitted = prepared.initial, prepared.start.fitted
        begin(context)
        carry_out(context)
    return directory.path


@dataclass(frozen=True)
class _Prepared:
    """What a run has before its first step, and the lines that it told."""

    assembly: Assembly
    start: Start
    initial: Validation | None
    """Of the initial weights, if they are scored."""
    baselines: dict[str, Summary] | None
    """Of a budget; without one they are scored at the end."""
    told: tuple[str, ...]


def _prepared(
    loaded: Experiment,
    budget: Budget | None,
    among: Processes,
    thumbnails: dict[str, Thumbnail],
    say: Callable[[str], None],
) -> _Prepared:
    """Read the images, time steps, set the initial weights, score them, and plan the steps of a budget."""
    # Reading images, timing steps and scoring baselines can take longer than a short budget, and no training loop looks
    # at the clock yet: an alarm raises in the middle of them. They come before the plan, which subtracts their time.
    with deadline.at(budget.ends - deadline.LEAVING_SECONDS, budget.over) if budget else nullcontext():
        patience = min(TRIAL_SECONDS, TIMING * budget.seconds if budget else math.inf)
        assembly, step, measured = assembled(loaded, patience)
        start = initialize(assembly)
        told = (*measured, *start.told)
        for line in told:
            say(line)
        baselines = scored_baselines(assembly, thumbnails) if budget else None
        if start.complete and budget and not budget.affords_validation(assembly):
            start = replace(start, complete=False)
            say("initial weights are not scored: it would take too large a share of the budget")
        elif start.complete:
            say(f"scoring these weights on {format_count(len(assembly.dataset.splits['val']), 'validation image')}")
        initial = initial_validation(assembly, start, among)
        counted = budget.plan(assembly, step) if budget else assembly.experiment
    # Where 'auto' keeps the images depends on the memory that is free now, and patches that are cut on a GPU differ in
    # their last bits. The choice is written into the run's experiment, so that 'resume' makes the same one.
    runtime = replace(counted.runtime, cache=assembly.images.kept)
    return _Prepared(replace(assembly, experiment=replace(counted, runtime=runtime)), start, initial, baselines, told)
