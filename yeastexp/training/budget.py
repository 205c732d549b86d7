"""Planning and watching a run that has to be over by a given time, `[train] budget`."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from dataclasses import replace
from statistics import fmean

from ignite.engine import Engine, Events

from yeastexp.config.experiment import Experiment
from yeastexp.config.settings import seconds
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import processes
from yeastexp.system.deadline import LEAVING_SECONDS
from yeastexp.training.build import Assembly
from yeastexp.training.timing import seconds_of_validation, seconds_per_step
from yeastexp.training.training_images import fewer_scenes

RESERVE = 0.06
"""Share of a budget that is not planned with, in case the machine slows down."""

TIMING = 0.02
"""Share of a budget for timing steps before the plan, and again for timing a validation."""

INITIAL = 0.1
"""Share of a budget that a validation may take for the initial weights to be scored as well."""

CLOSING = 0.01
CLOSING_SECONDS = 5.0
"""Share of a budget, and seconds in addition, for tables, pictures and files at the end and for leaving Python."""

REMEMBERED = 10
"""The number of last steps whose slowest is taken for the time of the next one."""

FALL = 0.3
"""The plan may change once, when this share of the time for steps is left: late, since a slow machine may slow down
again, but early enough for the learning rate to fall over the remaining steps."""

LAST, SLOWING = 3, 1.5
"""If the last steps take so much longer than the average, the change waits for half of that share at most."""

LATELY = 0.05
"""Share of a budget over whose last steps the time of a step is then averaged."""

PICTURES = 3
"""The number of validation images that are predicted once more at the end, for `pictures/`."""


COMPOSING_SECONDS = 300.0
"""Shorter budgets compose fewer scenes: all of them take some 6 CPU seconds, on a busy machine a minute."""


class BudgetOver(UserError):
    """Raised in the middle of a validation that would end after the budget."""


class Budget:
    """The time budget of a run: planned as a number of steps, then watched by the times of steps and validations.

    A number of steps is needed before the run, so that the learning rate can fall over them. If the machine slows down
    so that they do not fit, the plan changes once, late in the run (`earlier`); if it slows down after that, the run is
    cut short (`late`). Either way the command is to end in time, and its result says what happened.
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
        """Return the experiment with the scenes of `pasted_cells` reduced in proportion to a short budget."""
        return fewer_scenes(experiment, min(1.0, self.seconds / COMPOSING_SECONDS))

    def refuse_if_over(self) -> None:
        """Raises UserError if the time is over already."""
        if time.monotonic() > self.ends - LEAVING_SECONDS:
            raise self.over()

    def over(self) -> UserError:
        """Return the error to raise when the time is over before the first step."""
        return UserError(f"{self._too_short}; {time.monotonic() - self.began:.1f} s went by before the first step")

    @property
    def _too_short(self) -> str:
        return f"[train] budget: {self.written} is too short"

    def affords_validation(self, assembly: Assembly) -> bool:
        """Measure the time of a validation, and return whether one more than planned is a small share of the budget."""
        self.validation = seconds_of_validation(assembly, TIMING * self.seconds)
        return not processes.current().any(self.validation > INITIAL * self.seconds)

    def plan(self, assembly: Assembly, step: float | None = None) -> Experiment:
        """Return the experiment with the number of steps that fit in the budget. Raises UserError if none does.

        `step` is the time of a step in seconds, which is measured here if it is None, as is that of a validation.
        """
        train = assembly.experiment.train
        self.refuse_if_over()
        share = TIMING * self.seconds
        step = seconds_per_step(assembly, share, at_most=2 * share) if step is None else step
        self.validation = self.validation or seconds_of_validation(assembly, share)
        self.steps.append(step)
        self.step_then = step
        self._after_validation = 1 + assembly.pixels("test") / assembly.pixels("val")
        count = len(assembly.dataset.splits["val"])
        self._after_validation += min(PICTURES, count) / count
        self._group = train.accumulation_steps
        self._due = assembly.validate_every * assembly.sampler.steps_per_epoch
        before = time.monotonic() - self.began
        # A run ends with a complete accumulation group, so it may overshoot by all but one of the steps of a group.
        left = self.seconds - before - self._closing - RESERVE * self.seconds - (self._group - 1) * step
        steps = self._steps_within(left, step)
        # The margins alone can take up a short budget. Rather than fail, the run then gives up the reserve and leaves
        # half the time that loading took for closing, which is the quicker of the two.
        if steps < 1:
            self.margin = min(CLOSING_SECONDS, max(LEAVING_SECONDS, before / 2))
            left += CLOSING_SECONDS - self.margin + RESERVE * self.seconds
            steps = self._steps_within(left, step)
        # All processes have to raise if one does: the others would wait for it at the next exchange.
        if processes.current().any(steps < 1):
            raise UserError(
                f"{self._too_short}; {before:.1f} s went by before the first step, a step takes {step:.2f} s, a "
                f"validation {self.validation:.1f} s"
            )
        self.planned = steps = processes.current().agreed(steps)
        return replace(assembly.experiment, train=replace(train, budget=None, steps=steps))

    def _steps_within(self, left: float, step: float) -> int:
        """Return how many steps fit in `left` seconds with the validations among them and the scoring at the end.

        If none does, the number without any validation: weights without scores are better than none.
        """
        steps = int((left - self._scoring) / (step + self.validation / self._due))
        return steps if steps > 0 else int(left / step)

    @property
    def _closing(self) -> float:
        return self.margin + CLOSING * self.seconds

    @property
    def _scoring(self) -> float:
        """Seconds for the last validation, the test images and the pictures."""
        return self.validation * self._after_validation

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Time the steps and what happens between them, and cut off a validation that would end too late."""
        self.completed, self.validated = time.monotonic(), False
        self.training = self.ends - self.completed
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._complete)
        validator.add_event_handler(Events.ITERATION_COMPLETED, self._end_in_time)

    def _begin(self) -> None:
        self.started = time.monotonic()
        # The time of a validation is that between two steps, so that it includes the pictures, the checkpoint and the
        # tables that follow it.
        if self.validated:
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
        # Several processes would leave a shared validation at different images, and then wait for each other.
        if processes.current().count == 1 and time.monotonic() > self.ends - LEAVING_SECONDS - CLOSING * self.seconds:
            raise BudgetOver("the time is over", status=RUN_FAILED)

    def earlier(self, step: int) -> int | None:
        """Return the step to end at if the planned one would be too late; None if it is in time or FALL is not reached.

        It is the last step whose remaining time, by the average of the latest steps, fits in what is left.
        """
        left = self.ends - time.monotonic() - self._closing
        each = self.recent / len(self.lately)
        # The last validation may have been before the machine slowed down, so it is scaled as steps have slowed since.
        validation = self.validation * max(1.0, each / self.step_then)
        # Of a short budget the scores at the end may take a large share: steps end long before the budget does.
        scoring = self._after_validation * validation
        share = (left - scoring) / max(self.training - self._closing - scoring, 1e-9)
        # Just when the machine slows down, an average does not say yet by how much, and the plan changes only once.
        if share > FALL or (share > FALL / 2 and fmean([*self.steps][-LAST:]) > SLOWING * each):
            return None

        def needed(end: int) -> float:
            validations = (end - 1) // self._due - (step - 1) // self._due + self._after_validation
            return (end - step) * each + validations * validation

        if needed(self.planned) <= left:
            return None
        ends = range(step, self.planned)
        return ends[max(0, bisect_right(ends, (1 - RESERVE) * left, key=needed) - 1)]

    def late(self, step: int) -> bool:
        """Whether another accumulation group after this step, and the scoring that follows, would end too late.

        By the slowest of the last steps, not their mean: a step that is too long cannot be taken back.
        """
        before_it = self.validation if step % self._due == 0 else 0.0
        needed = before_it + self._group * max(self.steps) + self._scoring + self._closing
        return time.monotonic() + needed > self.ends
