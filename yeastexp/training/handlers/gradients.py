"""What happens to gradients between the backward pass and the optimizer, and to the learning rate after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.training.step import TrainingEvents


class ClipGradients:
    """Scales all gradients together down to an L2 norm, and keeps the norms they had until somebody takes them."""

    def __init__(self, model: nn.Module, max_norm: float, device: torch.device) -> None:
        self.model = model
        self.max_norm = max_norm
        self.device = device
        self.norms: list[Tensor] = []

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Act once the gradients of a group are complete."""
        trainer.add_event_handler(TrainingEvents.GRADIENTS_READY, self.clip)

    def clip(self) -> None:
        """Clip, leaving the norm on the device."""
        self.norms.append(nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm))

    def take_norms(self) -> list[float]:
        """The norms since the last call."""
        norms = [float(norm) for norm in self.norms]
        self.norms.clear()
        return norms

    def state_dict(self) -> dict[str, Any]:
        """The norms that nobody has taken yet."""
        return {"norms": [norm.clone() for norm in self.norms]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self.norms[:] = [norm.to(self.device) for norm in state["norms"]]


class StepScheduler:
    """Steps a PyTorch scheduler once an update, or as often as is `due` after a step.

    Ignite's `LRScheduler` sets the rate of an iteration before it; PyTorch's own schedulers are stepped after it.
    """

    def __init__(
        self, scheduler: torch.optim.lr_scheduler.LRScheduler, due: Callable[[int], int] = lambda step: 1
    ) -> None:
        self.scheduler = scheduler
        self.due = due

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Step after each update; an update that float16 skipped is none."""
        trainer.add_event_handler(TrainingEvents.UPDATE_COMPLETED, self.step)

    def step(self, trainer: Engine) -> None:
        """Set the learning rate of the next update."""
        for _ in range(self.due(trainer.state.iteration)):
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self.scheduler.load_state_dict(state)
