"""Curves over training steps: loss, scores and learning rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from yeastexp.drawing import plots
from yeastexp.drawing.plots import Series
from yeastexp.evaluation.measure import metric_of
from yeastexp.metrics.summary import shown
from yeastexp.report import run_files, tables
from yeastexp.report.html import Block, Chart, Charts, Details, Paragraph
from yeastexp.report.run_files import RunFiles
from yeastexp.system.formatting import format_score

DECADES = 30
"""The ratio of the largest to the smallest loss or learning rate above which their axis is logarithmic."""


def training_blocks(run: RunFiles) -> Iterator[Block]:
    """The blocks on the course of training: charts over steps, and all epochs as a table."""
    if not run.epochs:
        yield Paragraph("No epoch has finished, so there are no curves yet.")
        return
    yield Charts([_loss_chart(run), *_score_charts(run), _learning_rate_chart(run)])
    table = tables.epoch_table("metrics.csv", run.epochs, run.directory.metrics.name, run.approximate)
    yield Details("all epochs as a table", [table])


def series_of(run: RunFiles, column: str, name: str, look: int | None = None, hint: str = "") -> Series:
    """A column of `metrics.csv` over steps as a series of a plot."""
    points = run.points(column)
    return Series(name, [step for step, _ in points], [value for _, value in points], look, hint=hint)


def curve_chart(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    y_label: str,
    x_label: str = "step",
    levels: Mapping[str, float] | None = None,
    event: tuple[float, str] | None = None,
    is_score: bool = False,
    note: str = "",
) -> Chart:
    """A chart of lines over steps or epochs; `levels` are horizontal lines, `event` a vertical one.

    The axis of losses and learning rates is logarithmic if their values span a wide range; that of scores never is.
    """
    values = [value for curve in series for value in curve.y]
    # Levels far from all values would flatten the curves: they are stated in the note instead.
    near, far = _split_levels(levels or {}, values)
    logarithmic = not is_score and bool(values) and 0 < DECADES * min(values) < max(values)
    figure = plots.curves(series, x_label=x_label, y_label=y_label, levels=near, event=event, logarithmic=logarithmic)
    constants = [f"{text} {format_score(level)}" for text, level in near.items()]
    outside = [f"{text} {format_score(level)}" for text, level in far.items()]
    description = ". ".join([f"{title}, {y_label} by {x_label}", *map(_described, series), *constants, *outside])
    beyond = f"off the chart: {', '.join(outside)}" if outside else ""
    note = "; ".join(filter(None, [note, ", ".join(constants), beyond]))
    return Chart(title, f"{description}.", plots.inline_svg(figure, name), note)


def _split_levels(levels: Mapping[str, float], values: Sequence[float]) -> tuple[dict[str, float], dict[str, float]]:
    """The levels in or near the range of the values, at most its width away on either side, and the other ones."""
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    margin = high - low
    near = {name: level for name, level in levels.items() if not margin or low - margin <= level <= high + margin}
    return near, {name: level for name, level in levels.items() if name not in near}


def _described(series: Series) -> str:
    """A series in words, for screen readers."""
    name = series.hint or series.name
    if not series.y:
        return f"{name}: no values"
    first, last = (f"{format_score(series.y[index])} at {series.x[index]:g}" for index in (0, -1))
    if len(series.y) == 1:
        return f"{name}: {first}"
    span = f"between {format_score(min(series.y))} and {format_score(max(series.y))}"
    return f"{name}: from {first} to {last}, {span}"


def _loss_chart(run: RunFiles) -> Chart:
    series = [series_of(run, "train/loss", "training"), series_of(run, "val/loss", "validation")]
    note = "training: mean over the patches of an epoch; validation: mean over whole images"
    return curve_chart("loss", "Loss", series, y_label=run.experiment.loss_name, event=_best_step(run), note=note)


def _best_step(run: RunFiles) -> tuple[float, str] | None:
    step = run.best_step
    return (step, f"best: step {step}") if step else None


def _score_charts(run: RunFiles) -> Iterator[Chart]:
    for metric, by_class in run.summary.items():
        kind = metric_of(run.experiment, metric)
        headline, in_words = kind.headline(by_class, run.classes), shown(metric, run.approximate)
        for index, (unit, names) in enumerate(kind.on_one_axis(list(by_class))):
            series = [
                series_of(run, run_files.score_column(metric, name), in_words if name == "all" else name)
                for name in names
            ]
            unit = shown(unit, {unit} if metric in run.approximate else ())
            levels = {
                baseline: value
                for baseline, summary in run.baselines.items()
                if headline in names and (value := summary[metric][headline]["per_image"]) is not None
            }
            yield curve_chart(
                f"curve-{metric}{index or ''}",
                f"{unit or in_words} on validation images",
                series,
                y_label=unit or in_words,
                levels=levels,
                event=_best_step(run),
                is_score=True,
                note="mean over images" + (f"; baselines for {headline}" if levels and headline != "all" else ""),
            )


def _learning_rate_chart(run: RunFiles) -> Chart:
    series = [series_of(run, "learning_rate", "learning rate")]
    return curve_chart("learning-rate", "Learning rate", series, y_label="learning rate")
