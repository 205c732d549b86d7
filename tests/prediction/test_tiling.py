"""Tiles: what the whole image gives, for every model with a finite field, at every size of image and of tile."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from seeds import seeds
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.data import views
from yeastexp.data.pieces import Pieces
from yeastexp.errors import UserError
from yeastexp.nets import costs
from yeastexp.nets.receptive_field import receptive_field
from yeastexp.nets.receptive_field.reading import _Search
from yeastexp.prediction import tiling
from yeastexp.prediction.tiling import Tiling
from yeastexp.registry import model as models
from yeastexp.tasks.semantic import Semantic

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks of a few pixels; several threads would wait for each other."""
    torch.set_num_threads(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def trained(model: nn.Module, channels: int) -> nn.Module:
    """A model whose norms have seen images, so that no two layers are alike."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(2, channels, 64, 64))
    return model.eval()


def assert_the_same(model: nn.Module, tiles: Tiling, image: Tensor, tile: tuple[int, int]) -> None:
    """Logits up to float rounding, labels to the last pixel."""
    whole = tiling.run(model, image)
    found = tiling.assemble(tiles.logits(Pieces.of(image), tile), tile)
    assert found.shape == whole.shape
    assert float((found - whole).abs().max()) <= 1e-5 * float(whole.abs().max())
    assert torch.equal(found.argmax(dim=0), whole.argmax(dim=0))


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "unet": [
        {"width": 2, "levels": 3},
        {"width": 2, "levels": 2, "space_to_depth": 1},
        {"width": 3, "levels": 2, "space_to_depth": 3, "norm": "none"},
        {"width": 2, "levels": 3, "residual": True, "downsampling": "stride"},
    ],
    "fcn": [{"width": 2, "levels": 3, "skips": 0}, {"width": 2, "levels": 4, "skips": 2}],
}


def made(name: str, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = models[name](2, 3, **options)
    return trained(model, 2)


CASES = [(name, options) for name in models for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_tiles_of_every_model_give_what_the_whole_image_gives(name: str, options: dict[str, Any]) -> None:
    if name == "cnn_classifier":
        pytest.skip("gives one answer an image")
    model = made(name, options)
    tiles = Tiling.of(model, 2)
    assert not tiles.inexact
    stride = tiles.stride
    for size in ((131, 97), (64, 160), (stride * 9 + 1, stride * 7 - 1)):
        for tile in ((stride, 5 * stride), (3 * stride, 2 * stride), (48 // stride * stride, 96 // stride * stride)):
            assert_the_same(model, tiles, noise(2, *size), tile)


class Extended(nn.Module):
    """A network on images whose last rows and columns are repeated or mirrored up to multiples of its strides."""

    def __init__(self, inner: nn.Module, multiple: int, how: str) -> None:
        super().__init__()
        self.inner, self.multiple, self.how = inner, multiple, how

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        beyond = (0, -width % self.multiple, 0, -height % self.multiple)
        found: Tensor = self.inner(functional.pad(images, beyond, mode=self.how))
        return found[..., :height, :width]


class Skip(nn.Module):
    """Adds what goes in to what comes out, or multiplies it."""

    def __init__(self, inner: nn.Module, product: bool) -> None:
        super().__init__()
        self.inner, self.product = inner, product

    def forward(self, features: Tensor) -> Tensor:
        inner: Tensor = self.inner(features)
        return features * inner.sigmoid() if self.product else features + inner


def same_size(source: random.Random, depth: int, stride: int = 1) -> tuple[nn.Module, int]:
    """A random network of 2 channels that keeps sizes which are multiples of a number, and that number."""
    layers: list[nn.Module] = []
    multiple = stride
    for _ in range(source.randint(1, 3)):
        kernel, dilation = source.choice([1, 3, 3, 5]), source.choice([1, 1, 2])
        mode = source.choice(["zeros", "zeros", "reflect", "replicate"])
        layers.append(nn.Conv2d(2, 2, kernel, 1, "same", dilation, padding_mode=mode))
        layers.append(source.choice([nn.ReLU(), nn.Tanh(), nn.BatchNorm2d(2)]))
        if depth and source.random() < 0.6:
            factor = source.choice([2, 2, 3])
            inner, inner_multiple = same_size(source, depth - 1, stride * factor)
            multiple = math.lcm(multiple, inner_multiple)
            coarse = nn.Sequential(down(source, factor), inner, up(source, factor))
            layers.append(Skip(coarse, source.random() < 0.5) if source.random() < 0.7 else coarse)
    return nn.Sequential(*layers), multiple


def down(source: random.Random, factor: int) -> nn.Module:
    """Steps by a factor."""
    return source.choice(
        [
            nn.MaxPool2d(factor),
            nn.AvgPool2d(factor),
            nn.Conv2d(2, 2, factor, factor),
            nn.Sequential(nn.PixelUnshuffle(factor), nn.Conv2d(2 * factor**2, 2, 1)),
            nn.Conv2d(2, 2, factor + 2, factor, 1),
        ]
    )


def up(source: random.Random, factor: int) -> nn.Module:
    """The way back."""
    return source.choice(
        [
            nn.Upsample(scale_factor=factor),
            nn.Upsample(scale_factor=factor, mode="bilinear"),
            nn.ConvTranspose2d(2, 2, factor, factor),
            nn.ConvTranspose2d(2, 2, factor + 2, factor, 1),
            nn.Sequential(nn.Conv2d(2, 2 * factor**2, 1), nn.PixelShuffle(factor)),
        ]
    )


@pytest.mark.parametrize("seed", seeds(12, of=40))
def test_tiles_of_a_random_network_give_what_the_whole_image_gives(seed: int) -> None:
    """In float64, where rounding hides nothing."""
    source = random.Random(seed)
    torch.manual_seed(seed)
    inner, multiple = same_size(source, depth=2)
    network = Extended(inner, multiple, source.choice(["reflect", "replicate"])).double().eval()
    tiles = Tiling.of(network, 2)
    assert not tiles.inexact and multiple % tiles.stride == 0
    image = noise(2, source.randint(60, 90), source.randint(60, 90)).double()
    tile = (tiles.stride * source.randint(1, 4), tiles.stride * source.randint(1, 4))
    whole = tiling.run(network, image)
    found = tiling.assemble(tiles.logits(Pieces.of(image), tile), tile)
    assert torch.allclose(found, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))


def test_two_classes_are_labelled_alike_in_a_whole_image_and_in_tiles_of_all_sizes() -> None:
    model = trained(models["unet"](1, 2, width=2, levels=3), 1)
    tiles, image = Tiling.of(model, 1), noise(1, 200, 312)
    whole = tiling.run(model, image)
    for side in range(tiles.stride, 200, 3 * tiles.stride):
        found = tiling.assemble(tiles.logits(Pieces.of(image), (side, side)), (side, side))
        assert torch.equal(found.argmax(dim=0), whole.argmax(dim=0))


@pytest.mark.parametrize("symmetry", views.SYMMETRIES)
def test_a_symmetry_and_its_inverse(symmetry: views.Symmetry) -> None:
    image = noise(2, 5, 7)
    there = views.reoriented(Pieces.of(image), symmetry)
    up, left, exchanged = symmetry
    flipped = image.flip([dim for dim, mirrored in ((1, up), (2, left)) if mirrored])
    assert torch.equal(there.whole, flipped.transpose(1, 2) if exchanged else flipped)
    assert torch.equal(there.cut(slice(1, 3), slice(2, 5)), there.whole[:, 1:3, 2:5])
    assert torch.equal(views.reoriented(there, views.inverse(symmetry)).whole, image)


def test_the_average_over_symmetries_is_that_of_their_probabilities() -> None:
    model = trained(models["unet"](1, 3, width=2, levels=2), 1)
    tiles, image = Tiling.of(model, 1), noise(1, 61, 50)
    probabilities = []
    for turns in range(4):
        for mirrored in (False, True):
            laid = image.rot90(turns, (1, 2)).flip(2) if mirrored else image.rot90(turns, (1, 2))
            found = tiling.run(model, laid).softmax(dim=0)
            probabilities.append((found.flip(2) if mirrored else found).rot90(-turns, (1, 2)))
    expected = torch.stack(probabilities).mean(dim=0)
    for logits in (partial(tiling.at_once, model), partial(tiles.logits, tile=(16, 16))):
        averaged = views.averaged(Pieces.of(image), logits, Semantic(1, 2), 8)
        torch.testing.assert_close(tiling.assemble(averaged, (16, 32)).exp(), expected, rtol=1e-5, atol=1e-6)


WHOLE = [("instance", "InstanceNorm"), ("group", "GroupNorm")]


@pytest.mark.parametrize(("norm", "layer"), WHOLE)
def test_a_net_that_depends_on_the_whole_image_is_blended_from_tiles(norm: str, layer: str) -> None:
    torch.manual_seed(0)
    model = models["unet"](1, 2, width=4, levels=2, norm=norm).eval()
    tiles, image = Tiling.of(model, 1), noise(1, 200, 130)
    assert tiles.inexact == f"every output depends on the whole image, because of its layer down.0.1 ({layer})"
    whole = tiling.run(model, image)
    blended = tiles.logits(Pieces.of(image), (96, 96))
    found = tiling.assemble(blended, (96, 96))
    assert float((found - whole).abs().mean()) < 0.1 * float(whole.std())
    for tile in ((32, 64), (200, 130)):
        torch.testing.assert_close(tiling.assemble(blended, tile), found)
    at_once = tiling.assemble(tiles.logits(Pieces.of(image), (200, 200)), (200, 200))
    torch.testing.assert_close(at_once, whole)


@pytest.mark.parametrize(("length", "side", "stride"), [(100, 32, 4), (97, 32, 8), (33, 32, 16), (20, 32, 4)])
def test_weights_of_tiles_make_one_and_fade_at_their_ends(length: int, side: int, stride: int) -> None:
    axis = tiling.BlendedAxis.of(length, side, stride)
    total = torch.zeros(length)
    for tile, weight in zip(axis.tiles, axis.weights, strict=True):
        assert tile.start % stride == 0 and tile.stop - tile.start <= side and (weight > 0).all()
        total[tile] += weight
    torch.testing.assert_close(total, torch.ones(length))
    assert axis.tiles[0].start == 0 and axis.tiles[-1].stop == length
    for before, after in pairwise(axis.tiles):
        assert before.stop - after.start >= min(side // tiling.OVERLAP, length - after.start) - stride


class Apply(nn.Module):
    """A function of the image and of layers, as a network."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images, *self.layers)


def conv(channels: int = 1, kernel: int = 3) -> nn.Module:
    return nn.Conv2d(channels, 1, kernel, padding=kernel // 2)


def coarse() -> nn.Module:
    return nn.Sequential(conv(), nn.MaxPool2d(8), conv(), nn.Upsample(scale_factor=8), conv())


def across(x: Tensor) -> Tensor:
    """From 0 on the left to 1 on the right."""
    return torch.linspace(0, 1, x.shape[3]).expand(1, 1, *x.shape[2:])


def halves(x: Tensor, left: nn.Module, right: nn.Module) -> Tensor:
    parts = x.chunk(2, -1)
    return torch.cat([left(parts[0]), right(parts[1])], -1)


def half_doubled(x: Tensor, layer: nn.Module) -> Tensor:
    y = layer(x).clone()
    y[..., : x.shape[3] // 2] *= 2
    return y


def extended_on_both_sides(x: Tensor, layer: nn.Module, multiple: int) -> Tensor:
    height, width = x.shape[2:]
    below, right = -height % multiple, -width % multiple
    top, left = below // 2, right // 2
    y = layer(functional.pad(x, (left, right - left, top, below - top)))
    return y[..., top : top + height, left : left + width]


def second_channel(x: Tensor, layer: nn.Module, values: Callable[[Tensor], Tensor | float]) -> Tensor:
    """The image in one channel, something else written to another."""
    z = x.new_zeros(1, 2, *x.shape[2:])
    z[:, :1] = x
    z[:, 1:] = values(x)
    return layer(z)


class Stretched(nn.Module):
    """A learned map stretched to the image, joined to it or added."""

    def __init__(self, join: bool) -> None:
        super().__init__()
        self.map, self.layer, self.join = nn.Parameter(torch.zeros(1, 1, 16, 16)), conv(1 + join), join

    def forward(self, x: Tensor) -> Tensor:
        stretched = functional.interpolate(self.map, x.shape[2:], mode="bilinear").expand(len(x), 1, *x.shape[2:])
        return self.layer(torch.cat([x, stretched], 1) if self.join else x + stretched)


def first_columns_doubled(x: Tensor) -> Tensor:
    y = x.clone()
    y[..., :10] *= 2
    return y


DEPENDING_ON_POSITION = {
    "coordinates joined": Apply(lambda x, layer: layer(torch.cat([x, across(x)], 1)), conv(2)),
    "coordinates stacked": Apply(lambda x, layer: layer(torch.stack([x[:, 0], across(x)[:, 0]], 1)), conv(2)),
    "coordinates written": Apply(partial(second_channel, values=across), conv(2)),
    "coordinates added": Apply(lambda x, layer: layer(x) + across(x).sin(), conv()),
    "coordinates of tokens": Apply(lambda x: (x.flatten(2).mT + torch.arange(x[0, 0].numel())[:, None]).mT.view_as(x)),
    "map joined": Stretched(join=True),
    "map added": Stretched(join=False),
    "extended to multiples of four strides": Apply(partial(extended_on_both_sides, multiple=32), coarse()),
    "halves": Apply(halves, conv(kernel=1), conv(kernel=1)),
    "half doubled": Apply(half_doubled, conv()),
    "width as a factor": Apply(lambda x, layer: layer(x) * x.shape[3] / 256, conv()),
    "width in a tensor": Apply(lambda x, layer: layer(x) * torch.full((1,), float(x.shape[3])), conv()),
}
EXACT_AT_MULTIPLES = {
    "extended to multiples of the stride": Apply(partial(extended_on_both_sides, multiple=8), coarse()),
    "resized to an odd size": Apply(
        lambda x: functional.interpolate(functional.max_pool2d(x, 2, ceil_mode=True), x.shape[2:], mode="bilinear")
    ),
}
TREATING_POSITIONS_ALIKE = {
    "zeros_like": Apply(lambda x, layer: torch.where(layer(x) > 0, layer(x), torch.zeros_like(x)), conv()),
    "ones joined": Apply(lambda x, layer: layer(torch.cat([x, torch.ones_like(x)], 1)), conv(2)),
    "half written": Apply(partial(second_channel, values=lambda x: 0.5), conv(2)),
    "new_zeros and full": Apply(lambda x: x + x.new_zeros(x.shape) * torch.full(x.shape[2:], 2.0)),
    "expanded": Apply(lambda x: x * torch.arange(1, 3).view(1, 2, 1, 1).float().expand(1, 2, *x.shape[2:])),
}


def redrawn(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.eval()


@pytest.mark.parametrize("name", DEPENDING_ON_POSITION)
def test_a_net_that_depends_on_position_is_told_by_its_operators_and_by_running(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = redrawn(DEPENDING_ON_POSITION[name])
    assert "is not shift-equivariant" in Tiling.of(network, 1).inexact
    monkeypatch.setattr(tiling, "_why_inexact", lambda field: "")
    monkeypatch.setattr(_Search, "off_grid_layer", lambda search, reading: "")
    assert "tried on noise, tiles differ from the whole image by up to " in Tiling.of(network, 1).inexact


@pytest.mark.parametrize("name", EXACT_AT_MULTIPLES)
@pytest.mark.parametrize("by_running", [False, True])
def test_a_net_whose_grid_moves_at_other_sizes_is_tiled_at_multiples_of_its_stride(
    name: str, by_running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = redrawn(EXACT_AT_MULTIPLES[name])
    if by_running:
        monkeypatch.setattr(_Search, "off_grid_layer", lambda search, reading: "")
    tiles = Tiling.of(network, 1)
    said = "tried on noise" if by_running else "is not shift-equivariant at sizes that are no multiple of"
    assert not tiles.inexact and said in tiles.off_grid
    assert tiles.on((61, 64)).inexact == tiles.off_grid and not tiles.on((72, 64)).inexact
    assert_the_same(network, tiles, noise(1, 72, 120), (16, 24))
    blended = tiling.assemble(tiles.logits(Pieces.of(noise(1, 61, 64)), (32, 32)), (32, 32))
    assert blended.shape == (1, 61, 64)


def test_a_net_that_refuses_the_sizes_of_tiles_is_blended() -> None:
    """Its stride is 1, but what it asserts is known to nobody else."""

    def checked(x: Tensor, layer: nn.Module) -> Tensor:
        assert x.shape[2] % 64 == 0 == x.shape[3] % 64
        y: Tensor = layer(x)
        return y

    network = Apply(checked, conv())
    tiles = Tiling.of(network, 1)
    assert tiles.inexact.startswith("tiles could not be tried on an image of 64×64 pixels (AssertionError")
    found = tiling.assemble(tiles.logits(Pieces.of(noise(1, 192, 128)), (128, 128)), (64, 64))
    assert found.shape == (1, 192, 128)


@pytest.mark.parametrize("name", TREATING_POSITIONS_ALIKE)
def test_constants_that_are_alike_everywhere_leave_tiles_exact(name: str) -> None:
    network = redrawn(TREATING_POSITIONS_ALIKE[name])
    tiles = Tiling.of(network, 1)
    assert not tiles.inexact
    assert_the_same(network, tiles, noise(1, 61, 50), (16, 16))


class KeepingItsFirst(nn.Module):
    """Keeps tensors that it makes at its first run."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = conv(), None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = torch.full((1,), 2.0, device=x.device)
            self.register_buffer("other", torch.ones(1, device=x.device))
        y: Tensor = self.layer(x) * self.scale * self.other
        return y


def test_a_run_without_pixels_leaves_no_tensors_in_the_model() -> None:
    network = KeepingItsFirst()
    tiling.bytes_per_pixel(network, 1)
    receptive_field(network, 1)
    costs.macs(network, (1, 32, 32))
    assert network.scale is None and not dict(network.named_buffers())
    assert not Tiling.of(network, 1).inexact
    assert network(noise(1, 1, 8, 8)).device == CPU


def test_what_no_rule_tells_is_found_by_running() -> None:
    assert receptive_field(Apply(first_columns_doubled), 1).tiles
    assert "tried on noise" in Tiling.of(Apply(first_columns_doubled), 1).inexact


def by_width(x: Tensor, wide: nn.Module, narrow: nn.Module, width: int = 600) -> Tensor:
    return wide(x) if x.shape[3] > width else narrow(x)  # type: ignore[no-any-return]


def first_rows_doubled(x: Tensor) -> Tensor:
    """No slice can be told from none in an image of fewer rows."""
    y = x.clone()
    y[:, :, : min(len(y[0, 0]), 600)] *= 2
    return y


def padded_to_even(x: Tensor, layer: nn.Module) -> Tensor:
    """Pads only where it has to."""
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        x = functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    return layer(x)[..., :height, :width]  # type: ignore[no-any-return]


OTHER_WHEN_LARGE = {
    "branch": (Apply(by_width, conv(), conv()), "convolution layers.0.weight layers.0.bias"),
    "branch of small tiles": (Apply(partial(by_width, width=150), conv(), conv()), "convolution layers.1.weight"),
    "rows": (Apply(first_rows_doubled), "slice"),
    "factor": (Apply(lambda x: x * (2 if x.shape[3] > 600 else 3)), "mul 2"),
    "pool": (Apply(lambda x: functional.max_pool2d(x, k := 9 if x.shape[3] > 600 else 3, 1, k // 2)), "max_pool2d"),
    "shift": (Apply(lambda x: functional.pad(x, (k := 9 if x.shape[3] > 600 else 3, -k))), "constant_pad_nd 9"),
    "channel": (Apply(lambda x: torch.cat([x, 2 * x], 1)[:, (k := int(x.shape[3] > 600)) : k + 1]), "slice 1 1"),
    "dimension": (Apply(lambda x: x.softmax(int(x.shape[3] > 600))), "softmax"),
}


@pytest.mark.parametrize("name", OTHER_WHEN_LARGE)
def test_a_net_that_treats_large_images_otherwise_is_blended_there(name: str) -> None:
    network, operator = OTHER_WHEN_LARGE[name]
    tiles = Tiling.of(redrawn(network), 1)
    size, tile = (900, 700), (48, 48)
    assert not tiles.inexact and operator in tiles.on(size, tile).inexact
    assert "it runs other operators on " in tiles.on(size, tile).inexact
    assert tiles.tile(size, CPU) == (tiling.BLENDED, tiling.BLENDED) or name == "branch of small tiles"
    assert_the_same(network, tiles, noise(1, *size), (900, 900))


def test_a_net_that_pads_where_it_has_to_runs_other_operators_and_is_exact() -> None:
    inner = nn.Sequential(conv(), nn.MaxPool2d(2), conv(), nn.Upsample(scale_factor=2))
    network = redrawn(Apply(padded_to_even, inner))
    tiles = Tiling.of(network, 1)
    for size in ((301, 330), (450, 402)):
        assert not tiles.on(size, (48, 48)).inexact
        assert_the_same(network, tiles, noise(1, *size), (48, 48))


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, 2, 1)], ids=["fewer rows", "more rows"])
def test_a_net_that_gives_another_size_for_odd_sizes_is_refused_there(layer: nn.Module) -> None:
    network = nn.Sequential(layer, nn.Upsample(scale_factor=2))
    tiles = Tiling.of(network, 1)
    assert not tiles.inexact and "could not be tried on an image of " in tiles.off_grid
    given = "30×32" if isinstance(layer, nn.MaxPool2d) else "32×32"
    with pytest.raises(UserError, match=f"the model gives {given} pixels for an image of 31×32; let it extend images"):
        tiling.run(network, noise(1, 31, 32))
    assert_the_same(network, tiles, noise(1, 64, 80), (16, 16))


def test_rounding_of_single_precision_is_told_from_dependence_on_position() -> None:
    """Sums of large values that all but cancel."""
    network = Apply(lambda x, layer: (layer(x) + 1e4) - 1e4, conv(kernel=7))
    assert not Tiling.of(redrawn(network), 1).inexact


def test_a_net_that_takes_multiples_alone_is_tried_on_those() -> None:
    network = nn.Sequential(nn.PixelUnshuffle(8), nn.Conv2d(64, 64, 3, padding=1), nn.PixelShuffle(8))
    assert not Tiling.of(network, 1).inexact


def test_a_wide_field_is_tried_one_axis_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def recorded(model: nn.Module, image: Tensor) -> Tensor:
        sizes.append(tuple(image.shape[1:]))
        logits: Tensor = model(image[None])[0].detach()
        return logits

    monkeypatch.setattr(tiling, "run", recorded)
    assert not Tiling.of(nn.Conv2d(1, 1, 3, padding=300, dilation=300), 1).inexact
    assert (sizes[0][1], sizes[4][0]) == (257, 257) and max(map(max, sizes)) < 700


class Uneven(nn.Module):
    """Upsamples by corners that are aligned, so that what is between them depends on the image's size."""

    def forward(self, images: Tensor) -> Tensor:
        coarse = functional.max_pool2d(images, 2)
        return functional.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=True)


def test_why_tiles_would_not_be_exact_is_said() -> None:
    assert "is not shift-equivariant" in Tiling.of(Uneven(), 1).inexact
    assert Tiling.of(nn.MaxPool2d(2), 1).inexact == "its output is of another size"
    assert "operator aten::renorm is not supported" in Tiling.of(Apply(lambda x: x.renorm(2, 2, 1.0)), 1).inexact


def test_the_tile_is_what_costs_least_in_the_memory_there(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = Tiling(nn.Identity(), 16, ((100, 100), (100, 100)), bytes_per_pixel=100)
    size, cost = (2048, 3000), {}
    for room in (10**7, 10**8, 10**9):
        monkeypatch.setattr(tiling, "activation_bytes", lambda device, room=room: room)
        tile = tiles.tile(size, CPU)
        assert tile[0] % 16 == tile[1] % 16 == 0
        assert (tile[0] + 200) * (tile[1] + 200) * 100 <= room or room == 10**9
        cost[room] = tiles._cost(size, tile)[0]
        assert tiles.tile(size, CPU, side=500) == (512, 512)
    assert cost[10**7] > 1.5 * cost[10**8] > 1.5 * cost[10**9] == 1.5 * 2048 * 3000
    monkeypatch.setattr(tiling, "activation_bytes", lambda device: 0)
    assert tiles.tile(size, CPU) == (16, 16), "as small as it gets"


def test_memory_is_that_of_what_is_held_at_once() -> None:
    """An image of one channel, then four of it, and of those the three that are alive together."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(2, 1, 1))
    assert tiling.peak_bytes(model, (1, 10, 20)) == (4 + 2) * 4 * 200
    assert tiling.peak_bytes(Asking(), (1, 10, 20)) == 1024 * 200, "a guess"


class Asking(nn.Module):
    """Asks for the values of pixels, which an image without pixels has not."""

    def forward(self, images: Tensor) -> Tensor:
        return images if images.max().item() > 0 else -images


def test_an_image_that_is_too_small_for_the_net_is_an_error_that_names_the_layer() -> None:
    model = nn.Sequential(nn.MaxPool2d(4), nn.Upsample(scale_factor=4))
    message = r"layer 0 \(MaxPool2d\): cannot be run on an image of 1×2×2 \(C×H×W\).*; it takes one of 4×4 pixels"
    with pytest.raises(UserError, match=message):
        tiling.run(model, noise(1, 2, 2))


class Buggy(nn.Module):
    """Fails on pixels of real images alone."""

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "meta":
            raise RuntimeError("a bug")
        return images


def test_a_bug_of_a_model_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        tiling.run(Buggy(), noise(1, 8, 8))
