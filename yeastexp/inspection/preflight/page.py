"""A preflight as text for people, and as JSON for scripts."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from yeastexp.inspection.preflight.alignment import TOLERANCE_PX
from yeastexp.inspection.preflight.checks import Preflight
from yeastexp.inspection.preflight.finding import SEVERITIES, Finding, named
from yeastexp.inspection.preflight.instance_rules import cells_line
from yeastexp.inspection.preflight.intensity_rules import CLIPPED
from yeastexp.inspection.preflight.statistics import ImageStatistics, Statistics, in_split
from yeastexp.system.formatting import format_count, format_number, format_share

WIDTH = 118
INDENT = 9
MAX_ROWS = 40
"""The most images with a row each; more are summarised by split."""

HEADINGS = ("split", "image", "stored", "lowest", "highest", "at highest", "size", "foreground", "unlabelled")
RIGHT_FROM = 3
"""The first column that is aligned to the right."""


def lines(result: Preflight) -> Iterator[str]:
    """The preflight as lines of text: findings, the worst first, what was tried, and a table of the images."""
    counts = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    severities = ", ".join(format_count(result.count(severity), severity) for severity in SEVERITIES)
    yield f"{result.experiment.name}: {format_count(sum(result.splits.values()), 'image')} ({counts}); {severities}"
    for finding in result.findings:
        yield ""
        yield from finding_lines(finding)
    if told := [image for image in result.images if image.instances]:
        yield ""
        yield from _wrapped("cells", cells_line(told))
    if tried := list(_tried(result)):
        yield ""
        yield from tried
    if images := result.images:
        yield ""
        yield from _table(list(map(_row, images)) if len(images) <= MAX_ROWS else list(_summary(images)))


def finding_lines(finding: Finding) -> Iterator[str]:
    """A finding with its images and its remedy."""
    names_some = any(name in finding.what for name in finding.images)
    images = f" [{named(finding.images)}]" if finding.images and not names_some else ""
    yield from _wrapped(finding.severity, f"{finding.about}: {finding.what}{images}")
    end = "" if finding.remedy.endswith("?") else "."
    yield from _wrapped("", f"{finding.why}; {finding.remedy}{end}")


def _wrapped(label: str, text: str) -> list[str]:
    first, later = f"{label:<{INDENT}}", " " * INDENT
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _tried(result: Preflight) -> Iterator[str]:
    if result.alignment:
        distances = [distance for alignment in result.alignment for distance in alignment.distances]
        farthest = max(distances, default=0.0)
        names = ", ".join(alignment.name for alignment in result.alignment)
        aligned = "aligned" if farthest <= TOLERANCE_PX else "misaligned"
        yield from _wrapped(
            "aligned",
            f"image and labels are {aligned} under {names}: {format_count(len(distances), 'disc')} painted on both "
            f"came out at most {farthest:.1f} px apart",
        )
    if (overfit := result.overfit) and overfit.fitted:
        yield from _wrapped(
            "overfit",
            f"a batch of {overfit.patches} in {format_count(len(overfit.losses), 'step')}: loss "
            f"{overfit.losses[0]:.3g} to {overfit.losses[-1]:.3g} ({format_share(max(overfit.left, 0.0))} of that of "
            f"the best constant prediction), mean IoU {overfit.iou:.2f}, accuracy {overfit.accuracy:.2f}",
        )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows below headings, without the columns that are empty in all rows."""
    kept = [column for column in range(len(HEADINGS)) if any(row[column] for row in rows)]
    widths = {column: max(len(row[column]) for row in [HEADINGS, *rows]) for column in kept}
    for row in [HEADINGS, *rows]:
        cells = (
            row[column].rjust(widths[column]) if column >= RIGHT_FROM else row[column].ljust(widths[column])
            for column in kept
        )
        yield "  ".join(cells).rstrip()


def _row(image: ImageStatistics) -> Sequence[str]:
    channels = f"{image.shape[0]} × " if image.shape[0] > 1 else ""
    return (
        image.split,
        image.name,
        image.dtype or "",
        format_number(image.low),
        format_number(image.high),
        format_share(image.at_high) if image.at_high >= CLIPPED else "",
        f"{channels}{image.shape[1]} × {image.shape[2]}",
        "empty" if image.foreground == 0 else "" if image.foreground is None else format_share(image.foreground),
        format_share(image.unlabelled_share) if image.unlabelled_share else "",
    )


def _summary(images: Statistics) -> Iterator[Sequence[str]]:
    """The ranges of each split, in a row."""
    for split in dict.fromkeys(image.split for image in images):
        members = in_split(images, split)
        foreground = [image.foreground for image in members if image.foreground is not None]
        median = f"{format_share(float(np.median(foreground)))} (median)" if foreground else ""
        empty = sum(share == 0 for share in foreground)
        sizes = sorted({image.shape[1:] for image in members}, key=lambda size: size[0] * size[1])
        at_high = max(image.at_high for image in members)
        unlabelled = max(image.unlabelled_share for image in members)
        yield (
            split,
            format_count(len(members), "image"),
            ", ".join(sorted({image.dtype for image in members if image.dtype})),
            format_number(min(image.low for image in members)),
            format_number(max(image.high for image in members)),
            format_share(at_high) if at_high >= CLIPPED else "",
            " to ".join(dict.fromkeys(f"{height} × {width}" for height, width in (sizes[0], sizes[-1]))),
            f"{median}, {empty} empty" if empty else median,
            format_share(unlabelled) if unlabelled else "",
        )


def as_json(result: Preflight) -> dict[str, Any]:
    """The preflight as plain values for scripts."""
    return {
        "name": result.experiment.name,
        "counts": {f"{severity}s": result.count(severity) for severity in SEVERITIES},
        "findings": [dataclasses.asdict(finding) for finding in result.findings],
        "alignment": [
            {
                "table": alignment.table,
                "name": alignment.name,
                "compared": len(alignment.distances),
                "apart": len(alignment.apart),
                "largest_px": max(alignment.distances, default=None),
                "repeatable": alignment.repeatable,
            }
            for alignment in result.alignment
        ],
        "overfit": _overfit_json(result),
        "images": [_image_json(image) for image in result.images],
    }


def _overfit_json(result: Preflight) -> dict[str, Any] | None:
    overfit = result.overfit
    if overfit is None:
        return None
    return {
        "patches": overfit.patches,
        "steps": len(overfit.losses),
        "first_loss": overfit.losses[0] if overfit.losses else None,
        "last_loss": overfit.losses[-1] if overfit.losses else None,
        "constant_prediction_loss": overfit.constant if math.isfinite(overfit.constant) else None,
        "minimum_loss": overfit.minimum if math.isfinite(overfit.minimum) else None,
        "fitted": overfit.fitted,
        "mean_iou": overfit.iou,
        "accuracy": overfit.accuracy,
    }


def _image_json(image: ImageStatistics) -> dict[str, Any]:
    return {
        "image": image.name,
        "split": image.split,
        "dtype": image.dtype,
        "shape": image.shape,
        "low": image.low,
        "high": image.high,
        "std": image.std,
        "at_low": image.at_low,
        "at_high": image.at_high,
        "labels": {str(label): count for label, count in image.counts.items()},
        "foreground": image.foreground,
        "unlabelled": image.unlabelled_share,
        "connected_components": image.components,
        "cells": image.instances and dataclasses.asdict(image.instances),
    }
