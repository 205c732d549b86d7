"""Checkpoints and `metrics.csv`: written after epochs, and within long ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events

from yeastexp.metrics.summary import tags
from yeastexp.training.handlers.losses import ReadLosses
from yeastexp.training.optimization import AccumulationSchedule
from yeastexp.training.progress import Progress


class CollectEpochs:
    """Adds a row for each epoch: training loss, learning rate, seconds, and the scores if it was validated."""

    def __init__(
        self,
        progress: Progress,
        losses: ReadLosses,
        learning_rate: Callable[[], float],
    ) -> None:
        self.progress = progress
        self.losses = losses
        self.learning_rate = learning_rate

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Collect the scores of a validation, and add the row when the epoch is over."""
        self.validated: dict[str, float] = {}
        trainer.add_event_handler(Events.STARTED, self.start)
        validator.add_event_handler(Events.COMPLETED, self.keep)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.row)

    def start(self) -> None:
        """Start the clock of an epoch."""
        self.began = time.monotonic()

    def keep(self, validator: Engine) -> None:
        """Keep the scores of a validation for the row of its epoch."""
        state: Any = validator.state
        self.validated = {"val/loss": state.metrics["loss"], **tags(state.summary)}

    def row(self, trainer: Engine) -> None:
        """Add the row of an epoch that is over."""
        row: dict[str, Any] = {"epoch": trainer.state.epoch, "step": trainer.state.iteration}
        row |= {"train/loss": self.losses.take_epoch(), "learning_rate": self.learning_rate()}
        row |= self.validated
        self.validated = {}
        row["seconds"] = round(time.monotonic() - self.began, 2)
        self.began = time.monotonic()
        self.progress.rows.append(row)


SHARE = 0.05
"""The most that checkpoints after epochs may take of a run's time. An epoch of a few small images is a single step."""


class KeepCheckpoints:
    """Saves a checkpoint after each epoch that is not over at once, every `minutes` within one, and at the end.

    Ignite's `Checkpoint` deletes the old file before the new one is written, so that a full disk leaves none.
    """

    def __init__(
        self,
        minutes: float,
        schedule: AccumulationSchedule,
        losses: ReadLosses,
        save: Callable[[], None],
        write_epochs: Callable[[], None],
        over: Callable[[], bool],
        pauses: Callable[[int], bool],
        best: Callable[[], int],
        agree: Callable[[bool], bool] = lambda due: due,
    ) -> None:
        self.minutes = minutes
        self.schedule = schedule
        self.losses = losses
        self.save = save
        self.write_epochs = write_epochs
        self.over = over
        self.pauses = pauses
        self.best = best
        self.agree = agree

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Save after all other handlers of an event, so that their state is complete."""
        trainer.add_event_handler(Events.STARTED, self.start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.within_epoch)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.after_epoch)

    def start(self) -> None:
        """Start the clock since the last checkpoint."""
        self.saved, self.seconds = time.monotonic(), 0.0

    def within_epoch(self, trainer: Engine) -> None:
        """Save if the last checkpoint is old or training pauses, and end the last epoch if it is incomplete."""
        # A checkpoint holds no gradients, so it can only be taken between accumulation groups.
        step = trainer.state.iteration
        if not self.schedule.ends(step):
            return
        # At the end of an epoch `after_epoch` does the rest. An epoch in which the run ends is ended here, so that it
        # is validated and saved as any other.
        if self.over():
            if step % len(self.schedule.patches):
                trainer.terminate_epoch()
            return
        if step % len(self.schedule.patches) == 0:
            return
        # Processes have different clocks and signals: `pauses` and `agree` ask all of them, so that all save or none.
        pauses = self.pauses(step)
        if pauses or self.agree(time.monotonic() > self.saved + 60 * self.minutes):
            self.losses.check(step)  # weights after a NaN loss must not be what 'resume' begins with
            self.keep()
        if pauses:
            trainer.terminate()

    def after_epoch(self, trainer: Engine) -> None:
        """Save and write `metrics.csv` unless both were done just now, and end training if it is over or pauses."""
        step = trainer.state.iteration
        ends = self.over() or self.pauses(step)
        # A new best checkpoint is saved already, and must not be of a later step than the newest one.
        if ends or self.best() == step or self.agree(SHARE * (time.monotonic() - self.saved) >= self.seconds):
            self.keep()
        if ends:
            trainer.terminate()

    def keep(self) -> None:
        """Save now, and measure how long that takes."""
        began = time.monotonic()
        self.save()
        self.write_epochs()
        self.saved = time.monotonic()
        self.seconds = self.saved - began
