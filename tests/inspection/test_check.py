"""`check`: one step, one scored image, and what the masks alone tell; what is wrong with a user's part in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Call
from tiny import EXPERIMENT, changed, image

from yeastexp.data import hdf5_file
from yeastexp.errors import UserError
from yeastexp.inspection.check import check
from yeastexp.inspection.preflight import preflight

HEAD = """\
import torch
from torch import nn
from yeastexp import *

class Net(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.layer = nn.Conv2d(channels, outputs, 1)
"""
NET = 'name = "unet"\nwidth = 2\nlevels = 2'
LOSS = 'name = "cross_entropy"'
METRIC = 'name = "accuracy"'
TASK = "[task]"
OPTIMIZER = 'name = "adamw"\nlearning_rate = 0.01'
SCHEDULER = 'name = "one_cycle"'
AUGMENT = 'name = "rotate90"'
SCALAR = "return a scalar tensor, computed from the outputs by PyTorch"


def metric_that(counts: str, score: str) -> str:
    """A metric by what its two methods return."""
    return f"""@metric("mine")
class Mine(PerImageMetric):
    higher_is_better = True
    def counts(self, prediction, labels):
        return {counts}
    def score(self, counts):
        return {score}"""


FAULTS = {
    "model that gives a dictionary": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        return {"out": self.layer(images), "aux": None}""",
        "[model] name: gives a dict of 'out', 'aux' for images (4, 1, 16, 16), not (4, 2, 16, 16) (B, O, H, W); "
        "let it return one tensor",
    ),
    "model that gives a dictionary when it does not train": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        return self.layer(images) if self.training else [self.layer(images)]""",
        "[model] name: gives a list for images (1, 1, 32, 32), not (1, 0, 32, 32) (B, O, H, W); "
        "let it return one tensor",
    ),
    "model that raises": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        return self.layer(torch.cat([images, images], 1))""",
        "mine.py:13: RuntimeError: Given groups=1, weight of size [2, 1, 1, 1], expected input",
    ),
    "model factory that raises": (
        NET,
        """@model("mine")
def mine(channels, outputs):
    return [][channels]""",
        "mine.py:12: IndexError: list index out of range",
    ),
    "loss that is no scalar": (
        LOSS,
        """@loss("mine")
def mine(classes):
    return lambda outputs, labels: outputs.mean(dim=0)""",
        "study.toml:19:1: [loss] name: 'mine' gives a float32 tensor (2, 16, 16); " + SCALAR,
    ),
    "loss that is a number": (
        LOSS,
        """@loss("mine")
def mine(classes):
    return lambda outputs, labels: 0.5""",
        "study.toml:19:1: [loss] name: 'mine' gives a float; " + SCALAR,
    ),
    "loss without gradient": (
        LOSS,
        """@loss("mine")
def mine(classes):
    return lambda outputs, labels: outputs.argmax(1).float().mean()""",
        "study.toml:19:1: [loss] name: 'mine' gives a scalar without gradient; " + SCALAR,
    ),
    "metric that raises": (
        METRIC,
        metric_that("torch.stack([labels.sum(), prediction.shape])", "counts[0]"),
        "mine.py:14: TypeError: expected Tensor as element 1 in argument 0, but got torch.Size",
    ),
    "metric that counts no whole numbers": (
        METRIC,
        metric_that("labels.float().mean()", "counts"),
        "mine.py:10: 'counts' of Mine gives torch.float32 (); return a vector of whole numbers",
    ),
    "metric that gives too many scores": (
        METRIC,
        metric_that("torch.arange(5)", "counts"),
        "mine.py:10: 'score' of Mine gives torch.int64 (5,); return a tensor of one score, or of 2 (one a class)",
    ),
    "metric that gives a number": (
        METRIC,
        metric_that("torch.arange(5)", "float(counts[0])"),
        "mine.py:10: 'score' of Mine gives float; return a tensor of one score, or of 2 (one a class)",
    ),
    "task whose prediction is none": (
        TASK,
        """@task("mine")
class Mine(Task):
    def __init__(self, channels, classes):
        self.outputs, self.planes = classes, ()
    def targets(self, sample):
        return sample.labels[None]
    def loss(self, outputs, targets, criterion):
        return criterion(outputs, targets[:, 0])
    def decode(self, outputs):
        return outputs.argmax(0)""",
        "study.toml:3:1: [task] name: 'mine': 'decode' gives an int64 tensor (32, 32) for outputs (2, 32, 32); return "
        "a Prediction of labels (H, W)",
    ),
    "task with a plane too many": (
        TASK,
        """@task("mine")
class Mine(Task):
    def __init__(self, channels, classes):
        self.outputs = 1
    def targets(self, sample):
        return torch.stack([sample.labels, sample.labels])""",
        "[task] name: 'targets' gives 2 planes where 'planes' has 1; say of each how it is interpolated",
    ),
    "optimizer that is none": (
        OPTIMIZER,
        """@optimizer("mine")
def mine(parameters):
    return list(parameters)""",
        "study.toml:21:1: [optimizer] name: 'mine' is no torch.optim.Optimizer",
    ),
    "scheduler that is none": (
        SCHEDULER,
        """@scheduler("mine")
def mine(optimizer, steps):
    return steps""",
        "study.toml:24:1: [scheduler] name: 'mine' is no torch.optim.lr_scheduler.LRScheduler",
    ),
    "augmentation that raises": (
        AUGMENT,
        """@transform("mine")
class Mine(BasicTransform2D):
    def draw(self, generator):
        return generator.no_such_distribution()
    def image(self, image, params):
        return image""",
        "mine.py:13: AttributeError: 'numpy.random._generator.Generator' object has no attribute 'no_such",
    ),
}


def experiment(folder: Path, place: str, part: str) -> Path:
    """A file in a folder with a user's part in the place of another, and the data."""
    mine = '[task]\nname = "mine"' if place == TASK else 'name = "mine"'
    (folder / "mine.py").write_text(f"{HEAD}\n{part}\n")
    (folder / "study.toml").write_text('plugins = ["mine.py"]\n' + changed({place: mine}, EXPERIMENT))
    return folder / "study.toml"


def write_masks(folder: Path, masks: dict[str, int]) -> None:
    """Four training and two validation images; those that are named have masks of one value."""

    def read(name: str) -> dict[str, np.ndarray]:
        arrays = image(int(name[1:]))
        arrays["gt"] = arrays["gt"].astype(np.int16)
        return {**arrays, "gt": np.full_like(arrays["gt"], masks[name], dtype=np.int16)} if name in masks else arrays

    names = {"train": ["a0", "a1", "a2", "a3"], "val": ["b4", "b5"]}
    hdf5_file.write(folder / "data.h5", names, read, provenance={}, force=True)


@pytest.mark.parametrize(("place", "part", "fault"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_with_a_users_part_is_one_line(place: str, part: str, fault: str, tmp_path: Path) -> None:
    write_masks(tmp_path, {})
    path = experiment(tmp_path, place, part)
    with pytest.raises(UserError) as error:
        check(path)
    (line,) = error.value.faults
    assert "\n" not in line and line.replace(f"{tmp_path}/", "").startswith(fault)
    assert error.value.status == 2


def test_also_with_data(tmp_path: Path) -> None:
    write_masks(tmp_path, {})
    place, part, fault = FAULTS["model that raises"]
    with pytest.raises(UserError) as error:
        preflight(experiment(tmp_path, place, part))
    assert str(error.value).replace(f"{tmp_path}/", "").startswith(fault)


def test_a_bug_of_the_package_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_masks(tmp_path, {})
    (tmp_path / "study.toml").write_text(EXPERIMENT)
    monkeypatch.setattr("yeastexp.nets.unet.UNet.forward", lambda *anything: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        check(tmp_path / "study.toml")


# The masks

MASKS = {
    "sound": ({}, []),
    "an empty one": ({"a1": 0}, ["note     empty masks: 1 of 6 images have no foreground [a1]"]),
    "a full one": (
        {"b4": 1},
        ["warning  nearly full masks: 1 of 6 images are more than 90 % foreground, up to 100 % [b4]"],
    ),
    "empty ones that validate": (
        {"b4": 0, "b5": 0},
        [
            "warning  no foreground to score: no val image has any foreground [b4, b5]",
            "note     empty masks: 2 of 6 images have no foreground [b4, b5]",
        ],
    ),
    "unlabelled ones": ({"a0": -1}, ["warning  unlabelled images: 1 of 6 images have no labelled pixel [a0]"]),
    "one class": (
        dict.fromkeys(("a0", "a1", "a2", "a3"), 0),
        [
            "error    a single class: all training images have 'background' and nothing else [a0, a1, a2, a3]",
            "warning  empty masks: 4 of 6 images have no foreground [a0, a1, a2, a3]",
        ],
    ),
}


@pytest.mark.parametrize(("masks", "findings"), MASKS.values(), ids=MASKS)
def test_empty_masks_and_masks_of_one_class_are_found(
    masks: dict[str, int], findings: list[str], tmp_path: Path, call: Call
) -> None:
    write_masks(tmp_path, masks)
    path = tmp_path / "study.toml"
    path.write_text(EXPERIMENT)
    status, out, _ = call("check", str(path))
    lines = [line for line in out.splitlines() if line.startswith(("error ", "warning ", "note "))]
    assert lines == findings
    wrong = any(line.startswith("error") for line in findings)
    assert status == (2 if wrong else 0)
    assert out.splitlines()[-1] == f"{path}: " + ("1 error in the masks" if wrong else "no faults")


def test_scenes_of_augmentations_are_no_training_images(call: Call) -> None:
    cells = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"
    small = ["--set", "model.width=2", "--set", "runtime.threads=1"]
    status, out, _ = call("check", cells, *small, "--set", "augment.0.count=3")
    plain = call("check", cells, *small, "--set", "augment=[]")[1]
    assert status == 0 and out.splitlines()[-1] == f"{cells}: no faults"
    assert out.splitlines()[:2] == plain.splitlines()[:2]  # images and labels
