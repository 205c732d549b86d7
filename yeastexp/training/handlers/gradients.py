"""Gradient clipping before an optimizer step, and the step of the learning rate's scheduler after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.training.step import TrainingEvents


class ClipGradients:
    """Clips the L2 norm of all gradients together to `max_norm`, and collects the norms before clipping for logging."""

    def __init__(self, model: nn.Module, max_norm: float, device: torch.device) -> None:
        self.model = model
        self.max_norm = max_norm
        self.device = device
        self.norms: list[Tensor] = []

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Act once the gradients of a group are complete."""
        trainer.add_event_handler(TrainingEvents.GRADIENTS_READY, self.clip)

    def clip(self) -> None:
        """Clip the gradients; the norm stays on the device, so that nothing waits for a GPU."""
        self.norms.append(nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm))

    def take_norms(self) -> list[float]:
        """Return the norms since the last call."""
        norms = [float(norm) for norm in self.norms]
        self.norms.clear()
        return norms

    def state_dict(self) -> dict[str, Any]:
        """The norms that are not logged yet."""
        return {"norms": [norm.clone() for norm in self.norms]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.norms[:] = [norm.to(self.device) for norm in state["norms"]]


class StepScheduler:
    """Steps a PyTorch scheduler after each update, `due(step)` times.

    Ignite's `LRScheduler` sets the learning rate before an iteration; PyTorch's own are to be stepped after it.
    """

    def __init__(
        self, scheduler: torch.optim.lr_scheduler.LRScheduler, due: Callable[[int], int] = lambda step: 1
    ) -> None:
        self.scheduler = scheduler
        self.due = due
        self.used = self._rate
        """The learning rate of the last update, in the first group of parameters."""

    @property
    def _rate(self) -> float:
        rate: float = self.scheduler.optimizer.param_groups[0]["lr"]
        return rate

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Step after each update; a step that is skipped after an overflow in float16 is no update."""
        trainer.add_event_handler(TrainingEvents.UPDATE_COMPLETED, self.step)

    def step(self, trainer: Engine) -> None:
        """Set the learning rate of the next update."""
        self.used = self._rate
        for _ in range(self.due(trainer.state.iteration)):
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of the scheduler."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.scheduler.load_state_dict(state)
