"""Receptive fields: against gradients of random networks and of every model, known answers, what is refused."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from seeds import seeds
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from yeastexp.errors import UserError
from yeastexp.nets.receptive_field import (
    NO_PIXEL,
    Call,
    Extent,
    layer_rule,
    measuring,
    receptive_field,
    rule,
    survey,
    trace,
    tracing,
)
from yeastexp.nets.receptive_field.measuring import measured_reach
from yeastexp.nets.receptive_field.rules import LAYER_RULES, RULES
from yeastexp.nets.unet import UNet
from yeastexp.registry import model as models

Ends = tuple[np.ndarray, np.ndarray]

IDENTITIES = {"relu", "relu_", "batch_norm", "group_norm", "instance_norm", "layer_norm", "silu", "gelu", "leaky_relu"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks of a few pixels; several threads would wait for each other."""
    torch.set_num_threads(1)


class Linearised(TorchFunctionMode):
    """Norms and activations as identity, max-pooling replaced by averaging."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in IDENTITIES:
            return args[0]
        if name in ("max_pool2d", "_max_pool2d"):
            names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
            given = {**dict(zip(names, args[1:], strict=False)), **(kwargs or {})}
            kept = {key: given[key] for key in ("kernel_size", "stride", "padding", "ceil_mode") if given.get(key)}
            return functional.avg_pool2d(args[0], **kept)
        return func(*args, **(kwargs or {}))


def positive(model: nn.Module) -> nn.Module:
    """The model in float64, its weights positive and its biases zero."""
    made = copy.deepcopy(model).double().eval()
    for name, parameter in made.named_parameters():
        parameter.data = torch.zeros_like(parameter) if "bias" in name else parameter.data.abs() + 0.5
    return made


def by_gradient(
    model: nn.Module, channels: int, size: tuple[int, int], axis: int, places: list[int] | None = None
) -> Ends:
    """The first and last pixel along an axis whose gradient is not zero, for each output row or column (or some)."""
    made = positive(model)
    with Linearised():
        length = made(torch.zeros(1, channels, *size, dtype=torch.float64)).shape[2 + axis]
        chosen = list(range(length)) if places is None else places
        images = torch.zeros(len(chosen), channels, *size, dtype=torch.float64, requires_grad=True)
        output = made(images)
        index = torch.arange(len(chosen))
        lines = output[index, :, torch.tensor(chosen)] if axis == 0 else output[index, :, :, torch.tensor(chosen)]
        (gradient,) = torch.autograd.grad(lines.sum(), images, allow_unused=True, materialize_grads=True)
    seen = (gradient != 0).any(dim=1).any(dim=2 - axis).numpy()
    first = np.where(seen.any(axis=1), seen.argmax(axis=1), NO_PIXEL)
    last = np.where(seen.any(axis=1), size[axis] - 1 - seen[:, ::-1].argmax(axis=1), -NO_PIXEL)
    return first, last


def by_trace(model: nn.Module, channels: int, size: tuple[int, int]) -> list[Ends]:
    """The same for height and width, worked out on the operators."""
    traced = trace(model, channels, size)
    assert traced.failure is None and traced.output is not None
    found = []
    for axis, extent in enumerate(traced.output.extents):
        assert extent is not None
        others = tuple(dim for dim in range(1, 5) if dim != 3 + axis)
        ends = np.broadcast_to(extent.ends.min(axis=others), (2, traced.output.shape[2 + axis]))
        found.append((ends[0], -ends[1]))
    return found


def assert_the_same(model: nn.Module, channels: int, size: tuple[int, int]) -> None:
    for axis, found in enumerate(by_trace(model, channels, size)):
        np.testing.assert_array_equal(found, by_gradient(model, channels, size, axis))


class Pad(nn.Module):
    """Asymmetric padding."""

    def __init__(self, pads: tuple[int, ...], mode: str) -> None:
        super().__init__()
        self.pads, self.mode = pads, mode

    def forward(self, features: Tensor) -> Tensor:
        return functional.pad(features, self.pads, self.mode)


class Crop(nn.Module):
    """Every n-th row and column, from a first one on."""

    def __init__(self, start: int, step: int) -> None:
        super().__init__()
        self.start, self.step = start, step

    def forward(self, features: Tensor) -> Tensor:
        return features[:, :, self.start :: self.step, self.start :: self.step]


class Branches(nn.Module):
    """Branches joined by adding or concatenating, cut to the smaller size."""

    def __init__(self, branches: list[nn.Module], join: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.join = join

    def forward(self, features: Tensor) -> Tensor:
        made = [branch(features) for branch in self.branches]
        height, width = (min(one.shape[dim] for one in made) for dim in (2, 3))
        cut = [one[:, :, :height, :width] for one in made]
        return torch.cat(cut, dim=1) if self.join == "cat" else torch.stack(cut).sum(dim=0)


class InPlace(nn.Module):
    """Writes one tensor into every second row of another."""

    def forward(self, features: Tensor) -> Tensor:
        made = features.clone()
        made[:, :, ::2] += features.roll(1, 3)[:, :, ::2]
        made[:, :1, 1:].mul_(2)
        return made


def random_layer(source: random.Random, channels: int) -> nn.Module:
    """One layer that keeps the number of channels."""
    kernel = source.choice([1, 2, 3, 3, 5]), source.choice([1, 2, 3, 3, 5])
    stride, dilation = source.choice([1, 1, 1, 2, 3]), source.choice([1, 1, 2, 3])
    mode = source.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
    pads = tuple(source.randrange(3) for _ in range(4))
    groups = source.choice([1, 1, channels])
    kind = source.randrange(11)
    if kind <= 2:
        padding = source.randrange(4), source.randrange(4)
        return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups, padding_mode=mode)
    if kind == 3:
        stride = source.choice([1, 2, 3])
        padding = source.randrange(min(kernel) + 1) // 2
        extra = source.randrange(max(stride, dilation))
        return nn.ConvTranspose2d(channels, channels, kernel, stride, padding, extra, groups, dilation=dilation)
    if kind == 4:
        ceil, inner = source.random() < 0.5, source.randrange(min(kernel) // 2 + 1)
        pool = source.choice([nn.MaxPool2d, nn.AvgPool2d])
        return pool(kernel, source.choice([1, 2, 3]), inner, ceil_mode=ceil)
    if kind == 5:
        smooth = source.random() < 0.6
        return nn.Upsample(
            scale_factor=source.choice([2, 3, (2, 1), 1.5]),
            mode="bilinear" if smooth else source.choice(["nearest", "nearest-exact"]),
            align_corners=source.random() < 0.5 if smooth else None,
        )
    if kind == 6:
        return Pad(pads, source.choice(["constant", "reflect", "replicate", "circular"]))
    if kind == 7:
        return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, channels, 1))
    if kind == 8:
        return nn.Sequential(nn.Conv2d(channels, 4 * channels, kernel, groups=groups), nn.PixelShuffle(2))
    if kind == 9:
        return source.choice([Crop(source.randrange(3), source.choice([1, 2])), InPlace(), nn.ChannelShuffle(channels)])
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(True))


def random_network(source: random.Random, channels: int, depth: int) -> nn.Module:
    """Layers in a row, some of them branches of the same kind."""
    layers: list[nn.Module] = []
    for _ in range(source.randint(1, 3)):
        if depth and source.random() < 0.35:
            branches = [random_network(source, channels, depth - 1) for _ in range(source.randint(1, 2))]
            join = source.choice(["add", "cat"])
            together = Branches([*branches, nn.Identity()], join)
            width = channels * (len(branches) + 1) if join == "cat" else channels
            grouped = channels if source.random() < 0.3 else 1
            layers += [together, nn.Conv2d(width, channels, source.choice([1, 3]), groups=grouped)]
        else:
            layers.append(random_layer(source, channels))
    return nn.Sequential(*layers)


def runs(network: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    """Whether a size suits a network, everything stays small, and the output depends on the image."""

    def refuse_large(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if max(output.shape[2:]) > 40:
            raise RuntimeError("too large")

    hooks = [layer.register_forward_hook(refuse_large) for layer in network.modules()]
    try:
        image = torch.ones(1, channels, *size, requires_grad=True)
        output = network.eval()(image)
        return output.requires_grad and bool(torch.autograd.grad(output.sum(), image)[0].any())
    except RuntimeError:
        return False
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("seed", seeds(100, of=300))
def test_the_gradient_of_a_random_network_has_the_same_ends_everywhere(seed: int) -> None:
    source = random.Random(seed)
    torch.manual_seed(seed)
    size = source.randint(12, 18), source.randint(12, 18)
    channels = source.choice([1, 2])
    network = random_network(source, channels, depth=2)
    while not runs(network, channels, size):
        network = random_network(source, channels, depth=2)
    assert_the_same(network, channels, size)


def small(name: str) -> nn.Module:
    """A registered model for 2 channels and 3 classes, as thin as its options allow."""
    entry = models.find(name)
    made: nn.Module = entry.factory(2, 3, **({"width": 1} if "width" in entry.schema.keys else {}))
    return made


class UpTo(nn.Module):
    """A model as far as the layer of a name."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, images: Tensor) -> Tensor:
        found: list[Tensor] = []
        hook = self.model.get_submodule(self.layer).register_forward_hook(lambda *given: found.append(given[2]))
        self.model(images)
        hook.remove()
        return found[0]


@pytest.mark.parametrize("name", list(models))
def test_the_gradient_of_every_model_has_the_same_ends_at_every_phase(name: str) -> None:
    model = small(name)
    side = getattr(model, "size", 16)
    found = survey(model, 2, (side, side))
    field = found.convolutional_part or found.output
    part = UpTo(model, field.layer.partition(" ")[0]) if found.convolutional_part else model
    for axis, line in enumerate(field.axes):
        stride = field.cumulative_stride
        length = -(-2 * (line.before + line.after + 1) // stride) * stride + stride
        size = (side, side) if found.convolutional_part else ((length, 16), (16, length))[axis]
        half = int(size[axis] / line.stride / 2)
        places = None if found.convolutional_part else list(range(half, half + len(line.phases)))
        first, last = by_gradient(part, 2, size, axis, places)
        places = list(range(len(first))) if places is None else places
        assert {place % len(line.phases) for place in places} == set(range(len(line.phases)))
        for place, low, high in zip(places, first.tolist(), last.tolist(), strict=True):
            phase, own = line.phases[place % len(line.phases)], int(place * line.stride)
            assert phase.size == phase.before + 1 + phase.after
            assert (low, high) == (max(0, own - phase.before), min(size[axis] - 1, own + phase.after))


def plain_unet(levels: int) -> nn.Module:
    return UNet(1, 2, width=1, levels=levels, space_to_depth=1, norm="none")


@pytest.mark.parametrize(("levels", "sizes"), [(1, {5: 1}), (2, {18: 2}), (3, {44: 4}), (4, {100: 4, 92: 4})])
def test_the_unets_that_the_textbook_formula_has_no_answer_for(levels: int, sizes: dict[int, int]) -> None:
    found = receptive_field(plain_unet(levels), 1)
    assert found.height == found.width and found.cumulative_stride == 2 ** (levels - 1) and found.tiles
    assert Counter(phase.size for phase in found.height.phases) == sizes


def test_four_poolings() -> None:
    """204 pixels at 12 of 16 phases, 188 at 4, from 92 before and 95 after to 107 before and 96 after."""
    found = receptive_field(plain_unet(5), 1)
    assert found.cumulative_stride == 16 and len(found.height.phases) == 16
    assert Counter(phase.size for phase in found.height.phases) == {204: 12, 188: 4}
    ends = {(phase.before, phase.after) for phase in found.height.phases}
    assert {(92, 95), (107, 96)} <= ends
    assert min(before for before, _ in ends) == 92 and max(before for before, _ in ends) == 107


def row(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def conv(kernel: int | tuple[int, int], padding: int = 0, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, padding=padding, **options)


@pytest.mark.parametrize(
    ("network", "cumulative_stride", "phases"),
    [
        (row(conv(3, 1)), 1, [(1, 1)]),
        (row(conv(3)), 1, [(0, 2)]),
        (row(conv(3, 2, dilation=2)), 1, [(2, 2)]),
        (row(conv(3, 1), nn.MaxPool2d(2)), 2, [(1, 2)]),
        (row(nn.MaxPool2d(2), nn.ConvTranspose2d(1, 1, 2, 2)), 2, [(0, 1), (1, 0)]),
        (row(nn.MaxPool2d(3), nn.Upsample(scale_factor=3)), 3, [(0, 2), (1, 1), (2, 0)]),
        (row(nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")), 2, [(2, 1), (1, 2)]),
        (row(nn.Upsample(scale_factor=2)), 1, [(0, 0), (0, 0)]),
        (row(nn.ConvTranspose2d(1, 1, 1, 2)), 1, [(0, 0), (0, -1)]),
        (row(Pad((2, 0, 2, 0), "constant"), conv(3)), 1, [(2, 0)]),
        (row(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 1), nn.PixelShuffle(2)), 2, [(0, 1), (1, 0)]),
        (row(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 1, groups=4), nn.PixelShuffle(2)), 2, [(0, 0), (0, 0)]),
        (row(nn.MaxPool2d(3, 1, 1, dilation=2)), 1, [(1, 3)]),
    ],
    ids=str,
)
def test_known_answers(network: nn.Module, cumulative_stride: int, phases: list[tuple[int, int]]) -> None:
    found = receptive_field(network, 1)
    assert found.cumulative_stride == cumulative_stride
    assert [(phase.before, phase.after) for phase in found.height.phases] == phases


def test_the_cumulative_stride_is_that_of_the_grid_even_if_a_wider_branch_hides_it() -> None:
    pooled = row(nn.MaxPool2d(4), nn.Upsample(scale_factor=4))
    found = receptive_field(Branches([conv(31, 15), pooled], "add"), 1)
    assert found.cumulative_stride == 4
    assert [(phase.phase, phase.before, phase.after) for phase in found.height.phases] == [
        (n, 15, 15) for n in range(4)
    ]


class Apply(nn.Module):
    """A function of the image and of layers as a network."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images, *self.layers)


def padded_by_hand(x: Tensor) -> Tensor:
    """192 rows of zeros above and below, by writing into a larger tensor."""
    zeros = x.new_zeros(1, 1, x.shape[2] + 384, x.shape[3])
    zeros[:, :, 192:-192] = x
    return zeros


def padded_by_cat(x: Tensor) -> Tensor:
    """The same by concatenation."""
    rows = torch.zeros(1, 1, 192, x.shape[3])
    return torch.cat([rows, x, rows], 2)


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (conv(3, 192, dilation=192), 192),
        (conv(3, 256, dilation=256), 256),
        (conv(3, 1000, dilation=1000), 1000),
        (row(conv(3, 200, dilation=200), conv(3, 200, dilation=200)), 400),
        (
            row(conv(3, 200, dilation=200), nn.MaxPool2d(2), conv(3, 300, dilation=300), nn.Upsample(scale_factor=2)),
            801,
        ),
        (row(nn.ConstantPad2d((0, 0, 192, 192), 0.0), conv((3, 1), dilation=192)), 192),
        (row(Apply(padded_by_hand), conv((3, 1), dilation=192)), 192),
        (row(Apply(padded_by_cat), conv((3, 1), dilation=192)), 192),
        (row(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, padding=600, dilation=600, groups=2)), 600),
        (nn.ConvTranspose2d(1, 1, 3, padding=600, dilation=600), 600),
        (nn.AvgPool2d(513, 1, 256), 256),
    ],
    ids=range(11),
)
def test_taps_that_lie_in_the_padding_of_a_small_image_count(network: nn.Module, side: int) -> None:
    """Where nothing but the middle tap of a dilated kernel lies in the image, the image is too small to tell."""
    found = receptive_field(network, 1)
    assert (found.height.before, found.height.after) == (side, side) and found.tiles


def test_each_axis_has_its_own_field_and_both_the_same_cumulative_stride() -> None:
    network = row(nn.Conv2d(1, 1, (3, 7), padding=(1, 0)), nn.MaxPool2d((1, 2)), nn.Upsample(scale_factor=(1, 2)))
    found = receptive_field(network, 1)
    assert found.cumulative_stride == 2
    assert [(phase.before, phase.after) for phase in found.height.phases] == [(1, 1), (1, 1)]
    assert [(phase.before, phase.after) for phase in found.width.phases] == [(0, 7), (1, 6)]


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate"])
def test_a_shift_by_the_cumulative_stride_shifts_the_output(padding_mode: str) -> None:
    torch.manual_seed(0)
    network = row(
        conv(3, 1, padding_mode=padding_mode),
        nn.MaxPool2d(3),
        conv(3, 1, padding_mode=padding_mode),
        nn.ConvTranspose2d(1, 1, 2, 2),
        conv(3, 1, stride=2, padding_mode=padding_mode),
        nn.Upsample(scale_factor=3, mode="bilinear"),
    ).double()
    found = receptive_field(network, 1)
    assert found.cumulative_stride == 3 and found.tiles
    image = torch.randn(1, 1, 60, 60, dtype=torch.float64)
    inner = slice(24, 36)
    for shift in (1, 2, 3, 6):
        moved = network(image.roll(shift, 2)).roll(-shift, 2)
        same = torch.allclose(moved[..., inner, inner], network(image)[..., inner, inner], rtol=0, atol=1e-12)
        assert same == (shift % found.cumulative_stride == 0)


def test_margins_hold_beside_the_border_too() -> None:
    line = receptive_field(row(Pad((0, 0, 3, 0), "reflect"), conv(4, bias=False)), 1).height
    assert [(phase.before, phase.after) for phase in line.phases] == [(3, 0)]
    assert line.margins == (3, 3)


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        (nn.InstanceNorm2d(2), "1 (InstanceNorm2d)"),
        (nn.GroupNorm(1, 2), "1 (GroupNorm)"),
        (nn.LayerNorm([256, 256]), "1 (LayerNorm)"),
        (row(nn.AdaptiveAvgPool2d(1), nn.Upsample((256, 256))), "1.0 (AdaptiveAvgPool2d)"),
        (row(nn.AdaptiveMaxPool2d(4), nn.Upsample((256, 256))), "1.0 (AdaptiveMaxPool2d)"),
        (Apply(lambda x: x * x.mean((2, 3), keepdim=True)), "1 (Apply)"),
        (Apply(lambda x: x + functional.avg_pool2d(x, x.shape[2:])), "1 (Apply)"),
        (Apply(lambda x: x / x.norm()), "1 (Apply)"),
        (Apply(lambda x: x.flatten(2).softmax(2).view(x.shape)), "1 (Apply)"),
        (
            Apply(lambda x: (x.flatten(2).transpose(1, 2) @ (x.flatten(2) @ x.flatten(2).mT)).mT.view(x.shape)),
            "1 (Apply)",
        ),
    ],
    ids=str,
)
def test_a_layer_that_makes_the_field_global_is_named(layer: nn.Module, label: str) -> None:
    found = receptive_field(row(nn.Conv2d(1, 2, 3, padding=1), layer, nn.MaxPool2d(2)), 1)
    assert [axis.global_layer for axis in found.axes] == [label, label]
    assert found.height.phases == () and not found.tiles
    assert found.cumulative_stride == (1 if "AdaptiveMax" in label else 2)


def over_channels(x: Tensor) -> Tensor:
    """A norm that mixes channels alone."""
    return functional.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)


# More pixels than the first images that are tried have; of the second, every position depends on all of such an image.
WIDE = [(row(*[conv(3, 40, dilation=40) for _ in range(5)]), 401), (row(*[conv(83, 41) for _ in range(7)]), 575)]


@pytest.mark.parametrize(("wide", "side"), WIDE, ids=["dilated", "dense"])
@pytest.mark.parametrize(
    ("layers", "label"),
    [
        ([Apply(over_channels), Apply(lambda x: x.softmax(1))], ""),
        ([Apply(over_channels), nn.AdaptiveAvgPool2d(1), nn.Upsample((64, 64))], "2 (AdaptiveAvgPool2d)"),
        ([Apply(lambda x: x.softmax(1)), Apply(lambda x: x + x.mean((2, 3), keepdim=True))], "2 (Apply)"),
        ([nn.LayerNorm([1, 64, 64])], "1 (LayerNorm)"),
    ],
)
def test_the_layer_that_pools_is_named_and_not_the_first_after_the_field_exceeds_the_image(
    wide: nn.Module, side: int, layers: list[nn.Module], label: str
) -> None:
    found = receptive_field(row(wide, *layers), 1, (64, 64)).height
    assert found.global_layer == label and (label or found.size == side)


def test_attention_of_all_pixels_is_global_and_its_extents_do_not_fill_the_memory() -> None:
    """Larger images than that of 16×16 pixels have too many pairs of pixels, whose extents would take gigabytes."""

    def attend(x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        return (tokens.mT @ tokens).softmax(-1).mean(1).view(1, 1, *x.shape[2:])

    assert receptive_field(Apply(attend), 1, (16, 16)).height.global_layer == "Apply"


def test_a_norm_over_channels_alone_depends_on_a_pixel() -> None:
    norm = Apply(lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (2,)).permute(0, 3, 1, 2))
    linear = Apply(lambda x: functional.linear(x.permute(0, 2, 3, 1), torch.ones(2, 2)).permute(0, 3, 1, 2))
    found = receptive_field(row(nn.Conv2d(1, 2, 3, padding=1), norm, linear), 1)
    assert [(phase.before, phase.after) for phase in found.height.phases] == [(1, 1)] and found.tiles


def test_windows_of_attention() -> None:
    def attend(x: Tensor) -> Tensor:
        height, width = x.shape[2] // 4, x.shape[3] // 4
        tokens = x.view(1, 2, height, 4, width, 4).permute(0, 2, 4, 3, 5, 1).reshape(height * width, 16, 2)
        mixed = (tokens @ tokens.mT).softmax(-1) @ tokens
        return mixed.view(1, height, width, 4, 4, 2).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)

    found = receptive_field(Apply(attend), 2)
    assert found.cumulative_stride == 4
    assert [(phase.before, phase.after) for phase in found.height.phases] == [(n, 3 - n) for n in range(4)]


class Embedding(nn.Module):
    """Adds a learned map of the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(1, 1, 256, 256))

    def forward(self, images: Tensor) -> Tensor:
        return images + self.map


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        (row(nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)), "1.1 (Upsample)"),
        (conv(3, 1, padding_mode="circular"), "1 (Conv2d)"),
        (Apply(lambda x: x.roll((1, 1), (2, 3))), "1 (Apply)"),
        (row(nn.Upsample(size=(32, 32)), nn.Upsample(size=(256, 256))), "1.0 (Upsample)"),
        (Embedding(), "1 (Embedding)"),
    ],
    ids=str,
)
def test_a_layer_that_is_not_shift_equivariant_is_named_and_not_tiled(layer: nn.Module, label: str) -> None:
    found = receptive_field(row(conv(3, 1), layer), 1)
    assert label in found.height.shift_variant_layer and not found.tiles


def test_a_classifier_has_the_field_of_its_last_map() -> None:
    """1 + 2·1 + 1·1 + 2·2 + 1·2 pixels, and the whole image for the fully connected layer."""
    network = row(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    found = survey(row(*network, nn.Linear(5 * 2 * 2, 7)), 3, (14, 14))
    assert found.output.shape == (1, 7)
    assert [axis.global_layer for axis in found.output.axes] == ["6 (Linear)"] * 2
    part = found.convolutional_part
    assert part is not None and (part.layer, part.shape, part.cumulative_stride) == ("4 (MaxPool2d)", (1, 5, 2, 2), 4)
    assert part.height.phases[0].size == part.height.size == 10
    sizes = [field and (field.height.global_layer or field.height.size) for _, field in found.layers]
    assert sizes == [3, 4, 8, 8, 10, None, "6 (Linear)"]


def test_a_layer_that_is_called_twice_is_two_rows() -> None:
    layer = conv(3, 1)
    found = survey(row(layer, nn.ReLU(), layer), 1)
    assert [(step.name, step.kind, field and field.height.size) for step, field in found.layers] == [
        ("0", "Conv2d", 3),
        ("1", "ReLU", 3),
        ("0", "Conv2d", 5),
    ]


def test_operators_outside_of_layers_are_rows_where_they_change_something() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = Apply(lambda x: x.relu())

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] % 2:
                x = functional.pad(x, (0, 1, 0, 1))
            pooled = self.inside(functional.max_pool2d(x, 2) + 1)
            return torch.cat([functional.interpolate(pooled, scale_factor=2), x], 1)

    for side, first in ((64, []), (63, ["constant_pad_nd"])):
        kinds = [step.kind for step, _ in survey(Network(), 1, (side, side)).layers]
        assert kinds == [*first, "max_pool2d", "Apply", "upsample_nearest2d", "cat"]


@pytest.mark.parametrize(
    ("network", "channels", "size", "message"),
    [
        (row(nn.Conv2d(3, 4, 3)), 1, (64, 64), "layer 0 (Conv2d): cannot be run on an image of 1×64×64"),
        (row(*[nn.MaxPool2d(2)] * 4), 1, (8, 8), "(MaxPool2d): cannot be run on an image of 1×8×8"),
        (Apply(lambda x: x if x.max() > 0 else -x), 1, (64, 64), "cannot be run on an image of 1×64×64"),
        (Apply(lambda x: {"logits": x}), 1, (64, 64), "gives a dict; it should give one tensor"),  # type: ignore[arg-type,return-value]
        (Apply(lambda x: [x]), 1, (64, 64), "gives a list; it should give one tensor"),  # type: ignore[list-item,return-value]
        (Apply(lambda x: x[0, 0, 0, 0]), 1, (64, 64), "it should give B×K×H×W, or B×K"),
        (Apply(lambda x: torch.zeros(1, 2, 64, 64)), 1, (64, 64), "its output does not depend on the image"),
        (Apply(lambda x: x.transpose(2, 3)), 1, (64, 64), "the rows of its output are not the rows of the image"),
        ("unet", 1, (64, 64), "'unet' is no nn.Module"),
        (row(nn.LazyConv2d(2, 3)), 1, (64, 64), "model Sequential: has lazy layers"),
        (
            Branches([nn.MaxPool2d(2), nn.Identity()], "add"),
            1,
            (64, 64),
            "layer sum: depends on more pixels the farther a position is",
        ),
        (
            Apply(lambda x: x.flip(2)),
            1,
            (64, 64),
            "the receptive field cannot be read off an image of",
        ),
    ],
    ids=range(12),
)
def test_what_is_refused(network: nn.Module, channels: int, size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError) as caught:
        survey(network, channels, size)
    assert message in str(caught.value) and "\n" not in str(caught.value)


class Segmented(nn.Module):
    """A pooling that keeps where its maxima were, and its inverse."""

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel, 2, padding, return_indices=True)
        self.back = nn.MaxUnpool2d(kernel, 2, padding)
        self.first, self.last = conv(3, 1), conv(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = self.pool(self.first(x))
        unpooled: Tensor = self.back(pooled, indices, output_size=x.shape)
        return self.last(unpooled)


def blocks_mixed(x: Tensor) -> Tensor:
    """Blocks of 4 × 4 pixels, each mixed and put back."""
    blocks = functional.unfold(x, 4, stride=4)
    return functional.fold(blocks.mean(1, keepdim=True) + 0 * blocks, x.shape[2:], 4, stride=4)


def median_of_9(x: Tensor) -> Tensor:
    return functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(-1)[0]


def strided_windows(x: Tensor) -> Tensor:
    """The same windows as a view of the memory."""
    width = x.shape[3] + 2
    padded = functional.pad(x, (1, 1, 1, 1)).contiguous()
    return padded.as_strided((1, 1, *x.shape[2:], 3, 3), (0, 0, width, 1, width, 1)).amax((-1, -2))


def resized(x: Tensor, factor: float, mode: str) -> Tensor:
    return functional.interpolate(x, scale_factor=factor, mode=mode, antialias=True)


def turned(x: Tensor) -> Tensor:
    """By an angle that depends on the image."""
    zero = x.mean((1, 2, 3))
    theta = torch.stack([zero.cos(), -zero.sin(), 0 * zero, zero.sin(), zero.cos(), 0 * zero], 1).view(-1, 2, 3)
    return functional.grid_sample(x, functional.affine_grid(theta, list(x.shape), False), align_corners=False)


def chosen_channel(x: Tensor) -> Tensor:
    three = torch.cat([x, functional.pad(x, (0, 0, 1, 0))[:, :, :-1], -x], 1)
    return three.gather(1, three.argmax(1, keepdim=True))


def channels(x: Tensor) -> Tensor:
    """Four, of one."""
    return torch.cat([x, -x, x.abs(), x * x], 1)


def volume(x: Tensor) -> Tensor:
    """The channels as the depth of a volume (B, 1, D, H, W)."""
    return channels(x)[:, None]


def lines(x: Tensor) -> Tensor:
    """The columns of the image as channels of a line of its height (1, W, H)."""
    return x[0].mT


def in_lines(x: Tensor) -> Tensor:
    return x.mT[:, None]


def as_matrices(x: Tensor) -> Tensor:
    """At each position a matrix of 2 × 2 channels (B, H, W, 2, 2)."""
    return channels(x).permute(0, 2, 3, 1).reshape(1, *x.shape[2:], 2, 2)


def together(*functions: Callable[[Tensor], Tensor]) -> nn.Module:
    """The sum of what functions of the image give, averaged over channels."""
    return Apply(lambda x: torch.cat([function(x).double().mean(1, keepdim=True) for function in functions], 1))


def mixed_twice(x: Tensor) -> Tensor:
    """A product of matrices that does not mix pixels, added to a number."""
    weights = torch.ones(1, 2, x.shape[1], dtype=x.dtype)
    return torch.baddbmm(torch.ones(1, dtype=x.dtype), weights, x.flatten(2)).unflatten(2, x.shape[2:])


def statistics_of(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, dtype=x.dtype), torch.ones(1, dtype=x.dtype)


def ends_written(x: Tensor) -> Tensor:
    """The first two of four channels replaced."""
    return torch.select_scatter(torch.slice_scatter(channels(x), x * 3, 1, 0, 1), x[:, 0] * 5, 1, 1)


def in_inference_mode(x: Tensor, *layers: nn.Module) -> Tensor:
    """Where PyTorch leaves operators whole that it otherwise takes apart."""
    with torch.inference_mode():
        half = functional.max_pool2d(row(*layers)(functional.pad(x.clone(), (1, 1, 1, 1), "reflect")), 2)
        mixed = functional.linear(half.permute(0, 2, 3, 1), half.new_ones(2, 2)).permute(0, 3, 1, 2)
        turned = mixed.contiguous().reshape(2, -1).flatten().reshape(half.shape).swapaxes(2, 3).mT
        return functional.interpolate(turned, scale_factor=2)


BORDERS, NEAREST = ("reflect", "replicate"), ("nearest", "nearest-exact")
CHANNELS_ALONE: list[Callable[[Tensor], Tensor]] = [
    *(lambda x, name=name: getattr(channels(x), name)(1) for name in ("cumprod", "argsort", "logcumsumexp")),  # type: ignore[misc]
    *(lambda x, name=name: getattr(channels(x), name)(1)[0] for name in ("cummax", "cummin")),  # type: ignore[misc]
    *(lambda x, name=name: getattr(channels(x), name)(1, True)[0] for name in ("median", "nanmedian", "mode")),  # type: ignore[misc]
    lambda x: channels(x).kthvalue(2, 1, True)[0],
    lambda x: channels(x).log_softmax(1),
    lambda x: torch.ops.aten._safe_softmax(channels(x), 1),
    lambda x: functional.glu(channels(x), 1),
    lambda x: functional.rms_norm(channels(x).permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    lambda x: channels(x).index_select(1, torch.tensor([2, 0])),
    lambda x: channels(x).split(2, 1)[1],
    lambda x: channels(x).split([1, 3], 1)[1],
    lambda x: channels(x).unbind(1)[1][:, None],
    lambda x: x.repeat(1, 3, 1, 1),
    lambda x: torch.native_channel_shuffle(channels(x), 2),
    lambda x: mixed_twice(channels(x)),
    lambda x: as_matrices(x).tril().flatten(3).permute(0, 3, 1, 2),
    lambda x: as_matrices(x).triu().flatten(3).permute(0, 3, 1, 2),
    ends_written,
]
VALUES_ALONE: list[Callable[[Tensor], Tensor]] = [
    lambda x: torch.where(x > 0, x, -x),
    lambda x: x.masked_fill(x > 0, 1.0),
    lambda x: torch.floor_divide(x, 0.5),
    lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype)),
    lambda x: functional.prelu(x, torch.full((1,), 0.5, dtype=x.dtype)),
    lambda x: torch.polar(x.abs(), x).real,
    lambda x: torch.complex(x, x).conj().resolve_conj().imag,
    lambda x: torch.complex(x, x).conj().imag.resolve_neg(),
    lambda x: torch.view_as_complex(torch.stack([x, x], -1)).abs(),
    lambda x: x.detach()[0, 0].t().t()[None, None],
    lambda x: torch.ops.aten._native_batch_norm_legit(x, None, None, *statistics_of(x), False, 0.1, 1e-5)[0],
    lambda x: torch.ops.aten._native_batch_norm_legit_no_training(x, None, None, *statistics_of(x), 0.1, 1e-5)[0],
]

WHOLE = None
RULES_OF_OPERATORS = {
    "pointwise": (together(*VALUES_ALONE), (0, 0)),
    "along channels": (together(*CHANNELS_ALONE), (0, 0)),
    "in inference mode": (
        Apply(in_inference_mode, conv(3), nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1), nn.Dropout()),
        (2, 2),
    ),
    "pools of lines and volumes": (
        together(
            lambda x: in_lines(functional.avg_pool1d(lines(x), 3, 1, 1)),
            lambda x: functional.avg_pool3d(volume(x), (1, 3, 3), 1, (0, 1, 1))[:, 0],
            lambda x: functional.max_pool3d(volume(x), (1, 3, 3), 1, (0, 1, 1))[:, 0],
        ),
        (1, 1),
    ),
    "pads of lines and volumes": (
        together(
            *(lambda x, mode=mode: in_lines(functional.pad(lines(x), (2, 1), mode)[..., :-3]) for mode in BORDERS),  # type: ignore[misc]
            *(
                lambda x, mode=mode: functional.pad(volume(x), (2, 1, 2, 1, 1, 1), mode)[:, 0, :, :-3, :-3]
                for mode in BORDERS
            ),  # type: ignore[misc]
            lambda x: x,
        ),
        (2, 0),
    ),
    "smooth interpolation": (
        together(
            lambda x: in_lines(functional.interpolate(lines(x), scale_factor=2, mode="linear")),
            lambda x: functional.interpolate(volume(x), scale_factor=(1, 2, 1), mode="trilinear")[:, 0],
        ),
        (1, 1),
    ),
    "bicubic interpolation": (Apply(lambda x: functional.interpolate(x, scale_factor=2, mode="bicubic")), (2, 2)),
    "interpolation": (
        together(
            *(
                lambda x, mode=mode: in_lines(functional.interpolate(lines(x), scale_factor=2, mode=mode))
                for mode in NEAREST
            ),  # type: ignore[misc]
            *(
                lambda x, mode=mode: functional.interpolate(volume(x), scale_factor=(1, 2, 1), mode=mode)[:, 0]
                for mode in NEAREST
            ),  # type: ignore[misc]
        ),
        (0, 0),
    ),
    "hardswish": (Apply(functional.hardswish), (0, 0)),
    "log_sigmoid": (Apply(functional.logsigmoid), (0, 0)),
    "im2col": (row(nn.Unfold(5, padding=2), nn.Flatten(1), nn.Unflatten(1, (25, 64, 64)), nn.Conv2d(25, 1, 1)), (2, 2)),
    "col2im": (Apply(blocks_mixed), (3, 3)),
    "unfold, median": (Apply(median_of_9), (1, 1)),
    "as_strided": (Apply(strided_windows), (1, 1)),
    "max_unpool": (Segmented(2, 0), (3, 3)),
    "max_unpool of overlapping windows": (Segmented(3, 1), (4, 4)),
    "index of channels": (row(nn.Conv2d(1, 3, 3, 1, 1), Apply(lambda x: x[:, torch.tensor([2, 0])])), (1, 1)),
    "topk": (row(nn.Conv2d(1, 3, 3, 1, 1), Apply(lambda x: x.topk(2, 1)[0])), (1, 1)),
    "sort": (row(nn.Conv2d(1, 3, 3, 1, 1), Apply(lambda x: x.sort(1)[0])), (1, 1)),
    "cumsum of channels": (row(nn.Conv2d(1, 3, 3, 1, 1), Apply(lambda x: x.cumsum(1))), (1, 1)),
    "cumsum of rows": (Apply(lambda x: x.cumsum(2)), WHOLE),
    "sort of rows": (Apply(lambda x: x.sort(2)[0]), WHOLE),
    "gather": (Apply(chosen_channel), (1, 0)),
    "antialiased, bilinear": (Apply(lambda x: resized(x, 0.5, "bilinear")), (1, 2)),
    "antialiased, bicubic": (Apply(lambda x: resized(x, 0.25, "bicubic")), (6, 9)),
    "antialiased, larger": (Apply(lambda x: resized(x, 2, "bilinear")), (1, 1)),
    "grid_sample": (Apply(turned), WHOLE),
    "fft": (Apply(lambda x: torch.fft.fft2(x).abs()), WHOLE),
    "rfft": (Apply(lambda x: torch.fft.irfft2(torch.fft.rfft2(x) ** 2)), WHOLE),
}


@pytest.mark.parametrize("name", RULES_OF_OPERATORS)
def test_what_a_rule_says_is_what_pixels_show(name: str) -> None:
    network, reach = RULES_OF_OPERATORS[name]
    size = (64, 64)
    field = receptive_field(network, 1, size, measure=False)
    found = field.height
    assert not field.measured and (None if found.global_layer else (found.before, found.after)) == reach
    measured = measured_reach(network, 1, size, 4)[0]
    assert measured == reach or (reach is WHOLE and measured and max(measured) >= 32)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.adaptive_avg_pool2d(x, 4),
        lambda x: functional.adaptive_avg_pool3d(volume(x), (2, 8, 8)).mean(1),
        lambda x: functional.adaptive_max_pool3d(volume(x), (2, 8, 8)).mean(1),
        lambda x: in_lines(functional.adaptive_avg_pool1d(lines(x), 8)),
        lambda x: functional.batch_norm(x, None, None, training=True),
        lambda x: x + torch.baddbmm(x[0], x[0], x[0])[None],
        lambda x: functional.grid_sample(
            volume(x), volume(x)[..., None].expand(1, 1, 4, *x.shape[2:], 3)[:, 0], align_corners=False
        ).mean(1),
    ],
    ids=["adaptive", "adaptive 3d", "adaptive max 3d", "adaptive 1d", "batch norm", "product", "grid_sample 3d"],
)
def test_operators_whose_outputs_depend_on_a_share_of_the_image(function: Callable[[Tensor], Tensor]) -> None:
    found = receptive_field(Apply(function), 1, (64, 64), measure=False)
    assert found.height.global_layer == "Apply" and not found.measured


def constants_added(x: Tensor) -> Tensor:
    """From every operator that gives the same number everywhere."""
    like = [torch.zeros_like(x), torch.ones_like(x), torch.empty_like(x), torch.full_like(x, 2), x.new_empty(x.shape)]
    new = [x.new_zeros(x.shape), x.new_ones(x.shape), x.new_full(x.shape, 2), torch.zeros(x.shape), torch.ones(x.shape)]
    made = [torch.empty(x.shape), torch.full(x.shape, 2.0), torch.empty_strided(x.shape, x.stride())]
    written = [x.new_empty_strided(x.shape, x.stride()), torch.arange(256.0)[-1:].expand(256).clone().fill_(1)]
    return sum([*like, *new, *made, *written, torch.zeros_like(x[:, :, 1:2]).zero_(), torch.scalar_tensor(3)], x)


def noise_added(x: Tensor) -> Tensor:
    """Numbers that are drawn anew, here and in layers that are not in training."""
    dropped = torch.native_dropout(x, 0.5, True)[0] + functional.rrelu(x, training=True)
    return dropped + torch.rand_like(x) + torch.randn_like(x)


@pytest.mark.parametrize(("function", "tiles"), [(constants_added, True), (noise_added, False)])
def test_operators_that_make_numbers_depend_on_no_pixel(function: Callable[[Tensor], Tensor], tiles: bool) -> None:
    found = receptive_field(Apply(function), 1, measure=False)
    assert (found.height.before, found.height.after, found.tiles) == (0, 0, tiles)


def rows_doubled(x: Tensor, rows: slice) -> Tensor:
    y = x.clone()
    y[:, :, rows] *= 2
    return y


def kept_rows(x: Tensor) -> Tensor:
    mask = torch.ones_like(x)
    mask[..., :600, :] = 2
    return x * mask


def by_width(x: Tensor, wide: nn.Module, narrow: nn.Module) -> Tensor:
    """A branch between layers of one kind."""
    layer = wide if x.shape[3] > 300 else narrow
    return layer(x)  # type: ignore[no-any-return]


BEYOND_THE_IMAGES_TRIED = {
    "first rows": (Apply(lambda x: rows_doubled(x, slice(600))), "Apply"),
    "rows from one on": (Apply(lambda x: rows_doubled(x, slice(600, None))), "Apply"),
    "all but the last rows": (Apply(lambda x: rows_doubled(x, slice(-600))), "Apply"),
    "rows of a mask": (Apply(kept_rows), "Apply"),
    "parts joined": (Apply(lambda x: torch.cat([x[:, :, :600] * 2, x[:, :, 600:]], 2)), "Apply"),
    "branch by width": (Apply(by_width, conv(3, 1), conv(3, 1)), "layers.1 (Conv2d)"),
    "functions by width": (Apply(lambda x: x.relu() if x.shape[3] > 300 else x.tanh()), "Apply"),
}


@pytest.mark.parametrize("name", BEYOND_THE_IMAGES_TRIED)
def test_what_differs_in_larger_images_alone_is_not_shift_equivariant(name: str) -> None:
    network, layer = BEYOND_THE_IMAGES_TRIED[name]
    assert receptive_field(network, 1).height.shift_variant_layer == layer


def test_slices_as_long_as_the_image_or_of_channels_are_shift_equivariant() -> None:
    network = Apply(lambda x: functional.pad(x, (0, 0, 1, 0))[:, :600, : x.shape[2] + 5, : x.shape[3]][:, :, 1:])
    assert receptive_field(network, 1).tiles


@pytest.mark.parametrize(
    ("network", "reach"),
    [
        (Branches([conv((1, 2), (0, 300), dilation=(1, 600)), nn.Identity()], "add"), (300, 300)),
        (Branches([conv(2, 400, dilation=800), conv(3, 1)], "add"), (400, 400)),
        (Apply(lambda x: x + functional.pad(x, (300, 0, 0, 0))[..., : x.shape[3]]), (300, 0)),
        (
            Apply(lambda x, layer: x + layer(x)[:, :, 350:-350, 350:-350], nn.ConvTranspose2d(1, 1, 2, dilation=700)),
            (350, 350),
        ),
    ],
    ids=["convolution", "convolution along both axes", "shift", "transposed convolution"],
)
def test_a_branch_that_reads_padding_alone_in_a_small_image_is_told(network: nn.Module, reach: tuple[int, int]) -> None:
    found = receptive_field(network, 1)
    assert found.tiles and (found.width.before, found.width.after) == reach


def dynamic(x: Tensor, layer: nn.Module) -> Tensor:
    """A convolution whose weights come from the image."""
    return functional.conv2d(x, layer(x.mean((2, 3))).view(1, 1, 3, 3), padding=1)


def above_the_median(x: Tensor) -> Tensor:
    """`quantile` drops a dimension in place."""
    return x - x.flatten(1).quantile(0.5, 1)[:, None, None, None]


@pytest.mark.parametrize("function", [dynamic, above_the_median])
def test_what_depends_on_values_of_the_whole_image_is_global(function: Callable[..., Tensor]) -> None:
    layers = [nn.Linear(1, 9)] if function is dynamic else []
    found = receptive_field(Apply(function, *layers), 1, measure=False)
    assert found.height.global_layer == found.width.global_layer == "Apply" and not found.tiles


def test_dimensions_changed_in_place() -> None:
    network = Apply(lambda x, layer: layer(x).unsqueeze_(0).relu_().squeeze_(0).transpose_(2, 3).mT, conv(3, 1))
    assert_the_same(network, 1, (12, 14))
    assert receptive_field(network, 1).tiles


def test_an_operator_that_takes_floats_alone_is_measured_in_single_precision() -> None:
    network = Apply(lambda x, layer: layer(x.clone().index_put_((torch.tensor([0]),), torch.zeros(1)) + x), conv(3, 1))
    found = receptive_field(network, 1, (64, 64))
    assert "index_put" in found.measured and (found.height.before, found.height.after) == (1, 1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: torch.jit.script(row(conv(3, 1))), "model RecursiveScriptModule: is compiled by torch.jit, so that"),
        (
            lambda: Apply(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)),
            "PyTorch cannot run aten::fake_quantize_per_tensor_affine_cachemask on an image without pixels",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_cannot_be_traced_is_told_in_one_line(network: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UserError) as caught:
        receptive_field(network(), 1)
    assert message in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("function", "operator", "sides"),
    [
        (lambda x: functional.conv2d(x, x[:, :, :3, :3], padding=1), "convolution", (WHOLE, WHOLE)),
        (lambda x: x[:, :, torch.arange(x.shape[2]) // 2 * 2], "index", ((1, 0), (0, 0))),
        (lambda x: x.renorm(2, 2, 1.0), "renorm", ((0, 0), WHOLE)),
        (lambda x: x.renorm(2, 2, 1.0).relu() + functional.max_pool2d(x, 3, 1, 1), "renorm", ((1, 1), WHOLE)),
    ],
    ids=["convolution", "index", "renorm", "renorm and pooling"],
)
def test_an_operator_without_a_rule_is_measured_and_not_tiled(
    function: Callable[[Tensor], Tensor], operator: str, sides: tuple[Any, Any]
) -> None:
    found = receptive_field(row(nn.BatchNorm2d(1), Apply(function)), 1, (64, 64))
    assert f"layer 1 (Apply): operator aten::{operator} is not supported: " in found.measured and not found.tiles
    assert tuple(None if axis.global_layer else (axis.before, axis.after) for axis in found.axes) == sides
    assert receptive_field(Apply(function), 1, (64, 64), measure=False).height.global_layer == "Apply"


def test_a_branch_whose_scale_is_zero_at_first_is_measured() -> None:
    scaled = row(nn.Conv2d(1, 1, 5, padding=2), nn.BatchNorm2d(1))
    nn.init.zeros_(scaled[1].weight)  # type: ignore[index,arg-type]
    found = receptive_field(
        row(Branches([scaled, nn.Identity()], "add"), Apply(lambda x: x.renorm(2, 2, 9.0))), 1, (64, 64)
    )
    assert (found.height.before, found.height.after) == (2, 2) and found.measured
    assert not scaled[1].weight.any()  # type: ignore[index]


class Attention(nn.Module):
    """Blocks in which every patch attends to every other."""

    def __init__(self, patch: int, blocks: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, patch, patch)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patches(x)
        tokens = maps.flatten(2).mT
        for block in self.blocks:
            tokens = tokens + block(tokens, tokens, tokens)[0]
        return tokens.mT.reshape(maps.shape)


@pytest.mark.parametrize(("patch", "side"), [(4, 128), (1, 64), (4, 256)])
def test_attention_over_many_patches_fills_no_tables(patch: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    totals: list[int] = []

    def counted(tracer: Any, extents: Any) -> None:
        count(tracer, extents)
        totals.append(sum(tracer.tables.values()))

    count = tracing._Tracer.count
    monkeypatch.setattr(tracing._Tracer, "count", counted)
    found = receptive_field(Attention(patch, 4), 1, (side, side))
    assert found.height.global_layer == "blocks.0 (MultiheadAttention)" and found.cumulative_stride == patch
    assert max(totals) < 1 << 25


def test_what_compares_all_pixels_with_all_is_not_measured_on_ever_larger_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "MAX_VALUES", 1 << 20)
    sides: list[int] = []

    def compared(x: Tensor) -> Tensor:
        if x.device.type != "meta":
            sides.append(x.shape[2])
        return torch.cdist(x.flatten(2).mT, x.flatten(2).mT).mean(1).view(x.shape)

    found = receptive_field(Apply(compared), 1, (16, 16))
    assert found.measured and found.height.global_layer and max(sides) == 32


def test_tables_that_take_too_much_memory_together_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_TOTAL", 2000)
    traced = trace(row(*[conv(3, 1)] * 3), 1, (256, 256))
    assert traced.output and "takes too much memory" in traced.output.unknown


@pytest.mark.parametrize("output", [lambda x: [x], lambda x: {"logits": x}])
def test_an_output_that_is_no_tensor_is_told_after_one_run(output: Any) -> None:
    runs: list[int] = []

    def counted(x: Tensor) -> Any:
        runs.append(1)
        return output(x)

    with pytest.raises(UserError, match="it should give one tensor"):
        receptive_field(Apply(counted), 1)
    assert len(runs) == 1


@pytest.fixture
def rules_as_they_were() -> Iterator[None]:
    rules, layers = dict(RULES), dict(LAYER_RULES)
    yield
    for registered, kept in ((RULES, rules), (LAYER_RULES, layers)):
        registered.clear()
        registered.update(kept)  # type: ignore[arg-type]


@pytest.mark.usefixtures("rules_as_they_were")
def test_a_rule_for_an_operator_can_be_registered() -> None:
    @rule("aten::renorm")
    def slice_by_slice(call: Call) -> Extent:
        return call.mark_global(call.extent.reduce([dim for dim in range(4) if dim != call["dim"]]))

    found = receptive_field(Apply(lambda x: x.renorm(2, 2, 1.0)), 1)
    assert found.width.global_layer == "Apply" and found.height.size == 1 and not found.measured


class Spectrum(nn.Module):
    """Depends on more than its rule tells."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.fft.fft2(images).real


@pytest.mark.usefixtures("rules_as_they_were")
def test_a_rule_for_a_class_of_layers_can_be_registered() -> None:
    network = row(conv(3, 1), Spectrum(), conv(3, 1))
    assert receptive_field(network, 1).height.global_layer == "1 (Spectrum)"

    @layer_rule(Spectrum)
    def its_pixel(layer: Spectrum, extent: Extent) -> Extent:
        return extent

    assert receptive_field(network, 1).height.size == 5
    layer_rule(Spectrum)(lambda layer, extent: extent.reduce([2, 3]).reshape((1, 1, 1, 1), (1,)))
    with pytest.raises(UserError, match=r"layer 1 \(Spectrum\): its rule gives sizes \(1,\) for an output"):
        receptive_field(network, 1)


def test_the_model_is_left_as_it_was() -> None:
    model = small("unet")
    model.train()
    next(iter(model.children())).eval()
    training = [layer.training for layer in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    receptive_field(model, 2)
    assert [layer.training for layer in model.modules()] == training
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    for name, tensor in model.state_dict().items():
        assert tensor.device.type == "cpu" and torch.equal(tensor, before[name])


def test_a_bug_in_a_rule_keeps_its_traceback() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RULES, "aten::convolution", lambda call: call["misspelt"])
        with pytest.raises(KeyError, match="misspelt"):
            receptive_field(conv(3), 1)


def test_deterministic_algorithms_change_nothing() -> None:
    """They take interpolation apart into indexing."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1)
    )
    plain = receptive_field(model, 1, (32, 32))
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert receptive_field(model, 1, (32, 32)).height == plain.height
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
