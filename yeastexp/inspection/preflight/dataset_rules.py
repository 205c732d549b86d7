"""The figures of all images, and how rules speak of some of them."""

from __future__ import annotations

from collections.abc import Sequence

from yeastexp.inspection.preflight.statistics import Figures
from yeastexp.system.formatting import format_count

Every = Sequence[Figures]
"""Of all images of a data set."""


def names_of(some: Every) -> tuple[str, ...]:
    """Of the images."""
    return tuple(one.name for one in some)


def of_split(every: Every, split: str) -> list[Figures]:
    """Those in a split."""
    return [one for one in every if one.split == split]


def out_of(some: Every, every: Every) -> str:
    """How many of all, as '3 of 18 images'."""
    return f"{len(some)} of {format_count(len(every), 'image')}"


def spread(figures: Sequence[float]) -> float:
    """The factor between the largest and the smallest figure above 0."""
    kept = [one for one in figures if one > 0]
    return max(kept) / min(kept) if kept else 1.0
