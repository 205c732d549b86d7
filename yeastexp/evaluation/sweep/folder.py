"""The folder of a sweep: the names in it, and `sweep.json`, the record of its trials that is read without Optuna."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from yeastexp.evaluation.sweep.space import Value
from yeastexp.metrics.summary import as_csv
from yeastexp.system import files, records
from yeastexp.training.run_directory import RunDirectory

RECORD, TABLE, SPACE = "sweep.json", "trials.csv", "space.toml"

SamplerName = Literal["tpe", "gp", "random"]
PrunerName = Literal["wilcoxon", "median", "none"]
State = Literal["waiting", "running", "complete", "pruned", "failed"]


@dataclass
class TrialRecord:
    """A trial, or a repeat of the best one.

    `values` are by key, `score` is the best of its validations, `curve` the monitored score by epoch, `why` the reason
    of a failure; `attempts` counts the processes that began it. `seed` is that of a repeat; `last` and `test` are the
    scores of the last checkpoint and of the test images.
    """

    number: int
    state: State
    values: dict[str, Any]
    score: float | None
    curve: list[tuple[int, float]]
    folder: str
    host: str = ""
    attempts: int = 1
    seconds: float | None = None
    why: str = ""
    seed: int | None = None
    last: float | None = None
    test: float | None = None


@dataclass
class Repeats:
    """The repeats of trial `of`: its values trained again with other seeds."""

    of: int
    wanted: int
    trials: list[TrialRecord]


@dataclass
class SweepRecord:
    """The record of a sweep. `digests` identify it; `data` are the digests of the files that all trials read."""

    name: str
    monitor: str
    higher_is_better: bool
    wanted: int
    sampler: SamplerName
    pruner: PrunerName
    seed: int
    train_seed: int
    ranges: dict[str, dict[str, Any]]
    digests: dict[str, str]
    data: dict[str, str]
    trials: list[TrialRecord] = field(default_factory=list)
    best: int | None = None
    repeats: Repeats | None = None
    importance: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    study: str = ""
    """The name of the trials in the storage, which stays if the folder is renamed; earlier records have none."""

    def of_state(self, *states: State) -> list[TrialRecord]:
        """The trials in one of the given states."""
        return [trial for trial in self.trials if trial.state in states]

    @property
    def best_trial(self) -> TrialRecord | None:
        """The complete trial with the best score."""
        return next((trial for trial in self.trials if trial.number == self.best), None)

    def best_first(self) -> list[TrialRecord]:
        """The trials by score, complete ones before pruned ones, and those without a score last."""
        sign = -1 if self.higher_is_better else 1

        def order(trial: TrialRecord) -> tuple[int, float, int]:
            rank = {"complete": 0, "pruned": 1}.get(trial.state, 2)
            return rank, sign * (trial.score or 0.0), trial.number

        return sorted(self.trials, key=order)


_ADAPTER = TypeAdapter(SweepRecord)
_SHAPE: TypeAdapter[Any] = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class SweepFolder:
    """The owner of every name in the folder of a sweep, except those inside its run directories."""

    path: Path

    @property
    def is_sweep(self) -> bool:
        """Whether a sweep was begun there."""
        return (self.path / RECORD).is_file()

    @property
    def was_sweep(self) -> bool:
        """Whether there are traces of one, though its record may have been removed."""
        return self.journal.is_file() or self.workers.is_dir()

    @property
    def directory(self) -> RunDirectory:
        """The folder as a run directory, which holds the experiment of all trials and its plugins."""
        return RunDirectory(self.path)

    @property
    def journal(self) -> Path:
        """The file that the processes of a sweep share if they share no database."""
        return self.path / "journal.log"

    @property
    def workers(self) -> Path:
        """The folder of the locks of running processes, and of the logs of those that `--jobs` started."""
        return self.path / "workers"

    def trial(self, number: int) -> Path:
        """The run directory of a trial, counted from 1."""
        return self.path / "trials" / f"{number:03d}"

    def repeat(self, number: int, seed: int) -> Path:
        """The run directory of a repeat: trial `number` trained again with another seed."""
        return self.path / "repeats" / f"trial_{number:03d}_seed_{seed}"

    def read(self) -> SweepRecord:
        """Read `sweep.json`. Raises UserError if it is damaged."""
        remedy = "remove it, and the same 'sweep' command writes it anew"
        found = records.read_json(self.path / RECORD, _SHAPE, remedy)
        try:
            return _ADAPTER.validate_python(found)
        except ValueError as error:
            raise records.damaged(
                self.path / RECORD, str(error).partition("\n")[2].partition("\n")[0], remedy
            ) from None

    def write(self, record: SweepRecord) -> None:
        """Write `sweep.json`, and the trials as `trials.csv`."""
        # An empty CSV would have no header, so that a sweep without a trial gets a row without values.
        keys = list(record.ranges)
        files.write_text(self.path / TABLE, as_csv([_row(trial, keys) for trial in record.trials] or [{"trial": ""}]))
        files.write_text(self.path / RECORD, json.dumps(asdict(record), indent=1))


def _row(trial: TrialRecord, keys: Sequence[str]) -> dict[str, Value | None]:
    known = {"trial": trial.number, "state": trial.state, "score": trial.score}
    epochs = trial.curve[-1][0] if trial.curve else 0
    told = {"seconds": trial.seconds, "attempts": trial.attempts, "host": trial.host, "why": trial.why}
    return {
        **known,
        "epochs": epochs,
        **{key: trial.values.get(key, "") for key in keys},
        **told,
        "folder": trial.folder,
    }
