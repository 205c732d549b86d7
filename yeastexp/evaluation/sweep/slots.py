"""The numbered slots of a sweep, each of which one process at a time fills with a trial.

Any number of processes may call this at the same time, and any may be killed between two lines. Correctness rests on
two atomic operations of the storage: only one process can turn a WAITING trial into a RUNNING one, and only one can
end a RUNNING trial. If two processes add the same attempt at once, both entries stay, and the one with the lower trial
number counts for all.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from yeastexp.evaluation.sweep.workers import Worker

SLOT, ATTEMPT, WORKER, HOST, TAKEN_UP = "slot", "attempt", "worker", "host", "taken_up"
"""Attributes of a trial in the storage: its slot, the number of earlier attempts, the process and the machine that
train it, and whether a further attempt replaces it."""


class Slots:
    """The slots 1, 2, … of a study."""

    def __init__(self, study: Study, worker: Worker) -> None:
        self.study = study
        self.storage = study._storage  # the study's own: it caches what it has read of a database
        self.worker = worker

    def current(self, count: int | None = None) -> dict[int, FrozenTrial]:
        """The last attempt at each slot, or at each up to `count`, by ascending slot."""
        last: dict[int, FrozenTrial] = {}
        # Trials come by ascending numbers, and only a later attempt replaces an earlier one: of two equal attempts
        # the first stays, for every process alike.
        for trial in self.study.get_trials(deepcopy=False):
            slot, attempt = trial.user_attrs.get(SLOT, 0), trial.user_attrs.get(ATTEMPT, 0)
            wanted = 0 < slot <= (slot if count is None else count)
            if wanted and (slot not in last or attempt > last[slot].user_attrs[ATTEMPT]):
                last[slot] = trial
        return dict(sorted(last.items()))

    def have_ended(self, count: int) -> bool:
        """Whether no slot is left to fill."""
        current = self.current(count)
        return len(current) == count and all(self._has_ended(trial) for trial in current.values())

    @staticmethod
    def _has_ended(trial: FrozenTrial) -> bool:
        return trial.state.is_finished() and not trial.user_attrs.get(TAKEN_UP)

    def claim(self, count: int) -> FrozenTrial | None:
        """Claim the trial of the lowest free slot, now RUNNING; None if other processes have all that are left."""
        # Each change of the storage ends the pass, and the next one reads anew: between reading and changing, another
        # process may have done the same, and only what the storage then holds counts.
        while True:
            current = self.current(count)
            for trial in current.values():
                if trial.state == TrialState.RUNNING and self._is_lost(trial):
                    self.give_back(trial)
                    break
                if trial.state == TrialState.WAITING and self.storage.set_trial_state_values(
                    trial._trial_id, TrialState.RUNNING
                ):
                    self.storage.set_trial_user_attr(trial._trial_id, WORKER, self.worker.name)
                    self.storage.set_trial_user_attr(trial._trial_id, HOST, self.worker.host)
                    return trial
                # The process that gave it back was killed before it added the next attempt.
                if trial.state.is_finished() and not self._has_ended(trial):
                    self._add_attempt(trial)
                    break
            else:
                if not (free := set(range(1, count + 1)) - current.keys()):
                    return None
                self._add({SLOT: min(free), ATTEMPT: 0})

    def _is_lost(self, trial: FrozenTrial) -> bool:
        # A process may be killed between claiming a trial and writing its name. The trial then gets a name that nobody
        # has, so that it is lost once that name has been silent for long enough.
        unknown = f"whoever began trial {trial._trial_id}"
        return self.worker.is_lost(trial.user_attrs.get(WORKER, unknown), trial.user_attrs.get(HOST, ""))

    def give_back(self, trial: FrozenTrial) -> None:
        """End a RUNNING trial and add a further attempt with its values, which continues in its run directory."""
        # The mark comes first: an ended trial accepts none, and without it a trial that nobody took up would pass for
        # a failed one.
        try:
            self.storage.set_trial_user_attr(trial._trial_id, TAKEN_UP, True)
            if self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
                self._add_attempt(self.storage.get_trial(trial._trial_id))
        except UpdateFinishedTrialError:
            pass  # another process was faster

    def _add_attempt(self, trial: FrozenTrial) -> None:
        kept = {key: value for key, value in trial.user_attrs.items() if key not in (TAKEN_UP, WORKER, HOST)}
        self._add({**kept, ATTEMPT: kept[ATTEMPT] + 1}, trial)

    def _add(self, attributes: dict[str, Any], before: FrozenTrial | None = None) -> None:
        values = (
            {
                "params": before.params,
                "distributions": before.distributions,
                "intermediate_values": before.intermediate_values,
            }
            if before
            else {}
        )
        self.study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=attributes, **values))  # type: ignore[arg-type]

    def begun(self, trial: FrozenTrial) -> Trial:
        """A claimed trial as Optuna's `Trial`, which can propose values."""
        return Trial(self.study, trial._trial_id)
