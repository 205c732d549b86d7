"""Cells as sets of pixels, and small label images of them: what metrics of cells are compared with."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from yeastexp.metrics.matching import Labels

Cells = dict[int, set[tuple[int, int]]]
Pairs = dict[tuple[int, int], Fraction]


def cells(labels: Labels, truth: Labels) -> Cells:
    """The labelled pixels of each cell."""
    known = [tuple(map(int, place)) for place in np.argwhere((labels > 0) & (truth >= 0))]
    return {int(labels[at]): {place for place in known if labels[place] == labels[at]} for at in known}


def ious(truth: Labels, predicted: Labels) -> Pairs:
    """The IoU of all pairs that share a pixel, as fractions."""
    true, found = cells(truth, truth), cells(predicted, truth)
    shares = {(a, b): Fraction(len(true[a] & found[b]), len(true[a] | found[b])) for a in true for b in found}
    return {pair: iou for pair, iou in shares.items() if iou}


def best(pairs: Pairs, least: Fraction) -> tuple[int, Fraction]:
    """The most matches and then the largest sum of IoUs, by trying every way to give each true cell a partner."""
    allowed = {pair: iou for pair, iou in pairs.items() if iou >= least}
    # The cells that are taken, with the best number and sum that use just those.
    ways: dict[frozenset[int], tuple[int, Fraction]] = {frozenset(): (0, Fraction(0))}
    for cell in {true for true, _ in allowed}:
        for taken, (number, total) in list(ways.items()):
            for (true, found), iou in allowed.items():
                if true == cell and found not in taken:
                    more = taken | {found}
                    ways[more] = max(ways.get(more, (0, Fraction(0))), (number + 1, total + iou))
    return max(ways.values())


def scene(seed: int) -> tuple[Labels, Labels]:
    """Small label images: speckled, blocky or shifted ones, with unlabelled pixels in a third of them."""
    source = np.random.default_rng(seed)
    height, width = source.integers(1, 13, 2)
    ids = int(source.integers(1, 8))
    truth = np.kron(source.integers(0, ids, (7, 7)), np.ones(source.integers(1, 4, 2), np.int64))[:height, :width]
    noise = source.integers(0, ids, truth.shape)
    predicted = np.where(source.random(truth.shape) < source.choice([0.05, 0.3, 1.0]), noise, truth)
    if seed % 2:
        predicted = np.roll(predicted, 1, axis=1)
    if seed % 3 == 0:
        truth = np.where(source.random(truth.shape) < 0.2, -1, truth)
    return truth, source.permutation(1000)[predicted] * (predicted > 0)  # ids that the truth does not have
