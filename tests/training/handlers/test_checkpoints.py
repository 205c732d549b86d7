"""Rows of `metrics.csv`, and when a checkpoint is kept."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from yeastexp.training.finite import NonFiniteLoss
from yeastexp.training.handlers import checkpoints
from yeastexp.training.handlers.checkpoints import CollectEpochs, KeepCheckpoints
from yeastexp.training.handlers.losses import ReadLosses
from yeastexp.training.optimization import AccumulationSchedule
from yeastexp.training.progress import Best, Progress

NEVER, ALWAYS = 1e9, -1.0
"""Minutes between checkpoints."""


@pytest.fixture
def losses(trainer: Engine, validator: Engine) -> ReadLosses:
    handler = ReadLosses(torch.device("cpu"), 0.0, lambda line: None)
    handler.attach(trainer, validator)
    return handler


def test_an_epoch_is_a_row_with_scores_if_it_was_validated(
    trainer: Engine, validator: Engine, losses: ReadLosses
) -> None:
    progress, rates = Progress(Best(higher_is_better=True)), iter([0.5, 0.25, 0.125])
    row = {"per_image": 0.75}
    state = {"summary": {"iou": {"cell": row}, "accuracy": {"all": row}}, "metrics": {"loss": 2.0}}
    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda: validator.run([state]))
    CollectEpochs(progress, losses, lambda: next(rates)).attach(trainer, validator)
    trainer.run([1.0, 2.0], max_epochs=3)
    assert all(0 <= row.pop("seconds") < 60 for row in progress.rows)
    scores = {"val/loss": 2.0, "val/iou/cell": 0.75, "val/accuracy": 0.75}
    assert progress.rows == [
        {"epoch": 1, "step": 2, "train/loss": 1.5, "learning_rate": 0.5},
        {"epoch": 2, "step": 4, "train/loss": 1.5, "learning_rate": 0.25, **scores},
        {"epoch": 3, "step": 6, "train/loss": 1.5, "learning_rate": 0.125},
    ]


Keep = Callable[..., list[int]]


@pytest.fixture
def saved(trainer: Engine, validator: Engine, losses: ReadLosses, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Runs groups of two in epochs of three, seven steps at most; the steps that are saved, negative: in the table."""
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)  # epochs count as long

    def run(
        minutes: float = NEVER,
        pause_at: int = 99,
        loss: Callable[[int], float] = float,
        last: int = 7,
        saving: Callable[[], object] = lambda: None,
        best: int = 0,
    ) -> list[int]:
        steps: list[int] = []

        def save() -> None:
            steps.append(trainer.state.iteration)
            saving()

        KeepCheckpoints(
            minutes,
            AccumulationSchedule(2, [1] * 3, last),
            losses,
            save,
            lambda: steps.append(-trainer.state.iteration),
            lambda: trainer.state.iteration >= last,
            lambda step: step >= pause_at,
            lambda: best,
        ).attach(trainer, validator)
        trainer.run(map(loss, range(1, 99)), max_epochs=-(-last // 3), epoch_length=3)
        return steps

    return run


def test_a_checkpoint_and_the_table_are_written_after_each_epoch(saved: Keep, trainer: Engine) -> None:
    """Also after the last one, which is a part of one."""
    assert saved() == [3, -3, 6, -6, 7, -7]
    assert (trainer.state.iteration, trainer.state.epoch) == (7, 3)


def test_short_epochs_are_not_each_saved(saved: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 3 s: saving, which takes 0.5 s, has a twentieth of the time from the second checkpoint on."""
    now = 0.0

    def passed(seconds: float) -> float:
        nonlocal now
        now += seconds
        return 0.0

    monkeypatch.setattr(checkpoints, "SHARE", 0.05)
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now))
    steps = saved(loss=lambda step: 1.0 + passed(1.0), last=35, saving=lambda: passed(0.5))
    assert steps == [step for at in (3, 15, 27, 35) for step in (at, -at)]


def test_the_best_checkpoint_is_never_of_a_later_step(saved: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    assert saved(last=11, best=6) == [3, -3, 6, -6, 11, -11]


def test_within_an_epoch_a_checkpoint_lies_between_groups(saved: Keep) -> None:
    assert saved(ALWAYS) == [2, -2, 3, -3, 5, -5, 6, -6, 7, -7]


@pytest.mark.parametrize(("pause_at", "kept"), [(1, [2]), (2, [2]), (3, [3]), (4, [3, 5]), (6, [3, 6])])
def test_a_pause_waits_for_the_end_of_a_group(saved: Keep, trainer: Engine, pause_at: int, kept: list[int]) -> None:
    assert saved(pause_at=pause_at) == [step for at in kept for step in (at, -at)]
    assert trainer.state.iteration == kept[-1]


def test_weights_that_a_bad_loss_has_spoilt_are_not_kept(saved: Keep) -> None:
    with pytest.raises(NonFiniteLoss, match=r"^step 4: the loss is nan"):
        saved(ALWAYS, loss=lambda step: float("nan") if step == 4 else 1.0)
