"""Measurements of the images of a packed file, as far as they decide how to train on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from yeastexp.config import pretrained, starters
from yeastexp.data import folds
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.folds import Thumbnail
from yeastexp.data.hdf5_file import Reader
from yeastexp.data.transforms.colonies import holds_whole_cell
from yeastexp.errors import UserError
from yeastexp.inspection.preflight.statistics import count_labels
from yeastexp.metrics import cells
from yeastexp.metrics.matching import annotated_cells, f1, overlap
from yeastexp.prediction.predictor import load_predictor
from yeastexp.sample import IGNORE, Sample
from yeastexp.system.progress_bar import ProgressBar

CLEAR = 0.15
"""The contrast of cells with their surroundings, in standard deviations of the image, above which it is clear."""

RING_SHARE, RING_PX = 0.2, 8
"""The width of the surroundings: a share of the cells' diameter, and the most pixels."""


TRIED, TRIED_PX = 5, 512
"""The number of training images on which the pretrained weights are tried, and the side of what is taken of each."""


@dataclass
class _Sums:
    """Measurements that are collected image by image, so that one image at a time is in memory."""

    diameters: list[float] = field(default_factory=list)
    cells: list[cells.CellStatistics] = field(default_factory=list)
    ranges: list[tuple[float, float]] = field(default_factory=list)
    """The lowest and the highest value of each image."""
    spreads: list[float] = field(default_factory=list)
    """The standard deviation of each image."""
    polarities: list[list[int]] = field(default_factory=list)
    """By training image and channel: 1 if cells are brighter than their surroundings, -1 if darker, else 0."""
    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)
    labelled: int = 0
    foreground: int = 0
    largest: int = 1
    empty: int = 0
    whole_cell: bool = False

    def add(self, sample: Sample, trains: bool) -> None:
        instances = sample.maps.get("instances")
        its_diameters = cells.diameters(instances, sample.labels)
        self.diameters += its_diameters
        self.cells += [] if instances is None else [cells.measure(instances)]
        counts = count_labels(sample.labels)
        self.labelled += sum(count for label, count in counts.items() if label != IGNORE)
        self.foreground += sum(count for label, count in counts.items() if label > 0)
        self.largest = max(self.largest, *counts)
        self.empty += not its_diameters
        self.ranges.append((float(sample.image.min()), float(sample.image.max())))
        self.spreads.append(float(sample.image.std(correction=0)))
        self.thumbnails[sample.name] = folds.thumbnail(sample.image)
        if trains:
            self.polarities.append(polarity(sample, float(np.median(its_diameters)) if its_diameters else 0.0))
            self.whole_cell = self.whole_cell or holds_whole_cell(sample)


@dataclass(frozen=True)
class Measured:
    """Measurements of all images of a packed file."""

    path: Path
    splits: dict[str, int]
    groups: int
    parted: tuple[str, ...]
    """The groups that have both training and validation images."""
    alike: int
    """The number of validation images that nearly equal a training image."""
    channels: int
    channel_names: tuple[str, ...]
    dtype: str
    smallest: tuple[int, int]
    largest: tuple[int, int]
    """Height and width of the image with the shortest side, and of that with the most pixels."""
    pixels: int
    """The pixels of all training images together."""
    classes: int
    """The number of classes: the largest label plus 1."""
    class_names: tuple[str, ...]
    foreground: float
    empty: int
    """The number of images without a cell."""
    cells: int
    """The number of ids of the map `instances`, or without ids, of connected regions of the foreground."""
    has_ids: bool
    has_whole_cell: bool
    """Whether a training image holds a cell that no border cuts."""
    diameter_px: float
    """The median diameter of the cells; 0 without cells."""
    diameters_px: tuple[float, float]
    """The diameters between which 90 % of the cells are."""
    longest_px: int
    """The longest side of a cell's bounding box; 0 without ids."""
    touching: float
    """The share of the cells that touch another one."""
    range: tuple[float, float]
    """The lowest and the highest value of all images."""
    contrast_ratio: float
    """The largest standard deviation of an image over the smallest."""
    pretrained_f1: float | None
    """The F1 score, at an IoU of at least 0.51, of the cells that the pretrained weights find in some training images;
    None if these have no ids or several channels."""
    brighter: int
    darker: int
    """The numbers of training images whose cells are brighter, or darker, than their surroundings in each channel that
    tells."""

    @classmethod
    def of(cls, path: Path, progress: ProgressBar[str] = iter) -> Measured:
        """Read all images of a file, one at a time. Raises UserError if their channels differ."""
        dataset, contents = Hdf5(path), Reader(path).contents
        names = contents.labelled
        first, *others = names
        shapes = {name: dataset.shape(name) for name in names}
        if odd := [name for name in others if shapes[name][0] != shapes[first][0]]:
            raise UserError(f"{path}: images '{first}' and '{odd[0]}' differ in channels; make two files of them")
        train, val = (contents.splits.get(split, ()) for split in ("train", "val"))
        sums, trains = _Sums(), set(train)
        for name in progress(names):
            sums.add(dataset.read(name), name in trains)
        count = sum(image.count for image in sums.cells)
        groups = contents.origin.groups
        sizes = sorted((shape[1:] for shape in shapes.values()), key=lambda size: (min(size), size))
        spreads = [spread for spread in sums.spreads if spread > 0]
        signs = [_agreed(polarities) for polarities in sums.polarities]
        return cls(
            path=path,
            splits={split: len(members) for split, members in dataset.splits.items()},
            groups=len(set(groups.values())),
            parted=tuple(
                sorted({groups[name] for name in train if name in groups} & {groups.get(name) for name in val})
            ),
            alike=len(folds.most_similar(sums.thumbnails, val, train)),
            channels=shapes[first][0],
            channel_names=contents.origin.channel_names,
            dtype=" and ".join(sorted({dataset.dtype(name) for name in names})),
            smallest=sizes[0],
            largest=max(sizes, key=lambda size: size[0] * size[1]),
            pixels=sum(shapes[name][1] * shapes[name][2] for name in train),
            classes=sums.largest + 1,
            class_names=tuple(contents.provenance.get("classes", ())),
            foreground=sums.foreground / max(1, sums.labelled),
            empty=sums.empty,
            cells=count or len(sums.diameters),
            has_ids=count > 0,
            has_whole_cell=sums.whole_cell,
            diameter_px=float(np.median(sums.diameters)) if sums.diameters else 0.0,
            diameters_px=_most(sums.diameters),
            longest_px=max((image.longest_px for image in sums.cells), default=0),
            touching=sum(image.touching for image in sums.cells) / max(1, count),
            range=(min(low for low, _ in sums.ranges), max(high for _, high in sums.ranges)),
            contrast_ratio=max(spreads) / min(spreads) if spreads else 1.0,
            pretrained_f1=f1_of_pretrained(dataset, train) if count and train and shapes[first][0] == 1 else None,
            brighter=signs.count(1),
            darker=signs.count(-1),
        )


def f1_of_pretrained(dataset: Hdf5, names: Sequence[str]) -> float | None:
    """The F1 score, at an IoU of at least 0.51, of the pretrained weights on parts of some images that have ids.

    A part lies about the median place of the cells; None if there is no cell.
    """
    predictor = load_predictor(pretrained.located(Path("yeast"), starters.folder()), device="cpu")
    # Compared with a threshold far away: more views would take eight times as long to tell the same.
    predictor.task.views = 1
    tables = []
    for index in np.unique(np.linspace(0, len(names) - 1, TRIED).round().astype(int)):
        sample = dataset.read(names[index])
        if (
            "instances" not in sample.maps
            or not ((ids := annotated_cells(sample.maps["instances"], sample.labels)) > 0).any()
        ):
            continue
        middle = np.median(np.argwhere(ids.numpy() > 0), axis=0).astype(int)
        rows, columns = (slice(max(0, place - TRIED_PX // 2), place + TRIED_PX // 2) for place in middle)
        part = Sample(sample.image[:, rows, columns], sample.labels[rows, columns], sample.name)
        predicted = predictor.predict(part).instances
        assert predicted is not None, "the weights tell cells apart"
        tables.append(overlap(ids[rows, columns].numpy(), predicted.numpy()))
    return f1(tables) if any(len(table.true_ids) for table in tables) else None


def _most(diameters: Sequence[float]) -> tuple[float, float]:
    """The 5th and the 95th percentile; zeros without cells."""
    low, high = np.percentile(diameters, (5, 95)) if diameters else (0.0, 0.0)
    return float(low), float(high)


def _agreed(signs: Sequence[int]) -> int:
    """The sign of all channels that are not 0, or 0 if they disagree."""
    clear = {sign for sign in signs if sign}
    return clear.pop() if len(clear) == 1 else 0


def polarity(sample: Sample, diameter_px: float) -> list[int]:
    """By channel: 1 if cells are brighter than a ring around them, -1 if darker, 0 if neither is clear."""
    # A ring and not the whole background: far from cells there may be vignetting or other structure.
    inside = sample.labels.numpy() > 0
    away = min(RING_PX, max(1, round(RING_SHARE * diameter_px)))
    ring = ndimage.binary_dilation(inside, iterations=away) & (sample.labels.numpy() == 0)
    if not inside.any() or not ring.any():
        return [0] * len(sample.image)
    return list(_signs(sample.image.numpy(), inside, ring))


def _signs(image: npt.NDArray[Any], inside: npt.NDArray[Any], ring: npt.NDArray[Any]) -> Iterator[int]:
    for channel in image.astype(np.float64):
        difference = channel[inside].mean() - channel[ring].mean()
        yield int(np.sign(difference)) if abs(difference) > CLEAR * channel.std() else 0
