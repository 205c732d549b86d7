"""A comparison as tables, as figures for scripts, and as pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from yeastexp.config.diff import Rows
from yeastexp.drawing import plots
from yeastexp.evaluation.compare.findings import findings
from yeastexp.evaluation.compare.result import Comparison
from yeastexp.metrics.intervals import Interval
from yeastexp.system.formatting import (
    ABSENT,
    format_difference,
    format_difference_interval,
    format_interval,
    format_p,
    format_score,
)

HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""A git revision or a SHA-256; tables show the first twelve letters."""


def tables(done: Comparison) -> Iterator[Table]:
    """What differs, and the scores, for people."""
    labels = [run.label for run in done.runs]
    for title, rows in (("experiment", done.experiments), ("environment", done.environments)):
        if rows:
            yield _differences_table(f"what differs in the {title}", labels, rows)
    yield _scores_table(done)


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


def _scores_table(done: Comparison) -> Table:
    table = Table(title=escape(title(done)), title_justify="left", title_style="bold")
    table.add_column("cross-validation" if done.out_of_fold else "run")
    several = len(done.pairs) > 1
    for heading in (
        "per image",
        "95 % interval",
        *(["sd of images", "sd of seeds"] if done.out_of_fold else []),
        "difference",
        "95 % interval",
        "p",
        *(["p (Holm)"] if several else []),
    ):
        table.add_column(heading, justify="right")
    for index, (run, mean) in enumerate(zip(done.runs, done.means, strict=True)):
        cells = [format_score(mean.mean), format_interval(mean.low, mean.high)]
        if done.out_of_fold:
            cells += [format_score(done.spreads[index].between_images), format_score(done.spreads[index].between_seeds)]
        if index:
            pair = done.pairs[index - 1]
            low, high = pair.difference.low, pair.difference.high
            cells += [format_difference(pair.difference.mean, low, high), format_difference_interval(low, high)]
            cells += [format_p(pair.p)]
            cells += [format_p(done.adjusted[index - 1])] if several else []
        table.add_row(escape(run.label), *cells)
    return table


def title(done: Comparison) -> str:
    """Which scores are compared, on what, and what the images had to do with the weights."""
    wanted = done.wanted
    row = "" if done.class_name == "all" else f" of {done.class_name}"
    if done.out_of_fold:
        return f"{wanted.metric}{row}: {len(done.images)} images, each scored by the last weights that never saw it"
    data = f" of {wanted.data}" if wanted.data else ""
    chosen = ", selected on these images" if done.selected else ""
    images = f"{len(done.images)} images{data} ({wanted.split})"
    return f"{wanted.metric}{row}: {images}, {wanted.checkpoint} checkpoints{chosen}"


def as_json(done: Comparison) -> dict[str, Any]:
    """All figures, for scripts; runs and the rows of differences and scores are in the same order."""
    wanted = done.wanted
    runs = zip(done.runs, done.places, done.means, strict=True)
    pairs = zip(done.runs[1:], done.pairs, done.adjusted, strict=True)
    return {
        "out_of_fold": done.out_of_fold,
        "metric": wanted.metric,
        "class": done.class_name,
        "checkpoint": wanted.checkpoint,
        "split": wanted.split,
        "data": str(wanted.data) if wanted.data else None,
        "boundary_tolerance_px": wanted.tolerance_px,
        "selected_on_these_images": done.selected,
        "runs": [
            {"path": str(run.path), "label": run.label, "scores": str(place), **_json_interval(mean)}
            for run, place, mean in runs
        ],
        "experiment": done.experiments,
        "environment": done.environments,
        "seeds": [
            {
                "seeds": one.seeds,
                "between_images": _json(one.between_images),
                "between_seeds": _json(one.between_seeds),
            }
            for one in done.spreads
        ],
        "notes": done.notes,
        "images": done.images,
        "scores": done.scores,
        "pairs": [
            {
                "one": done.runs[0].label,
                "other": run.label,
                **_json_interval(pair.difference),
                **{key: _json(p) for key, p in (("p", pair.p), ("p_holm", p_holm), ("smallest_p", pair.smallest_p))},
                "exact": pair.exact,
            }
            for run, pair, p_holm in pairs
        ],
        "findings": findings(done),
    }


def _json_interval(found: Interval) -> dict[str, Any]:
    return {"mean": _json(found.mean), "low": _json(found.low), "high": _json(found.high), "images": found.images}


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def draw(done: Comparison, output: Path) -> list[Path]:
    """Write a picture of the scores of each run beside the first: to `output`, or numbered where there are several."""
    row = "" if done.class_name == "all" else f" of {done.class_name}"
    first, *others = ([math.nan if score is None else score for score in scores] for scores in done.scores)
    written = []
    for index, other in enumerate(others, start=1):
        path = output.with_name(f"{output.stem}_{index}{output.suffix}") if len(others) > 1 else output
        labels = done.runs[0].label, done.runs[index].label
        plots.save(plots.paired(done.images, first, other, labels=labels, x_label=f"{done.wanted.metric}{row}"), path)
        written.append(path)
    return written
