"""A run's checkpoint on whole images: the run's own figures again, files from elsewhere, and what had a say in them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console
from scipy import ndimage
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from tiny import EXPERIMENT, image, write_data, write_experiment

from yeastexp.cli import commands
from yeastexp.data import hdf5_file, images
from yeastexp.data.folds import Folds
from yeastexp.data.pack import normalize
from yeastexp.errors import UserError
from yeastexp.evaluation import record
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.prediction.predict import predict
from yeastexp.system import files
from yeastexp.training import checkpoints
from yeastexp.training.run import run

LONGER = EXPERIMENT.replace("epochs = 2", "epochs = 8") + "\n"


def trained(folder: Path, text: str = LONGER, *settings: str, **splits: int) -> Path:
    """A run of an experiment in a folder of its own."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        return folder / run(write_experiment(folder, text, **splits), settings, console=Console(file=io.StringIO()))
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with a test split; not to be written to."""
    return trained(tmp_path_factory.mktemp("whole"), test=3)


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it with evaluations of its own; its data are where they were."""
    copied = tmp_path / "runs" / "tiny" / "001"
    shutil.copytree(whole, copied)
    yield copied
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.old"))


def data_of(run_directory: Path) -> Path:
    """The file that a run was trained on."""
    (found,) = (
        line for line in (run_directory / "experiment.toml").read_text().splitlines() if line.startswith("path")
    )
    return Path(found.split('"')[1])


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def cut(summary: Any) -> Any:
    """A summary whose intervals end at 0 and 1."""
    for entry in (entry for by_class in summary.values() for entry in by_class.values()):
        entry |= {"low": max(entry["low"], 0), "high": min(entry["high"], 1)}
    return summary


@pytest.mark.parametrize(("split", "checkpoint"), [("val", "best"), ("val", "last"), ("test", "best")])
def test_the_figures_of_the_run_come_out_again(finished: Path, split: str, checkpoint: str) -> None:
    """To the last bit: the same whole images, whole numbers and threads."""
    folder, found = evaluate(finished, split=split, checkpoint=checkpoint)  # type: ignore[arg-type]
    assert folder == finished / "evaluations" / f"data-{split}-{checkpoint}"
    result = result_of(finished)
    wanted = result["test"] if split == "test" else result["val"][checkpoint]
    assert {metric: found.summary[metric] for metric in wanted} == cut(wanted)
    if split == "val":
        for name, summary in result["baselines"].items():
            assert {metric: found.baselines[name][metric] for metric in summary} == cut(summary)
    kept = list(csv.DictReader((finished / "per_image.csv").read_text().splitlines()))
    if checkpoint == "best":
        for row in (row for row in kept if row["split"] == split):
            index = list(found.images).index(row["image"])
            assert found.per_image[row["metric"]][row["class"]][index] == float(row["score"])


def test_rows_are_those_of_the_predicted_masks(finished: Path, tmp_path: Path) -> None:
    """Predicted from pictures by another path through the program, scored by another library."""
    folder, _ = evaluate(finished)
    rows = list(csv.DictReader((folder / "per_image.csv").read_text().splitlines()))
    assert [(row["image"], row["class"]) for row in rows] == [
        (f"square_{index}", name) for index in (4, 5) for name in ("background", "cell")
    ]
    for index in (4, 5):
        images.write_png(tmp_path / "in" / f"square_{index}.png", image(index)["raw"])
    predict(finished, [str(tmp_path / "in")], tmp_path / "out", device="cpu")
    for row in rows:
        index, label = int(row["image"][-1]), int(row["class"] == "cell")
        truth = image(index)["gt"] == label
        mask = (images.read_mask(tmp_path / "out" / f"{row['image']}.png") == 255) == label
        (rest, false), (missed, hits) = confusion_matrix(truth.ravel(), mask.ravel(), labels=[False, True])
        pixels = ("true_positives", "false_positives", "false_negatives", "true_negatives")
        assert [int(row[key]) for key in pixels] == [hits, false, missed, rest]
        assert float(row["accuracy"]) == (hits + rest) / 1024
        assert float(row["iou"]) == jaccard_score(truth.ravel(), mask.ravel())
        assert float(row["dice"]) == pytest.approx(f1_score(truth.ravel(), mask.ravel()), abs=1e-15)
        if label:
            assert int(row["regions_true"]) == 1
            assert int(row["regions_predicted"]) == ndimage.label(mask, np.ones((3, 3)))[1]
        else:
            assert row["regions_true"] == row["regions_predicted"] == ""


@pytest.mark.parametrize(
    ("split", "checkpoint", "said"),
    [
        ("val", "best", "2 images of data (val); best checkpoint (step {best}), selected on these images"),
        ("val", "last", "2 images of data (val); last checkpoint (step 32)"),
        ("test", "best", "3 images of data (test); best checkpoint (step {best})"),
        ("train", "best", "4 images of data (train); best checkpoint (step {best}), trained on these images"),
        (
            "all",
            "best",
            "9 images of data (all); best checkpoint (step {best}), trained on 4 of them, selected on 2 of them",
        ),
    ],
)
def test_what_the_images_had_to_do_with_the_weights_is_said(
    finished: Path, split: str, checkpoint: str, said: str
) -> None:
    _, found = evaluate(finished, split=split, checkpoint=checkpoint)  # type: ignore[arg-type]
    assert record.title(found) == said.format(best=result_of(finished)["best"]["step"])
    assert found.notes == [] and found.own_data


def changed(run_directory: Path, old: str, new: str) -> Path:
    """The run with another text in its experiment."""
    path = run_directory / "experiment.toml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    return run_directory


def at_home(run_directory: Path, path: Path) -> Path:
    """The run as if it had been trained on this file."""
    changed(run_directory, str(data_of(run_directory)), str(path))
    found = json.loads((run_directory / "environment.json").read_text())
    found["digests"]["data"] = {path.name: files.digest(path)}
    (run_directory / "environment.json").write_text(json.dumps(found))
    for checkpoint in (run_directory / "checkpoints").iterdir():
        state = checkpoints.load(checkpoint)
        state["experiment"]["dataset"]["path"] = path.name
        checkpoints.save(checkpoint, state)
    return run_directory


def test_images_that_stopped_the_training_chose_the_last_checkpoint(finished: Path) -> None:
    changed(finished, "[validation]", "[validation]\npatience = 5")
    assert evaluate(finished, checkpoint="last")[1].selected_on == ["square_4", "square_5"]


def test_a_file_from_elsewhere_is_evaluated_whole_and_known_images_are_found_in_it(
    finished: Path, tmp_path: Path
) -> None:
    """Under other names, and in another order."""
    names = {"a": 7, "b": 5, "c": 1, "d": 9}
    hdf5_file.write(
        tmp_path / "new.h5", {"train": ["a", "b"], "val": ["c", "d"]}, lambda name: image(names[name]), provenance={}
    )
    folder, found = evaluate(finished, tmp_path / "new.h5")
    assert folder.name == "new-all-best" and not found.own_data
    assert list(found.images) == ["a", "b", "c", "d"]
    assert (found.trained_on, found.selected_on) == (["c"], ["b"])
    _, own = evaluate(finished, split="all")
    assert found.images["c"] == own.images["square_1"]
    for metric in ("iou", "boundary_f1"):
        assert found.per_image[metric]["cell"][2] == own.per_image[metric]["cell"][1]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_image_is_enough_whatever_split_it_is_in(finished: Path, tmp_path: Path, split: str) -> None:
    hdf5_file.write(tmp_path / "new.h5", {split: ["square_4"]}, lambda name: image(4), provenance={})
    _, found = evaluate(finished, tmp_path / "new.h5")
    _, own = evaluate(finished)
    assert found.split == "all" and list(found.images) == ["square_4"] and found.selected_on == ["square_4"]
    assert found.per_image["iou"]["cell"] == own.per_image["iou"]["cell"][:1]


def test_the_order_of_images_changes_no_figure(finished: Path, tmp_path: Path) -> None:
    names = [f"square_{index}" for index in range(20, 28)]
    for file, ordered in (("one.h5", names), ("other.h5", names[::-1])):
        splits = {"train": ordered[:4], "val": ordered[4:]}
        hdf5_file.write(tmp_path / file, splits, lambda name: image(int(name.removeprefix("square_"))), provenance={})
    (_, one), (_, other) = (evaluate(finished, tmp_path / file) for file in ("one.h5", "other.h5"))
    assert list(one.images) == list(other.images)[::-1]
    for key in ("summary", "worst", "baselines", "confusion", "cells"):
        assert getattr(one, key) == getattr(other, key)


def test_a_normalised_file_is_brought_to_the_values_of_training(finished: Path, tmp_path: Path) -> None:
    normalize(data_of(finished), tmp_path / "normalized.h5")
    _, own = evaluate(finished)
    _, found = evaluate(finished, tmp_path / "normalized.h5", split="val")
    assert found.images == own.images and found.confusion == own.confusion
    assert found.selected_on == ["square_4", "square_5"]


def test_so_is_a_recorded_one_for_a_run_on_a_normalised_one(tmp_path: Path) -> None:
    write_data(tmp_path / "recorded.h5")
    normalize(tmp_path / "recorded.h5", tmp_path / "normalized.h5")
    folder = trained(tmp_path, LONGER, "dataset.path='normalized.h5'")
    _, own = evaluate(folder)
    _, found = evaluate(folder, tmp_path / "recorded.h5", split="val")
    assert found.images == own.images and found.confusion == own.confusion


def fractions(folder: Path) -> tuple[Path, Path]:
    """Two files of the same names and labels, with other images of values about 0.2."""
    paths = folder / "one.h5", folder / "other.h5"
    for first, path in zip((0, 10), paths, strict=True):

        def read(name: str, first: int = first) -> dict[str, np.ndarray]:
            raw = image(first + int(name[-1]))["raw"]
            return {"raw": raw.astype(np.float32) / 5000, "gt": image(int(name[-1]))["gt"]}

        splits = {"train": [f"square_{index}" for index in range(4)], "val": ["square_4", "square_5"]}
        hdf5_file.write(path, splits, read, provenance={})
    return paths


@pytest.mark.parametrize("trained_on", ["raw", "normalised"])
def test_normalised_fractions_are_known_again(tmp_path: Path, trained_on: str) -> None:
    raw, other = fractions(tmp_path)
    normalised, others = tmp_path / "normalised.h5", tmp_path / "others.h5"
    normalize(raw, normalised)
    normalize(other, others)
    own, copy = (raw, normalised) if trained_on == "raw" else (normalised, raw)
    run_directory = trained(tmp_path, EXPERIMENT, f"dataset.path='{own.name}'")
    _, found = evaluate(run_directory, copy)
    assert found.trained_on == [f"square_{index}" for index in range(4)]
    assert found.selected_on == ["square_4", "square_5"] and found.notes == []
    _, found = evaluate(run_directory, other)
    assert found.trained_on == found.selected_on == found.notes == []
    _, found = evaluate(run_directory, others)
    if trained_on == "raw":
        assert found.trained_on == found.selected_on == found.notes == []
        return
    assert found.trained_on is found.selected_on is None
    assert found.notes == [
        f"{others}: is normalised otherwise than the training images, and not from integers: no telling whether "
        "the run was trained on any of these; --data with the file that it was made from tells"
    ]


def test_data_that_moved_are_known_by_their_digest(finished: Path, tmp_path: Path) -> None:
    own = evaluate(finished)[1]
    shutil.copyfile(data_of(finished), tmp_path / "elsewhere.h5")
    folder, found = evaluate(finished, tmp_path / "elsewhere.h5")
    assert folder.name == "elsewhere-val-best" and found.own_data
    assert (found.summary, found.baselines, found.selected_on) == (own.summary, own.baselines, own.selected_on)


def of_a_fold(folder: Path) -> Path:
    """A run of the first of two folds: `square_0` to `square_2` are held out, though others are the file's 'val'."""
    names = [f"square_{index}" for index in range(6)]
    folder.mkdir(parents=True, exist_ok=True)
    Folds((tuple(names[:3]), tuple(names[3:]))).write(folder / "folds.json")
    return trained(folder, EXPERIMENT + '[validation]\nfolds = "folds.json"\nfold = 1\n')


def test_its_own_file_has_the_fold_of_the_run(tmp_path: Path) -> None:
    run_directory = of_a_fold(tmp_path)
    folder, own = evaluate(run_directory)
    again, found = evaluate(run_directory, data_of(run_directory))
    assert again == folder and found == own
    assert (list(own.images), own.trained_on) == (["square_0", "square_1", "square_2"], [])
    _, whole = evaluate(run_directory, data_of(run_directory), split="all")
    assert whole.trained_on == ["square_3", "square_4", "square_5"]
    assert whole.selected_on == ["square_0", "square_1", "square_2"]


def test_its_own_file_without_the_fold_of_the_run_is_refused(tmp_path: Path) -> None:
    """Nothing else tells which of its images the run was trained on."""
    run_directory = of_a_fold(tmp_path)
    data, folds = data_of(run_directory), tmp_path / "folds.json"
    folds.unlink()
    with pytest.raises(UserError) as caught:
        evaluate(run_directory, data)
    assert str(caught.value) == (
        f"{run_directory}: cannot tell which images of {data} it was trained on (no file '{folds}'); bring back what "
        "it was trained with"
    )


def test_its_own_file_with_other_splits_is_refused(finished: Path) -> None:
    data = data_of(finished)
    changed(finished, f'path = "{data}"', f'path = "{data}"\nval = 3')
    with pytest.raises(UserError, match=r"it was trained on \(.*names others: dataset\.val was nothing, is 3\); bring"):
        evaluate(finished, data)


def test_other_folds_than_those_of_the_run_are_named(tmp_path: Path) -> None:
    run_directory, folds = of_a_fold(tmp_path), tmp_path / "folds.json"
    assert evaluate(run_directory)[1].notes == []
    names = [f"square_{index}" for index in range(6)]
    Folds((tuple(names[1:4]), (names[0], *names[4:]))).write(folds)
    reason = f"'{folds}' has changed and holds other folds now"
    with pytest.raises(UserError) as caught:
        evaluate(run_directory)
    assert str(caught.value) == (
        f"{run_directory}: cannot score the images it was trained on ({reason}); bring them back, or use --data"
    )


@pytest.mark.parametrize(
    ("old", "new", "edit"),
    [
        ('"background"', '"nothing"', r"task\.classes was \('background', 'cell'\), is \('nothing', 'cell'\)"),
        ('norm = "batch"', 'norm = "none"', "model.norm was batch, is none"),
        ('per = "image"', 'per = "dataset"', "transform.zscore.per was image, is dataset"),
    ],
)
def test_an_experiment_that_predicts_otherwise_is_refused(finished: Path, old: str, new: str, edit: str) -> None:
    changed(finished, old, new)
    with pytest.raises(UserError, match=rf"^{finished}/experiment\.toml: is not the experiment of .*best\.pt \({edit}"):
        evaluate(finished)


def test_images_that_the_run_did_not_validate_on_are_refused(finished: Path) -> None:
    changed(finished, f'path = "{data_of(finished)}"', f'path = "{data_of(finished)}"\nval = 3')
    with pytest.raises(UserError, match=r"experiment\.toml names others: dataset\.val was nothing, is 3\); bring them"):
        evaluate(finished)


@pytest.fixture
def homeless(finished: Path, tmp_path: Path) -> Path:
    """A run whose data are gone."""
    at_home(finished, write_data(tmp_path / "home.h5"))
    (tmp_path / "home.h5").unlink()
    return finished


def test_without_the_training_images_there_is_no_threshold(homeless: Path, tmp_path: Path) -> None:
    _, found = evaluate(homeless, write_data(tmp_path / "new.h5", train=3))
    assert list(found.baselines) == ["all background"]
    assert found.baselines["all background"]["iou"]["cell"]["per_image"] == 0
    assert (found.trained_on, found.selected_on) == (None, None)
    assert found.notes == [
        f"the training images are gone (no file '{tmp_path}/home.h5'): no fitted threshold beside the scores, and "
        "no telling whether the run was trained on any of these"
    ]


def test_its_own_images_have_to_be_there(homeless: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(homeless)
    path = tmp_path / "home.h5"
    assert str(caught.value) == (
        f"{homeless}: cannot score the images it was trained on (no file '{path}'); bring them back, or use --data"
    )
    write_data(path, train=5)
    with pytest.raises(UserError) as caught:
        evaluate(homeless)
    assert str(caught.value) == (
        f"{homeless}: cannot score the images it was trained on ('{path}' has changed and holds other data now); "
        "bring them back, or use --data"
    )
    assert caught.value.status == 2 and not (homeless / "evaluations").exists()


def written(path: Path, **arrays: Any) -> Path:
    """A file of two images with some of their arrays changed."""
    hdf5_file.write(path, {"train": ["a"], "val": ["b"]}, lambda name: {**image(0), **arrays}, provenance={})
    return path


def test_other_channels_and_classes_are_refused(finished: Path, tmp_path: Path) -> None:
    colour = written(tmp_path / "colour.h5", raw=np.zeros((3, 32, 32), np.uint8))
    with pytest.raises(UserError) as caught:
        evaluate(finished, colour)
    assert str(caught.value) == f"{colour}: image 'a' has 3 channels; the run was trained on 1"
    buds = written(tmp_path / "buds.h5", gt=np.full((32, 32), 2, np.uint8))
    with pytest.raises(UserError) as caught:
        evaluate(finished, buds)
    assert str(caught.value) == (
        f"{buds}: image 'a': its labels hold 2 where [task] classes has 0 to 1; pack the masks again, or name all "
        "classes"
    )
    assert not (finished / "evaluations").exists()


def test_what_is_not_there_is_said(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/none.h5: cannot be opened \(No such file or directory\)"):
        evaluate(finished, tmp_path / "none.h5")
    with pytest.raises(UserError) as caught:
        evaluate(finished, write_data(tmp_path / "new.h5"), split="test")
    assert str(caught.value) == f"{tmp_path}/new.h5: has no 'test' images; choose from train, val, or 'all'"
    with pytest.raises(UserError, match=f"^{tmp_path}: not a run directory; 'run' prints its path on the last line"):
        evaluate(tmp_path)
    with pytest.raises(UserError, match=r"^--ignore-border: no metric of this evaluation counts cells"):
        evaluate(finished, ignore_border=3)
    assert not (finished / "evaluations").exists()
    (finished / "checkpoints" / "best.pt").unlink()
    with pytest.raises(UserError, match=r"best\.pt: no such checkpoint; --checkpoint last takes the other one"):
        evaluate(finished)
    shutil.rmtree(finished / "checkpoints")
    with pytest.raises(UserError, match=r"best\.pt: no such checkpoint; the run ended before its first one"):
        evaluate(finished)


def sized(path: Path, pixel_um: float | None) -> Path:
    """The tiny data with a size of pixels."""
    write_data(path)
    with h5py.File(path, "r+") as file:
        if pixel_um:
            file.attrs["pixel_um"] = pixel_um
    return path


@pytest.mark.parametrize(
    ("pixel_um", "notes"),
    [
        (0.2, []),
        (0.2001, []),
        (None, []),
        (
            0.1,
            [
                "{path}: has pixels of 0.1 µm, the training images of 0.2 µm; objects appear 2 times as large as in "
                "training"
            ],
        ),
    ],
)
def test_other_magnifications_are_said(
    finished: Path, tmp_path: Path, pixel_um: float | None, notes: list[str]
) -> None:
    at_home(finished, sized(tmp_path / "home.h5", 0.2))
    path = sized(tmp_path / "new.h5", pixel_um)
    _, found = evaluate(finished, path)
    assert found.pixel_um == pixel_um
    assert found.notes == [note.format(path=path) for note in notes]


def test_files_of_one_name_stand_beside_each_other_and_the_same_one_is_replaced(finished: Path, tmp_path: Path) -> None:
    for folder, train in (("a", 3), ("b", 4)):
        (tmp_path / folder).mkdir()
        write_data(tmp_path / folder / "new.h5", train=train)
    (first, _), (second, other), (again, _) = (evaluate(finished, tmp_path / one / "new.h5") for one in "aba")
    assert first == again != second
    assert first.name == "new-all-best" and second.name == f"new-{str(other.data_digest)[:8]}-all-best"
    (tmp_path / "a" / "new.h5").unlink()
    write_data(tmp_path / "a" / "new.h5", train=5)
    replaced, found = evaluate(finished, tmp_path / "a" / "new.h5")
    assert replaced == first and len(found.images) == 7


def test_the_experiments_own_metrics_and_tolerance_count(finished: Path) -> None:
    more = '[[metric]]\nname = "recall"\n[[metric]]\nname = "boundary_f1"\ntolerance_px = 1.0\n[train]'
    _, found = evaluate(changed(finished, "[train]", more))
    assert list(found.summary) == ["accuracy", "iou", "dice", "boundary_f1", "recall"]
    assert found.boundary_tolerance_px == 1
    _, loose = evaluate(finished, tolerance_px=40)
    assert loose.boundary_tolerance_px == 40
    assert found.summary["boundary_f1"]["cell"]["per_image"] < loose.summary["boundary_f1"]["cell"]["per_image"] == 1


def test_a_run_on_drawn_images_and_a_metric_whose_map_a_file_lacks(tmp_path: Path) -> None:
    text = EXPERIMENT.replace(
        'name = "hdf5"\npath = "data.h5"', 'name = "synthetic_yeast"\nimages = 3\nsize = 64\nval = 1'
    )
    finished = trained(tmp_path, text)
    changed(finished, "[train]", '[[metric]]\nname = "dead_cell_false_positives"\n[train]')
    place, own = evaluate(finished)
    assert place.name == "synthetic_yeast-val-best" and own.path is None and own.own_data and own.pixel_um == 0.2
    assert "dead_cell_false_positives" in own.summary
    assert own.cells["cell"]["instances"] >= own.cells["cell"]["true"] > 0
    _, found = evaluate(finished, write_data(tmp_path / "new.h5"))
    assert "dead_cell_false_positives" not in found.summary
    assert found.trained_on == found.selected_on == []


def test_the_command_prints_tables_and_the_folder(finished: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["evaluate", str(finished)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2 images of data (val); best checkpoint (step ")
    assert lines[0].rstrip().endswith(", selected on these images")
    assert {"metric", "per image", "95 % interval", "pooled", "all background", "threshold"} <= {
        cell.strip() for cell in lines[2].split("┃")
    }
    found = record.read(finished / "evaluations" / "data-val-best")
    assert found is not None and found.worst["iou"]["cell"] is not None
    worst = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.count("│") == 5]
    assert ["iou", "cell", found.worst["iou"]["cell"]["image"], f"{found.worst['iou']['cell']['score']:.4f}"] in worst
    assert (
        lines[-2]
        == f"cell: 2 connected regions in the ground truth, {found.cells['cell']['predicted']} in the prediction"
    )
    assert lines[-1] == str(finished / "evaluations" / "data-val-best")
    as_json = CliRunner().invoke(commands, ["evaluate", str(finished), "--json", "--boundary-tolerance", "3"])
    assert as_json.exit_code == 0
    printed = json.loads(as_json.stdout)
    assert printed["boundary_tolerance_px"] == 3 and printed["summary"]["iou"] == found.summary["iou"]
    assert as_json.stdout.strip() == (finished / "evaluations" / "data-val-best" / "evaluation.json").read_text()


def test_the_command_warns_on_stderr(homeless: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        commands, ["evaluate", str(homeless), "--data", str(write_data(tmp_path / "new.h5", train=3))]
    )
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: the training images are gone (no file ")
    assert done.stderr.count("\n") == 1
