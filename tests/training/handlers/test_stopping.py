"""What ends a run, or pauses it, before its last step."""

from __future__ import annotations

import os
import signal

import pytest
from ignite.engine import Engine, Events

from yeastexp.system.interruption import Interruption
from yeastexp.training.handlers.stopping import PauseWhenInterrupted, StopByBudget, StopEarly
from yeastexp.training.optimization import AccumulationSchedule
from yeastexp.training.progress import Best, Progress, Remade

NAN = float("nan")


def progress() -> Progress:
    return Progress(Best(higher_is_better=True))


@pytest.mark.parametrize(("late_from", "stops"), [(1, [3]), (3, [3]), (4, [4]), (5, []), (6, []), (99, [])], ids=str)
def test_a_late_step_ends_the_run_with_its_group(
    trainer: Engine, validator: Engine, late_from: int, stops: list[int]
) -> None:
    """Of groups of three in epochs of four; the last step is never too late."""
    state, stopped = progress(), []
    handler = StopByBudget(lambda step: (step >= late_from, None), AccumulationSchedule(3, [1] * 4, steps=6), state)
    handler.attach(trainer, validator)

    @trainer.on(Events.ITERATION_COMPLETED)
    def note() -> None:
        if state.stopped and not stopped:
            stopped.append(trainer.state.iteration)

    trainer.run([0.0] * 6)
    assert stopped == stops
    assert state.stopped == ("by budget" if stops else None)


def test_a_plan_is_made_anew_once_and_ends_with_a_group(trainer: Engine, validator: Engine) -> None:
    """The learning rate passes through the rest of its 8 updates in the 3 that are left; what else is wished is not."""
    state, schedule, said, passed = progress(), AccumulationSchedule(2, [1] * 8, steps=16), [], []
    ends = {6: 13, 8: 9}
    StopByBudget(lambda step: (False, ends.get(step)), schedule, state, said.append).attach(trainer, validator)

    @trainer.on(Events.ITERATION_COMPLETED(every=2))
    def note() -> None:
        passed.append(state.scheduled(schedule, trainer.state.iteration // 2))
        if state.stopped:
            trainer.terminate()

    trainer.run([0.0] * 16)
    assert passed == [1, 2, 3, 4, 6, 8] and state.remade == Remade(at=6, end=12)
    assert said == [
        "step 6: the machine is slower than when the run was planned; it ends after 12 steps instead of 16, and the "
        "learning rate falls until then"
    ]


@pytest.mark.parametrize(
    ("values", "patience", "stops"),
    [
        ([0.5, 0.4, 0.5, 0.6], 2, 3),
        ([0.5, NAN, NAN, 0.6], 2, 3),
        ([NAN, NAN, 0.6, 0.7], 2, 2),
        ([NAN, 0.1, NAN, 0.2], 2, None),
        ([0.1, 0.2, 0.2, 0.3], 2, None),
        ([0.1, 0.1, 0.2, 0.3], 1, 2),
    ],
)
def test_validations_without_an_improvement_are_counted(
    trainer: Engine, validator: Engine, values: list[float], patience: int, stops: int | None
) -> None:
    """NaN is none."""
    state, said, stopped = progress(), [], []
    handler = StopEarly(patience, "iou", state, lambda: state.stopped is not None, said.append)

    @validator.on(Events.COMPLETED)
    def judge() -> None:
        state.best.improves(validator.state.value, step=trainer.state.iteration)

    handler.attach(trainer, validator)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        validator.run([{"value": values[trainer.state.epoch - 1]}])
        if state.stopped:
            stopped.append(trainer.state.epoch)

    trainer.run([0.0] * 4, max_epochs=4)
    assert stopped[:1] == ([stops] if stops else [])
    assert state.stopped == ("early" if stops else None)
    line = f"stopped early at step {4 * (stops or 0)}: iou has not improved in {patience} validations"
    assert said == ([line] if stops else [])


def test_a_run_that_is_over_does_not_stop_early(trainer: Engine, validator: Engine) -> None:
    state, said = progress(), []
    state.best.validations_since = 5
    StopEarly(2, "iou", state, lambda: True, said.append).attach(trainer, validator)
    validator.run([{}])
    assert state.stopped is None and said == []


def test_a_signal_waits_for_the_end_of_a_step_and_ends_training_after_it(
    trainer: Engine, validator: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    paused: list[int] = []
    with Interruption() as interruption:
        handler = PauseWhenInterrupted(interruption, until=None)
        handler.attach(trainer, validator)
        assert not interruption.gently
        trainer.add_event_handler(Events.ITERATION_STARTED(once=2), lambda: os.kill(os.getpid(), signal.SIGTERM))

        @trainer.on(Events.ITERATION_COMPLETED)
        def pause() -> None:
            if handler.pauses(trainer.state.iteration):
                paused.append(trainer.state.iteration)
                trainer.terminate()

        trainer.run([0.0] * 4)
        assert paused == [2] and interruption.wanted and interruption.gently
        assert capfd.readouterr().err == "stopping after this step; once more to stop at once\n"
        handler.close()
        assert not interruption.gently
        interruption.wanted = False
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_training_pauses_at_a_given_step() -> None:
    handler = PauseWhenInterrupted(Interruption(), until=7)
    assert [step for step in range(10) if handler.pauses(step)] == [7]
