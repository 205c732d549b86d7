"""The folder of a sweep: the names in it, and `sweep.json`, which says what is known of its trials without Optuna."""

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
    """A trial: its values by key, its score, which is the best of its validations, and where it was trained.

    `curve` has the monitored score by epoch, `why` the reason of a failure. `attempts` counts the processes that began
    it. That of a repetition has the `seed` and the scores of its `last` checkpoint and of the `test` images as well.
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
    """The best trial, trained again with other seeds."""

    of: int
    wanted: int
    trials: list[TrialRecord]


@dataclass
class SweepRecord:
    """What is known of a sweep; `digests` tell it from others, `data` are those of the files that all trials read."""

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

    def of_state(self, *states: State) -> list[TrialRecord]:
        """The trials that have come to one of these."""
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
    """The owner of every name in the folder of a sweep, but those in its run directories."""

    path: Path

    @property
    def is_sweep(self) -> bool:
        """Whether a sweep was begun there."""
        return (self.path / RECORD).is_file()

    @property
    def directory(self) -> RunDirectory:
        """Where the experiment of all trials stands, with the plugins that it names."""
        return RunDirectory(self.path)

    @property
    def journal(self) -> Path:
        """The file that the processes of a sweep share if they share no database."""
        return self.path / "journal.log"

    @property
    def workers(self) -> Path:
        """Locks of the processes under way, and logs of those that `--jobs` started."""
        return self.path / "workers"

    def trial(self, number: int) -> Path:
        """The run directory of a trial, counted from 1."""
        return self.path / "trials" / f"{number:03d}"

    def repeat(self, number: int, seed: int) -> Path:
        """The run directory of a trial that is trained again with another seed."""
        return self.path / "repeats" / f"trial_{number:03d}_seed_{seed}"

    def read(self) -> SweepRecord:
        """What is known of the sweep. Raises UserError if the file is damaged."""
        remedy = "remove it, and the same 'sweep' command writes it anew"
        found = records.read_json(self.path / RECORD, _SHAPE, remedy)
        try:
            return _ADAPTER.validate_python(found)
        except ValueError as error:
            raise records.damaged(
                self.path / RECORD, str(error).partition("\n")[2].partition("\n")[0], remedy
            ) from None

    def write(self, record: SweepRecord) -> None:
        """Write `sweep.json`, and its trials as a table."""
        keys = list(record.ranges)
        files.write_text(self.path / TABLE, as_csv([_row(trial, keys) for trial in record.trials] or [{"trial": ""}]))
        files.write_text(self.path / RECORD, json.dumps(asdict(record), indent=1))


def _row(trial: TrialRecord, keys: Sequence[str]) -> dict[str, Value | None]:
    known = {"trial": trial.number, "state": trial.state, "score": trial.score, "epochs": len(trial.curve)}
    told = {"seconds": trial.seconds, "attempts": trial.attempts, "host": trial.host, "why": trial.why}
    return {**known, **{key: trial.values.get(key, "") for key in keys}, **told, "folder": trial.folder}
