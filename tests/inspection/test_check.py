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
HANDLER = "[train]"
OPTIMIZER = 'name = "adamw"\nlearning_rate = 0.01'
SCHEDULER = 'name = "one_cycle"'
AUGMENT = 'name = "rotate90"'
TRANSFORM = 'name = "zscore"'
DATASET = 'name = "hdf5"\npath = "data.h5"'
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


TASK_THAT = """@task("mine")
class Mine(Task):
    planes = ()
    def __init__(self, channels, classes):
        self.outputs = classes
    def targets(self, sample):
        return sample.labels[None]
    def loss(self, outputs, targets, criterion):
        return criterion(outputs, targets[:, 0])
    def decode(self, outputs):
        return Prediction(outputs.argmax(0))"""
DATASET_THAT = """@dataset("mine")
class Mine:
    maps = ()
    normalization = None
    splits = {"train": ["a", "b"], "val": ["c"]}
    def shape(self, name):
        return (1, 32, 32)  # of all
    def read(self, name):
        return Sample(torch.zeros(1, 32, 32), torch.eye(32).long(), name)"""

FAULTS = {
    "model that gives a dictionary": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        return {"out": self.layer(images), "aux": None}""",
        "study.toml:15:1: [model] name: gives a dict of 'out', 'aux' for images (4, 1, 16, 16), not (4, 2, "
        "16, 16) (B, O, H, W); let it return one tensor",
    ),
    "model that gives a dictionary when it does not train": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        return self.layer(images) if self.training else [self.layer(images)]""",
        "study.toml:15:1: [model] name: gives a list for images (1, 1, 32, 32), not (1, 2, 32, 32) (B, O, H, W); "
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
    # What a part is called with, and what it lacks: no line of it is on the way.
    "loss that takes one argument": (
        LOSS,
        """@loss("mine")
def mine(classes):
    return lambda outputs: outputs.mean()""",
        "mine.py:10: loss 'mine': TypeError: mine.<locals>.<lambda>() takes 1 positional argument but 2 were given",
    ),
    "loss of PyTorch for other targets": (
        LOSS,
        """@loss("mine")
def mine(classes):
    return nn.BCEWithLogitsLoss()""",
        "mine.py:10: loss 'mine': ValueError: Target size (torch.Size([4, 16, 16])) must be the same as input size",
    ),
    "model without forward": (
        NET,
        """@model("mine")
class Mine(Net): ...""",
        "mine.py:10: model 'mine': NotImplementedError: Module [Mine] is missing the required \"forward\" function",
    ),
    "model that changes its input": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        outputs = self.layer(images)
        images.zero_()
        return outputs""",
        "mine.py:10: model 'mine': RuntimeError: one of the variables needed for gradient computation has been",
    ),
    "metric that takes too much": (
        METRIC,
        metric_that("labels", "counts").replace("labels)", "labels, more)"),
        "mine.py:10: metric 'mine': TypeError: Mine.counts() missing 1 required positional argument: 'more'",
    ),
    "metric that scores nothing": (
        METRIC,
        metric_that("labels.sum()", "counts").replace("def score", "def scores"),
        "mine.py:10: metric 'mine': NotImplementedError: Mine has to score its counts",
    ),
    "optimizer that wants a closure": (
        OPTIMIZER,
        """@optimizer("mine")
def mine(parameters):
    return torch.optim.LBFGS(parameters)""",
        "mine.py:10: optimizer 'mine': TypeError: LBFGS.step() missing 1 required positional argument: 'closure'",
    ),
    "optimizer without learning rate": (
        OPTIMIZER,
        """@optimizer("mine")
class Mine(torch.optim.Optimizer):
    def __init__(self, parameters): super().__init__(parameters, {})""",
        "mine.py:10: optimizer 'mine': KeyError: 'lr'",
    ),
    "transform with a parameter too few": (
        AUGMENT,
        """@transform("mine")
class Mine(BasicTransform2D):
    def image(self, image):
        return image""",
        "mine.py:10: transform 'mine': TypeError: Mine.image() takes 2 positional arguments but 3 were given",
    ),
    "task whose loss takes no criterion": (
        TASK,
        TASK_THAT.replace("targets, criterion)", "targets)").replace("criterion(", "nn.functional.cross_entropy("),
        "mine.py:10: task 'mine': TypeError: Mine.loss() takes 3 positional arguments but 4 were given",
    ),
    # What they give.
    "model without gradient": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        return self.layer(images).detach()""",
        "study.toml:15:1: [model] name: gives outputs without gradient; compute them from its weights",
    ),
    "model that gives classes": (
        NET,
        """@model("mine")
class Mine(Net):
    def forward(self, images):
        return self.layer(images).long()""",
        "study.toml:15:1: [model] name: gives an int64 tensor (4, 2, 16, 16); let it return logits as "
        "floating-point numbers",
    ),
    "model without weights": (
        NET,
        """@model("mine")
class Mine(nn.Module):
    def __init__(self, channels, outputs): super().__init__()""",
        "study.toml:15:1: [model] name: 'mine' has no weights to train",
    ),
    "model of lazy layers": (
        NET,
        """@model("mine")
def mine(channels, outputs):
    return nn.LazyConv2d(outputs, 1)""",
        "study.toml:15:1: [model] name: 'mine' has lazy layers, whose weights are not there yet; say how many channels",
    ),
    "metric whose counts grow": (
        METRIC,
        metric_that("torch.ones(int(labels.sum())).long()", "counts[0]"),
        "mine.py:10: 'counts' of Mine gives torch.int64 (64,); return as many numbers for each image, 144 as before",
    ),
    "metric that scores no sums": (
        METRIC,
        metric_that("torch.ones(1).long()", "counts / (2 - counts if counts < 2 else [][1])"),
        "mine.py:16: IndexError: list index out of range",
    ),
    "metric with another headline": (
        METRIC,
        metric_that("labels.sum()", "counts") + "\n    def headline(self, rows, classes): return 'best'",
        "study.toml:28:1: [[metric]] name: 'headline' of 'mine' gives 'best', which is none of its rows: all",
    ),
    "metric with one bound": (
        METRIC,
        metric_that("labels.sum()", "counts") + "\n    bounds = 1",
        "study.toml:28:1: [[metric]] name: 'mine' has bounds = 1; say the lowest and the highest score",
    ),
    "task that decodes unknown classes": (
        TASK,
        TASK_THAT.replace("argmax(0)", "argmax(0) + 5"),
        "study.toml:3:1: [task] name: 'mine': 'decode' gives classes up to 6; return indices from 0 to 1",
    ),
    "task that decodes no indices": (
        TASK,
        TASK_THAT.replace("argmax(0)", "argmax(0).float()"),
        "study.toml:3:1: [task] name: 'mine': 'decode' gives a float32 tensor (32, 32) for outputs (2, 32, 32); return "
        "a class index for each pixel",
    ),
    "task that forgets a value": (
        TASK,
        TASK_THAT + "\n    values = ('edge',)",
        "study.toml:3:1: [task] name: 'mine': 'decode' gives no 'edge', which is among its values",
    ),
    "task with a misspelt interpolation": (
        TASK,
        TASK_THAT + "\n    planes = ('nearst',)",
        "study.toml:3:1: [task] name: 'mine' has planes = ('nearst',); say 'nearest' or 'bilinear' of each plane",
    ),
    "task without outputs": (
        TASK,
        TASK_THAT.replace("self.outputs = classes", "self.outputs = '2'"),
        "study.toml:3:1: [task] name: 'mine' has outputs = '2'; say how many channels the model has to give",
    ),
    "task without a loss": (
        TASK,
        TASK_THAT.replace("return criterion", "criterion"),
        "study.toml:3:1: [task] name: 'mine' gives None; " + SCALAR,
    ),
    "scheduler that ends early": (
        SCHEDULER,
        """@scheduler("mine")
def mine(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps // 2)""",
        "mine.py:10: scheduler 'mine': ValueError: Tried to step 5 times. The specified number of total steps is 4",
    ),
    "scheduler that wants a score": (
        SCHEDULER,
        """@scheduler("mine")
def mine(optimizer, steps):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)""",
        "mine.py:10: scheduler 'mine': TypeError: ReduceLROnPlateau.step() missing 1 required positional argument",
    ),
    "augmentation with labels of another size": (
        AUGMENT,
        """@transform("mine")
class Mine(BasicTransform2D):
    def labels(self, labels, params):
        return labels[None]""",
        "mine.py:10: 'labels' of Mine gives a tensor of int64 (1, 16, 16) for a tensor of int64 (16, 16); return one",
    ),
    "augmentation with half a matrix": (
        AUGMENT,
        """@transform("mine")
class Mine(BasicTransform2D):
    def geometry(self, size, params):
        return torch.eye(3), size""",
        "mine.py:10: 'geometry' of Mine gives a tuple of a float32 tensor (3, 3), a tuple of an int, an int for size",
    ),
    "augmentation with labels beyond the classes": (
        AUGMENT,
        """@transform("mine")
class Mine(BasicTransform2D):
    def labels(self, labels, params):
        return labels + 7""",
        "mine.py:10: 'labels' of Mine gives the label 8 where [task] classes has 0 to 1; return class indices, -1",
    ),
    "transform with labels below the classes": (
        TRANSFORM,
        """@transform("mine")
class Mine(BasicTransform2D):
    def labels(self, labels, params):
        return labels - 5""",
        "mine.py:10: 'labels' of Mine gives the label -5 where [task] classes has 0 to 1; return class indices, -1",
    ),
    "handler that attaches to one engine": (
        HANDLER,
        """@handler("mine")
class Mine:
    def __init__(self, context): ...
    def attach(self, trainer): ...""",
        "study.toml:30:1: [[handler]] name: 'attach' of 'mine' is called as attach(trainer, validator)",
    ),
    "data set whose splits are a list": (
        DATASET,
        DATASET_THAT.replace('{"train": ["a", "b"], "val": ["c"]}', '["a", "b", "c"]'),
        "study.toml:6:1: [dataset] name: 'mine': splits is a list; give the names of the images of each, as in",
    ),
    "data set that validates on what it trains on": (
        DATASET,
        DATASET_THAT.replace('["c"]', '["a"]'),
        "study.toml:6:1: [dataset] name: 'mine': splits names 'a' more than once, in train and val; an image belongs",
    ),
    "data set without a standard deviation": (
        DATASET,
        DATASET_THAT.replace("None", '{"mean": 0.0}'),
        "study.toml:6:1: [dataset] name: 'mine': normalization is a dict of 'mean'; give None, or 'mean' and 'std'",
    ),
    "data set whose shapes lack channels": (
        DATASET,
        DATASET_THAT.replace("(1, 32, 32)  #", "(32, 32)  #"),
        "study.toml:6:1: [dataset] name: 'mine': shape('a') gives (32, 32); give (C, H, W)",
    ),
    "data set whose maps are none": (
        DATASET,
        DATASET_THAT.replace("maps = ()", "maps = None"),
        "study.toml:6:1: [dataset] name: 'mine': maps is None; give the names of the further label maps, () for none",
    ),
}


def experiment(folder: Path, place: str, part: str) -> Path:
    """A file in a folder with a user's part in the place of another, and the data."""
    mine = {TASK: '[task]\nname = "mine"', HANDLER: '[[handler]]\nname = "mine"\n[train]'}.get(place, 'name = "mine"')
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


def test_a_loss_that_counts_in_python(tmp_path: Path) -> None:
    part = """@loss("mine")
class Mine(nn.CrossEntropyLoss):
    def __init__(self, classes): super().__init__()
    def count(self, labels): return labels.numel()"""
    write_masks(tmp_path, {})
    with pytest.raises(UserError, match="'mine': 'count' gives an int; return a scalar tensor"):
        check(experiment(tmp_path, LOSS, part), ["train.accumulation_steps=2"])


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
    "nothing labelled": (
        dict.fromkeys(("a0", "a1", "a2", "a3"), -1),
        [
            "error    a single class: no training image has a labelled pixel [a0, a1, a2, a3]",
            "warning  unlabelled images: 4 of 6 images have no labelled pixel [a0, a1, a2, a3]",
        ],
    ),
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
    warnings = sum(line.startswith("warning") for line in lines)
    verdict = f"no errors, {warnings} warning about the masks" if warnings else "no faults"
    assert out.splitlines()[-1] == f"{path}: " + ("1 error in the masks" if wrong else verdict)


def test_scenes_of_augmentations_are_no_training_images(call: Call) -> None:
    cells = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"
    small = ["--set", "model.width=2", "--set", "runtime.threads=1"]
    status, out, _ = call("check", cells, *small, "--set", "augment.0.count=3")
    plain = call("check", cells, *small, "--set", "augment=[]")[1]
    assert status == 0 and out.splitlines()[-1] == f"{cells}: no faults"
    assert out.splitlines()[:2] == plain.splitlines()[:2]  # images and labels
