"""A run that has to be over by a given time."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import deque
from dataclasses import replace

from ignite.engine import Engine, Events

from yeastexp.config.experiment import Experiment
from yeastexp.config.settings import seconds
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import processes
from yeastexp.system.deadline import LEAVING_SECONDS
from yeastexp.training.build import Assembly
from yeastexp.training.timing import seconds_of_validation, seconds_per_step

RESERVE = 0.06
"""Share of a budget kept for a machine that slows down."""

TIMING = 0.02
"""Share of a budget that finds out how long a step takes, and as much for a validation."""

CLOSING = 0.01
CLOSING_SECONDS = 5.0
"""Kept of a budget, with that share of it, for tables, pictures and files at the end and for leaving Python."""

REMEMBERED = 10
"""Steps, the slowest of which says how long the next one may take."""

FALL = 0.3
"""Share of the time for training within which a plan is made anew: late, since it happens once, and slow machines slow
down again; and long enough for the learning rate to fall in."""

LATELY = 0.05
"""Share of a budget whose last steps say then how long one takes."""

PICTURES = 3
"""Validation images that are predicted once more at the end."""


COMPOSING_SECONDS = 300.0
"""Budgets from which on all scenes are composed: they take some 6 CPU seconds, on a busy machine a minute."""


class BudgetOver(UserError):
    """The time of a run is over in the middle of a validation."""


class Budget:
    """How much of its time a run has left, by what its steps and validations took lately.

    It becomes a number of steps before the run, so that the learning rate can fall over them. Where a machine slows
    down, so that they do not fit, the number is made anew, once and late; one that slows down after that cuts the run
    short. The command keeps its time, and the result says so.
    """

    def __init__(self, written: str, began: float) -> None:
        self.written = written
        self.seconds = seconds(written)
        self.began = began
        self.ends = began + self.seconds
        self.steps: deque[float] = deque(maxlen=REMEMBERED)
        self.lately: deque[float] = deque()
        self.recent = 0.0
        """The sum of `lately`."""
        self.validation = 0.0
        self.margin = CLOSING_SECONDS

    def fewer_scenes(self, experiment: Experiment) -> Experiment:
        """The experiment with as many fewer scenes as the budget is shorter than one that has time for all."""
        share = min(1.0, self.seconds / COMPOSING_SECONDS)
        augmentations = tuple(
            replace(part, options={**part.options, "count": math.ceil(share * part.build().count)})
            if part.name == "pasted_cells"
            else part
            for part in experiment.augmentations
        )
        return replace(experiment, augmentations=augmentations)

    def refuse_if_over(self) -> None:
        """UserError if nothing is left to begin a run with."""
        if time.monotonic() > self.ends - LEAVING_SECONDS:
            raise self.over()

    def over(self) -> UserError:
        """What there is to say when the time is over before a run has begun."""
        return UserError(f"{self._too_short}; {time.monotonic() - self.began:.1f} s went by before the first step")

    @property
    def _too_short(self) -> str:
        return f"[train] budget: {self.written} is too short"

    def plan(self, assembly: Assembly, step: float | None = None) -> Experiment:
        """The experiment with the number of steps that fits; UserError if none does.

        A `step` takes so long, or is timed, as validation is, on throwaway copies.
        """
        train = assembly.experiment.train
        self.refuse_if_over()
        share = TIMING * self.seconds
        step = seconds_per_step(assembly, share, at_most=2 * share) if step is None else step
        self.validation = seconds_of_validation(assembly, share)
        self.steps.append(step)
        self.step_then = step
        self._after_validation = 1 + assembly.pixels("test") / assembly.pixels("val")
        self._after_validation += PICTURES / len(assembly.dataset.splits["val"])
        self._group = train.accumulation_steps
        self._due = assembly.validate_every * assembly.sampler.steps_per_epoch
        before = time.monotonic() - self.began
        left = self.seconds - before - self._closing - RESERVE * self.seconds - (self._group - 1) * step
        steps = self._steps_within(left, step)
        if steps < 1:  # of a short budget, which the margins take up; closing takes less time than loading did
            self.margin = min(CLOSING_SECONDS, max(LEAVING_SECONDS, before / 2))
            left += CLOSING_SECONDS - self.margin + RESERVE * self.seconds
            steps = self._steps_within(left, step)
        if processes.current().any(steps < 1):
            raise UserError(
                f"{self._too_short}; {before:.1f} s went by before the first step, a step takes {step:.2f} s, a "
                f"validation {self.validation:.1f} s"
            )
        self.planned = steps = processes.current().agreed(steps)
        return replace(assembly.experiment, train=replace(train, budget=None, steps=steps))

    def _steps_within(self, left: float, step: float) -> int:
        """With their validations and scores, or else without: better weights without scores than none."""
        steps = int((left - self._scoring) / (step + self.validation / self._due))
        return steps if steps > 0 else int(left / step)

    @property
    def _closing(self) -> float:
        return self.margin + CLOSING * self.seconds

    @property
    def _scoring(self) -> float:
        """The last validation, and what else is predicted after it."""
        return self.validation * self._after_validation

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Time the steps, and what is between them; a validation that several processes share is not cut off."""
        self.completed, self.validated = time.monotonic(), False
        self.training = self.ends - self.completed
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._complete)
        validator.add_event_handler(Events.ITERATION_COMPLETED, self._end_in_time)

    def _begin(self) -> None:
        self.started = time.monotonic()
        if self.validated:  # with all that hangs on it, such as pictures and a checkpoint
            self.validation, self.validated = self.started - self.completed, False
            self.step_then = sum(self.steps) / len(self.steps)

    def _complete(self) -> None:
        self.completed = time.monotonic()
        self.steps.append(self.completed - self.started)
        self.lately.append(self.steps[-1])
        self.recent += self.steps[-1]
        while self.recent - self.lately[0] > LATELY * self.seconds:
            self.recent -= self.lately.popleft()

    def _end_in_time(self) -> None:
        self.validated = True
        if processes.current().count == 1 and time.monotonic() > self.ends - LEAVING_SECONDS - CLOSING * self.seconds:
            raise BudgetOver("the time is over", status=RUN_FAILED)

    def earlier(self, step: int) -> int | None:
        """The step to end at instead of the planned one, if it will be too late for that; None while there is time."""
        left = self.ends - time.monotonic() - self._closing
        if left > FALL * self.training:
            return None
        each = self.recent / len(self.lately)
        validation = self.validation * max(1.0, each / self.step_then)  # the last one may have been before

        def needed(end: int) -> float:
            validations = (end - 1) // self._due - (step - 1) // self._due + self._after_validation
            return (end - step) * each + validations * validation

        if needed(self.planned) <= left:
            return None
        ends = range(step, self.planned)
        return ends[max(0, bisect_right(ends, (1 - RESERVE) * left, key=needed) - 1)]

    def late(self, step: int) -> bool:
        """Whether another group of batches after this step, and what has to follow it, would end too late."""
        before_it = self.validation if step % self._due == 0 else 0.0
        needed = before_it + self._group * max(self.steps) + self._scoring + self._closing
        return time.monotonic() + needed > self.ends
