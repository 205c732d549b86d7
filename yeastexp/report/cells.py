"""Blocks on cells: their numbers and sizes, and pictures of those that are segmented wrongly."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from yeastexp.config.experiment import Experiment
from yeastexp.drawing import pictures, plots
from yeastexp.evaluation.cells import CellCrop, CellEvent, CellSurvey
from yeastexp.evaluation.record import agreement_sentence
from yeastexp.metrics.intervals import agreement
from yeastexp.metrics.summary import shown
from yeastexp.report.gallery import data_url
from yeastexp.report.html import Block, Chart, Charts, Gallery, GalleryImage, Overlay, Paragraph
from yeastexp.report.outlines import cell_outlines
from yeastexp.report.run_files import ImageScores
from yeastexp.system.formatting import format_count, format_number
from yeastexp.tasks.mask_cells import METHOD

MOST_CROPS = 18
"""The most cells in the gallery."""

TRUE, FOUND = "true-cell", "found-cell"
CATEGORIES = {TRUE: "true cell (thick, blue)", FOUND: "found cell (thin, orange)"}

Counts = Mapping[str, tuple[float, float]]
"""The numbers of true and of found cells by image."""


@dataclass(frozen=True)
class SurveyedCells:
    """A survey of cells, the pixel sizes of its images, and whether the predicted cells are approximate."""

    survey: CellSurvey
    pixel_sizes: Collection[float | None]
    approximate: bool

    @property
    def pixel_um(self) -> float | None:
        """The size of a pixel in micrometres if it is known and the same in all images; else None."""
        return next(iter(self.pixel_sizes)) if len(self.pixel_sizes) == 1 else None


def ignore_border_of(experiment: Experiment) -> int:
    """The `ignore_border` of the experiment's metric `count`, in pixels."""
    counted = next((part for part in experiment.metrics if part.name == "count"), None)
    return counted.options.get("ignore_border", 0) if counted else 0


def blocks(surveyed: SurveyedCells, counts: Counts | None = None, note: str = "") -> Iterator[Block]:
    """Blocks on cells: charts of counts (by default those of the survey) and of sizes, then the worst cells."""
    survey, approximate = surveyed.survey, surveyed.approximate
    sizes = {
        "true": survey.true_diameters,
        shown("found", {"found"} if approximate else ()): survey.predicted_diameters,
    }
    yield Charts(
        [count_chart("cell-counts", counts or survey.counts, approximate), size_chart(sizes, surveyed.pixel_um)]
    )
    yield Paragraph(f"{_summary(survey)}{f' Found cells are {METHOD}.' if approximate else ''}{note}")
    if crops := survey.worst:
        categories = {
            key: f"approximate {text}" if approximate and key == FOUND else text for key, text in CATEGORIES.items()
        }
        yield Gallery([_picture(crop) for crop in crops], categories, "cells", small=True)


def count_chart(name: str, counts: Counts, approximate: bool = False, title: str = "Cells per image") -> Chart:
    """A Bland-Altman plot of the true and the found numbers of cells."""
    agreed = agreement(*(zip(*counts.values(), strict=True) if counts else ((), ())))
    mean = agreed.difference
    figure = plots.bland_altman(
        counts,
        mean=mean.mean,
        interval=(mean.low, mean.high),
        limits=(agreed.low, agreed.high),
        x_label="cells per image, mean of true and found",
        y_label=f"found{' (approximate)' * approximate} − true cells",
    )
    several = len(set(counts.values())) < len(counts)
    note = (
        f"{format_count(mean.images, 'image')}, a dot each{', larger where several coincide' if several else ''}; "
        "line: mean difference, band: its 95 % confidence interval, dashed: limits of agreement (mean ± 1.96 SD)"
    )
    description = f"{title}: {agreement_sentence(agreed, approximate)}."
    return Chart(title, description, plots.inline_svg(figure, name), note)


def stored_counts(scores: ImageScores) -> Counts:
    """The numbers of cells from stored scores; empty if cells were not counted."""
    true, found = (scores.get(("count", name), {}) for name in ("true", "found"))
    pairs = ((image, number, found.get(image)) for image, number in true.items())
    return {image: (number, other) for image, number, other in pairs if number is not None and other is not None}


def stored_blocks(scores: ImageScores, approximate: bool) -> Iterator[Block]:
    """The chart of counts from stored scores, if cells were counted."""
    if counts := stored_counts(scores):
        yield Charts([count_chart("cell-counts", counts, approximate)])


def size_chart(sizes: Mapping[str, Sequence[float]], pixel_um: float | None) -> Chart:
    """A chart of overlaid histograms of diameters; `sizes` are in pixels, by the name of their cells."""
    unit, scale = ("µm", pixel_um) if pixel_um else ("px", 1.0)
    values = {f"{name} ({len(each)})": [scale * diameter for diameter in each] for name, each in sizes.items()}
    figure = plots.histograms(values, x_label=f"equivalent diameter ({unit})", y_label="cells")
    medians = [
        f"{name}: median {format_number(float(np.median(each)), 3)} {unit}"
        for name, each in zip(sizes, values.values(), strict=True)
        if each
    ]
    note = "; ".join(["diameter of a circle of the same area", *medians])
    return Chart("Sizes of cells", f"Sizes of cells, {note}.", plots.inline_svg(figure, "cell-sizes"), note)


def _summary(survey: CellSurvey) -> str:
    true, found = (sum(each) for each in zip(*survey.counts.values(), strict=True)) if survey.counts else (0, 0)
    kinds = survey.kinds
    text = (
        f"Of {format_count(true, 'true cell')} in {format_count(len(survey.counts), 'image')}, "
        f"{kinds['missed']:,} are missed and {kinds['split']:,} split; of {format_count(found, 'found cell')}, "
        f"{kinds['false']:,} are false and {kinds['merged']:,} merge several."
    )
    if survey.ignore_border:
        text += f" Cells within {format_count(survey.ignore_border, 'pixel')} of the border are left out."
    if not survey.worst:
        return f"{text} All outlines agree to the pixel."
    return (
        f"{text} Shown are the largest of each kind, and the matched cells with the lowest IoU; "
        "other cells near them have faint outlines."
    )


def _picture(crop: CellCrop) -> GalleryImage:
    grey = pictures.grey_of(crop.image, crop.limits)
    height, width = grey.shape[:2]
    event = crop.event
    overlays = []
    for category, ids, members in (
        (TRUE, crop.true, event.true),
        (FOUND, crop.predicted, event.predicted),
    ):
        named = np.isin(ids, members)
        # The faint neighbours first, so that the cells that the event is about are drawn over them.
        overlays.append(Overlay(category, cell_outlines(np.where(named, 0, ids)), faint=True))
        overlays.append(Overlay(category, cell_outlines(np.where(named, ids, 0))))
    return GalleryImage(
        data_url(grey),
        width,
        height,
        description=_described(event),
        heading=_heading(event),
        note=event.image,
        overlays=[overlay for overlay in overlays if overlay.path],
    )


def _heading(event: CellEvent) -> str:
    if event.kind == "matched":
        return f"IoU {event.iou:.2f}: cell {event.true[0]}"
    if event.kind in ("missed", "split"):
        return f"{event.kind}: true cell {event.true[0]}"
    return f"{event.kind}: found cell {event.predicted[0]}"


def _described(event: CellEvent) -> str:
    """A sentence on an event, which screen readers read aloud."""
    pixels, best = format_count(event.pixels, "pixel"), f"best IoU {event.iou:.2f}"
    true, found = _listed("true", event.true), _listed("found", event.predicted)
    if event.kind == "missed":
        return f"True cell of {pixels}: {f'overlaps {found}, {best}' if event.predicted else 'nothing found there'}."
    if event.kind == "false":
        return f"Found cell of {pixels}: {f'overlaps {true}, {best}' if event.true else 'no true cell there'}."
    if event.kind == "split":
        return f"True cell of {pixels}, found as {found}."
    if event.kind == "merged":
        return f"Found cell of {pixels}, which covers {true}."
    return f"True cell of {pixels}, matched with {found}."


def _listed(kind: str, ids: Sequence[int]) -> str:
    return f"{kind} cell{'' if len(ids) == 1 else 's'} {', '.join(map(str, ids[:4]))}{' …' if len(ids) > 4 else ''}"
