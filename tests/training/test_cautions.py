"""What is said beside a run's scores: where they mislead, or could be better."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import Call
from rich.console import Console
from tiny import EXPERIMENT, quiet, write_experiment

from yeastexp.config.loading import load_experiment
from yeastexp.data import folds, hdf5_file
from yeastexp.report import report
from yeastexp.training import cautions
from yeastexp.training.run import run
from yeastexp.training.timing import assembled


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def notes(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "result.json").read_text())["notes"]
    return found


def test_a_run_below_its_baseline_says_so_in_words(here: Path) -> None:
    """At its end, in its log, in its result and on its page, with what may help."""
    output = io.StringIO()
    settings = ["optimizer.learning_rate=1e-9", "patches.foreground_fraction=0"]
    folder = run(write_experiment(here), settings, console=Console(file=output, width=60))
    (note,) = notes(folder)
    assert note.startswith("iou of cell is 0.") and " worse than the 1.0000" in note
    assert (
        " of the baseline 'threshold', which needs no training; try more [train] epochs, another [optimizer] " in note
    )
    assert f"warning: {note}\n" in output.getvalue() and f"warning: {note}\n" in (folder / "log.txt").read_text()
    page = report([folder], output=here / "page.html").read_text()
    assert "worse than the 1.0000" in page


def test_rare_foreground_has_remedies_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembly = assembled(load_experiment(write_experiment(here)))[0]
    rows = {"background": {"per_image": 1.0}, "cell": {"per_image": 0.0}, "mean": {"per_image": 0.5}}
    summary, better = {"iou": rows}, {"iou": {**rows, "cell": {"per_image": 0.5}}}
    monkeypatch.setattr(cautions, "RARE", 0.1)
    (note,) = cautions.of_baselines(assembly, summary, {"all background": summary, "threshold": better})
    assert "foreground_fraction = 0.5 (8.9 % of the training pixels are foreground)" in note
    assert '[loss] name = "dice_cross_entropy"' in note
    (note,) = cautions.of_baselines(assembly, summary, {"all background": summary})
    assert "iou of cell is 0.0000, no better than the 0.0000 of the baseline 'all background'" in note
    assert list(cautions.of_baselines(assembly, better, {"threshold": summary})) == []
    by_steps = assembled(load_experiment(here / "tiny.toml", ["train.steps=3"]))[0]
    (note,) = cautions.of_baselines(by_steps, summary, {"all background": summary})
    assert "epochs" not in note and "longer training" in note
    perfect = {"iou": {**rows, "cell": {"per_image": 1.0}}}
    assert list(cautions.of_baselines(assembly, perfect, {"threshold": perfect})) == []
    none = {"iou": {**rows, "cell": {"per_image": None}}}
    assert list(cautions.of_baselines(assembly, summary, {"threshold": none})) == []


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ({"train": 0}, "all training images have 'background' and nothing else, so there is nothing to learn"),
        ({"train": 1}, "all training images have 'cell' and nothing else, so there is nothing to learn"),
        ({"train": -1}, "all training images have no labelled pixel, so there is nothing to learn"),
        ({"val": 0}, "no validation image has any foreground, so its scores say little"),
        ({}, ""),
    ],
)
def test_labels_that_teach_or_score_nothing_are_told(here: Path, labels: dict[str, int], note: str) -> None:
    splits = {"train": ["a_0", "b_1"], "val": ["c_2", "d_3"]}

    def read(name: str) -> dict[str, np.ndarray]:
        arrays, split = tiny.image(int(name[-1])), "train" if name in splits["train"] else "val"
        gt = arrays["gt"].astype(np.int16)
        return {**arrays, "gt": np.full_like(gt, labels[split]) if split in labels else gt}

    path = write_experiment(here)
    hdf5_file.write(here / "data.h5", splits, read, provenance={}, force=True)
    told = list(cautions.of_labels(assembled(load_experiment(path))[0]))
    assert [line.startswith(note) for line in told] == [True] * bool(note)


def test_neighbouring_frames_in_both_splits_are_told(here: Path) -> None:
    """The last validation and the test image are training images with a little noise."""
    source = np.random.default_rng(0)

    splits = {"train": ["a_0", "b_1", "c_2", "d_3"], "val": ["e_5", "x_1"], "test": ["y_2"]}
    path = write_experiment(here)
    hdf5_file.write(here / "data.h5", splits, lambda name: _frame(name, source), provenance={}, force=True)
    folder = run(path, ["train.epochs=1"], console=quiet())
    told = [note for note in notes(folder) if "resemble a training image" in note]
    assert told[0].startswith("1 of 2 validation images resemble a training image (x_1 like b_1 (1.000)")
    assert told[1].startswith("1 of 1 test images resemble a training image (y_2 like c_2 (1.000)")
    assert "crossval --group-by or --blocks" in told[0]
    assert "resemble a training image" in report([folder], output=here / "page.html").read_text()


def _frame(name: str, source: np.random.Generator) -> dict[str, np.ndarray]:
    found = tiny.image(int(name[-1]))
    noise = source.integers(0, 3, found["raw"].shape, dtype=np.uint16) if name > "e" else 0
    return {**found, "raw": found["raw"] + noise}


def test_a_run_below_the_weights_that_it_began_with_says_so(here: Path) -> None:
    for file in ("before/experiment.toml", "before/checkpoints/best.pt"):
        (here / file).parent.mkdir(exist_ok=True)
        (here / file).touch()
    assembly = assembled(load_experiment(write_experiment(here), ["train.init_from=before"]))[0]
    scored = {at: {"iou": {row: {"per_image": at} for row in ("background", "cell", "mean")}} for at in (0.1, 0.8, 0.9)}
    others = {"threshold": scored[0.1], "initial weights": scored[0.9]}
    (note,) = cautions.of_baselines(assembly, scored[0.8], others)
    assert note == (
        "iou of cell is 0.8000, worse than the 0.9000 of the weights that it began with, which need no training; try "
        f"'predict {here}/before', more annotated images, a lower [optimizer] learning_rate, "
        "a larger [train] init_share than 0"
    )
    assert not [*cautions.of_baselines(assembly, scored[0.9], {"initial weights": scored[0.8]})]


OTHERS = ("b_1", 1), ("b_9", 9)


def test_initial_weights_trained_on_held_out_images_are_told(here: Path, call: Call) -> None:
    """By the images themselves, whatever their file: of the run that is named, and of the one which that began with."""
    write_experiment(here)
    for first in (0, 2, 4):  # four images each, of which the last validates
        splits = {"train": [f"a_{first + index}" for index in range(3)], "val": [f"a_{first + 3}"]}
        hdf5_file.write(here / f"{first}.h5", splits, lambda name: tiny.image(int(name[-1])), provenance={})
    before, told = "runs/tiny/001", {}
    for number, (data, start) in enumerate(((0, None), (4, before), (2, before), (2, "runs/tiny/002"), (0, before)), 1):
        settings = [f"dataset.path={data}.h5", "train.epochs=1", *([f"train.init_from={start}"] if start else [])]
        told[number] = notes(run(here / "tiny.toml", settings, console=quiet()))
    said = {number: [note for note in of if note.startswith("[train] init_from: ")] for number, of in told.items()}
    assert [len(of) for of in said.values()] == [0, 0, 0, 1, 0]  # a_5 is in training images of the second run alone
    trained = "held-out images resemble images that the initial weights were trained on: 1 of 1 ("
    assert said[4][0].startswith(f"[train] init_from: {trained}a_5 like a_5 of ")
    assert "optimistically biased" in said[4][0]
    settings = ("dataset.path=2.h5", "train.init_from=runs/tiny/002")
    _, out, _ = call("check", "tiny.toml", "--data", *(word for setting in settings for word in ("--set", setting)))
    assert "initial weights trained on held-out images" in out and "resemble images that they were trained on" in out
    again = load_experiment(here / "tiny.toml", ["train.init_from=runs/tiny/002"])
    held_out = {name: folds.thumbnail(torch.from_numpy(tiny.image(number)["raw"][None])) for name, number in OTHERS}
    (note,) = cautions.of_initial_weights(again, held_out)
    assert f"were trained on: 1 of 2 (b_1 like a_1 of {here / before} (1.000); " in note
    (here / "0.h5").unlink()
    (note,) = cautions.of_initial_weights(again, held_out)
    assert "is not known" in note and "0.h5" in note


@pytest.mark.parametrize(("scheduler", "fall"), [("one_cycle", True), ("constant", False)])
def test_a_run_that_its_budget_ended_says_what_was_planned(
    here: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, fall: bool
) -> None:
    monkeypatch.setattr("yeastexp.training.run.never", lambda step: step >= 3)
    folder = run(write_experiment(here), [f"scheduler.name={scheduler}"], console=quiet())
    note = notes(folder)[0]
    assert note.startswith("the budget ended the run after 3 of 8 planned steps")
    said = (
        ", when the learning rate was at 81 % of its highest and had not finished its fall to 5.0 %; give it more time"
    )
    assert (said in note) == fall and note.endswith("train.steps=3, which plans for as many")
    assert "stopped by its budget after 3 of 8 planned steps" in report([folder], output=here / "page.html").read_text()


@pytest.mark.parametrize(("loss", "told"), [("dice", True), ("dice_cross_entropy", True), ("focal", False)])
def test_a_loss_that_does_not_add_up_is_told(here: Path, loss: str, told: bool) -> None:
    text = EXPERIMENT.replace('"cross_entropy"', f'"{loss}"')
    assembly = assembled(load_experiment(write_experiment(here, text), ["train.accumulation_steps=3"]))[0]
    said = f"[train] accumulation_steps: '{loss}' is no mean over pixels (it has no 'count'), so 3 batches of 4 do not"
    assert [note.startswith(said) for note in cautions.of_loss(assembly)] == [True] * told


@pytest.mark.parametrize(("loss", "told"), [("boundary_cross_entropy", True), ("cross_entropy", False), ("dice", True)])
def test_a_loss_that_counts_otherwise_than_the_hills_is_told(loss: str, told: bool) -> None:
    quick = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"
    assembly = assembled(load_experiment(quick, ["train.accumulation_steps=2", f"loss.name={loss}"]))[0]
    notes = list(cautions.of_loss(assembly))
    assert len(notes) == told and all(note.startswith("[train] accumulation_steps: '") for note in notes)
    assert ("the error of the hills" in "".join(notes)) == (loss == "boundary_cross_entropy")


def test_cells_longer_than_patches_are_told() -> None:
    quick = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"
    (note,) = cautions.of_cells(assembled(load_experiment(quick, ["patches.size=16"]))[0])
    assert note.startswith("[patches] size: cells of 3 training images are longer than patches of 16 px, up to ")
    assert "set it to 32 or more, or make images smaller with 'downscale'" in note
    assert not list(cautions.of_cells(assembled(load_experiment(quick))[0]))
