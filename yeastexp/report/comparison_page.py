"""The page of a comparison: what differs between runs, and whether the same images can tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from yeastexp.evaluation import compare as room
from yeastexp.evaluation import record
from yeastexp.report import charts, distributions, run_files, tables
from yeastexp.report.charts import Bar, Line
from yeastexp.report.html import Block, Charts, Details, Fact, Facts, Page, Paragraph, Section, Table
from yeastexp.report.run_files import Remains
from yeastexp.system.formatting import format_interval, format_score
from yeastexp.training import run_directory

MOST_ROWS = 60
"""Images in the picture of paired scores: those whose scores differ most."""

METHOD = (
    "Differences are taken image by image, from the first: their mean stands with its 95 % t-interval, and p is that "
    "of the sign-flip test (were both alike, each difference would be as likely with the other sign); of several pairs "
    "p is adjusted after Holm."
)


def page(
    paths: Sequence[Path],
    made: str,
    device: str = "auto",
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
    *,
    metric: str = "iou",
    class_name: str | None = None,
) -> Page:
    """The page of two runs or more, each beside the first; UserError as `compare` raises it."""
    done = room.compare(paths, metric=metric, class_name=class_name, device=device, progress=progress)
    figures = room.as_json(done)
    labels = [run["label"] for run in figures["runs"]]
    *differing, scores = (tables.printed(table) for table in room.tables(done))
    every = [
        Section("Scores", [scores, *_intervals(figures, labels), Paragraph(METHOD)], room.title(done)),
        Section("Image by image", list(_pairs(figures, labels)), "both scores of each image"),
        Section(
            "What differs", differing or [Paragraph("Nothing that can change results.")], "experiments and environments"
        ),
        Section("Training", list(_training(paths, labels, figures["metric"])), "how it went in each"),
        Section("Compared", [_compared(figures)], "directories and files"),
    ]
    title = " and ".join(labels) if len(labels) == 2 else f"{labels[0]} and {len(labels) - 1} others"
    lead = [Paragraph(sentence) for sentence in room.findings(done)]
    facts = Facts(_headline(figures), large=True)
    return Page("comparison", title, lead, facts, [section for section in every if section.blocks], made)


def _called(figures: dict[str, Any]) -> str:
    return distributions.called(figures["metric"], figures["class"])


def _headline(figures: dict[str, Any]) -> list[Fact]:
    facts = []
    for run in figures["runs"][:4]:
        interval = f"{_called(figures)}; 95 % interval {format_interval(run['low'], run['high'])}"
        facts.append(Fact(run["label"], format_score(run["mean"]), interval))
    return facts


def _within(figures: dict[str, Any]) -> tuple[float, float]:
    return charts.SHARE if figures["metric"] in record.SHARES else charts.ANY


def _intervals(figures: dict[str, Any], labels: Sequence[str]) -> Iterator[Block]:
    means = [Bar(one["label"], {}, one["mean"], one["low"], one["high"]) for one in figures["runs"]]
    pairs = [Bar(one["other"], {}, one["mean"], one["low"], one["high"]) for one in figures["pairs"]]
    called, note = _called(figures), "a stroke is the mean over images, a bar its 95 % interval"
    yield Charts(
        [
            charts.bars("means", called, means, x_label=called, within=_within(figures), note=note),
            charts.bars(
                "differences",
                f"difference from {labels[0]}",
                pairs,
                x_label=f"difference in {called}",
                zero=True,
                note=note,
            ),
        ]
    )


def _pairs(figures: dict[str, Any], labels: Sequence[str]) -> Iterator[Block]:
    first, *others = figures["scores"]
    drawn = []
    for index, (label, other) in enumerate(zip(labels[1:], others, strict=True), start=1):
        rows = [row for row in zip(figures["images"], first, other, strict=True) if None not in row]
        rows.sort(key=lambda row: -abs(row[2] - row[1]))
        kept = sorted(rows[:MOST_ROWS], key=lambda row: row[2] - row[1])
        note = "the largest loss on top, the largest gain below"
        if len(rows) > MOST_ROWS:
            note += f"; the {MOST_ROWS} of {len(rows)} images whose scores differ most"
        called = _called(figures)
        drawn.append(
            charts.pairs(
                f"pairs-{index}",
                f"{called}: {labels[0]} and {label}",
                kept,
                ends=(labels[0], label),
                x_label=called,
                within=_within(figures),
                note=note,
            )
        )
    yield Charts(drawn)
    kept_rows, note = tables.thinned(list(zip(figures["images"], *figures["scores"], strict=True)), "compare --json")
    written = [(str(image), *map(format_score, scores)) for image, *scores in kept_rows]
    table = Table(_called(figures), ["image", *labels], written, frozenset(range(1, len(labels) + 1)), note=note)
    yield Details("every image, as a table", [table])


def _training(paths: Sequence[Path], labels: Sequence[str], metric: str) -> Iterator[Block]:
    """Curves of those that are runs and have any."""
    runs = {label: run_files.read(path) for label, path in zip(labels, paths, strict=True) if _is_run(path)}
    if not any(left.epochs for left in runs.values()):
        return
    left = next(iter(runs.values()))
    name = run_files.row_of(left.summary.get(metric, {}), left.classes)
    column = f"val/{metric}" + ("" if name == "all" else f"/{name}")
    found = [
        ("Training loss", "train/loss", "loss"),
        (f"{distributions.called(metric, name)} on validation images", column, metric),
    ]
    yield Charts(
        [
            charts.lines(f"runs-{index}", title, _lines(runs, key), x_label="step", y_label=charts.shortened(label))
            for index, (title, key, label) in enumerate(found)
            if any(one.points(key) for one in runs.values())
        ]
    )


def _is_run(path: Path) -> bool:
    return (path / run_directory.EXPERIMENT).is_file() and (path / run_directory.ENVIRONMENT).is_file()


def _lines(runs: dict[str, Remains], column: str) -> list[Line]:
    return [Line(label, left.points(column), look) for look, (label, left) in enumerate(runs.items())]


def _compared(figures: dict[str, Any]) -> Table:
    rows = [[run["label"], run["path"], run["scores"]] for run in figures["runs"]]
    return Table("where the scores were read", ["run", "directory", "scores"], rows)
