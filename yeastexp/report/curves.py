"""How the training of a run went: loss, scores and learning rate by step."""

from __future__ import annotations

from collections.abc import Iterator

from yeastexp.report import charts, run_files, tables
from yeastexp.report.charts import Line
from yeastexp.report.distributions import bounds
from yeastexp.report.html import Block, Chart, Charts, Details, Paragraph
from yeastexp.report.run_files import Remains


def curves(left: Remains) -> Iterator[Block]:
    """Charts over steps, and all epochs as a table."""
    if not left.epochs:
        yield Paragraph("No epoch was finished, so there are no curves.")
        return
    yield Charts([_losses(left), *_score_curves(left), _rates(left)])
    yield Details("all epochs, as a table", [tables.epochs("metrics.csv", left.epochs, run_files.METRICS)])


def _losses(left: Remains) -> Chart:
    drawn = [
        Line(name, left.points(column), look)
        for look, (name, column) in enumerate({"training": "train/loss", "validation": "val/loss"}.items())
    ]
    note = "training: mean over an epoch's windows; validation: mean over whole images"
    return charts.lines(
        "loss", "Loss", drawn, x_label="step", y_label=left.experiment.loss.name, marked=_chosen_at(left), note=note
    )


def _chosen_at(left: Remains) -> tuple[float, str] | None:
    step = left.result["best"]["step"] if left.result else left.best.step if left.best else None
    return (step, f"best: step {step}") if step else None


def _score_curves(left: Remains) -> Iterator[Chart]:
    for metric, by_class in left.summary.items():
        rows = {name: left.points(f"val/{metric}" + ("" if name == "all" else f"/{name}")) for name in by_class}
        drawn = [Line(name, points, look, named=name != "all") for look, (name, points) in enumerate(rows.items())]
        name = run_files.row_of(by_class, left.classes)
        levels = {
            baseline: value
            for baseline, summary in left.baselines.items()
            if (value := summary[metric][name]["per_image"]) is not None
        }
        yield charts.lines(
            f"curve-{metric}",
            f"{metric} on validation images",
            drawn,
            x_label="step",
            y_label=charts.shortened(metric),
            levels=levels,
            marked=_chosen_at(left),
            within=bounds(left.experiment, metric),
            note="mean over images" + (f"; answers without learning: {name}" if levels and name != "all" else ""),
        )


def _rates(left: Remains) -> Chart:
    drawn = [Line("learning rate", left.points("learning_rate"), named=False)]
    return charts.lines("learning-rate", "Learning rate", drawn, x_label="step", y_label="learning rate")
