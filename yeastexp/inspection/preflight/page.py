"""A preflight as a page for people, and as figures for scripts."""

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
from yeastexp.inspection.preflight.intensity_rules import CLIPPED
from yeastexp.inspection.preflight.statistics import Figures
from yeastexp.system.formatting import format_count, format_number, format_share

WIDTH = 118
INDENT = 9
MOST_ROWS = 40
"""Images with a row each; more are summarised by split."""

HEADINGS = ("split", "image", "stored", "lowest", "highest", "at highest", "size", "foreground", "no truth")
RIGHT_FROM = 3


def lines(done: Preflight) -> Iterator[str]:
    """The page: what was found, the worst first, what was tried, and a table of the images."""
    images = done.images
    counts = ", ".join(f"{count} {split}" for split, count in done.splits.items())
    found = ", ".join(format_count(done.count(severity), severity) for severity in SEVERITIES)
    yield f"{done.experiment.name}: {format_count(sum(done.splits.values()), 'image')} ({counts}); {found}"
    for finding in done.findings:
        yield ""
        yield from _finding(finding)
    if tried := list(_tried(done)):
        yield ""
        yield from tried
    if images:
        yield ""
        yield from _table(_rows(images) if len(images) <= MOST_ROWS else _summary(images))


def _finding(finding: Finding) -> Iterator[str]:
    images = f" [{named(finding.images)}]" if finding.images and not _names_some(finding) else ""
    yield from _wrapped(finding.severity, f"{finding.about}: {finding.what}{images}")
    end = "" if finding.remedy.endswith("?") else "."
    yield from _wrapped("", f"{finding.why}; {finding.remedy}{end}")


def _names_some(finding: Finding) -> bool:
    return any(name in finding.what for name in finding.images)


def _wrapped(label: str, text: str) -> list[str]:
    first, later = f"{label:<{INDENT}}", " " * INDENT
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _tried(done: Preflight) -> Iterator[str]:
    if done.carried:
        far = max((one for some in done.carried for one in some.distances), default=0.0)
        spots = sum(len(some.distances) for some in done.carried)
        names = ", ".join(some.name for some in done.carried)
        step = "stay in step" if far <= TOLERANCE_PX else "come apart"
        yield from _wrapped(
            "moved",
            f"image and labels {step} under {names}: {format_count(spots, 'spot')} painted on both came out at most "
            f"{far:.1f} px apart",
        )
    if (learnt := done.overfit) and learnt.near_zero:
        yield from _wrapped(
            "learnt",
            f"{format_count(learnt.windows, 'window')} by heart in {format_count(len(learnt.losses), 'step')}: loss "
            f"{learnt.losses[0]:.3g} to {learnt.losses[-1]:.3g} ({format_share(max(learnt.left, 0.0))} of what the "
            f"best constant answer loses), mean IoU {learnt.iou:.2f}, accuracy {learnt.accuracy:.2f}",
        )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns that are empty everywhere but in the heading are left out."""
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in kept}
    for row in rows:
        cells = (
            row[column].rjust(widths[column]) if column >= RIGHT_FROM else row[column].ljust(widths[column])
            for column in kept
        )
        yield "  ".join(cells).rstrip()


def _rows(images: Sequence[Figures]) -> list[Sequence[str]]:
    return [HEADINGS, *map(_row, images)]


def _row(one: Figures) -> Sequence[str]:
    channels = f"{one.shape[0]} × " if one.shape[0] > 1 else ""
    return (
        one.split,
        one.name,
        one.dtype or "",
        format_number(one.low),
        format_number(one.high),
        format_share(one.at_high) if one.at_high >= CLIPPED else "",
        f"{channels}{one.shape[1]} × {one.shape[2]}",
        "empty" if one.foreground == 0 else "" if one.foreground is None else format_share(one.foreground),
        format_share(one.ignored) if one.ignored else "",
    )


def _summary(images: Sequence[Figures]) -> list[Sequence[str]]:
    """A row for each split: what its images span."""
    rows: list[Sequence[str]] = [HEADINGS]
    for split in dict.fromkeys(one.split for one in images):
        some = [one for one in images if one.split == split]
        areas = [one.foreground for one in some if one.foreground is not None]
        empty = sum(one == 0 for one in areas)
        sizes = sorted({one.shape[1:] for one in some}, key=lambda size: size[0] * size[1])
        spans = dict.fromkeys(f"{height} × {width}" for height, width in (sizes[0], sizes[-1]))
        rows.append(
            (
                split,
                format_count(len(some), "image"),
                ", ".join(sorted({one.dtype for one in some if one.dtype})),
                format_number(min(one.low for one in some)),
                format_number(max(one.high for one in some)),
                format_share(most) if (most := max(one.at_high for one in some)) >= CLIPPED else "",
                " to ".join(spans),
                f"{format_share(float(np.median(areas)))} (median)" + (f", {empty} empty" if empty else "")
                if areas
                else "",
                format_share(max(one.ignored for one in some)) if any(one.ignored for one in some) else "",
            )
        )
    return rows


def as_json(done: Preflight) -> dict[str, Any]:
    """Everything, for scripts."""
    return {
        "name": done.experiment.name,
        "counts": {f"{severity}s": done.count(severity) for severity in SEVERITIES},
        "findings": [dataclasses.asdict(finding) for finding in done.findings],
        "carried": [
            {
                "table": one.table,
                "name": one.name,
                "compared": len(one.distances),
                "apart": len(one.apart),
                "largest_px": max(one.distances, default=None),
                "repeatable": one.repeatable,
            }
            for one in done.carried
        ],
        "overfit": _overfit_json(done),
        "images": [_image_json(one) for one in done.images],
    }


def _overfit_json(done: Preflight) -> dict[str, Any] | None:
    learnt = done.overfit
    if learnt is None:
        return None
    return {
        "windows": learnt.windows,
        "steps": len(learnt.losses),
        "first_loss": learnt.losses[0] if learnt.losses else None,
        "last_loss": learnt.losses[-1] if learnt.losses else None,
        "constant_answer_loss": learnt.constant if math.isfinite(learnt.constant) else None,
        "least_loss": learnt.least if math.isfinite(learnt.least) else None,
        "near_zero": learnt.near_zero,
        "mean_iou": learnt.iou,
        "accuracy": learnt.accuracy,
    }


def _image_json(one: Figures) -> dict[str, Any]:
    return {
        "image": one.name,
        "split": one.split,
        "dtype": one.dtype,
        "shape": one.shape,
        "low": one.low,
        "high": one.high,
        "std": one.std,
        "at_low": one.at_low,
        "at_high": one.at_high,
        "labels": {str(label): count for label, count in one.counts.items()},
        "foreground": one.foreground,
        "no_truth": one.ignored,
        "connected_pieces": one.pieces,
    }
