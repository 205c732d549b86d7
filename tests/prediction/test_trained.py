"""`import yeastexp as yx`: train, load, predict; the same as the commands, from arrays, without a file."""

from __future__ import annotations

import base64
import csv
import io
import re
import sys
import threading
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
import tiny
import torch
from conftest import Call
from PIL import Image

import yeastexp as yx
from yeastexp.config.loading import load_experiment
from yeastexp.data import tiff_file
from yeastexp.prediction import outputs
from yeastexp.prediction.trained import CellTable, Result
from yeastexp.tasks.mask_cells import METHOD

CELLS = {
    "name": "cells",
    "extends": "yeastexp:quick_cells",
    "dataset": {"images": 3, "size": 96},
    "augment": [],
    "patches": {"size": 48},
    "model": {"width": 4, "levels": 2},
    "task": {"least_height": 0.05, "least_foreground": 0.05, "views": 2},
    "train": {"steps": 40, "batch_size": 2},
    "optimizer": {"learning_rate": 0.02},
    "validation": {"every": 40},
}
ONE_THREAD = {"runtime.threads": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of masks and one of cells, trained from dictionaries."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("trained"))
        tiny.write_data(Path("data.h5"))
        torch.set_num_threads(2)
        masks = yx.train(tomllib.loads(tiny.EXPERIMENT))
        assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled(), "as it was before"
        torch.set_num_threads(1)
        cells = yx.train(yx.experiment(CELLS, ONE_THREAD))
        assert (str(masks), str(cells)) == ("runs/experiment/001", "runs/cells/001")
        return {"masks": masks.path.resolve(), "cells": cells.path.resolve()}


@pytest.fixture(params=["masks", "cells"])
def run(request: pytest.FixtureRequest, runs: dict[str, Path]) -> Path:
    return runs[request.param]


def scene(run: Path, index: int) -> np.ndarray:
    """An image (H, W) like those of the run."""
    if run.parent.name == "cells":
        data = yx.dataset["synthetic_yeast"](images=3, size=64 + 8 * index, seed=0)
        return data.arrays(data.splits["val"][0])["raw"]
    return tiny.image(index, 32 + 5 * index)["raw"]


def same(one: Result, other: Result) -> None:
    assert np.array_equal(one.labels, other.labels) and np.array_equal(one.probabilities, other.probabilities)
    assert np.array_equal(one.instances, other.instances) and one.table.keys() == other.table.keys()
    assert all(np.array_equal(one.table[name], other.table[name]) for name in one.table)


def test_a_result_is_what_the_command_writes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    images = [scene(run, 0), scene(run, 1).astype(np.float32)]
    for index, image in enumerate(images):
        tiff_file.write(Path("in") / f"{index}.tif", image, 0.5)
    before = sorted(tmp_path.rglob("*"))
    results = yx.load(run).predict(images, pixel_um=0.5)
    assert sorted(tmp_path.rglob("*")) == before, "no file is written"
    status, _, err = call("predict", run, "in", "-o", "out", "--cells", "--probabilities", "--format", "tif")
    assert status == 0, err
    approximate = run.parent.name != "cells"
    written = list(csv.DictReader(Path("out/cells.csv").read_text().splitlines()))
    for index, result in enumerate(results):
        ids = tifffile.imread(f"out/cells/{index}.tif" if approximate else f"out/{index}.tif")
        assert np.array_equal(result.instances, ids) and ids.max() > 0
        if approximate:
            assert np.array_equal(255 * result.labels, tifffile.imread(f"out/{index}.tif"))
        else:
            assert np.array_equal(result.labels, ids > 0)
        assert np.array_equal(result.probabilities, tifffile.imread(f"out/probabilities/{index}.tif"))
        rows = [row for row in written if row["image"] == f"in/{index}.tif"]
        assert ["image", *result.table] == list(rows[0])
        for name, column in result.table.items():
            assert list(map(str, column.tolist())) == [row[name] for row in rows]
        assert result.approximate == approximate


def test_tiles_and_threads_change_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [scene(run, index) for index in range(4)]
    whole = [yx.load(run).predict(image) for image in images]
    monkeypatch.setattr(outputs, "LARGE", 1000)
    model = yx.load(run)
    results: dict[int, Result] = {}

    def work(index: int) -> None:
        results[index] = model.predict(images[index], tile=32)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        assert np.array_equal(results[index].labels, whole[index].labels)
        same(results[index], model.predict(images[index], tile=32))


@pytest.mark.parametrize("dtype", [">u2", "i4", "u8", "f2", "f8"])
def test_values_count_and_not_their_type(runs: dict[str, Path], dtype: str) -> None:
    model, image = yx.load(runs["masks"]), scene(runs["masks"], 0)
    given = image.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(model.predict(given[::-1][None]), model.predict(given.astype(np.float32)[::-1].copy()))
        assert np.array_equal(given, image.astype(dtype)), "the image is left as it is"
        same(model.predict(torch.from_numpy(image.astype(np.int32))), model.predict(image))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (
            np.zeros((2, 8, 8), np.uint8),
            "image: has 2 channels; the run was trained on 1; give one, as image[0], or a list of images",
        ),
        (
            np.zeros((8, 8, 1), np.uint8),
            "image: has the shape (8, 8, 1), channels last; give (C, H, W), as np.moveaxis",
        ),
        (np.zeros((8, 9, 3), np.uint8), "image: has the shape (8, 9, 3), channels last; give (C, H, W)"),
        (np.zeros(8), "image: has the shape (8,); give an array (H, W) or (C, H, W)"),
        (np.zeros((2, 1, 8, 8)), "image: has the shape (2, 1, 8, 8); give a list of images"),
        (np.zeros((0, 8)), "image: has the shape (0, 8), and so no pixels"),
        (np.full((8, 8), np.nan), "image: holds NaN or infinite values"),
        (np.zeros((8, 8), bool), "image: is an array of bool; give an array (H, W) or (C, H, W) of integers or floats"),
        (np.zeros((8, 8), complex), "image: is an array of complex128; give an array"),
        ("a.tif", "image: is str; give an array (H, W) or (C, H, W) of integers or floats"),
        (np.array([["a"]]), "image: is an array of <U1; give an array (H, W)"),
        (None, "image: is NoneType; give an array"),
        ([np.zeros((8, 8)), np.zeros(8)], "images[1]: has the shape (8,); give an array"),
        (torch.zeros(8, 8, requires_grad=True), "image: cannot be made an array (Can't call numpy() on Tensor that"),
    ],
)
def test_what_is_no_image_is_a_line(runs: dict[str, Path], image: Any, fault: str) -> None:
    with pytest.raises(yx.UserError) as error:
        yx.load(runs["masks"]).predict(image)
    assert str(error.value).startswith(fault) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"tile": 0}, "tile: should be a number of pixels from 1 on, got 0"),
        ({"tile": 12.5}, "tile: should be a number of pixels from 1 on, got 12.5"),
        ({"pixel_um": -1.0}, "pixel_um: should be the side of a pixel in micrometres, got -1.0"),
        ({"pixel_um": "0.1"}, "pixel_um: should be the side of a pixel in micrometres, got '0.1'"),
        ({"normalization": {"mean": 1}}, "normalization has no 'mean' and 'std'; give 'mean' and 'std'"),
        (
            {"normalization": {"mean": 1, "std": 0}},
            "normalization has the 'std' 0, which should be above 0; give 'mean' and 'std'",
        ),
        ({"normalization": 5}, "normalization: should be a table with 'mean' and 'std', got 5"),
    ],
)
def test_wrong_options_are_a_line(runs: dict[str, Path], options: dict[str, Any], fault: str) -> None:
    with pytest.raises(yx.UserError, match=f"^{re.escape(fault)}"):
        yx.load(runs["masks"]).predict(np.zeros((8, 8)), **options)


def test_an_array_may_be_used_again(runs: dict[str, Path]) -> None:
    model, image = yx.load(runs["masks"]), scene(runs["masks"], 0)
    result, other = model.predict(image), model.predict(image.copy())
    image[:] = 0
    same(result, other)


def test_what_is_no_run_is_a_line(tmp_path: Path, runs: dict[str, Path]) -> None:
    with pytest.raises(yx.UserError, match="not a run directory"):
        yx.load(tmp_path)
    with pytest.raises(yx.UserError, match=r"^checkpoint: should be 'best' or 'last', got 'first'$"):
        yx.load(runs["masks"], "first")  # type: ignore[arg-type]


def test_values_unlike_those_of_training_are_warned_of(runs: dict[str, Path]) -> None:
    with pytest.warns(UserWarning, match="image: holds values from 0 to 9 .*, the training images from") as warned:
        yx.load(runs["masks"]).predict(np.arange(100, dtype=np.uint8).reshape(10, 10) // 10)
    assert warned[0].filename == __file__


def test_a_table_of_pandas_where_it_is_installed(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = yx.load(runs["cells"]), scene(runs["cells"], 0)
    monkeypatch.setattr("yeastexp.prediction.trained.find_spec", lambda name: None)
    table = model.predict(image).cells
    assert isinstance(table, CellTable) and len(table) == len(table["area"]) == table["label"].max()
    assert table.columns[:2] == ["label", "centroid-0"] and str(len(table)) in repr(table)
    assert [*table] == table.columns and "area" in table and "no column" not in table
    monkeypatch.undo()
    # A module and not a file, for one that stays imported would be what other libraries take for pandas.
    stand_in: Any = ModuleType("pandas")
    stand_in.DataFrame = type("DataFrame", (dict,), {"__module__": "pandas"})
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    monkeypatch.setattr("yeastexp.prediction.trained.find_spec", lambda name: True)
    frame = model.predict(image).cells
    assert type(frame).__module__ == "pandas" and list(frame) == table.columns


def test_a_notebook_shows_the_cells(run: Path) -> None:
    result = yx.load(run).predict(scene(run, 0))
    shown = result._repr_html_()
    encoded = re.search('base64,([^"]+)"', shown)
    assert encoded
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[1]))))
    assert np.array_equal(picture, result.overlay()) and (picture != picture[..., :1]).any(), "outlines are coloured"
    count = len(result.table["label"])
    assert f"; {count} cell" in shown and (METHOD in shown) == result.approximate
    assert repr(result).startswith(f"Result({result.image.size[0]}×") and "unet of" in repr(yx.load(run))


def test_a_task_that_tells_no_cells_says_so(runs: dict[str, Path]) -> None:
    result = yx.load(runs["masks"]).predict(scene(runs["masks"], 0))
    plain = replace(result, prediction=yx.Prediction(result.prediction.labels))
    with pytest.raises(yx.UserError, match=r"^the task 'semantic' tells no cells apart; use labels or probabilities$"):
        plain.cells  # noqa: B018
    assert "<img" in plain._repr_html_() and "cells" not in repr(plain)


# Experiments without a file


def test_a_dictionary_trains_what_the_file_trains(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tiny.write_experiment(tmp_path, tiny.EXPERIMENT, "experiment.toml")
    status, out, err = call("run", path)
    assert status == 0, err
    weights = [
        torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]
        for folder in (Path(out.splitlines()[-1]), runs["masks"])
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_dictionary_is_what_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.write_experiment(tmp_path, tiny.EXPERIMENT, "experiment.toml")
    monkeypatch.chdir(tmp_path)
    written = tomllib.loads(tiny.EXPERIMENT)
    loaded = yx.experiment({**written, "dataset": {"name": "hdf5", "path": Path("data.h5")}}, {"train.epochs": 3})
    assert loaded.resolved() == load_experiment(path, ["train.epochs=3"]).resolved()
    assert yx.experiment(path).resolved() == yx.experiment(str(path)).resolved() == yx.experiment(written).resolved()
    steps = yx.experiment({"extends": "experiment.toml", "train": {"steps": np.int64(2)}}).train
    assert (steps.steps, steps.epochs) == (2, None), "as in a file that extends another"
    assert yx.experiment("yeastexp:quick").name == "quick"


@pytest.mark.parametrize(
    ("changes", "settings", "faults"),
    [
        (
            {"train": {"epoch": 2}, "model": {"name": "unett"}},
            {},
            [
                "experiment: [train] epoch: unknown key; did you mean 'epochs'?",
                "experiment: [model] name: unknown model 'unett'",
            ],
        ),
        ({"train": {"epochs": "2"}}, {}, ['experiment: [train] epochs: should be a valid integer, got "2"']),
        ({"model": {"width": None}}, {}, ["experiment: model.width: is None; omit it"]),
        ({"model": {"width": object()}}, {}, ["experiment: model.width: should be a number, a string, an array or a"]),
        ({"model": {2: 3}}, {}, ["experiment: model: should be strings, got 2"]),
        ({"extends": "none.toml"}, {}, ["experiment: extends: no file '{folder}/none.toml'"]),
        ({"dataset": {"path": "none.h5"}}, {}, ["experiment: [dataset] path: no file '{folder}/none.h5'"]),
        (
            {},
            {"train.epochs": 0},
            ["setting train.epochs: [train] epochs: should be greater than or equal to 1, got 0"],
        ),
        ({}, {"train.": 0}, ["setting train.: should be a key, as in train.epochs"]),
    ],
)
def test_a_fault_of_a_dictionary_is_said_as_that_of_a_file(
    changes: dict[str, Any],
    settings: dict[str, Any],
    faults: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny.write_experiment(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(yx.UserError) as error:
        yx.experiment({"extends": "tiny.toml", **changes}, settings)
    assert len(error.value.faults) == len(faults)
    for said, fault in zip(sorted(error.value.faults), sorted(faults), strict=True):
        assert said.startswith(fault.format(folder=tmp_path)), said


def test_a_circle_of_tables_is_a_line() -> None:
    circle: dict[str, Any] = {}
    circle["model"] = circle
    with pytest.raises(yx.UserError, match=r"^experiment: nested too deeply; an experiment needs three levels$"):
        yx.experiment(circle)


def test_settings_belong_to_what_is_not_checked_yet(runs: dict[str, Path]) -> None:
    with pytest.raises(yx.UserError, match=r"^settings: go with the file or the dictionary"):
        yx.train(load_experiment(runs["masks"] / "experiment.toml"), {"train.epochs": 3})


def test_the_lines_of_the_readme(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = re.findall(r"`(\w[\w =]*yx[^`]*)`", readme)
    assert lines[:3] == ["import yeastexp as yx", 'run = yx.train("mine.toml")', "result = yx.load(run).predict(image)"]
    monkeypatch.setattr(yx, "train", lambda path: {"mine.toml": runs["masks"]}[path], raising=False)
    names: dict[str, Any] = {"image": scene(runs["masks"], 0)}
    exec("\n".join(lines[:3]), names)
    assert names["result"].labels.shape == (32, 32)
