"""Lists of transforms: their order, their one draw a sample, batches against single windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.data.transforms.affine import Affine
from yeastexp.data.transforms.base import Size
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.data.transforms.elastic import Elastic
from yeastexp.data.transforms.gaussian_blur import GaussianBlur
from yeastexp.data.transforms.geometry import Pixels, grid
from yeastexp.data.transforms.pipeline import Stage, stages
from yeastexp.data.transforms.reflect import Reflect
from yeastexp.data.transforms.rotate90 import Rotate90
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.registry import transform as registered
from yeastexp.sample import IGNORE, Sample

SIDE = 12


@dataclass(frozen=True)
class Add(BasicTransform2D):
    """Adds a drawn number."""

    def draw(self, generator: np.random.Generator) -> float:
        return float(generator.integers(1, 1000))

    def image(self, image: Tensor, params: float) -> Tensor:
        return image + params


@dataclass(frozen=True)
class Double(BasicTransform2D):
    """Doubles values; written for a batch alone."""

    def batch(self, images: Tensor, params: Sequence[Any]) -> Tensor:
        return images * 2


@dataclass(frozen=True)
class Paint(BasicTransform2D):
    """Draws a bright square of class 1 at a drawn place."""

    def draw(self, generator: np.random.Generator) -> tuple[int, int]:
        y, x = generator.integers(0, 4, 2)
        return int(y), int(x)

    def image(self, image: Tensor, params: tuple[int, int]) -> Tensor:
        return self.painted(image, params, 100.0)

    def labels(self, labels: Tensor, params: tuple[int, int]) -> Tensor:
        return self.painted(labels, params, 1)

    def painted(self, plane: Tensor, params: tuple[int, int], value: float) -> Tensor:
        y, x = params
        made = plane.clone()
        made[..., y : y + 3, x : x + 3] = value
        return made


@dataclass(frozen=True)
class Crop(BasicTransform2D):
    """Leaves out `border` pixels on each side."""

    border: int = 2

    def geometry(self, size: Size, params: Any) -> tuple[np.ndarray, Size]:
        matrix = np.eye(3)
        matrix[:2, 2] = self.border
        return matrix, (size[0] - 2 * self.border, size[1] - 2 * self.border)


@dataclass(frozen=True)
class HalfRight(BasicTransform2D):
    """A field that reads half a pixel further right."""

    def geometry(self, size: Size, params: Any) -> tuple[Tensor, Size]:
        rows, columns = (torch.arange(n, dtype=torch.float32) for n in size)
        return torch.stack(torch.meshgrid(rows, columns + 0.5, indexing="ij")), size


def store(channels: int = 1) -> Pixels:
    """Two images of different sizes."""
    source = torch.Generator().manual_seed(0)
    images = [torch.randn(channels, *size, generator=source) for size in ((60, 70), (41, 52))]
    return Pixels.of(images, [torch.randint(0, 3, (1, *image.shape[1:]), generator=source) for image in images])


def draws(transforms: Sequence[BasicTransform2D], count: int) -> list[list[Any]]:
    return [
        [one.draw(generator(0, "augment", 0, index, position)) for position, one in enumerate(transforms)]
        for index in range(count)
    ]


def test_a_list_is_cut_where_values_change() -> None:
    flip, turn, add, coarse = Reflect(), Rotate90(), Add(), Downscale(2)
    assert stages([]) == []
    assert stages([flip, turn]) == [Stage((0, 1), None)]
    assert stages([add, add]) == [Stage((), 0), Stage((), 1)]
    assert stages([flip, add, turn]) == [Stage((0,), 1), Stage((2,), None)]
    assert stages([flip, coarse, turn, add]) == [Stage((0,), 1), Stage((1, 2), 3)]
    assert stages([BasicTransform2D()]) == []


LOCAL = [name for name in registered if name not in ("zscore", "percentile")]
"""Left out: what takes figures of all that is read."""


@pytest.mark.parametrize("names", list(itertools.permutations(("affine", "elastic", "rotate90"))), ids="-".join)
def test_geometry_in_any_order_is_the_same_batched_or_not(names: tuple[str, ...]) -> None:
    same_batched_or_not([registered[name]() for name in names])


@pytest.mark.parametrize("seed", range(12))
def test_long_lists_are_the_same_batched_or_not(seed: int) -> None:
    names = np.random.default_rng(seed).choice(LOCAL, 4)
    same_batched_or_not([registered[name]() for name in names])


def same_batched_or_not(transforms: list[BasicTransform2D]) -> None:
    pixels, owners = store(2), np.array([0, 1, 1, 0, 1])
    corners = np.array([[3, 5], [-4, 20], [29, 40], [30, 30], [10, 10]])
    params = draws(transforms, 5)
    images, labels = pipeline.patches(pixels, owners, corners, SIDE, transforms, params)
    assert images.shape == (5, 2, SIDE, SIDE) and labels.shape == (5, SIDE, SIDE)
    for index in range(5):
        part = slice(index, index + 1)
        alone = pipeline.patches(pixels, owners[part], corners[part], SIDE, transforms, params[part])
        torch.testing.assert_close(alone[0][0], images[index], rtol=1e-3, atol=1e-3)
        assert int((alone[1][0] != labels[index]).sum()) <= 1  # half-way between pixels, the last bit decides


def test_one_draw_serves_image_and_labels() -> None:
    pixels = Pixels.of([torch.zeros(1, 30, 30)], [torch.zeros(1, 30, 30).long()])
    transforms = [Paint(), Rotate90(), Paint()]
    images, labels = pipeline.patches(
        pixels, np.zeros(6, int), np.full((6, 2), 9), SIDE, transforms, draws(transforms, 6)
    )
    assert torch.equal(images[:, 0] == 100, labels == 1) and int(labels.sum()) > 6 * 9
    assert len({one.numpy().tobytes() for one in labels}) > 3


def test_each_window_has_a_draw_of_its_own() -> None:
    transforms = [Add()]
    params = draws(transforms, 8)
    pixels = Pixels.of([torch.zeros(1, 30, 30)], [torch.zeros(1, 30, 30).long()])
    images, _ = pipeline.patches(pixels, np.zeros(8, int), np.full((8, 2), 9), SIDE, transforms, params)
    assert images[:, 0, 0, 0].tolist() == [one for (one,) in params] and len({one for (one,) in params}) == 8
    assert torch.equal(images, images[:, :, :1, :1].expand_as(images))


def test_the_listed_order_decides() -> None:
    sample = Sample(torch.full((1, 3, 3), 5.0), torch.zeros(3, 3).long(), "x")
    pixels = Pixels.of([sample.image], [sample.labels[None]])
    for transforms, wanted in (([Add(), Double()], 2 * (5 + 7)), ([Double(), Add()], 2 * 5 + 7)):
        params = [[7.0 if isinstance(one, Add) else None for one in transforms]]
        images, _ = pipeline.patches(pixels, np.zeros(1, int), np.zeros((1, 2), int), 3, transforms, params)
        assert torch.equal(images[0], torch.full((1, 3, 3), float(wanted)))


def test_what_is_written_for_a_batch_holds_for_a_whole_image() -> None:
    sample = Sample(torch.randn(2, 4, 5), torch.zeros(4, 5).long(), "x")
    assert torch.equal(pipeline.whole([Double()], sample).image, sample.image * 2)


def test_a_whole_image_keeps_its_name_scale_and_maps_in_step() -> None:
    labels = torch.arange(63).reshape(7, 9)
    sample = Sample(labels.float()[None], labels, "frame", 0.1, {"dead": labels + 1, "instances": labels * 2})
    for transforms in ([Crop()], [Downscale(2, filter_probability=0)], [Crop(1), Downscale(2, filter_probability=0)]):
        found = pipeline.whole(transforms, sample)
        assert (found.name, found.pixel_um, list(found.maps)) == ("frame", 0.1, ["dead", "instances"])
        assert torch.equal(found.image[0], found.labels.float())
        assert torch.equal(found.maps["dead"], found.labels + 1)
        assert torch.equal(found.maps["instances"], found.labels * 2)
    assert torch.equal(pipeline.whole([Crop()], sample).labels, labels[2:-2, 2:-2])
    assert pipeline.whole([], sample) is sample


def test_fields_and_matrices_on_whole_images() -> None:
    """Half a pixel twice is a pixel: smooth values are shifted exactly, and the border is mirrored."""
    image = torch.arange(40.0).reshape(1, 4, 10)
    sample = Sample(image, torch.zeros(4, 10).long(), "x")
    found = pipeline.whole([HalfRight(), HalfRight()], sample)
    assert torch.equal(found.image[:, :, :8], image[:, :, 1:9])
    found = pipeline.whole([Crop(1), HalfRight()], sample)
    assert torch.equal(found.image[:, :, :7], image[:, 1:-1, 1:8] + 0.5)
    found = pipeline.whole([HalfRight(), Crop(1)], sample)
    assert torch.equal(found.image, image[:, 1:-1, 1:-1] + 0.5)


def test_labels_beyond_the_image_stay_unknown_through_several_readings() -> None:
    pixels = Pixels.of([torch.zeros(1, 20, 20)], [torch.zeros(1, 20, 20, dtype=torch.int8)])
    transforms = [Add(), Rotate90(), Add(), Reflect()]
    params = [[1.0, 1, 1.0, (False, True)]]
    images, labels = pipeline.patches(pixels, np.zeros(1, int), np.array([[-4, 0]]), SIDE, transforms, params)
    assert images.unique().tolist() == [2.0] and int((labels == IGNORE).sum()) == 4 * SIDE
    known = torch.ones(SIDE, SIDE).long()
    known[:4] = 0
    assert torch.equal((labels[0] != IGNORE).long(), torch.rot90(known, 1, (0, 1)).flip(0))


def test_figures_are_fitted_in_the_order_of_the_list() -> None:
    image = torch.arange(36.0).reshape(1, 6, 6)
    fitted = pipeline.fitted([ZScore(per="dataset"), Double(), ZScore(per="dataset")], lambda: iter([image]))
    assert isinstance(fitted[0], ZScore) and isinstance(fitted[2], ZScore)
    assert fitted[0].mean == 17.5 and fitted[2].mean == pytest.approx(0, abs=1e-6)
    assert fitted[2].std == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("after", [Affine(rotation=180.0, scale=2.0), Elastic(shift_px=6.0, p=1.0)])
@pytest.mark.parametrize("first", [GaussianBlur(sigma_px=2.0, p=1.0), Downscale(2), Downscale(3), Downscale(5)])
def test_what_looks_at_neighbours_sees_the_same_beside_any_other_window(
    first: BasicTransform2D, after: BasicTransform2D
) -> None:
    """Neither the border of what is read nor the place where a coarse grid starts follows how far the batch reads."""
    source = torch.Generator().manual_seed(0)
    image, labels = torch.randn(1, 80, 80, generator=source), torch.randint(0, 5, (1, 80, 80), generator=source)
    pixels = Pixels.of([image], [labels])
    steps = [first, Double(), after]
    params = draws(steps, 6)
    corners = np.full((6, 2), 32)
    together = pipeline.patches(pixels, np.zeros(6, int), corners, 16, steps, params)
    for index in range(6):
        alone = pipeline.patches(pixels, np.zeros(1, int), corners[:1], 16, steps, [params[index]])
        torch.testing.assert_close(alone[0][0], together[0][index], rtol=0, atol=1e-4)
        assert int((alone[1][0] != together[1][index]).sum()) <= 1  # half-way between pixels, the last bit decides


@pytest.mark.parametrize("name", LOCAL)
def test_a_larger_window_holds_the_smaller(name: str) -> None:
    """A window does not end where its pixels do: no border shows, and every random field is about the centre."""
    transform, pixels = registered[name](), store(2)
    for index, side in itertools.product(range(4), (11, 16)):
        params = [[transform.draw(generator(0, "augment", 0, index))]]
        found = pipeline.patches(pixels, np.zeros(1, int), np.array([[20, 25]]), side, [transform], params)
        for more in (1, 2, 7):
            corner, kept = np.array([[20 - more, 25 - more]]), slice(more, -more)
            larger = pipeline.patches(pixels, np.zeros(1, int), corner, side + 2 * more, [transform], params)
            torch.testing.assert_close(larger[0][..., kept, kept], found[0], rtol=0, atol=1e-4)
            assert int((larger[1][..., kept, kept] != found[1]).sum()) <= 1


def test_a_blurred_window_is_cut_out_of_the_blurred_image() -> None:
    image = torch.randn(1, 60, 60, generator=torch.Generator().manual_seed(0))
    pixels = Pixels.of([image], [torch.zeros(1, 60, 60, dtype=torch.int8)])
    blur = GaussianBlur(sigma_px=2.0)
    found = pipeline.patches(pixels, np.zeros(1, int), np.array([[20, 22]]), 16, [blur], [[1.7]])[0]
    torch.testing.assert_close(found[0], blur.image(image, 1.7)[:, 20:36, 22:38], rtol=0, atol=1e-5)


def places(step: BasicTransform2D, params: Any, where: np.ndarray) -> np.ndarray:
    """Where a step reads for pixels at `where` (2, h, w), counted from the centre: written anew, for one point each."""
    side = 128
    found, _ = step.geometry((side, side), params)
    middle = (side - 1) / 2
    if isinstance(found, Tensor):
        shift = (found - grid((side, side))).double().numpy()
        return where + np.stack([ndimage.map_coordinates(one, where + middle) for one in shift])
    return np.einsum("ij,jyx->iyx", found[:2, :2], where + middle) + found[:2, 2, None, None] - middle


GEOMETRIC: dict[str, tuple[BasicTransform2D, Any]] = {
    "reflect": (Reflect(), (True, False)),
    "rotate90": (Rotate90(), 1),
    "affine": (Affine(), (0.5, 1.2, 0.1)),
    "elastic": (Elastic(), (2.0, 11)),
}


@pytest.mark.parametrize("names", list(itertools.permutations(GEOMETRIC)), ids="-".join)
def test_four_geometric_steps_are_read_as_scipy_reads_them(names: tuple[str, ...]) -> None:
    """On an image of waves: places followed back from the last step to the first, then one reading.

    Between pixels the chain takes shifts to be straight lines, where scipy's are cubic: some 0.001 pixels apart.
    """
    rows, columns = np.mgrid[:150, :160]
    image = (np.sin(rows / 9) * np.cos(columns / 7)).astype(np.float32)
    labels = np.digitize(image, [-0.5, 0.0, 0.5])
    steps, params = zip(*(GEOMETRIC[name] for name in names), strict=True)
    where = np.mgrid[:20, :20] - 9.5
    for step, one in zip(reversed(steps), reversed(params), strict=True):
        where = places(step, one, where)
    where += np.array([60, 63])[:, None, None] + 9.5
    pixels = Pixels.of([torch.from_numpy(image)[None]], [torch.from_numpy(labels)[None]])
    found, read = pipeline.patches(pixels, np.zeros(1, int), np.array([[60, 63]]), 20, steps, [list(params)])
    np.testing.assert_allclose(found[0, 0], ndimage.map_coordinates(image, where, order=1), atol=5e-4)
    nearest = ndimage.map_coordinates(labels, where, order=0)
    assert np.sum(read[0].numpy() != nearest) <= 1  # half-way between pixels, the last bit decides


@dataclass(frozen=True)
class WhereMade(BasicTransform2D):
    """Moves nothing, and says where fields would be made."""

    found: list[torch.device]

    def geometry(self, size: Size, params: Any) -> tuple[np.ndarray, Size]:
        self.found.append(torch.get_default_device())
        return np.eye(3), size


def test_fields_are_made_where_the_pixels_are() -> None:
    where = WhereMade([])
    pixels = Pixels.of([torch.zeros(1, 9, 9)], [torch.zeros(1, 9, 9, dtype=torch.int8)])
    for device in ("cpu", "meta"):
        placed = pixels.to(torch.device(device))
        values, _ = pipeline.patches(placed, np.zeros(1, np.int64), np.zeros((1, 2), np.int64), 5, [where], [[None]])
        assert values.device.type == where.found[-1].type == device
    assert torch.get_default_device().type == "cpu"
    with torch.device("meta"):
        field, _ = Elastic(p=1).geometry((9, 9), (2.0, 5))
    assert isinstance(field, Tensor) and field.device.type == "meta"


@dataclass(frozen=True)
class Gives(BasicTransform2D):
    """Makes something of an image that is none of its kind."""

    made: Any

    def image(self, image: Tensor, params: Any) -> Tensor:
        return self.made(image)


@dataclass(frozen=True)
class GivesBatches(BasicTransform2D):
    """The same of a batch."""

    made: Any

    def batch(self, images: Tensor, params: Sequence[Any]) -> Tensor:
        return self.made(images)


@pytest.mark.parametrize(
    "made, told",
    [
        (lambda image: None, "NoneType"),
        (lambda image: image.numpy(), "ndarray"),
        (lambda image: image.double(), r"a tensor of float64 \((2, )?1, 9, 9\)"),
        (lambda image: image[..., 1:], r"a tensor of float32 \((2, )?1, 9, 8\)"),
    ],
)
@pytest.mark.parametrize("kind", [Gives, GivesBatches])
def test_what_is_no_image_is_told_with_its_place(kind: type[BasicTransform2D], made: Any, told: str) -> None:
    pixels = Pixels.of([torch.zeros(1, 9, 9)], [torch.zeros(1, 9, 9, dtype=torch.int8)])
    hook = "image" if kind is Gives else "batch"
    message = (
        rf"test_pipeline\.py:\d+: '{hook}' of {kind.__name__} gives {told} for a tensor of float32 \((2, )?1, 9, 9\); "
    )
    with pytest.raises(UserError, match=message):
        pipeline.patches(pixels, np.zeros(2, int), np.zeros((2, 2), int), 9, [kind(made)], [[None], [None]])
