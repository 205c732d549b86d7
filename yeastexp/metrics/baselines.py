"""Baselines, predictions that need no learning: all background, and a fitted threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.sample import IGNORE, Sample, channel_mean

Baseline = Callable[[Tensor], Tensor]
"""From an image (C, H, W) to class indices (H, W)."""

LARGEST_FIT = 1_000_000
"""Pixels that the threshold is fitted on, in whole training images that are spread over the list."""

SMOOTHINGS_PX = (0.0, 1.0, 2.0, 4.0)
LEVELS = np.linspace(-3, 3, 61)
EROSIONS_PX = (0, 1, 2, 3)


@dataclass(frozen=True)
class Majority:
    """Predicts one class everywhere: the commonest of the training images."""

    label: int

    def __call__(self, image: Tensor) -> Tensor:
        return torch.full(image.shape[-2:], self.label)


@dataclass(frozen=True)
class Threshold:
    """Predicts class 1 where a smoothed image exceeds (or falls below) its mean by `level` standard deviations.

    If `filled`, enclosed background is added; then the mask is eroded by `erosion_px`. Several channels are averaged,
    each standardised on its own.
    """

    smoothing_px: float
    bright: bool
    level: float
    filled: bool = False
    erosion_px: int = 0

    def __call__(self, image: Tensor) -> Tensor:
        mask = self.mask(smoothed(image.cpu().numpy(), self.smoothing_px))
        return torch.from_numpy(mask.astype(np.int64))

    def mask(self, standard: np.ndarray) -> np.ndarray:
        """The foreground (H, W) of a smoothed, standardised image."""
        mask = standard > self.level if self.bright else standard < -self.level
        if self.filled:
            mask = _filled(mask)
        if self.erosion_px:
            mask = ndimage.binary_erosion(mask, iterations=self.erosion_px, border_value=1)
        return mask


def smoothed(image: np.ndarray, smoothing_px: float) -> np.ndarray:
    """The mean of the channels (H, W), smoothed by a Gaussian, with zero mean and unit standard deviation."""
    grey = channel_mean(image)
    if smoothing_px:
        grey = ndimage.gaussian_filter(grey, smoothing_px)
    return np.asarray((grey - grey.mean()) / max(grey.std(), 1e-12))


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask (H, W) with its holes: background regions that do not reach the border of the image."""
    # scipy.ndimage.binary_fill_holes gives the same mask but takes over four times as long.
    regions, count = ndimage.label(~mask)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    open_regions = np.zeros(count + 1, dtype=bool)
    open_regions[border] = True
    open_regions[0] = False
    return np.asarray(~open_regions[regions])


def fit(samples: Iterable[Sample], classes: Sequence[str], constant: int | None = None) -> dict[str, Baseline]:
    """The baselines of a training split by name: one class everywhere, and a threshold if there are two classes.

    That one class is `constant` if given, else the commonest.
    """
    training = list(samples)
    counts = sum(torch.bincount(sample.labels[sample.labels != IGNORE], minlength=len(classes)) for sample in training)
    label = int(torch.as_tensor(counts).argmax()) if constant is None else constant
    baselines: dict[str, Baseline] = {f"all {classes[label]}": Majority(label)}
    if len(classes) == 2:
        baselines["threshold"] = fit_threshold(training)
    return baselines


def fit_threshold(samples: Sequence[Sample]) -> Threshold:
    """The threshold with the best mean foreground IoU on the training images, unlabelled pixels left out.

    All smoothings, polarities and levels are tried without filling. With filling, every fourth level is tried for the
    two best smoothings of each polarity. Erosions, then the levels around, are tried for the best of all these.
    """
    # A search of all combinations would take an image operation for each of some 4000. Without filling or erosion a
    # pixel is decided alone, so that sorted pixels give the IoU of all levels at once; the rest needs whole masks.
    chosen = _subset(samples)
    labels = [((sample.labels == 1).numpy(), (sample.labels == 0).numpy()) for sample in chosen]
    smooth = {sigma: [smoothed(sample.image.numpy(), sigma) for sample in chosen] for sigma in SMOOTHINGS_PX}

    def score(threshold: Threshold) -> float:
        masks = (threshold.mask(image) for image in smooth[threshold.smoothing_px])
        return float(np.mean([_iou(mask, *known) for mask, known in zip(masks, labels, strict=True)]))

    plain = [_plain_best(smooth[sigma], labels, sigma, bright) for sigma in SMOOTHINGS_PX for bright in (True, False)]
    plain.sort(key=lambda pair: pair[0], reverse=True)
    # A smoothing that is best without filling need not be best with it, so that the second best is tried as well; nor
    # need the polarity be, as cells with a bright rim and a dark centre are found by filling the rim.
    candidates = [plain[0][1]]
    for bright in (True, False):
        for _, threshold in [pair for pair in plain if pair[1].bright is bright][:2]:
            candidates += [replace(threshold, level=float(level), filled=True) for level in LEVELS[4:-4:4]]
    # `max` keeps the first of equals: the plain mask, and the smallest erosion.
    best = max(candidates, key=score)
    best = max((replace(best, erosion_px=erosion) for erosion in EROSIONS_PX), key=score)
    return max((replace(best, level=best.level + 0.1 * step) for step in range(-3, 4)), key=score)


def _subset(samples: Sequence[Sample]) -> list[Sample]:
    """Samples with cells (all, if none has any), spread over the list so that they hold about LARGEST_FIT pixels."""
    with_cells = [sample for sample in samples if bool((sample.labels == 1).any())] or list(samples)
    pixels = sum(sample.labels.numel() for sample in with_cells)
    return with_cells[:: max(1, -(-pixels // LARGEST_FIT))]


def _iou(mask: np.ndarray, cell: np.ndarray, background: np.ndarray) -> float:
    # The union is counted from known background: predicted pixels without a label are no false positives.
    either = np.count_nonzero(cell) + np.count_nonzero(mask & background)
    return np.count_nonzero(mask & cell) / either if either else 1.0


def _plain_best(
    images: Sequence[np.ndarray], labels: Sequence[tuple[np.ndarray, np.ndarray]], sigma: float, bright: bool
) -> tuple[float, Threshold]:
    """The best level without filling or erosion, preceded by its mean foreground IoU."""
    scores = np.zeros(len(LEVELS))
    for image, known in zip(images, labels, strict=True):
        scores += list(_ious(image if bright else -image, *known))
    best = int(scores.argmax())
    return scores[best] / len(images), Threshold(sigma, bright, float(LEVELS[best]))


def _ious(image: np.ndarray, cell: np.ndarray, background: np.ndarray) -> Iterator[float]:
    """The foreground IoU of the pixels above each of `LEVELS`."""
    inside = np.sort(image[cell])
    outside = np.sort(image[background])
    for level in LEVELS:
        hits = len(inside) - np.searchsorted(inside, level, side="right")
        false_positives = len(outside) - np.searchsorted(outside, level, side="right")
        yield hits / max(len(inside) + false_positives, 1)
