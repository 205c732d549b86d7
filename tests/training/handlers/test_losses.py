"""Reading of the training loss."""

from __future__ import annotations

import time

import pytest
import torch
from ignite.engine import Engine, Events

from yeastexp.training.finite import NonFiniteLoss
from yeastexp.training.handlers.losses import READ_EVERY, ReadLosses
from yeastexp.training.step import TrainingEvents

CPU = torch.device("cpu")


@pytest.fixture
def told() -> list[str]:
    """The lines of the log."""
    return []


@pytest.fixture
def losses(trainer: Engine, validator: Engine, told: list[str]) -> ReadLosses:
    handler = ReadLosses(CPU, time.monotonic(), told.append)
    handler.attach(trainer, validator)
    return handler


def test_losses_are_read_every_tenth_step_and_at_the_end_of_an_epoch(
    trainer: Engine, losses: ReadLosses, told: list[str]
) -> None:
    """The mean since the last reading, and the mean of the epoch."""
    read: list[tuple[int, float]] = []
    means: list[float] = []
    trainer.add_event_handler(
        TrainingEvents.LOSSES_READ, lambda: read.append((trainer.state.iteration, trainer.state.train_loss))
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: means.append(losses.take_epoch()))
    trainer.run([float(step) for step in range(1, 13)], max_epochs=2)
    assert READ_EVERY == 10
    assert read == [(10, 5.5), (12, 11.5), (20, 4.5), (24, 10.5)]
    assert means == [6.5, 6.5]
    assert len(told) == 1 and told[0].startswith("first step done 0.")


@pytest.mark.parametrize(("bad", "shown"), [(float("nan"), "nan"), (-float("inf"), "-inf")])
def test_the_first_bad_step_is_named(trainer: Engine, losses: ReadLosses, bad: float, shown: str) -> None:
    with pytest.raises(NonFiniteLoss, match=f"^step 3: the loss is {shown}; lower ") as caught:
        trainer.run([0.5, 0.5, bad, bad, 0.5])
    assert caught.value.status == 1
    assert trainer.state.iteration == 5, "read at the end of the epoch"


def test_a_look_at_the_losses_leaves_them_unread(trainer: Engine, losses: ReadLosses) -> None:
    """So a checkpoint within an epoch has them, and a run that goes on from it reads the same."""
    seen: list[list[float]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda: seen.append(losses.check(3)))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), trainer.terminate)
    trainer.run([1.0, 2.0, 4.0, 8.0])
    assert seen == [[1.0, 2.0, 4.0]]
    state = losses.state_dict()
    assert [float(loss) for loss in state["unread"]] == [1.0, 2.0, 4.0] and state["epoch"] == []
    resumed = ReadLosses(CPU, 0.0, print)
    resumed.load_state_dict(state)
    assert resumed.check(3) == [1.0, 2.0, 4.0]


def test_no_loss_is_no_reading(trainer: Engine, losses: ReadLosses) -> None:
    losses.read(trainer)
    assert losses.check(0) == [] and losses.epoch == []
