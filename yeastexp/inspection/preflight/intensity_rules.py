"""Rules on the pixel values of all images; each yields its findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from yeastexp.inspection.preflight.finding import Finding, Severity, of_images
from yeastexp.inspection.preflight.statistics import ImageStatistics, ModelInput, Statistics, names, ratio
from yeastexp.system.formatting import format_count, format_number, format_share

SATURATED, CLIPPED = 0.01, 0.001
"""The shares of pixels at the highest value from which there is a warning, and a note."""

PADDED = 0.05
"""The share of pixels at the lowest value from which there is a note."""

MIN_LEVELS = 16
"""The number of grey levels below which faint outlines are lost."""

MAX_CONTRAST_RATIO = 3.0
"""The ratio of the standard deviations of images up to which they count as alike."""

STANDARD = (0.05, 10.0)
"""The standard deviations of the model's input between which training works well; means stay below the second."""


def constant_images(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Images with one value, or with such a channel."""
    if constant := [image for image in images if image.constant]:
        what, why = " have one value everywhere (in a channel)", "They contain no information there"
        severity: Severity = "error" if all(image.low == image.high for image in images) else "warning"
        yield of_images(severity, "constant images", constant, images, what, why, "export them again, or omit them")


def saturation(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Many pixels at the highest or the lowest value."""
    clipped = [image for image in images if image.at_high >= CLIPPED and not image.constant]
    saturated = [image for image in clipped if image.at_high >= SATURATED]
    if clipped:
        most = max(clipped, key=lambda image: image.at_high)
        yield of_images(
            "warning" if saturated else "note",
            "saturated pixels",
            saturated or clipped,
            images,
            f": up to {format_share(most.at_high)} of the pixels have the highest value, {format_number(most.high)}",
            "Structure brighter than the camera or the export could represent is lost",
            "expose shorter, or export again without stretching the contrast; a few bright specks do no harm",
        )
    if padded := [image for image in images if image.at_low >= PADDED and not image.constant]:
        most = max(padded, key=lambda image: image.at_low)
        yield of_images(
            "note",
            "many pixels at the lowest value",
            padded,
            images,
            f": up to {format_share(most.at_low)} of the pixels are exactly {format_number(most.low)}",
            "Black borders and clipped shadows do that, and they shift the statistics of a normalisation",
            "crop black borders ([[transform]] crop, or label them -1); clipped shadows need a new recording",
        )


def few_levels(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Integer images with few grey levels."""
    integers = [image for image in images if image.dtype is not None and not image.dtype.startswith("float")]
    if coarse := [image for image in integers if not image.constant and image.high - image.low < MIN_LEVELS]:
        least = min(coarse, key=lambda image: image.high - image.low)
        yield of_images(
            "warning",
            "few grey levels",
            coarse,
            images,
            f": values from {format_number(least.low)} to {format_number(least.high)} at the least",
            f"With fewer than {MIN_LEVELS} levels, faint outlines are lost",
            "convert the raw files again, stretched before they become 8-bit; or are they masks?",
        )


def value_ranges(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Images that differ in range before or after the transforms, and model inputs that are not standardized."""
    varied = [image for image in images if not image.constant]
    if not varied:
        return
    inputs = [(image, image.model_input) for image in varied if image.model_input]
    stored = ratio([image.std for image in varied])
    transformed = ratio([given.std for _, given in inputs])
    low, high = min(varied, key=lambda image: image.std), max(varied, key=lambda image: image.std)
    ranges = " to ".join(f"{format_number(one.low)} – {format_number(one.high)} ({one.name})" for one in (low, high))
    if transformed > MAX_CONTRAST_RATIO:
        # Named are the images outside a range around the median whose ends differ by the ratio that is tolerated.
        median, limit = float(np.median([given.std for _, given in inputs])), MAX_CONTRAST_RATIO**0.5
        yield Finding(
            "warning",
            "inconsistent value ranges",
            f"after all transforms the contrast differs by a factor of {transformed:.0f}; stored ranges: from {ranges}",
            "A model trained on one range does not generalise to another",
            'normalise each image by itself: [[transform]] zscore with per = "image", or percentile',
            tuple(image.name for image, given in inputs if not median / limit <= given.std <= median * limit),
        )
    elif stored > MAX_CONTRAST_RATIO and inputs:
        yield Finding(
            "note",
            "value ranges normalised",
            f"stored ranges: from {ranges}; after the transforms the contrast differs by a factor of {transformed:.1f}",
            "The transforms compensate for it",
            "check that each split has images of both kinds",
        )
    yield from _unstandardized(inputs)


def _unstandardized(inputs: Sequence[tuple[ImageStatistics, ModelInput]]) -> Iterator[Finding]:
    low, high = STANDARD
    unusual = [
        (image, mean, std)
        for image, given in inputs
        for mean, std in given.channels
        if abs(mean) > high or not low <= std <= high
    ]
    if unusual:
        _, mean, std = max(unusual, key=lambda worst: abs(worst[1]) + worst[2])
        yield of_images(
            "warning",
            "values not standardized",
            list({image.name: image for image, _, _ in unusual}.values()),
            [image for image, _ in inputs],
            f": values of {format_number(round(mean, 3))} ± {format_number(round(std, 3))} as model input",
            "Models train best on values of about 0 ± 1, for which the defaults of augmentations are meant",
            "add [[transform]] zscore as the first",
        )


def mixed_types(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Images stored in several types."""
    by_type: dict[str, list[ImageStatistics]] = defaultdict(list)
    for image in images:
        by_type[image.dtype or "unknown"].append(image)
    if len(by_type) > 1:
        yield Finding(
            "note",
            "mixed types",
            ", ".join(f"{dtype}: {format_count(len(group), 'image')}" for dtype, group in sorted(by_type.items())),
            "Some images may have lost grey levels in a conversion, which a model can recognise",
            "export all in one type, the one with the most bits",
            names(min(by_type.values(), key=len)),
        )
