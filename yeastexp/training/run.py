"""From an experiment file to a run directory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.config.settings import seconds
from yeastexp.errors import UserError
from yeastexp.training import build
from yeastexp.training.build import Assembly, options_of
from yeastexp.training.context import RunContext
from yeastexp.training.device import configure_torch
from yeastexp.training.loop import begin, carry_out, holding, open_directory
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.timing import seconds_per_step
from yeastexp.training.validation import scored_baselines, validate

RESERVE = 0.06
"""Share of a time budget kept for a machine that slows down."""

TIMING = 0.02
"""Share of a time budget that finds out how long a step takes."""

THREADS_SECONDS = 2.0
"""About so long each number of threads is measured."""

CLOSING = 0.01
CLOSING_SECONDS = 5.0
"""Kept of a time budget, with that share of it, for tables, pictures and files at the end and for leaving Python."""


def run(
    path: Path,
    settings: Sequence[str] = (),
    *,
    started: float | None = None,
    console: Console,
    profiled: int = 0,
    folder: Path | None = None,
) -> Path:
    """Train the experiment of a file, measure it and return its run directory: `folder`, or the next of its name.

    `started` is the monotonic clock at the start of the command, from which a `budget` counts. So many steps are
    `profiled` on the way.
    """
    began = time.monotonic() if started is None else started
    loaded = load_experiment(path, settings)
    assembly = build.assemble(configure_torch(loaded))
    options_of(assembly)  # refused before a directory is made
    measured = ""
    if loaded.runtime.threads == "auto":
        threads, measured = fastest_threads(assembly)
        loaded = replace(loaded, runtime=replace(loaded.runtime, threads=threads))
        del assembly  # its images take the room that the next one's need
        assembly = build.assemble(configure_torch(loaded))  # what is fitted depends on them, in its last bits
    deadline = began + seconds(loaded.train.budget) if loaded.train.budget else math.inf
    baselines = scored_baselines(assembly) if loaded.train.budget else None  # they count as well
    counted, last_step_by = counted_steps(assembly, deadline)
    runtime = replace(counted.runtime, cache=assembly.images.kept)  # on a GPU it changes last bits
    assembly = replace(assembly, experiment=replace(counted, runtime=runtime))
    directory = RunDirectory(folder) if folder else RunDirectory.claim(loaded.name)
    with holding(directory) as interruption:
        open_directory(directory, assembly)
        late = _after(last_step_by)
        if measured:
            directory.log(measured)
        context = RunContext(
            assembly, directory, console, began, late, interruption, baselines=baselines, profiled=profiled
        )
        begin(context)
        carry_out(context)
    return directory.path


def fastest_threads(assembly: Assembly) -> tuple[int, str]:
    """The number of compute threads that steps are fastest with now, and a line that says what was measured.

    Where cores are busy with something else, the threads of a step wait for the slowest of them.
    """
    cores = os.cpu_count() or 1
    times: dict[int, float] = {}
    for threads in sorted({1, cores // 2, cores} - {0}, reverse=True):
        torch.set_num_threads(threads)
        times[threads] = seconds_per_step(assembly, THREADS_SECONDS)
    chosen = min(times, key=lambda threads: times[threads])
    found = ", ".join(f"{threads}: {1e3 * seconds:.0f} ms" for threads, seconds in times.items())
    return chosen, f"[runtime] threads = {chosen}: a step takes, by threads, {found}"


def _after(moment: float) -> Callable[[int], bool]:
    return lambda step: time.monotonic() > moment


def counted_steps(assembly: Assembly, deadline: float) -> tuple[Experiment, float]:
    """The experiment with a time budget turned into the number of steps that fits it, and when the last one must end.

    Steps and validations are timed on throwaway copies. A machine that slows down later cuts the run short at that
    moment, for the command keeps its time; the result says so.
    """
    train = assembly.experiment.train
    if not train.budget:
        return assembly.experiment, deadline
    step = seconds_per_step(assembly, TIMING * seconds(train.budget))
    validation = min(_seconds(lambda: validate(assembly, assembly.model)) for _ in range(2))
    deadline -= CLOSING_SECONDS + CLOSING * seconds(train.budget)
    deadline -= validation * (1 + assembly.pixels("test") / assembly.pixels("val"))
    left = deadline - time.monotonic() - RESERVE * seconds(train.budget)
    deadline -= (train.accumulation_steps - 1) * step  # a group of batches that is under way then is finished
    steps = int(left / (step + validation / (assembly.validate_every * assembly.sampler.steps_per_epoch)))
    if steps < 1:
        raise UserError(
            f"[train] budget: {train.budget} is too short; a step takes {step:.2f} s, a validation {validation:.1f} s"
        )
    return replace(assembly.experiment, train=replace(train, budget=None, steps=steps)), deadline


def _seconds(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start
