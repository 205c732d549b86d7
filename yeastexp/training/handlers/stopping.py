"""What ends a run, or pauses it, before its last step."""

from __future__ import annotations

from collections.abc import Callable

from ignite.engine import Engine, Events

from yeastexp.system.interruption import Interruption
from yeastexp.training.optimization import AccumulationSchedule
from yeastexp.training.progress import Progress, Remade

Asked = Callable[[int], tuple[bool, int | None]]
"""After a step: whether another one would end too late, and at which step to end instead of the planned one, if any."""


class StopByBudget:
    """Lets the step that ends too late be the last, once its group of batches is complete.

    Where it can be foreseen, the plan is made anew, once: the run ends earlier, and its learning rate falls until then.

    Ignite's `TimeLimit` counts from when it was made, and ends a run within a group and without a last validation.
    """

    def __init__(
        self,
        asked: Asked,
        schedule: AccumulationSchedule,
        progress: Progress,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.asked = asked
        self.schedule = schedule
        self.progress = progress
        self.say = say

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Look at the clock after each group."""
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.look)

    def look(self, trainer: Engine) -> None:
        """Say that the run is over; the end of its epoch does the rest."""
        step = trainer.state.iteration
        if not self.schedule.ends(step) or step >= self.schedule.steps:
            return
        late, end = self.asked(step)
        if end is not None and not late and self.progress.remade is None:
            self._make_anew(step, end)
        if late or (self.progress.remade and step >= self.progress.remade.end):
            self.progress.stopped = "by budget"

    def _make_anew(self, step: int, end: int) -> None:
        end = next((last for last in range(end, step, -1) if self.schedule.ends(last)), step)
        if end > step:
            self.progress.remade = Remade(step, end)
            self.say(
                f"step {step}: the machine is slower than when the run was planned; it ends after {end:,} steps "
                f"instead of {self.schedule.steps:,}, and the learning rate falls until then"
            )


class StopEarly:
    """Lets an epoch be the last if `patience` validations have not improved on the best one.

    Ignite's `EarlyStopping` takes NaN for an improvement, and forgets its count when the validator starts.
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
        """Say that the run is over; the end of the epoch does the rest."""
        since = self.progress.best.validations_since
        if since >= self.patience and not self.over():
            self.progress.stopped = "early"
            step = self.trainer.state.iteration
            self.log(f"stopped early at step {step}: {self.monitor} has not improved in {since} validations")


class PauseWhenInterrupted:
    """Ends training after the checkpoint of this step, on Ctrl-C or SIGTERM, to be resumed; also at step `until`."""

    def __init__(
        self, interruption: Interruption, until: int | None, agree: Callable[[bool], bool] = lambda wanted: wanted
    ) -> None:
        self.interruption = interruption
        self.until = until
        self.agree = agree

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Let signals wait for the end of a step while steps are done."""
        trainer.add_event_handler(Events.STARTED, self.wait)

    def wait(self) -> None:
        """Signals are remembered."""
        self.interruption.gently = True

    def close(self) -> None:
        """Signals act at once."""
        self.interruption.gently = False

    def pauses(self, step: int) -> bool:
        """Whether training pauses after this step."""
        return self.agree(self.interruption.wanted) or step == self.until
