"""Charts of distributions: their description and names."""

from __future__ import annotations

from yeastexp.drawing.plots import Distribution
from yeastexp.report import distributions


def test_rows_name_the_image_that_is_worst() -> None:
    rows = [Distribution("cell", {"a": 0.5, "b": 0.9, "c": 0.7}, 0.7, 0.2, 1.0), Distribution("none", {})]
    chart = distributions.distribution_chart("rows", "Rows", rows, x_label="iou", named="lowest")
    assert ">a<" in chart.svg and ">b<" not in chart.svg
    assert "cell: mean 0.7000, 95 % interval 0.2000 to 1.0000, 3 values from 0.5000 to 0.9000" in chart.description
    assert "none: no values" in chart.description
