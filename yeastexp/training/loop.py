"""A run from its first step, or from a checkpoint, to its result, held by one process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from yeastexp.config.experiment import Experiment
from yeastexp.errors import INTERRUPTED, RUN_FAILED, UserError
from yeastexp.system import environment, failures, locks, memory
from yeastexp.system.interruption import Interruption
from yeastexp.system.processes import Processes, refuse_unequal
from yeastexp.training import checkpoints, inputs
from yeastexp.training.budget import BudgetOver
from yeastexp.training.build import Assembly
from yeastexp.training.conclude import conclude
from yeastexp.training.context import RunContext
from yeastexp.training.handlers import attach_handlers
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.tensorboard import Tracker


def refuse_shards(experiment: Experiment, among: Processes) -> None:
    """Raises UserError if batches cannot be cut as the experiment says, or not be shared by so many processes."""
    shards, batch = experiment.runtime.shards, experiment.train.batch_size
    if batch < shards:
        raise UserError(
            f"[runtime] shards: a batch of {batch} has no {shards} parts; set [train] batch_size = {shards}"
        )
    if shards % among.count:
        raise UserError(
            f"[runtime] shards: {shards} cannot be shared by {among.count} processes; set it to {among.count}, or to a "
            "multiple of it"
        )


def refuse_differences(experiment: Experiment, among: Processes) -> None:
    """Raises UserError if processes work with other files, versions or options than the first of them."""
    if among.count == 1:
        return
    read = {
        f"{kind} '{name}'": digest for kind, of in inputs.digests(experiment).items() for name, digest in of.items()
    }
    versions = {name: str(version) for name, version in environment.versions().items()}
    options = {key: str(value) for key, value in experiment.options().items()}
    refuse_unequal({**versions, **read, **options}, among)


def open_directory(directory: RunDirectory, assembly: Assembly) -> None:
    """Put the plugins, the environment and the resolved experiment in place; a run that has the last can be resumed."""
    directory.copy_plugins(assembly.experiment.plugins)
    directory.write_environment(described(assembly))
    directory.write_experiment(assembly.experiment)


def described(assembly: Assembly) -> dict[str, Any]:
    """What this process depends on beside the experiment."""
    loaded = assembly.experiment
    digests = {"experiment": hashlib.sha256(loaded.resolved().encode()).hexdigest(), **inputs.digests(loaded)}
    chosen = {"seed": loaded.train.seed, "precision": loaded.train.precision}
    return {**chosen, **environment.describe(assembly.device, digests)}


@contextmanager
def holding(directory: RunDirectory) -> Iterator[Interruption]:
    """A run directory for this process alone, or for those that do its work together; Ctrl-C and SIGTERM wait for the
    end of a step, and a full disk is said in a line."""
    if not directory.writes:  # another one of them holds it
        with failures.explained(directory.path), Interruption() as interruption:
            yield interruption
        return
    directory.refuse_links()
    with failures.explained(directory.path), locks.held(directory.path) as stale, Interruption() as interruption:
        if stale:
            directory.log(stale)
        yield interruption


def begin(run: RunContext) -> None:
    """Make what training needs beside the parts, and the first checkpoint."""
    if init_from := run.assembly.experiment.train.init_from:
        run.log(checkpoints.start_from(run.assembly.model, RunDirectory(init_from).checkpoint("best")))
    run.build()
    with _closed_on_failure(run.tracker):
        attach_handlers(run)
        run.tracker.text("experiment", run.assembly.experiment.resolved())
        updates = f"{run.steps} steps ({run.schedule.updates} updates) in {run.epochs} epochs"
        run.log(f"{updates} on {run.assembly.device}")
        run.say(f"{run.directory}: {updates} on {run.assembly.device}")
        run.log(run.assembly.images.where)
        run.start_at(0)
        run.save()


def continue_from(run: RunContext, state: dict[str, Any]) -> None:
    """Be where a checkpoint was; UserError names it if it is of another experiment."""
    checkpoints.load_weights(run.assembly.model, state["model"], run.directory.path)
    run.build(after_step=state["step"])
    with _closed_on_failure(run.tracker):
        attach_handlers(run)
        run.load_state_dict(state)
        steps = f"steps {run.step} to {run.until} again" if run.until else f"from step {run.step} of {run.steps}"
        run.say(f"{run.directory if not run.until else run.assembly.experiment.name}: {steps} on {run.assembly.device}")
        run.tracker.epochs(run.progress.rows)


@contextmanager
def _closed_on_failure(tracker: Tracker) -> Iterator[None]:
    """A tracker whose threads end if what a run begins with fails."""
    try:
        yield
    except BaseException:
        tracker.close()
        raise


def train(run: RunContext) -> None:
    """Run the trainer until it is over or pauses."""
    if run.over:
        if not run.progress.rows or run.progress.rows[-1]["step"] != run.step:  # its budget left no time to score it
            run.validator.run(run.assembly.samples("val", run.among))
        return
    run.tracker.flush()  # so that no worker process is forked while a file is written
    run.assembly.model.train()
    batches = run.rest()
    with memory.kept_for_next_step(), ExitStack() as ending:  # one that fails keeps no other from its end
        ending.callback(batches.close)  # type: ignore[attr-defined]  # a generator; ends the worker processes
        for handler in reversed(run.handlers.values()):
            if (close := getattr(handler, "close", None)) is not None:
                ending.callback(close)
        run.trainer.run(batches)


def carry_out(run: RunContext) -> None:
    """Train to the end and write the result; UserError with status 130 if it was interrupted.

    The run has begun, or stands at a checkpoint.
    """
    directory = run.directory
    try:
        with failures.explained(directory.path, _memory_of(run.assembly)):
            try:
                train(run)
            except BudgetOver:
                raise _unscored(run) from None
            run.tracker.flush()
            if run.among.any(run.interruption.wanted) or not run.over:
                raise UserError(
                    f"{directory}: interrupted after step {run.step} of {run.steps}; "
                    f"python -m yeastexp resume {directory} continues from there",
                    status=INTERRUPTED,
                )
            conclude(run)
    except BaseException as error:
        with suppress(UserError):  # if the directory is gone, that is what was raised
            directory.log(f"ended by {type(error).__name__}: {' '.join(str(error).splitlines())}")
        raise
    finally:
        run.tracker.close()
        with suppress(UserError):
            ended = environment.ended(directory.read_environment(), time.monotonic() - run.began)
            directory.write_environment(ended)


def _unscored(run: RunContext) -> UserError:
    """Keep the weights that there was time for as those of an interrupted run; what to say of them."""
    run.progress.stopped = None
    run.save()
    return UserError(
        f"{run.directory}: the budget was over before the weights after step {run.step} of {run.steps} were scored; "
        f"they are in checkpoints/last.pt; python -m yeastexp resume {run.directory} continues from there",
        status=RUN_FAILED,
    )


def _memory_of(assembly: Assembly) -> str:
    side, channels = assembly.sampler.plan.side, assembly.experiment.task.channels
    return f"a step with {assembly.sampler.size} × {channels} × {side} × {side} pixels (B × C × H × W)"
