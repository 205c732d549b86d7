"""Figures: what they show, the same bytes whenever they are drawn, and nothing told by colour alone."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection

import yeastexp
from yeastexp.drawing import plots
from yeastexp.drawing.plots import Distribution
from yeastexp.errors import UserError

NAN = float("nan")


SERIES = [plots.Series(f"run {index}", [0, 1, 2], [0.1 * index, 0.3, 0.5]) for index in range(3)]
ROWS = [
    Distribution("unet", {"a": 0.9, "b": 0.8}, 0.85, 0.8, 0.9),
    Distribution("fcn", {"a": 0.7, "b": 0.8, "c": 0.6}),
]
FIGURES: dict[str, Callable[[], plots.Figure]] = {
    "curves": lambda: plots.curves(SERIES, x_label="step", y_label="loss", levels={"threshold": 0.5}),
    "scatter": lambda: plots.scatter(
        {"one": SERIES, "two": SERIES}, x_label="x", y_label="y", joined=True, ends=("a", "b")
    ),
    "distributions": lambda: plots.distributions(ROWS, x_label="IoU", named="lowest"),
    "dots": lambda: plots.dots(SERIES, x_label="width", y_label="iou", ticks=["4", "8", "12"]),
    "to_scale": lambda: plots.to_scale({"patch": (64, 64)}, {"cell": 20}, label="pixels"),
    "paired": lambda: plots.paired(["a", "b"], [0.5, 0.6], [0.7, 0.4], labels=("one", "other"), x_label="IoU"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_bytes_whenever_it_is_drawn(name: str) -> None:
    figure, again = FIGURES[name](), FIGURES[name]()
    png, svg = plots.encode(figure, "png"), plots.encode(figure, "svg")
    assert png.startswith(b"\x89PNG") and svg.startswith(b"<?xml")
    assert (plots.encode(again, "svg"), plots.encode(again, "png")) == (svg, png)
    assert b"<dc:date>" not in svg and b"Software" not in png


def test_the_users_own_style_changes_nothing_and_is_left_as_it_was() -> None:
    wanted = plots.encode(FIGURES["curves"](), "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert plots.encode(FIGURES["curves"](), "svg") == wanted
        assert dict(matplotlib.rcParams) == before


def test_one_module_imports_matplotlib_and_none_its_global_state() -> None:
    found = _imports_of_matplotlib(Path(yeastexp.__file__).parent)
    assert {path for path, _ in found} == {"plots.py"}
    assert not any("pyplot" in name for _, name in found)


def _imports_of_matplotlib(package: Path) -> set[tuple[str, str]]:
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{one.name}" for one in node.names]
            elif isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            found |= {(path.name, name) for name in names if name.partition(".")[0] == "matplotlib"}
    return found


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("colour", "least"), [(plots.INK, 7), (plots.FAINT, 4.5), *((one, 2) for one in plots.COLOURS)]
)
def test_colours_stand_out_from_the_white_ground(colour: str, least: float) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= least


def test_letters_can_be_read_on_a_telephone() -> None:
    sizes = [value for key, value in plots.STYLE.items() if key.endswith("size") and key != "lines.markersize"]
    across = 390 / (72 * plots.WIDTH)  # CSS pixels for each point, where a figure is as wide as the screen
    assert min(sizes) * across >= 9


def test_series_differ_by_more_than_colour() -> None:
    series = [plots.Series(str(index), [0, 1], [index, index]) for index in range(6)]
    for figure in (
        plots.curves(series, x_label="x", y_label="y"),
        plots.scatter({"": series}, x_label="x", y_label="y"),
    ):
        lines = figure.axes[0].lines
        assert len({str(line.get_marker()) for line in lines}) == 6
        assert len({str(line.get_color()) for line in lines}) == 6
    long = [plots.Series(str(index), range(100), [index] * 100) for index in range(4)]
    lines = plots.curves(long, x_label="x", y_label="y").axes[0].lines
    assert {str(line.get_marker()) for line in lines} == {"none"}  # too many points, so their lines differ
    assert len({line.get_linestyle() for line in lines}) == 4


def test_series_of_one_look_are_full_and_hollow() -> None:
    series = [plots.Series("a", [0], [0], look=3), plots.Series("b", [1], [1], look=3, hollow=True)]
    full, hollow = plots.scatter({"": series}, x_label="x", y_label="y").axes[0].lines
    assert full.get_color() == hollow.get_color() and full.get_marker() == hollow.get_marker()
    assert full.get_markerfacecolor() == full.get_color() and hollow.get_markerfacecolor() == "none"


def test_points_without_a_number_are_left_out() -> None:
    series = plots.Series("loss", [0, 1, 2, 3], [0.5, NAN, 0.25, float("inf")])
    (line,) = plots.curves([series], x_label="step", y_label="loss").axes[0].lines
    assert np.asarray(line.get_xydata()).tolist() == [[0, 0.5], [2, 0.25]]


def test_a_legend_stands_where_there_is_something_to_tell_apart() -> None:
    one = [plots.Series("only", [0, 1], [0, 1])]
    assert not plots.curves(one, x_label="x", y_label="y").legends
    (legend,) = plots.curves(one, x_label="x", y_label="y", levels={"all background": 0.5}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["only", "all background"]
    (legend,) = FIGURES["scatter"]().legends
    assert [text.get_text() for text in legend.get_texts()] == ["run 0", "run 1", "run 2"]


def test_panels_share_their_axes_and_say_where_lines_begin_and_end() -> None:
    upper, lower = FIGURES["scatter"]().axes
    assert upper.get_xlim() == lower.get_xlim() and upper.get_ylim() == lower.get_ylim()
    assert (upper.get_xlabel(), lower.get_xlabel()) == ("", "x")
    assert [(text.get_text(), text.xy) for text in upper.texts] == [("a", (0, 0)), ("b", (2, 0.5))]


def test_a_distribution_has_a_dot_for_each_image_and_names_the_lowest() -> None:
    axes = FIGURES["distributions"]().axes[0]
    dots = [one for one in axes.collections if isinstance(one, PathCollection)]
    values = [np.asarray(one.get_offsets())[:, 0].tolist() for one in dots]
    assert values == [[0.9, 0.8], [0.7, 0.8, 0.6]]
    heights = [np.asarray(one.get_offsets())[:, 1] for one in dots]
    np.testing.assert_allclose(heights[1][:2] - 1, heights[0])  # in every row the same image is as high
    assert [text.get_text() for text in axes.texts] == ["b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["unet", "fcn"]
    (bar,) = axes.patches
    assert bar.get_window_extent().x0 == pytest.approx(axes.transData.transform((0.8, 0))[0])
    assert bar.get_window_extent().x1 == pytest.approx(axes.transData.transform((0.9, 0))[0])
    equal = [Distribution("equal", {"a": 0.5, "b": 0.5})]
    assert not plots.distributions(equal, x_label="x", named="lowest").axes[0].texts


def test_means_without_dots_are_in_digits() -> None:
    rows = [Distribution("a", {}, -0.5, -0.75, -0.25), Distribution("b", {}, 0.123456)]
    axes = plots.distributions(rows, x_label="x", zero=True).axes[0]
    assert [text.get_text() for text in axes.texts] == ["-0.5000", "0.1235"]
    assert [text.xy for text in axes.texts] == [(-0.25, 0), (0.123456, 1)]


def test_an_event_is_labelled_and_a_logarithmic_axis_has_plain_ticks() -> None:
    series = [plots.Series("loss", [0, 10], [0.01, 1])]
    axes = plots.curves(series, x_label="x", y_label="y", event=(10, "best: step 10"), logarithmic=True).axes[0]
    assert [text.get_text() for text in axes.texts] == ["best: step 10"]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert axes.get_yscale() == "log" and {"0.01", "0.02", "0.1", "1"} <= set(ticks)


def test_series_of_one_name_share_an_entry_of_the_legend() -> None:
    series = [plots.Series("seed 0", [0, 1], [0, 1], 0), plots.Series("seed 0", [0, 1], [1, 0], 0)]
    series.append(plots.Series("seed 1", [0, 1], [1, 1], 1))
    (legend,) = plots.curves(series, x_label="x", y_label="y").legends
    assert [text.get_text() for text in legend.get_texts()] == ["seed 0", "seed 1"]


def test_inline_svg_is_an_element_without_ids_or_colours_of_its_own() -> None:
    drawn = [plots.inline_svg(FIGURES["distributions"](), name) for name in ("one", "other")]
    ids = [re.findall(r' id="([^"]*)"', svg) for svg in drawn]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    for svg, known in zip(drawn, ids, strict=True):
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg") and not re.findall("#[0-9a-f]{6}|<style|<metadata|<a ", svg)
        assert set(re.findall(r'(?:url\(|href=")#([^)"]*)', svg)) <= set(known)
        assert "b: 0.8000" in [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
        assert "var(--ink)" in svg and "var(--series-0)" in svg
    assert plots.inline_svg(FIGURES["distributions"](), "one") == drawn[0]


def test_names_are_text_whatever_they_hold() -> None:
    name = "<script>$x^2$ \"&' #24292f 細胞"
    svg = plots.inline_svg(plots.distributions([Distribution("a", {name: 1.0, "b": 2.0})], x_label=name), "one")
    texts = ["".join(one.itertext()) for one in ElementTree.fromstring(svg).iter()]
    assert name in texts and f"{name}: 1.0000" in texts


def test_every_colour_has_a_css_variable() -> None:
    assert {colour.lower() for colour in (plots.INK, plots.FAINT, plots.GRID, *plots.COLOURS)} < set(
        plots.CSS_VARIABLES
    )
    css = (Path(yeastexp.__file__).parent / "report" / "templates" / "page.css").read_text()
    assert all(css.count(f"{name}:") == 3 for name in plots.CSS_VARIABLES.values()), "light, dark and print"


def test_shapes_are_drawn_to_scale() -> None:
    axes = plots.to_scale({"patch": (64, 32)}, {"cell": 20}, label="pixels").axes[0]
    assert axes.get_aspect() == 1
    boxes = [patch.get_path().get_extents(patch.get_patch_transform()) for patch in axes.patches]
    assert [(round(box.width, 6), round(box.height, 6)) for box in boxes] == [(32, 64), (20, 20)]


def test_pairs_are_sorted_from_loss_to_gain() -> None:
    figure = plots.paired(
        ["gain", "lacking", "same", "loss"], [0.5, NAN, 0.6, 0.9], [0.7, 0.4, 0.6, 0.3], labels=("a", "b"), x_label="x"
    )
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["loss", "same", "gain"]
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines] == [[0.9, 0.6, 0.5], [0.3, 0.6, 0.7]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is on top"
    before, after = axes.lines
    assert before.get_markersize() > after.get_markersize() and before.get_markerfacecolor() == "none"


def test_many_pairs_name_some_rows_and_shorten_long_names() -> None:
    names = [f"a_long_name_of_an_image_{index:03d}" for index in range(200)]
    figure = plots.paired(names, [0.5] * 200, [0.6] * 200, labels=("a", "b"), x_label="x")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 40 and labels[1] == "…_name_of_an_image_005" and max(map(len, labels)) <= plots.LONGEST_NAME


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plots.curves([], x_label="x", y_label="y"),
        lambda: plots.distributions([], x_label="x"),
        lambda: plots.distributions([Distribution("a", {})], x_label="x", named="lowest", zero=True),
        lambda: plots.paired([], [], [], labels=("a", "b"), x_label="x"),
        lambda: plots.to_scale({}, {}, label="pixels"),
    ],
)
def test_nothing_to_show_is_an_empty_figure(figure) -> None:  # type: ignore[no-untyped-def]
    assert plots.encode(figure(), "svg")


@pytest.mark.parametrize("name", ["plot.png", "plot.SVG", "new/folder/plot.svg"])
def test_saving_goes_by_the_name(tmp_path: Path, name: str) -> None:
    figure = FIGURES["paired"]()
    plots.save(figure, tmp_path / name)
    assert (tmp_path / name).read_bytes() == plots.encode(figure, "png" if name.endswith("png") else "svg")


def test_a_name_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plot\.jpg: figures are written as \.png or \.svg; use one of these suffixes"):
        plots.save(FIGURES["paired"](), tmp_path / "plot.jpg")
    assert not list(tmp_path.iterdir())


def test_histograms_share_bins_and_have_lines_of_their_own() -> None:
    figure = plots.histograms({"true": [1.0, 2, 2, 9], "found": [2.0, 2, 3]}, x_label="size (px)", y_label="cells")
    (axes,) = figure.axes
    filled, first, second = axes.patches
    assert (filled.get_data().edges == second.get_data().edges).all()
    assert (sum(first.get_data().values), sum(second.get_data().values)) == (4, 3)
    assert first.get_linestyle() != second.get_linestyle()
    many = plots.histograms({"a": [*[0.001 * n for n in range(999)], 1e6]}, x_label="x", y_label="y")
    assert len(many.axes[0].patches[0].get_data().values) == plots.MOST_BINS
    assert plots.histograms({"none": []}, x_label="x", y_label="y").axes


def test_bland_altman_has_a_dot_for_each_pair_of_numbers() -> None:
    counts = {"a": (10.0, 8.0), "b": (10.0, 8.0), "c": (4.0, 6.0), "d": (math.nan, 3.0)}
    figure = plots.bland_altman(
        counts, mean=-0.5, interval=(-2, 1), limits=(-5, 4), x_label="mean", y_label="difference"
    )
    (axes,) = figure.axes
    (dots,) = axes.collections
    assert dots.get_offsets().tolist() == [[9, -2], [5, 2]] and dots.get_sizes().tolist() == [60, 30]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean -0.5", "limits -5 and +4"]
    assert ">a: 10, 8; b: 10, 8<" in plots.inline_svg(figure, "counts")
    missing = math.nan, math.nan
    alone = plots.bland_altman({}, mean=math.nan, interval=missing, limits=missing, x_label="x", y_label="y")
    assert not alone.legends
