"""Sweeps end to end on tiny images: trials as runs, several processes, interruption, lost processes, failures."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forks
import optuna
import pytest
import tiny
from conftest import Call
from optuna.trial import TrialState
from pages import Page

import yeastexp
from yeastexp.config.experiment import Experiment
from yeastexp.errors import INTERRUPTED, UserError
from yeastexp.evaluation.sweep import proposals, storage, workers
from yeastexp.evaluation.sweep import sweep as sweeps
from yeastexp.evaluation.sweep.findings import findings, spread_of
from yeastexp.evaluation.sweep.folder import SamplerName, SweepFolder, SweepRecord, TrialRecord
from yeastexp.evaluation.sweep.proposals import FollowTrial, is_worse_than_best, proposed, sampler_of, scores_at
from yeastexp.evaluation.sweep.slots import Slots
from yeastexp.evaluation.sweep.space import Choice, Range
from yeastexp.evaluation.sweep.sweep import Request, sweep
from yeastexp.evaluation.sweep.workers import Worker
from yeastexp.metrics import baselines
from yeastexp.report import report
from yeastexp.system.interruption import Interruption

SPACE = """\
"optimizer.learning_rate" = { low = 1e-3, high = 1e-1, log = true }
"model.width" = { low = 2, high = 3 }
"""

EVERY = ("validation.every=1",)


def silent(line: str) -> None:
    """Say nothing."""


@pytest.fixture(autouse=True, scope="module")
def no_search() -> Iterator[None]:
    """Nothing here looks at how the threshold was fitted, which takes as long as all else."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(baselines, "fit_threshold", lambda samples: baselines.Threshold(0.0, True, 0.0))
        yield


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for others at once."""
    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.POLL_SECONDS", (0.05, 0.2))


def requested(folder: Path, text: str = SPACE, **changes: Any) -> Request:
    """A sweep of two trials, without repeats, of an experiment in a folder."""
    experiment = tiny.write_experiment(folder) if not (folder / "tiny.toml").exists() else folder / "tiny.toml"
    (folder / "space.toml").write_text(text)
    asked = Request(
        experiment,
        folder / "space.toml",
        trials=2,
        repeats=0,
        sampler="random",
        pruner="none",
        output=folder / "sweep",
        settings=EVERY,
    )
    return replace(asked, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A sweep of two trials, the better of which was trained with two other seeds; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    return sweep(requested(folder, repeats=2), silent)


def values(record: SweepRecord) -> list[dict[str, Any]]:
    """What the trials tried."""
    return [trial.values for trial in record.trials]


def test_every_trial_is_a_run_and_the_best_is_trained_again(finished: SweepFolder, call: Call) -> None:
    record = finished.read()
    assert record.finished and [trial.state for trial in record.trials] == ["complete", "complete"]
    for trial in record.trials:
        result = json.loads((finished.trial(trial.number) / "result.json").read_text())
        assert trial.score == result["best"]["value"] and len(trial.curve) == 2
    best = record.best_trial
    assert best and best.score == max(trial.score or 0 for trial in record.trials)
    assert record.repeats and [trial.seed for trial in record.repeats.trials] == [1, 2]
    status, out, _ = call("compare", *(trial.folder for trial in record.trials))
    assert status == 0 and "optimizer.learning_rate" in out
    status, _, err = call("compare", finished.path, record.trials[0].folder)
    assert status == 2 and f"{finished.path}: is no run, but holds runs; did you mean '" in err
    rows = [*csv.DictReader((finished.path / "trials.csv").read_text().splitlines())]
    assert [row["epochs"] for row in rows] == ["2", "2"]


def test_the_end_says_what_the_scores_allow_to_say(finished: SweepFolder) -> None:
    record = finished.read()
    spread = spread_of(record)
    assert spread and spread.margin > spread.deviation
    told = " ".join(findings(record))
    assert told.startswith("2 trials: 2 complete.")
    for words in ("selected on these validation images", "2 other seeds", "standard deviation", "below 30"):
        assert words in told


def test_the_same_command_again_trains_nothing(finished: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", None)
    asked = requested(finished.path.parent, repeats=2)
    assert sweep(asked, silent).read() == finished.read()


@pytest.mark.parametrize("repeats", [0, 1])
def test_fewer_trials_than_there_are_lose_none(
    finished: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeats: int
) -> None:
    copied = SweepFolder(Path(shutil.copytree(finished.path, tmp_path / "sweep")))
    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", None)
    asked = requested(finished.path.parent, trials=1, repeats=repeats, output=copied.path)
    found, whole = sweep(asked, silent).read(), finished.read()

    def moved(trials: list[TrialRecord]) -> list[TrialRecord]:
        places = [trial.folder.replace(str(finished.path), str(copied.path)) for trial in trials]
        return [replace(trial, folder=place) for trial, place in zip(trials, places, strict=True)]

    assert whole.repeats
    again = replace(whole.repeats, trials=moved(whole.repeats.trials))
    assert found == replace(whole, trials=moved(whole.trials), repeats=again)
    assert len((copied.path / "trials.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("recorded", [True, False])
def test_a_folder_that_was_renamed_holds_the_same_sweep(
    finished: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """Whether the record has the name of its study, or is of a version that did not write it."""
    moved = SweepFolder(Path(shutil.copytree(finished.path, tmp_path / "renamed")))
    if not recorded:
        moved.write(replace(moved.read(), study=""))
    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", None)
    found = sweep(requested(finished.path.parent, repeats=2, output=moved.path), silent).read()
    assert values(found) == values(finished.read()) and found.study == "sweep"
    assert [trial.curve for trial in found.trials] == [trial.curve for trial in finished.read().trials]


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"seed": 1}, "space, sampler, pruner or seed"),
        ({"text": SPACE.replace("3 }", "4 }")}, "space, sampler, pruner or seed"),
        ({"settings": (*EVERY, "train.batch_size=2")}, "experiment"),
    ],
)
def test_a_sweep_of_something_else_is_refused(changes: dict[str, Any], other: str, finished: SweepFolder) -> None:
    asked = requested(finished.path.parent, **changes)
    with pytest.raises(UserError, match=f"sweep: is a sweep of another {other}; bring back"):
        sweep(asked, silent)
    (finished.path / "sweep.json").rename(finished.path / "aside")
    try:
        with pytest.raises(UserError, match=f"study 'sweep' of .*: is a sweep of another {other}; bring back"):
            sweep(asked, silent)
        assert not (finished.path / "sweep.json").exists()
    finally:
        (finished.path / "aside").rename(finished.path / "sweep.json")


def test_what_is_known_is_written_anew_where_it_was_removed(
    finished: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the message about a damaged one asks for."""
    record, aside = finished.read(), (finished.path / "sweep.json").rename(finished.path / "aside")
    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", None)
    try:
        assert sweep(requested(finished.path.parent, repeats=2), silent).read() == record
    finally:
        aside.replace(finished.path / "sweep.json")


def test_processes_that_begin_at_once_take_the_experiment_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a job array do: while one still looks for the fastest threads, another has found others."""
    asked = requested(tmp_path)
    there = SweepFolder(tmp_path / "sweep")
    settled = sweeps.settled

    def overtaken(loaded: Experiment, at_once: int) -> Experiment:
        assert there.is_sweep, "a process that begins now sees whose folder it is"
        first = replace(loaded, runtime=replace(loaded.runtime, threads=7))
        there.directory.write_experiment(first)
        return settled(loaded, at_once)

    def interrupted(part: object) -> None:
        assert there.directory.load().runtime.threads == 7
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "settled", overtaken)
    monkeypatch.setattr(sweeps._Part, "train_trials", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(asked, silent)
    with pytest.raises(KeyboardInterrupt):  # and not with a line about the folder
        sweep(asked, silent)


def test_trials_that_initial_weights_would_tell_apart_are_warned_of(tmp_path: Path) -> None:
    request = requested(tmp_path, trials=1, repeats=0, settings=(*EVERY, "train.init_from=yeast"))
    with pytest.warns(UserWarning, match="model.width: a trial whose model the initial weights do not fit begins at"):
        assert len(sweep(request, silent).read().trials) == 1


def test_an_interrupted_trial_is_gone_on_with(finished: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished.path.parent
    look, asked = FollowTrial.look, requested(folder, output=folder / "interrupted")

    def interrupting(self: FollowTrial, validator: Any) -> None:
        look(self, validator)
        if self.trial.user_attrs["slot"] == 2 and self.trainer.state.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(FollowTrial, "look", interrupting)
    with pytest.raises(UserError, match="interrupted in trial 2; the same command goes on with it") as raised:
        sweep(asked, silent)
    assert raised.value.status == INTERRUPTED
    assert [trial.state for trial in SweepFolder(folder / "interrupted").read().trials] == ["complete", "waiting"]
    fewer = sweep(replace(asked, trials=1), silent).read()
    assert [trial.state for trial in fewer.trials] == ["complete", "waiting"] and not fewer.finished
    record = sweep(asked, silent).read()
    assert [trial.attempts for trial in record.trials] == [1, 2]
    whole = finished.read()
    assert values(record) == values(whole)
    assert [trial.score for trial in record.trials] == [trial.score for trial in whole.trials]
    assert [trial.curve for trial in record.trials] == [trial.curve for trial in whole.trials]


def test_the_trial_of_a_killed_process_is_taken_up(tmp_path: Path) -> None:
    asked = requested(tmp_path, trials=1, settings=("train.epochs=400", "validation.every=400"))
    command = [sys.executable, "-m", "yeastexp", *asked.command(tmp_path / "sweep")]
    process = forks.Process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "sweep" / "trials" / "001" / "checkpoints" / "previous.pt"
    try:
        while not checkpoint.exists():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    log = checkpoint.parents[1] / "log.txt"
    begun = log.read_text()
    # The rest of a long run is not what is tested.
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("yeastexp.evaluation.sweep.sweep.resume", lambda path, **_: lines.append(str(path)))
        with pytest.raises(UserError, match="no trial is complete"):
            sweep(asked, silent)
    assert lines == [str(tmp_path / "sweep" / "trials" / "001")]
    assert "resumed" not in begun and log.read_text() == begun


@pytest.fixture
def study(tmp_path: Path) -> Iterator[optuna.Study]:
    """An empty study in a journal file."""
    with storage.opened(tmp_path / "journal.log", None) as shared:
        yield optuna.create_study(storage=shared, study_name="study", direction="maximize")


def test_slots_are_filled_once_by_any_number_of_processes(study: optuna.Study, tmp_path: Path) -> None:
    one, other = (Slots(study, Worker(tmp_path / "workers", study)) for _ in range(2))
    with one.worker.alive(), other.worker.alive():
        claimed = [slots.claim(3) for slots in (one, other, one)]
        assert [trial.user_attrs["slot"] for trial in claimed if trial] == [1, 2, 3]
        assert one.claim(3) is None and other.claim(3) is None and not one.have_ended(3)
        assert (more := one.claim(4)) and more.user_attrs["slot"] == 4
    third = Slots(study, Worker(tmp_path / "workers", study))
    with third.worker.alive():  # both have ended without an end of their trials
        taken = [third.claim(4) for _ in range(4)]
        known = [trial.user_attrs for trial in taken if trial]
        assert [(each["slot"], each["attempt"]) for each in known] == [(slot, 1) for slot in (1, 2, 3, 4)]
        for trial in taken:
            assert trial
            study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
        assert third.have_ended(4) and third.claim(4) is None


def test_what_two_processes_add_at_once_counts_once(study: optuna.Study, tmp_path: Path) -> None:
    slots = Slots(study, Worker(tmp_path / "workers", study))
    slots._add({"slot": 1, "attempt": 0})
    slots._add({"slot": 1, "attempt": 0})
    first = slots.claim(1)
    assert first and first.number == 0 and slots.claim(1) is None
    slots.give_back(first)
    assert (again := slots.claim(1)) and again.user_attrs["attempt"] == 1


def test_a_process_of_another_machine_is_lost_when_it_falls_silent(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Worker(tmp_path / "here", study), Worker(tmp_path / "there", study)
    there.host = "elsewhere"
    clock = [0.0]
    monkeypatch.setattr(workers.time, "monotonic", lambda: clock[0])
    there._beat()
    assert not here.is_lost(there.name, there.host)
    clock[0] = workers.SILENT_SECONDS - 1
    there._beat()
    assert not here.is_lost(there.name, there.host)
    clock[0] += workers.SILENT_SECONDS + 1
    assert here.is_lost(there.name, there.host)


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_the_same_seed_proposes_the_same(sampler: SamplerName) -> None:
    dimensions = [Range("a", 1e-4, 1.0, log=True), Range("b", 1, 9, integer=True), Choice("c", ("x", [1, 2]))]

    def series(seed: int) -> list[dict[str, Any]]:
        study, tried = optuna.create_study(), []
        for slot in range(1, 13):
            study.sampler = sampler_of(sampler, seed, slot)
            trial = study.ask()
            tried.append(proposed(trial, dimensions))
            assert proposals.values_of(trial.params, dimensions) == tried[-1]
            study.tell(trial, float(tried[-1]["a"]))
        return tried

    first = series(0)
    assert first == series(0) != series(1)
    assert len({each["a"] for each in first}) == len(first)
    assert [1, 2] in [each["c"] for each in first]


def test_a_trial_is_worse_if_its_images_are(study: optuna.Study) -> None:
    def add(value: float, scores: list[float]) -> None:
        study.add_trial(optuna.create_trial(value=value, user_attrs={scores_at(3): scores}))

    assert not is_worse_than_best(study, 3, [0.1] * 8)  # than none
    best = [0.9, 0.8, 0.7, 0.9, 0.6, 0.8, 0.7, 0.9]
    add(0.8, best)
    add(0.1, [0.1] * 8)
    assert is_worse_than_best(study, 3, [score - 0.01 * (1 + index) for index, score in enumerate(best)])
    assert not is_worse_than_best(study, 3, [score + 0.1 for score in best])
    assert not is_worse_than_best(study, 3, [0.95, 0.7, 0.75, 0.85, 0.65, 0.75, 0.75, 0.85])
    assert not is_worse_than_best(study, 2, [0.1] * 8)  # the best was not validated then
    assert not is_worse_than_best(study, 3, [None] * 8)


def test_a_pruned_trial_is_a_run_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setattr(
        proposals, "is_worse_than_best", lambda study, *_: bool(study.get_trials(states=[TrialState.COMPLETE]))
    )
    monkeypatch.setattr(proposals, "WARM_UP", 0.0)
    folder = sweep(requested(tmp_path, pruner="wilcoxon"), silent)
    record = folder.read()
    assert [trial.state for trial in record.trials] == ["complete", "pruned"]
    assert len(record.trials[1].curve) == 1 and record.trials[1].score == record.trials[1].curve[0][1]
    assert findings(record)[0] == "2 trials: 1 complete, 1 pruned."
    assert "pruned after epoch 1" in (folder.trial(2) / "log.txt").read_text()
    status, out, _ = call("resume", folder.trial(2))
    assert status == 0 and (folder.trial(2) / "result.json").is_file() and out.strip().endswith("002")


def test_failed_trials_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path, settings: list[str], *, folder: Path, **_: Any) -> None:
        raise UserError("step 3: the loss is NaN") if folder.name == "001" else RuntimeError("a plugin's fault")

    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", failing)
    said: list[str] = []
    asked = requested(tmp_path, trials=9)
    with pytest.raises(UserError, match="the last 5 trials failed, the last one as: RuntimeError: a plugin's fault"):
        sweep(asked, said.append)
    record = SweepFolder(tmp_path / "sweep").read()
    assert [trial.state for trial in record.trials] == ["failed"] * 5
    assert record.trials[0].why == "step 3: the loss is NaN"
    assert findings(record) == ["9 trials: 5 failed, 4 not begun."]
    assert "Traceback (most recent call last):" in said


def test_a_trial_of_other_data_has_failed(
    finished: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: Any, folder: Path, **__: Any) -> None:
        shutil.copytree(finished.trial(1), folder, dirs_exist_ok=True)
        environment = folder / "environment.json"
        environment.write_text(re.sub(r'("data.h5": ")....', r"\g<1>0000", environment.read_text()))

    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", trained)
    with pytest.raises(UserError, match="no trial is complete"):
        sweep(requested(tmp_path, trials=1), silent)
    assert "001: the data were changed since the sweep began" in SweepFolder(tmp_path / "sweep").read().trials[0].why


def test_a_database_is_shared_by_folders(
    finished: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: Any, folder: Path, **__: Any) -> None:
        shutil.copytree(finished.trial(1), folder, dirs_exist_ok=True)

    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", trained)
    url = f"sqlite:///{tmp_path}/sweeps.db"
    first = sweep(requested(tmp_path, trials=1, storage=url), silent)
    (tmp_path / "elsewhere").mkdir()
    second = sweep(requested(tmp_path, trials=1, storage=url, output=tmp_path / "elsewhere" / "sweep"), silent)
    assert values(first.read()) == values(second.read())
    assert not second.trial(1).exists() and not (second.path / "journal.log").exists()
    with pytest.raises(UserError, match=r"study 'sweep' of .* is a sweep of another space"):
        sweep(requested(tmp_path, storage=url, seed=1, output=tmp_path / "third" / "sweep"), silent)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("sweeps.db", r"--storage sweeps.db: should be the URL of a database, as postgresql://"),
        ("mysql+nodriver://me:secret@host/db", r"--storage mysql\+nodriver://me@host/db: .*"),
        ("sqlite:////no/such/folder/x.db", r"--storage sqlite:////no/such/folder/x.db: .*unable to open database file"),
    ],
)
def test_a_storage_that_is_none_is_a_line(url: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=fault) as raised:
        sweep(requested(tmp_path, storage=url), silent)
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value)


def test_a_journal_that_cannot_be_locked_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(storage, "_link", refused)
    with storage.opened(tmp_path / "journal.log", None):
        pass  # a file does as well as a link
    monkeypatch.setattr(storage, "_file", refused)
    with pytest.raises(UserError, match=r"journal.log: cannot be locked there \(Operation not permitted\); name a"):
        sweep(requested(tmp_path), silent)
    (tmp_path / "sweep" / "journal.log.lock").mkdir()
    with pytest.raises(UserError, match=r"journal.log.lock: is a folder, so that journal.log cannot be locked"):
        sweep(requested(tmp_path), silent)


def test_a_damaged_journal_is_a_line_whose_remedy_works(
    finished: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the journal the trials are taken from their folders; only what was seen during training is gone."""
    copied = SweepFolder(Path(shutil.copytree(finished.path, tmp_path / "sweep")))
    asked = requested(finished.path.parent, repeats=2, output=copied.path)
    copied.journal.write_text("no journal\nat all\n")
    with pytest.raises(
        UserError, match=r"journal.log: is damaged \(.*\); bring it back from a copy, or remove it: the"
    ):
        sweep(asked, silent)
    copied.journal.unlink()
    monkeypatch.setattr("yeastexp.evaluation.sweep.sweep.run", None)
    found, whole = sweep(asked, silent).read(), finished.read()
    assert values(found) == values(whole) and found.best == whole.best
    assert [trial.score for trial in found.trials] == [trial.score for trial in whole.trials]


def test_a_run_of_other_values_than_proposed_is_not_taken_for_the_trial(finished: SweepFolder, tmp_path: Path) -> None:
    copied = SweepFolder(Path(shutil.copytree(finished.path, tmp_path / "sweep")))
    copied.journal.unlink()
    shutil.rmtree(copied.trial(1))
    copied.trial(2).rename(copied.trial(1))
    asked = requested(finished.path.parent, output=copied.path)
    with pytest.raises(UserError) as caught:
        sweep(asked, silent)
    assert str(caught.value) == (
        f"{copied.path}: {copied.trial(1)} is a run of other values than those of trial 1; remove it; the same command "
        "goes on with it"
    )


def test_a_sweep_of_a_version_with_fewer_keys_goes_on(finished: SweepFolder, tmp_path: Path) -> None:
    """They have the defaults of this one, which its digest does not know."""
    copied = SweepFolder(Path(shutil.copytree(finished.path, tmp_path / "sweep")))
    text = copied.directory.experiment.read_text()
    assert text.count("plain_steps = 0\n") == 1
    copied.directory.experiment.write_text(text.replace("plain_steps = 0\n", ""))
    record = copied.read()
    copied.write(replace(record, digests={**record.digests, "experiment": "of fewer keys"}))
    copied.journal.unlink()
    done = sweep(requested(finished.path.parent, repeats=2, output=copied.path), silent).read()
    assert values(done) == values(finished.read())


def test_values_that_runs_settle_themselves_are_those_of_the_trial(tmp_path: Path) -> None:
    """A precision that is timed stands in the run as the one that was faster."""
    asked = requested(
        tmp_path, '"train.precision" = { choices = ["auto"] }\n"model.width" = { choices = [2] }', trials=1
    )
    made = sweep(asked, silent)
    made.journal.unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("yeastexp.evaluation.sweep.sweep.run", None)
        assert [trial.number for trial in sweep(asked, silent).read().trials] == [1]


@pytest.mark.parametrize("cut", [1, 20])
def test_the_cut_last_line_of_a_journal_is_dropped(study: optuna.Study, tmp_path: Path, cut: int) -> None:
    """As a full disk or the end of the machine leaves one: Optuna never reads it, but would write behind it."""
    study.set_user_attr("whole", 1)
    before = (tmp_path / "journal.log").read_bytes()
    study.set_user_attr("lost", 2)
    os.truncate(tmp_path / "journal.log", (tmp_path / "journal.log").stat().st_size - cut)
    with storage.opened(tmp_path / "journal.log", None) as shared:
        other = optuna.load_study(storage=shared, study_name="study")
        assert other.user_attrs == {"whole": 1}
        other.set_user_attr("later", 3)
    lines = (tmp_path / "journal.log").read_bytes().removeprefix(before).splitlines()
    assert [json.loads(line)["user_attr"] for line in lines] == [{"later": 3}]
    with storage.opened(tmp_path / "journal.log", None) as shared:
        assert optuna.load_study(storage=shared, study_name="study").user_attrs == {"whole": 1, "later": 3}


APPENDING = """
import sys
from pathlib import Path
import optuna
from yeastexp.evaluation.sweep import storage
journal = Path(sys.argv[1])
with storage.opened(journal, None) as shared:
    study = optuna.load_study(storage=shared, study_name="study")
    for index in range(20):
        study.set_user_attr(f"{sys.argv[2]} {index}", index)
        lock = storage._lock_of(journal)
        lock.acquire()
        with journal.open("ab") as file:
            file.write(b'{"op_code":2,"cut":"' + b"x" * 97 * index)
        lock.release()
"""
"""A process that leaves a line behind that it did not write to its end, after each that it did."""


def test_no_other_line_is_lost_to_processes_that_drop_cut_ones(study: optuna.Study, tmp_path: Path) -> None:
    command = [sys.executable, "-c", APPENDING, str(tmp_path / "journal.log")]
    processes = [forks.Process([*command, name], stderr=subprocess.PIPE) for name in "abc"]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [(b"", 0)] * 3
    expected = {f"{name} {index}": index for name in "abc" for index in range(20)}
    assert study.user_attrs == expected


def test_a_folder_of_something_else_is_refused(finished: SweepFolder) -> None:
    with pytest.raises(UserError, match="trials/001: is no folder of a sweep; name another with -o"):
        sweep(requested(finished.path.parent, output=finished.trial(1)), silent)


def test_further_processes_have_logs(tmp_path: Path) -> None:
    with workers.further(1, ["sweep", "--help"], tmp_path):
        pass
    assert "Usage: " in (tmp_path / "job_2.txt").read_text()
    with pytest.raises(KeyboardInterrupt), workers.further(1, ["sweep", "--help"], tmp_path):
        raise KeyboardInterrupt


def test_without_optuna_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    asked = requested(tmp_path)
    status, out, err = call(*asked.command(tmp_path / "sweep"))
    assert (status, out, err) == (2, "", "sweep: needs another package; pip install optuna\n")


def test_optuna_is_imported_by_the_command_alone() -> None:
    package = Path(yeastexp.__file__).parent
    needing = {f"evaluation/sweep/{name}.py" for name in ("proposals", "slots", "storage", "sweep", "workers")}
    modules = "|".join(Path(name).stem for name in needing)
    pattern = re.compile(
        rf"^ *(from|import) (optuna|sqlalchemy|yeastexp\.evaluation\.sweep(\.({modules})| import))", re.M
    )
    importing = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if pattern.search(path.read_text("utf-8"))
    }
    assert importing == needing | {"cli/sweeps.py"}


def test_the_median_of_complete_trials_prunes(monkeypatch: pytest.MonkeyPatch, study: optuna.Study) -> None:
    monkeypatch.setattr(proposals, "STARTUP_TRIALS", 2)
    for value in (0.7, 0.8, 0.9):
        study.add_trial(optuna.create_trial(value=value, intermediate_values={4: value}))

    class Context:
        over, epochs, monitor, interruption = False, 6, "loss", Interruption()

        @staticmethod
        def log(line: str) -> None:
            assert line.startswith("pruned after epoch 4: loss 0.75")

    for value, pruned in ((0.75, True), (0.85, False)):
        follower = FollowTrial(Context, study, study.ask(), "median")  # type: ignore[arg-type]
        follower.trainer = SimpleNamespace(state=SimpleNamespace(epoch=4))  # type: ignore[assignment]
        validation = SimpleNamespace(losses={"a": value, "b": math.nan})
        follower.look(SimpleNamespace(state=SimpleNamespace(monitored=value, validation=validation)))  # type: ignore[arg-type]
        assert follower.pruned is pruned
        assert follower.trial.user_attrs[scores_at(4)] == [value, None]


def test_the_page_says_what_the_sweep_found(finished: SweepFolder, tmp_path: Path, call: Call) -> None:
    status, out, _ = call("report", finished.path, "-o", tmp_path / "sweep.html")
    page, record = Page(tmp_path / "sweep.html"), finished.read()
    assert status == 0 and out == f"{tmp_path / 'sweep.html'}\n"
    assert all(sentence in page.text for sentence in findings(record)[1:])
    assert [row[0] for row in page.table("trials: 2 complete")[1:]] == [
        str(trial.number) for trial in record.best_first()
    ]
    assert [row[0] for row in page.table("by seed")[2:]] == ["1", "2"]
    assert [row[1] for row in page.table("space")[1:]] == ["0.001 to 0.1, logarithmic", "2 to 3, whole numbers"]
    assert "PED-ANOVA over 2 complete trials" in page.text and len(page.all("svg")) == 4


def test_the_page_of_an_unfinished_sweep_counts_what_there_is(finished: SweepFolder, tmp_path: Path) -> None:
    record = finished.read()
    curve = record.trials[0].curve
    pruned = replace(record.trials[0], number=3, state="pruned", score=0.1, curve=curve[:1])
    failed = replace(record.trials[0], number=4, state="failed", score=None, curve=[], why="<b>the loss is NaN</b>")
    folder = SweepFolder(Path(shutil.copytree(finished.path, tmp_path / "sweep")))
    folder.write(
        replace(record, trials=[*record.trials, pruned, failed], finished=False, wanted=6, repeats=None, importance={})
    )
    page = Page(report([folder.path]))
    assert "This sweep has not finished" in page.text and "not trained with other seeds" in page.text
    assert "6 trials: 2 complete, 1 pruned, 1 failed, 2 not begun" in page.text
    assert page.table("failed trials")[1] == ["4", "<b>the loss is NaN</b>"]
    (folder.path / "sweep.json").write_text('{"name": 3}')
    with pytest.raises(UserError, match=r"sweep\.json: is damaged \(.*\); remove it, and the same 'sweep' command"):
        report([folder.path])


def test_the_page_of_the_docs_is_true(finished: SweepFolder, tmp_path: Path, call: Call) -> None:
    home = Path(__file__).parents[2]
    text = (home / "docs" / "sweep.md").read_text()
    shown = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert dict(shown)["toml"] == (home / "docs" / "sweep" / "space.toml").read_text()
    first, *others = dict(shown)[""].splitlines()
    assert first in (home / "README.md").read_text()  # whose test runs it
    for line in others:
        words = line.replace("runs/base_sweep", str(finished.path)).split()[3:]
        status, out, err = call(*words, *(["-o", str(tmp_path / "page.html")] if words[0] == "report" else []))
        assert status == 0 and out, err


def test_the_command_prints_tables_and_the_folder(finished: SweepFolder, call: Call) -> None:
    asked = requested(finished.path.parent, repeats=2)
    status, out, err = call(*asked.command(finished.path))
    assert status == 0, err
    assert "optimizer.learning_rate" in out and out.endswith(f"{finished.path}{os.linesep}")
    status, out, _ = call(*asked.command(finished.path), "--json")
    assert status == 0 and json.loads(out)["best"] == finished.read().best
