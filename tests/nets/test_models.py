"""The networks: sizes, reach, parameters; their blocks against torch's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.errors import UserError
from yeastexp.nets import blocks
from yeastexp.nets.cnn_classifier import CNNClassifier
from yeastexp.nets.fcn import FCN
from yeastexp.nets.unet import UNet

NORMS = ("batch", "group", "instance", "none")
VARIANTS = list(itertools.product((False, True), ("pool", "stride")))
"""Of the U-Net: residual, downsampling."""


def unet(channels: int = 1, classes: int = 2, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return UNet(channels, classes, **{"width": 2, "levels": 2, **options})  # type: ignore[arg-type]


def fcn(channels: int = 1, classes: int = 2, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return FCN(channels, classes, **{"width": 2, "levels": 3, "skips": 1, **options})  # type: ignore[arg-type]


def accept_every_size(model: nn.Module) -> None:
    for height, width in ((1, 1), (1, 9), (5, 7), (16, 16), (25, 31)):
        logits = model(torch.randn(2, 2, height, width))
        assert logits.shape == (2, 3, height, width) and bool(logits.isfinite().all())


@pytest.mark.parametrize(("levels", "patch"), list(itertools.product((1, 2, 3), (1, 2, 3))))
def test_every_size_is_an_image(levels: int, patch: int) -> None:
    for residual, downsampling in VARIANTS:
        accept_every_size(
            unet(2, 3, levels=levels, space_to_depth=patch, residual=residual, downsampling=downsampling).eval()
        )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [unet, fcn])
def test_every_size_is_an_image_for_every_norm_and_trains(make: Callable[..., nn.Module], norm: str) -> None:
    model = make(2, 3, norm=norm)
    accept_every_size(model)
    accept_every_size(model.eval())


@pytest.mark.parametrize("norm", ["group", "instance", "none"])
def test_one_window_of_one_pixel_at_the_coarsest_level_trains(norm: str) -> None:
    model = unet(norm=norm, levels=4)
    model(torch.randn(1, 1, 9, 16)).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_batch_norm_refuses_a_single_value_in_training_alone() -> None:
    model = unet(levels=4)
    with pytest.raises(UserError, match=r"^\[patches\] size: .* batch norm a single pixel .*; use larger patches"):
        model(torch.randn(1, 1, 9, 16))
    assert model(torch.randn(1, 1, 9, 17)).shape == (1, 2, 9, 17)
    assert model.eval()(torch.randn(1, 1, 9, 16)).shape == (1, 2, 9, 16)


def test_norms_are_torchs_own() -> None:
    features = torch.randn(3, 12, 5, 4)
    for found, wanted in (
        (blocks.BatchNorm(12), nn.BatchNorm2d(12)),
        (blocks.InstanceNorm(12, affine=True), nn.InstanceNorm2d(12, affine=True)),
        (blocks.GroupNorm(4, 12), nn.GroupNorm(4, 12)),
    ):
        for weights in found.parameters():
            nn.init.normal_(weights)
        wanted.load_state_dict(found.state_dict())
        for training in (True, False):
            assert torch.equal(found.train(training)(features), wanted.train(training)(features))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("residual", "downsampling"), VARIANTS)
def test_every_norm_learns(norm: str, residual: bool, downsampling: str) -> None:
    model = unet(norm=norm, dropout=0.2, width=8, residual=residual, downsampling=downsampling)
    model(torch.randn(2, 1, 24, 20)).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [unet, fcn])
def test_evaluation_is_the_same_twice_and_does_not_depend_on_the_batch(
    make: Callable[..., nn.Module], norm: str
) -> None:
    model = make(norm=norm, dropout=0.5).double().eval()
    images = torch.randn(3, 1, 24, 20, dtype=torch.float64)
    whole = model(images)
    assert torch.equal(whole, model(images))
    torch.testing.assert_close(whole[1:2], model(images[1:2]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [unet, fcn])
def test_dropout_draws_in_training_alone(make: Callable[..., nn.Module]) -> None:
    model = make(dropout=0.5)
    images = torch.randn(2, 1, 16, 16)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


def changed_by(model: nn.Module, row: int, column: int, size: int = 64) -> tuple[int, int, int, int]:
    """The rows and columns, first and last, of logits that one pixel changes."""
    image = torch.randn(1, 1, size, size, dtype=torch.float64)
    other = image.clone()
    other[0, 0, row, column] += 1000
    apart = (model(image) != model(other)).any(dim=1)[0]
    rows, columns = (apart.any(dim=axis).nonzero() for axis in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize(("levels", "patch"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
def test_a_pixel_reaches_as_far_as_the_convolutions(levels: int, patch: int) -> None:
    """Two 3×3 convolutions a level down and up, each a pixel of its level: 2 at every level, twice but at the last."""
    model = unet(levels=levels, space_to_depth=patch).double().eval()
    reach = patch * (sum(2 * 2 * 2**level for level in range(levels - 1)) + 2 * 2 ** (levels - 1))
    coarsest = patch * 2 ** (levels - 1)
    first, last, left, right = changed_by(model, 32, 32)
    for low, high in ((first, last), (left, right)):
        assert 32 - reach - coarsest < low < 32 < high < 32 + reach + coarsest


@pytest.mark.parametrize("cut", [(64, 72), (65, 71), (57, 95)])
@pytest.mark.parametrize(("residual", "downsampling"), VARIANTS)
def test_the_upper_left_part_alone_gives_the_same_far_from_the_cut(
    cut: tuple[int, int], residual: bool, downsampling: str
) -> None:
    model = unet(3, 2, levels=3, space_to_depth=2, residual=residual, downsampling=downsampling).double().eval()
    image = torch.randn(1, 3, 104, 112, dtype=torch.float64)
    height, width = cut
    far = unet_reach(levels=3, patch=2)
    assert height > far and width > far
    whole, part = model(image), model(image[..., :height, :width])
    kept = (..., slice(height - far), slice(width - far))
    torch.testing.assert_close(part[kept], whole[kept], rtol=0, atol=1e-12)
    assert not torch.equal(part[..., -1, -1], whole[..., height - 1, width - 1])


def unet_reach(levels: int, patch: int) -> int:
    """Pixels beyond which nothing is seen: the convolutions' and a block of the coarsest grid."""
    return patch * (sum(4 * 2**level for level in range(levels - 1)) + 2 * 2 ** (levels - 1) + 2 ** (levels - 1))


@pytest.mark.parametrize(
    "model",
    [
        *(
            unet(levels=3, space_to_depth=1, residual=residual, downsampling=downsampling)
            for residual, downsampling in VARIANTS
        ),
        *(fcn(skips=skips) for skips in (0, 1, 2)),
    ],
)
def test_a_shift_by_the_coarsest_block_shifts_the_logits(model: nn.Module) -> None:
    model = model.double().eval()
    image = torch.randn(1, 1, 96, 96, dtype=torch.float64)
    whole, rolled, less = (model(image.roll(shift, (2, 3))) for shift in ((0, 0), (4, 8), (2, 8)))
    inner = (..., slice(32, 64), slice(32, 64))
    torch.testing.assert_close(rolled.roll((-4, -8), (2, 3))[inner], whole[inner], rtol=0, atol=1e-12)
    assert not torch.allclose(less.roll((-2, -8), (2, 3))[inner], whole[inner], rtol=0, atol=1e-6)


def test_each_channel_and_class_matters() -> None:
    model = unet(3, 4, norm="none", levels=1).eval()
    image = torch.randn(1, 3, 8, 8)

    def logits(channel: int) -> Tensor:
        other = image.clone()
        other[:, channel] += 10
        found: Tensor = model(other)
        return found

    answers = [logits(channel) for channel in range(3)]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(answers, 2))
    assert len({round(float(plane.sum().detach()), 4) for plane in answers[0][0]}) == 4


@pytest.mark.parametrize("residual", [False, True])
def test_there_are_no_biases_before_a_norm(residual: bool) -> None:
    def biases(norm: str) -> int:
        return sum("bias" in name for name, _ in unet(norm=norm, residual=residual).named_parameters())

    # Norms bring their own shift, one for one.
    assert biases("batch") == biases("none") == biases("group") == biases("instance")


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def double_convolution(inner: int, outer: int) -> int:
    """Parameters of two 3×3 convolutions and the scales and shifts of their norms."""
    return 9 * (inner + outer) * outer + 4 * outer


def projection(inner: int, outer: int) -> int:
    """Parameters of a 1×1 shortcut and its norm."""
    return (inner + 2) * outer


@pytest.mark.parametrize(("width", "levels", "patch"), [(16, 4, 2), (4, 3, 1), (6, 1, 3)])
@pytest.mark.parametrize(("residual", "downsampling"), VARIANTS)
def test_a_unet_has_as_many_parameters_as_its_convolutions(
    width: int, levels: int, patch: int, residual: bool, downsampling: str
) -> None:
    widths = [width * 2**level for level in range(levels)]
    pairs = [*itertools.pairwise([3 * patch**2, *widths]), *((2 * outer, outer) for outer in widths[:-1])]
    wanted = sum(double_convolution(*pair) for pair in pairs)
    wanted += sum(4 * 2 * outer * outer + outer for outer in widths[:-1])  # transposed convolutions
    wanted += (width + 1) * 5 * patch**2  # the head
    if residual:
        wanted += sum(projection(*pair) for pair in pairs if pair[0] != pair[1])
    options = {
        "width": width,
        "levels": levels,
        "space_to_depth": patch,
        "residual": residual,
        "downsampling": downsampling,
    }
    assert parameters(UNet(3, 5, **options)) == wanted  # type: ignore[arg-type]


def test_the_default_unet_keeps_the_names_of_its_weights() -> None:
    """Runs hold weights under these names."""

    def double(place: str) -> list[str]:
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [
            f"{place}.{layer}"
            for first in (0, 3)
            for layer in (f"{first}.weight", *(f"{first + 1}.{name}" for name in norm))
        ]

    wanted = [name for level in range(4) for name in double(f"down.{level}")]
    wanted += [f"up.{level}.{name}" for level in range(3) for name in ("weight", "bias")]
    wanted += [name for level in range(3) for name in double(f"merge.{level}")]
    assert list(UNet(1, 2).state_dict()) == [*wanted, "head.weight", "head.bias"]


@pytest.mark.parametrize("residual", [False, True])
def test_pooling_and_strides_give_the_same_sizes_and_weights(residual: bool) -> None:
    pooled, strided = (unet(levels=3, residual=residual, downsampling=by) for by in ("pool", "stride"))
    sizes: list[dict[str, torch.Size]] = []
    for model in (pooled, strided):
        seen: dict[str, torch.Size] = {}
        for name, module in model.named_modules():
            if name.startswith(("down.", "up.", "merge.")) and name.count(".") == 1:
                module.register_forward_hook(lambda _, __, given, n=name, s=seen: s.update({n: given.shape}))
        model(torch.randn(2, 1, 24, 40))
        sizes.append(seen)
    assert sizes[0] == sizes[1] and sizes[0]["down.2"] == (2, 8, 3, 5)
    strided.load_state_dict(pooled.state_dict())
    image = torch.randn(1, 1, 24, 40)
    assert not torch.equal(pooled.eval()(image), strided.eval()(image))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_a_residual_block_whose_branch_is_silent_is_its_shortcut(norm: blocks.Norm, stride: int) -> None:
    torch.manual_seed(0)
    block = blocks.double_convolution(6, 6, norm, residual=True, stride=stride)
    residual = block[0]
    assert isinstance(residual, blocks.Residual) and isinstance(residual.branch, nn.Sequential)
    last = residual.branch[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    features = torch.randn(2, 6, 8, 10)
    if stride == 1:
        assert torch.equal(block(features), features.relu()) and not list(residual.shortcut.parameters())
    else:
        projected = functional.conv2d(features[..., ::2, ::2], residual.shortcut[0].weight)  # type: ignore[arg-type]
        torch.testing.assert_close(block(features), residual.shortcut[1](projected).relu())


def test_a_residual_block_without_norm_is_its_formula() -> None:
    torch.manual_seed(0)
    block = blocks.double_convolution(3, 4, "none", residual=True)
    names = ("0.branch.0", "0.branch.2", "0.shortcut.0")
    first, second, projection = (block.get_submodule(name) for name in names)
    features = torch.randn(2, 3, 5, 5)
    wanted = (second(first(features).relu()) + projection(features)).relu()
    torch.testing.assert_close(block(features), wanted)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 3)])
def test_bilinear_upsampling_is_torchs_own(factor: int, size: tuple[int, int]) -> None:
    scores = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    found = blocks.Bilinear(factor).double()(scores)
    wanted = functional.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    weights = torch.randn_like(found)
    torch.testing.assert_close(*(torch.autograd.grad((one * weights).sum(), scores)[0] for one in (found, wanted)))


@pytest.mark.parametrize(("size", "multiple"), [((1, 1), 4), ((5, 8), 4), ((7, 3), 1)])
def test_images_are_extended_at_the_far_sides_by_repeating(size: tuple[int, int], multiple: int) -> None:
    images = torch.randn(2, 3, *size)
    found = blocks.extended(images, multiple)
    rows, columns = (torch.arange(-(-side // multiple) * multiple).clamp_max(side - 1) for side in size)
    assert torch.equal(found, images[..., rows, :][..., columns])


@pytest.mark.parametrize(("levels", "skips"), [(1, 0), (2, 0), (2, 1), (4, 0), (4, 2), (4, 3)])
def test_an_fcn_takes_every_size(levels: int, skips: int) -> None:
    accept_every_size(fcn(2, 3, levels=levels, skips=skips).eval())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("skips", [0, 1, 2])
def test_all_of_an_fcn_learns(norm: str, skips: int) -> None:
    model = fcn(norm=norm, skips=skips, width=8)
    model(torch.randn(2, 1, 24, 20)).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


@pytest.mark.parametrize(("width", "levels", "skips"), [(16, 5, 3), (4, 3, 0), (3, 1, 0)])
def test_an_fcn_has_as_many_parameters_as_its_convolutions(width: int, levels: int, skips: int) -> None:
    widths = [width * 2**level for level in range(levels)]
    wanted = sum(double_convolution(*pair) for pair in itertools.pairwise([3, *widths]))
    wanted += sum((outer + 1) * 5 for outer in widths[levels - 1 - skips :])
    assert parameters(FCN(3, 5, width, levels, skips)) == wanted


def test_an_fcn_adds_the_scores_of_its_levels() -> None:
    """With heads that give a constant each, logits are the sum of the constants."""
    model = fcn(1, 2, levels=3, skips=2).eval()
    for place, head in enumerate(model.heads):  # type: ignore[arg-type]
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, 10.0**place)
    torch.testing.assert_close(model(torch.randn(1, 1, 9, 14)), torch.full((1, 2, 9, 14), 111.0))


def test_a_coarsest_score_of_the_default_fcn_sees_what_its_docstring_says() -> None:
    """Of average pooling and linear units, so that no pixel is hidden behind a larger one."""
    image = torch.ones(1, 1, 400, 400, dtype=torch.float64, requires_grad=True)
    features = image
    for level, block in enumerate(FCN(1, 2, 1).double().down):
        if level:
            features = functional.avg_pool2d(features, 2)
        for layer in block.children():
            if isinstance(layer, nn.Conv2d):
                nn.init.ones_(layer.weight)
                features = layer(features)
    features[0, 0, 12, 12].backward()
    assert image.grad is not None
    rows, columns = (image.grad[0, 0].any(dim=axis).sum() for axis in (1, 0))
    assert (int(rows), int(columns)) == (140, 140)


def test_an_fcn_without_enough_levels_is_refused() -> None:
    with pytest.raises(UserError, match="3 skips need 4 levels, not 3; use fewer") as caught:
        FCN(1, 2, levels=3, skips=3)
    assert caught.value.key == "skips"


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, [(3, 16, 3), (16, 32, 3), (32, 64, 3)]),
        (
            {"size": 21, "widths": (4, 6), "kernels": (7, 1), "convolutions": (2, 3), "hidden": 9},
            [(3, 4, 7), (4, 4, 7), (4, 6, 1), (6, 6, 1), (6, 6, 1)],
        ),
        ({"size": 2, "widths": (5,), "kernels": 5, "convolutions": 2}, [(3, 5, 5), (5, 5, 5)]),
    ],
)
def test_a_classifier_has_the_layers_that_its_options_say(
    options: dict[str, object], stages: list[tuple[int, int, int]]
) -> None:
    model = CNNClassifier(3, 10, **options)  # type: ignore[arg-type]
    size, halvings = int(str(options.get("size", 56))), len(model.stages)
    hidden = int(str(options.get("hidden", 128)))
    wanted = sum((inner * side**2 + 1) * outer for inner, outer, side in stages)
    wanted += (stages[-1][1] * (size // 2**halvings) ** 2 + 1) * hidden + (hidden + 1) * 10
    assert parameters(model) == wanted
    logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 10)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_classifiers_convolutions_keep_the_size_and_its_pooling_halves_it() -> None:
    model = CNNClassifier(3, 10, size=57, kernels=(3, 5, 7), convolutions=2)
    sizes = []
    for layer in model.stages.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.register_forward_hook(lambda _, __, given: sizes.append(given.shape[-1]))
    model(torch.randn(1, 3, 57, 57))
    assert sizes == [57, 57, 28, 28, 28, 14, 14, 14, 7]


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        ({"kernels": (3, 5)}, "kernels", r"\[3, 5\] has 2 numbers for the 3 stages of 'widths'"),
        ({"convolutions": (1, 1, 1, 1)}, "convolutions", "has 4 numbers for the 3 stages"),
        ({"kernels": (3, 4, 5)}, "kernels", "4 is even; .* use odd ones"),
        ({"kernels": 2}, "kernels", "2 is even"),
        ({"size": 7}, "widths", "3 stages need images of 8 pixels, not 7; use fewer"),
    ],
)
def test_a_classifiers_options_have_to_fit(options: dict[str, object], key: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        CNNClassifier(3, 10, **options)  # type: ignore[arg-type]
    assert caught.value.key == key


def test_a_classifier_takes_images_of_its_size_alone() -> None:
    with pytest.raises(UserError, match=r"\[model\] size: .* 56×56 pixels, not 56×64; set size. .* `run` does not"):
        CNNClassifier(3, 10)(torch.randn(1, 3, 56, 64))


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (unet(), 24),
        (unet(residual=True, downsampling="stride"), 24),
        (unet(norm="instance"), 23),
        (fcn(), 21),
        (CNNClassifier(1, 2, size=16), 16),
    ],
)
def test_a_model_can_be_exported_at_a_size(model: nn.Module, side: int) -> None:
    images = torch.randn(1, 1, side, side)
    exported = torch.export.export(model.eval(), (images,))
    torch.testing.assert_close(exported.module()(images), model(images))


@pytest.mark.parametrize(
    ("model", "side"), [(unet(residual=True, downsampling="stride"), 24), (fcn(), 24), (CNNClassifier(1, 2, 24), 24)]
)
def test_a_model_trains_in_bfloat16_and_channels_last(model: nn.Module, side: int) -> None:
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(2, 1, side, side).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in model.parameters())
