"""A data set of bright squares on noise, small enough to train on within a test."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from yeastexp.data import hdf5_file

MINIMAL = """\
plugins = []
[task]
channels = 1
classes = ["background", "cell"]
[dataset]
name = "hdf5"
path = "data.h5"
[[transform]]
name = "zscore"
[[augment]]
name = "reflect"
x = 0.25
[[augment]]
name = "rotate90"
[model]
name = "unet"
width = 2
[loss]
name = "cross_entropy"
[optimizer]
name = "adamw"
learning_rate = 0.01
[scheduler]
name = "one_cycle"
[[metric]]
name = "iou"
[train]
epochs = 2
"""
"""Each table that an experiment needs, and one of most others."""


def changed(changes: Mapping[str, str], text: str = MINIMAL) -> str:
    """An experiment with pieces of its text replaced, each of which stands in it once."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
        text = text.replace(old, new)
    return text


EXPERIMENT = changed(
    {
        "plugins = []\n": "",
        "x = 0.25\n": "",
        "width = 2": "width = 2\nlevels = 2",
        'name = "iou"': 'name = "iou"\n[[metric]]\nname = "accuracy"',
        "epochs = 2": "epochs = 2\nbatch_size = 4\n[patches]\nsize = 16\n[runtime]\nthreads = 1",
    }
)
"""Two epochs of four steps on patches of a quarter of an image, with two scores."""


def image(index: int, size: int = 32) -> dict[str, np.ndarray]:
    """One image (16 bit) with its truth: a square of side 8 to 12 that is brighter by ten standard deviations."""
    source = np.random.default_rng(index)
    raw = source.normal(1000, 20, (size, size))
    truth = np.zeros((size, size), np.uint8)
    side = 8 + index % 5
    row, column = source.integers(0, size - side, 2)
    truth[row : row + side, column : column + side] = 1
    return {"raw": np.rint(raw + 200 * truth).astype(np.uint16), "gt": truth}


def write_data(path: Path, train: int = 4, val: int = 2, test: int = 0) -> Path:
    """A file of such images."""
    names = [f"square_{index}" for index in range(train + val + test)]
    splits = {"train": names[:train], "val": names[train : train + val]}
    if test:
        splits["test"] = names[train + val :]
    hdf5_file.write(path, splits, lambda name: image(int(name.removeprefix("square_"))), provenance={})
    return path


def write_experiment(folder: Path, text: str = EXPERIMENT, name: str = "tiny.toml", **splits: int) -> Path:
    """An experiment file with its data beside it."""
    write_data(folder / "data.h5", **splits)
    path = folder / name
    path.write_text(text)
    return path


def quiet() -> Console:
    """A console that nobody reads."""
    return Console(file=io.StringIO(), width=160)
