"""Summaries of scores: what is left out, and where intervals end."""

from __future__ import annotations

import io
import math

import pytest
import torch
from rich.console import Console

from yeastexp.metrics.pixels import Accuracy, IoU
from yeastexp.metrics.summary import as_csv, final_table, image_rows, monitored, summarise, tags

CLASSES = ("background", "cell")
NAMES = ("all background", "fitted threshold")


def scores() -> dict[str, object]:
    """Two images of four pixels: one half right, one without any cell."""
    found = {}
    for name, metric in (("iou", IoU(2)), ("accuracy", Accuracy(2))):
        metric.reset()
        metric.update((torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1]]), {}))
        metric.update((torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64), {}))
        found[name] = metric.compute()
    return found


def test_an_absent_class_is_left_out_of_its_mean() -> None:
    summary = summarise(scores(), CLASSES)
    cell, mean = summary["iou"]["cell"], summary["iou"]["mean"]
    assert cell["per_image"] == 2 / 3 and cell["images"] == 1 and cell["low"] is None
    assert summary["iou"]["background"]["per_image"] == pytest.approx((0.5 + 1) / 2)
    assert mean["per_image"] == pytest.approx(((0.5 + 2 / 3) / 2 + 1) / 2) and mean["images"] == 2
    assert summary["iou"]["background"]["pooled"] == 5 / 6
    assert summary["accuracy"]["all"]["per_image"] == 0.875


def test_the_interval_of_a_share_ends_where_shares_do() -> None:
    background = summarise(scores(), CLASSES)["iou"]["background"]
    assert (background["low"], background["high"]) == (0.0, 1.0)


def test_monitored_and_tags() -> None:
    summary = summarise(scores(), CLASSES)
    assert monitored(summary, "iou") == summary["iou"]["mean"]["per_image"]
    assert monitored(summary, "accuracy") == 0.875
    assert set(tags(summary)) == {"val/iou/background", "val/iou/cell", "val/iou/mean", "val/accuracy"}


def test_the_final_table_says_what_stands_beside_the_score() -> None:
    summary = summarise(scores(), CLASSES)
    shown = io.StringIO()
    table = final_table("2 images, selected on these images", summary, summary, {"threshold": summary})
    Console(file=shown, width=160).print(table)
    text = shown.getvalue()
    for word in ("selected on these images", "per image", "95 % interval", "pooled", "last", "threshold", "0.6667"):
        assert word in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_heading_or_number_of_the_final_table_is_broken(width: int) -> None:
    summary = summarise(scores(), CLASSES)
    shown = io.StringIO()
    Console(file=shown, width=width).print(final_table("2 images", summary, summary, dict.fromkeys(NAMES, summary)))
    words = set(shown.getvalue().split())
    assert {"metric", "class", "per", "image", "95", "%", "interval", "pooled", "last", "background"} <= words
    assert {"all", "fitted", "threshold", "accuracy", "0.0000", "1.0000", "0.8333"} <= words
    assert "…" not in shown.getvalue()
    assert len([line for line in shown.getvalue().splitlines() if " background " in line and "0." in line]) == 1


def test_no_name_of_a_metric_is_broken_at_80_columns() -> None:
    summary = {
        "average_precision" if name == "iou" else name: rows for name, rows in summarise(scores(), CLASSES).items()
    }
    shown = io.StringIO()
    Console(file=shown, width=80).print(final_table("2 images", summary, summary, dict.fromkeys(NAMES, summary)))
    assert {"average_precision", "background", "threshold"} <= set(shown.getvalue().split())
    assert max(map(len, shown.getvalue().splitlines())) <= 80


def test_a_table_that_is_too_wide_for_any_terminal_loses_no_column() -> None:
    summary = summarise(scores(), CLASSES)
    shown = io.StringIO()
    Console(file=shown, width=40).print(final_table("2 images", summary, summary, dict.fromkeys(NAMES, summary)))
    assert " last " in shown.getvalue() and "thres" in shown.getvalue()
    assert max(map(len, shown.getvalue().splitlines())) <= 40 and "…" not in shown.getvalue()


def test_rows_of_csv_keep_every_digit_and_leave_nan_empty() -> None:
    rows = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": math.nan, "val": 1.0}]
    assert as_csv(rows) == "epoch,loss,val\n1,0.30000000000000004,\n2,,1.0\n"


def test_a_row_for_each_image_metric_and_class() -> None:
    rows = image_rows(["a", "b"], scores(), CLASSES)
    assert [(row["image"], row["metric"], row["class"]) for row in rows[:4]] == [
        ("a", "iou", "background"),
        ("a", "iou", "cell"),
        ("a", "iou", "mean"),
        ("a", "accuracy", "all"),
    ]
    assert math.isnan(next(row["score"] for row in rows if (row["image"], row["class"]) == ("b", "cell")))
