"""Cells of masks in every place that shows them, all of which call them approximate; cells of held-out images."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import Page
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from yeastexp.data import images
from yeastexp.evaluation.compare import as_json, compare, findings, tables
from yeastexp.evaluation.crossval import crossval
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.evaluation.record import EVALUATION, sentences
from yeastexp.evaluation.record import tables as tables_of
from yeastexp.metrics import baselines
from yeastexp.prediction.predictor import load_predictor
from yeastexp.report import cells, crossval_folder, crossval_page, report
from yeastexp.tasks.mask_cells import METHOD
from yeastexp.training.build import build_dataset

QUICK = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"
OF_CELLS = re.compile(r"average_precision|\bcount\b|cells found|found cells")
NOT_SCORES = re.compile(r"\[task\]|^average_precision, count: |^(True|Found) cell of |^count = \d")
"""The experiment, its caution, and what is below a crop, whose legend says it."""


@pytest.fixture(scope="module")
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory, printed: io.StringIO) -> Path:
    """Two folds of a semantic task whose cells are scored; not to be written to."""
    folder = tmp_path_factory.mktemp("folded")
    text = QUICK.read_text().replace('name = "instances"', 'name = "semantic"')
    (folder / "masks.toml").write_text(text)
    settings = ["train.steps=20", "dataset.images=4", "patches.size=32", "runtime.threads=1", "augment=[]"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(baselines, "fit_threshold", lambda samples: baselines.Threshold(0.0, True, 0.0))
        patched.chdir(folder)
        console = Console(file=printed, width=200)
        return (folder / crossval(folder / "masks.toml", settings, folds=2, console=console)).resolve()


@pytest.fixture(scope="module")
def page_of_folds(folded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([folded], output=tmp_path_factory.mktemp("page") / "page.html")


def text_of(*shown: object) -> list[str]:
    """What a command prints, line by line."""
    console = Console(file=io.StringIO(), width=200)
    for each in shown:
        console.print(each)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def lines_of(page: Path) -> list[str]:
    read = Page(page)
    names = (value for _, given in read.elements for key, value in given.items() if key == "aria-label" and value)
    return [text.strip() for text in (*read.texts, *names)]


def assert_called_approximate(lines: list[str]) -> None:
    shown = [line for line in lines if OF_CELLS.search(line) and not NOT_SCORES.search(line)]
    assert shown and [line for line in shown if "approximate" not in line.lower()] == []


def test_every_place_calls_the_cells_of_a_mask_approximate(
    folded: Path, page_of_folds: Path, printed: io.StringIO, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(folded / "seed_0_fold_1", tmp_path / "runs" / "masks" / "001"))
    assert_called_approximate(printed.getvalue().splitlines())
    assert f"cells {METHOD}" in printed.getvalue()
    for name in (folded / "crossval.json", run / "result.json"):
        assert json.loads(name.read_text())["approximate"] == ["average_precision", "count"]

    folder, evaluation = evaluate(run)
    assert_called_approximate([*text_of(*tables_of(evaluation)), *sentences(evaluation)])
    assert json.loads((folder / EVALUATION).read_text())["approximate"] == ["average_precision", "count"]

    other = Path(shutil.copytree(run, tmp_path / "runs" / "other" / "001"))
    compared = compare([run, other], metric="count")
    assert METHOD in " ".join(findings(compared))
    assert [each["approximate"] for each in as_json(compared)["runs"]] == [True, True]
    assert all(run.label.endswith("(approximate cells)") for run in compared.runs)
    assert [line for line in text_of(*tables(compared)) if "masks/001" in line and "approximate" not in line] == []
    assert not any(each["approximate"] for each in as_json(compare([run, other], metric="iou"))["runs"])

    for path in (report([run], output=tmp_path / "page.html"), page_of_folds):
        assert_called_approximate(lines_of(path))
    page = Page(report([run, other], output=tmp_path / "page.html"))
    assert {row[1] for row in page.table("scores of cells")[1:]} == {
        f"{name}/001 (approximate cells)" for name in ("masks", "other")
    }

    for events in (run, *(run / "baselines").iterdir()):
        tags = EventAccumulator(str(events)).Reload().Tags()["scalars"]
        of_cells = [tag for tag in tags if OF_CELLS.search(tag) or "/count" in tag]
        assert of_cells and all("_approximate" in tag for tag in of_cells), events
        assert any(tag == "val/iou/cell" for tag in tags)


def test_held_out_images_have_ids_whose_errors_the_page_shows(folded: Path, page_of_folds: Path) -> None:
    cv = crossval_folder.read(folded)
    surveyed = crossval_page.surveyed_cells(cv, crossval_page.source_of(cv))
    assert isinstance(surveyed, cells.SurveyedCells) and surveyed.approximate
    counts = cells.stored_counts(cv.scores)
    assert surveyed.survey.counts == {name: tuple(map(int, pair)) for name, pair in counts.items()} and counts
    for fold_run in cv.fold_runs:
        predictor = load_predictor(fold_run.files.path, "last")
        dataset = build_dataset(predictor.experiment)
        for name in dataset.splits["val"]:
            ids = images.read_mask(cv.cells(name))
            asked = predictor.predict(dataset.read(name)).asked({"instances"})["instances"]
            assert ids.dtype == np.uint16 and (ids == asked.numpy()).all()
    page = Page(page_of_folds)
    assert f"Of {sum(true for true, _ in counts.values()):.0f} true cells in 4 images" in page.text
    assert "approximate found cell (thin, orange)" in page.text and "No sizes" not in page.text
    assert any((given.get("aria-label") or "").startswith("Sizes of cells") for given in page.all("div"))


def test_of_a_folder_without_ids_the_counts_are_shown(folded: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(folded, tmp_path / "older"))
    shutil.rmtree(older / "seed_0_fold_2" / "cells")
    page = Page(report([older], output=tmp_path / "page.html"))
    assert f"-o {older} writes it anew" in page.text and "cells found minus true" not in page.texts
    labels = [given.get("aria-label") or "" for given in page.all("div")]
    assert any(label.startswith("Cells per image: ") for label in labels)
    assert not any(label.startswith("Sizes of cells") for label in labels)
    assert any("worst: " in text for text in page.texts), "the pictures of whole images are there"


def test_a_comparison_shows_counts_and_sizes_of_both(folded: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folded, tmp_path / "runs" / "other"))
    page = Page(report([folded, other], output=tmp_path / "page.html"))
    rows = page.table("scores of cells")
    assert [row[0] for row in rows[1::2]] == [
        "average_precision",
        "average_precision of AP50",
        "count error, share of true cells",
        "cells found",
    ]
    found = np.mean([pair[1] for pair in cells.stored_counts(crossval_folder.read(folded).scores).values()])
    assert [float(row[2]) for row in rows[-2:]] == pytest.approx([found, found], rel=1e-3)
    assert rows[-2][3:] == ["", "", ""] and rows[-1][3:] == ["+0.0000", "+0.0000 to +0.0000", "1.0000"]
    labels = [given.get("aria-label") or "" for given in page.all("div")]
    assert sum(label.startswith("Cells per image: ") for label in labels) == 2
    (sizes,) = (label for label in labels if label.startswith("Sizes of cells"))
    assert sizes.count("found by ") == 2 and "true: median" in sizes


def test_scores_that_are_counted_with_other_options_are_not_paired(folded: Path, tmp_path: Path) -> None:
    """As in `compare`, whatever score the page is by."""
    run = folded / "seed_0_fold_1"
    other = Path(shutil.copytree(run, tmp_path / "runs" / "other"))
    experiment = other / "experiment.toml"
    before, metric, after = experiment.read_text().partition('name = "average_precision"\n')
    assert after.startswith("ignore_border = 0")
    experiment.write_text(before + metric + after.replace("ignore_border = 0", "ignore_border = 20", 1))
    page = Page(report([run, other], metric="iou", output=tmp_path / "page.html"))
    assert {row[0] for row in page.table("scores of cells")[1:]} == {"count error, share of true cells", "cells found"}
    said = "average_precision: not paired, as runs count with other options, or on other data files."
    assert any(said in text for text in page.texts)
