"""A comparison shown as tables, as JSON, and as figures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from yeastexp.config.diff import Rows
from yeastexp.drawing import plots
from yeastexp.evaluation.compare.findings import findings
from yeastexp.evaluation.compare.result import Comparison
from yeastexp.metrics.intervals import Interval
from yeastexp.metrics.pixels import ALL
from yeastexp.metrics.summary import ScoreTable
from yeastexp.system.formatting import (
    ABSENT,
    format_count,
    format_difference,
    format_difference_interval,
    format_interval,
    format_p,
    format_score,
)

HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""A git revision or a SHA-256, of which tables show the first twelve digits."""


def tables(comparison: Comparison) -> Iterator[Table]:
    """The tables of what differs between the runs, then the table of scores."""
    labels = [run.label for run in comparison.runs]
    for title, rows in (("experiment", comparison.experiments), ("environment", comparison.environments)):
        if rows:
            yield _differences_table(f"what differs in the {title}", labels, rows)
    yield _scores_table(comparison)


def _differences_table(title: str, labels: Sequence[str], rows: Rows) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("", *labels):
        table.add_column(escape(heading), overflow="fold")
    for key, values in rows.items():
        table.add_row(escape(key), *(escape(_shown(value)) for value in values))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{text[:12]}…" if HASH.fullmatch(text) else text


def _scores_table(comparison: Comparison) -> Table:
    several = len(comparison.pairs) > 1
    headings = (
        "per image",
        "95 % interval",
        *(["sd of images", "sd of seeds"] if comparison.out_of_fold else []),
        "difference",
        "95 % interval",
        "p",
        *(["p (Holm)"] if several else []),
    )
    runs = "cross-validation" if comparison.out_of_fold else "run"
    table = ScoreTable(escape(title(comparison)), (runs,), headings)
    for index, (run, mean) in enumerate(zip(comparison.runs, comparison.means, strict=True)):
        cells = [format_score(mean.mean), format_interval(mean.low, mean.high)]
        if comparison.out_of_fold:
            spread = comparison.spreads[index]
            cells += [format_score(spread.between_images), format_score(spread.between_seeds)]
        if index:
            pair = comparison.pairs[index - 1]
            low, high = pair.difference.low, pair.difference.high
            cells += [format_difference(pair.difference.mean, low, high), format_difference_interval(low, high)]
            cells += [format_p(pair.p)]
            cells += [format_p(comparison.adjusted[index - 1])] if several else []
        table.add_row(escape(run.label), *cells)
    return table


def title(comparison: Comparison) -> str:
    """The title of a comparison: its metric and images, and whether runs were trained or selected on these."""
    selection, metric = comparison.selection, _metric(comparison)
    images = format_count(len(comparison.images), "image")
    if comparison.out_of_fold:
        return f"{metric}: {images}, out-of-fold predictions of the last checkpoints"
    data = f" of {selection.data}" if selection.data else ""
    count = len(comparison.images)
    chosen = f", trained on {'these images' if comparison.trained == count else f'{comparison.trained} of them'}"
    chosen = (chosen if comparison.trained else "") + (", selected on these images" if comparison.selected else "")
    return f"{metric}: {images}{data} ({selection.split}), {selection.checkpoint} checkpoints{chosen}"


def _metric(comparison: Comparison) -> str:
    row = "" if comparison.class_name == ALL else f" of {comparison.class_name}"
    return f"{comparison.selection.metric}{row}"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All values for scripts; rows of differences and of scores have the order of `runs`."""
    selection = comparison.selection
    runs = zip(comparison.runs, comparison.places, comparison.means, strict=True)
    pairs = zip(comparison.runs[1:], comparison.pairs, comparison.adjusted, strict=True)
    return {
        "out_of_fold": comparison.out_of_fold,
        "metric": selection.metric,
        "class": comparison.class_name,
        "checkpoint": selection.checkpoint,
        "split": selection.split,
        "data": str(selection.data) if selection.data else None,
        "boundary_tolerance_px": selection.tolerance_px,
        "selected_on_these_images": comparison.selected,
        "trained_on_images": comparison.trained,
        "runs": [
            {
                "path": str(run.path),
                "label": run.label,
                "approximate": run.approximate,
                "scores": str(place),
                **_json_interval(mean),
            }
            for run, place, mean in runs
        ],
        "experiment": comparison.experiments,
        "environment": comparison.environments,
        "seeds": [
            {
                "seeds": spread.seeds,
                "between_images": _json(spread.between_images),
                "between_seeds": _json(spread.between_seeds),
            }
            for spread in comparison.spreads
        ],
        "notes": comparison.notes,
        "images": comparison.images,
        "scores": comparison.scores,
        "pairs": [
            {
                "one": comparison.runs[0].label,
                "other": run.label,
                **_json_interval(pair.difference),
                **{key: _json(p) for key, p in (("p", pair.p), ("p_holm", p_holm), ("smallest_p", pair.smallest_p))},
                "exact": pair.exact,
            }
            for run, pair, p_holm in pairs
        ],
        "findings": findings(comparison),
    }


def _json_interval(of_mean: Interval) -> dict[str, Any]:
    return {key: _json(value) for key, value in asdict(of_mean).items()}


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def draw(comparison: Comparison, output: Path) -> list[Path]:
    """Write a figure of paired scores for each run beside the first: to `output`, or numbered if there are several."""
    first, *others = ([math.nan if score is None else score for score in scores] for scores in comparison.scores)
    first_label, *labels = (run.label for run in comparison.runs)
    paths = []
    for index, (label, other) in enumerate(zip(labels, others, strict=True), start=1):
        path = output.with_name(f"{output.stem}_{index}{output.suffix}") if len(others) > 1 else output
        names, x_label = (first_label, label), _metric(comparison)
        plots.save(plots.paired(comparison.images, first, other, labels=names, x_label=x_label), path)
        paths.append(path)
    return paths
