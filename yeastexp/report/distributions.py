"""How scores spread over images: how they are called, which image is worst, and a chart a metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from yeastexp.config.experiment import Experiment
from yeastexp.metrics.summary import MEAN, Summary
from yeastexp.report import charts
from yeastexp.report.charts import Bar
from yeastexp.report.html import Chart
from yeastexp.report.run_files import Key, Scores
from yeastexp.system.formatting import format_score
from yeastexp.training import build

RANKS = {"worst": "worst", "median": "median", "best": "best", "only": "the only image"}


def called(metric: str, name: str) -> str:
    """A metric's row in words."""
    return metric if name == "all" else f"mean {metric}" if name == MEAN else f"{metric} of {name}"


def bounds(loaded: Experiment, metric: str) -> tuple[float, float]:
    """Between which values a metric of an experiment lies."""
    return build.build_metrics(loaded)[metric].bounds


def higher_is_better(loaded: Experiment) -> dict[str, bool]:
    """Of each metric of an experiment."""
    return {name: metric.higher_is_better for name, metric in build.build_metrics(loaded).items()}


def score_note(scores: Scores, key: Key, image: str, classes: Sequence[str]) -> str:
    """The score that an image is ordered by, and those of the classes above the first."""
    metric, row = key
    found = [f"{called(metric, row)} {format_score(scores[key].get(image))}"]
    if row == MEAN:
        found += [f"{name} {format_score(scores[metric, name].get(image))}" for name in classes[1:]]
    return ", ".join(found)


def distributions(scores: Scores, summary: Summary, loaded: Experiment) -> Iterator[Chart]:
    """A chart a metric: a dot an image in a row a class, with the mean on its interval; the worst is named."""
    for metric, by_class in summary.items():
        drawn = []
        for name, row in by_class.items():
            values = {image: value for image, value in scores.get((metric, name), {}).items() if value is not None}
            drawn.append(
                Bar("all classes" if name == "all" else name, values, row["per_image"], row["low"], row["high"])
            )
        named: Literal["lowest", "highest"] = "lowest" if higher_is_better(loaded)[metric] else "highest"
        note = f"a dot an image, the {named} named; a stroke is the mean, a bar its 95 % interval"
        yield charts.bars(
            f"images-{metric}",
            f"{metric} of each image",
            drawn,
            x_label=metric,
            within=bounds(loaded, metric),
            named=named,
            note=note,
        )
