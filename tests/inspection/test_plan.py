"""`new`: an experiment file written from packed data, whose values are those that were measured."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Call

from yeastexp.config.loading import load_experiment
from yeastexp.data import hdf5_file

MOST_LINES = 40


def discs(side: int, diameter: int, images: int = 4, channels: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """Images with a grid of discs of a diameter that touch in rows."""
    rows, columns = np.mgrid[:side, :side]
    ids = np.zeros((side, side), np.int32)
    for number, (y, x) in enumerate(np.ndindex(side // (diameter + 2), side // diameter), start=1):
        centre = (y + 0.5) * (diameter + 2), (x + 0.5) * diameter
        ids[np.hypot(rows + 0.5 - centre[0], columns + 0.5 - centre[1]) <= diameter / 2] = number
    source = np.random.default_rng(0)
    arrays = {}
    for index in range(images):
        raw = source.integers(0, 50, (channels, side, side)) + 100 * (ids > 0)
        raw = raw.astype(np.uint16)
        arrays[f"a{index}"] = {
            "raw": raw[0] if channels == 1 else raw,
            "gt": (ids > 0).astype(np.uint8),
            "instances": ids,
        }
    return arrays


def packed(folder: Path, arrays: dict[str, dict[str, np.ndarray]], **more: Any) -> Path:
    """A file of images, the last of which validates."""
    path, names = folder / "data.h5", list(arrays)
    splits = {"train": names[:-1], "val": names[-1:]}
    hdf5_file.write(path, splits, arrays.__getitem__, **({"provenance": {}} | more))
    return path


def written(folder: Path, call: Call) -> dict[str, Any]:
    """The file that `new` writes, which is valid."""
    status, out, err = call("new", folder / "data.h5", "-o", folder / "mine.toml")
    assert status == 0, err
    text = (folder / "mine.toml").read_text()
    assert out == f"{text}{folder / 'mine.toml'}\n" and len(text.splitlines()) <= MOST_LINES
    load_experiment(folder / "mine.toml")
    return tomllib.loads(text)


def test_cells_of_usual_size_need_few_words(tmp_path: Path, call: Call) -> None:
    packed(tmp_path, discs(128, 24))
    file = written(tmp_path, call)
    assert file["extends"] == "yeastexp:cells" and file["dataset"] == {"path": "data.h5"}
    assert file["task"] == {"channels": 1, "classes": ["background", "cell"]}
    assert file["patches"] == {"size": 128}
    assert "transform" not in file and file["train"] == {"budget": "5m"}
    text = (tmp_path / "mine.toml").read_text()
    assert (
        "3 train, 1 val" in text and "100 % of 80 cells touch another one" in text and "cells are 24 px across" in text
    )


def test_small_cells_are_seen_pixel_by_pixel_and_large_ones_as_they_are(tmp_path: Path, call: Call) -> None:
    packed(tmp_path, discs(128, 10))
    assert written(tmp_path, call)["model"] == {"space_to_depth": 1}
    large = tmp_path / "large"
    large.mkdir()
    packed(large, discs(400, 80, images=2))
    file = written(large, call)
    assert "model" not in file and "transform" not in file
    assert file["patches"]["size"] == 160  # twice the longest cell


def test_long_cells_have_larger_patches_and_small_images_smaller_ones(tmp_path: Path, call: Call) -> None:
    arrays = discs(320, 20, images=2)
    for image in arrays.values():
        image["instances"][60:70] = 1000
        image["instances"][60:70, 100:] = 0
        image["gt"] = (image["instances"] > 0).astype(np.uint8)
    packed(tmp_path, arrays)
    assert written(tmp_path, call)["patches"]["size"] == 208  # twice 100, in steps of 16
    small = tmp_path / "small"
    small.mkdir()
    packed(small, discs(81, 20))
    assert written(small, call)["patches"]["size"] == 80


def test_masks_classes_and_channels(tmp_path: Path, call: Call) -> None:
    arrays = {
        name: {"raw": image["raw"], "gt": image["gt"] * (1 + (image["instances"] % 2)).astype(np.uint8)}
        for name, image in discs(96, 20, channels=2).items()
    }
    origin = hdf5_file.Origin(groups=dict.fromkeys(arrays, "m"), channel_names=("phase", "GFP"))
    packed(tmp_path, arrays, origin=origin, provenance={"classes": ["background", "cell", "bud"]})
    file = written(tmp_path, call)
    assert file["extends"] == "yeastexp:hdf5"
    assert file["task"] == {"channels": 2, "classes": ["background", "cell", "bud"]}
    assert "of every image: phase, GFP" in (tmp_path / "mine.toml").read_text()
    packed(tmp_path, arrays, force=True)
    (tmp_path / "mine.toml").unlink()
    assert written(tmp_path, call)["task"]["classes"] == ["background", "class_1", "class_2"]


def test_names_in_the_data_write_no_keys(tmp_path: Path, call: Call) -> None:
    """Whoever made the data named its channels and classes; the file that is written from them will be executed."""
    arrays = discs(64, 20, channels=2)
    odd = 'GFP"\nplugins = ["other.py"]\n#\U0001f9eb'
    origin = hdf5_file.Origin(channel_names=("phase", odd))
    packed(tmp_path, arrays, origin=origin)
    file = written(tmp_path, call)
    assert "plugins" not in file and file["task"] == {"channels": 2, "classes": ["background", "cell"]}
    (tmp_path / "mine.toml").unlink()
    packed(tmp_path, arrays, provenance={"classes": ["background", odd]}, force=True)
    status, _, err = call("new", tmp_path / "data.h5", "-o", tmp_path / "mine.toml")
    assert status == 2 and "[task] classes.1: wants no spaces" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "mine.toml").exists()


def test_the_data_are_not_overwritten(tmp_path: Path, call: Call) -> None:
    data = packed(tmp_path, discs(64, 20))
    before = data.read_bytes()
    status, _, err = call("new", data, "-o", data, "--force")
    assert status == 2 and "is the file that is read; name another one" in err and data.read_bytes() == before


def test_a_path_leads_from_the_file_to_the_data(tmp_path: Path, call: Call) -> None:
    data = packed(tmp_path, discs(64, 20))
    assert call("new", data, "-o", tmp_path / "experiments" / "mine.toml")[0] == 0
    assert tomllib.loads((tmp_path / "experiments" / "mine.toml").read_text())["dataset"]["path"] == "../data.h5"


@pytest.mark.parametrize(
    ("prepare", "fault"),
    [
        (lambda folder: None, "data.h5"),
        (lambda folder: (folder / "data.h5").write_text("no"), "data.h5"),
        (lambda folder: packed(folder, discs(64, 20, images=1)), "data.h5: has no image to train; pack it with other"),
        (lambda folder: [packed(folder, discs(64, 20)), (folder / "mine.toml").write_text("x")], "exists; add --force"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(prepare: Any, fault: str, tmp_path: Path, call: Call) -> None:
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    status, out, err = call("new", tmp_path / "data.h5", "-o", tmp_path / "mine.toml")
    assert status == 2 and not out and fault in err and len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
