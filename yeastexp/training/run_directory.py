"""The run directory: every path in it, and the reading and writing of its files."""

from __future__ import annotations

import filecmp
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

from yeastexp.config import pretrained, toml_document
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data import images
from yeastexp.errors import UserError
from yeastexp.metrics.summary import Score, as_csv, lacking
from yeastexp.system import failures, files, locks, nearby, records
from yeastexp.system.terminal import printable
from yeastexp.training.checkpoints import LAST, NEXT, PREVIOUS

Which = Literal["best", "last"]
"""The checkpoint with the best monitored score, or the newest one."""

PerImage = dict[tuple[str, str], dict[str, float | None]]
"""The score of each image by metric and class; None for an image without one."""


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
"""The keys that readers of these files rely on; the files have more."""

PER_IMAGE = ("split", "image", "metric", "class", "score")
"""The columns of `per_image.csv`."""


@dataclass(frozen=True)
class RunDirectory:
    """`runs/<name>/<001…>`: the only owner of the names in it. No other module joins a path there.

    Files are replaced as a whole, so that a reader sees the old or the new one; lines are appended to the log.
    """

    path: Path
    writes: bool = True
    """Whether this process writes: of several processes one does, and the methods of the others do nothing."""

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def claim(cls, name: str) -> RunDirectory:
        """Make the next free directory of an experiment's name; two processes never get the same one."""
        return cls(files.claim_directory(Path("runs") / name))

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """Return the run directory at a path. Raises UserError if it has no experiment."""
        directory = cls(path)
        if not directory.is_run:
            raise UserError(f"{path}: not a run directory; {directory.meant}")
        return directory

    @property
    def is_run(self) -> bool:
        """Whether it has an experiment, and so is the directory of a run that has begun."""
        return toml_document.is_file(self.experiment)

    @property
    def meant(self) -> str:
        """The end of a message about a path that is no run directory: the one that may be meant."""
        if str(self.path) in pretrained.DIGESTS:
            return "the weights of that name come with the package, for 'predict' and [train] init_from alone"
        near = pretrained.meant(self.path) or nearby.run_meant(self.path, self.experiment.name)
        return near or "'run' prints its path on the last line"

    @property
    def is_finished(self) -> bool:
        """Whether the run has its result."""
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
        """The table with a row for each epoch."""
        return self.path / "metrics.csv"

    @property
    def per_image(self) -> Path:
        """The table with a row for each image, metric and class."""
        return self.path / "per_image.csv"

    @property
    def result(self) -> Path:
        """The scores of the finished run. It is written last, so all other files are there when it is."""
        return self.path / "result.json"

    @property
    def profile(self) -> Path:
        """The trace of the profiled steps."""
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
        """The class map that a cross-validation predicted for a held-out image."""
        return self.path / "predictions" / f"{image}.png"

    def cells(self, image: str) -> Path:
        """The cell ids that a cross-validation predicted for a held-out image."""
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
        """Raises UserError if a file or folder that is written is a symbolic link, which would lead out of the run."""
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
        """Raises UserError if this is the folder of a cross-validation or sweep, with the newest run in it.

        Such a folder has the experiment of its runs, so it passes for a run, but has no `environment.json`.
        """
        if not self.environment.exists() and (inner := nearby.newest_within(self.path, self.environment.name)):
            raise UserError(f"{self}: is no run, but holds runs; did you mean '{inner}', the newest in it?{remedy}")

    def refuse_gone(self) -> None:
        """Raises UserError if the directory was moved away: writing would make a fragment of it in the old place."""
        if not self.path.is_dir():
            raise failures.gone(self.path)

    def _write(self, path: Path, text: str, *, unless_there: bool = False) -> None:
        if self.writes:
            self.refuse_gone()
            files.write_text(path, text, unless_there=unless_there)

    def load(self, settings: Sequence[str] = (), *, data: bool = True, execute: bool = True) -> Experiment:
        """Return the experiment; without `data` its data set need not exist.

        Raises UserError if its plugins are not trusted; without `execute` they are not loaded at all.
        """
        # Not `last.pt` alone: a process that is killed while it replaces that leaves the other two.
        begun = any((self.checkpoints / name).is_file() for name in (NEXT, LAST, PREVIOUS))
        return load_experiment(self.experiment, settings, data=data, received=True, execute=execute, begun=begun)

    def write_experiment(self, experiment: Experiment, *, unless_there: bool = False) -> None:
        """Write the resolved experiment, with which the directory counts as a run that can be resumed."""
        self._write(self.experiment, experiment.resolved(), unless_there=unless_there)

    def copy_plugins(self, plugins: Sequence[Path]) -> None:
        """Keep copies of plugin files."""
        for plugin in plugins if self.writes else ():
            self.plugins.mkdir(exist_ok=True)
            copy = self.plugins / plugin.name
            if not (copy.is_file() and filecmp.cmp(plugin, copy, shallow=False)):  # others may be reading it
                shutil.copy2(plugin, copy)

    def read_environment(self) -> dict[str, Any]:
        """Return the contents of `environment.json`. Raises UserError if it is missing or damaged."""
        remedy = "bring it back from a copy of the run, or start a new run, with train.init_from for its weights"
        return records.read_json(self.environment, ENVIRONMENT, remedy)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write `environment.json`."""
        self._write(self.environment, json.dumps(environment, indent=1))

    def read_result(self) -> dict[str, Any]:
        """Return the contents of `result.json`. Raises UserError if it is missing or damaged."""
        found = records.read_json(self.result, RESULT, self._written_anew)
        # The schema allows any metric. Readers look up those of the best checkpoint in every other summary as well.
        best = found["val"]["best"]
        for place, summary in {"last": found["val"]["last"], "test": found.get("test"), **found["baselines"]}.items():
            if summary is not None and (rows := lacking(summary, best)):
                raise records.damaged(self.result, f"{place}: no score of '{rows[0][0]}'", self._written_anew)
        return found

    @property
    def is_selected(self) -> bool:
        """Whether scores selected the best checkpoint. Of a run without a readable result they are taken to have."""
        try:
            return bool(self.read_result()["val"]["selected_on_these_images"])
        except UserError:
            return True

    @property
    def _written_anew(self) -> str:
        return f"remove it and result.json, and 'resume {self}' writes them anew"

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`."""
        self._write(self.result, json.dumps(result, indent=1))

    def put_result_aside(self, steps: int) -> None:
        """Rename the result of a run that is extended, so that it no longer counts as finished."""
        if self.is_finished and self.writes:
            self.result.replace(self.path / f"result_{steps}_steps.json")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `metrics.csv`."""
        self._write(self.metrics, as_csv(rows))

    def read_metrics(self) -> list[dict[str, float | None]]:
        """Return the rows of `metrics.csv`, none without such a file; NaN, infinite and empty cells are None.

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
        """Return the scores in `per_image.csv` by split, none without such a file. Raises UserError if damaged."""
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
        """Write a picture (H, W, 3) uint8 as `pictures/<rank>.png`."""
        if not self.writes:
            return
        self.refuse_gone()
        images.write_png(self.pictures / f"{rank}.png", picture.transpose(2, 0, 1))

    def log(self, line: str) -> None:
        """Append a line, with the time, to `log.txt`."""
        if not self.writes:
            return
        self.refuse_gone()
        # A copy made with hard links (`cp -al`) shares the file. All others are replaced when they are written, but
        # appending would change the copy's log too, so the log is made the run's own first.
        if self.log_file.exists() and self.log_file.stat().st_nlink > 1:
            with files.appearing(self.log_file) as own:
                own.write_bytes(self.log_file.read_bytes())
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {printable(line)}\n")
