"""What a page draws: outlines exact to the pixel, round ticks, labels that keep apart, tables as printed."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.markup import escape
from rich.table import Table
from torch import from_numpy

from yeastexp.report import charts, gallery, outlines, run_files, scales, tables
from yeastexp.report.charts import Bar, Line
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
    assert outlines.path(mask) in ("M4 1v2h-3v-2z", "M1 1h3v2h-3z")
    assert outlines.path(np.zeros((3, 3), bool)) == ""


def test_regions_that_touch_at_a_corner_have_outlines_of_their_own() -> None:
    assert outlines.path(np.eye(3, dtype=bool)).count("z") == 3
    assert outlines.path(~np.eye(2, dtype=bool)).count("z") == 2


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_an_outline_filled_again_is_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(filled(outlines.path(mask), mask.shape), mask.astype(np.int64))


@pytest.mark.parametrize(
    ("low", "high", "about", "ticks"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.92, 1.0, 5, [0.92, 0.94, 0.96, 0.98, 1.0]),
        (0, 680, 5, [0, 200, 400, 600]),
    ],
)
def test_ticks_are_round(low: float, high: float, about: int, ticks: list[float]) -> None:
    assert scales.Scale(low, high, 0, 1).ticks(about) == pytest.approx(ticks)


def test_ticks_of_decades_are_powers_of_ten() -> None:
    assert scales.Scale(0.001, 10, 0, 1, logarithmic=True).ticks(5) == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    assert scales.Scale(0.001, 10, 0, 100, logarithmic=True)(0.1) == pytest.approx(50)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_there_are_a_few_ticks_for_any_range(low: float, span: float, about: int) -> None:
    scale = scales.Scale(low, low + span, 0, 1)
    if scale.high - scale.low > 1e-3 * max(1.0, abs(low)):
        assert 1 <= len(scale.ticks(about)) <= about + 1


def test_numbers_of_ticks_are_short() -> None:
    assert [scales.number(value) for value in (0, 0.1 + 0.2, -0.5, 2e-5, 1e7, 1200)] == [
        "0", "0.3", "−0.5", "2e−5", "1e7", "1,200"
    ]  # fmt: skip


@given(st.lists(st.floats(0, 100), max_size=6))
def test_labels_keep_apart_and_in_order(places: list[float]) -> None:
    moved = scales.apart(places, 10, 0, 100)
    ordered = [moved[index] for index in sorted(range(len(places)), key=lambda index: places[index])]
    assert all(after - before >= 10 - 1e-9 for before, after in pairwise(ordered))
    assert all(place <= 100 for place in moved)


def test_a_long_line_keeps_its_extremes() -> None:
    points = [(float(step), math.sin(step)) for step in range(10_000)]
    points[7777] = (7777.0, 9.0)
    kept = scales.thinned(points)
    assert len(kept) <= scales.MOST_POINTS and (7777.0, 9.0) in kept
    assert kept == sorted(kept) and (kept[0], kept[-1]) == (points[0], points[-1])
    assert scales.thinned(points[:10]) == points[:10]


def test_lines_are_told_by_dash_and_name_as_well_as_by_colour() -> None:
    drawn = [Line(f"line {index}", [(0, index), (1, index + 1)], index) for index in range(3)]
    made = charts.lines("three", "Three", drawn, x_label="step", y_label="loss")
    assert [label.text for label in made.labels if label.look == "name"] == ["line 0", "line 1", "line 2"]
    looks = [one.look for one in made.strokes if one.look.startswith("line")]
    assert looks == ["line look-0", "line look-1", "line look-2"]
    assert "line 2: from 2.0000 at 0 to 3.0000 at 1" in made.said


@pytest.mark.parametrize("points", [[], [(3.0, 0.5)], [(0.0, 1.0), (5.0, 1.0)], [(0.0, 1e-5), (5.0, 1e5)]])
def test_any_line_can_be_drawn(points: list[tuple[float, float]]) -> None:
    made = charts.lines("any", "Any", [Line("one", points)], x_label="step", y_label="loss")
    assert not any("nan" in one.path or "inf" in one.path for one in made.strokes)
    assert all(0 <= label.x <= made.width and 0 <= label.y <= made.height for label in made.labels)


def test_a_constant_far_away_is_told_and_leaves_the_curve_its_room() -> None:
    levels = {"threshold": 0.85, "all background": 0.0}
    made = charts.lines(
        "far", "Far", [Line("iou", [(0, 0.8), (9, 0.95)])], x_label="step", y_label="iou", levels=levels, within=(0, 1)
    )
    assert made.note == "dotted: threshold 0.8500; off the chart: all background 0.0000"
    assert sum(one.look == "level" for one in made.strokes) == 1


def test_rows_name_the_image_that_is_worst() -> None:
    rows = [Bar("cell", {"a": 0.5, "b": 0.9, "c": 0.7}, 0.7, 0.2, 1.0), Bar("none", {})]
    named = charts.bars("rows", "Rows", rows, x_label="iou", within=(0, 1), named="lowest")
    assert [label.text for label in named.labels if label.look == "note"] == ["a"]
    assert "cell: mean 0.7000, 95 % interval 0.2000 to 1.0000, 3 values from 0.5000 to 0.9000" in named.said
    assert "none: no values" in named.said


def test_a_printed_table_keeps_its_cells_and_groups() -> None:
    table = Table(title=escape("[bold] is a name"))
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_row(escape("[red]"), "0.5")
    table.add_section()
    table.add_row("iou", "–")
    found = tables.printed(table)
    assert (found.caption, list(found.headings)) == ("[bold] is a name", ["metric", "score"])
    assert [list(row) for row in found.rows] == [["[red]", "0.5"], ["iou", "–"]]
    assert found.numbers == {1} and found.ends == {0}


def test_a_long_table_says_what_it_leaves_out() -> None:
    kept, note = tables.thinned(list(range(5000)), "metrics.csv")
    assert (len(kept), kept[0], kept[-1]) == (tables.MOST_ROWS, 0, 4999)
    assert note == "300 of 5000 rows; metrics.csv has all."


SCORES = {"a": 0.5, "b": None, "c": 0.9, "d": 0.7, "e": 0.6}


@pytest.mark.parametrize(
    ("better", "expected"),
    [(True, {"worst": "a", "median": "d", "best": "c"}), (False, {"worst": "c", "median": "e", "best": "a"})],
)
def test_the_worst_is_the_highest_where_lower_is_better(better: bool, expected: dict[str, str]) -> None:
    assert run_files.chosen(SCORES, better) == expected


def test_few_images_are_called_what_they_are() -> None:
    assert run_files.chosen({"a": 0.5, "b": None}) == {"only": "a"}
    assert run_files.chosen({"a": 0.5, "b": 0.4}) == {"worst": "b", "best": "a"}
    assert run_files.chosen({"a": None}) == {}
    assert run_files.worst_first({"a": None, "b": 0.5, "c": 0.4}) == ["c", "b", "a"]


def test_mistakes_are_told_apart_in_pixels() -> None:
    truth = np.array([[0, 1, 1, 2], [0, 0, 2, IGNORE]])
    prediction = np.array([[1, 0, 1, 1], [0, 2, 2, 1]])
    sample = Sample(from_numpy(np.zeros((1, 2, 4), np.float32)), from_numpy(truth), "a")
    (picture,) = gallery.drawn([gallery.Shown(sample, prediction, "worst: a", "")]).pictures
    found = {one.look: filled(one.path, (2, 4)) for one in picture.overlays}
    assert found["missed"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert found["false"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert found["confused"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert found["unlabelled"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert picture.said == (
        "a, 2 × 4 pixels: of 4 foreground pixels 1 were missed, 1 taken for another class; of 5 predicted 2 are false."
    )


def test_pictures_of_large_images_stay_small() -> None:
    source = np.random.default_rng(0)
    y, x = np.mgrid[:1024, :1024]
    truth = ((x // 40 + y // 40) % 2).astype(np.int64)
    noise = source.normal(1000, 300, (1, 1024, 1024)).astype(np.float32)
    sample = Sample(from_numpy(noise), from_numpy(truth), "large")
    (made,) = gallery.drawn([gallery.Shown(sample, np.roll(truth, 3, axis=1), "worst: large", "")]).pictures
    assert max(made.width, made.height) == gallery.LARGEST_SIDE
    assert len(made.address) + sum(len(one.path) for one in made.overlays) < 1_000_000
