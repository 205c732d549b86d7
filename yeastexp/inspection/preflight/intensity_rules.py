"""What the values of all images say together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from yeastexp.inspection.preflight.dataset_rules import Every, names_of, out_of, spread
from yeastexp.inspection.preflight.finding import Finding, Severity
from yeastexp.inspection.preflight.statistics import Figures
from yeastexp.system.formatting import format_count, format_number, format_share

SATURATED, CLIPPED = 0.01, 0.001
"""Shares of pixels at the highest value that are worth a warning, and a note."""

PADDED = 0.05
"""Share of pixels at the lowest value that are worth a note."""

FEW_LEVELS = 16
"""Grey values below which outlines are steps."""

EVEN = 3.0
"""The factor between standard deviations of images that is nothing unusual."""

STANDARD = (0.05, 10.0)
"""Standard deviations of what a model sees between which it learns as it is meant to; means stay below the second."""


def constant_images(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images of one value, or with such a channel."""
    if flat := [one for one in every if one.constant]:
        yield Finding(
            "error",
            "constant images",
            f"{out_of(flat, every)} hold one value everywhere (in a channel)",
            "There is nothing to be seen in them",
            "export them anew, or leave them out",
            names_of(flat),
        )


def saturation(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Pixels that pile up at the highest or the lowest value."""
    piled = [one for one in every if one.at_high >= CLIPPED and not one.constant]
    if strong := [one for one in piled if one.at_high >= SATURATED]:
        yield _saturated("warning", strong, every)
    elif piled:
        yield _saturated("note", piled, every)
    if padded := [one for one in every if one.at_low >= PADDED and not one.constant]:
        most = max(padded, key=lambda one: one.at_low)
        yield Finding(
            "note",
            "many pixels at the lowest value",
            f"{out_of(padded, every)}: up to {format_share(most.at_low)} of the pixels are exactly "
            f"{format_number(most.low)}",
            "Borders filled with black and clipped shadows look so, and shift what a normalisation measures",
            "cut black borders off ([[transform]] crop, or label them -1); clipped shadows need a new recording",
            names_of(padded),
        )


def _saturated(severity: Severity, some: Every, every: Every) -> Finding:
    most = max(some, key=lambda one: one.at_high)
    return Finding(
        severity,
        "saturated pixels",
        f"{out_of(some, every)}: up to {format_share(most.at_high)} of the pixels have the highest value, "
        f"{format_number(most.high)}",
        "What is brighter than the camera or the export could hold has lost its structure",
        "expose shorter, or export again without stretching the contrast; a few bright specks do no harm",
        names_of(some),
    )


def few_levels(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images of hardly any grey values."""
    coarse = [
        one
        for one in every
        if one.dtype is not None
        and not one.dtype.startswith("float")
        and not one.constant
        and one.high - one.low < FEW_LEVELS
    ]
    if coarse:
        least = min(coarse, key=lambda one: one.high - one.low)
        yield Finding(
            "warning",
            "few grey values",
            f"{out_of(coarse, every)}: values from {format_number(least.low)} to {format_number(least.high)} at the "
            "least",
            f"With fewer than {FEW_LEVELS} steps, faint outlines are gone",
            "convert the raw files again, stretched before they become 8-bit; or are they masks?",
            names_of(coarse),
        )


def value_ranges(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images unlike the others in range, before and after the transforms; and what the model then sees."""
    varied = [one for one in every if not one.constant]
    if not varied:
        return
    stored = spread([one.std for one in varied])
    seen = [(one, one.seen) for one in varied if one.seen]
    kept = spread([found.std for _, found in seen])
    low, high = min(varied, key=lambda one: one.std), max(varied, key=lambda one: one.std)
    ranges = (
        f"from {format_number(low.low)} – {format_number(low.high)} ({low.name}) to "
        f"{format_number(high.low)} – {format_number(high.high)} "
        f"({high.name})"
    )
    if kept > EVEN:
        odd = _unlike([(one.name, found.std) for one, found in seen])
        yield Finding(
            "warning",
            "uneven value ranges",
            f"after all transforms contrast differs by a factor of {kept:.0f}; stored values go {ranges}",
            "A model trained on one range sees nothing in another",
            'normalise each image by itself: [[transform]] zscore with per = "image", or percentile',
            odd,
        )
    elif stored > EVEN and seen:
        yield Finding(
            "note",
            "value ranges evened out",
            f"stored values go {ranges}; after the transforms contrast differs by a factor of {kept:.1f}",
            "The transforms take care of it",
            "look whether images of both kinds are in each split",
        )
    yield from _unscaled([(one, found.mean, found.std) for one, found in seen])


def _unlike(deviations: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """The names of those far from the median."""
    median = float(np.median([one for _, one in deviations]))
    limit = EVEN**0.5
    return tuple(name for name, one in deviations if not median / limit <= one <= median * limit)


def _unscaled(seen: Sequence[tuple[Figures, float, float]]) -> Iterator[Finding]:
    low, high = STANDARD
    odd = [(one, mean, std) for one, mean, std in seen if abs(mean) > high or not low <= std <= high]
    if odd:
        _, mean, std = max(odd, key=lambda entry: abs(entry[1]) + entry[2])
        yield Finding(
            "warning",
            "values far from standard",
            f"the model sees values of {format_number(round(mean, 3))} ± {format_number(round(std, 3))} in "
            f"{out_of([one for one, _, _ in odd], [one for one, _, _ in seen])}",
            "Models start and learn best on values about 0 ± 1, and augmentations are set for these",
            "add [[transform]] zscore as the first",
            names_of([one for one, _, _ in odd]),
        )


def mixed_types(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images stored in several types."""
    by_type: dict[str, list[Figures]] = defaultdict(list)
    for one in every:
        by_type[one.dtype or "unknown"].append(one)
    if len(by_type) > 1:
        rarest = min(by_type.values(), key=len)
        yield Finding(
            "note",
            "mixed types",
            ", ".join(f"{dtype}: {format_count(len(some), 'image')}" for dtype, some in sorted(by_type.items())),
            "Some images may have lost grey values on the way, which a model can tell apart",
            "export all in one type, the deepest there is",
            names_of(rarest),
        )
