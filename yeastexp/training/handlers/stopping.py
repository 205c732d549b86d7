"""Handlers that end a run, or pause it, before its last planned step."""

from __future__ import annotations

from collections.abc import Callable

from ignite.engine import Engine, Events

from yeastexp.system.interruption import Interruption
from yeastexp.training.optimization import AccumulationSchedule
from yeastexp.training.progress import Progress, Remade

Asked = Callable[[int], tuple[bool, int | None]]
"""From a step: whether another group of batches would end too late, and an earlier step to plan the end for, if any."""


class StopByBudget:
    """Ends a run in time for its budget, after a complete accumulation group and with a last validation.

    If it can be foreseen that the planned steps do not fit, the plan changes once: the run ends earlier, and a learning
    rate that is `fitted` to the length falls until then.

    Ignite's `TimeLimit` counts from its construction, and ends a run within a group and without a last validation.
    """

    def __init__(
        self,
        asked: Asked,
        schedule: AccumulationSchedule,
        progress: Progress,
        say: Callable[[str], None] = lambda line: None,
        fitted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.fitted = fitted
        self.asked = asked
        self.schedule = schedule
        self.progress = progress
        self.say = say

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Look at the clock after each accumulation group."""
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.look)

    def look(self, trainer: Engine) -> None:
        """Mark the run as over if it is time; `KeepCheckpoints` then ends the epoch and the run."""
        step = trainer.state.iteration
        if not self.schedule.ends(step) or step >= self.schedule.steps:
            return
        late, end = self.asked(step)
        if end is not None and not late and self.progress.remade is None:
            self._make_anew(step, end)
        if late or (self.progress.remade and step >= self.progress.remade.end):
            self.progress.stopped = "by budget"

    def _make_anew(self, step: int, end: int) -> None:
        # The last step that fits may lie within an accumulation group; the run has to end with a complete one.
        end = next((last for last in range(end, step, -1) if self.schedule.ends(last)), step)
        if end > step:
            self.progress.remade = Remade(step, end)
            falls = ", and the learning rate falls until then" if self.fitted() else ""
            self.say(
                f"step {step}: the machine is slower than when the run was planned; it ends after {end:,} steps "
                f"instead of {self.schedule.steps:,}{falls}"
            )


class StopEarly:
    """Ends a run after an epoch if the last `patience` validations have not improved on the best one.

    Ignite's `EarlyStopping` takes NaN for an improvement, and resets its count when the validator starts.
    """

    def __init__(
        self, patience: int, monitor: str, progress: Progress, over: Callable[[], bool], log: Callable[[str], None]
    ) -> None:
        self.patience = patience
        self.monitor = monitor
        self.progress = progress
        self.over = over
        self.log = log

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Count after each validation."""
        self.trainer = trainer
        validator.add_event_handler(Events.COMPLETED, self.count)

    def count(self) -> None:
        """Mark the run as over if it is time; `KeepCheckpoints` then ends it with the epoch."""
        since = self.progress.best.validations_since
        if since >= self.patience and not self.over():
            self.progress.stopped = "early"
            step = self.trainer.state.iteration
            self.log(f"stopped early at step {step}: {self.monitor} has not improved in {since} validations")


class PauseWhenInterrupted:
    """Pauses training after the next checkpoint on Ctrl-C or SIGTERM, and at step `until`; it can be resumed."""

    def __init__(
        self, interruption: Interruption, until: int | None, agree: Callable[[bool], bool] = lambda wanted: wanted
    ) -> None:
        self.interruption = interruption
        self.until = until
        self.agree = agree

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Let signals wait for the end of a step while the trainer runs."""
        trainer.add_event_handler(Events.STARTED, self.wait)

    def wait(self) -> None:
        """Remember signals from now on."""
        self.interruption.gently = True

    def close(self) -> None:
        """Let signals act at once from now on."""
        self.interruption.gently = False

    def pauses(self, step: int) -> bool:
        """Whether training pauses after this step."""
        return self.agree(self.interruption.wanted) or step == self.until
