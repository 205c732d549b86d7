"""The study of z-score normalisation over all images, over the training images, or of each image on its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from yeastexp.data.datasets.hdf5 import Hdf5, hdf5
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.drawing import plots
from yeastexp.errors import UserError
from yeastexp.exercise import writing

Scope = Literal["as stored", "over all images", "over training images", "each image on its own"]
STORED: Scope = "as stored"
ALL: Scope = "over all images"
TRAINING: Scope = "over training images"
EACH: Scope = "each image on its own"

BRIGHTER = 2.0
"""The factor that validation images are multiplied by in the study's second part."""


@dataclass(frozen=True)
class SourceImages:
    """The images of a data set, read on demand; validation images are multiplied by a factor."""

    dataset: Hdf5 | SyntheticYeast
    validation_factor: float = 1.0

    def of(self, *splits: str) -> Iterator[Tensor]:
        """The images (C, H, W) of these splits."""
        for split in splits:
            for name in self.dataset.splits[split]:
                yield self.dataset.read(name).image * (self.validation_factor if split == "val" else 1.0)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.dataset.splits)


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation, minimum and maximum of a number of values."""

    mean: float
    std: float
    low: float
    high: float
    values: int


@dataclass(frozen=True)
class NormalizedImages:
    """The result of a normalisation: the mean and deviation that it used, and the moments of each image by split."""

    scope: Scope
    statistics: tuple[float, float] | None
    images: Mapping[str, Sequence[Moments]]

    def split(self, name: str) -> Moments:
        """The moments of all pixels of a split."""
        return pooled(self.images[name])

    @property
    def all_images(self) -> list[Moments]:
        """The moments of each image of all splits."""
        return [moments for images in self.images.values() for moments in images]

    @property
    def std_of_means(self) -> float:
        """The standard deviation of the images' means."""
        return float(np.std([moments.mean for moments in self.all_images]))


@dataclass(frozen=True)
class Leak:
    """The influence of validation images on the statistics: those over all images against those over training images.

    `mean` is in standard deviations of the training images.
    """

    mean: float
    std_ratio: float
    largest: float
    """The largest difference between the two normalised values of a pixel."""


@dataclass(frozen=True)
class NormalizationStudy:
    """The result for each scope, and the leak, with the images as they are and with brighter validation images."""

    data: str
    rows: Mapping[Scope, NormalizedImages]
    leak: Leak
    brighter: Mapping[Scope, NormalizedImages]
    brighter_leak: Leak


def study(data: Path | None = None) -> NormalizationStudy:
    """Compare the scopes on the images of an HDF5 file as they were recorded, or on synthetic ones.

    Raises UserError if the file is normalised already.
    """
    dataset = hdf5(data) if data else SyntheticYeast()
    if dataset.normalization:
        raise UserError(f"{data}: is normalised already; give the file it was made from")
    rows, brighter = normalized(SourceImages(dataset)), normalized(SourceImages(dataset, BRIGHTER))
    return NormalizationStudy(str(data or "synthetic_yeast"), rows, leak(rows), brighter, leak(brighter))


def normalized(source: SourceImages) -> dict[Scope, NormalizedImages]:
    """Normalise the images in each scope."""
    transforms: dict[Scope, ZScore | None] = {
        STORED: None,
        ALL: fitted(source.of(*source.splits)),
        TRAINING: fitted(source.of("train")),
        EACH: ZScore(per="image", joint=True),
    }
    return {scope: _normalized(scope, transform, source) for scope, transform in transforms.items()}


def fitted(images: Iterable[Tensor]) -> ZScore:
    """A transform fitted on images."""
    scope = ZScore(per="dataset", joint=True)
    return replace(scope, **scope.fit(images))


def _normalized(scope: Scope, transform: ZScore | None, source: SourceImages) -> NormalizedImages:
    by_split = {
        split: [
            moments(transform.image(image, transform.statistics([image])) if transform else image)
            for image in source.of(split)
        ]
        for split in source.splits
    }
    statistics = None
    if transform and isinstance(transform.mean, float) and isinstance(transform.std, float):
        statistics = (transform.mean, transform.std)
    return NormalizedImages(scope, statistics, by_split)


def moments(image: Tensor) -> Moments:
    """The moments of an image, in float64."""
    wide = image.double()
    low, high = wide.aminmax()
    return Moments(float(wide.mean()), float(wide.std(correction=0)), float(low), float(high), wide.numel())


def pooled(parts: Sequence[Moments]) -> Moments:
    """The moments of the values of all parts together."""
    # From the moments of the parts, as all pixels at once might not fit into memory; the exact sums do not depend on
    # the order of the images.
    values = sum(part.values for part in parts)
    mean = math.fsum(part.values * part.mean for part in parts) / values
    variance = math.fsum(part.values * (part.std**2 + (part.mean - mean) ** 2) for part in parts) / values
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    return Moments(mean, math.sqrt(variance), low, high, values)


def leak(rows: Mapping[Scope, NormalizedImages]) -> Leak:
    """Compare the statistics over all images with those over the training images."""
    overall, training = rows[ALL].statistics, rows[TRAINING].statistics
    assert overall and training, "both scopes have statistics"
    stored = pooled(rows[STORED].all_images)
    # The difference is linear in the value, so it is largest at the darkest or the brightest pixel.
    extremes = (stored.low, stored.high)
    differences = [(v - overall[0]) / overall[1] - (v - training[0]) / training[1] for v in extremes]
    return Leak(
        mean=(overall[0] - training[0]) / training[1],
        std_ratio=overall[1] / training[1],
        largest=max(map(abs, differences)),
    )


def as_json(result: NormalizationStudy) -> dict[str, Any]:
    """All values as plain values for scripts."""
    return {
        "data": result.data,
        "rows": [_json_row(row) for row in result.rows.values()],
        "leak": vars(result.leak),
        f"validation_images_times_{BRIGHTER:g}": {
            "rows": [_json_row(row) for row in result.brighter.values()],
            "leak": vars(result.brighter_leak),
        },
        "findings": findings(result),
    }


def _json_row(row: NormalizedImages) -> dict[str, Any]:
    splits = {split: {"mean": row.split(split).mean, "std": row.split(split).std} for split in row.images}
    statistics = row.statistics and dict(zip(("mean", "std"), row.statistics, strict=True))
    images = {split: [{"mean": m.mean, "std": m.std} for m in listed] for split, listed in row.images.items()}
    return {
        "way": row.scope,
        "figures": statistics,
        "splits": splits,
        "spread_of_means": row.std_of_means,
        "images": images,
    }


def table(result: NormalizationStudy) -> Table:
    """The table of all values."""
    images = result.rows[ALL].images
    counts = ", ".join(f"{len(listed)} {split}" for split, listed in images.items())
    title = f"{escape(result.data)} ({counts}): mean and standard deviation of all pixels"
    by_split = [heading for split in images for heading in (f"{split}\nmean", "\nstd")]
    spread = ("image means\nstd", "image stds\nfrom – to")
    result_table = writing.results_table(title, None, "\nnormalised", "fitted\nmean", "\nstd", *by_split, *spread)
    for row in result.rows.values():
        result_table.add_row(row.scope, *_cells(row))
    return result_table


def _cells(row: NormalizedImages) -> Iterator[str]:
    yield from map(_number, row.statistics) if row.statistics else ("–", "–")
    for split in row.images:
        yield from (_number(row.split(split).mean), _number(row.split(split).std))
    yield _number(row.std_of_means)
    deviations = [moments.std for moments in row.all_images]
    yield f"{_number(min(deviations))} – {_number(max(deviations))}"


def _number(value: float) -> str:
    """A number with one decimal if it is large, else with three."""
    # Adding 0.0 turns -0.0 into 0.0, which is written without a minus.
    return f"{value:,.1f}" if abs(value) >= 100 else f"{round(value, 3) + 0.0:.3f}"


def figure(result: NormalizationStudy) -> plots.Figure:
    """Mean and standard deviation of each image, in a panel for each scope."""
    panels = {f"normalised {scope}": _series(row) for scope, row in result.rows.items() if scope != STORED}
    return plots.scatter(panels, x_label="mean of an image", y_label="standard deviation")


SPLIT_NAMES = {"train": "training images", "val": "validation images", "test": "test images"}


def _series(row: NormalizedImages) -> list[plots.Series]:
    return [
        plots.Series(SPLIT_NAMES[split], [m.mean for m in images], [m.std for m in images], hollow=split != "train")
        for split, images in row.images.items()
    ]


def findings(result: NormalizationStudy) -> list[str]:
    """Sentences on what the values show."""
    return [_stored(result), _over_all(result), _over_training(result), _leak(result), _brighter(result), _each(result)]


def _stored(result: NormalizationStudy) -> str:
    train = result.rows[STORED].split("train")
    return (
        f"As stored: mean {_number(train.mean)}, standard deviation {_number(train.std)} over the training images. The "
        f"mean is {train.mean / train.std:.1f} standard deviations from 0, where initial weights expect it."
    )


def _over_all(result: NormalizationStudy) -> str:
    row = result.rows[ALL]
    overall, train, validation = pooled(row.all_images), row.split("train"), row.split("val")
    return (
        f"Over all images, as the sheet asks: mean {_number(overall.mean)} and standard deviation "
        f"{_number(overall.std)} over all images; {_number(train.mean)} and {_number(train.std)} over the training "
        f"images, {_number(validation.mean)} and {_number(validation.std)} over the validation images. The validation "
        "images contribute to the statistics: a leak."
    )


def _over_training(result: NormalizationStudy) -> str:
    row = result.rows[TRAINING]
    train, validation = row.split("train"), row.split("val")
    return (
        f"Over training images: {_number(train.mean)} and {_number(train.std)} on these. The validation images are "
        f"treated as new images would be, and get {_number(validation.mean)} and {_number(validation.std)}; they do "
        "not contribute to the statistics."
    )


def _leak(result: NormalizationStudy) -> str:
    leak, spread = result.leak, result.rows[TRAINING].std_of_means
    ratio = f", {spread / abs(leak.mean):.0f} times the first" if abs(leak.mean) > 1e-9 else ""
    return (
        f"The leak is the difference between these two: {leak.mean:+.3f} standard deviations in the mean, "
        f"{leak.std_ratio - 1:+.1%} in the scale, at most {leak.largest:.3f} in any pixel. The standard deviation of "
        f"the images' means is {spread:.3f}{ratio}."
    )


def _brighter(result: NormalizationStudy) -> str:
    leak, train = result.brighter_leak, result.brighter[ALL].split("train")
    return (
        f"Its size depends on the images. If the validation images were {BRIGHTER:g} times as bright, normalisation "
        f"over all images would give the training images {_number(train.mean)} and {_number(train.std)}: a leak of "
        f"{leak.mean:+.3f} in the mean and {leak.std_ratio - 1:+.1%} in the scale. Statistics over the training images "
        "would not change, and validation would show how well such images are segmented."
    )


def _each(result: NormalizationStudy) -> str:
    before, after = result.rows[TRAINING], result.rows[EACH]
    low, high = (pick(moments.std for moments in before.all_images) for pick in (min, max))
    return (
        "Each image on its own: no statistics to store, no leak, and no effect of the exposure. But differences "
        f"between images are lost: the standard deviation of their means falls from {before.std_of_means:.3f} to "
        f"{_number(after.std_of_means)}, and their contrasts (with the noise), from {low:.3f} to {high:.3f} before, "
        "become equal."
    )


def write(result: NormalizationStudy, folder: Path) -> list[Path]:
    """Write the values as JSON and the plot as PNG and SVG into a folder."""
    return writing.write(folder, "normalization", {"normalization": figure(result)}, as_json(result))
