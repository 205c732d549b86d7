"""Inspection: parameters by hand, memory as measured, MACs in closed form, advice, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import Call, WriteExperiment
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from yeastexp import plugins
from yeastexp.errors import UserError
from yeastexp.inspection import model as room
from yeastexp.inspection.model.effective_field import POSITIONS, GradientDensity
from yeastexp.nets.costs import parameters, stepped
from yeastexp.nets.optimizers import adamw, sgd
from yeastexp.registry import model as models
from yeastexp.sample import Sample
from yeastexp.training.run import run

Inspect = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Models of a few pixels; several threads would wait for each other."""
    torch.set_num_threads(1)


def subject(model: nn.Module, image: tuple[int, int, int], **others: Any) -> room.Subject:
    given = {"batch": 2, "patch_size": None, "optimizer": stepped(adamw, model), **others}
    return room.Subject("x", model, image, **given)


def inspected(model: nn.Module, image: tuple[int, int, int] = (1, 32, 32), **others: Any) -> room.Inspection:
    return room.inspect(subject(model, image, **others))


def test_the_exercise() -> None:
    """(a) The parameters without biases, layer by layer; (b) the convolutional part: its size and receptive field."""
    options = ["widths=[16,32]", "kernels=3", "convolutions=2", "hidden=100"]
    found = room.as_json(room.inspect(room.of_model("cnn_classifier", options, (3, 56, 56), classes=10)))
    weights = [3 * 3 * 3 * 16, 3 * 3 * 16 * 16, 3 * 3 * 16 * 32, 3 * 3 * 32 * 32, 14 * 14 * 32 * 100, 100 * 10]
    assert [one["weights"] for one in found["parameters"]["by_layer"].values()] == weights
    assert [one["factors"] for one in found["parameters"]["by_layer"].values()] == [
        "3×3×3×16",
        "3×3×16×16",
        "3×3×16×32",
        "3×3×32×32",
        "6272×100",
        "100×10",
    ]
    assert found["parameters"]["without_bias"] == sum(weights)
    assert found["parameters"]["with_bias"] == sum(weights) + 2 * 16 + 2 * 32 + 100 + 10
    assert found["output_shape"] == [10]
    part = found["convolutional_part"]
    # Of 3×3 convolutions 1 + 2 + 2, pooled + 1, then 2 pixels apart + 4 + 4, pooled + 2.
    assert (part["output_shape"], part["cumulative_stride"]) == ([32, 14, 14], 4)
    assert [one["size"] for axis in part["receptive_field"].values() for one in axis] == [16, 16]
    assert list(found["receptive_field"]["height"]) == ["global"]
    assert "(Linear)" in found["receptive_field"]["width"]["global"]


class Biased(nn.Module):
    """Holds what is named after biases, and two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.bias, self.in_proj_bias = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_bias_is_what_is_named_so_at_the_end() -> None:
    (held,) = parameters(Biased())
    assert (held.weights, held.factors, held.biases) == (18, "9×2", 7)


def test_kernels_of_pools_are_shown() -> None:
    found = inspected(nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(1, 1, 5), nn.AvgPool2d((1, 2)), nn.ReLU()))
    assert [row["kernel"] for row in room.as_json(found)["layers"]] == [[3, 3], None, [1, 2], None]
    text = "\n".join(room.lines(found))
    assert "MaxPool2d 3×3 " in text and "AvgPool2d 1×2 " in text and "Conv2d  " in text


class Functional(nn.Module):
    """Pools and convolves without layers for it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 5, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(x, 2)
        return nn.functional.conv2d(nn.functional.avg_pool2d(x, (3, 1), 1), self.weight)


def test_kernels_of_operators_outside_of_layers_are_shown() -> None:
    found = inspected(Functional())
    kernels = {row["kind"]: row["kernel"] for row in room.as_json(found)["layers"]}
    assert kernels == {"max_pool2d": [2, 2], "avg_pool2d": [3, 1], "convolution": [5, 3]}
    assert "max_pool2d 2×2 " in "\n".join(room.lines(found))


class Renormed(nn.Module):
    """An operator that no rule covers."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, 3, 1, 1).renorm(2, 0, 1.0)


def test_a_field_that_is_measured_says_so() -> None:
    found = inspected(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Renormed()), (1, 64, 64))
    assert "operator aten::renorm is not supported" in room.as_json(found)["measured"]
    text = "\n".join(room.lines(found))
    assert "measured on pixels, at least that much; tiles are blended:" in text
    assert room.as_json(inspected(nn.Conv2d(1, 1, 3)))["measured"] is None


PLUGIN = """
from torch import nn
from yeastexp import model


@model("plugged")
def plugged(channels: int, classes: int, width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, classes, 1))
"""
SECOND = PLUGIN.replace("plugged", "other").replace("from torch import nn\nfrom yeastexp import model\n", "")


def test_a_plugin_file_is_inspected_without_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    Path("two.py").write_text(PLUGIN.replace("plugged", "first") + SECOND)
    Path("none.py").write_text("")
    with plugins.preserved():
        found = json.loads(call("--model", "mine.py", "--set", "width=5", "--json")[1])
        assert found["parameters"]["without_bias"] == 9 * 5 + 5 * 2
        found = json.loads(call("--model", "two.py:other", "--input", "2", "32", "32", "--json")[1])
        assert found["parameters"]["without_bias"] == 2 * 9 * 3 + 3 * 2
    for name, fault in (
        ("two.py", "--model two.py: name one of its models, as in two.py:first (there are first, other)"),
        ("two.py:third", "--model two.py:third: name one of its models"),
        ("none.py", "none.py: registers no model"),
        ("gone.py", "gone.py: cannot be read (No such file or directory)"),
    ):
        with plugins.preserved(), pytest.raises(UserError) as caught:
            room.of_model(name)
        assert fault in str(caught.value)


@pytest.mark.parametrize("name", list(models))
def test_the_totals_of_every_model_are_those_of_its_parameters(name: str) -> None:
    target = room.of_model(name, ["width=2"] if "width" in models.find(name).schema.keys else [])
    found = room.as_json(room.inspect(target))
    named = dict(target.model.named_parameters())
    held = found["parameters"]
    assert held["with_bias"] == sum(one.numel() for one in named.values())
    assert held["without_bias"] == sum(one.numel() for key, one in named.items() if not key.endswith("bias"))
    assert sum(one["affine_weights"] for one in held["by_layer"].values()) == held["affine_weights"]
    called = {row["layer"] for row in found["layers"]}
    assert set(held["by_layer"]) <= called
    assert json.loads(json.dumps(found)) == found
    assert found["layers"][-1]["output_shape"] == found["output_shape"]


class Shared(nn.Module):
    """A layer used twice, weights that two layers share, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(1, 1, 3, padding=1)
        self.other = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.other.weight = self.twice.weight
        self.scale = nn.Parameter(torch.ones(1, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.other(self.twice(self.twice(images))) * self.scale


def test_shared_parameters_count_once() -> None:
    found = inspected(Shared())
    assert sum(one.total for one in found.parameters) == 9 + 1 + 1
    assert {one.layer: one.factors for one in found.parameters} == {"": "1×1×1×1", "twice": "3×3×1×1"}
    assert [(row.layer, row.parameters is not None) for row in found.rows] == [
        ("twice", True),
        ("twice", False),
        ("other", False),
    ]
    assert found.macs == 3 * 9 * 32 * 32
    assert any("the model itself: 1 parameters beside these layers" in line for line in room.lines(found))


@pytest.mark.parametrize(
    ("layer", "factors", "numbers"),
    [
        (nn.Conv2d(4, 6, (3, 5), groups=2), "3×5×2×6", (180, 6, 0, 0)),
        (nn.ConvTranspose2d(4, 6, 2, 2), "2×2×4×6", (96, 6, 0, 0)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), "3×3×4×3", (108, 0, 0, 0)),
        (nn.BatchNorm2d(4), "", (0, 0, 4, 4)),
        (nn.GroupNorm(2, 4), "", (0, 0, 4, 4)),
        (nn.LayerNorm([4, 32, 32], bias=False), "", (0, 0, 4096, 0)),
        (nn.PReLU(4), "4", (4, 0, 0, 0)),
    ],
    ids=str,
)
def test_how_weights_come_about(layer: nn.Module, factors: str, numbers: tuple[int, ...]) -> None:
    (found,) = inspected(layer, (4, 32, 32)).parameters
    assert found.factors == factors
    assert (found.weights, found.biases, found.affine_weights, found.affine_biases) == numbers
    assert found.total == sum(one.numel() for one in layer.parameters())


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (nn.Conv2d(4, 6, (3, 5), padding=(1, 2)), 3 * 5 * 4 * 6 * 32 * 32),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), 3 * 3 * 2 * 6 * 16 * 16),
        (nn.ConvTranspose2d(4, 6, 2, 2), 2 * 2 * 4 * 6 * 32 * 32),
        (nn.Sequential(nn.Flatten(), nn.Linear(4 * 32 * 32, 7)), 4 * 32 * 32 * 7),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), 0),
    ],
    ids=str,
)
def test_macs_in_closed_form(layer: nn.Module, count: int) -> None:
    found = inspected(nn.Sequential(layer), (4, 32, 32))
    assert found.macs == count == sum(row.macs or 0 for row in found.rows)


def measured(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes of the storages that a real forward pass in training saves, but for the model's own."""
    own = {StorageWeakRef(one.untyped_storage()) for one in (*model.parameters(), *model.buffers())}
    saved: dict[StorageWeakRef, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(torch.randn(shape))
    return sum(storage.nbytes() for key, storage in saved.items() if key not in own)


@pytest.mark.parametrize("name", list(models))
def test_the_activations_are_those_that_a_real_step_saves(name: str) -> None:
    channels, side = 2, 56
    target = room.of_model(name, [], (channels, side, side), classes=3)
    memory = room.inspect(target).memory
    assert memory.activations == measured(target.model, (target.batch, channels, side, side)) > 0


def test_memory_by_hand() -> None:
    """The convolution saves its input; ReLU in place its output, which is the convolution's storage."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(True), nn.Conv2d(4, 2, 1))
    found = inspected(model, (3, 8, 8), batch=5, optimizer=stepped(sgd, model)).memory
    parameters = 3 * 4 + 4 + 4 * 2 + 2
    assert (found.parameters, found.gradients, found.optimizer_state) == (4 * parameters,) * 3
    assert found.activations == 4 * 5 * 8 * 8 * (3 + 4)
    assert found.total == 12 * parameters + found.activations


def test_the_optimizers_state_is_that_of_a_step() -> None:
    model = nn.Conv2d(1, 1, 3, bias=False)
    adam = inspected(model).memory.optimizer_state
    assert adam == 2 * 9 * 4 + 4  # two moments, and the number of steps
    before = model.weight.detach().clone()
    inspected(model)
    assert torch.equal(model.weight, before) and model.weight.grad is None


def test_the_largest_activations_take_memory_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    assert [(row.layer, row.shape) for row in inspected(model).largest] == [
        ("0", (4, 32, 32)),
        ("2", (4, 16, 16)),
        ("3", (2, 16, 16)),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train(training)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    inspected(model)
    assert all(layer.training == training for layer in model.modules())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_an_experiment_does_not_need_its_data(experiment_file: WriteExperiment) -> None:
    path = experiment_file()
    with_data = room.of_experiment(path)
    (path.parent / "data.h5").unlink()
    without = room.of_experiment(path)
    assert with_data.cell_diameters and not without.cell_diameters
    assert (without.image, without.batch, without.patch_size) == ((1, 16, 16), 4, 16)
    assert room.inspect(without).parameters == room.inspect(with_data).parameters


def test_cells_are_measured_after_the_transforms(experiment_file: WriteExperiment) -> None:
    """Squares of side 8 to 12, as circles of their area; after downscaling half as wide."""
    sides = [8 + index % 5 for index in range(4)]
    assert room.of_experiment(experiment_file()).cell_diameters == pytest.approx(
        [2 * side / sqrt(pi) for side in sides]
    )
    half = experiment_file({'name = "zscore"': 'name = "downscale"'}, name="half.toml")
    assert room.of_experiment(half).cell_diameters == pytest.approx(
        [2 * np.ceil(side / 2) / sqrt(pi) for side in sides], abs=2 / sqrt(pi)
    )


def test_instances_that_touch_are_cells_of_their_own() -> None:
    labels = torch.ones(4, 8, dtype=torch.int64)
    instances = torch.ones(4, 8, dtype=torch.int64)
    instances[:, 4:] = 2
    assert room.diameters(instances, labels) == pytest.approx([2 * sqrt(16 / pi)] * 2)
    assert room.diameters(None, labels) == pytest.approx([2 * sqrt(32 / pi)])
    assert room.diameters(None, labels - 2) == []


@pytest.mark.parametrize(
    ("kernel", "patch_size", "diameters", "advice"),
    [
        (3, None, (), []),
        (3, 16, (2.0,), []),
        (17, 16, (), ["patches of 16 pixels are smaller than the receptive field of 17×17 pixels"]),
        (17, 17, (), []),
        (5, 16, (4.0, 5.5, 90.0), ["cells are larger than the receptive field of 5×5 pixels: 6 pixels across"]),
        (5, 16, (4.0, 5.0, 90.0), []),
    ],
)
def test_advice_where_sizes_do_not_go_together(
    kernel: int, patch_size: int | None, diameters: tuple[float, ...], advice: list[str]
) -> None:
    model = nn.Conv2d(1, 1, kernel, padding=kernel // 2)
    found = inspected(model, patch_size=patch_size, cell_diameters=diameters).advice
    assert len(found) == len(advice)
    assert all(one.startswith(start) for one, start in zip(found, advice, strict=True))


def test_advice_where_a_norm_makes_the_field_global() -> None:
    (advice,) = inspected(nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2)), patch_size=16).advice
    assert advice.startswith(
        "every output depends on the whole image, through 1 (InstanceNorm2d): in training on a patch of 16 pixels"
    )


@pytest.fixture
def call(call: Call) -> Call:
    """`call("--model", "unet")` runs `inspect`."""
    return partial(call, "inspect")


def test_the_command_on_an_experiment(call: Call, experiment_file: WriteExperiment) -> None:
    path = str(experiment_file())
    status, out, err = call(path, "--set", "model.width=3")
    assert (status, err) == (0, "")
    assert out.startswith(f"{path}: unet, an image of 1×16×16 (C×H×W)\n")
    assert "3×3×4×3 = 108" in out and "training step" in out and "batch of 4" in out
    status, out, _ = call(path, "--set", "model.width=3", "--json", "--input", "1", "64", "48")
    found = json.loads(out)
    assert status == 0 and found["input"] == [1, 64, 48] and found["output_shape"] == [2, 64, 48]
    assert {"phase", "before", "after", "size"} == set(found["receptive_field"]["height"][0])
    assert len(found["receptive_field"]["width"]) == found["cumulative_stride"] == 4
    assert all(one["size"] == one["before"] + 1 + one["after"] for one in found["receptive_field"]["height"])


def test_the_command_on_a_model(call: Call) -> None:
    options = ["--model", "unet", "--set", "width=2", "--set", "model.space_to_depth=1", "--set", 'norm="none"']
    status, out, err = call(*options, "--classes", "3", "--json", "--set", "levels=5")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert (found["input"][0], found["output_shape"][0]) == (1, 3)
    assert found["cumulative_stride"] == 16 and {one["size"] for one in found["receptive_field"]["height"]} == {
        188,
        204,
    }
    status, out, _ = call(*options, "--set", "levels=5")
    assert status == 0 and "204 pixels at 12 of 16 phases, 188 pixels at 4 of 16 phases" in out


def test_the_text_says_what_counts(call: Call) -> None:
    _, out, _ = call("--model", "unet", "--set", "width=2", "--set", "levels=1")
    assert "without biases, with the 4 affine weights of norms, without their 4 biases" in out
    _, out, _ = call("--model", "unet", "--set", "width=2", "--set", "norm=instance")
    assert "the whole image, through down.0.1 (InstanceNorm)" in out


def _no_module(channels: int, classes: int) -> Callable[[Tensor], Tensor]:
    return abs


class _Colours(nn.Module):
    """Made for three channels, whatever it is asked for."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.first(images)
        return made


class _Deep(nn.Sequential):
    """Six poolings, and back."""

    def __init__(self, channels: int, classes: int) -> None:
        pools = [nn.MaxPool2d(2) for _ in range(6)]
        super().__init__(*pools, nn.Conv2d(channels, classes, 1), nn.BatchNorm2d(classes), nn.Upsample(scale_factor=64))


class _Undecided(nn.Module):
    """Takes a way that depends on the pixels."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()

    def forward(self, images: Tensor) -> Tensor:
        return images if images.mean() > 0 else -images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no_module"], "model 'no_module': makes a builtin_function_or_method, which is not an nn.Module"),
        (
            ["--model", "undecided"],
            "layer _Undecided: cannot be run on an image of 1×256×256 (C×H×W): it asks for the values of pixels "
            "(Tensor.item() cannot be called on meta tensors); let it decide by shapes, or with torch.where\n",
        ),
        (
            ["--model", "colours"],
            "layer first (Conv2d): cannot be run on an image of 1×256×256 (C×H×W): its weights are made for 3 channels "
            "and it is given 1\n",
        ),
        (
            ["--model", "deep", "--input", "1", "32", "48"],
            "layer 5 (MaxPool2d): cannot be run on an image of 1×32×48 (C×H×W): Given input size: (1x1x1). Calculated "
            "output size: (1x0x0). Output size is too small; it takes one of 64×96 pixels\n",
        ),
        (["--model", "unett"], "unknown model 'unett'; did you mean 'unet'?"),
        (["--model", "unet", "--set", "wdith=2"], "--model unet: wdith: unknown key; did you mean 'width'?"),
        (["--model", "unet", "--set", "width=0"], "--model unet: width: should be greater than or equal to 1, got 0"),
        (["--model", "unet", "--set", "train.epochs=2"], "with --model only the model's options can be set"),
        (["--model", "cnn_classifier", "--set", "kernels=2"], "model 'cnn_classifier' kernels: 2 is even"),
        (["--model", "cnn_classifier", "--input", "3", "8", "8"], "images of 56×56 pixels, not 8×8"),
        (["none.toml"], "none.toml: no such experiment file"),
        ([], "give an EXPERIMENT or a --model"),
        (["none.toml", "--model", "unet"], "give an EXPERIMENT or a --model"),
        (["--model", "unet", "--effective"], "--effective is of a RUN as it was trained"),
        (["runs/x/001", "--effective", "--set", "model.width=3"], "--effective is of a RUN as it was trained"),
        (["runs/x/001", "-o", "field.png"], "-o goes with --effective"),
        (["--model", "unet", "--input", "0", "8", "8"], "0 is not in the range"),
    ],
    ids=str,
)
def test_what_is_refused(call: Call, arguments: list[str], message: str) -> None:
    models("no_module")(_no_module)
    models("undecided")(_Undecided)
    models("colours")(_Colours)
    models("deep")(_Deep)
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert message in err and "Traceback" not in err


def test_an_experiment_has_the_channels_it_says(experiment_file: WriteExperiment) -> None:
    with pytest.raises(UserError, match=r"--input: has 3 channels, but \[task\] channels of .*tiny.toml is 1"):
        room.of_experiment(experiment_file(), [], (3, 16, 16))


def test_an_experiment_whose_model_is_none(experiment_file: WriteExperiment, call: Call) -> None:
    models("no_module")(_no_module)
    path = experiment_file({'name = "unet"\nwidth = 2\nlevels = 2': 'name = "no_module"'})
    status, out, err = call(str(path))
    assert (status, out) == (2, "")
    assert err == f"{path}:14:1: [model] name: 'no_module' makes no nn.Module\n"


def test_a_batch_that_only_fails_in_training_is_one_line() -> None:
    with pytest.raises(UserError) as caught:
        inspected(_Deep(1, 2), (1, 64, 64), batch=1)
    assert str(caught.value) == (
        "model _Deep: cannot be trained on 1×1×64×64 (B×C×H×W): Expected more than 1 value per channel when training, "
        "got input size torch.Size([1, 2, 1, 1])"
    )


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on a tiny data set."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        made = run(tiny.write_experiment(folder), ["train.epochs=1"], console=Console(quiet=True))
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    return folder / made


def test_a_run_is_looked_into_as_its_experiment_is(run_directory: Path) -> None:
    of_run = room.as_json(room.inspect(room.of_experiment(run_directory)))
    of_file = room.as_json(room.inspect(room.of_experiment(run_directory.parents[2] / "tiny.toml")))
    assert of_run.pop("model") == f"{run_directory}: unet" and of_file.pop("model")
    assert of_run == of_file and of_run["effective_receptive_field"] is None
    assert of_run["patch_size"] == 16 and of_run["cell_diameter"]["cells"] == 4


def test_the_effective_field_of_a_run(run_directory: Path, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "field.png"
    status, out, err = call(str(run_directory), "--effective", "-o", str(path), "--json")
    found = json.loads(out)
    effective = found["effective_receptive_field"]
    assert (status, err) == (0, f"{path}\n")
    assert {key: effective[key] for key in ("checkpoint", "step", "images", "positions")} == {
        "checkpoint": "best",
        "step": effective["step"],
        "images": 2,
        "positions": 2 * POSITIONS,
    }
    largest = max(one["size"] for axis in found["receptive_field"].values() for one in axis)
    assert 1 <= effective["side_50"] <= effective["side_95"] <= largest + found["cumulative_stride"]
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
    status, out, err = call(str(run_directory), "--effective", "-o", str(path))
    assert (status, out) == (2, "") and err == f"{path}: exists; add --force to replace it, or name another file\n"
    status, out, _ = call(str(run_directory), "--effective", "-o", str(path), "--force")
    side = effective["side_95"]
    assert status == 0 and out.splitlines()[-1] == str(path)
    assert f"effective field      95 % of the gradient within {side}×{side} pixels, half of it within" in out


def test_a_folder_that_is_no_run(call: Call, tmp_path: Path) -> None:
    status, out, err = call(str(tmp_path), "--effective")
    assert (status, out) == (2, "") and err == (
        f"{tmp_path}: not a run directory; 'run' prints its path on the last line\n"
    )


def test_a_run_without_a_checkpoint_or_data(run_directory: Path, call: Call, tmp_path: Path) -> None:
    copy = tmp_path / "001"
    shutil.copytree(run_directory, copy)
    text = (copy / "experiment.toml").read_text()
    (copy / "experiment.toml").write_text(re.sub('path = ".*"', 'path = "gone.h5"', text))
    status, out, err = call(str(copy), "--effective")
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "gone.h5" in err
    (copy / "checkpoints" / "best.pt").unlink()
    status, out, err = call(str(copy), "--effective")
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "best.pt" in err


@pytest.mark.parametrize(("diameter", "advised"), [(2.0, False), (3.1, True)])
def test_advice_where_a_trained_model_uses_parts_of_cells(diameter: float, advised: bool) -> None:
    found = inspected(nn.Conv2d(1, 1, 5, padding=2), patch_size=16, cell_diameters=(diameter,))
    density = np.zeros((5, 5))
    density[1:4, 1:4] = 1 / 9
    sample = Sample(torch.zeros(1, 16, 16), torch.zeros(16, 16, dtype=torch.int64), "x")
    looks = replace(found, effective=room.EffectiveField(GradientDensity(density, 4), 1, 1, sample))
    start = "cells are larger than the effective receptive field, 95 % of the gradient within 3×3 pixels: 3 pixels"
    assert [one.startswith(start) for one in looks.advice] == [True] * advised


@pytest.mark.parametrize("model", [nn.Conv2d(1, 2, 3, padding=1), nn.InstanceNorm2d(1)], ids=["square", "everything"])
@pytest.mark.parametrize(("window", "diameters"), [(None, ()), (8, (90.0,))])
def test_the_picture_of_any_field(model: nn.Module, window: int | None, diameters: tuple[float, ...]) -> None:
    found = inspected(model, (1, 16, 16), patch_size=window, cell_diameters=diameters)
    spread = GradientDensity(np.full((7, 7), 1 / 49), 4)
    sample = Sample(torch.arange(256.0).view(1, 16, 16), torch.zeros(16, 16, dtype=torch.int64), "x")
    made = room.picture(replace(found, effective=room.EffectiveField(spread, 1, 1, sample)))
    assert made.dtype == np.uint8 and made.shape[2] == 3
