"""What a page shows: outlines exact to the pixel, charts with descriptions, tables as printed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.markup import escape
from rich.table import Table
from torch import from_numpy

from yeastexp.drawing.plots import Distribution, Series
from yeastexp.report import curves, distributions, gallery, outlines, run_files, tables
from yeastexp.sample import IGNORE, Sample


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """How often a path winds round each pixel."""
    winding = np.zeros(shape, np.int64)
    for loop in path.split("z")[:-1]:
        x, y = start = tuple(int(number) for number in re.findall(r"-?\d+", loop.split("h")[0].split("v")[0]))
        moves = [(kind, int(count)) for kind, count in re.findall(r"([hv])(-?\d+)", loop)]
        for kind, count in moves:
            if kind == "v":
                winding[min(y, y + count) : max(y, y + count), x:] += -1 if count > 0 else 1
            x, y = (x + count, y) if kind == "h" else (x, y + count)
        if y != start[1]:
            winding[min(y, start[1]) : max(y, start[1]), x:] += -1 if start[1] > y else 1
    return winding


def test_an_outline_turns_at_corners_alone() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    assert outlines.outline(mask) in ("M4 1v2h-3v-2z", "M1 1h3v2h-3z")
    assert outlines.outline(np.zeros((3, 3), bool)) == ""


def test_regions_that_touch_at_a_corner_have_outlines_of_their_own() -> None:
    assert outlines.outline(np.eye(3, dtype=bool)).count("z") == 3
    assert outlines.outline(~np.eye(2, dtype=bool)).count("z") == 2


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_an_outline_filled_again_is_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(filled(outlines.outline(mask), mask.shape), mask.astype(np.int64))


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


def test_rows_name_the_image_that_is_worst() -> None:
    rows = [Distribution("cell", {"a": 0.5, "b": 0.9, "c": 0.7}, 0.7, 0.2, 1.0), Distribution("none", {})]
    chart = distributions.distribution_chart("rows", "Rows", rows, x_label="iou", named="lowest")
    assert ">a<" in chart.svg and ">b<" not in chart.svg
    assert "cell: mean 0.7000, 95 % interval 0.2000 to 1.0000, 3 values from 0.5000 to 0.9000" in chart.description
    assert "none: no values" in chart.description


def test_a_printed_table_keeps_its_cells_and_groups() -> None:
    table = Table(title=escape("[bold] is a name"))
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_row(escape("[red]"), "0.5")
    table.add_section()
    table.add_row("iou", "–")
    found = tables.from_rich(table)
    assert (found.caption, list(found.headings)) == ("[bold] is a name", ["metric", "score"])
    assert [list(row) for row in found.rows] == [["[red]", "0.5"], ["iou", "–"]]
    assert found.numeric == {1} and found.group_ends == {0}


def test_a_long_table_says_what_it_leaves_out() -> None:
    kept, note = tables.subsample(list(range(5000)), "metrics.csv")
    assert (len(kept), kept[0], kept[-1]) == (tables.MOST_ROWS, 0, 4999)
    assert note == "300 of 5000 rows; metrics.csv has all."


SCORES = {"a": 0.5, "b": None, "c": 0.9, "d": 0.7, "e": 0.6}


@pytest.mark.parametrize(
    ("better", "expected"),
    [(True, {"worst": "a", "median": "d", "best": "c"}), (False, {"worst": "c", "median": "e", "best": "a"})],
)
def test_the_worst_is_the_highest_where_lower_is_better(better: bool, expected: dict[str, str]) -> None:
    assert run_files.representatives(SCORES, better) == expected


def test_few_images_are_called_what_they_are() -> None:
    assert run_files.representatives({"a": 0.5, "b": None}) == {"only": "a"}
    assert run_files.representatives({"a": 0.5, "b": 0.4}) == {"worst": "b", "best": "a"}
    assert run_files.representatives({"a": None}) == {}
    assert run_files.worst_first({"a": None, "b": 0.5, "c": 0.4}) == ["c", "b", "a"]


def test_mistakes_are_told_apart_in_pixels() -> None:
    truth = np.array([[0, 1, 1, 2], [0, 0, 2, IGNORE]])
    prediction = np.array([[1, 0, 1, 1], [0, 2, 2, 1]])
    sample = Sample(from_numpy(np.zeros((1, 2, 4), np.float32)), from_numpy(truth), "a")
    (picture,) = gallery.overlay_gallery([gallery.PredictedImage(sample, prediction, "worst: a", "")]).images
    found = {one.category: filled(one.path, (2, 4)) for one in picture.overlays}
    assert found["missed"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert found["false"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert found["confused"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert found["unlabelled"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert picture.description == (
        "a, 2 × 4 pixels: 1 of 4 foreground pixels missed, 1 assigned to another class; "
        "2 of 5 predicted pixels are false alarms."
    )


def test_pictures_of_large_images_stay_small() -> None:
    source = np.random.default_rng(0)
    y, x = np.mgrid[:1024, :1024]
    truth = ((x // 40 + y // 40) % 2).astype(np.int64)
    noise = source.normal(1000, 300, (1, 1024, 1024)).astype(np.float32)
    sample = Sample(from_numpy(noise), from_numpy(truth), "large")
    (made,) = gallery.overlay_gallery(
        [gallery.PredictedImage(sample, np.roll(truth, 3, axis=1), "worst: large", "")]
    ).images
    assert max(made.width, made.height) == gallery.LARGEST_SIDE
    assert len(made.url) + sum(len(one.path) for one in made.overlays) < 1_000_000
