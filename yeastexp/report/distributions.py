"""Charts of the distribution of scores over images, and the names of scores in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from yeastexp.config.experiment import Experiment
from yeastexp.drawing import plots
from yeastexp.drawing.plots import Distribution
from yeastexp.evaluation.measure import approximate_in, metric_of
from yeastexp.metrics.pixels import ALL, MEAN
from yeastexp.metrics.summary import Summary, shown
from yeastexp.report.html import Chart
from yeastexp.report.run_files import ImageScores, ScoreKey
from yeastexp.system.formatting import format_score

RANKS = {"worst": "worst", "median": "median", "best": "best", "only": "the only image"}

INTERVALS = "line: mean over images, bar: its 95 % confidence interval"


def score_name(metric: str, name: str, approximate: Collection[str] = ()) -> str:
    """The name of a metric's row in words; `approximate` are metrics of approximate cells."""
    metric = shown(metric, approximate)
    return metric if name == "all" else f"mean {metric}" if name == MEAN else f"{metric} of {name}"


def score_note(
    scores: ImageScores, key: ScoreKey, image: str, classes: Sequence[str], approximate: Collection[str] = ()
) -> str:
    """A note with the score that an image is ranked by and, if it is a mean, those of the foreground classes."""
    metric, name = key
    texts = [f"{score_name(metric, name, approximate)} {format_score(scores[key].get(image))}"]
    if name == MEAN:
        texts += [f"{label} {format_score(scores[metric, label].get(image))}" for label in classes[1:]]
    return ", ".join(texts)


def distribution_chart(
    name: str,
    title: str,
    rows: Sequence[Distribution],
    *,
    x_label: str,
    named: Literal["lowest", "highest"] | None = None,
    zero: bool = False,
) -> Chart:
    """A chart of means with their intervals, a row each, over the dots of their images if they have any."""
    figure = plots.distributions(rows, x_label=x_label, named=named, zero=zero)
    description = ". ".join([f"{title}, {x_label}", *map(_described, rows)])
    dotted = any(row.values for row in rows)
    distinct = named and any(len(set(row.values.values())) > 1 for row in rows)
    note = f"dot: an image{f', the {named} named' if distinct else ''}; {INTERVALS}" if dotted else INTERVALS
    return Chart(title, f"{description}.", plots.inline_svg(figure, name), note)


def _described(row: Distribution) -> str:
    """A row of the chart in words, for screen readers."""
    texts = [] if row.mean is None else [f"mean {format_score(row.mean)}"]
    if row.low is not None and row.high is not None:
        texts.append(f"95 % interval {format_score(row.low)} to {format_score(row.high)}")
    if row.values:
        lowest, highest = min(row.values.values()), max(row.values.values())
        texts.append(f"{len(row.values)} values from {format_score(lowest)} to {format_score(highest)}")
    return f"{row.name}: {', '.join(texts) or 'no values'}"


def distribution_charts(scores: ImageScores, summary: Summary, loaded: Experiment) -> Iterator[Chart]:
    """A chart for each metric, with a row for each class; the worst image is named."""
    approximate = approximate_in(loaded)
    for metric, by_class in summary.items():
        kind, in_words = metric_of(loaded, metric), shown(metric, approximate)
        named: Literal["lowest", "highest"] = "lowest" if kind.higher_is_better else "highest"
        for index, (unit, names) in enumerate(kind.on_one_axis(list(by_class))):
            rows = []
            for name in names:
                row, of_images = by_class[name], scores.get((metric, name), {})
                values = {image: value for image, value in of_images.items() if value is not None}
                label = (in_words if kind.parts else "all classes") if name == ALL else name
                rows.append(Distribution(label, values, row["per_image"], row["low"], row["high"]))
            unit = shown(unit, {unit} if metric in approximate else ())
            title = f"{unit} per image" if unit else f"{in_words} of each image"
            chart = f"images-{metric}{index or ''}"
            yield distribution_chart(chart, title, rows, x_label=unit or in_words, named=named)
