"""A run that has to be over by a given time."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

from ignite.engine import Engine, Events

from yeastexp.config.experiment import Experiment
from yeastexp.config.settings import seconds
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.training.build import Assembly
from yeastexp.training.timing import seconds_of_validation, seconds_per_step

RESERVE = 0.06
"""Share of a budget kept for a machine that slows down."""

TIMING = 0.02
"""Share of a budget that finds out how long a step takes, and as much for a validation."""

SCORING = 0.25
"""Share of a budget that has to be left after the data are read, for anything to be scored."""

CLOSING = 0.01
CLOSING_SECONDS = 5.0
"""Kept of a budget, with that share of it, for tables, pictures and files at the end and for leaving Python."""

LEAVING_SECONDS = 2.0
"""Kept of a budget whatever happens, to save the weights and to leave Python."""

WORK, SLOWEST = 0.4, 10.0
"""The share of both that is work of the processor, which takes up to so many times as long beside other processes."""

REMEMBERED = 10
"""Steps, the slowest of which says how long the next one may take."""

PICTURES = 3
"""Validation images that are predicted once more at the end."""


class BudgetOver(UserError):
    """The time of a run is over in the middle of a validation."""


class Budget:
    """How much of its time a run has left, by what its steps and validations took lately.

    It becomes a number of steps before the run, so that the learning rate can fall over them. A machine that slows down
    later cuts the run short: the command keeps its time, and the result says so.
    """

    def __init__(self, written: str, began: float) -> None:
        self.written = written
        self.seconds = seconds(written)
        self.began = began
        self.ends = began + self.seconds
        self.first = time.monotonic(), time.process_time()
        self.steps: deque[float] = deque(maxlen=REMEMBERED)
        self.validation = 0.0
        self.scores = True
        """Whether there is time to score the weights."""

    def refuse_if_over(self) -> None:
        """UserError if nothing is left to begin a run with."""
        if time.monotonic() > self.ends - self._leaving:
            raise UserError(f"{self._too_short}; {time.monotonic() - self.began:.1f} s went by before the first step")

    def can_score(self) -> bool:
        """Whether enough is left for scores, of baselines too; else all that is left is for steps."""
        self.scores = self.ends - time.monotonic() > SCORING * self.seconds
        return self.scores

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
        self.validation = seconds_of_validation(assembly, share) if self.scores else 0.0
        self.steps.append(step)
        self._after_validation = 1 + assembly.pixels("test") / assembly.pixels("val")
        self._after_validation += PICTURES / len(assembly.dataset.splits["val"])
        self._group = train.accumulation_steps
        self._due = assembly.validate_every * assembly.sampler.steps_per_epoch
        left = self.ends - time.monotonic() - self._closing - RESERVE * self.seconds - (self._group - 1) * step
        steps = int((left - self._scoring) / (step + self.validation / self._due)) if self.scores else 0
        self.scores = steps > 0
        if not self.scores:  # better weights without scores than none
            steps = int((self.ends - time.monotonic() - self._leaving) / step)
        if steps < 1:
            raise UserError(f"{self._too_short}; a step takes {step:.2f} s, a validation {self.validation:.1f} s")
        return replace(assembly.experiment, train=replace(train, budget=None, steps=steps))

    @property
    def _closing(self) -> float:
        return CLOSING_SECONDS * self._slowness + CLOSING * self.seconds

    @property
    def _leaving(self) -> float:
        return LEAVING_SECONDS * self._slowness + CLOSING * self.seconds

    @property
    def _slowness(self) -> float:
        """How much longer than on a quiet machine the end will take, by how much of a processor this process got."""
        passed, worked = time.monotonic() - self.first[0], time.process_time() - self.first[1]
        return max(1.0, WORK * min(SLOWEST, passed / max(worked, 1e-3)))

    @property
    def _scoring(self) -> float:
        """The last validation, and what else is predicted after it."""
        return self.validation * self._after_validation

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Time the steps, and what is between them."""
        self.completed, self.validated = time.monotonic(), False
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._complete)
        validator.add_event_handler(Events.ITERATION_COMPLETED, self._end_in_time)

    def _begin(self) -> None:
        self.started = time.monotonic()
        if self.validated:  # with all that hangs on it, such as pictures and a checkpoint
            self.validation, self.validated = self.started - self.completed, False

    def _complete(self) -> None:
        self.completed = time.monotonic()
        self.steps.append(self.completed - self.started)

    def _end_in_time(self) -> None:
        self.validated = True
        if not self.scores or time.monotonic() > self.ends - self._leaving:
            raise BudgetOver("the time is over", status=RUN_FAILED)

    def late(self, step: int) -> bool:
        """Whether another group of batches after this step, and what has to follow it, would end too late."""
        before_it = self.validation if step % self._due == 0 else 0.0
        after_it = self._scoring + self._closing if self.scores else self._leaving
        needed = before_it + self._group * max(self.steps) + after_it
        return time.monotonic() + needed > self.ends
