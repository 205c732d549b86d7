"""The main job: an experiment file to a run directory that repeats bit for bit."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import kills
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import EXPERIMENT, image, quiet, write_experiment

from yeastexp.config.loading import load_experiment
from yeastexp.data import hdf5_file, images
from yeastexp.data.pack import normalize
from yeastexp.errors import UserError
from yeastexp.inspection import check
from yeastexp.prediction.predict import predict
from yeastexp.system import cores
from yeastexp.training import checkpoints, handlers, timing
from yeastexp.training.build import Assembly, learning_rates
from yeastexp.training.contact_sheet import draw_contact_sheet
from yeastexp.training.run import run

CPU = torch.device("cpu")


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = checkpoints.load(folder / "checkpoints" / name)["model"]
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with a test split, for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(handlers, "draw_contact_sheet", draw_contact_sheet)
        text = EXPERIMENT.replace("epochs = 2", "epochs = 12")
        return folder / run(write_experiment(folder, text, test=2), console=quiet())


def test_a_run_directory_holds_everything(finished: Path) -> None:
    names = {entry.name for entry in finished.iterdir() if not entry.name.startswith("events.")}
    assert names == {
        ".lock",
        "baselines",
        "checkpoints",
        "environment.json",
        "experiment.toml",
        "log.txt",
        "metrics.csv",
        "per_image.csv",
        "pictures",
        "result.json",
    }
    assert {entry.name for entry in (finished / "checkpoints").iterdir()} == {"best.pt", "last.pt", "previous.pt"}
    assert not list(finished.rglob("*.part"))


def test_a_row_an_epoch(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "metrics.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
    assert [int(row["step"]) for row in rows] == [4 * epoch for epoch in range(1, 13)]
    assert rows[-1]["val/iou/cell"] and float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])


def test_the_result_says_how_it_was_chosen_and_what_no_learning_gets(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["val"]["selected_on_these_images"] is True
    assert set(result["baselines"]) == {"all background", "threshold"}
    assert result["baselines"]["all background"]["iou"]["cell"]["per_image"] == 0
    assert result["baselines"]["threshold"]["iou"]["cell"]["per_image"] > 0.9
    cell = result["val"]["best"]["iou"]["cell"]
    assert cell["low"] <= cell["per_image"] <= cell["high"] and cell["images"] == 2
    assert result["best"]["value"] >= result["val"]["last"]["iou"]["mean"]["per_image"]


def test_scores_are_those_of_the_predicted_masks(finished: Path, here: Path) -> None:
    """Predicted from pictures by another path through the program, scored by another library."""
    result = json.loads((finished / "result.json").read_text())
    truths = {}
    for index in (6, 7):
        made = image(index)
        images.write_png(here / "in" / f"square_{index}.png", made["raw"])
        truths[f"square_{index}"] = made["gt"]
    assert predict(finished, ["in"], here / "out") == 2
    iou, accuracy = [], []
    for name, truth in truths.items():
        mask = images.read_mask(here / "out" / f"{name}.png")
        assert set(np.unique(mask)) <= {0, 255}
        iou.append(jaccard_score(truth.ravel(), mask.ravel() == 255))
        accuracy.append(accuracy_score(truth.ravel(), mask.ravel() == 255))
    assert result["test"]["iou"]["cell"]["per_image"] == pytest.approx(np.mean(iou), abs=1e-12)
    assert result["test"]["accuracy"]["all"]["per_image"] == pytest.approx(np.mean(accuracy), abs=1e-12)


def test_tensorboard_tags(finished: Path) -> None:
    events = EventAccumulator(str(finished)).Reload().Tags()
    assert {"train/loss", "train/learning_rate", "val/loss", "val/accuracy", "val/iou/cell"} <= set(events["scalars"])
    assert events["images"] == ["train/preview", "val/pictures"]
    assert "experiment/text_summary" in events["tensors"]
    plugin = EventAccumulator(str(finished)).Reload().SummaryMetadata("_hparams_/session_start_info")
    assert b"model.width" in plugin.plugin_data.content and b"train.seed" in plugin.plugin_data.content
    assert "val_final/iou/cell" in events["scalars"]
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in sorted(events["scalars"])))
    assert groups == ["train", "val", "val_final"], "single points come last"
    for baseline in ("all_background", "threshold"):
        drawn = EventAccumulator(str(finished / "baselines" / baseline)).Reload().Tags()["scalars"]
        assert {"val/accuracy", "val/iou/cell"} <= set(drawn)


def test_the_resolved_file_repeats_the_run_bit_for_bit(here: Path) -> None:
    """From another working directory, with worker processes, under another hash seed."""
    first = here / run(write_experiment(here), console=quiet())
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "yeastexp", "run", str(first / "experiment.toml"), "--set", "runtime.workers=2"]
    done = subprocess.run(
        command, cwd=elsewhere, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    second = elsewhere / done.stdout.splitlines()[-1]
    assert second == elsewhere / "runs" / "tiny" / "001"
    for name in ("last.pt", "best.pt"):
        assert same(weights(first, name), weights(second, name))
    assert (first / "result.json").read_bytes() == (second / "result.json").read_bytes()


@pytest.mark.parametrize("cache", ["device", "none"])
def test_where_images_are_kept_changes_nothing(here: Path, cache: str) -> None:
    path = write_experiment(here)
    settings = ["patches.foreground_fraction=0.5"]
    one, other = (run(path, [*settings, f"runtime.cache={where}"], console=quiet()) for where in ("memory", cache))
    assert same(weights(one), weights(other))
    assert (one / "result.json").read_bytes() == (other / "result.json").read_bytes()
    assert f"[runtime] cache: the training images take 32.8 kB; '{cache}'" in (other / "log.txt").read_text()
    chosen = run(path, settings, console=quiet())
    assert 'cache = "memory"' in (chosen / "experiment.toml").read_text(), "what was chosen is written down"
    assert check.check(path, [*settings, f"runtime.cache={cache}"]).labels == {
        0: 4 * 32**2 - 366,
        1: 8**2 + 9**2 + 10**2 + 11**2,
    }


def test_another_seed_is_another_run(here: Path) -> None:
    path = write_experiment(here)
    one, other = (run(path, [f"train.seed={seed}"], console=quiet()) for seed in (0, 1))
    assert not same(weights(one), weights(other))


def test_steps_may_end_within_an_epoch(here: Path) -> None:
    folder = run(write_experiment(here), ["train.steps=6"], console=quiet())
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "6")]
    assert rows[-1]["val/iou/cell"]
    rates = [groups[0] for groups in learning_rates(load_experiment(folder / "experiment.toml"), 6, 6)]
    assert [float(row["learning_rate"]) for row in rows] == [rates[3], rates[5]]


def test_a_budget_becomes_a_number_of_steps(here: Path) -> None:
    folder = run(write_experiment(here), ["train.budget='9s'", "model.width=1"], console=quiet())
    train = tomllib.loads((folder / "experiment.toml").read_text())["train"]
    assert "budget" not in train and "epochs" not in train
    result = json.loads((folder / "result.json").read_text())
    if not result["stopped_by_budget"]:  # a busy machine may cut it short
        assert result["steps"] == train["steps"]
        again = run(folder / "experiment.toml", console=quiet())
        assert same(weights(folder), weights(again))


def test_the_fastest_number_of_threads_is_chosen_and_written_down(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.3, 0.25, 0.245])
    monkeypatch.setattr(timing, "seconds_per_step", lambda *anything, **limits: next(times))
    monkeypatch.setattr(cores, "allowed", lambda: (4, "cores of the machine"))
    monkeypatch.setattr(cores.Waiting, "share", 0.0)
    folder = run(write_experiment(here, EXPERIMENT.replace("threads = 1", "")), console=quiet())
    assert "threads = 2\n" in (folder / "experiment.toml").read_text()
    line = "threads = 2: a step takes, by threads, 1: 300 ms, 2: 250 ms, 4: 245 ms (4 cores of the machine)"
    assert line in (folder / "log.txt").read_text()
    assert json.loads((folder / "environment.json").read_text())["threads"] == 2


def test_measuring_threads_changes_nothing_else(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "NO_FASTER", 0.0)  # more threads would change last bits
    monkeypatch.setattr(cores, "allowed", lambda: (2, "cores of the machine"))
    monkeypatch.setattr(cores.Waiting, "share", 0.0)
    path = write_experiment(here)
    fixed, chosen = (run(path, settings, console=quiet()) for settings in ([], ["runtime.threads=auto"]))
    assert kills.differences(fixed, chosen) == []


@pytest.mark.parametrize(
    ("bfloat16", "chosen", "shown"),
    [(0.25, "bfloat16", "250 ms"), (0.28, "float32", "280 ms"), (None, "float32", "fails (RuntimeError: no kernel)")],
)
def test_bfloat16_is_chosen_where_it_is_faster(
    here: Path, monkeypatch: pytest.MonkeyPatch, bfloat16: float | None, chosen: str, shown: str
) -> None:
    """The run says so, and has the bits of one whose file says so."""

    def seconds_per_step(assembly: Assembly, *anything: object, **limits: object) -> float:
        if assembly.experiment.train.precision == "float32":
            return 0.3
        if bfloat16 is None:
            raise RuntimeError("no\nkernel")
        return bfloat16

    path = write_experiment(here)
    with monkeypatch.context() as patched:
        patched.setattr(timing, "seconds_per_step", seconds_per_step)
        folder = run(path, ["train.precision=auto"], console=(console := quiet()))
    line = f'[train] precision = "{chosen}": a step takes, by precision, float32: 300 ms, bfloat16: {shown}'
    assert line in console.file.getvalue() and line in (folder / "log.txt").read_text()
    assert json.loads((folder / "environment.json").read_text())["precision"] == chosen
    assert kills.differences(run(path, [f"train.precision={chosen}"], console=quiet()), folder) == []


@pytest.mark.parametrize(("worth", "chosen"), [(0.0, "float32"), (99.0, "bfloat16")])
def test_timing_both_precisions_changes_nothing_else(
    here: Path, monkeypatch: pytest.MonkeyPatch, worth: float, chosen: str
) -> None:
    monkeypatch.setattr(timing, "WORTH_DIGITS", worth)
    monkeypatch.setattr(timing, "SLOWER", 99.0)
    path = write_experiment(here)
    fixed, timed = (run(path, [f"train.precision={each}"], console=quiet()) for each in (chosen, "auto"))
    assert kills.differences(fixed, timed) == []


def test_no_more_threads_than_were_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything measured if it is one; a file that says a number is followed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(timing, "seconds_per_step", None)
    folder = run(write_experiment(here), ["runtime.threads=auto"], console=quiet())
    assert "threads = 1\n" in (folder / "experiment.toml").read_text()
    assert "[runtime] threads = 1: OMP_NUM_THREADS" in (folder / "log.txt").read_text()
    assert (
        "threads = 2\n"
        in (run(here / "tiny.toml", ["runtime.threads=2"], console=quiet()) / "experiment.toml").read_text()
    )


def test_a_budget_that_is_too_short_is_refused(here: Path) -> None:
    with pytest.raises(UserError, match=r"\[train\] budget: 1s is too short"):
        run(write_experiment(here), ["train.budget=1s"], console=quiet())
    assert not (here / "runs").exists()


NAN_LOSS = """
import torch
from yeastexp import loss

@loss("breaks")
class Breaks(torch.nn.Module):
    def __init__(self, classes: int, at: int = 5) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def forward(self, logits, labels):
        self.calls += self.training and logits.requires_grad
        return logits.mean() * (float("nan") if self.calls > self.at else 1.0)
"""


def test_a_loss_that_is_not_finite_ends_the_run(here: Path) -> None:
    (here / "breaks.py").write_text(NAN_LOSS)
    text = 'plugins = ["breaks.py"]\n' + EXPERIMENT.replace('"cross_entropy"', '"breaks"')
    with pytest.raises(UserError, match="step 6: the loss is nan") as caught:
        run(write_experiment(here, text), console=quiet())
    assert caught.value.status == 1
    kept = checkpoints.load(here / "runs" / "tiny" / "001" / "checkpoints" / "last.pt")
    assert kept["step"] == 4
    assert all(bool(tensor.isfinite().all()) for tensor in kept["model"].values())
    assert (here / "runs/tiny/001/plugins/breaks.py").read_text() == NAN_LOSS


def test_a_missing_gpu_is_said(here: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="'cuda' is asked for, but PyTorch sees no GPU"):
        run(write_experiment(here), ["runtime.device=cuda"], console=quiet())
    assert not (here / "runs").exists()


def test_data_that_is_stored_normalized_is_not_normalized_twice(here: Path) -> None:
    """And pictures as recorded are brought to the same values before prediction."""
    path = write_experiment(here)
    normalize(here / "data.h5", here / "normalized.h5")
    folder = run(path, ["dataset.path='normalized.h5'"], console=quiet())
    state = checkpoints.load(folder / "checkpoints" / "best.pt")
    assert state["transforms"] == []
    assert set(state["normalization"]) >= {"mean", "std"}
    for index in (4, 5):
        images.write_png(here / "in" / f"square_{index}.png", image(index)["raw"])
    predict(folder, ["in"], here / "out")
    iou = [
        jaccard_score(image(i)["gt"].ravel(), images.read_mask(here / "out" / f"square_{i}.png").ravel() == 255)
        for i in (4, 5)
    ]
    result = json.loads((folder / "result.json").read_text())
    assert result["val"]["best"]["iou"]["cell"]["per_image"] == pytest.approx(np.mean(iou), abs=1e-9)


def test_fitted_figures_travel_with_the_checkpoint(here: Path) -> None:
    folder = run(write_experiment(here), ["transform.0.per='dataset'"], console=quiet())
    pixels = np.stack([image(index)["raw"] for index in range(4)]).astype(np.float64)
    (figures,) = checkpoints.load(folder / "checkpoints" / "best.pt")["transforms"]
    assert figures["mean"] == pytest.approx(pixels.mean(), rel=1e-12)
    assert figures["std"] == pytest.approx(pixels.std(), rel=1e-12)


def test_initial_weights_come_from_another_run(here: Path, finished: Path) -> None:
    folder = run(write_experiment(here), [f"train.init_from='{finished}'", "train.steps=1"], console=quiet())
    count = len(weights(finished))
    assert f"{count} of {count} tensors" in (folder / "log.txt").read_text()
    early, late = weights(folder), weights(finished, "best.pt")
    assert max(float((early[name] - late[name]).abs().max()) for name in early if "weight" in name) < 0.1
    before, after = (json.loads((of / "result.json").read_text()) for of in (finished, folder))
    assert after["baselines"]["initial weights"] == before["val"]["best"]
    assert after["baselines"].keys() - before["baselines"].keys() == {"initial weights"}


def test_labels_that_are_no_classes_are_shown(here: Path) -> None:
    path = write_experiment(here)
    arrays = {f"{i}": image(i) for i in range(4)}
    hdf5_file.write(
        here / "data.h5",
        {"train": ["0", "1", "2"], "val": ["3"]},
        lambda name: {"raw": arrays[name]["raw"], "gt": arrays[name]["gt"] * np.uint8(255)},
        provenance={},
        force=True,
    )
    for verb in (lambda: check.check(path), lambda: run(path, console=quiet())):
        with pytest.raises(UserError, match=r"image '0': its labels hold 0, 255 where \[task\] classes has 0 to 1"):
            verb()
    assert not (here / "runs").exists()


def test_check_writes_nothing(here: Path) -> None:
    path = write_experiment(here)
    before = sorted(here.rglob("*"))
    found = check.check(path)
    assert sorted(here.rglob("*")) == before
    assert (found.train_images, found.validation_images, found.batch_shape) == (4, 2, (4, 1, 16, 16))
    assert sum(found.labels.values()) == 4 * 32 * 32 and found.steps_per_epoch == 4


def test_a_model_of_the_wrong_shape_is_named(here: Path) -> None:
    (here / "flat.py").write_text(
        "import torch\nfrom yeastexp import model\n\n"
        '@model("flat")\nclass Flat(torch.nn.Module):\n'
        "    def __init__(self, channels: int, classes: int) -> None:\n"
        "        super().__init__()\n        self.scale = torch.nn.Parameter(torch.ones(1))\n\n"
        "    def forward(self, images):\n        return images.mean(dim=(2, 3)) * self.scale\n"
    )
    text = 'plugins = ["flat.py"]\n' + EXPERIMENT.replace('"unet"\nwidth = 2\nlevels = 2', '"flat"')
    with pytest.raises(UserError, match=r"gives \(4, 1\) for images \(4, 1, 16, 16\), not \(4, 2, 16, 16\)"):
        check.check(write_experiment(here, text))


def test_predicting_refuses_what_would_be_lost(finished: Path, here: Path) -> None:
    images.write_png(here / "in" / "a.png", image(0)["raw"])
    with pytest.raises(UserError, match="is one of the images"):
        predict(finished, ["in"], here / "in")
    with pytest.raises(UserError, match="not a run directory"):
        predict(here, ["in"], here / "out")
    images.write_png(here / "colour" / "a.png", np.arange(192, dtype=np.uint8).reshape(3, 8, 8))
    with pytest.raises(UserError, match="has 3 channels; the run was trained on 1"):
        predict(finished, ["colour"], here / "out")


def test_a_run_to_start_from_has_to_be_there(here: Path) -> None:
    with pytest.raises(UserError, match=rf"--set train.init_from=gone: \[train\] init_from: no run '{here}/gone'"):
        run(write_experiment(here), ["train.init_from=gone"], console=quiet())


def test_the_quick_experiment_beats_what_needs_no_learning(here: Path) -> None:
    folder = run(Path(__file__).parents[2] / "experiments" / "quick.toml", ["runtime.threads=1"], console=quiet())
    result = json.loads((folder / "result.json").read_text())
    learned, fitted = (
        one["iou"]["cell"]["per_image"] for one in (result["val"]["best"], result["baselines"]["threshold"])
    )
    assert learned > fitted + 0.1
