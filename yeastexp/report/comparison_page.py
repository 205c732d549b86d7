"""The page of a comparison: the differences between runs, and whether the same images tell them apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yeastexp.drawing import plots
from yeastexp.drawing.plots import Distribution
from yeastexp.evaluation import compare
from yeastexp.evaluation.measure import metric_of
from yeastexp.report import run_files, tables
from yeastexp.report.curves import curve_chart, series_of
from yeastexp.report.distributions import distribution_chart, score_name
from yeastexp.report.html import Block, Chart, Charts, Details, Fact, Facts, Page, Paragraph, Section, Table
from yeastexp.report.predictions import ProgressBar
from yeastexp.system.formatting import format_count, format_interval, format_score

MOST_PAIRS = plots.MOST_NAMED
"""Images in the plot of paired scores: those whose scores differ most."""

METHOD = (
    "Differences are paired by image and relative to the first run: their mean with its 95 % t-interval, and p of a "
    "sign-flip test (under the null hypothesis each difference is as likely with the opposite sign), adjusted after "
    "Holm if there are several pairs."
)


def page(
    paths: Sequence[Path],
    written: str,
    device: str = "auto",
    progress: ProgressBar = iter,
    *,
    metric: str | None = None,
    class_name: str | None = None,
) -> Page:
    """The page of two runs or more, each compared with the first.

    Raises UserError as `compare` does.
    """
    comparison = compare.compare(paths, metric=metric, class_name=class_name, device=device, progress=progress)
    values = compare.as_json(comparison)
    labels = [run["label"] for run in values["runs"]]
    *differences, scores = (tables.from_rich(table) for table in compare.tables(comparison))
    all_sections = [
        Section("Scores", [scores, _means(values, labels), Paragraph(METHOD)], compare.title(comparison)),
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
    """Curves of those that are runs and have finished an epoch."""
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
