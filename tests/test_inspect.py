"""Inspection: parameters by hand, memory as measured, multiply-adds in closed form, advice, what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from conftest import WriteExperiment
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from yeastexp import __main__ as command_line
from yeastexp import inspect as room
from yeastexp.errors import UserError
from yeastexp.optimizers import sgd
from yeastexp.registry import model as models

Inspect = Callable[..., dict[str, Any]]


def subject(model: nn.Module, image: tuple[int, int, int], **others: Any) -> room.Subject:
    given = {"batch": 2, "window": None, "optimizer": room.stepped(room.adamw, model), **others}
    return room.Subject("x", model, image, **given)


def looked_into(model: nn.Module, image: tuple[int, int, int] = (1, 32, 32), **others: Any) -> room.Inspection:
    return room.inspect(subject(model, image, **others))


def test_the_exercise() -> None:
    """(a) The parameters without biases, layer by layer; (b) the convolutional part: its size, and what it sees."""
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
    assert (part["output_shape"], part["jump"]) == ([32, 14, 14], 4)
    assert [one["size"] for axis in part["receptive_field"].values() for one in axis] == [16, 16]
    assert list(found["receptive_field"]["height"]) == ["whole image"]
    assert "(Linear)" in found["receptive_field"]["width"]["whole image"]


@pytest.mark.parametrize("name", list(models))
def test_the_totals_of_every_model_are_those_of_its_parameters(name: str) -> None:
    looked = room.of_model(name, ["width=2"] if "width" in models.find(name).schema.keys else [])
    found = room.as_json(room.inspect(looked))
    named = dict(looked.model.named_parameters())
    held = found["parameters"]
    assert held["with_bias"] == sum(one.numel() for one in named.values())
    assert held["without_bias"] == sum(one.numel() for key, one in named.items() if not key.endswith("bias"))
    assert sum(one["norm_scales"] for one in held["by_layer"].values()) == held["norm_scales"]
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
    found = looked_into(Shared())
    assert sum(one.total for one in found.parameters) == 9 + 1 + 1
    assert {one.layer: one.factors for one in found.parameters} == {"": "1×1×1×1", "twice": "3×3×1×1"}
    assert [(row.layer, row.parameters is not None) for row in found.rows] == [
        ("twice", True),
        ("twice", False),
        ("other", False),
    ]
    assert found.multiply_adds == 3 * 9 * 32 * 32
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
    (found,) = looked_into(layer, (4, 32, 32)).parameters
    assert found.factors == factors
    assert (found.weights, found.biases, found.norm_scales, found.norm_shifts) == numbers
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
def test_multiply_adds_in_closed_form(layer: nn.Module, count: int) -> None:
    found = looked_into(nn.Sequential(layer), (4, 32, 32))
    assert found.multiply_adds == count == sum(row.multiply_adds or 0 for row in found.rows)


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
    looked = room.of_model(name, [], (channels, side, side), classes=3)
    memory = room.inspect(looked).memory
    assert memory.activations == measured(looked.model, (looked.batch, channels, side, side)) > 0


def test_memory_by_hand() -> None:
    """The convolution saves its input; ReLU in place its output, which is the convolution's storage."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(True), nn.Conv2d(4, 2, 1))
    found = looked_into(model, (3, 8, 8), batch=5, optimizer=room.stepped(sgd, model)).memory
    parameters = 3 * 4 + 4 + 4 * 2 + 2
    assert (found.parameters, found.gradients, found.optimizer_state) == (4 * parameters,) * 3
    assert found.activations == 4 * 5 * 8 * 8 * (3 + 4)
    assert found.total == 12 * parameters + found.activations


def test_the_optimizers_state_is_that_of_a_step() -> None:
    model = nn.Conv2d(1, 1, 3, bias=False)
    adam = looked_into(model).memory.optimizer_state
    assert adam == 2 * 9 * 4 + 4  # two moments, and the number of steps
    before = model.weight.detach().clone()
    looked_into(model)
    assert torch.equal(model.weight, before) and model.weight.grad is None


def test_the_largest_activations_take_memory_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    assert [(row.layer, row.shape) for row in looked_into(model).largest] == [
        ("0", (4, 32, 32)),
        ("2", (4, 16, 16)),
        ("3", (2, 16, 16)),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train(training)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    looked_into(model)
    assert all(layer.training == training for layer in model.modules())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_an_experiment_does_not_need_its_data(experiment_file: WriteExperiment) -> None:
    path = experiment_file()
    with_data = room.of_experiment(path)
    (path.parent / "data.h5").unlink()
    without = room.of_experiment(path)
    assert with_data.cell_diameters and not without.cell_diameters
    assert (without.image, without.batch, without.window) == ((1, 16, 16), 4, 16)
    assert room.inspect(without).parameters == room.inspect(with_data).parameters


def test_cells_are_measured_as_the_model_sees_them(experiment_file: WriteExperiment) -> None:
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
    ("kernel", "window", "diameters", "advice"),
    [
        (3, None, (), []),
        (3, 16, (2.0,), []),
        (17, 16, (), ["the window of 16 pixels is smaller than the receptive field of 17×17 pixels"]),
        (17, 17, (), []),
        (5, 16, (4.0, 5.5, 90.0), ["the cells are larger than the receptive field of 5×5 pixels: 6 pixels across"]),
        (5, 16, (4.0, 5.0, 90.0), []),
    ],
)
def test_advice_where_figures_clash(
    kernel: int, window: int | None, diameters: tuple[float, ...], advice: list[str]
) -> None:
    model = nn.Conv2d(1, 1, kernel, padding=kernel // 2)
    found = looked_into(model, window=window, cell_diameters=diameters).advice
    assert len(found) == len(advice)
    assert all(one.startswith(start) for one, start in zip(found, advice, strict=True))


def test_advice_where_a_norm_sees_the_whole_window() -> None:
    (advice,) = looked_into(nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2)), window=16).advice
    assert advice.startswith("every output sees the whole image through 1 (InstanceNorm2d): a window of 16 pixels")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`call("--model", "unet")` gives exit status, stdout and stderr of `inspect`."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["yeastexp", "inspect", *arguments])
        status: Any = 0
        try:
            command_line.main()
        except SystemExit as leaving:
            status = leaving.code
        return (status, *capsys.readouterr())

    return run


def test_the_command_on_an_experiment(
    call: Callable[..., tuple[int, str, str]], experiment_file: WriteExperiment
) -> None:
    path = str(experiment_file())
    status, out, err = call(path, "--set", "model.width=3")
    assert (status, err) == (0, "")
    assert out.startswith(f"{path}: unet, an image of 1×16×16 (C×H×W)\n")
    assert "3×3×4×3 = 108" in out and "training step" in out and "batch of 4" in out
    status, out, _ = call(path, "--set", "model.width=3", "--json", "--input", "1", "64", "48")
    found = json.loads(out)
    assert status == 0 and found["input"] == [1, 64, 48] and found["output_shape"] == [2, 64, 48]
    assert {"phase", "before", "after", "size"} == set(found["receptive_field"]["height"][0])
    assert len(found["receptive_field"]["width"]) == found["jump"] == 4
    assert all(one["size"] == one["before"] + 1 + one["after"] for one in found["receptive_field"]["height"])


def test_the_command_on_a_model(call: Callable[..., tuple[int, str, str]]) -> None:
    options = ["--model", "unet", "--set", "width=2", "--set", "model.patch=1", "--set", 'norm="none"']
    status, out, err = call(*options, "--classes", "3", "--json", "--set", "levels=5")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert (found["input"][0], found["output_shape"][0]) == (1, 3)
    assert found["jump"] == 16 and {one["size"] for one in found["receptive_field"]["height"]} == {188, 204}
    status, out, _ = call(*options, "--set", "levels=5")
    assert status == 0 and "204 pixels at 12 of 16 phases, 188 pixels at 4 of 16 phases" in out


def test_the_text_says_what_counts(call: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = call("--model", "unet", "--set", "width=2", "--set", "levels=1")
    assert "without biases, the 4 scales of norms counted, their 4 shifts not" in out
    _, out, _ = call("--model", "unet", "--set", "width=2", "--set", "norm=instance")
    assert "the whole image, through down.0.1 (InstanceNorm)" in out


def _no_module(channels: int, classes: int) -> Callable[[Tensor], Tensor]:
    return abs


class _Undecided(nn.Module):
    """Takes a way that depends on the pixels."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()

    def forward(self, images: Tensor) -> Tensor:
        return images if images.mean() > 0 else -images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no_module"], "model 'no_module': makes a builtin_function_or_method, which is no nn.Module"),
        (["--model", "undecided"], "layer _Undecided: cannot be run on an image of 1×256×256"),
        (["--model", "unett"], "unknown model 'unett'; did you mean 'unet'?"),
        (["--model", "unet", "--set", "wdith=2"], "--model unet: wdith: unknown key; did you mean 'width'?"),
        (["--model", "unet", "--set", "width=0"], "--model unet: width: should be greater than or equal to 1, got 0"),
        (["--model", "unet", "--set", "train.epochs=2"], "beside --model only the model's options can be set"),
        (["--model", "cnn_classifier", "--set", "kernels=2"], "model 'cnn_classifier' kernels: 2 is even"),
        (["--model", "cnn_classifier", "--input", "3", "8", "8"], "images of 56×56 pixels, not 8×8"),
        (["none.toml"], "none.toml: no such experiment file"),
        ([], "give an EXPERIMENT or a --model"),
        (["none.toml", "--model", "unet"], "give an EXPERIMENT or a --model"),
        (["--model", "unet", "--input", "0", "8", "8"], "0 is not in the range"),
    ],
    ids=str,
)
def test_what_is_refused(call: Callable[..., tuple[int, str, str]], arguments: list[str], message: str) -> None:
    models("no_module")(_no_module)
    models("undecided")(_Undecided)
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert message in err and "Traceback" not in err


def test_an_experiment_has_the_channels_it_says(experiment_file: WriteExperiment) -> None:
    with pytest.raises(UserError, match=r"--input: has 3 channels, but \[task\] channels of .*tiny.toml is 1"):
        room.of_experiment(experiment_file(), [], (3, 16, 16))


def test_an_image_too_small_for_the_depth_is_one_line() -> None:
    deep = nn.Sequential(*[nn.MaxPool2d(2)] * 5)
    with pytest.raises(
        UserError, match=r"^layer \d \(MaxPool2d\): cannot be run on an image of 1×16×16 \(C×H×W\): "
    ) as caught:
        looked_into(deep, (1, 16, 16))
    assert len(str(caught.value).splitlines()) == 1
