"""The training step: patches forward and back, and the events of an optimizer step."""

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
"""From targets to what the loss is a mean over, if it is one."""

logging.getLogger("ignite").addHandler(logging.NullHandler())  # it repeats every exception that is raised anyway


class TrainingEvents(EventEnum):
    """What a trainer fires beside Ignite's own events; `trainer.state.updates` counts the optimizer's steps."""

    GRADIENTS_READY = "gradients_ready"
    """The gradients of a whole group of batches are there, unscaled, and the weights have not changed yet."""
    UPDATE_COMPLETED = "update_completed"
    """The optimizer has changed the weights: once a group of batches, and not where float16 overflowed."""
    LOSSES_READ = "losses_read"
    """The losses since the last reading came to the host; `trainer.state.train_loss` is their mean."""


def make_trainer(
    optimization: OptimizationStep,
    loss: Loss,
    schedule: AccumulationSchedule,
    outputs: int,
    count: Count = lambda targets: None,
    named: str = NAMED,
) -> Engine:
    """An engine whose step takes (images, targets) forward and back; its output is the loss, left on the device.

    The weights change with the last batch of each group of `schedule`, in which batches weigh by their `count`. Wrong
    outputs are said to come from the place where the model is `named`. On the CPU, where reading a loss costs nothing,
    one that is not finite ends the run before they do.
    """

    def step(engine: Engine, batch: tuple[Tensor, Tensor]) -> Tensor:
        number = engine.state.iteration
        images, targets = (tensor.to(optimization.device, non_blocking=True) for tensor in batch)
        if schedule.ends(number - 1):
            optimization.begin()
        with part(FORWARD), optimization.options.autocast(optimization.device):
            predicted = checked_outputs(optimization.forward(images), images, outputs, named)
        if not predicted.requires_grad:
            raise UserError(f"{named}: gives outputs without gradient; compute them from its weights by PyTorch")
        with part(LOSS):
            value = loss(predicted.float(), targets)
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
    """An engine of a training step, with the events of an optimizer step."""
    engine = Engine(step)
    engine.register_events(*TrainingEvents, event_to_attr={TrainingEvents.UPDATE_COMPLETED: "updates"})
    return engine


def update(engine: Engine, optimization: OptimizationStep, number: int) -> None:
    """Change the weights by the gradients of a group of batches, and say so before and after."""
    with part(UPDATE):
        optimization.unscale()
        engine.fire_event(TrainingEvents.GRADIENTS_READY)
        if optimization.apply(number):
            engine.state.updates += 1  # type: ignore[attr-defined]  # registered by `engine_of`
            engine.fire_event(TrainingEvents.UPDATE_COMPLETED)
