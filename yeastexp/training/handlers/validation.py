"""Validation during training, and the choice of the best checkpoint by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ignite.engine import Engine, Events

from yeastexp.sample import Sample
from yeastexp.training.progress import Progress


class ValidateEvery:
    """Runs the validator over the validation images after every n-th epoch, and after the last one."""

    def __init__(self, every: int, samples: Callable[[], Iterable[Sample]], over: Callable[[], bool]) -> None:
        self.every = every
        self.samples = samples
        self.over = over

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Validate at the end of an epoch."""
        self.trainer = trainer
        self.validator = validator
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)

    def validate(self) -> None:
        """Validate if it is time."""
        if self.trainer.state.epoch % self.every == 0 or self.over():
            self.validator.run(self.samples())


class KeepBest:
    """Saves a checkpoint whenever the monitored score improves.

    Ignite's `Checkpoint` never replaces a first score that is NaN, and loses the best score when it is resumed.
    """

    def __init__(self, monitor: str, progress: Progress, save: Callable[[], None], log: Callable[[str], None]) -> None:
        self.monitor = monitor
        self.progress = progress
        self.save = save
        self.log = log

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Compare each validation with the best one."""
        self.trainer = trainer
        validator.add_event_handler(Events.COMPLETED, self.judge)

    def judge(self, validator: Engine) -> None:
        """Record a validation as the last one, and as the best one if its monitored score improves."""
        state: Any = validator.state
        validation, step = state.validation, self.trainer.state.iteration
        self.progress.last_validation = validation
        value = validation.value(self.monitor, state.summary)
        # The progress bar, which is attached after this handler, shows the value.
        state.monitored = value
        if self.progress.best.improves(value, step):
            self.progress.best_validation = validation
            self.save()
        self.log(f"step {step}: val/loss {validation.loss:.4f}, {self.monitor} {value:.4f}")
