"""The handlers of a run, which do everything beside the training step, and the order in which they are attached."""

from __future__ import annotations

from yeastexp.contracts import Handler
from yeastexp.errors import UserError
from yeastexp.metrics.summary import shown
from yeastexp.training.build import is_fitted_to_length
from yeastexp.training.contact_sheet import draw_contact_sheet
from yeastexp.training.context import RunContext
from yeastexp.training.handlers.average import AverageWeights, KeepInitialShare
from yeastexp.training.handlers.checkpoints import CollectEpochs, KeepCheckpoints
from yeastexp.training.handlers.display import DrawPictures, LogToTensorBoard, ShowProgress
from yeastexp.training.handlers.gradients import ClipGradients, StepScheduler
from yeastexp.training.handlers.losses import ReadLosses
from yeastexp.training.handlers.neighbours import NoticeBusy
from yeastexp.training.handlers.profile import Profile
from yeastexp.training.handlers.stopping import PauseWhenInterrupted, StopByBudget, StopEarly
from yeastexp.training.handlers.validation import KeepBest, ValidateEvery

PICTURES = 3
"""Validation images in the picture that TensorBoard shows, spread over the split."""


def attach_handlers(context: RunContext) -> None:
    """Build the handlers of a run and attach them. Handlers of the same event act in the order of this dictionary.

    The clock comes first, so that the handlers of a step's end do not count as the step. Losses are read before the
    validation of an epoch. The user's handlers come before checkpoints, which thus have their state after the step.
    """
    losses = ReadLosses(context.device, context.began, context.log)
    agree = context.among.any
    pause = PauseWhenInterrupted(context.interruption, context.until, agree)
    checkpoints = KeepCheckpoints(
        context.assembly.experiment.runtime.checkpoint_minutes,
        context.schedule,
        losses,
        context.save,
        lambda: context.tracker.epochs(context.progress.rows),
        lambda: context.over,
        pause.pauses,
        lambda: context.progress.best.step,
        agree,
    )
    context.handlers = {
        **({"clock": context.budget} if context.budget else {}),
        **_of_updates(context),
        "losses": losses,
        "budget": StopByBudget(
            context.asked,
            context.schedule,
            context.progress,
            context.tell,
            lambda: is_fitted_to_length(context.assembly.experiment, context.schedule.updates),
        ),
        "neighbours": NoticeBusy(context.tell),
        **_of_validation(context),
        **_of_user(context),
        **({"observer": context.observer(context)} if context.observer else {}),
        "epochs": CollectEpochs(context.progress, losses, lambda: _learning_rate(context)),
        "checkpoints": checkpoints,
        "interruption": pause,
    }
    for handler in context.handlers.values():
        handler.attach(context.trainer, context.validator)


def _of_updates(context: RunContext) -> dict[str, Handler]:
    """Return the handlers of an optimizer step: clipping before it, scheduler and average after it."""
    train, handlers = context.assembly.experiment.train, dict[str, Handler]()
    if train.max_grad_norm is not None:
        handlers["clipping"] = ClipGradients(context.model, train.max_grad_norm, context.device)
    if (scheduler := context.assembly.scheduler(context.optimizer, context.schedule.updates)) is not None:
        handlers["scheduler"] = StepScheduler(scheduler, context.scheduler_steps)
    if train.ema_decay is not None:
        handlers["average"] = AverageWeights(context.optimization, train.ema_decay)
    if train.init_share and train.init_from:
        handlers["initial share"] = KeepInitialShare(context.optimization, train.init_share, context.fitted)
    if context.profiled:
        handlers["profile"] = Profile(context.profiled, context.directory.profile, context.console)
    return handlers


def _learning_rate(context: RunContext) -> float:
    """Return the learning rate of the step that was done last, in the first group of parameters."""
    scheduler = context.handlers.get("scheduler")
    if isinstance(scheduler, StepScheduler) and context.schedule.ends(context.step):
        return scheduler.used  # the optimizer has that of the next step by now
    rate: float = context.optimizer.param_groups[0]["lr"]
    return rate


def _of_validation(context: RunContext) -> dict[str, Handler]:
    """Return the handler that validates, last, and those that log, draw, compare and judge each validation."""
    assembly, progress, monitor = context.assembly, context.progress, context.monitor
    names, every = list(assembly.dataset.splits["val"]), assembly.validate_every
    pictured = names[:: max(1, -(-len(names) // PICTURES))]
    tracker, patience = context.tracker, assembly.experiment.validation.patience

    def over() -> bool:
        return context.over

    handlers: dict[str, Handler] = {
        "tensorboard": LogToTensorBoard(tracker, context, lambda: _learning_rate(context)),
        "pictures": DrawPictures(
            tracker,
            pictured,
            -(-context.epochs // every),
            every,
            lambda: draw_contact_sheet(assembly),
            progress,
            over,
            context.among,
        ),
        "best": KeepBest(monitor, progress, context.save_best, context.log),
        "progress bar": ShowProgress(
            context.console, lambda: context.until or context.end, shown(monitor, assembly.approximate)
        ),
    }
    if patience is not None:
        handlers["patience"] = StopEarly(patience, monitor, progress, over, context.log)
    return {**handlers, "validation": ValidateEvery(every, lambda: assembly.samples("val", context.among), over)}


def _of_user(context: RunContext) -> dict[str, Handler]:
    """Build the handlers of `[[handler]]`; their keys, by index and name, are those of their states in checkpoints."""
    handlers: dict[str, Handler] = {}
    for index, part in enumerate(context.assembly.experiment.handlers):
        handler = part.build(context)
        if not isinstance(handler, Handler):
            raise UserError(f"{part.place}: [[handler]] name: '{part.name}' has no 'attach'")
        handlers[f"[[handler]] {index} '{part.name}'"] = handler
    return handlers
