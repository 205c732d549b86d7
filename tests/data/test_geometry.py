"""Reading pixels: exact where they fall on pixels, as scipy and numpy read elsewhere."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.data.transforms.base import Size
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.data.transforms.geometry import Pixels, compose, field, grid, read, translation
from yeastexp.data.transforms.reflect import Reflect
from yeastexp.data.transforms.rotate90 import Rotate90
from yeastexp.sample import IGNORE, Sample

IMAGE = torch.arange(40 * 50).reshape(1, 40, 50)
SYMMETRIES = list(itertools.product([(a, b) for a in (False, True) for b in (False, True)], range(4)))


def pixels(*images: Tensor) -> Pixels:
    return Pixels.of([image.float() for image in images], list(images))


def one_window(transforms: list[BasicTransform2D], params: list[Any], corner: tuple[int, int] = (12, 15)) -> Tensor:
    """A window of side 16 of IMAGE (1, 16, 16), and that its labels say the same."""
    images, labels = pipeline.patches(pixels(IMAGE), np.zeros(1, int), np.array([corner]), 16, transforms, [params])
    assert torch.equal(images[0, 0][labels[0] != IGNORE], labels[0][labels[0] != IGNORE].float())
    return images[0]


@dataclass(frozen=True)
class Plain(BasicTransform2D):
    """Changes values, so that the list is cut in two readings, but leaves them as they are."""

    def image(self, image: Tensor, params: Any) -> Tensor:
        return image.clone()


@dataclass(frozen=True)
class Matrix(BasicTransform2D):
    """A linear map about the centre."""

    matrix: tuple[tuple[float, float], tuple[float, float]]

    def geometry(self, size: Size, params: Any) -> tuple[np.ndarray, Size]:
        linear = np.eye(3)
        linear[:2, :2] = self.matrix
        centre = [(n - 1) / 2 for n in size]
        return translation(*centre) @ linear @ translation(*(-c for c in centre)), size


@dataclass(frozen=True)
class Shift(BasicTransform2D):
    """A field that reads `by` pixels further down and right."""

    by: float

    def geometry(self, size: Size, params: Any) -> tuple[Tensor, Size]:
        return grid(size) + self.by, size


@pytest.mark.parametrize(("mirrored", "turns"), SYMMETRIES)
def test_all_symmetries_of_the_square(mirrored: tuple[bool, bool], turns: int) -> None:
    """One composed reading is what numpy does step by step, whichever comes first, and with values changed between."""
    window = IMAGE[:, 12:28, 15:31].float()
    axes = [axis + 1 for axis, yes in enumerate(reversed(mirrored)) if yes]
    mirror_first = torch.rot90(window.flip(axes), turns, (1, 2))
    turn_first = torch.rot90(window, turns, (1, 2)).flip(axes)
    reflect, rotate = Reflect(), Rotate90()
    assert torch.equal(one_window([reflect, rotate], [mirrored, turns]), mirror_first)
    assert torch.equal(one_window([reflect, Plain(), rotate], [mirrored, None, turns]), mirror_first)
    assert torch.equal(one_window([rotate, reflect], [turns, mirrored]), turn_first)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_composed_with_a_coarser_grid(order: tuple[int, ...]) -> None:
    """On whole images: the list at once is the list one by one."""
    steps: list[BasicTransform2D] = [Downscale(2), Fixed(1), Flip()]
    listed = [steps[index] for index in order]
    sample = Sample(torch.randn(1, 12, 17), torch.randint(0, 5, (12, 17)), "x", maps={"m": torch.randint(9, (12, 17))})
    one_by_one = sample
    for step in listed:
        one_by_one = pipeline.whole([step], one_by_one)
    at_once = pipeline.whole(listed, sample)
    torch.testing.assert_close(at_once.image, one_by_one.image, rtol=0, atol=1e-6)
    assert torch.equal(at_once.labels, one_by_one.labels) and torch.equal(at_once.maps["m"], one_by_one.maps["m"])


@dataclass(frozen=True)
class Fixed(Rotate90):
    """Always one turn."""

    turns: int = 1

    def draw(self, generator: np.random.Generator) -> int:
        return self.turns


@dataclass(frozen=True)
class Flip(Reflect):
    """Always along x."""

    def draw(self, generator: np.random.Generator) -> tuple[bool, bool]:
        return False, True


@pytest.mark.parametrize("corner", [(-5, 20), (30, 40), (-16, -16), (12, 47)])
def test_beyond_the_image_it_is_mirrored_and_unknown(corner: tuple[int, int]) -> None:
    padded = np.pad(IMAGE[0].numpy(), 32, mode="reflect")
    wanted = padded[32 + corner[0] : 48 + corner[0], 32 + corner[1] : 48 + corner[1]]
    images, labels = pipeline.patches(pixels(IMAGE), np.zeros(1, int), np.array([corner]), 16, [], [[]])
    assert np.array_equal(images[0, 0].numpy(), wanted)
    rows, columns = (np.arange(c, c + 16) for c in corner)
    inside = ((rows >= 0) & (rows < 40))[:, None] & ((columns >= 0) & (columns < 50))[None]
    assert np.array_equal(labels[0].numpy(), np.where(inside, wanted, IGNORE))


def test_a_window_larger_than_its_image() -> None:
    small = torch.arange(3 * 5).reshape(1, 3, 5)
    images, labels = pipeline.patches(pixels(small), np.zeros(1, int), np.array([[-6, -5]]), 16, [], [[]])
    assert np.array_equal(images[0, 0].numpy(), np.pad(small[0].numpy(), ((6, 7), (5, 6)), mode="reflect"))
    assert int((labels != IGNORE).sum()) == 15
    dot = torch.tensor([[[7]]])
    images, _ = pipeline.patches(pixels(dot), np.zeros(1, int), np.array([[-2, -2]]), 5, [], [[]])
    assert torch.equal(images, torch.full((1, 1, 5, 5), 7.0))


def test_images_of_several_sizes_and_channels_in_one_batch() -> None:
    one, other = torch.randn(3, 20, 30), torch.randn(3, 50, 18)
    store = Pixels.of([one, other], [torch.zeros(1, 20, 30).long(), torch.ones(1, 50, 18).long()])
    images, labels = pipeline.patches(
        store, np.array([1, 0, 1]), np.array([[40, 8], [3, 4], [0, 0]]), 10, [], [[], [], []]
    )
    assert torch.equal(images[0], other[:, 40:50, 8:18]) and torch.equal(images[1], one[:, 3:13, 4:14])
    assert torch.equal(images[2], other[:, :10, :10])
    assert labels.unique().tolist() == [0, 1] and int(labels[1].sum()) == 0


def test_between_pixels_as_scipy_reads() -> None:
    source = np.random.default_rng(0)
    image, labels = source.normal(size=(30, 40)), source.integers(0, 9, (30, 40))
    where = source.uniform(-8, 45, (2, 17, 23))
    store = Pixels.of([torch.from_numpy(image).float()[None]], [torch.from_numpy(labels)[None]])
    values, planes = read(store, np.zeros(1, int), [torch.from_numpy(where).float()], (17, 23))
    wanted = ndimage.map_coordinates(image.astype(np.float32), where, order=1, mode="mirror")
    np.testing.assert_allclose(values[0, 0], wanted, atol=2e-5)
    nearest = np.floor(where.astype(np.float32) + np.float32(0.5)).astype(int)
    inside = (nearest >= 0).all(0) & (nearest[0] < 30) & (nearest[1] < 40)
    expected = labels[nearest[0].clip(0, 29), nearest[1].clip(0, 39)]
    assert np.array_equal(planes[0, 0].numpy(), np.where(inside, expected, IGNORE))


@pytest.mark.parametrize("matrix", [((0.8, 0.3), (-0.2, 1.1)), ((1.7, 0.0), (0.0, 1.7)), ((0.5, 0.0), (0.0, 0.5))])
def test_a_matrix_turns_about_the_centre_and_reads_beyond_the_window(matrix: Any) -> None:
    """Against scipy's affine transform of the whole image, cut out afterwards; with values changed before it too."""
    rows, columns = np.mgrid[:60, :70]
    image = np.sin(rows / 9) * np.cos(columns / 7)
    store = Pixels.of([torch.from_numpy(image).float()[None]], [torch.zeros(1, 60, 70).long()])
    corner, side = np.array([20, 25]), 16
    centre = corner + (side - 1) / 2
    wanted = ndimage.affine_transform(image, np.array(matrix), centre - np.array(matrix) @ centre, order=1)
    wanted = wanted[20:36, 25:41]
    for steps in ([Matrix(matrix)], [Plain(), Matrix(matrix)], [Matrix(matrix), Plain()]):
        found, labels = pipeline.patches(store, np.zeros(1, int), corner[None], side, steps, [[None] * len(steps)])
        np.testing.assert_allclose(found[0, 0], wanted, atol=1e-5)
        assert not (labels == IGNORE).any()


def test_two_matrices_are_one() -> None:
    one, two = ((0.9, 0.2), (-0.2, 0.9)), ((1.1, 0.0), (0.1, 0.8))
    both = tuple(map(tuple, (np.array(one) @ np.array(two)).tolist()))
    torch.testing.assert_close(
        one_window_values([Matrix(one), Matrix(two)]), one_window_values([Matrix(both)]), rtol=0, atol=1e-3
    )


def one_window_values(steps: list[BasicTransform2D]) -> Tensor:
    return pipeline.patches(pixels(IMAGE), np.zeros(1, int), np.array([[12, 15]]), 16, steps, [[None] * len(steps)])[0]


@pytest.mark.parametrize("steps", [[Shift(2.0)], [Plain(), Shift(2.0)], [Shift(1.0), Shift(1.0)]])
def test_a_field_shifts(steps: list[BasicTransform2D]) -> None:
    assert torch.equal(one_window(steps, [None] * len(steps)), IMAGE[:, 14:30, 17:33].float())


def test_a_field_before_and_after_a_turn() -> None:
    """The later step's shift is in the turned frame."""
    shifted = IMAGE[:, 14:30, 17:33].float()
    assert torch.equal(one_window([Shift(2.0), Rotate90()], [None, 1]), torch.rot90(shifted, 1, (1, 2)))
    turned = torch.rot90(IMAGE[:, 4:36, 7:39].float(), 1, (1, 2))[:, 10:26, 10:26]
    assert torch.equal(one_window([Rotate90(), Shift(2.0)], [1, None]), turned)


def test_an_augmentation_may_coarsen_the_grid() -> None:
    images = one_window([Downscale(2)], [False])
    assert torch.equal(images, IMAGE[:, 4:36:2, 7:39:2].float())  # a window of 32 about the same centre
    filtered, _ = pipeline.patches(pixels(IMAGE), np.zeros(1, int), np.array([[12, 15]]), 16, [Downscale(2)], [[True]])
    assert torch.allclose(filtered[0], functional.avg_pool2d(IMAGE[:, 4:36, 7:39].float(), 2))


def test_a_field_moves_to_where_the_pixels_are() -> None:
    """A transform may make its field on the host for pixels on another device."""
    assert field(grid((2, 3)), (2, 3), torch.device("meta")).device.type == "meta"
    assert field(np.eye(3), (2, 3), torch.device("meta")).device.type == "meta"


@pytest.mark.parametrize("matrix", [((0.9, 0.3), (-0.3, 0.9)), ((0.0, 1.0), (-1.0, 0.0)), ((1.5, 0.0), (0.2, 0.7))])
def test_fields_and_matrices_compose_in_both_orders(matrix: Any) -> None:
    """On a plane, which bilinear reading keeps exactly: each order is what the two maps give by hand."""
    rows, columns = np.mgrid[:200, :220].astype(np.float64)
    image = torch.from_numpy(3 * rows - 2 * columns).float()[None]
    store = Pixels.of([image], [torch.zeros(1, 200, 220).long()])
    corner, centre = np.array([[90, 100]]), np.array([90, 100]) + 7.5
    places = np.stack(np.mgrid[:16, :16]) - 7.5
    turned = np.einsum("ij,jyx->iyx", np.array(matrix), places)
    moved = np.einsum("ij,jyx->iyx", np.array(matrix), places + 1.25)
    for steps, wanted in (([Shift(1.25), Matrix(matrix)], turned + 1.25), ([Matrix(matrix), Shift(1.25)], moved)):
        y, x = wanted + centre[:, None, None]
        found, _ = pipeline.patches(store, np.zeros(1, int), corner, 16, steps, [[None, None]])
        np.testing.assert_allclose(found[0, 0], 3 * y - 2 * x, atol=2e-3)


def test_every_window_of_a_batch_has_its_own_geometry() -> None:
    steps = [Reflect(), Rotate90()]
    params = [[mirrored, turns] for mirrored, turns in SYMMETRIES]
    count = len(params)
    corners = np.stack([np.arange(count), np.arange(count) * 2], axis=1)
    images, labels = pipeline.patches(pixels(IMAGE), np.zeros(count, int), corners, 16, steps, params)
    for index, (mirrored, turns) in enumerate(SYMMETRIES):
        y, x = corners[index]
        axes = [axis for axis, yes in enumerate(reversed(mirrored)) if yes]
        wanted = torch.rot90(IMAGE[0, y : y + 16, x : x + 16].flip(axes), turns, (0, 1))
        assert torch.equal(labels[index], wanted) and torch.equal(images[index, 0], wanted.float())


def test_composition_of_fields_is_interpolated_inside() -> None:
    outer, inner = grid((8, 8)) * 0.5 + 2, grid((8, 8)) + 1.5
    assert torch.allclose(torch.as_tensor(compose(outer, inner, (8, 8))), outer + 1.5)
    assert torch.equal(field(translation(1, 2), (3, 4)), grid((3, 4)) + torch.tensor([1.0, 2.0])[:, None, None])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_the_same_beside_one_that_reaches_beyond_its_image(channels: int) -> None:
    """Windows inside are cut by slices, others pixel by pixel."""
    source = torch.Generator().manual_seed(0)
    images = [torch.randn(channels, *size, generator=source) for size in ((40, 50), (33, 37))]
    store = Pixels.of(images, [torch.randint(0, 9, (1, *image.shape[1:]), generator=source) for image in images])
    steps, params = [Reflect(), Rotate90()], [[mirrored, turns] for mirrored, turns in SYMMETRIES]
    owners, corners = np.arange(len(params)) % 2, np.arange(2 * len(params)).reshape(-1, 2) % 17
    inside = pipeline.patches(store, owners, corners, 16, steps, params)
    beyond = pipeline.patches(
        store, np.append(owners, 0), np.append(corners, [[-3, 45]], 0), 16, steps, [*params, [(True, False), 1]]
    )
    assert all(torch.equal(one, other[:-1]) for one, other in zip(inside, beyond, strict=True))
    assert (beyond[1][-1] == IGNORE).any() and not (inside[1] == IGNORE).any()


def test_between_pixels_a_border_is_mirrored_as_often_as_it_takes() -> None:
    """A small image read from far away, as scipy reads it; inside, a batch reads the same as alone."""
    source = np.random.default_rng(0)
    image = source.normal(size=(7, 11)).astype(np.float32)
    store = Pixels.of([torch.from_numpy(image)[None]], [torch.zeros(1, 7, 11).long()])
    far = torch.from_numpy(source.uniform(-60, 70, (2, 9, 8))).float()
    near = torch.from_numpy(source.uniform(2, 4, (2, 9, 8))).float()
    values, labels = read(store, np.zeros(2, int), [far, near], (9, 8))
    for one, where in zip(values, (far, near), strict=True):
        wanted = ndimage.map_coordinates(image, where.double().numpy(), order=1, mode="mirror")
        np.testing.assert_allclose(one[0], wanted, atol=2e-5)
    assert torch.equal(read(store, np.zeros(1, int), [near], (9, 8))[0][0], values[1])
    assert (labels[0] == IGNORE).any() and not labels[1].any()
