"""What people look at while a run is under way."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from rich.console import Console
from torch import nn

from yeastexp.contracts import Prediction
from yeastexp.sample import Sample
from yeastexp.system import progress
from yeastexp.training.handlers.display import DrawPictures, LogToTensorBoard, ShowProgress
from yeastexp.training.handlers.gradients import ClipGradients
from yeastexp.training.progress import Best, Progress, Validation
from yeastexp.training.step import TrainingEvents


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.calls.append((name, *values))


def read_every(trainer: Engine, steps: int) -> None:
    """Let a loss be read every so many steps."""

    @trainer.on(Events.ITERATION_COMPLETED(every=steps))
    def read() -> None:
        trainer.state.train_loss = 0.25
        trainer.fire_event(TrainingEvents.LOSSES_READ)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_follows_readings_and_scores(trainer: Engine, validator: Engine, terminal: bool) -> None:
    """Where a terminal is."""
    output = io.StringIO()
    handler = ShowProgress(Console(file=output, width=120, force_terminal=terminal), steps=lambda: 4, monitor="iou")
    handler.attach(trainer, validator)
    read_every(trainer, 3)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda: validator.run([{"monitored": 0.5}]))
    trainer.run([0.0] * 4)
    handler.close()
    (task,) = handler.bar.tasks
    assert (task.completed, task.total, task.fields) == (4, 4, {"loss": "loss 0.250", "score": "iou 0.5000"})
    assert ("4/4" in output.getvalue()) == terminal and bool(output.getvalue()) == terminal


@pytest.mark.parametrize("clipped", [False, True])
def test_readings_and_scores_are_logged_at_their_step(trainer: Engine, validator: Engine, clipped: bool) -> None:
    """With the norms since the last reading, if gradients are clipped, and the scores of the baselines."""
    clipping = ClipGradients(nn.Linear(1, 1), 1.0, torch.device("cpu"))
    clipping.norms.append(torch.tensor(3.0))
    tracker, baselines = Told(), {"threshold": {"iou": {}}}
    context = SimpleNamespace(handlers={"clipping": clipping} if clipped else {}, scored_baselines=lambda: baselines)
    LogToTensorBoard(tracker, context, lambda: 0.125).attach(trainer, validator)  # type: ignore[arg-type]
    read_every(trainer, 2)
    summary = {"iou": {"cell": {"per_image": 0.5}}}
    state = {"metrics": {"loss": 2.0}, "summary": summary}
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: validator.run([state]))
    trainer.run([0.0] * 4)
    assert tracker.calls == [
        ("training", 2, 0.25, 0.125, [3.0] if clipped else []),
        ("training", 4, 0.25, 0.125, []),
        ("validation", 4, 2.0, summary, baselines),
    ]


@pytest.mark.parametrize(
    ("validations", "every", "last", "drawn"),
    [(3, 1, 3, [1, 2, 3]), (20, 1, 5, [2, 4, 5]), (20, 2, 6, [4, 6]), (25, 1, 7, [3, 6, 7])],
)
def test_some_images_are_drawn_ten_times_a_run_and_at_its_end(
    trainer: Engine, validations: int, every: int, last: int, drawn: list[int]
) -> None:
    """The first validation also shows what training is given."""
    tracker, progress, preview = Told(), Progress(Best(higher_is_better=True)), np.zeros((1, 1, 3), np.uint8)

    def over() -> bool:
        return trainer.state.epoch == last

    samples = [Sample(torch.zeros(1, 4, 5), torch.zeros(4, 5, dtype=torch.int64), name) for name in "abc"]
    validator = Engine(lambda engine, sample: setattr(engine.state, "prediction", Prediction(sample.labels)))
    handler = DrawPictures(tracker, "ac", validations, every, lambda: preview, progress, over)  # type: ignore[arg-type]
    handler.attach(trainer, validator)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        if trainer.state.epoch % every == 0 or over():
            validator.run(samples)
            progress.last_validation = Validation({})

    trainer.run([0.0], max_epochs=last)
    assert [call[1:] for call in tracker.calls if len(call) == 4] == [(every, preview, "train/preview")]
    pictures = [call for call in tracker.calls if len(call) == 3]
    assert [step for _, step, _ in pictures] == drawn
    assert all(picture.shape[0] >= 2 * 4 for _, _, picture in pictures), "two images below each other"


def test_without_a_terminal_lines_say_how_far_it_has_come(
    trainer: Engine, validator: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once when the first five seconds are over, whether or not a loss was read since."""
    output = io.StringIO()
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    handler = ShowProgress(Console(file=output, width=20), steps=lambda: 8, monitor="iou")
    handler.attach(trainer, validator)
    read_every(trainer, 2)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: validator.run([{"monitored": 0.5}]))
    trainer.run([0.0] * 4)
    handler.close()
    lines = output.getvalue().splitlines()
    assert lines[0] == "step 1 of 8, 12 %, about 0 s left"
    assert lines[2] == "step 3 of 8, loss 0.250, iou 0.5000, 38 %, about 0 s left"
