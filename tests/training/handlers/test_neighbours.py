"""Other programs on the machine."""

from __future__ import annotations

import time

import pytest
from ignite.engine import Engine, Events

from yeastexp.system import cores
from yeastexp.training.handlers.neighbours import NoticeBusy
from yeastexp.training.step import TrainingEvents


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([0.1, 0.15, 0.1], []),
        ([0.6, 0.9], ["60 % of the time goes by in waiting for a processor core, so steps take 2.5 times as long"]),
        ([0.0, 0.75], ["75 % of the time goes by in waiting for a processor core, so steps take 4.0 times as long"]),
    ],
)
def test_a_busy_machine_is_said_once(
    trainer: Engine, validator: Engine, monkeypatch: pytest.MonkeyPatch, shares: list[float], said: list[str]
) -> None:
    """By the thread that waited longest of those that were there before."""
    now, waited, lines, left = [0.0], {"1": 7.0, "2": 0.0}, list[str](), iter(shares)
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    NoticeBusy(lines.append, lambda: cores.Waiting(lambda: dict(waited))).attach(trainer, validator)

    def spend() -> None:
        now[0] += 6.0
        waited["1"] += 6.0 * next(left)
        waited[str(len(waited) + 1)] = 99.0
        trainer.fire_event(TrainingEvents.LOSSES_READ)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, spend)
    trainer.run([0.0] * len(shares))
    assert lines == [f"the machine is busy: {line} as they would alone" for line in said]


@pytest.mark.skipif(not cores.seconds_waited(), reason="the system does not say")
def test_threads_know_how_long_they_waited() -> None:
    before = cores.seconds_waited()
    began = time.monotonic()
    while time.monotonic() < began + 0.02:
        pass
    after = cores.seconds_waited()
    assert before.keys() & after.keys()
    assert all(0 <= after[thread] - before[thread] < 60 for thread in before.keys() & after.keys())
