"""An exponential moving average of the weights, `[train] ema_decay`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.training.optimization import OptimizationStep
from yeastexp.training.step import TrainingEvents


class Average:
    """An exponential moving average of a model's weights, as a model.

    In update n the average is multiplied by min(decay, (1 + n) / (10 + n)), so that the initial weights soon vanish.
    Running statistics of norm layers are averaged like the weights that they belong to; integer buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights of a model to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        # One call for all tensors: a call for each would take longer than the arithmetic.
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        smooth = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in smooth], [new for _, new in smooth], 1 - decay)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


class AverageWeights:
    """Keeps the `Average` of an optimization's model, which is then validated, saved and predicted with.

    Ignite's `EMAHandler` has a decay that does not depend on the number of updates unless it warms up linearly, and
    takes counts and statistics of norm layers either both or not at all.
    """

    def __init__(self, optimization: OptimizationStep, decay: float) -> None:
        self.model = optimization.model
        self.average = Average(self.model, decay)
        optimization.averaged = self.average.model

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Update the average after each optimizer step."""
        trainer.add_event_handler(TrainingEvents.UPDATE_COMPLETED, lambda: self.average.update(self.model))

    def state_dict(self) -> dict[str, Any]:
        """The weights in training and the number of updates; the averaged weights are the checkpoint's `model`."""
        return {"model": self.model.state_dict(), "updates": self.average.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`; the averaged weights are restored by the optimization."""
        self.model.load_state_dict(state["model"])
        self.average.updates = state["updates"]
