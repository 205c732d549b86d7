"""What a run read is known by its digests, wherever an experiment names it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import EXPERIMENT, write_experiment

from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data.folds import Folds
from yeastexp.training import inputs

PLUGIN = """\
from pathlib import Path
from yeastexp import InputFile, dataset, handler
from yeastexp.data.datasets.hdf5 import hdf5

@dataset("several")
def several(paths: tuple[InputFile, ...], folder: Path):
    return hdf5(paths[0])

@handler("reads_and_writes")
def reads_and_writes(context, table: InputFile, output: Path): ...
"""
TEXT = EXPERIMENT.replace(
    '"hdf5"\npath = "data.h5"', '"several"\npaths = ["data.h5", "more/data.h5"]\nfolder = "tiles"'
)
TEXT = f'plugins = ["mine.py"]\n{TEXT}[validation]\nfolds = "folds.json"\nfold = 1\n'
TEXT += '[[handler]]\nname = "reads_and_writes"\ntable = "table.csv"\noutput = "written.csv"\n'


@pytest.fixture
def loaded(tmp_path: Path) -> Experiment:
    (tmp_path / "mine.py").write_text(PLUGIN)
    for name in (
        "more/data.h5",
        "tiles/a.tif",
        "tiles/b/a.tif",
        "table.csv",
        "written.csv",
        "first/checkpoints/best.pt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    names = [f"square_{index}" for index in range(6)]
    Folds((tuple(names[:3]), tuple(names[3:]))).write(tmp_path / "folds.json")
    return load_experiment(write_experiment(tmp_path, TEXT), [f"train.init_from={tmp_path}/first"])


def test_everything_that_is_read_is_listed(tmp_path: Path, loaded: Experiment) -> None:
    assert {kind: list(names) for kind, names in inputs.digests(loaded).items()} == {
        "data": ["data.h5", "data.h5#2", "tiles"],
        "files": ["table.csv"],
        "folds": ["folds.json"],
        "plugins": ["mine.py"],
        "init_from": [f"{tmp_path.name}/first/best.pt"],
    }


def changed(experiment: Experiment, recorded: dict[str, Any], *kinds: str) -> list[str]:
    return inputs.changed({"digests": recorded}, inputs.inputs_of(experiment), *([kinds] if kinds else []))


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("more/data.h5", "data"),
        ("tiles/b/a.tif", "data"),
        ("table.csv", "contents"),
        ("folds.json", "folds"),
        ("mine.py", "code"),
        ("first/checkpoints/best.pt", "weights"),
    ],
)
def test_what_changed_is_named(tmp_path: Path, loaded: Experiment, name: str, holds: str) -> None:
    recorded = inputs.digests(loaded)
    assert changed(loaded, recorded) == []
    (tmp_path / "written.csv").write_text("more")
    with (tmp_path / name).open("a") as file:
        file.write(" ")
    named = tmp_path / ("tiles" if "tiles" in name else name)
    assert changed(loaded, recorded) == [f"'{named}' has changed and holds other {holds} now"]
    if "tiles" not in name:
        (tmp_path / name).unlink()
        assert changed(loaded, recorded) == [f"no file '{named}'"]


def test_files_that_change_places_are_another_experiment(tmp_path: Path, loaded: Experiment) -> None:
    one, two = str(tmp_path / "data.h5"), shutil.copy(tmp_path / "data.h5", tmp_path / "other.h5")
    orders = (json.dumps([one, str(two)]), json.dumps([str(two), one]))
    first, other = (load_experiment(tmp_path / "tiny.toml", [f"dataset.paths={order}"]) for order in orders)
    assert changed(other, inputs.digests(first)) == [] and first.identity() != other.identity()


def test_a_file_may_move_but_not_vanish_from_the_list(tmp_path: Path, loaded: Experiment) -> None:
    recorded = inputs.digests(loaded)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "folds.json").rename(tmp_path / "elsewhere" / "folds.json")
    validation = loaded.validation
    assert changed(replace(loaded, validation=replace(validation, folds=moved)), recorded, "folds") == []
    without = replace(loaded, validation=replace(validation, folds=None, fold=None))
    assert changed(without, recorded) == ["'folds.json' is not named any more"]


def test_of_what_an_earlier_version_did_not_list_nothing_is_said(tmp_path: Path, loaded: Experiment) -> None:
    listed = inputs.digests(loaded)
    recorded = {"data": {name: listed["data"][name] for name in ("data.h5", "data.h5#2")}, "plugins": listed["plugins"]}
    (tmp_path / "folds.json").write_text("{}")
    assert changed(loaded, recorded) == []
