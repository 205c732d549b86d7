"""Random changes of values and places: the law of each, measured on many draws or against another library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from yeastexp.errors import UserError
from yeastexp.randomness import generator, normal_fields, uniform_fields
from yeastexp.sample import Sample
from yeastexp.transforms import chain
from yeastexp.transforms.affine import Affine
from yeastexp.transforms.basic import BasicTransform2D
from yeastexp.transforms.brightness_contrast import BrightnessContrast
from yeastexp.transforms.elastic import Elastic
from yeastexp.transforms.gamma import Gamma
from yeastexp.transforms.gaussian_blur import GaussianBlur
from yeastexp.transforms.gaussian_noise import GaussianNoise
from yeastexp.transforms.geometry import Pixels, grid
from yeastexp.transforms.invert_contrast import InvertContrast
from yeastexp.transforms.percentile import Percentile
from yeastexp.transforms.poisson_noise import PoissonNoise

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
    powers = np.array(drawn(Gamma(most=2.0, p=0.5)))
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
    _, labels = chain.windows(pixels, np.zeros(1, int), np.array([[20, 20]]), 61, [Affine()], [[(0.4, 1.5, 0.0)]])
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
    images, read = chain.windows(pixels, np.zeros(1, int), np.array([[20, 20]]), 64, [Elastic()], [[(2.0, 8)]])
    sure = (images[0, 0] - 0.5).abs() > 0.49  # away from edges
    assert sure.any() and torch.equal((images[0, 0] > 0.5)[sure], (read[0] > 0)[sure])
    assert not torch.equal(read[0], labels[20:84, 20:84])


def test_percentile_of_each_image_and_of_all() -> None:
    image = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 300.0, (1, 50, 60))).float()
    sample = Sample(image, torch.zeros(50, 60).long(), "x")
    found = chain.whole([Percentile(5, 95)], sample).image
    assert np.percentile(found.numpy(), [5, 95]) == pytest.approx([0, 1], abs=1e-5)
    (fitted,) = chain.fitted([Percentile(5, 95, per="dataset")], lambda: iter([image, image * 3]))
    assert isinstance(fitted, Percentile)
    assert (fitted.at_low, fitted.at_high) == pytest.approx(tuple(2 * np.percentile(image.numpy(), [5, 95])), rel=1e-6)
    with pytest.raises(UserError, match="is not below"):
        Percentile(50, 50)
