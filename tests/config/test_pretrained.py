"""Weights that come with the package: found by name, checked by digest, and good for images that nobody annotated."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import Call, WriteExperiment

import yeastexp as yx
from docs import starting_point
from yeastexp.config import pretrained
from yeastexp.config.loading import load_experiment
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.images import write_png
from yeastexp.errors import UserError
from yeastexp.metrics.matching import f1, overlap
from yeastexp.nets.unet import UNet
from yeastexp.training import checkpoints, initial_weights
from yeastexp.training.run import train

pytestmark = pytest.mark.usefixtures("few_scenes")

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_weights_are_small_and_those_of_the_starter() -> None:
    for name in pretrained.DIGESTS:
        run = pretrained.located(Path(name))
        assert run == pretrained.FOLDER / name and (run / pretrained.WEIGHTS).stat().st_size < 2 * 10**6
        paths = EXPERIMENTS / "starting_point.toml", run / pretrained.EXPERIMENT
        starter, used = (load_experiment(path, ["train.seed=0"]) for path in paths)
        made, wanted = (experiment.identity() for experiment in (used, starter))
        assert all(
            made[table] == wanted[table] for table in ("task", "dataset", "transform", "augment", "model", "loss")
        )
        assert made["train"]["batch_size"] == wanted["train"]["batch_size"]


def test_cells_are_found_that_nobody_annotated() -> None:
    """Images of the other generator, none of which the weights were trained on."""
    data, model = SyntheticYeast(images=4, size=192, seed=11), yx.load("yeast", device="cpu")
    samples = [data.read(name) for name in data.splits["val"]]
    found = [model.predict(sample.image.numpy()).instances for sample in samples]
    tables = [overlap(sample.maps["instances"].numpy(), cells) for cells, sample in zip(found, samples, strict=True)]
    assert f1(tables) > 0.6


def test_a_run_directory_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yeast").mkdir()
    # A folder of images may have the name, too.
    assert pretrained.located(Path("yeast")) == pretrained.FOLDER / "yeast"
    (tmp_path / "yeast" / pretrained.EXPERIMENT).touch()
    assert pretrained.located(Path("yeast")) == Path("yeast")
    assert pretrained.located(Path("runs/yeast")) == Path("runs/yeast")


def test_predict_takes_the_name_and_images_of_any_scale(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    for scale in (1, 250):
        write_png(Path(f"images/{scale}.png"), (tiny.image(0, 48)["raw"] // 10 * scale).astype(np.uint16))
    status, out, err = call("predict", "yeast", "images", "-o", "found", "--device", "cpu")
    assert (status, "warning" in err, len(recwarn)) == (0, False, 0), err
    assert "2 label images" in out and out.endswith("\nwith the pretrained weights of the package\n")
    assert Path("found/cells.csv").is_file()
    status, _, err = call("evaluate", "yeast")
    assert status == 2 and "'predict' and [train] init_from alone" in err
    said = "did you mean 'yeast', the weights that come with the package?"
    for name in ("yeasts", "Yeast"):
        status, _, err = call("predict", name, "images", "-o", "other")
        assert (status, err) == (2, f"{name}: not a run directory; {said}\n")
        status, _, err = call("check", str(EXPERIMENTS / "quick.toml"), "--set", f"train.init_from={name}")
        assert status == 2 and err.rstrip().endswith(said)


def test_damaged_weights_are_refused(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(pretrained.FOLDER, tmp_path / "weights")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    weights = tmp_path / "weights" / "yeast" / pretrained.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="missing or damaged; install yeastexp again"):
        yx.load("yeast")
    status, _, err = call("run", str(EXPERIMENTS / "quick_cells.toml"), "--set", "train.init_from=yeast")
    assert status == 2 and "install yeastexp again" in err
    weights.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        yx.load("yeast")


def test_training_starts_from_them_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        'extends = "yeastexp:cells"\naugment = []\n[dataset]\nname = "synthetic_yeast"\nimages = 4\nsize = 96\n'
        '[task]\nviews = 1\n[train]\nsteps = 1\ninit_from = "yeast"\n[patches]\nsize = 32\n'
    )
    run = train(load_experiment(Path("mine.toml")))
    assert "tensors" in run.log_file.read_text() and 'init_from = "yeast"' in run.experiment.read_text()
    assert run.load(data=False).train.init_from == pretrained.FOLDER / "yeast"
    weights = checkpoints.load(pretrained.FOLDER / "yeast" / pretrained.WEIGHTS)["model"]
    trained = checkpoints.load(run.checkpoint("last"))["model"]
    distances = [float((trained[key] - value).abs().max()) for key, value in weights.items() if value.ndim == 4]
    assert max(distances) < 0.05  # one step of AdamW
    assert run.read_environment()["digests"]["init_from"] == {"weights/yeast/best.pt": pretrained.DIGESTS["yeast"]}


def test_weights_that_do_not_fit_are_said_and_can_be_left_out(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        'extends = "yeastexp:quick_cells"\n[model]\nwidth = 8\n[train]\nsteps = 1\ninit_from = "yeast"\n'
    )
    commands = (["check"], ["check", "--data", "--steps", "1"], ["run"])
    said = r"initial weights at random: the pretrained ones \('yeast'\) fit 0 of \d+ kernels of this model\n"
    for command, *more in commands:
        status, _, err = call(command, "mine.toml", *more)
        assert status == 0 and re.search(said, err)
    # Weights of a run were meant: that they do not fit is an error, before a directory is claimed.
    fault = "[train] init_from: no kernel of '{}' fits this model; name a run of a similar model, or 'random' to begin"
    other = [f"--set={setting}" for setting in ("train.init_from=runs/mine/001", "model.width=4", "name=x")]
    for command, *more in commands:
        status, _, err = call(command, "mine.toml", *more, *other)
        assert status == 2 and fault.format(tmp_path / "runs/mine/001") in err
    assert not Path("runs/x").exists()
    status, _, err = call("run", "mine.toml", "--set", "train.init_from=random", "--set", "name=y")
    assert status == 0 and "initial weights" not in err
    assert "init_from" not in Path("runs/y/001/experiment.toml").read_text()
    shutil.copytree("runs/y/001", "random")
    assert load_experiment(Path("mine.toml"), ["train.init_from=random"]).train.init_from == tmp_path / "random"


def test_the_last_layer_of_another_task_begins_at_random(tmp_path: Path) -> None:
    weights = checkpoints.load(pretrained.FOLDER / "yeast" / pretrained.WEIGHTS)["model"]
    for task, fitted in (("instances", True), ("semantic", False)):
        model = UNet(1, 3, residual=True)  # as many outputs for three classes as for two and the hills
        said = initial_weights.start_from(model, pretrained.FOLDER / "yeast" / pretrained.WEIGHTS, task)
        assert torch.equal(model.head.weight, weights["head.weight"].float()) == fitted
        assert said.complete == fitted
        assert said.told[0].endswith("tensors" if fitted else "; at random: head.bias, head.weight")
    said = initial_weights.start_from(UNet(1, 3), pretrained.FOLDER / "yeast" / pretrained.WEIGHTS, "instances")
    # All that fits a U-Net of plain blocks is its path upwards.
    assert "at random: the pretrained ones" in said.told[0] and not said.complete


def test_the_page_trains_from_two_images(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (EXPERIMENTS.parent / "docs" / "starting-point.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    Path("few.toml").write_text(text)
    assert "\npython -m yeastexp run few.toml --set train.steps=1000\n" in page
    assert call("synth", "-o", "data.h5", "--images", "3", "--size", "96")[0] == 0
    words = "run few.toml --set train.steps=1 --set augment=[] --set task.views=1 --set patches.size=32"
    status, out, err = call(*words.split())
    assert status == 0 and out.endswith("runs/few/001\n"), err
    resolved = Path("runs/few/001/experiment.toml").read_text()
    assert all(key in resolved for key in ('init_from = "yeast"', "init_share = 0.25", "learning_rate = 0.001"))


def test_the_page_has_the_scores_of_its_runs() -> None:
    page = starting_point.DOCUMENT.read_text(encoding="utf-8")
    assert all(table in page for table in starting_point.tables().values())


def test_a_run_becomes_weights_of_the_package(
    experiment_file: WriteExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(load_experiment(experiment_file({"epochs = 2": "epochs = 1"})))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(pretrained, "DIGESTS", {"yeast": starting_point.ship(run.path)})
    image = tiny.image(5)["raw"]
    before, after = (
        yx.load(name, checkpoint, device="cpu").predict(image).probabilities
        for name, checkpoint in ((run.path, "last"), ("yeast", "best"))
    )
    assert np.abs(before - after).max() < 1e-3  # kernels have 16 bits
