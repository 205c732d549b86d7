"""What happens beside the training step: one class each, attached in one order."""

from __future__ import annotations

from yeastexp.contracts import Handler
from yeastexp.errors import UserError
from yeastexp.metrics.summary import shown
from yeastexp.training.contact_sheet import draw_contact_sheet
from yeastexp.training.context import RunContext
from yeastexp.training.handlers.average import AverageWeights
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
    """Make the handlers of a run and attach them; on one event they act in this order, the user's before checkpoints.

    So a checkpoint holds what every handler has made of its step.
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
        agree,
    )
    context.handlers = {
        **({"clock": context.budget} if context.budget else {}),
        **_of_updates(context),
        "losses": losses,
        "budget": StopByBudget(context.asked, context.schedule, context.progress, context.tell),
        "neighbours": NoticeBusy(context.tell),
        **_of_validation(context),
        **_of_user(context),
        **({"observer": context.observer(context)} if context.observer else {}),
        "epochs": CollectEpochs(context.progress, losses, lambda: context.learning_rate),
        "checkpoints": checkpoints,
        "interruption": pause,
    }
    for handler in context.handlers.values():
        handler.attach(context.trainer, context.validator)


def _of_updates(context: RunContext) -> dict[str, Handler]:
    """What hangs on an optimizer step."""
    train, handlers = context.assembly.experiment.train, dict[str, Handler]()
    if train.max_grad_norm is not None:
        handlers["clipping"] = ClipGradients(context.model, train.max_grad_norm, context.device)
    if (scheduler := context.assembly.scheduler(context.optimizer, context.schedule.updates)) is not None:
        handlers["scheduler"] = StepScheduler(scheduler, context.scheduler_steps)
    if train.ema_decay is not None:
        handlers["average"] = AverageWeights(context.optimization, train.ema_decay)
    if context.profiled:
        handlers["profile"] = Profile(context.profiled, context.directory.profile, context.console)
    return handlers


def _of_validation(context: RunContext) -> dict[str, Handler]:
    """When whole images are scored, what is shown of them, and what follows from their scores."""
    assembly, progress, monitor = context.assembly, context.progress, context.monitor
    names, every = list(assembly.dataset.splits["val"]), assembly.validate_every
    pictured = names[:: max(1, -(-len(names) // PICTURES))]
    tracker, patience = context.tracker, assembly.experiment.validation.patience

    def over() -> bool:
        return context.over

    handlers: dict[str, Handler] = {
        "tensorboard": LogToTensorBoard(tracker, context),
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
    """Those of `[[handler]]`, by their place in the list and their name."""
    handlers: dict[str, Handler] = {}
    for index, part in enumerate(context.assembly.experiment.handlers):
        handler = part.build(context)
        if not isinstance(handler, Handler):
            raise UserError(f"{part.place}: [[handler]] name: '{part.name}' has no 'attach'")
        handlers[f"[[handler]] {index} '{part.name}'"] = handler
    return handlers
