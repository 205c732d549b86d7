"""The values that a trial is given, and when it is pruned: Optuna's samplers and pruners."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from ignite.engine import Engine, Events
from optuna import Study, Trial
from optuna.pruners import MedianPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from yeastexp.evaluation.sweep.folder import PrunerName, SamplerName
from yeastexp.evaluation.sweep.space import Choice, Dimension, Value
from yeastexp.metrics.summary import monitored_row, rows_of
from yeastexp.training.context import RunContext
from yeastexp.training.progress import Validation

P_VALUE = 0.05
"""The p of the one-sided Wilcoxon test below which a trial counts as worse than the best one."""

STARTUP_TRIALS = 5
"""The complete trials from which on the median pruner acts."""

WARM_UP = 0.5
"""The share of the epochs in which no trial is pruned: a low learning rate begins slowly, a high one jumps about."""


def sampler_of(name: SamplerName, seed: int, slot: int) -> BaseSampler:
    """A sampler for one trial, whose random numbers depend on the seed and the trial's number alone.

    So a sweep that was interrupted proposes what it would have proposed, and two processes never propose the same.
    """
    numbers = int(np.random.SeedSequence([seed, slot]).generate_state(1)[0])
    if name == "random":
        return RandomSampler(seed=numbers)
    if name == "gp":
        return GPSampler(seed=numbers)
    # The constant liar takes trials under way for bad ones, so that processes do not all try the same promising spot.
    return TPESampler(seed=numbers, constant_liar=True)


def proposed(trial: Trial, dimensions: Sequence[Dimension]) -> dict[str, Value]:
    """The values of a trial by key."""
    return {dimension.key: _proposed(trial, dimension) for dimension in dimensions}


def _proposed(trial: Trial, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        # Optuna's categories can be neither arrays nor tables: these stand in the storage as JSON text.
        by_name = {_category(choice): choice for choice in dimension.choices}
        chosen: Any = trial.suggest_categorical(dimension.key, list(by_name))
        return by_name[chosen]
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.integer:
        return trial.suggest_int(dimension.key, int(low), int(high), step=int(step or 1), log=dimension.log)
    return trial.suggest_float(dimension.key, low, high, step=step, log=dimension.log)


def values_of(params: Mapping[str, Any], dimensions: Sequence[Dimension]) -> dict[str, Value]:
    """The values by key from the parameters that Optuna keeps of a trial; the inverse of `proposed`."""
    values: dict[str, Value] = {}
    for dimension in dimensions:
        if dimension.key in params:
            kept = params[dimension.key]
            values[dimension.key] = kept
            if isinstance(dimension, Choice):
                values[dimension.key] = next(choice for choice in dimension.choices if _category(choice) == kept)
    return values


def _category(choice: Value) -> bool | int | float | str:
    return choice if isinstance(choice, bool | int | float | str) else json.dumps(choice)


class FollowTrial:
    """A handler that reports the monitored score of each validation to Optuna, and stops a run that is pruned."""

    def __init__(self, context: RunContext, study: Study, trial: Trial, pruner: PrunerName) -> None:
        self.context = context
        self.study = study
        self.trial = trial
        self.pruner = pruner
        self.pruned = False

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Follow each validation after the run itself has evaluated it."""
        self.trainer = trainer
        validator.add_event_handler(Events.COMPLETED, self.look)

    def look(self, validator: Engine) -> None:
        """Report the score of a validation, and prune the run if it is worse than others."""
        state: Any = validator.state
        epoch, value = self.trainer.state.epoch, float(state.monitored)
        if not math.isfinite(value):
            return
        images = self._of_images(state.validation)
        # A run that was resumed repeats the epochs since its checkpoint, which were reported before.
        if epoch not in self.study._storage.get_trial(self.trial._trial_id).intermediate_values:
            self.trial.report(value, epoch)
            self.trial.set_user_attr(scores_at(epoch), images)
        if not self.context.over and epoch > WARM_UP * self.context.epochs and self._is_worse(epoch, images):
            self.pruned = True
            self.context.log(f"pruned after epoch {epoch}: {self.context.monitor} {value:.4f}")
            self.context.interruption.wanted = True  # so that a checkpoint is kept, and the run can be resumed

    def _of_images(self, validation: Validation) -> list[float | None]:
        """The monitored score, or the loss, of each image in the order of the split; None where it has none."""
        if self.context.monitor == "loss":
            values = list(validation.losses.values())
        else:
            rows = rows_of(validation.scores[self.context.monitor], self.context.assembly.classes)
            values = rows[monitored_row(rows)].tolist()
        return [value if math.isfinite(value) else None for value in values]

    def _is_worse(self, epoch: int, images: Sequence[float | None]) -> bool:
        if self.pruner == "none":
            return False
        now = self.study._storage.get_trial(self.trial._trial_id)
        if self.pruner == "median":
            return MedianPruner(n_startup_trials=STARTUP_TRIALS).prune(self.study, now)
        return is_worse_than_best(self.study, epoch, images)


def scores_at(epoch: int) -> str:
    """The attribute of a trial that holds the scores of the images after an epoch."""
    return f"scores after epoch {epoch}"


def is_worse_than_best(study: Study, epoch: int, images: Sequence[float | None]) -> bool:
    """Whether the images' scores are worse than those of the best complete trial after the same epoch.

    The test is Wilcoxon's signed-rank test of scores paired by image. It compares two networks, not two settings: with
    another seed, the scores of all images shift together.
    """
    # Optuna's WilcoxonPruner takes a trial's intermediate values for images that are scored one after the other. Here
    # all images are scored at each validation, so that it is given a study made of this epoch alone, in which the
    # images are the steps.
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = study.best_trial if complete else None
    of_best = best.user_attrs.get(scores_at(epoch)) if best else None
    if not of_best or len(of_best) != len(images):
        return False
    pairs = [(a, b) for a, b in zip(images, of_best, strict=True) if a is not None and b is not None]
    if not pairs:
        return False
    now, then = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    aside = optuna.create_study(direction=study.direction)
    mean = math.fsum(then.values()) / len(then)
    aside.add_trial(optuna.create_trial(value=mean, intermediate_values=then))
    under_way = optuna.create_trial(state=TrialState.RUNNING, intermediate_values=now)
    return WilcoxonPruner(p_threshold=P_VALUE).prune(aside, under_way)
