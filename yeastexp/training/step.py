"""The training step: forward pass, loss, backward pass and update, with the events of an optimizer step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, EventEnum
from torch import Tensor

from yeastexp.errors import UserError
from yeastexp.training.finite import check_finite
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep
from yeastexp.training.outputs import NAMED, checked_outputs
from yeastexp.training.profiling import BACKWARD, FORWARD, LOSS, UPDATE, part

Loss = Callable[[Tensor, Tensor], Tensor]
Count = Callable[[Tensor], Tensor | None]
"""From targets to the number that their loss is divided by; None if the loss is no mean over pixels."""

logging.getLogger("ignite").addHandler(logging.NullHandler())  # it repeats every exception that is raised anyway


class TrainingEvents(EventEnum):
    """Events of a trainer beside Ignite's own; `trainer.state.updates` counts the optimizer's steps."""

    GRADIENTS_READY = "gradients_ready"
    """The gradients of an accumulation group are complete and unscaled; the weights have not changed yet."""
    UPDATE_COMPLETED = "update_completed"
    """The optimizer has changed the weights: once an accumulation group, but not after an overflow in float16."""
    LOSSES_READ = "losses_read"
    """The losses since the last such event were copied to the host; `trainer.state.train_loss` is their mean."""


def make_trainer(
    optimization: OptimizationStep,
    loss: Loss,
    schedule: AccumulationSchedule,
    outputs: int,
    count: Count = lambda targets: None,
    named: str = NAMED,
) -> Engine:
    """Return an engine whose step trains on a batch (images, targets); its output is the loss, left on the device.

    The weights change with the last batch of each accumulation group of `schedule`, in which batches weigh by their
    `count`. Messages about wrong outputs of the model begin with `named`, the place where the file names it.
    """

    def step(engine: Engine, batch: tuple[Tensor, Tensor]) -> Tensor:
        number = engine.state.iteration
        images, targets = (tensor.to(optimization.device, non_blocking=True) for tensor in batch)
        if schedule.ends(number - 1):  # the step before ended an accumulation group
            optimization.begin()
        with part(FORWARD), optimization.options.autocast(optimization.device):
            predicted = checked_outputs(optimization.forward(images), images, outputs, named)
        if not predicted.requires_grad:
            raise UserError(f"{named}: gives outputs without gradient; compute them from its weights by PyTorch")
        with part(LOSS):
            value = loss(predicted.float(), targets)
        # Reading a loss waits for a GPU, where `ReadLosses` reads several at a time. On the CPU it costs nothing, and
        # a loss that is not finite ends the run before it changes the weights.
        if optimization.device.type == "cpu":
            check_finite(value.detach()[None], number, images)
        with part(BACKWARD):
            share = schedule.share(number)
            counted = None if share == 1 else count(targets)
            optimization.add(value, share, None if counted is None else counted.detach() / images[:, 0].numel())
        if schedule.ends(number):
            update(engine, optimization, number)
        return value.detach()

    return engine_of(step)


def engine_of(step: Callable[[Engine, Any], Tensor]) -> Engine:
    """Return an engine with this step, which can fire `TrainingEvents`."""
    engine = Engine(step)
    engine.register_events(*TrainingEvents, event_to_attr={TrainingEvents.UPDATE_COMPLETED: "updates"})
    return engine


def update(engine: Engine, optimization: OptimizationStep, number: int) -> None:
    """Change the weights by the gradients of an accumulation group, and fire the events before and after."""
    with part(UPDATE):
        optimization.unscale()
        engine.fire_event(TrainingEvents.GRADIENTS_READY)
        if optimization.apply(number):
            engine.state.updates += 1  # type: ignore[attr-defined]  # registered by `engine_of`
            engine.fire_event(TrainingEvents.UPDATE_COMPLETED)
