"""Figures: what they show, the same bytes whenever they are drawn, and nothing told by colour alone."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import yeastexp
from yeastexp.drawing import plots
from yeastexp.errors import UserError

NAN = float("nan")


SERIES = [plots.Series(f"run {index}", [0, 1, 2], [0.1 * index, 0.3, 0.5]) for index in range(3)]
FIGURES: dict[str, Callable[[], plots.Figure]] = {
    "curves": lambda: plots.curves(SERIES, x_label="step", y_label="loss", levels={"threshold": 0.5}),
    "scatter": lambda: plots.scatter(
        {"one": SERIES, "two": SERIES}, x_label="x", y_label="y", joined=True, ends=("a", "b")
    ),
    "strip": lambda: plots.strip(
        {"unet": [0.9, 0.8, NAN], "fcn": [0.7, 0.6, 0.8]},
        y_label="IoU",
        names=["a", "b", "c"],
        intervals={"unet": (0.85, 0.8, 0.9)},
    ),
    "paired": lambda: plots.paired(["a", "b"], [0.5, 0.6], [0.7, 0.4], labels=("one", "other"), x_label="IoU"),
    "matrix": lambda: plots.matrix(np.array([[90, 10], [5, 15]]), ["background", "cell"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_bytes_whenever_it_is_drawn(name: str) -> None:
    figure, again = FIGURES[name](), FIGURES[name]()
    png, svg = plots.rendered(figure, "png"), plots.rendered(figure, "svg")
    assert png.startswith(b"\x89PNG") and svg.startswith(b"<?xml")
    assert (plots.rendered(again, "svg"), plots.rendered(again, "png")) == (svg, png)
    assert b"<dc:date>" not in svg and b"Software" not in png


def test_the_users_own_style_changes_nothing_and_is_left_as_it_was() -> None:
    wanted = plots.rendered(FIGURES["curves"](), "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert plots.rendered(FIGURES["curves"](), "svg") == wanted
        assert dict(matplotlib.rcParams) == before


def test_one_room_knows_matplotlib_and_none_its_global_state() -> None:
    found = _imports_of_matplotlib(Path(yeastexp.__file__).parent)
    assert {path for path, _ in found} == {"plots.py"}
    assert not any("pyplot" in name for _, name in found)


def _imports_of_matplotlib(house: Path) -> set[tuple[str, str]]:
    found = set()
    for path in house.rglob("*.py"):
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


def test_a_strip_has_a_dot_an_image_and_names_the_lowest() -> None:
    axes = FIGURES["strip"]().axes[0]
    unet, fcn = axes.lines
    assert np.asarray(unet.get_ydata()).tolist() == [0.9, 0.8] and np.asarray(fcn.get_ydata()).tolist() == [
        0.7,
        0.6,
        0.8,
    ]
    places = [np.asarray(line.get_xdata(), dtype=float) for line in (unet, fcn)]
    np.testing.assert_allclose(places[1] - 1, [-0.28, 0, 0.28])
    np.testing.assert_allclose(places[0], [-0.28, 0])  # an image keeps its place where another lacks its score
    assert [text.get_text() for text in axes.texts] == ["b", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["unet", "fcn"]


def test_an_interval_is_a_line_on_a_band() -> None:
    axes = plots.strip(
        {"a": [1.0, 2.0], "b": [3.0]}, y_label="y", intervals={"a": (1.5, 1, 2), "b": (3, NAN, NAN)}
    ).axes[0]
    boxes = [one.get_datalim(axes.transData) for one in axes.collections]
    assert [(round(box.y0, 9), round(box.y1, 9)) for box in boxes] == [(1, 2), (1.5, 1.5), (3, 3)]


def test_long_names_of_columns_are_broken_into_lines() -> None:
    names = ["all images, as the sheet asks", "the training images alone", "each image", "nothing at all"]
    axes = plots.strip({name: [0.5] for name in names}, y_label="y").axes[0]
    assert [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()] == names
    assert max(len(line) for label in axes.get_xticklabels() for line in label.get_text().splitlines()) <= 14


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


def test_a_matrix_says_shares_of_each_row_and_counts() -> None:
    figure = plots.matrix(np.array([[2_000_000, 0, 0], [1, 2, 1], [0, 0, 0]]), ["background", "cell", "bud"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:3] == ["100.0%\n2,000,000", "0.0%\n0", "0.0%\n0"]
    assert texts[3:] == ["25.0%\n1", "50.0%\n2", "25.0%\n1", "–\n0", "–\n0", "–\n0"]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plots.curves([], x_label="x", y_label="y"),
        lambda: plots.strip({}, y_label="y"),
        lambda: plots.strip({"a": [NAN]}, y_label="y", names=["one"], intervals={"a": (NAN, NAN, NAN)}),
        lambda: plots.paired([], [], [], labels=("a", "b"), x_label="x"),
        lambda: plots.matrix(np.zeros((1, 1), np.int64), ["only"]),
    ],
)
def test_nothing_to_show_is_an_empty_figure(figure) -> None:  # type: ignore[no-untyped-def]
    assert plots.rendered(figure(), "svg")


@pytest.mark.parametrize("name", ["plot.png", "plot.SVG", "new/folder/plot.svg"])
def test_saving_goes_by_the_name(tmp_path: Path, name: str) -> None:
    figure = FIGURES["paired"]()
    plots.save(figure, tmp_path / name)
    assert (tmp_path / name).read_bytes() == plots.rendered(figure, "png" if name.endswith("png") else "svg")


def test_a_name_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plot\.jpg: figures are written as \.png or \.svg; name such a file"):
        plots.save(FIGURES["paired"](), tmp_path / "plot.jpg")
    assert not list(tmp_path.iterdir())
