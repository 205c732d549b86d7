"""A sweep: trials of an experiment, shared by any number of processes, and the best one trained with other seeds."""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna import Study, Trial
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from yeastexp.config import trust
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.errors import INTERRUPTED, RUN_FAILED, UserError, in_one_line
from yeastexp.evaluation.sweep import space, storage, workers
from yeastexp.evaluation.sweep.folder import (
    PrunerName,
    Repeats,
    SamplerName,
    State,
    SweepFolder,
    SweepRecord,
    TrialRecord,
)
from yeastexp.evaluation.sweep.proposals import FollowTrial, proposed, sampler_of, values_of
from yeastexp.evaluation.sweep.slots import ATTEMPT, HOST, SLOT, TAKEN_UP, Slots
from yeastexp.evaluation.sweep.space import Dimension
from yeastexp.evaluation.sweep.workers import Worker
from yeastexp.metrics.summary import monitored
from yeastexp.system import locks
from yeastexp.system.console import console_into
from yeastexp.system.formatting import format_score
from yeastexp.system.progress import Say
from yeastexp.training import inputs
from yeastexp.training.context import RunContext
from yeastexp.training.resume import is_concluded, resume
from yeastexp.training.run import run
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.timing import settled

POLL_SECONDS = 0.5, 5.0
"""The shortest and the longest pause of an idle process between two looks for trials that other processes lost."""

MOST_FAILURES = 5
"""Failures in a row at which a sweep stops: their cause is then elsewhere than in the values of the trials."""

STATES: Mapping[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

Observer = Callable[[RunContext], FollowTrial]


@dataclass(frozen=True)
class Request:
    """The arguments of a sweep."""

    experiment: Path
    space: Path
    settings: tuple[str, ...] = ()
    trials: int = 50
    repeats: int = 3
    jobs: int = 1
    storage: str | None = None
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    seed: int = 0
    output: Path | None = None

    def command(self, folder: Path) -> list[str]:
        """The command line of a process that joins the sweep in `folder`."""
        # Without --jobs: a process that joins starts no further ones.
        options: dict[str, Any] = {
            "--space": self.space,
            "--trials": self.trials,
            "--repeats": self.repeats,
            "--sampler": self.sampler,
            "--pruner": self.pruner,
            "--seed": self.seed,
            "-o": folder,
            **({"--storage": self.storage} if self.storage else {}),
        }
        settings = (word for setting in self.settings for word in ("--set", setting))
        return ["sweep", str(self.experiment), *(str(word) for pair in options.items() for word in pair), *settings]


def sweep(request: Request, say: Say) -> SweepFolder:
    """Begin, join or continue a sweep, and work on it until all its trials have ended. Returns its folder.

    Raises UserError if the folder or the storage holds another sweep, or if it was interrupted.
    """
    # Beginning, joining and continuing are one code path: each process does what is not there yet, and any of them may
    # be the first, so that none has to be started before the others and none is missed when it is killed.
    loaded = load_experiment(request.experiment, request.settings)
    trust.remember(loaded.plugins)
    dimensions = space.read(request.space, request.experiment, request.settings)
    _warn_of_initial_weights(loaded, dimensions)
    folder = SweepFolder(request.output or Path("runs") / f"{loaded.name}_sweep")
    blank = _as_begun(_blank(request, loaded, dimensions), folder, loaded)
    _refuse_other(folder, blank)
    folder.path.mkdir(parents=True, exist_ok=True)
    with storage.opened(folder.journal, request.storage) as shared:
        blank = replace(blank, study=_study_name(shared, folder, request.storage))
        study = _study(shared, blank.study, blank.higher_is_better)
        _refuse_other_study(study, folder, blank)
        if not folder.is_sweep:  # before anything else, for others that begin now look for it
            folder.write(blank)
        _freeze(folder, loaded, request.jobs)
        worker = Worker(folder.workers, study)
        with worker.alive(), workers.further(request.jobs - 1, request.command(folder.path), folder.workers):
            part = _Part(folder, blank, dimensions, shared, study, worker, say)
            part.train_trials()
            part.train_repeats(request.repeats)
            part.write(finished=True)
    return folder


def _warn_of_initial_weights(loaded: Experiment, dimensions: Sequence[Dimension]) -> None:
    """Warn if trials differ in their network and begin with weights, which would fit some of them alone."""
    swept = [dimension.key for dimension in dimensions if dimension.key.partition(".")[0] == "model"]
    if swept and loaded.train.init_from:
        remedy = "--set train.init_from=random makes all trials begin alike"
        warnings.warn(
            f"{', '.join(swept)}: a trial whose model the initial weights do not fit begins at random; {remedy}",
            stacklevel=3,
        )


def _blank(request: Request, loaded: Experiment, dimensions: Sequence[Dimension]) -> SweepRecord:
    """The record of a sweep before its first trial."""
    metrics = {part.name: part for part in loaded.metrics}
    metric = metrics[loaded.monitor].build(len(loaded.task.classes)) if loaded.monitor in metrics else None
    ranges = {
        dimension.key: {key: value for key, value in asdict(dimension).items() if key != "key"}
        for dimension in dimensions
    }
    proposing = [ranges, request.sampler, request.pruner, request.seed]
    return SweepRecord(
        name=loaded.name,
        monitor=loaded.monitor,
        higher_is_better=metric is not None and bool(metric.higher_is_better),
        wanted=request.trials,
        sampler=request.sampler,
        pruner=request.pruner,
        seed=request.seed,
        train_seed=loaded.train.seed,
        ranges=ranges,
        digests={
            "experiment": _digest(loaded.identity()),
            "data, plugins or other files": _digest(inputs.digests(loaded)),
            "space, sampler, pruner or seed": _digest(proposing),
        },
        data=inputs.digests(loaded)["data"],
    )


def _as_begun(blank: SweepRecord, folder: SweepFolder, loaded: Experiment) -> SweepRecord:
    """Return the record with the folder's own digest of the experiment if that is the one that is loaded.

    An earlier version may have had fewer keys, whose defaults are those of this one, so that its digest is another.
    """
    if not (folder.is_sweep and folder.directory.is_run):
        return blank
    if folder.directory.load(data=False).identity() != loaded.identity():
        return blank
    return replace(blank, digests={**blank.digests, "experiment": folder.read().digests["experiment"]})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _refuse_other(folder: SweepFolder, blank: SweepRecord) -> None:
    """Raises UserError if the folder holds another sweep, a run, or is a file."""
    if folder.is_sweep:
        _refuse_digests(str(folder.path), folder.read().digests, blank.digests)
    elif not folder.was_sweep and (folder.directory.is_run or (folder.path.exists() and not folder.path.is_dir())):
        raise UserError(f"{folder.path}: is no folder of a sweep; name another with -o")
    else:
        folder.directory.refuse_links()


def _refuse_digests(place: str, begun: Mapping[str, str], now: Mapping[str, str]) -> None:
    if other := [what for what, digest in now.items() if begun.get(what) != digest]:
        fault = f"is a sweep of another {other[0]}"
        raise UserError(f"{place}: {fault}; bring back what it was begun with, or name another folder with -o")


def _study_name(shared: BaseStorage, folder: SweepFolder, storage: str | None) -> str:
    """The name under which the trials are stored: the folder's when the sweep was begun."""
    if folder.is_sweep and (begun := folder.read().study):
        return begun
    # A journal holds one sweep alone; the study of its repeats is named after that of its trials, so it is longer.
    names = [] if storage else optuna.get_all_study_names(shared)
    return min(names, key=len, default=folder.path.name)


def _study(shared: BaseStorage, name: str, higher_is_better: bool) -> Study:
    direction = StudyDirection.MAXIMIZE if higher_is_better else StudyDirection.MINIMIZE
    return optuna.create_study(storage=shared, study_name=name, direction=direction, load_if_exists=True)


def _refuse_other_study(study: Study, folder: SweepFolder, blank: SweepRecord) -> None:
    """Record in a new study what it is of. Raises UserError if the study is of something else."""
    # Beside the folder's own digests: two folders of one name may point to one database.
    if "digests" not in study.user_attrs:
        study.set_user_attr("digests", blank.digests)
    _refuse_digests(f"study '{study.study_name}' of {folder.path}", study.user_attrs["digests"], blank.digests)


def _freeze(folder: SweepFolder, loaded: Experiment, jobs: int) -> None:
    """Copy the experiment that all trials start from into the folder, so that later edits of its file do not matter.

    Threads and precision are fixed: trials with what each found fastest could not be repeated. If several processes
    begin at once, the experiment of the first one stays.
    """
    if folder.directory.is_run:
        return
    folder.directory.copy_plugins(loaded.plugins)
    folder.directory.write_experiment(settled(loaded, jobs), unless_there=True)


class _Part:
    """The work of this process in a sweep that any number of processes share."""

    def __init__(
        self,
        folder: SweepFolder,
        blank: SweepRecord,
        dimensions: Sequence[Dimension],
        shared: BaseStorage,
        study: Study,
        worker: Worker,
        say: Say,
    ) -> None:
        self.folder = folder
        self.blank = blank
        self.dimensions = dimensions
        self.shared = shared
        self.study = study
        self.worker = worker
        self.say = say
        self.slots = Slots(study, worker)
        self.again: Slots | None = None
        self.repeats = 0

    # Stages

    def train_trials(self) -> None:
        """Fill the slots of the sweep, together with other processes."""
        self.write()
        self._work(self.slots, self.blank.wanted, self._trial)

    def train_repeats(self, count: int) -> None:
        """Train the best trial with other seeds. Raises UserError if no trial is complete."""
        best = self.record().best
        if best is None:
            raise UserError(f"{self.folder.path}: no trial is complete, so none is best", status=RUN_FAILED)
        self.repeats = count
        # The repeats are slots of a study of their own: in the study of the trials, samplers and the importance of keys
        # would take them for proposals.
        name = f"{self.study.study_name}, trial {best} again"
        self.again = Slots(_study(self.shared, name, self.blank.higher_is_better), self.worker)
        self._work(self.again, count, lambda slots, claimed: self._repeat(slots, claimed, best))

    def _work(self, slots: Slots, count: int, train: Callable[[Slots, FrozenTrial], None]) -> None:
        """Train slots until all have ended. Waits for those that others train, as these processes may be lost."""
        wait, longest = POLL_SECONDS
        while not slots.have_ended(count):
            if claimed := slots.claim(count):
                train(slots, claimed)
                self.write()
                self._refuse_failures(slots, count)
                wait = POLL_SECONDS[0]
                continue
            if wait == POLL_SECONDS[0]:
                self.say(f"{self.folder.path}: waiting for what other processes train")
            time.sleep(wait)
            wait = min(2 * wait, longest)

    def _refuse_failures(self, slots: Slots, count: int) -> None:
        """Raises UserError if the last `MOST_FAILURES` trials to end have all failed."""
        ended = [trial for trial in slots.current(count).values() if trial.state.is_finished()]
        ended.sort(key=lambda trial: trial.datetime_complete.timestamp() if trial.datetime_complete else 0.0)
        last = ended[-MOST_FAILURES:]
        if len(last) == MOST_FAILURES and all(trial.state == TrialState.FAIL for trial in last):
            why = last[-1].user_attrs.get("why", "")
            raise UserError(
                f"{self.folder.path}: the last {MOST_FAILURES} trials failed, the last one as: {why}", status=RUN_FAILED
            )

    # One trial

    def _trial(self, slots: Slots, claimed: FrozenTrial) -> None:
        number = claimed.user_attrs[SLOT]
        with self._given_back(slots, claimed):
            # Set before the trial begins, as Optuna calls the sampler from then on. A second attempt at a slot has the
            # values of the first: Optuna does not propose what a trial holds already.
            self.study.sampler = sampler_of(self.blank.sampler, self.blank.seed, number)
            trial = slots.begun(claimed)
            values = proposed(trial, self.dimensions)
            told = ", ".join(f"{key} {_shown(value)}" for key, value in values.items())
            self.say(f"trial {number} of {self.blank.wanted}: {told}")
            settings = space.settings(values)
            self._train(slots, claimed, self.folder.trial(number), f"trial {number}", settings, trial)

    def _repeat(self, slots: Slots, claimed: FrozenTrial, best: int) -> None:
        seed = self.blank.train_seed + claimed.user_attrs[SLOT]
        with self._given_back(slots, claimed):
            slots.storage.set_trial_user_attr(claimed._trial_id, "seed", seed)
            trial = self.slots.current()[best]
            settings = [*space.settings(values_of(trial.params, self.dimensions)), f"train.seed={seed}"]
            self.say(f"trial {best} again with seed {seed}")
            self._train(slots, claimed, self.folder.repeat(best, seed), f"seed {seed}", settings)

    @contextmanager
    def _given_back(self, slots: Slots, claimed: FrozenTrial) -> Iterator[None]:
        """Offer a trial to other processes, or to the same command later, if this one is interrupted within."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            slots.give_back(claimed)
            self.write()
            raise
        except UserError as error:
            slots.give_back(claimed)
            self.write()
            remedy = "the same command goes on with it"
            raise UserError(f"{self.folder.path}: {error.faults[0]}; {remedy}", status=error.status) from error

    def _train(
        self,
        slots: Slots,
        claimed: FrozenTrial,
        path: Path,
        name: str,
        settings: Sequence[str],
        followed: Trial | None = None,
    ) -> None:
        """Train a run directory to its end, or resume it, and tell the storage the outcome.

        A trial that is `followed` may be pruned. Raises UserError if the training was interrupted, or if the directory
        holds a run of other values.
        """
        began, followers = time.monotonic(), list[FollowTrial]()

        def observer(context: RunContext) -> FollowTrial:
            assert followed is not None
            followers.append(FollowTrial(context, self.study, followed, self.blank.pruner))
            return followers[0]

        self._refuse_other_values(path, settings, name)
        try:
            self._carry_out(path, settings, claimed, observer if followed else None)
            outcome = self._scored(slots, claimed, RunDirectory(path))
        except UserError as error:
            # A pruned run ends like an interrupted one, with a checkpoint: only its follower knows the difference. Any
            # other error of the user's is one of these values (too little memory, a diverged loss): the sweep goes on.
            if any(follower.pruned for follower in followers):
                outcome = TrialState.PRUNED, ""
            elif error.status == INTERRUPTED:
                raise UserError(f"interrupted in {name}", status=INTERRUPTED) from error
            else:
                outcome = TrialState.FAIL, error.faults[0]
        except Exception as error:
            for line in traceback.format_exc().splitlines():
                self.say(line)
            outcome = TrialState.FAIL, in_one_line(error)
        self._tell(slots, claimed, outcome, name, time.monotonic() - began)

    def _refuse_other_values(self, path: Path, settings: Sequence[str], name: str) -> None:
        # Where the journal was removed, another order of trials may have had other values proposed.
        directory = RunDirectory(path)
        if not directory.is_run:
            return
        # Only the keys of `settings` are compared, and of these none that a run settles itself.
        compared = [each for each in settings if not each.endswith('="auto"') and not each.startswith("train.budget=")]
        if directory.load(compared, data=False).identity() != directory.load(data=False).identity():
            raise UserError(f"{path} is a run of other values than those of {name}; remove it")

    def _carry_out(self, path: Path, settings: Sequence[str], claimed: FrozenTrial, observer: Observer | None) -> None:
        directory = RunDirectory(path)
        if claimed.user_attrs[ATTEMPT]:  # whoever trained into it before is known to be gone
            locks.forget(path)
        with Path(os.devnull).open("w") as nowhere:
            console = console_into(nowhere)
            if not directory.is_run:
                path.mkdir(parents=True, exist_ok=True)
                experiment = self.folder.directory.experiment
                run(experiment, settings, started=time.monotonic(), console=console, folder=path, observer=observer)
            elif not is_concluded(directory):
                resume(path, started=time.monotonic(), console=console, observer=observer)

    def _scored(self, slots: Slots, claimed: FrozenTrial, run: RunDirectory) -> tuple[TrialState, str]:
        """Keep the scores of a finished run in its trial, which fails if the run read other data than the sweep."""
        result, monitor = run.read_result(), self.blank.monitor
        if run.read_environment()["digests"]["data"] != self.blank.data:
            return TrialState.FAIL, f"{run}: the data were changed since the sweep began; bring back what it began with"
        score = result["best"]["value"]
        last = result["last"]["loss"] if monitor == "loss" else monitored(result["val"]["last"], monitor)
        test = monitored(result["test"], monitor) if "test" in result and monitor != "loss" else None
        if score is None or score != score:
            return TrialState.FAIL, f"no validation has a score of '{monitor}'"
        for key, value in {"score": score, "last": last, "test": test}.items():
            slots.storage.set_trial_user_attr(claimed._trial_id, key, value)
        return TrialState.COMPLETE, ""

    def _tell(
        self, slots: Slots, claimed: FrozenTrial, outcome: tuple[TrialState, str], name: str, seconds: float
    ) -> None:
        """End a trial in the storage, unless another process has taken it up in the meantime."""
        state, why = outcome
        now = slots.storage.get_trial(claimed._trial_id)
        if now.state != TrialState.RUNNING:
            self.say(f"{name}: was taken up by another process, which had not heard of this one for long")
            return
        # The attributes come before the state: a trial that has ended accepts none.
        before = now.user_attrs.get("seconds", 0.0)
        slots.storage.set_trial_user_attr(claimed._trial_id, "seconds", round(before + seconds, 1))
        slots.storage.set_trial_user_attr(claimed._trial_id, "why", why)
        value = now.user_attrs.get("score") if state == TrialState.COMPLETE else None
        if state == TrialState.PRUNED:
            value = now.intermediate_values[max(now.intermediate_values)]
        slots.storage.set_trial_state_values(claimed._trial_id, state, None if value is None else [value])
        told = f"{self.blank.monitor} {format_score(value)}" if value is not None else why
        self.say(f"{name}: {STATES[state]}, {told} ({seconds:.0f} s)")

    # What is known

    def record(self) -> SweepRecord:
        """The record of the sweep with all trials that the storage knows, without repeats."""
        # This process may have been asked for fewer trials than others, or than the sweep was begun with.
        trials = [self._of(number, trial) for number, trial in self.slots.current().items()]
        record = replace(self.blank, trials=trials, wanted=max(self.blank.wanted, len(trials)))
        complete = [trial for trial in record.best_first() if trial.state == "complete"]
        return replace(record, best=complete[0].number if complete else None)

    def write(self, *, finished: bool = False) -> None:
        """Write the record as it is now."""
        # No lock: all processes write the same kind of record from the storage, and the one that writes last has read
        # most of it.
        record = self.record()
        if self.again is not None and record.best is not None:
            repeats = [self._again(trial, record.best) for trial in self.again.current().values()]
            record = replace(record, repeats=Repeats(record.best, max(self.repeats, len(repeats)), repeats))
        finished = finished and not record.of_state("waiting", "running")
        self.folder.write(replace(record, finished=finished, importance=importance(self.study)))

    def _of(self, number: int, trial: FrozenTrial) -> TrialRecord:
        taken_up = trial.user_attrs.get(TAKEN_UP)
        known = trial.user_attrs
        return TrialRecord(
            number=number,
            state="waiting" if taken_up else STATES[trial.state],
            values=values_of(trial.params, self.dimensions),
            score=trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            curve=sorted(trial.intermediate_values.items()),
            folder=str(self.folder.trial(number)),
            host=known.get(HOST, ""),
            attempts=known[ATTEMPT] + 1,
            seconds=known.get("seconds"),
            why=known.get("why", ""),
            seed=known.get("seed"),
            last=known.get("last"),
            test=known.get("test"),
        )

    def _again(self, trial: FrozenTrial, best: int) -> TrialRecord:
        seed = self.blank.train_seed + trial.user_attrs[SLOT]
        return replace(self._of(trial.user_attrs[SLOT], trial), seed=seed, folder=str(self.folder.repeat(best, seed)))


def importance(study: Study) -> dict[str, float]:
    """The share of the variation of good scores that each key explains (PED-ANOVA); empty if trials are too few."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 2 or len({trial.value for trial in complete}) < 2:
        return {}
    try:
        return optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
