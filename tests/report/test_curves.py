"""Charts of curves: their description, axis and levels."""

from __future__ import annotations

import re

import pytest

from yeastexp.drawing.plots import Series
from yeastexp.report import curves


def curve(name: str, points: list[tuple[float, float]]) -> Series:
    return Series(name, [x for x, _ in points], [y for _, y in points])


def test_a_chart_of_curves_describes_them() -> None:
    series = [curve(f"line {index}", [(0, index), (1, index + 1)]) for index in range(3)]
    chart = curves.curve_chart("three", "Three", series, y_label="loss", note="a note")
    assert chart.description.startswith("Three, loss by step. line 0: from 0.0000 at 0 to 1.0000 at 1, between")
    assert "line 2: from 2.0000 at 0 to 3.0000 at 1" in chart.description and chart.note == "a note"


@pytest.mark.parametrize("points", [[], [(3.0, 0.5)], [(0.0, 1.0), (5.0, 1.0)], [(0.0, 1e-5), (5.0, 1e5)]])
def test_any_curve_can_be_drawn(points: list[tuple[float, float]]) -> None:
    chart = curves.curve_chart("any", "Any", [curve("one", points)], y_label="loss")
    assert not re.search(r"\bnan\b|\binf\b", chart.svg)


@pytest.mark.parametrize(("is_score", "expected"), [(False, True), (True, False)])
def test_losses_that_span_decades_have_a_logarithmic_axis(is_score: bool, expected: bool) -> None:
    chart = curves.curve_chart("any", "Any", [curve("one", [(0, 0.001), (9, 1)])], y_label="y", is_score=is_score)
    assert (">0.002<" in chart.svg) == expected


def test_a_level_far_away_is_told_and_leaves_the_curve_its_room() -> None:
    levels = {"threshold": 0.85, "all background": 0.0}
    series = [curve("iou", [(0, 0.8), (9, 0.95)])]
    chart = curves.curve_chart("far", "Far", series, y_label="iou", levels=levels, is_score=True)
    assert chart.note == "threshold 0.8500; off the chart: all background 0.0000"
    assert ">threshold<" in chart.svg and ">all background<" not in chart.svg
