"""The page of a run, a cross-validation and a comparison: the numbers of their files, and nothing from elsewhere."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pages import Page
from rich.console import Console
from test_evaluate import LONGER, changed, data_of, trained
from tiny import EXPERIMENT, image, write_data

from yeastexp.cli import commands
from yeastexp.data import hdf5_file
from yeastexp.errors import UserError
from yeastexp.evaluation.compare import compare, findings, title
from yeastexp.evaluation.crossval import crossval
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.metrics import baselines
from yeastexp.report import MARKER, report
from yeastexp.system.formatting import format_interval, format_score

HOSTILE_IMAGE = '"><img src=x onerror=alert(1)> & '
HOSTILE_CLASS = "\"><script>alert(2)<!--'&amp;{{1}}`x`"


@pytest.fixture(autouse=True, scope="module")
def no_search() -> Any:
    """Nothing here looks at how the threshold was fitted, which takes as long as all else."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(baselines, "fit_threshold", lambda samples: baselines.Threshold(0.0, True, 0.0))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a test split; not to be written to."""
    return trained(tmp_path_factory.mktemp("whole"), LONGER, train=4, val=5, test=3)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it; its data are where they were."""
    return Path(shutil.copytree(whole, tmp_path / "runs" / "tiny" / "001"))


@pytest.fixture(scope="module")
def shown(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Its page."""
    return Page(report([whole], output=tmp_path_factory.mktemp("shown") / "page.html"))


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds and two seeds; not to be written to."""
    folder = tmp_path_factory.mktemp("folded")
    write_data(folder / "data.h5")
    (folder / "tiny.toml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        console = Console(file=io.StringIO(), width=160)
        return (folder / crossval(folder / "tiny.toml", folds=3, repeats=2, console=console)).resolve()


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


def unfinished(run: Path) -> None:
    for name in ("result.json", "per_image.csv"):
        (run / name).unlink()


def assert_self_contained(page: Page) -> None:
    """No address in the page leads out of it."""
    for _, given in page.elements:
        for key, value in given.items():
            if key in ("src", "href", "srcset", "action", "data", "poster"):
                assert value and value.startswith(("data:image/", "#")), f"{key}={value!r}"
    assert "@import" not in page.source and not page.all("link") and not page.all("iframe")
    assert set(re.findall(r"url\(([^)#]*)", page.source)) <= {""}


def test_the_numbers_are_those_of_the_runs_files(whole: Path, shown: Page) -> None:
    page, found = shown, result(whole)
    rows = {tuple(row[:2]): row[2:] for row in page.table("validation images; best checkpoint")[1:]}
    for metric, by_class in found["val"]["best"].items():
        for name, row in by_class.items():
            beside = [found["val"]["last"], *found["baselines"].values()]
            interval = format_interval(row["low"], row["high"])
            expected = [format_score(row["per_image"]), interval, format_score(row["pooled"])]
            assert rows[metric, name] == expected + [format_score(one[metric][name]["per_image"]) for one in beside]
    (test_row,) = [row for row in page.table("test images, scored once") if row[:2] == ["iou", "cell"]]
    assert test_row[2] == format_score(found["test"]["iou"]["cell"]["per_image"])
    epochs = list(csv.DictReader((whole / "metrics.csv").read_text().splitlines()))
    rows_shown = page.table("metrics.csv")
    assert [row[1] for row in rows_shown[1:]] == [row["step"] for row in epochs]
    column = rows_shown[0].index("train/loss")
    assert [row[column] for row in rows_shown[1:]] == [f"{float(row['train/loss']):.4g}" for row in epochs]


def test_every_image_stands_in_a_table_the_worst_first(whole: Path, shown: Page) -> None:
    page = shown
    for split, count in (("val", 5), ("test", 3)):
        headings, *rows = page.table(f"{count} {split} images, the worst by mean iou first")
        written = csv.DictReader((whole / "per_image.csv").read_text().splitlines())
        scores = {
            row["image"]: float(row["score"])
            for row in written
            if (row["split"], row["metric"], row["class"]) == (split, "iou", "mean")
        }
        assert [row[0] for row in rows] == sorted(scores, key=lambda name: scores[name])
        assert [row[headings.index("iou mean")] for row in rows] == [f"{scores[row[0]]:.4f}" for row in rows]
    ranked = re.findall(r"(worst|median|best): (square_\d)", page.text)
    ordered = [row[0] for row in page.table("5 val images")[1:]]
    assert ranked == [("worst", ordered[0]), ("median", ordered[2]), ("best", ordered[4])]


def test_the_page_needs_nothing_beside_it(run: Path) -> None:
    target = report([run])
    assert target == run / "report.html"
    page = Page(target)
    assert_self_contained(page)
    assert len(page.all("img")) == 6 and all(str(one["src"]).startswith("data:image/jpeg") for one in page.all("img"))
    assert [given.get("lang") for given in page.all("html")] == ["en"]
    assert len(page.all("h1")) == 1 and len(page.all("title")) > 1
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert len(ids) == len(set(ids))
    policy = next(given["content"] for given in page.all("meta") if given.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'; img-src data:;")


def test_every_drawing_says_what_it_shows(shown: Page) -> None:
    drawings = [given for given in shown.all("div") if given.get("role") == "img"]
    assert len(drawings) >= 7 and all(given["aria-label"] for given in drawings)
    alternatives = [str(given["alt"]) for given in shown.all("img")]
    assert all(
        re.search(r"\d+ of \d+ foreground pixels missed; \d+ of \d+ predicted pixels are false alarms", one)
        for one in alternatives
    )


def test_the_confusion_matrix_has_every_pixel_and_the_counts_of_an_evaluation(run: Path, shown: Page) -> None:
    counted = shown.table("true and predicted")[1:]
    numbers = [[int(row[column].replace(",", "")) for column in (1, 3)] for row in counted]
    assert np.sum(numbers) == 5 * 32 * 32
    _, found = evaluate(run)
    assert numbers == found.confusion
    page = Page(report([run]))
    assert page.table("true and predicted")[1:] == counted and "computed for this page" not in page.text
    assert f"5 images of data (val); best checkpoint (step {found.step})" in page.text


def test_a_run_without_result_is_told_of_as_far_as_it_came(run: Path, shown: Page) -> None:
    complete = shown.table("validation images; best checkpoint")
    unfinished(run)
    page = Page(report([run]))
    assert "This run has no result" in page.text and f"resume {run}" in page.text
    rows = page.table("validation images; best checkpoint")
    assert [row[:5] for row in rows] == [row[:5] for row in complete]
    assert len(page.all("img")) == 6


def test_a_run_that_has_just_begun_has_a_page(run: Path) -> None:
    unfinished(run)
    (run / "metrics.csv").unlink()
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "pictures")
    page = Page(report([run]))
    assert "No epoch has finished" in page.text and "not been validated yet" in page.text
    assert not page.all("img")


def test_without_its_data_a_run_shows_the_pictures_it_drew(run: Path) -> None:
    changed(run, str(data_of(run)), "/gone/data.h5")
    page = Page(report([run]))
    assert "No overlays: the images are not available (no file '/gone/data.h5')" in page.text
    assert [str(given["alt"]).split()[1] for given in page.all("img")] == ["worst", "median", "best"]
    assert "the training images are not available" in page.text
    shutil.rmtree(run / "pictures")
    assert not Page(report([run])).all("img")


def test_names_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    def read(name: str) -> dict[str, np.ndarray]:
        return image(int(name[-1]))

    names = [f"{HOSTILE_IMAGE}{index}" for index in range(6)]
    hdf5_file.write(tmp_path / "data.h5", {"train": names[:3], "val": names[3:]}, read, provenance={})
    text = f"name = {json.dumps(HOSTILE_CLASS)}\n" + EXPERIMENT.replace('"cell"', json.dumps(HOSTILE_CLASS))
    (tmp_path / "tiny.toml").write_text(text)
    page = Page(report([trained_again(tmp_path)]))
    assert_self_contained(page)
    assert len(page.all("script")) == 1 and len(page.all("img")) == 6
    assert not any(key.startswith("on") for _, given in page.elements for key in given)
    assert names[3] in page.text and HOSTILE_CLASS in page.text


def trained_again(folder: Path) -> Path:
    """A run of the experiment that lies in a folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        done = CliRunner().invoke(commands, ["run", "tiny.toml"], catch_exceptions=False)
    return folder / done.stdout.splitlines()[-1]


THREE = EXPERIMENT.replace("channels = 1", "channels = 2").replace('"cell"]', '"cell", "dead"]')


def test_more_classes_more_channels_and_scores_that_are_missing(tmp_path: Path) -> None:
    def read(name: str) -> dict[str, np.ndarray]:
        one = image(int(name))
        truth = one["gt"].astype(np.int16)
        truth[:4] = -1
        if int(name) < 4:
            truth[20:24, 20:24] = 2
        return {"raw": np.stack([one["raw"], 2 * one["raw"]]), "gt": truth}

    (tmp_path / "tiny.toml").write_text(THREE)
    names = [str(index) for index in range(7)]
    hdf5_file.write(tmp_path / "data.h5", {"train": names[:3], "val": names[3:]}, read, provenance={})
    page = Page(report([trained_again(tmp_path)]))
    headings, *rows = page.table("4 val images")
    assert headings[1:5] == ["iou background", "iou cell", "iou dead", "iou mean"]
    looks = {str(given.get("class")) for given in page.all("path")}
    assert "overlay unlabelled" in looks and "overlay missed" in looks
    assert len(page.table("true and predicted")) == 4
    assert sum(int(row[-1].replace(",", "")) for row in page.table("true and predicted")[1:]) == 4 * 28 * 32
    assert all(len(row) == len(headings) for row in rows)


def test_an_older_report_is_overwritten_and_nothing_else(run: Path, tmp_path: Path) -> None:
    first = report([run])
    first.write_text(first.read_text() + "<!-- of last week -->")
    assert "of last week" not in report([run]).read_text()
    other = tmp_path / "thesis.html"
    other.write_text("<!DOCTYPE html><title>my thesis</title>" + " " * 2000 + MARKER)
    with pytest.raises(UserError, match=r"thesis\.html: exists and is not a report of yeastexp; choose another"):
        report([run], output=other)
    with pytest.raises(UserError, match="is a directory; give a file name"):
        report([run], output=tmp_path)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["report", str(tmp_path)])
    assert isinstance(done.exception, UserError) and done.exception.status == 2
    assert str(done.exception).startswith(f"{tmp_path}: neither a run nor a cross-validation")
    assert not list(tmp_path.iterdir())


def test_the_command_prints_where_the_page_is(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "pages" / "one.html"
    done = CliRunner().invoke(commands, ["report", str(run), "-o", str(target)], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, f"{target}\n")
    assert MARKER in target.read_text()[:1000]


def test_a_cross_validation_is_told_of_by_its_own_figures(folded: Path, tmp_path: Path) -> None:
    page = Page(report([folded], output=tmp_path / "folded.html"))
    assert_self_contained(page)
    found = json.loads((folded / "crossval.json").read_text())
    (row,) = [
        row
        for row in page.table("6 images, out-of-fold predictions of the last checkpoints")
        if row[:2] == ["iou", "cell"]
    ]
    expected = found["scores"]["iou"]["cell"]
    assert row[2] == format_score(expected["per_image"]) and row[5] == format_score(expected["between_seeds"])
    headings, *turns = page.table("6 runs; means over the held-out images")
    for seed, fold, count, *scores in turns:
        last = result(folded / f"seed_{seed}_fold_{fold}")["val"]["last"]
        assert (count, scores[0]) == ("2", format_score(last["iou"]["cell"]["per_image"]))
    assert headings[3] == "iou of cell"
    assert sum(int(row[-1].replace(",", "")) for row in page.table("true and predicted")[1:]) == 2 * 6 * 32 * 32
    assert len(page.all("img")) == 3 and "prediction: seed 0, fold" in page.text
    assert len(page.table("6 images, the worst by mean iou first; means over seeds")) == 7


def test_the_command_that_repeats_a_cross_validation_is_told(folded: Path) -> None:
    again = f"python -m yeastexp crossval {folded}/experiment.toml --folds {folded}/folds.json --repeats 2"
    assert f"To repeat it: {again}" in Page(report([folded])).text


def test_a_cross_validation_that_was_cut_short_has_a_page(folded: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folded, tmp_path / "001"))
    for name in ("crossval.json", "per_image.csv", "seed_1_fold_3/result.json"):
        (copied / name).unlink()
    page = Page(report([copied]))
    assert "5 of the 6 runs begun so far have finished" in page.text and "seed 1, fold 3 has not finished" in page.text
    assert len(page.table("5 runs; means")) == 6 and not page.all("img")


def test_runs_that_were_begun_after_the_result_are_not_mixed_into_it(folded: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folded, tmp_path / "001"))
    further = Path(shutil.copytree(copied / "seed_1_fold_1", copied / "seed_2_fold_1"))
    (further / "result.json").unlink()
    shutil.rmtree(further / "predictions")
    experiment = further / "experiment.toml"
    experiment.write_text(experiment.read_text().replace("seed = 1", "seed = 2"))
    before, page = (Page(report([each], output=tmp_path / "page.html")) for each in (folded, copied))
    assert page.table("pixels by") == before.table("pixels by")
    assert "Not in this page: seed 2, begun since." in page.text and "with 2 seeds" in page.text


@pytest.mark.parametrize("damage", ["no fold", "no mask", "no image"])
def test_without_predictions_a_cross_validation_has_its_scores(folded: Path, tmp_path: Path, damage: str) -> None:
    copied = Path(shutil.copytree(folded, tmp_path / "001"))
    mask = sorted(copied.glob("seed_1_fold_2/predictions/*.png"))[0]
    if damage == "no fold":
        shutil.rmtree(copied / "seed_1_fold_2")
    elif damage == "no mask":
        mask.unlink()
    else:
        mask.write_bytes(b"no image")
    page = Page(report([copied]))
    assert f"{mask}: is missing or damaged" in page.text and not page.all("img")
    assert page.table("6 images, out-of-fold predictions of the last checkpoints")


def test_a_comparison_says_what_compare_says(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path(shutil.copytree(run, run.parent / "002"))
    changed(other, "seed = 0", "seed = 1")
    rows = (other / "per_image.csv").read_text().splitlines()
    (other / "per_image.csv").write_text("\n".join(_lowered(row) for row in rows) + "\n")
    monkeypatch.chdir(tmp_path)
    target = report([run, other])
    assert target == Path("report.html")
    page, done = Page(target), compare([run, other])
    assert_self_contained(page)
    assert all(sentence in page.text for sentence in findings(done))
    assert page.tables["iou of cell"][1:] == [
        [name, *(format_score(row[index]) for row in done.scores)] for index, name in enumerate(done.images)
    ]
    assert ["train.seed", "0", "1"] in page.table("what differs in the experiment")
    assert set(re.findall(r">(square_\d)</text>", page.source)) == set(done.images)


def test_a_comparison_is_by_the_metric_and_class_that_are_asked_for(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, run.parent / "002"))
    page = Page(report([run, other], output=tmp_path / "both.html", metric="dice", class_name="background"))
    done = compare([run, other], metric="dice", class_name="background")
    assert all(sentence in page.text for sentence in findings(done)) and title(done) in page.text
    assert "dice of background" in title(done) and page.tables["dice of background"]
    with pytest.raises(UserError, match=r"^--metric and --class select the score of a comparison; the page of one run"):
        report([run], metric="dice")


def test_cross_validations_are_compared_too(folded: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folded, tmp_path / "002"))
    page = Page(report([folded, other], output=tmp_path / "both.html"))
    assert_self_contained(page)
    done = compare([folded, other])
    assert all(sentence in page.text for sentence in findings(done))
    assert "out-of-fold predictions of the last checkpoints" in page.text and "The scores are the same" in page.text


def _lowered(row: str) -> str:
    *head, score = row.split(",")
    return row if score == "score" else ",".join([*head, str(float(score) - 0.1)])
