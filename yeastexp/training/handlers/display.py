"""The display of a run under way: progress bar, TensorBoard and pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

from ignite.engine import Engine, Events
from rich import progress as bars
from rich.console import Console

from yeastexp.drawing import pictures
from yeastexp.system.processes import ALONE, Processes
from yeastexp.system.progress import Pace, say_to, shows_bars
from yeastexp.training.context import RunContext
from yeastexp.training.handlers.gradients import ClipGradients
from yeastexp.training.progress import Progress
from yeastexp.training.step import TrainingEvents
from yeastexp.training.tensorboard import Tracker
from yeastexp.training.validation import panel

PICTURE_TIMES = 10
"""The largest number of pictures that a run writes: TensorBoard is slow with many."""


class ShowProgress:
    """Shows a progress bar with the last loss and score; without a terminal, a line from time to time.

    Ignite's `ProgressBar` stays open after `terminate()`, and metrics attached after it lag one iteration.
    """

    def __init__(self, console: Console, steps: Callable[[], int], monitor: str) -> None:
        self.steps = steps
        self.monitor = monitor
        self.task: bars.TaskID | None = None
        self.bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[loss]} {task.fields[score]}", markup=False),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            console=console,
            disable=not shows_bars(console),
        )
        self.say = say_to(console)

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Follow the readings of the loss and the validations."""
        trainer.add_event_handler(Events.STARTED, self.start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.show_step)
        trainer.add_event_handler(TrainingEvents.LOSSES_READ, self.show_loss)
        validator.add_event_handler(Events.COMPLETED, self.show_score)

    def start(self, trainer: Engine) -> None:
        """Show the bar."""
        done = trainer.state.iteration
        self.task = self.bar.add_task("training", total=self.steps(), completed=done, loss="", score="")
        self.bar.start()
        self.first, self.pace = done, Pace()

    def show_step(self, trainer: Engine) -> None:
        """Advance the bar, or print a line if it is time."""
        assert self.task is not None, "training has begun"
        step = trainer.state.iteration
        # The total is asked for anew, since a budget may change the plan.
        self.bar.update(self.task, completed=step, total=self.steps())
        if self.bar.disable and self.pace.due():
            values = [value for value in self.bar.tasks[0].fields.values() if value]
            left = self.pace.left((step - self.first) / (self.steps() - self.first))
            self.say(", ".join([f"step {step} of {self.steps()}", *values, left]))

    def show_loss(self, trainer: Engine) -> None:
        """Show the mean loss since the last reading."""
        state: Any = trainer.state
        assert self.task is not None, "training has begun"
        self.bar.update(self.task, loss=f"loss {state.train_loss:.3f}")

    def show_score(self, validator: Engine) -> None:
        """Show the monitored score."""
        state: Any = validator.state
        if self.task is not None:  # a run whose training is over is only validated
            self.bar.update(self.task, score=f"{self.monitor} {state.monitored:.4f}")

    def close(self) -> None:
        """Stop the bar, and leave it on the terminal as it is."""
        self.bar.stop()


class LogToTensorBoard:
    """Logs loss, learning rate and gradient norm when losses are read, and scores beside those of the baselines.

    Ignite's `TensorboardLogger` takes tensorboardX if it is installed, and cannot purge steps on resume by itself.
    """

    def __init__(self, tracker: Tracker, context: RunContext, learning_rate: Callable[[], float]) -> None:
        self.tracker = tracker
        self.context = context
        self.learning_rate = learning_rate

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Follow the readings of the loss and the validations."""
        self.trainer = trainer
        trainer.add_event_handler(TrainingEvents.LOSSES_READ, self.training)
        validator.add_event_handler(Events.COMPLETED, self.validation)

    def training(self, trainer: Engine) -> None:
        """Log the values of the steps since the last reading."""
        clipping = self.context.handlers.get("clipping")
        norms = clipping.take_norms() if isinstance(clipping, ClipGradients) else []
        state: Any = trainer.state
        self.tracker.training(state.iteration, state.train_loss, self.learning_rate(), norms)

    def validation(self, validator: Engine) -> None:
        """Log the loss and the scores of a validation."""
        step, state = self.trainer.state.iteration, cast(Any, validator.state)
        self.tracker.validation(step, state.metrics["loss"], state.summary, self.context.scored_baselines())


class DrawPictures:
    """Draws some validation images with ground truth and prediction, at most PICTURE_TIMES a run.

    Before the first validation it also writes the `preview`, the contact sheet of the training patches. That takes so
    long that it is not drawn before the first step.
    """

    def __init__(
        self,
        tracker: Tracker,
        names: Collection[str],
        validations: int,
        every: int,
        preview: Callable[[], pictures.Picture],
        progress: Progress,
        over: Callable[[], bool],
        among: Processes = ALONE,
    ) -> None:
        self.among = among
        self.progress = progress
        self.tracker = tracker
        self.names = names
        self.nth = max(1, -(-validations // PICTURE_TIMES))
        self.every = every
        self.preview = preview
        self.over = over
        self.panels: dict[str, pictures.Picture] = {}

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Draw the images of a validation as they are predicted, and write the picture at its end."""
        self.trainer = trainer
        validator.add_event_handler(Events.STARTED, self.start)
        validator.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        validator.add_event_handler(Events.COMPLETED, self.write)

    def start(self) -> None:
        """Decide whether this validation is drawn, and write the preview before the first one."""
        # Numbered by epochs and not by a counter, so that a resumed run draws the same validations.
        self.panels.clear()
        index = -(-self.trainer.state.epoch // self.every)
        self.drawn = index % self.nth == 0 or self.over()
        if self.progress.last_validation is None:
            self.tracker.picture(self.trainer.state.iteration, self.preview(), "train/preview")

    def look(self, validator: Engine) -> None:
        """Draw the image that was predicted."""
        state: Any = validator.state
        if self.drawn and state.batch.name in self.names:
            self.panels[state.batch.name] = panel(state.batch, state.prediction)

    def write(self) -> None:
        """Write one picture of all images drawn, by all processes."""
        if self.drawn:
            panels = {name: shown for own in self.among.gather(self.panels) for name, shown in own.items()}
            stacked = pictures.stacked([panels[name] for name in self.names if name in panels])
            self.tracker.picture(self.trainer.state.iteration, stacked)
