"""Resuming a run from its newest good checkpoint, and extending one that is finished."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from yeastexp.config import diff
from yeastexp.config.experiment import FREE, LENGTH, Experiment
from yeastexp.contracts import Handler
from yeastexp.errors import UserError
from yeastexp.system import environment, files, processes
from yeastexp.training import build, checkpoints, inputs
from yeastexp.training.context import RunContext
from yeastexp.training.device import configure_torch
from yeastexp.training.initial_weights import initialize
from yeastexp.training.loop import (
    begin,
    carry_out,
    continue_from,
    described,
    holding,
    refuse_differences,
    refuse_shards,
)
from yeastexp.training.progress import Remade, Validation, augmented_steps
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.validation import initial_validation


def resume(
    run: Path,
    settings: Sequence[str] = (),
    *,
    started: float | None = None,
    console: Console,
    observer: Callable[[RunContext], Handler] | None = None,
) -> bool:
    """Continue a run from its newest good checkpoint to its result, and return whether there was anything to do.

    `settings` may make the run longer. Raises UserError if the experiment, or a file that it read, has changed.
    """
    began = time.monotonic() if started is None else started
    among = processes.current()
    directory = RunDirectory(run, among.writes)
    if not directory.is_run:
        raise UserError(f"{run}: not a run directory, or a run that ended before it began; {directory.meant}")
    directory.refuse_folder_of_runs(f"; 'crossval' or 'sweep' with -o {run} continues what it holds")
    before, loaded = directory.load(), directory.load(settings)
    _refuse_settings(before, loaded)
    refuse_shards(loaded, among)
    if _is_concluded(directory, before, loaded, settings):
        return False
    with holding(directory) as interruption:
        if directory.is_finished and _length(loaded) == _length(before):
            directory.log(f"{directory.result} is damaged, or of another run; it is written anew")
        # What can be refused is refused before images are read and before any file in the directory is renamed.
        kept = checkpoints.intact(directory.checkpoints)
        as_trained(directory, before, kept, settings)
        if kept is None:
            _refuse_edited(directory)
        _refuse_other_inputs(directory, loaded, kept)
        assembly = build.assemble(configure_torch(loaded))
        refuse_differences(assembly.experiment, among)
        context = RunContext(
            assembly, directory, console, began, interruption=interruption, observer=observer, among=among
        )
        now = described(assembly)
        # `newest` renames files, so one process calls it. The others wait for that at `gather`, and read afterwards.
        if among.writes:
            state = checkpoints.newest(directory.checkpoints, directory.log, assembly.model)
        among.gather(None)
        if not among.writes:
            state = checkpoints.intact(directory.checkpoints)
        # `newest` may have passed over the checkpoint that was judged above, as its weights are NaN for this model.
        trained = as_trained(directory, before, state, settings)
        longer = _length(loaded) != _length(trained)
        if state and longer:
            _extend(context, trained, state)
        if state is None:
            directory.log("no good checkpoint; from the beginning")
            start = initialize(assembly)
            for line in start.told:
                directory.log(line)
            context.progress.initial_validation = initial_validation(assembly, start, among)
            context.fitted = start.fitted
            begin(context)
        else:
            continue_from(context, state)
            if longer:
                context.save()  # from now on the checkpoint is one of the longer run
        _record(directory, assembly.experiment, now, context.step)
        carry_out(context)
    return True


def is_concluded(run: RunDirectory) -> bool:
    """Whether a run has its final result. Raises UserError if its experiment was edited."""
    return run.is_run and _is_concluded(run, loaded := run.load(), loaded, ())


def _is_concluded(run: RunDirectory, before: Experiment, loaded: Experiment, settings: Sequence[str]) -> bool:
    """Whether a run has the result of this experiment, and its checkpoint, if there is one, belongs to that result."""
    if not run.is_finished or (result := _result(run)) is None:
        return False
    state = checkpoints.intact(run.checkpoints)
    trained = as_trained(run, before, state, settings)
    return _length(trained) == _length(loaded) and (state is None or _is_of(result, state))


def _is_of(result: dict[str, Any], state: dict[str, Any]) -> bool:
    """Whether a result was computed from the weights in a checkpoint, and not in another run of the same length."""
    last = Validation.of(state["validations"]["last"])
    return result["steps"] == state["step"] and last is not None and result["last"]["loss"] == last.finite_loss


def _result(run: RunDirectory) -> dict[str, Any] | None:
    """Return the contents of `result.json`; None if it is damaged."""
    try:
        return run.read_result()
    except UserError:
        return None


def _length(experiment: Experiment) -> list[int | None]:
    return [getattr(experiment.train, key) for key in LENGTH]


def _refuse_settings(before: Experiment, now: Experiment) -> None:
    """Raises UserError if `--set` changed more than the length and the free keys of `[runtime]`."""
    train = replace(now.train, **{key: getattr(before.train, key) for key in LENGTH})
    runtime = replace(now.runtime, **{key: getattr(before.runtime, key) for key in FREE["runtime"]})
    if replace(now, train=train, runtime=runtime).resolved() != before.resolved():
        free = ", ".join([*(f"train.{key}" for key in LENGTH), *(f"runtime.{key}" for key in FREE["runtime"])])
        raise UserError(
            f"--set: a run continues as it began; only {free} can change. For anything else start a new run, with "
            "train.init_from to start from its weights"
        )


def as_trained(
    run: RunDirectory, before: Experiment, state: dict[str, Any] | None, settings: Sequence[str] = ()
) -> Experiment:
    """Return the experiment with the length that its checkpoint was trained for. Raises UserError if it was edited."""
    if state is None or "experiment" not in state:  # an earlier version kept none
        return before
    edits = diff.edits(state["experiment"], before, run.experiment)
    # A run that is extended writes the new length into its file before it saves its first checkpoint of that length.
    # After a crash in between, the same --set has to be accepted again.
    length = [f"train.{key}" for key in LENGTH]
    if any(setting.partition("=")[0].strip() in length for setting in settings):
        edits = {key: values for key, values in edits.items() if key not in length}
    if edits:
        extends = "; --set makes a run longer" if {*length} & edits.keys() else ""
        raise UserError(
            f"{run.experiment}: is not the experiment of the checkpoint ({diff.phrase(edits)}); put it back, or start "
            f"a new run, with train.init_from to start from its weights{extends}"
        )
    train = state["experiment"]["train"]
    return replace(before, train=replace(before.train, **{key: train.get(key) for key in LENGTH}))


def _refuse_edited(run: RunDirectory) -> None:
    """Raises UserError if the experiment's file is not the one that the run wrote.

    For runs without a good checkpoint: only the digest is left to compare, so the message cannot say what changed.
    """
    recorded = run.read_environment()["digests"].get("experiment")
    if recorded not in (None, files.digest(run.experiment)):
        raise UserError(
            f"{run.experiment}: was edited since the run began, and no good checkpoint is left; put it back, or start "
            "a new run"
        )


def _refuse_other_inputs(run: RunDirectory, now: Experiment, state: dict[str, Any] | None) -> None:
    """Raises UserError if a file is not what the run read.

    Initial weights are read at step 0 only: once there is a checkpoint, a change of them is only a warning.
    """
    listed, recorded = inputs.inputs_of(now), run.read_environment()
    initial = inputs.changed(recorded, listed, ["init_from"])
    changed = inputs.changed(recorded, listed, [kind for kind in inputs.HOLDS if kind != "init_from"])
    if changed or (initial and state is None):
        raise UserError(
            f"{run}: {'; '.join(changed or initial)}; bring back what the run began with, or start a new run, with "
            "train.init_from where the weights are wanted"
        )
    for phrase in initial:
        warnings.warn(f"{run}: {phrase}; the run goes on from its own checkpoint", stacklevel=2)


def _extend(context: RunContext, before: Experiment, state: dict[str, Any]) -> None:
    """Turn the run into a longer one from this checkpoint on, and record that in its directory.

    Its weights have to become those of a run that was planned with this length. Raises UserError if they would not.
    """
    run, step = context.directory, state["step"]
    steps = before.train.steps or (before.train.epochs or 0) * context.steps_per_epoch
    if context.steps <= step:
        raise UserError(f"--set: {step} steps are done; a length of {context.steps} steps does not extend them")
    if context.steps < steps:
        raise UserError(f"--set: {steps} steps are planned; a length of {context.steps} steps does not extend them")
    updates = [build.schedule_of(context.assembly, length).updates for length in (steps, context.steps)]
    if (remade := state.get("remade")) and build.is_fitted_to_length(before, updates[0]):
        raise UserError(
            f"--set: after step {remade['at']} the learning rate was made to fall until step {remade['end']}, as a "
            "budget held no more steps, so a longer run would have had another; start a new run"
        )
    # The end of the shorter run may have cut its last accumulation group short. In the longer run this group has more
    # batches, and the weights do not change at this step.
    if not context.schedule.ends(step):
        raise UserError(
            f"--set: step {step} would lie within a group of [train] accumulation_steps = {context.schedule.size} "
            "steps of the longer run; start a new run"
        )
    if (update := _first_other_rate(before, *updates)) is not None:
        name = before.scheduler.name if before.scheduler else ""
        raise UserError(
            f"--set: [scheduler] '{name}' was fitted to {steps} steps: in a run of {context.steps} steps the learning "
            f"rate would have been another from update {update} on; start a new run"
        )
    first = augmented_steps(before.train, steps, Remade(**remade) if remade else None)
    if first < step and context.assembly.ends_plain:
        raise UserError(
            f"--set: steps {first + 1} to {step} had not all augmentations ([train] plain_steps = "
            f"{before.train.plain_steps}), which they would have in a run of {context.steps} steps; start a new run"
        )
    if state["stopped"] == "early":
        # Its patience is at an end, and without a new count so would be the longer run's, at the next validation.
        state["best"] = {**state["best"], "validations_since": 0}
    state["stopped"] = state["remade"] = None
    run.put_result_aside(steps)
    run.write_experiment(context.assembly.experiment)
    recorded = run.read_environment()
    recorded["digests"]["experiment"] = files.digest(run.experiment)
    recorded.setdefault("extended", []).append(
        {"at": step, "from_steps": steps, "to_steps": context.steps, "when": environment.now()}
    )
    run.write_environment(recorded)
    run.log(f"extended from {steps} to {context.steps} steps at step {step}")


def _first_other_rate(loaded: Experiment, updates: int, more: int) -> int | None:
    """Return the first update, from 1, with another learning rate in a run of `more` updates; None if there is none."""
    short, long = build.learning_rates(loaded, updates, updates), build.learning_rates(loaded, more, updates)
    return next((index + 1 for index in range(updates) if short[index] != long[index]), None)


def _record(run: RunDirectory, loaded: Experiment, now: dict[str, Any], step: int) -> None:
    """Record in `environment.json` and the log that the run was resumed, and how the environment differs."""
    recorded = run.read_environment()
    other = environment.differences(recorded, now)
    other.pop("digests.experiment", None)
    runtime = {key: getattr(loaded.runtime, key) for key in ("device", "threads")}
    entry = {"step": step, "started": now["started"], "command": now["command"], "runtime": runtime, "differs": other}
    recorded.setdefault("resumed", []).append(entry)
    run.write_environment(recorded)
    run.log(f"resumed at step {step}")
    for name, (was, is_) in other.items():
        run.log(f"not as at the beginning: {name} was {was}, is {is_}")
