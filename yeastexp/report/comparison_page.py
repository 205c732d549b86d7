"""The page of a comparison: the differences between runs, and whether those of their scores are significant."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from yeastexp.drawing import plots
from yeastexp.drawing.plots import Distribution
from yeastexp.evaluation import compare, out_of_fold
from yeastexp.evaluation.compare import Comparison
from yeastexp.evaluation.measure import metric_of
from yeastexp.metrics.intervals import interval, paired
from yeastexp.metrics.pixels import ALL
from yeastexp.metrics.summary import formatter
from yeastexp.report import cells, crossval_folder, crossval_page, predictions, run_files, tables
from yeastexp.report.cells import SurveyedCells
from yeastexp.report.crossval_folder import CrossvalFiles
from yeastexp.report.curves import curve_chart, series_of
from yeastexp.report.distributions import distribution_chart, score_name
from yeastexp.report.html import Block, Chart, Charts, Details, Fact, Facts, Page, Paragraph, Section, Table
from yeastexp.report.run_files import ImageScores, RunFiles
from yeastexp.system.formatting import (
    format_count,
    format_difference,
    format_difference_interval,
    format_interval,
    format_p,
    format_score,
)
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.tasks.mask_cells import METHOD as MASK_CELLS

MOST_PAIRS = plots.MOST_NAMED
"""The most images in the plot of paired scores: those whose scores differ most."""

METHOD = (
    "Differences are paired by image and relative to the first run: their mean with its 95 % t-interval, and p of a "
    "sign-flip test (under the null hypothesis each difference is as likely with the opposite sign), adjusted after "
    "Holm if there are several pairs."
)


def page(
    paths: Sequence[Path],
    written: str,
    device: str = "auto",
    progress: ProgressBar[str] = iter,
    *,
    metric: str | None = None,
    class_name: str | None = None,
) -> Page:
    """The page of two or more runs, each compared with the first. Raises UserError as `compare` does."""
    comparison = compare.compare(paths, metric=metric, class_name=class_name, device=device, progress=progress)
    # From the values of `compare --json`, so that the page and the command cannot differ.
    values = compare.as_json(comparison)
    labels = [run["label"] for run in values["runs"]]
    *differences, scores = (tables.from_rich(table) for table in compare.tables(comparison))
    all_sections = [
        Section("Scores", [scores, _means(values, labels), Paragraph(METHOD)], compare.title(comparison)),
        Section("Cells", list(_cells(comparison, device, progress)), "numbers, sizes and scores of cells"),
        Section("Image by image", list(_pairs(values, labels)), "both scores of each image"),
        Section(
            "Differences",
            differences or [Paragraph("None that can change results.")],
            "between experiments and environments",
        ),
        Section("Training", list(_training(paths, labels, values["metric"])), "loss and scores by step"),
        Section("Sources", [_sources(values)], "directories and files"),
    ]
    title = " and ".join(labels) if len(labels) == 2 else f"{labels[0]} and {len(labels) - 1} others"
    lead = [Paragraph(sentence) for sentence in compare.findings(comparison)]
    facts = Facts(_headline(values), large=True)
    return Page("comparison", title, lead, facts, [section for section in all_sections if section.blocks], written)


def _score_name(values: dict[str, Any]) -> str:
    return score_name(values["metric"], values["class"])


def _headline(values: dict[str, Any]) -> list[Fact]:
    facts = []
    for run in values["runs"][:4]:
        note = f"{_score_name(values)}; 95 % interval {format_interval(run['low'], run['high'])}"
        facts.append(Fact(run["label"], format_score(run["mean"]), note))
    return facts


def _means(values: dict[str, Any], labels: Sequence[str]) -> Charts:
    name = _score_name(values)
    means = [Distribution(run["label"], {}, run["mean"], run["low"], run["high"]) for run in values["runs"]]
    differences = [Distribution(pair["other"], {}, pair["mean"], pair["low"], pair["high"]) for pair in values["pairs"]]
    title, x_label = f"Difference from {labels[0]}", f"difference in {name}"
    return Charts(
        [
            distribution_chart("means", name, means, x_label=name),
            distribution_chart("differences", title, differences, x_label=x_label, zero=True),
        ]
    )


def _cells(comparison: Comparison, device: str, progress: ProgressBar[str]) -> Iterator[Block]:
    """Blocks on cells, if there are any: paired differences of scores, agreement of numbers, and sizes."""
    runs = [_files(run.path) for run in comparison.runs]
    scores = [run.scores if isinstance(run, CrossvalFiles) else run.scores.get("val", {}) for run in runs]
    approximate = ["count" in run.approximate for run in runs]
    labels = [
        compare.label_of_cells(run) if is_approximate else run.label
        for run, is_approximate in zip(comparison.runs, approximate, strict=True)
    ]
    counts = [cells.stored_counts(each) for each in scores]
    if not all(counts):
        return
    # These are the scores that runs stored. The task may differ: its cells are what is compared.
    how = {metric: [run.provenance(metric)[:-1] for run in comparison.runs] for metric, _ in CELL_SCORES}
    alike = {metric for metric, each in how.items() if each.count(each[0]) == len(each)}
    if alike:
        yield _paired_table(scores, labels, alike)
    if others := {*how} - alike:
        names = " and ".join(sorted(others))
        yield Paragraph(f"{names}: not paired, as runs count with other options, or on other data files.", warning=True)
    charts = [
        cells.count_chart(f"cell-counts-{index}", of_run, is_approximate, f"Cells per image: {label}")
        for index, (label, of_run, is_approximate) in enumerate(zip(labels, counts, approximate, strict=True))
    ]
    surveyed = [_surveyed(run, device, progress) for run in runs]
    if whole := [each for each in surveyed if isinstance(each, SurveyedCells)]:
        sizes = {"true": whole[0].survey.true_diameters} | {
            f"found by {label}": each.survey.predicted_diameters
            for label, each in zip(labels, surveyed, strict=True)
            if isinstance(each, SurveyedCells)
        }
        charts.append(cells.size_chart(sizes, whole[0].pixel_um))
    yield Charts(charts)
    if any(approximate):
        yield Paragraph(f"Cells of runs that are called so are {MASK_CELLS}.")
    yield from (
        Paragraph(f"No sizes of cells of {label}: {each}.", warning=True)
        for label, each in zip(labels, surveyed, strict=True)
        if isinstance(each, str)
    )


def _files(path: Path) -> RunFiles | CrossvalFiles:
    return crossval_folder.read(path) if out_of_fold.is_crossval(path) else run_files.read(path)


def _surveyed(run: RunFiles | CrossvalFiles, device: str, progress: ProgressBar[str]) -> SurveyedCells | str:
    if isinstance(run, CrossvalFiles):
        return crossval_page.surveyed_cells(run, crossval_page.source_of(run))
    return predictions.surveyed_cells(run, predictions.source_of(run), device, progress)


CELL_SCORES = {
    ("average_precision", ALL): "average_precision",
    ("average_precision", "AP50"): "average_precision of AP50",
    ("count", ALL): "count error, share of true cells",
    ("count", "found"): "cells found",
}
"""The quantities that the runs are compared by in a table, in words."""


def _paired_table(scores: Sequence[ImageScores], labels: Sequence[str], metrics: Collection[str]) -> Table:
    """The table of the mean of each run, and of the differences of the others from the first, paired by image."""
    rows = []
    for key in (key for key in CELL_SCORES if key[0] in metrics and all(key in each for each in scores)):
        images, form = list(scores[0][key]), formatter(*key)
        numbers = [[math.nan if (n := each[key].get(image)) is None else n for image in images] for each in scores]
        for label, of_run in zip(labels, numbers, strict=True):
            mean, pair = interval(of_run).mean, paired(numbers[0], of_run)
            low, high = pair.difference.low, pair.difference.high
            difference = format_difference(pair.difference.mean, low, high), format_difference_interval(low, high)
            beside = ("", "", "") if label == labels[0] else (*difference, format_p(pair.p))
            rows.append([CELL_SCORES[key], label, form(None if math.isnan(mean) else mean), *beside])
    headings = ["score of cells", "run", "per image", "difference", "95 % interval", "p"]
    ends = frozenset(range(len(labels) - 1, len(rows), len(labels)))
    note = "Differences are from the first run, paired by image; each p is of its row alone, not adjusted."
    return Table("scores of cells, paired by image", headings, rows, frozenset(range(2, 6)), ends, note=note)


def _pairs(values: dict[str, Any], labels: Sequence[str]) -> Iterator[Block]:
    name = _score_name(values)
    images, (first, *others) = values["images"], values["scores"]
    yield Charts(
        [
            _paired_chart(f"pairs-{index}", name, images, first, other, (labels[0], label))
            for index, (label, other) in enumerate(zip(labels[1:], others, strict=True), start=1)
        ]
    )
    rows, note = tables.subsample(list(zip(images, *values["scores"], strict=True)), "compare --json")
    cells = [(str(image), *map(format_score, scores)) for image, *scores in rows]
    table = Table(name, ["image", *labels], cells, frozenset(range(1, len(labels) + 1)), note=note)
    yield Details("all images as a table", [table])


def _paired_chart(
    name: str,
    score: str,
    images: Sequence[str],
    first: Sequence[float | None],
    other: Sequence[float | None],
    labels: tuple[str, str],
) -> Chart:
    pairs = [(image, a, b) for image, a, b in zip(images, first, other, strict=True) if a is not None and b is not None]
    # Only as many rows as can be named. The counts in the description are of all pairs.
    drawn = sorted(pairs, key=lambda pair: -abs(pair[2] - pair[1]))[:MOST_PAIRS]
    note = "the largest loss on top, the largest gain at the bottom"
    if len(pairs) > MOST_PAIRS:
        note += f"; the {MOST_PAIRS} of {len(pairs)} images whose scores differ most"
    figure = plots.paired(
        [image for image, *_ in drawn], [a for _, a, _ in drawn], [b for *_, b in drawn], labels=labels, x_label=score
    )
    higher, lower = sum(b > a for _, a, b in pairs), sum(b < a for _, a, b in pairs)
    title = f"{score}: {labels[0]} and {labels[1]}"
    description = (
        f"{title}, {format_count(len(pairs), 'image')}: {labels[1]} is higher in {higher} and lower in {lower}."
    )
    return Chart(title, description, plots.inline_svg(figure, name), note)


def _training(paths: Sequence[Path], labels: Sequence[str], metric: str) -> Iterator[Block]:
    """Curves of the runs (not of cross-validations) that have finished an epoch."""
    runs = {label: run_files.read(path) for label, path in zip(labels, paths, strict=True) if run_files.is_run(path)}
    if not any(run.epochs for run in runs.values()):
        return
    first = next(iter(runs.values()))
    name = metric_of(first.experiment, metric).headline(first.summary.get(metric, {}), first.classes)
    columns = {
        "train/loss": ("Training loss", "loss"),
        run_files.score_column(metric, name): (f"{score_name(metric, name)} on validation images", metric),
    }
    yield Charts(
        [
            curve_chart(
                f"runs-{index}",
                title,
                [series_of(run, column, label) for label, run in runs.items()],
                y_label=y_label,
                is_score=y_label == metric,
            )
            for index, (column, (title, y_label)) in enumerate(columns.items())
            if any(run.points(column) for run in runs.values())
        ]
    )


def _sources(values: dict[str, Any]) -> Table:
    rows = [[run["label"], run["path"], run["scores"]] for run in values["runs"]]
    return Table("where the scores were read", ["run", "directory", "scores"], rows)
