"""Cells of a page: charts of counts and sizes, and crops of what is told apart wrongly."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Page
from rich.console import Console
from test_cell_events import blank, made, sample
from test_outlines import filled

from yeastexp.evaluation import record
from yeastexp.evaluation.cells import CellSurvey
from yeastexp.evaluation.compare import compare
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.metrics import baselines
from yeastexp.report import cells, gallery, predictions, report, run_files
from yeastexp.report.html import Charts, Gallery, GalleryImage, Paragraph
from yeastexp.training.run import run

QUICK = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"


def blocks(survey: CellSurvey, pixel_um: float | None = None) -> tuple[Charts, Paragraph, Gallery]:
    charts, summary, shown = cells.blocks(cells.SurveyedCells(survey, [pixel_um], approximate=False))
    assert isinstance(charts, Charts) and isinstance(summary, Paragraph) and isinstance(shown, Gallery)
    return charts, summary, shown


def scene() -> CellSurvey:
    survey = CellSurvey(cells.MOST_CROPS)
    survey.add(sample(made()[0], "made"), made()[1])
    return survey


def drawn(picture: GalleryImage, category: str, *, faint: bool = False) -> np.ndarray:
    paths = [overlay.path for overlay in picture.overlays if (overlay.category, overlay.faint) == (category, faint)]
    return filled("".join(paths), (picture.height, picture.width)) > 0


def test_whatever_is_wrong_in_a_scene_is_in_the_gallery() -> None:
    _, summary, shown = blocks(scene())
    assert {picture.heading: picture.description for picture in shown.images} == {
        "missed: true cell 5": "True cell of 16 pixels: nothing found there.",
        "false: found cell 15": "Found cell of 9 pixels: no true cell there.",
        "split: true cell 2": "True cell of 32 pixels, found as found cells 12, 13.",
        "merged: found cell 14": "Found cell of 24 pixels, which covers true cells 3, 4.",
        "IoU 0.75: cell 6": "True cell of 16 pixels, matched with found cell 16.",
    }
    assert {picture.note for picture in shown.images} == {"made"}
    assert summary.text.startswith(
        "Of 6 true cells in 1 image, 1 are missed and 1 split; of 6 found cells, 1 are false and 1 merge several."
    )
    true, found = made()
    involved = {"missed": ([5], []), "false": ([], [15]), "split": ([2], [12, 13]), "merged": ([3, 4], [14])}
    for picture in shown.images[:-1]:
        of_true, of_found = involved[picture.heading.split(":")[0]]
        for category, ids, members in (("true-cell", true, of_true), ("found-cell", found, of_found)):
            assert (drawn(picture, category) == np.isin(ids, members)).all()
            assert (drawn(picture, category, faint=True) == ((ids > 0) & ~np.isin(ids, members))).all()


def test_counts_and_sizes_are_described() -> None:
    survey = scene()
    survey.add(sample(made()[0], "empty"), blank())
    counts, sizes = blocks(survey, 0.5)[0].charts
    assert counts.description == (
        "Cells per image: cells found minus true, per image: mean -3, 95 % interval -41.1 to +35.1, limits of "
        "agreement -11.3 to +5.32 (2 images)."
    )
    assert "empty: 6, 0" in counts.svg and ">found − true cells<" in counts.svg
    assert ">equivalent diameter (µm)<" in sizes.svg and ">true (12)<" in sizes.svg and ">found (6)<" in sizes.svg
    assert "true: median 2.26 µm" in sizes.note
    assert ">equivalent diameter (px)<" in blocks(survey)[0].charts[1].svg


@pytest.mark.parametrize("true", [blank(), made()[0]])
def test_scenes_without_errors_or_cells_have_no_gallery(true: np.ndarray) -> None:
    survey = CellSurvey(cells.MOST_CROPS)
    survey.add(sample(true), true)
    charts, summary = cells.blocks(cells.SurveyedCells(survey, [None], approximate=False))
    assert isinstance(charts, Charts) and not any(re.search(r"\bnan\b", chart.svg) for chart in charts.charts)
    assert isinstance(summary, Paragraph) and summary.text.endswith("All outlines agree to the pixel.")


def test_cells_that_touch_have_outlines_of_their_own() -> None:
    true, found = made()
    predicted = gallery.PredictedImage(sample(true), (found > 0).astype(np.int64), "worst: a", "", found)
    (picture,) = gallery.overlay_gallery([predicted]).images
    paths = {overlay.category: overlay.path for overlay in picture.overlays}
    assert (paths["ground-truth"].count("M"), paths["prediction"].count("M")) == (6, 6)
    assert (filled(paths["ground-truth"], true.shape) == (true > 0)).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has just begun to tell cells apart."""
    settings = ["train.steps=12", "dataset.images=5", "patches.size=32", "runtime.threads=1"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(baselines, "fit_threshold", lambda samples: baselines.Threshold(0.0, True, 0.0))
        patched.chdir(tmp_path_factory.mktemp("trained"))
        return run(QUICK, settings, console=Console(file=io.StringIO())).resolve()


def test_the_page_of_a_run_shows_its_cells(trained: Path, tmp_path: Path) -> None:
    _, evaluation = evaluate(trained)
    page = Page(report([trained], output=tmp_path / "page.html"))
    counted = evaluation.cells["cell"]
    assert f"Of {counted['true']} true cell" in page.text and f"true ({counted['true']})" in page.text
    assert "cells found" in page.text and "of another experiment" not in page.text
    rows = {(row[0], row[1]): row for row in page.table("validation images; best checkpoint")}
    for name in ("true", "found", "split", "merged", "missed", "false"):
        pooled = evaluation.summary["count"][name]["pooled"]
        assert rows["count", name][4] == f"{pooled:g}" and (name != "true" or pooled == counted["true"])
    assert {"panoptic_quality", "seg", "average_precision", "iou"} <= {metric for metric, _ in rows}
    assert (
        f"Cell: {counted['true']} told apart in the ground truth, {counted['predicted']} in the prediction."
        in page.text
    )
    labels: list[Any] = [given.get("aria-label") or "" for given in page.all("div")]
    assert any(label.startswith("Cells per image: ") for label in labels)
    assert any(label.startswith("cells with an error on validation images") for label in labels)
    assert any(label.startswith("number of cells per image") for label in labels)


def test_without_the_images_counts_are_those_that_were_stored(trained: Path) -> None:
    scores = run_files.read(trained).scores["val"]
    (charts,) = predictions.cell_blocks(run_files.read(trained), "gone")
    assert isinstance(charts, Charts) and len(charts.charts) == 1
    assert f"({len(scores['count', 'true'])} images)" in charts.charts[0].description
    assert list(cells.stored_blocks({("iou", "cell"): {"a": 0.5}}, approximate=False)) == []


def test_cells_at_the_border_are_left_out_in_a_folder_of_their_own(trained: Path) -> None:
    plain, whole = evaluate(trained)
    folder, inner = evaluate(trained, ignore_border=8)
    assert folder != plain and inner.ignore_border_px == 8 and whole.ignore_border_px is None
    assert inner.summary["count"]["true"]["pooled"] < whole.summary["count"]["true"]["pooled"]
    assert inner.summary["iou"] == whole.summary["iou"] and inner.cells == whole.cells
    assert "cells within 8 pixels of the border left out" in record.title(inner)


def test_runs_are_compared_by_the_first_metric_of_their_task(trained: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "runs" / "other" / "001"))
    comparison = compare([trained, other])
    assert comparison.selection.metric == "average_precision"
    halves = compare([trained, other], metric="count", class_name="missed")
    assert halves.higher_is_better is False and halves.pairs[0].difference.mean == 0
    assert compare([trained, other], metric="count", class_name="true").higher_is_better is None
