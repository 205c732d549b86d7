"""A data set of bright squares on noise, small enough to train on within a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yeastexp.data import hdf5_file

EXPERIMENT = """\
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
[[augment]]
name = "rotate90"
[model]
name = "unet"
width = 2
levels = 2
[loss]
name = "cross_entropy"
[optimizer]
name = "adamw"
learning_rate = 0.01
[scheduler]
name = "one_cycle"
[[metric]]
name = "iou"
[[metric]]
name = "accuracy"
[train]
epochs = 2
batch_size = 4
[patches]
size = 16
[runtime]
threads = 1
"""


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
