"""What normalisation does to images: over all of them, over those to train on, or each on its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from yeastexp.data.datasets.hdf5 import Hdf5, hdf5
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.drawing import plots
from yeastexp.errors import UserError
from yeastexp.exercise import writing

Way = Literal["as stored", "over all images", "over training images", "each image on its own"]
STORED: Way = "as stored"
ALL: Way = "over all images"
TRAINING: Way = "over training images"
EACH: Way = "each image on its own"

BRIGHTER = 2.0
"""The factor of the question what a leak does when validation images differ from the others."""


@dataclass(frozen=True)
class Images:
    """The images of a data set, read when they are asked for; those that validate times a factor."""

    dataset: Hdf5 | SyntheticYeast
    validation_factor: float = 1.0

    def of(self, *splits: str) -> Iterator[Tensor]:
        """The images (C, H, W) of these splits."""
        for split in splits:
            for name in self.dataset.splits[split]:
                yield self.dataset.read(name).image * (self.validation_factor if split == "val" else 1.0)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that there are."""
        return tuple(self.dataset.splits)


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation, lowest and highest of so many values."""

    mean: float
    std: float
    low: float
    high: float
    values: int


@dataclass(frozen=True)
class Row:
    """What one way makes of the images: the mean and deviation it took from them, and the moments of each by split."""

    way: Way
    figures: tuple[float, float] | None
    images: Mapping[str, Sequence[Moments]]

    def split(self, name: str) -> Moments:
        """The moments of all values of a split."""
        return pooled(self.images[name])

    @property
    def every(self) -> list[Moments]:
        """The moments of each image of every split."""
        return [one for images in self.images.values() for one in images]

    @property
    def spread(self) -> float:
        """Standard deviation of the images' means."""
        return float(np.std([one.mean for one in self.every]))


@dataclass(frozen=True)
class Leak:
    """How far the figures over all images are from those over the training images, in standard deviations of these."""

    mean: float
    std_ratio: float
    largest: float
    """The most that the value of any pixel differs between the two."""


@dataclass(frozen=True)
class Study:
    """A row a way, the leak, and the rows and the leak if the validation images had been recorded brighter."""

    data: str
    rows: Mapping[Way, Row]
    leak: Leak
    brighter: Mapping[Way, Row]
    brighter_leak: Leak


def study(data: Path | None = None) -> Study:
    """Compare the ways on the images of an HDF5 file as they were recorded, or on synthetic ones."""
    dataset = hdf5(data) if data else SyntheticYeast()
    if dataset.normalization:
        raise UserError(f"{data}: is normalised already; give the file it was made from")
    rows, brighter = compared(Images(dataset)), compared(Images(dataset, BRIGHTER))
    return Study(str(data or "synthetic_yeast"), rows, leak(rows), brighter, leak(brighter))


def compared(images: Images) -> dict[Way, Row]:
    """What every way makes of the images."""
    transforms: dict[Way, ZScore | None] = {
        STORED: None,
        ALL: fitted(images.of(*images.splits)),
        TRAINING: fitted(images.of("train")),
        EACH: ZScore(per="image"),
    }
    return {way: _row(way, transform, images) for way, transform in transforms.items()}


def fitted(images: Iterable[Tensor]) -> ZScore:
    """The transform with the figures of these images."""
    return ZScore(per="dataset", **ZScore(per="dataset").fit(images))


def _row(way: Way, transform: ZScore | None, images: Images) -> Row:
    seen = {
        split: [
            moments(transform.image(one, transform.statistics([one])) if transform else one) for one in images.of(split)
        ]
        for split in images.splits
    }
    figures = None
    if transform and transform.mean is not None and transform.std is not None:
        figures = (transform.mean, transform.std)
    return Row(way, figures, seen)


def moments(image: Tensor) -> Moments:
    """The moments of an image, in float64."""
    wide = image.double()
    low, high = wide.aminmax()
    return Moments(float(wide.mean()), float(wide.std(correction=0)), float(low), float(high), wide.numel())


def pooled(parts: Sequence[Moments]) -> Moments:
    """The moments of all values together."""
    values = sum(one.values for one in parts)
    mean = math.fsum(one.values * one.mean for one in parts) / values
    variance = math.fsum(one.values * (one.std**2 + (one.mean - mean) ** 2) for one in parts) / values
    low, high = min(one.low for one in parts), max(one.high for one in parts)
    return Moments(mean, math.sqrt(variance), low, high, values)


def leak(rows: Mapping[Way, Row]) -> Leak:
    """What the figures over all images know of those that validate."""
    every, training = rows[ALL].figures, rows[TRAINING].figures
    assert every and training, "both take figures"
    stored = pooled(rows[STORED].every)
    # The difference is linear in the value, so it is largest at the darkest or the brightest pixel.
    differences = [(v - every[0]) / every[1] - (v - training[0]) / training[1] for v in (stored.low, stored.high)]
    return Leak(
        mean=(every[0] - training[0]) / training[1],
        std_ratio=every[1] / training[1],
        largest=max(map(abs, differences)),
    )


def as_json(done: Study) -> dict[str, Any]:
    """All figures, for scripts."""
    return {
        "data": done.data,
        "rows": [_json_row(row) for row in done.rows.values()],
        "leak": vars(done.leak),
        f"validation_images_times_{BRIGHTER:g}": {
            "rows": [_json_row(row) for row in done.brighter.values()],
            "leak": vars(done.brighter_leak),
        },
        "findings": findings(done),
    }


def _json_row(row: Row) -> dict[str, Any]:
    splits = {split: {"mean": row.split(split).mean, "std": row.split(split).std} for split in row.images}
    figures = row.figures and dict(zip(("mean", "std"), row.figures, strict=True))
    images = {split: [{"mean": one.mean, "std": one.std} for one in listed] for split, listed in row.images.items()}
    return {"way": row.way, "figures": figures, "splits": splits, "spread_of_means": row.spread, "images": images}


def table(done: Study) -> Table:
    """All figures, for people."""
    counts = ", ".join(f"{len(listed)} {split}" for split, listed in done.rows[ALL].images.items())
    title = f"{escape(done.data)} ({counts}): mean and standard deviation of all pixels"
    made = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    made.add_column("\nnormalised", no_wrap=True)
    headings = ["figures\nmean", "\nstd"]
    for split in done.rows[ALL].images:
        headings += [f"{split}\nmean", "\nstd"]
    for heading in (*headings, "image means\nstd", "image stds\nfrom – to"):
        made.add_column(heading, justify="right", no_wrap=True)
    for row in done.rows.values():
        made.add_row(row.way, *_cells(row))
    return made


def _cells(row: Row) -> Iterator[str]:
    yield from map(_shown, row.figures) if row.figures else ("–", "–")
    for split in row.images:
        yield from (_shown(row.split(split).mean), _shown(row.split(split).std))
    yield _shown(row.spread)
    deviations = [one.std for one in row.every]
    yield f"{_shown(min(deviations))} – {_shown(max(deviations))}"


def _shown(value: float) -> str:
    """Large values with one digit after the point, small ones with three; no minus before a zero."""
    return f"{value:,.1f}" if abs(value) >= 100 else f"{round(value, 3) + 0.0:.3f}"


def figure(done: Study) -> plots.Figure:
    """Mean and standard deviation of each image, in a panel a way."""
    panels = {f"normalised {way}": _series(row) for way, row in done.rows.items() if way != STORED}
    return plots.scatter(panels, x_label="mean of an image", y_label="standard deviation")


SPLIT_NAMES = {"train": "training images", "val": "validation images", "test": "test images"}


def _series(row: Row) -> list[plots.Series]:
    return [
        plots.Series(
            SPLIT_NAMES[split], [one.mean for one in listed], [one.std for one in listed], hollow=split != "train"
        )
        for split, listed in row.images.items()
    ]


def findings(done: Study) -> list[str]:
    """What the figures say, in sentences made of them."""
    return [_stored(done), _over_all(done), _over_training(done), _leak(done), _brighter(done), _each(done)]


def _stored(done: Study) -> str:
    train = done.rows[STORED].split("train")
    return (
        f"As stored: values about {_shown(train.mean)} that vary by {_shown(train.std)}. Their mean is "
        f"{train.mean / train.std:.1f} standard deviations from 0, where initial weights expect it."
    )


def _over_all(done: Study) -> str:
    row = done.rows[ALL]
    every, train, validation = pooled(row.every), row.split("train"), row.split("val")
    return (
        f"Over all images, as the sheet asks: mean {_shown(every.mean)} and standard deviation {_shown(every.std)} "
        f"over everything; {_shown(train.mean)} and {_shown(train.std)} over the training images, "
        f"{_shown(validation.mean)} and {_shown(validation.std)} over those that validate. Their values had a part in "
        "the figures: a leak."
    )


def _over_training(done: Study) -> str:
    row = done.rows[TRAINING]
    train, validation = row.split("train"), row.split("val")
    return (
        f"Over training images: {_shown(train.mean)} and {_shown(train.std)} there. The validation images come as new "
        f"ones would, with {_shown(validation.mean)} and {_shown(validation.std)}, and had no part in the figures."
    )


def _leak(done: Study) -> str:
    found, spread = done.leak, done.rows[TRAINING].spread
    beside = f", {spread / abs(found.mean):.0f} times the first" if abs(found.mean) > 1e-9 else ""
    return (
        f"The leak, the difference between these two: {found.mean:+.3f} standard deviations in the mean, "
        f"{found.std_ratio - 1:+.1%} in the scale, at most {found.largest:.3f} in any pixel. The means of images "
        f"spread by {spread:.3f}{beside}."
    )


def _brighter(done: Study) -> str:
    found, train = done.brighter_leak, done.brighter[ALL].split("train")
    return (
        f"How large it is depends on the images. Were those that validate {BRIGHTER:g} times as bright, figures over "
        f"all images would bring the training images to {_shown(train.mean)} and {_shown(train.std)}: a leak of "
        f"{found.mean:+.3f} in the mean and {found.std_ratio - 1:+.1%} in the scale. Figures over the training images "
        "would be the same as ever, and validation would tell how such images fare."
    )


def _each(done: Study) -> str:
    before, after = done.rows[TRAINING], done.rows[EACH]
    low, high = (pick(one.std for one in before.every) for pick in (min, max))
    return (
        f"Each image on its own: no figures to keep, nothing to leak, the same for any exposure. But what tells "
        f"images apart goes: means that spread by {before.spread:.3f} now do by {_shown(after.spread)}, and contrasts, "
        f"and the noise with them, that lay between {low:.3f} and {high:.3f} are made the same."
    )


def write(done: Study, folder: Path) -> list[Path]:
    """The figures as JSON and the plot as PNG and SVG, in a folder."""
    return writing.write(folder, "normalization", {"normalization": figure(done)}, as_json(done))
