"""Reading the training loss from the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from yeastexp.training.finite import check_finite
from yeastexp.training.step import TrainingEvents

READ_EVERY = 10
"""Steps between two readings of the loss, each of which waits for a GPU to finish its work."""


class ReadLosses:
    """Copies the losses of several steps to the host at once, and averages them over the epoch.

    Ignite's `TerminateOnNan` acts after the optimizer step and ends a run as if it were done. Here a loss that is not
    finite raises, and the last good checkpoint stays.
    """

    def __init__(self, device: torch.device, began: float, log: Callable[[str], None]) -> None:
        self.device = device
        self.began = began
        self.log = log
        self.unread: list[Tensor] = []
        self.epoch: list[float] = []

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Read every READ_EVERY steps, and at the end of each epoch."""
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.count)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.read)

    def count(self, trainer: Engine) -> None:
        """Keep the loss of a step, on the device."""
        self.unread.append(trainer.state.output)  # type: ignore[arg-type]  # what the step gives
        if trainer.state.iteration == 1:
            self.log(f"first step done {time.monotonic() - self.began:.1f} s after the start of the command")
        if trainer.state.iteration % READ_EVERY == 0:
            self.read(trainer)

    def read(self, trainer: Engine) -> None:
        """Copy the unread losses to the host and fire LOSSES_READ. Raises NonFiniteLoss with the step of a bad one."""
        if not self.unread:
            return
        values = self.check(trainer.state.iteration)
        self.unread.clear()
        self.epoch += values
        state: Any = trainer.state
        state.train_loss = math.fsum(values) / len(values)
        trainer.fire_event(TrainingEvents.LOSSES_READ)

    def check(self, step: int) -> list[float]:
        """Return the unread losses, which end with that of `step`. Raises NonFiniteLoss if one is not finite."""
        return check_finite(torch.stack(self.unread), step) if self.unread else []

    def take_epoch(self) -> float:
        """Return the mean loss of the epoch, and begin the next one."""
        mean = math.fsum(self.epoch) / len(self.epoch)
        self.epoch.clear()
        return mean

    def state_dict(self) -> dict[str, Any]:
        """The losses of the epoch so far, those not read included."""
        return {"unread": list(self.unread), "epoch": list(self.epoch)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.unread = [loss.to(self.device) for loss in state["unread"]]
        self.epoch = list(state["epoch"])
