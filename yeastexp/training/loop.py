"""The stages of a run, shared by `run` and `resume`: begin or continue, train, conclude, in a locked directory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ignite.engine import Events

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
    """Raises UserError if processes would have unequal numbers of shards."""
    shards = experiment.runtime.shards
    if shards % among.count:
        raise UserError(
            f"[runtime] shards: {shards} cannot be shared by {among.count} processes; set it to {among.count}, or to a "
            "multiple of it"
        )


def refuse_differences(experiment: Experiment, among: Processes) -> None:
    """Raises UserError if processes read different files, or have different versions or options."""
    if among.count == 1:
        return
    read = {
        f"{kind} '{name}'": digest for kind, of in inputs.digests(experiment).items() for name, digest in of.items()
    }
    versions = {name: str(version) for name, version in environment.versions().items()}
    options = {key: str(value) for key, value in experiment.options().items()}
    refuse_unequal({**versions, **read, **options}, among)


def open_directory(directory: RunDirectory, assembly: Assembly) -> None:
    """Write the plugins, the environment and the resolved experiment into a new run directory."""
    # The experiment comes last: with it the directory counts as a run, and 'resume' relies on the other two.
    directory.copy_plugins(assembly.experiment.plugins)
    directory.write_environment(described(assembly))
    directory.write_experiment(assembly.experiment)


def described(assembly: Assembly) -> dict[str, Any]:
    """Return the contents of `environment.json`: versions, machine, seed, and the digests of what the run reads."""
    loaded = assembly.experiment
    digests = {"experiment": hashlib.sha256(loaded.resolved().encode()).hexdigest(), **inputs.digests(loaded)}
    chosen = {"seed": loaded.train.seed, "precision": loaded.train.precision}
    return {**chosen, **environment.describe(assembly.device, digests)}


@contextmanager
def holding(directory: RunDirectory) -> Iterator[Interruption]:
    """Lock a run directory while the context is entered, and yield the `Interruption` that signals set.

    A full disk, and memory that ran out, become a UserError. Of several processes the one that writes has the lock.
    """
    if not directory.writes:
        with failures.explained(directory.path), Interruption() as interruption:
            yield interruption
        return
    directory.refuse_links()
    with failures.explained(directory.path), locks.held(directory.path) as stale, Interruption() as interruption:
        if stale:
            directory.log(stale)
        yield interruption


def begin(run: RunContext) -> None:
    """Build engines and handlers, and save the checkpoint of step 0.

    With that checkpoint a run that is interrupted in its first epoch can be resumed with the same initial weights.
    """
    run.build()
    with _closed_on_failure(run.tracker):
        attach_handlers(run)
        run.tracker.text("experiment", run.assembly.experiment.resolved())
        updates = f"{run.steps} steps ({run.schedule.updates} updates) in {run.epochs} epochs"
        run.log(f"{updates} on {run.assembly.device}")
        run.say(f"{run.directory}: {updates} on {run.assembly.device}")
        run.log(run.assembly.images.where)
        if run.augmented < run.steps:
            run.log(f"all augmentations in steps 1 to {run.augmented}, then those alone that move whole pixels")
        run.start_at(0)
        run.save()


def continue_from(run: RunContext, state: dict[str, Any]) -> None:
    """Build engines and handlers, and restore the state of a checkpoint. Raises UserError if the weights do not fit."""
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
    """Close the tracker, and so end the threads of its writers, if the block raises."""
    try:
        yield
    except BaseException:
        tracker.close()
        raise


def train(run: RunContext) -> None:
    """Run the trainer until the run is over or pauses."""
    if run.over and run.validated:
        return
    # Loader workers may be forked. The thread of the event writer must hold no lock, and have no file half written, at
    # that moment: the worker would inherit both.
    run.tracker.flush()
    batches = run.rest()
    # Handlers are closed in the order in which they were attached, then the batches. The stack calls all of them even
    # if one raises.
    with memory.kept_for_next_step(), ExitStack() as ending:
        ending.callback(batches.close)  # type: ignore[attr-defined]  # a generator; ends the worker processes
        for handler in reversed(run.handlers.values()):
            if (close := getattr(handler, "close", None)) is not None:
                ending.callback(close)
        # A run that is resumed after its last step has nothing to train, but its budget may have left no time to score.
        if run.over:
            run.trainer.fire_event(Events.STARTED)
            run.end_epoch()
            return
        run.assembly.model.train()
        run.trainer.run(batches)
        if not run.over and not run.among.any(run.interruption.wanted) and run.step != run.until:
            run.end_as_handlers_ask()


def carry_out(run: RunContext) -> None:
    """Train a run that has begun, or stands at a checkpoint, to its end, and write the result.

    Raises UserError with status 130 if the run is interrupted; its last checkpoint is on disk then.
    """
    directory = run.directory
    try:
        with failures.explained(directory.path, _memory_of(run.assembly)):
            try:
                train(run)
            except BudgetOver:
                raise _unscored(run) from None
            run.tracker.flush()
            # `train` also returns when it pauses. A signal after the last step counts as well: scoring takes long.
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
    """Save the weights as those of an interrupted run, so that 'resume' scores them; return the error to raise."""
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
