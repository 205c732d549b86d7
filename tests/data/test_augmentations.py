"""Random changes of values and places: the law of each, measured on many draws or against another library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.affine import Affine
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.brightness_contrast import BrightnessContrast
from yeastexp.data.transforms.elastic import Elastic
from yeastexp.data.transforms.gamma import Gamma
from yeastexp.data.transforms.gaussian_blur import GaussianBlur
from yeastexp.data.transforms.gaussian_noise import GaussianNoise
from yeastexp.data.transforms.geometry import Pixels, grid
from yeastexp.data.transforms.invert_contrast import InvertContrast
from yeastexp.data.transforms.pasted_structures import DUST_PX, ENDLESS_PX, FRINGE_PX, PastedStructures, distance
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.poisson_noise import PoissonNoise
from yeastexp.errors import UserError
from yeastexp.randomness import generator, normal_fields, uniform_fields
from yeastexp.sample import Sample

CPU = torch.device("cpu")
FIELD = (1, 200, 200)


def drawn(transform: BasicTransform2D, count: int = 2000) -> list:
    return [transform.draw(generator(0, "test", 0, index)) for index in range(count)]


def test_a_larger_field_holds_the_smaller() -> None:
    small, large = (normal_fields([5, 9], (2, n, n + 2), CPU) for n in (10, 16))
    assert torch.equal(large[:, :, 3:13, 3:15], small)
    assert not torch.equal(small[0], small[1]) and not torch.equal(small[:, 0], small[:, 1])


def test_fields_follow_their_laws() -> None:
    uniform, normal = uniform_fields([1], FIELD, CPU), normal_fields([1], FIELD, CPU)
    assert float(uniform.min()) >= 0 and float(uniform.max()) < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02) and float(normal.std()) == pytest.approx(1, abs=0.02)
    counts = torch.histc(uniform, 16, 0, 1)
    assert float(((counts - 2500) ** 2 / 2500).sum()) < 45  # chi-squared with 15 degrees of freedom
    for shift in (1, 7):
        for axis in (2, 3):
            rolled = normal.roll(shift, axis)
            assert abs(float((normal * rolled).mean())) < 0.02


def test_the_integers_of_a_field_never_change() -> None:
    found = (uniform_fields([123456789], (1, 1, 3), CPU) * 2**24).long().flatten().tolist()
    assert found == FROZEN


FROZEN = [10101290, 5471119, 2869339]


def test_gaussian_noise_has_the_drawn_strength() -> None:
    noise = GaussianNoise(std=0.5, p=1.0).image(torch.zeros(FIELD), (0.3, 77))
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    strengths = np.array([strength for strength, _ in drawn(GaussianNoise(std=0.5, p=0.25))])
    assert strengths.max() <= 0.5 and np.mean(strengths > 0) == pytest.approx(0.25, abs=0.03)


def test_shot_noise_grows_with_brightness() -> None:
    """The variance of counts n (1 + c z) is their mean."""
    transform = PoissonNoise(contrast=0.5)
    for value in (-1.0, 0.0, 2.0):
        found = transform.image(torch.full(FIELD, value), (400.0, 3)) - value
        counts = 400 * (1 + 0.5 * value)
        assert float(found.std()) * 400 * 0.5 == pytest.approx(np.sqrt(counts), rel=0.03)
    still = torch.randn(FIELD)
    assert torch.equal(transform.image(still, (float("inf"), 3)), still)


@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_blur_is_scipys(sigma: float) -> None:
    image = torch.randn(2, 40, 50)
    found = GaussianBlur().image(image, sigma)
    reach = int(np.ceil(4 * sigma))
    for one, seen in zip(found, image, strict=True):
        wanted = ndimage.gaussian_filter(seen.numpy().astype(np.float64), sigma, mode="nearest", radius=reach)
        np.testing.assert_allclose(one, wanted, atol=1e-5)


def test_gamma_keeps_the_ends_and_bends_between() -> None:
    image = torch.tensor([[[-5.0, -3.0, 0.0, 3.0]]])
    assert Gamma().image(image, 2.0).flatten().tolist() == [-3.0, -3.0, -1.5, 3.0]
    powers = np.array(drawn(Gamma(max_gamma=2.0, p=0.5)))
    assert powers.min() >= 0.5 and powers.max() <= 2 and np.mean(powers == 1) == pytest.approx(0.5, abs=0.04)
    assert np.mean(powers > 1) == pytest.approx(np.mean(powers < 1), abs=0.04)
    with pytest.raises(UserError, match="is not below"):
        Gamma(low=1.0, high=1.0)


def test_brightness_and_contrast() -> None:
    assert BrightnessContrast().image(torch.tensor([[[1.0, -2.0]]]), (2.0, 0.5)).flatten().tolist() == [2.5, -3.5]
    factors, shifts = np.array(drawn(BrightnessContrast(brightness=0.3, contrast=1.4, p=1.0))).T
    assert 1 / 1.4 <= factors.min() < 0.75 and 1.35 < factors.max() <= 1.4 and np.abs(shifts).max() <= 0.3


def test_inversion() -> None:
    assert torch.equal(InvertContrast().image(torch.ones(1, 2, 2), True), -torch.ones(1, 2, 2))
    assert np.mean(drawn(InvertContrast(p=0.2))) == pytest.approx(0.2, abs=0.03)


def test_affine_preserves_what_it_should() -> None:
    """A turn keeps areas; a magnification of m has a determinant of 1 / m² (from output to input); the centre stays."""
    for transform, determinant in ((Affine(180, 1, 0), 1.0), (Affine(0, 1, 45), 1.0), (Affine(90, 2, 30), None)):
        for one in drawn(transform, 50):
            matrix, size = transform.geometry((31, 51), one)
            assert size == (31, 51)
            np.testing.assert_allclose(matrix @ [15, 25, 1], [15, 25, 1], atol=1e-9)
            wanted = determinant or 1 / one[1] ** 2
            assert np.linalg.det(matrix) == pytest.approx(wanted)
    identity, _ = Affine().geometry((8, 8), (0.0, 1.0, 0.0))
    np.testing.assert_allclose(identity, np.eye(3), atol=1e-12)


def test_affine_magnifies() -> None:
    """A disc of radius 10 under a magnification of 1.5 has radius 15."""
    rows, columns = np.mgrid[:101, :101] - 50
    disc = torch.from_numpy((rows**2 + columns**2 <= 100).astype(np.int64))
    pixels = Pixels.of([disc.float()[None]], [disc[None]])
    _, labels = pipeline.patches(pixels, np.zeros(1, int), np.array([[20, 20]]), 61, [Affine()], [[(0.4, 1.5, 0.0)]])
    assert int(labels.sum()) == pytest.approx(np.pi * 225, rel=0.02)


def test_elastic_has_the_drawn_strength_and_is_smooth() -> None:
    field, _ = Elastic(spacing_px=12.0).geometry((301, 301), (2.5, 4))
    shift = torch.as_tensor(field) - grid((301, 301))
    assert float(shift.std()) == pytest.approx(2.5, rel=0.1)
    assert float(shift.diff(dim=1).abs().max()) < 2.5
    part, _ = Elastic(spacing_px=12.0).geometry((101, 101), (2.5, 4))
    inner = shift[:, 100:201, 100:201]
    torch.testing.assert_close(torch.as_tensor(part) - grid((101, 101)), inner, rtol=0, atol=1e-3)


def test_elastic_moves_image_and_labels_alike() -> None:
    rows, columns = np.mgrid[:120, :120]
    labels = torch.from_numpy((((rows // 12) + (columns // 12)) % 2).astype(np.int64))
    pixels = Pixels.of([labels.float()[None]], [labels[None]])
    images, read = pipeline.patches(pixels, np.zeros(1, int), np.array([[20, 20]]), 64, [Elastic()], [[(2.0, 8)]])
    sure = (images[0, 0] - 0.5).abs() > 0.49  # away from edges
    assert sure.any() and torch.equal((images[0, 0] > 0.5)[sure], (read[0] > 0)[sure])
    assert not torch.equal(read[0], labels[20:84, 20:84])


def test_percentile_of_each_image_and_of_all() -> None:
    image = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 300.0, (1, 50, 60))).float()
    sample = Sample(image, torch.zeros(50, 60).long(), "x")
    found = pipeline.whole([Percentile(5, 95)], sample).image
    assert np.percentile(found.numpy(), [5, 95]) == pytest.approx([0, 1], abs=1e-5)
    (fitted,) = pipeline.fitted([Percentile(5, 95, per="dataset")], lambda: iter([image, image * 3]))
    assert isinstance(fitted, Percentile)
    assert (fitted.at_low, fitted.at_high) == pytest.approx(tuple(2 * np.percentile(image.numpy(), [5, 95])), rel=1e-6)
    with pytest.raises(UserError, match="is not below"):
        Percentile(50, 50)


def row(y: float, x: float, angle: float, long_px: float, short_px: float) -> Tensor:
    """A structure with nothing but an outline."""
    return torch.tensor([[y, x, angle, long_px, short_px, 0.0, 1.0, 1.0, 1.0]])


@pytest.mark.parametrize(("long_px", "short_px"), [(12.0, 5.0), (5.0, 12.0)])
@pytest.mark.parametrize("angle", [0.0, 0.6, 2.5])
def test_a_pillar_is_all_that_lies_near_a_straight_piece(angle: float, long_px: float, short_px: float) -> None:
    """Against the distance to the piece between the middles of its two round ends."""
    rows, columns = np.mgrid[-25:26, -30:31].astype(np.float64)
    found = distance(row(3, -5, angle, long_px, short_px), (51, 61))[0]
    radius, half = min(long_px, short_px), abs(long_px - short_px)
    down, right = (np.cos(angle), np.sin(angle)) if long_px > short_px else (-np.sin(angle), np.cos(angle))
    on_piece = np.clip((rows - 3) * down + (columns + 5) * right, -half, half)
    expected = np.hypot(rows - 3 - on_piece * down, columns + 5 - on_piece * right) - radius
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-4, rtol=0)


def test_several_structures_are_measured_at_once() -> None:
    rows = torch.cat([row(0, 0, 0.3, 6, 6), row(2, -4, 1.0, 9, 3), row(1, 1, 0.2, ENDLESS_PX, 4)])
    together = distance(rows, (30, 21))
    assert together.shape == (3, 30, 21)
    assert all(torch.equal(together[index], distance(rows[index : index + 1], (30, 21))[0]) for index in range(3))


def test_image_and_labels_change_in_the_same_places() -> None:
    """Deep inside, a flat image has the structure's value where labels are 0; none of that value is elsewhere."""
    flat, cells = torch.full((1, 121, 121), 50.0), torch.ones(121, 121, dtype=torch.int64)
    pillars = PastedStructures(max_count=1, kinds=("pillar",), size_px=(70.0, 90.0), strength=2.0, reach_px=30.0, p=1.0)
    for index in range(12):
        params = pillars.draw(generator(0, "augment", 0, index))
        image, labels = pillars.image(flat, params), pillars.labels(cells, params)
        structure = torch.tensor(np.stack(pillars.structures(*params)), dtype=torch.float32)
        inside, _, fringe_px, cover = structure[0, 5:].tolist()
        far = distance(structure, (121, 121))[0].abs() > max(5 * fringe_px, 10)
        covered = far & (labels == 0)
        assert int(covered.sum()) > 100
        expected = torch.where(covered, 50 + cover * (inside - 50), 50.0)
        torch.testing.assert_close(image[0][far], expected[far], rtol=0, atol=1e-3)


@dataclass(frozen=True)
class Disc(PastedStructures):
    """Always one disc of radius 10 about the middle: inside 3, an edge of 4, a fringe of 2, covering 0.8."""

    def structures(self, count: int, key: int) -> list[np.ndarray]:
        return [np.array([0, 0, 0, 10, 10, 3.0, 4.0, 2.0, 0.8])]


def test_an_edge_and_its_fringe_have_opposite_signs() -> None:
    """At the middle, on the outline, twice the fringe's width outside, and where nothing is left of it."""
    found = Disc().image(torch.full((1, 61, 61), 1.0), (1, 0))[0, 30, 30:]
    edge, fringe = 4 * (1 - 0.5 * np.exp(-4)), 4 * (np.exp(-4) - 0.5)
    assert float(found[0]) == pytest.approx(1 + 0.8 * 2, abs=1e-6)
    assert float(found[10]) == pytest.approx(1 + 0.8 * 2 / 2 + edge, abs=1e-5)
    assert float(found[14]) == pytest.approx(1 + 0.8 * 2 / (1 + np.exp(8)) + fringe, abs=1e-5)
    assert torch.equal(found[26:], torch.ones(5))


def test_pasted_structures_of_a_batch_are_its_windows_one_by_one() -> None:
    """With other numbers of structures in each, and none in some."""
    transform = PastedStructures(max_count=5, p=0.6)
    images = torch.randn(12, 2, 48, 40, generator=torch.Generator().manual_seed(0))
    kept, params = images.clone(), [transform.draw(generator(0, "augment", 0, index)) for index in range(12)]
    assert 0 in (counts := {count for count, _ in params}) and len(counts) > 3
    found = transform.batch(images, params)
    for before, after, one in zip(images, found, params, strict=True):
        torch.testing.assert_close(after, transform.image(before, one), rtol=0, atol=1e-6)
        assert one[0] or torch.equal(after, before)
    assert torch.equal(images, kept)


def test_nothing_is_drawn_where_the_probability_is_nothing() -> None:
    transform = PastedStructures(p=0.0)
    image, labels = torch.randn(1, 20, 20), torch.ones(20, 20, dtype=torch.int64)
    for index in range(20):
        params = transform.draw(generator(0, "augment", 0, index))
        assert params[0] == 0
        assert torch.equal(transform.image(image, params), image) and torch.equal(
            transform.labels(labels, params), labels
        )


def test_every_figure_of_a_structure_is_within_its_bounds() -> None:
    transform = PastedStructures(size_px=(6.0, 20.0), strength=3.0, reach_px=40.0)
    found = np.stack(transform.structures(6000, key=3))
    places, angles, sides, (inside, edge, fringe_px, cover) = found[:, :2], found[:, 2], found[:, 3:5], found[:, 5:].T
    assert np.abs(places).max() <= 40 and np.abs(places.mean(axis=0)).max() < 2
    assert 0 <= angles.min() < 0.01 and np.pi - 0.01 < angles.max() <= np.pi
    assert np.abs(inside).max() <= 3 and np.mean(inside == 0) == pytest.approx(0.5, abs=0.03)
    assert 0.6 <= np.abs(edge).min() < 0.61 and 2.99 < np.abs(edge).max() <= 3
    assert np.mean(edge > 0) == pytest.approx(0.5, abs=0.03)
    assert FRINGE_PX[0] <= fringe_px.min() and fringe_px.max() <= FRINGE_PX[1]
    assert np.median(fringe_px) == pytest.approx(np.sqrt(FRINGE_PX[0] * FRINGE_PX[1]), rel=0.05)
    assert cover.min() >= 0.7 and cover.max() <= 1
    wall = sides[:, 0] == ENDLESS_PX / 2
    assert wall.mean() == pytest.approx(1 / 3, abs=0.03) and np.all((sides[wall, 1] >= 3) & (sides[wall, 1] <= 10))
    assert sides[~wall].min() >= DUST_PX[0] / 2 and sides[~wall].max() <= 10
    assert np.mean(sides[~wall, 0] == sides[~wall, 1]) == pytest.approx(0.5, abs=0.04)


def test_a_pillar_has_the_sizes_that_are_asked_for() -> None:
    found = PastedStructures(kinds=("pillar",), size_px=(6.0, 10.0)).structures(300, key=1)
    assert all(3 <= side <= 5 for one in found for side in one[3:5])
