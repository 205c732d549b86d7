"""Validation during training, and what follows from it."""

from __future__ import annotations

import pytest
from ignite.engine import Engine, Events

from yeastexp.training.handlers.validation import KeepBest, ValidateEvery
from yeastexp.training.progress import Best, Progress, Validation

NAN = float("nan")


@pytest.mark.parametrize(
    ("every", "last", "validated"), [(1, 3, [1, 2, 3]), (2, 3, [2, 3]), (2, 4, [2, 4]), (5, 3, [3])]
)
def test_every_nth_epoch_is_validated_and_the_last_one(
    trainer: Engine, validator: Engine, every: int, last: int, validated: list[int]
) -> None:
    epochs: list[int] = []
    validator.add_event_handler(Events.COMPLETED, lambda: epochs.append(trainer.state.epoch))
    ValidateEvery(every, lambda: iter([{}]), lambda: trainer.state.epoch == last).attach(trainer, validator)
    trainer.run([0.0], max_epochs=last)
    assert epochs == validated


def score(value: float) -> dict[str, object]:
    """The state of a validator with this mean IoU and this loss."""
    row = {"per_image": None if value != value else value}
    return {"validation": Validation({}, {"a": value}), "summary": {"iou": {"cell": row, "mean": row}}}


@pytest.mark.parametrize(
    ("monitor", "values", "kept"),
    [
        ("iou", [NAN, 0.5, 0.4, 0.6, 0.6], [2, 4]),
        ("iou", [NAN, NAN, 0.0], [3]),
        ("iou", [NAN, NAN], []),
        ("loss", [0.5, 0.6, NAN, 0.4], [1, 4]),
    ],
)
def test_the_first_of_the_best_scores_is_kept_and_never_nan(
    trainer: Engine, validator: Engine, monitor: str, values: list[float], kept: list[int]
) -> None:
    progress, saved, told = Progress(Best(higher_is_better=monitor == "iou")), [], []
    KeepBest(monitor, progress, lambda: saved.append(trainer.state.iteration), told.append).attach(trainer, validator)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        validation = validator.run([score(values[trainer.state.epoch - 1])]).validation
        assert progress.last_validation is validation
        assert (progress.best_validation is validation) == (trainer.state.iteration in kept)

    trainer.run([0.0], max_epochs=len(values))
    best = kept[-1] if kept else 0
    assert saved == kept
    assert (progress.best.step, progress.best.validations_since) == (best, len(values) - best)
    assert told == [f"step {i}: val/loss {value:.4f}, {monitor} {value:.4f}" for i, value in enumerate(values, 1)]
