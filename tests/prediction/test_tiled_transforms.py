"""Transforms of images in pieces: what the whole image gives, bit by bit, and what cannot be had so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from yeastexp.data import pieces
from yeastexp.data.pieces import Pieces
from yeastexp.data.running_moments import mean_and_std
from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.data.transforms.crop import Crop
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.data.transforms.percentile import Percentile, percentiles
from yeastexp.data.transforms.polarity import Polarity
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.prediction import tiled_transforms
from yeastexp.sample import Sample

SIZE = (137, 183)


@dataclass(frozen=True)
class Invert(BasicTransform2D):
    """Changes the sign, pixel by pixel."""

    def image(self, image: Tensor, params: Any) -> Tensor:
        return -image


@dataclass(frozen=True)
class Smooth(BasicTransform2D):
    """The mean of five pixels to each side."""

    margin_px: int = 2

    def image(self, image: Tensor, params: Any) -> Tensor:
        padded = functional.pad(image[None], (2, 2, 2, 2), mode="reflect")
        return functional.avg_pool2d(padded, 5, stride=1)[0]


@dataclass(frozen=True)
class Centred(BasicTransform2D):
    """Takes off the mean of all it sees, and does not say so."""

    def image(self, image: Tensor, params: Any) -> Tensor:
        return image - image.mean()


@dataclass(frozen=True)
class Vignette(BasicTransform2D):
    """Brightens what is far from the centre of all it sees."""

    def image(self, image: Tensor, params: Any) -> Tensor:
        return image + torch.linspace(-1, 1, image.shape[2]).square()


@dataclass(frozen=True)
class Largest(BasicTransform2D):
    """Divides by the largest value of the whole image."""

    def statistics(self, image: Iterable[Tensor]) -> float:
        return max(float(band.max()) for band in image)

    def image(self, image: Tensor, params: float) -> Tensor:
        return image / params


@dataclass(frozen=True)
class Undeclared(Largest):
    """Has statistics, and depends on others as well."""

    def image(self, image: Tensor, params: float) -> Tensor:
        return (image - image.mean()) / params


@dataclass(frozen=True)
class Fitted(BasicTransform2D):
    """Is fitted, and depends on one pixel."""

    factor: float = 2.0

    def fit(self, training_images: Any) -> dict[str, Any]:
        return {}

    def image(self, image: Tensor, params: Any) -> Tensor:
        return image * self.factor


@dataclass(frozen=True)
class Odd(BasicTransform2D):
    """Keeps every second row from the second on, and all columns but the first; rows come back twice."""

    def geometry(self, size: tuple[int, int], params: Any) -> tuple[np.ndarray, tuple[int, int]]:
        return np.array([[2, 0, 1], [0, 1, 1], [0, 0, 1]]), (size[0] // 2, size[1] - 1)

    def restore(self, logits: Pieces, size: tuple[int, int]) -> Pieces:
        rows = torch.arange(size[0]).sub(1).clamp_min(0).div(2, rounding_mode="floor").clamp_max(logits.size[0] - 1)
        return Pieces.of(functional.pad(logits.whole, (1, 0, 0, 0))[:, rows])


@dataclass(frozen=True)
class Turned(BasicTransform2D):
    """Exchanges rows and columns."""

    matrix: tuple[tuple[float, ...], ...] = ((0, 1, 0), (1, 0, 0), (0, 0, 1))

    def geometry(self, size: tuple[int, int], params: Any) -> tuple[np.ndarray, tuple[int, int]]:
        return np.array(self.matrix), size[::-1]

    def restore(self, logits: Pieces, size: tuple[int, int]) -> Pieces:
        return Pieces.of(logits.whole.transpose(1, 2))


@dataclass(frozen=True)
class Shifted(BasicTransform2D):
    """Moves pixels by a part of one, or from beyond the image."""

    by: float = 0.5

    def geometry(self, size: tuple[int, int], params: Any) -> tuple[np.ndarray, tuple[int, int]]:
        return np.array([[1, 0, self.by], [0, 1, 0], [0, 0, 1]]), size

    def restore(self, logits: Pieces, size: tuple[int, int]) -> Pieces:
        return logits


@dataclass(frozen=True)
class OneWay(BasicTransform2D):
    """Moves nothing, and does not say how logits come back."""

    def geometry(self, size: tuple[int, int], params: Any) -> tuple[np.ndarray, tuple[int, int]]:
        return np.eye(3), size


def image(channels: int = 1, seed: int = 0) -> Tensor:
    """Counts as a camera gives them, brighter to one side, some of them very bright."""
    source = np.random.default_rng(seed)
    values = source.normal(1000, 50, (channels, *SIZE)) + np.arange(SIZE[1]) + 900 * (source.random(SIZE) < 0.02)
    return torch.from_numpy(np.rint(values).astype(np.float32))


@pytest.fixture(autouse=True)
def several_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of few rows, so that these small images have many."""
    monkeypatch.setattr(pieces, "BAND", 9 * SIZE[1] + 5)


CHAINS: dict[str, tuple[BasicTransform2D, ...]] = {
    "nothing": (),
    "z-scores of each image": (ZScore(),),
    "z-scores of the data set": (ZScore(per="dataset", mean=1000.0, std=60.0),),
    "percentiles of each image": (Percentile(),),
    "percentiles of the data set": (Percentile(per="dataset", at_low=900.0, at_high=1300.0),),
    "polarity that is right": (ZScore(), Polarity(sign=1)),
    "polarity that is wrong": (ZScore(), Polarity(sign=-1)),
    "polarity of no fit": (Polarity(),),
    "weak polarity": (Polarity(sign=-1, min_skewness=100.0),),
    "a crop": (Crop(top=3, bottom=20, left=11, right=0), ZScore()),
    "figures before a crop": (ZScore(), Crop(top=3, right=30)),
    "a coarser grid": (ZScore(), Downscale(factor=3)),
    "a coarser grid without filter": (Downscale(factor=4, filter_probability=0.0), Percentile(low=5, high=90)),
    "two coarser grids": (Downscale(factor=2), ZScore(), Downscale(factor=5)),
    "a crop of a coarser grid": (Downscale(factor=2), Crop(top=7, left=1, bottom=2), ZScore()),
    "of a plugin, pointwise": (ZScore(), Invert()),
    "of a plugin, with statistics": (Largest(), Downscale(factor=2), Largest()),
    "of a plugin, with a fit": (Fitted(), ZScore()),
    "of a plugin, with a grid": (Odd(), ZScore()),
    "of a plugin, with a margin": (Smooth(), Downscale(factor=2)),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("channels", [1, 2])
def test_pieces_are_those_of_the_whole(name: str, channels: int) -> None:
    transforms, given = CHAINS[name], image(channels)
    whole = pipeline.whole(transforms, Sample(given, torch.zeros(SIZE, dtype=torch.int64), "")).image
    seen = tiled_transforms.transformed(transforms, Pieces.of(given))
    assert seen.size == tuple(whole.shape[1:])
    for rows, columns in cells(seen.size, (17, 40)):
        torch.testing.assert_close(seen.cut(rows, columns), whole[:, rows, columns], rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize("name", CHAINS)
def test_logits_are_brought_back_as_those_of_the_whole(name: str) -> None:
    transforms, given = CHAINS[name], image()
    seen = tiled_transforms.transformed(transforms, Pieces.of(given))
    logits = torch.randn(3, *seen.size, generator=torch.Generator().manual_seed(0))
    whole = pipeline.restore(transforms, logits, SIZE)
    restored = pipeline.restore_pieces(transforms, Pieces.of(logits), SIZE)
    assert restored.size == SIZE
    for rows, columns in cells(SIZE, (29, 64)):
        torch.testing.assert_close(restored.cut(rows, columns), whole[:, rows, columns], rtol=1e-6, atol=1e-6)


def cells(size: tuple[int, int], tile: tuple[int, int]) -> list[tuple[slice, slice]]:
    return [
        (slice(row, min(row + tile[0], size[0])), slice(column, min(column + tile[1], size[1])))
        for row in range(0, size[0], tile[0])
        for column in range(0, size[1], tile[1])
    ]


@pytest.mark.parametrize("factor", [3, 5, 7, 12])
def test_places_between_coarse_pixels_are_rounded_as_torch_rounds_them(factor: int) -> None:
    """Far from the corner, where a third of a row's number has few digits left."""
    logits = torch.randn(1, 2, 2500, generator=torch.Generator().manual_seed(0))
    size = (factor + 1, 2499 * factor + 1)
    transform = Downscale(factor=factor)
    last = slice(size[1] - 2000, size[1])
    restored = transform.restore(Pieces.of(logits), size)
    torch.testing.assert_close(restored.cut(slice(0, size[0]), last), restored.whole[..., last], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        Centred(), Vignette(), Undeclared(), Smooth(margin_px=1), Smooth(margin_px=60), Turned(), Shifted(),
        Shifted(1.0), Shifted(-1.0), OneWay(),
    ],
    ids=repr,
)  # fmt: skip
def test_a_transform_that_needs_the_whole_image_is_named(transform: BasicTransform2D) -> None:
    with pytest.raises(tiled_transforms.NeedsWholeImage, match=f"^{type(transform).__name__}$"):
        tiled_transforms.transformed([transform], Pieces.of(image()))


VALUES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "counts": lambda source: source.integers(0, 65536, (1, 40, 50)),
    "few values": lambda source: source.integers(0, 3, (2, 31, 20)),
    "of both signs": lambda source: source.normal(0, 1, (1, 33, 47)),
    "of all sizes": lambda source: source.normal(0, 1, (1, 33, 47)) * 10.0 ** source.integers(-30, 30, (1, 33, 47)),
    "one": lambda source: np.full((1, 1, 1), 7.5),
    "two": lambda source: np.array([[[3.0, -1.0]]]),
}


@pytest.mark.parametrize("name", VALUES)
def test_percentiles_are_those_of_numpy_to_the_last_bit(name: str) -> None:
    values = VALUES[name](np.random.default_rng(0)).astype(np.float32)
    wanted = [0, 1, 12.5, 37.123, 50, 99, 99.9, 100]
    together = [np.percentile(values.astype(np.float64), wanted).tolist()]
    each = [np.percentile(channel.astype(np.float64), wanted).tolist() for channel in values]
    for image in (Pieces.of(torch.from_numpy(values)), [torch.from_numpy(values)]):
        assert percentiles(image, wanted) == each
        assert percentiles(image, wanted, joint=True) == together


def test_moments_are_those_of_the_whole() -> None:
    given = image(2)
    for joint, parts in ((True, [given]), (False, list(given))):
        moments = [torch.std_mean(part.double(), correction=0) for part in parts]
        expected = [(float(mean), float(std)) for std, mean in moments]
        found = mean_and_std(Pieces.of(given), joint)
        assert np.array(found) == pytest.approx(np.array(expected), rel=1e-14)
        assert mean_and_std([given], joint) == expected
    assert mean_and_std(Pieces.of(torch.full((1, 5, 6), 3.0))) == [(3.0, 0.0)]


def test_a_constant_image_becomes_zero() -> None:
    given = Pieces.of(torch.full((1, 60, 50), 1000.0))
    for transform in (ZScore(), Percentile()):
        assert not tiled_transforms.transformed([transform], given).whole.any()
