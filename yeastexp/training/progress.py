"""The part of a checkpoint that is neither weights nor optimizer: scores so far, the best of them, and the plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from yeastexp.config.settings import Train
from yeastexp.metrics.pixels import Scores
from yeastexp.metrics.summary import Summary, monitored
from yeastexp.training.optimization import AccumulationSchedule


@dataclass
class Best:
    """The best validation so far: its monitored value and step, and how many validations came since."""

    higher_is_better: bool
    value: float | None = None
    step: int = 0
    validations_since: int = 0

    def improves(self, value: float, step: int) -> bool:
        """Count a validation, and return whether its value is the new best; NaN never is, and ties are not."""
        self.validations_since += 1
        if value != value:
            return False
        if self.value is not None and (value <= self.value if self.higher_is_better else value >= self.value):
            return False
        self.value, self.step, self.validations_since = value, step, 0
        return True


@dataclass
class Validation:
    """A validation on whole images: the scores of each metric, and the loss of each image by name, in their order.

    The loss of an image without labelled pixels is NaN.
    """

    scores: dict[str, Scores]
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The mean over images that have one, the same whatever their order; NaN if none has."""
        known = [loss for loss in self.losses.values() if not math.isnan(loss)]
        return math.fsum(known) / len(known) if known else math.nan

    @property
    def finite_loss(self) -> float | None:
        """The mean loss as JSON can hold it: None if it is NaN or infinite."""
        return self.loss if math.isfinite(self.loss) else None

    def value(self, monitor: str, summary: Summary) -> float:
        """Return the value that selects the best checkpoint: the loss, or the monitored score of its summary."""
        return self.loss if monitor == "loss" else monitored(summary, monitor)

    def state_dict(self) -> dict[str, Any]:
        """Return the validation as plain values and tensors."""
        return {"scores": {name: dict(vars(found)) for name, found in self.scores.items()}, "losses": self.losses}

    @classmethod
    def of(cls, state: dict[str, Any] | None) -> Validation | None:
        """Return the validation of a `state_dict`, or None for None."""
        if state is None:
            return None
        return cls({name: Scores(**found) for name, found in state["scores"].items()}, dict(state["losses"]))


@dataclass(frozen=True)
class Remade:
    """A change of plan after step `at`, since the budget holds fewer steps than planned: the run ends at step `end`."""

    at: int
    end: int


def augmented_steps(train: Train, steps: int, remade: Remade | None) -> int:
    """Return how many of a run's planned `steps` have all augmentations.

    After a change of plan they are those of a run of fewer steps, as far as these were not made by then.
    """
    planned = train.augmented(steps)
    return min(planned, max(remade.at, train.augmented(remade.end))) if remade else planned


@dataclass
class Progress:
    """The best and the last validation of a run, its rows of `metrics.csv`, why it stopped, and any change of plan."""

    best: Best
    stopped: Literal["early", "by budget"] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    last_validation: Validation | None = None
    best_validation: Validation | None = None
    initial_validation: Validation | None = None
    """That before the first step, if training started from weights of another run."""
    remade: Remade | None = None

    def scheduled(self, schedule: AccumulationSchedule, update: int) -> int:
        """Return how often the scheduler has been stepped after an update: once per update.

        After a change of plan the remaining scheduler steps are spread over the fewer updates, so that the learning
        rate still finishes its fall.
        """
        # In whole numbers, so that the last update comes to exactly the last scheduler step. The result depends on the
        # update alone, so that a resumed run needs no counter of its own.
        if self.remade is None or update <= (first := schedule.updates_until(self.remade.at)):
            return update
        through = (update - first, schedule.updates_until(self.remade.end) - first)
        return first + (schedule.updates - first) * through[0] // through[1]

    def state_dict(self) -> dict[str, Any]:
        """Return the progress as plain values and tensors."""
        kept = {"last": self.last_validation, "best": self.best_validation, "initial": self.initial_validation}
        return {
            "best": dict(vars(self.best)),
            "stopped": self.stopped,
            "remade": dict(vars(self.remade)) if self.remade else None,
            "rows": self.rows,
            "validations": {name: one.state_dict() if one else None for name, one in kept.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of a run of the same experiment."""
        self.stopped = state["stopped"]
        self.remade = Remade(**remade) if (remade := state.get("remade")) else None
        self.best = Best(**state["best"])
        self.rows = [dict(row) for row in state["rows"]]
        self.last_validation = Validation.of(state["validations"]["last"])
        self.best_validation = Validation.of(state["validations"]["best"])
        self.initial_validation = Validation.of(state["validations"].get("initial"))
