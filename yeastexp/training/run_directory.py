"""The run directory: every name in it, and who reads and writes what stands there."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from yeastexp.config import toml_document
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data import images
from yeastexp.errors import UserError
from yeastexp.metrics.summary import Score, as_csv, lacking
from yeastexp.system import failures, files, locks, nearby, records
from yeastexp.system.terminal import printable

Which = Literal["best", "last"]
"""The checkpoint with the best monitored score, or the one at the end."""

PerImage = dict[tuple[str, str], dict[str, float | None]]
"""By metric and class, the score of each image; None if it has none."""


class _Digests(TypedDict):
    data: dict[str, str]
    plugins: dict[str, str]
    files: NotRequired[dict[str, str]]
    folds: NotRequired[dict[str, str]]
    init_from: NotRequired[dict[str, str]]


class _Environment(TypedDict):
    versions: dict[str, str | None]
    device: str
    threads: int
    started: str
    digests: _Digests
    resumed: NotRequired[list[dict[str, Any]]]
    extended: NotRequired[list[dict[str, Any]]]
    seconds: NotRequired[float]


_Summary = dict[str, dict[str, Score]]


class _Best(TypedDict):
    step: int


class _Last(TypedDict):
    loss: float | None


class _Validation(TypedDict):
    best: _Summary
    last: _Summary


class _Result(TypedDict):
    steps: int
    planned_steps: int
    stopped_by_budget: bool
    stopped_early: bool
    best: _Best
    last: _Last
    val: _Validation
    baselines: dict[str, _Summary]
    test: NotRequired[_Summary]
    notes: NotRequired[list[str]]


ENVIRONMENT, RESULT = TypeAdapter(_Environment), TypeAdapter(_Result)
"""What readers of these files rely on; they hold more."""

PER_IMAGE = ("split", "image", "metric", "class", "score")
"""The columns of `per_image.csv`."""


@dataclass(frozen=True)
class RunDirectory:
    """`runs/<name>/<001…>`: the owner of every name in it. Nobody else joins a path there.

    Each file is written as a whole: a reader sees it as it was or as it is now.
    """

    path: Path
    writes: bool = True
    """Whether what is written goes there: of several processes, one writes."""

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def claim(cls, name: str) -> RunDirectory:
        """The next free one of an experiment's name; two processes never get the same one."""
        return cls(files.claim_directory(Path("runs") / name))

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """One that holds an experiment; UserError if a path is no run directory."""
        directory = cls(path)
        if not directory.is_run:
            raise UserError(f"{path}: not a run directory; {directory.meant}")
        return directory

    @property
    def is_run(self) -> bool:
        """Whether an experiment was begun there."""
        return toml_document.is_file(self.experiment)

    @property
    def meant(self) -> str:
        """The end of a message about a path that is no run directory: which one may be meant."""
        return nearby.run_meant(self.path, self.experiment.name) or "'run' prints its path on the last line"

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its result."""
        return self.result.is_file()

    # Names

    @property
    def experiment(self) -> Path:
        """The resolved experiment, which can be run again as it stands."""
        return self.path / "experiment.toml"

    @property
    def plugins(self) -> Path:
        """Copies of the experiment's plugin files."""
        return self.path / "plugins"

    @property
    def environment(self) -> Path:
        """Versions, machine, revision and digests of what the run read."""
        return self.path / "environment.json"

    @property
    def log_file(self) -> Path:
        """Lines with their time."""
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        """A row an epoch."""
        return self.path / "metrics.csv"

    @property
    def per_image(self) -> Path:
        """A row for each image, metric and class."""
        return self.path / "per_image.csv"

    @property
    def result(self) -> Path:
        """Scores of the finished run; there when all else is."""
        return self.path / "result.json"

    @property
    def profile(self) -> Path:
        """The trace of some steps."""
        return self.path / "profile.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def checkpoint(self, which: Which | Literal["previous"]) -> Path:
        """A checkpoint's file."""
        return self.checkpoints / f"{which}.pt"

    @property
    def pictures(self) -> Path:
        """The folder of the pictures of validation images: the `worst`, the `median` and the `best`."""
        return self.path / "pictures"

    def prediction(self, image: str) -> Path:
        """The prediction of a cross-validation's held-out image."""
        return self.path / "predictions" / f"{image}.png"

    def cells(self, image: str) -> Path:
        """The ids of the cells in the prediction of a cross-validation's held-out image."""
        return self.path / "cells" / f"{image}.tif"

    def baseline(self, name: str) -> Path:
        """The folder of a baseline's TensorBoard events."""
        return self.path / "baselines" / name.replace(" ", "_")

    @property
    def evaluations(self) -> Path:
        """The folder of the evaluations, each in a folder of its own."""
        return self.path / "evaluations"

    # What stands there

    def refuse_links(self) -> None:
        """Raises UserError if something that is written there leads elsewhere: a run's files are its own."""
        predictions = (self.prediction("").parent, self.cells("").parent)
        folders = (self.plugins, self.checkpoints, self.pictures, self.evaluations, *predictions, self.baseline(""))
        inner = (path for folder in folders if not folder.is_symlink() for path in folder.glob("*"))
        for path in (self.path / locks.LOCK, self.log_file, *folders, *inner):
            if path.is_symlink():
                fault = "is a symbolic link, and a run writes only into itself"
                raise UserError(f"{path}: {fault}; remove it, or put what it leads to in its place")
        for path in (self.log_file, self.path / locks.LOCK):
            if path.exists() and not path.is_file():
                raise UserError(f"{path}: is no file that can be written; remove it")

    def refuse_folder_of_runs(self, remedy: str = "") -> None:
        """Raises UserError if it is a cross-validation's, which has the experiment of its runs and no environment."""
        if not self.environment.exists() and (inner := nearby.newest_within(self.path, self.environment.name)):
            raise UserError(f"{self}: is no run, but holds runs; did you mean '{inner}', the newest in it?{remedy}")

    def refuse_gone(self) -> None:
        """Raises UserError if the directory was moved away: no part of it is to appear where it was."""
        if not self.path.is_dir():
            raise failures.gone(self.path)

    def _write(self, path: Path, text: str) -> None:
        if self.writes:
            self.refuse_gone()
            files.write_text(path, text)

    def load(self, settings: Sequence[str] = (), *, data: bool = True, execute: bool = True) -> Experiment:
        """The experiment; without `data` its data set need not be there.

        Raises UserError if its plugins are not trusted; without `execute` they are withheld.
        """
        return load_experiment(self.experiment, settings, data=data, received=True, execute=execute)

    def write_experiment(self, experiment: Experiment) -> None:
        """Put the resolved experiment in place: a run that has it can be resumed."""
        self._write(self.experiment, experiment.resolved())

    def copy_plugins(self, plugins: Sequence[Path]) -> None:
        """Keep copies of plugin files."""
        for plugin in plugins if self.writes else ():
            self.plugins.mkdir(exist_ok=True)
            shutil.copy2(plugin, self.plugins / plugin.name)

    def read_environment(self) -> dict[str, Any]:
        """What `environment.json` holds. Raises UserError if it is missing or damaged."""
        remedy = "bring it back from a copy of the run, or start a new run, with train.init_from for its weights"
        return records.read_json(self.environment, ENVIRONMENT, remedy)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write `environment.json`."""
        self._write(self.environment, json.dumps(environment, indent=1))

    def read_result(self) -> dict[str, Any]:
        """What `result.json` holds. Raises UserError if it is missing or damaged."""
        found = records.read_json(self.result, RESULT, self._written_anew)
        best = found["val"]["best"]
        for place, summary in {"last": found["val"]["last"], "test": found.get("test"), **found["baselines"]}.items():
            if summary is not None and (rows := lacking(summary, best)):
                raise records.damaged(self.result, f"{place}: no score of '{rows[0][0]}'", self._written_anew)
        return found

    @property
    def _written_anew(self) -> str:
        return f"remove it and result.json, and 'resume {self}' writes them anew"

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`."""
        self._write(self.result, json.dumps(result, indent=1))

    def put_result_aside(self, steps: int) -> None:
        """Rename the result of a run that is to become longer."""
        if self.is_finished and self.writes:
            self.result.replace(self.path / f"result_{steps}_steps.json")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `metrics.csv` anew."""
        self._write(self.metrics, as_csv(rows))

    def read_metrics(self) -> list[dict[str, float | None]]:
        """The rows of `metrics.csv`, none if there is no such file; None for what is no finite number.

        Raises UserError if the file is damaged.
        """
        if not os.path.lexists(self.metrics):
            return []
        rows = records.read_table(self.metrics, ["step"], self._written_anew)
        return [{key: self._finite(self.metrics, cell) for key, cell in row.items()} for row in rows]

    def write_per_image(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `per_image.csv`."""
        self._write(self.per_image, as_csv(rows))

    def read_per_image(self) -> dict[str, PerImage]:
        """The scores in `per_image.csv`, by split; none if there is no such file. Raises UserError if it is damaged."""
        scores: dict[str, PerImage] = {}
        if not os.path.lexists(self.per_image):
            return scores
        for row in records.read_table(self.per_image, PER_IMAGE, self._written_anew):
            by_key = scores.setdefault(row["split"], {}).setdefault((row["metric"], row["class"]), {})
            by_key[row["image"]] = self._finite(self.per_image, row["score"])
        for split, of_split in scores.items():
            names = {name for by_image in of_split.values() for name in by_image}
            for (metric, name), by_image in of_split.items():
                if odd := names - by_image.keys():
                    fault = f"not every {split} image has a score of '{metric}' of '{name}': '{min(odd)}'"
                    raise records.damaged(self.per_image, fault, self._written_anew)
        return scores

    def _finite(self, path: Path, cell: str) -> float | None:
        value = records.number(path, cell, self._written_anew)
        return value if value is not None and math.isfinite(value) else None

    def write_picture(self, rank: str, picture: np.ndarray) -> None:
        """Write a picture (H, W, 3) uint8."""
        if not self.writes:
            return
        self.refuse_gone()
        images.write_png(self.pictures / f"{rank}.png", picture.transpose(2, 0, 1))

    def log(self, line: str) -> None:
        """One line, with the time, in `log.txt`."""
        if not self.writes:
            return
        self.refuse_gone()
        if self.log_file.exists() and self.log_file.stat().st_nlink > 1:  # shared with a copy, as `cp -al` makes them
            with files.appearing(self.log_file) as own:
                own.write_bytes(self.log_file.read_bytes())
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {printable(line)}\n")
