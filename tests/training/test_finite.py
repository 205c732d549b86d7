"""Weights that are NaN or infinite are never saved, scored or used, those of the last update included."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import h5py
import pytest
import torch
from pages import Page
from tiny import EXPERIMENT, quiet, write_experiment
from torch import nn

from yeastexp.errors import UserError
from yeastexp.evaluation.compare import compare
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.prediction.predictor import load_predictor
from yeastexp.report import report
from yeastexp.sample import Sample
from yeastexp.training import checkpoints, finite, optimization
from yeastexp.training.finite import NonFiniteLoss, check_gradients, check_weights, masks_of, non_finite
from yeastexp.training.resume import is_concluded, resume
from yeastexp.training.run import run
from yeastexp.training.run_directory import RunDirectory

NAN, INF = float("nan"), float("inf")

ROOTED = """
import torch
from torch import nn
from torch.nn import functional
from yeastexp import loss, model

@loss("rooted")
class Rooted(nn.Module):
    '''Cross-entropy, and from a batch on a root at 0: its value is finite and its gradient is not.'''

    def __init__(self, classes: int, at: int = 8) -> None:
        super().__init__()
        self.at, self.batches = at, 0

    def forward(self, logits, labels):
        value = functional.cross_entropy(logits, labels, ignore_index=-1)
        self.batches += torch.is_grad_enabled()
        return value + (logits - logits).square().mean().sqrt() if self.batches >= self.at else value

@loss("unscored")
class Unscored(nn.Module):
    '''Cross-entropy, which is no number of whole images.'''

    def __init__(self, classes: int) -> None:
        super().__init__()

    def forward(self, logits, labels):
        value = functional.cross_entropy(logits, labels, ignore_index=-1)
        return value if torch.is_grad_enabled() else value * torch.nan

@model("masked")
class Masked(nn.Module):
    '''It has a buffer that is meant to hold -inf, and is added to as an attention mask is.'''

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, outputs, 3, padding=1)
        self.register_buffer("mask", torch.full((3,), -torch.inf))

    def forward(self, images):
        return self.layer(images) + self.mask.exp().sum()

@model("blind")
class Blind(Masked):
    '''Its outputs are NaN in evaluation.'''

    def forward(self, images):
        return super().forward(images) * (1 if self.training else torch.nan)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rooted.py").write_text(ROOTED)
    return tmp_path


def rooted(here: Path, at: int) -> Path:
    """Two epochs of four steps, of which one has a gradient that is not finite."""
    text = EXPERIMENT.replace('"cross_entropy"', f'"rooted"\nat = {at}')
    return write_experiment(here, 'plugins = ["rooted.py"]\n' + text)


def kept(here: Path) -> dict[str, int]:
    """The steps of the checkpoints, all of whose weights are finite."""
    paths = sorted((here / "runs/tiny/001/checkpoints").glob("*.pt"))
    states = {path.stem: torch.load(path, weights_only=True) for path in paths}
    assert not any(non_finite(state["model"]) for state in states.values())
    return {name: state["step"] for name, state in states.items()}


@pytest.mark.parametrize(("at", "last"), [(8, 4), (6, 4), (4, 0), (1, 0)])
def test_a_gradient_that_is_not_finite_changes_nothing(here: Path, at: int, last: int) -> None:
    """In the last step of the run and of an epoch, and within one."""
    said = (
        f"^step {at}: the loss is finite and its gradient is not; look for a root.* The last good checkpoint is kept$"
    )
    with pytest.raises(NonFiniteLoss, match=said) as caught:
        run(rooted(here, at), console=quiet())
    assert caught.value.status == 1
    assert kept(here)["last"] == last
    assert "best" not in kept(here) or kept(here)["best"] <= last


@pytest.mark.parametrize("average", [[], ["train.ema_decay=0.5"]])
@pytest.mark.parametrize("settings", [["train.epochs=2"], ["train.steps=6"]])
def test_weights_that_are_not_finite_are_neither_scored_nor_saved(
    here: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], average: list[str]
) -> None:
    """As on a GPU, where no step waits for its gradients; the last update comes before a validation as well."""
    monkeypatch.setattr(optimization, "check_gradients", lambda *anything: None)
    last = 6 if "steps" in settings[0] else 8
    with pytest.raises(NonFiniteLoss, match=f"^step {last}: the weights are NaN or infinite \\('") as caught:
        run(rooted(here, last), [*settings, *average], console=quiet())
    assert caught.value.status == 1
    assert kept(here)["last"] == 4
    log = (here / "runs/tiny/001/log.txt").read_text()
    assert f"step {last}: val/loss" not in log


def test_a_checkpoint_within_an_epoch_is_looked_at_as_well(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "check_gradients", lambda *anything: None)
    with pytest.raises(NonFiniteLoss, match=r"^step 2: the weights are NaN or infinite"):
        run(rooted(here, 2), ["runtime.checkpoint_minutes=1e-9"], console=quiet())
    assert kept(here)["last"] == 1


def test_weights_that_are_not_finite_are_not_used(here: Path) -> None:
    """A checkpoint of an older version, or of another program: the one before is resumed from."""
    folder = run(write_experiment(here), console=quiet())
    path = folder / "checkpoints" / "last.pt"
    state = checkpoints.load(path)
    name = next(iter(state["model"]))
    state["model"][name].fill_(NAN)
    for place in (path, folder / "checkpoints" / "best.pt"):
        checkpoints.save(place, state)
    told = rf"last.pt: its weights are NaN or infinite \('{name}'\); use another checkpoint, or train again"
    with pytest.raises(UserError, match=told):
        load_predictor(folder, "last")
    with pytest.raises(UserError, match=r"best.pt: its weights are NaN or infinite"):
        run(here / "tiny.toml", [f"train.init_from='{folder}'"], console=quiet())
    (folder / "result.json").unlink()
    resume(folder, console=quiet())
    assert f"last.pt: its weights are NaN or infinite ('{name}')" in (folder / "log.txt").read_text()
    assert non_finite(checkpoints.load(path)["model"]) is None


def of_model(here: Path, name: str) -> Path:
    """An experiment with a model of the plugin."""
    text = EXPERIMENT.replace('name = "unet"\nwidth = 2\nlevels = 2', f'name = "{name}"')
    return write_experiment(here, 'plugins = ["rooted.py"]\n' + text)


@pytest.mark.parametrize("average", [[], ["train.ema_decay=0.9"]])
def test_a_mask_of_infinities_is_no_fault(here: Path, average: list[str]) -> None:
    folder = run(of_model(here, "masked"), average, console=quiet())
    assert load_predictor(folder).model.mask.eq(-INF).all()
    assert math.isfinite(RunDirectory(folder).read_result()["last"]["loss"])


def test_outputs_that_are_no_numbers_are_not_scored(here: Path) -> None:
    """All classes would be the first, without a word."""
    said = r"\[model\] name: gives NaN for the whole image '.*', though its weights are finite"
    with pytest.raises(NonFiniteLoss, match=said) as caught:
        run(of_model(here, "blind"), console=quiet())
    last = checkpoints.load(here / "runs/tiny/001/checkpoints/last.pt")
    assert caught.value.status == 1 and last["step"] == 4 and last["model"]["layer.weight"].isfinite().all()


def test_an_image_that_is_nan_itself_is_blamed() -> None:
    sample = Sample(torch.full((1, 2, 2), math.nan), torch.zeros(2, 2).long(), "x")
    with pytest.raises(NonFiniteLoss, match="image 'x' holds NaN or infinite values; give finite ones"):
        finite.check_outputs(sample.image, sample, "a.toml:3:1: [model]")
    finite.check_outputs(torch.zeros(2, 2, 2), sample, "")


def test_an_image_without_labels_has_no_part_in_the_validation_loss(here: Path) -> None:
    path = write_experiment(here)
    whole = RunDirectory(run(path, console=quiet())).read_result()
    with h5py.File(here / "data.h5", "r+") as file:
        index = [name.decode() for name in file["names"]].index(file["splits/val"][0].decode())
        labels = file["gt"][:].astype("int8")
        labels[index] = -1
        del file["gt"]
        file["gt"] = labels
    found = RunDirectory(run(path, console=quiet()))
    state = checkpoints.load(found.checkpoint("last"))["validations"]["last"]
    known = [loss for loss in state["losses"].values() if loss == loss]
    assert len(known) == len(state["losses"]) - 1
    assert found.read_result()["last"]["loss"] == pytest.approx(sum(known) / len(known))
    assert not any("validation loss" in note for note in found.read_result()["notes"]) and whole["last"]["loss"] > 0


def test_a_validation_loss_that_is_no_number_is_said_and_is_null_in_json(here: Path) -> None:
    text = EXPERIMENT.replace('"cross_entropy"', '"unscored"')
    folder = run(write_experiment(here, 'plugins = ["rooted.py"]\n' + text), console=quiet())
    result = json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["last"]["loss"] is None and result["best"]["loss"] is None and is_concluded(RunDirectory(folder))
    assert "the validation loss of '" in result["notes"][0] and "more image" in result["notes"][0]


def test_without_a_score_the_last_weights_are_called_so(here: Path) -> None:
    path = write_experiment(here)
    with h5py.File(here / "data.h5", "r+") as file:
        held = [name.decode() for name in file["splits/val"]]
        labels = file["gt"][:].astype("int8")
        labels[[name.decode() in held for name in file["names"]]] = -1
        del file["gt"]
        file["gt"] = labels
    folder = run(path, console=(console := quiet()))
    result = RunDirectory(folder).read_result()
    assert result["best"] == {"step": 8, "value": None, "loss": None}
    assert result["val"]["selected_on_these_images"] is False
    title = "2 validation images; last checkpoint (step 8), as no score selects another"
    assert isinstance(console.file, io.StringIO)
    assert title in console.file.getvalue() and title in (page := Page(report([folder])).text)
    assert "2 validation images without a score that selects a checkpoint" in page and "also selected" not in page
    assert evaluate(folder)[1].selected_on == []
    shutil.copytree(folder, here / "again")
    assert not compare([folder, here / "again"]).selected


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_value_is_found(bad: float) -> None:
    good, mixed = torch.tensor([3e38, 3e38]), torch.tensor([1.0, bad, INF, 0.0])
    check_gradients([good, torch.ones(2, dtype=torch.int64)], 1)  # their sum overflows, they do not
    check_gradients([], 1)
    with pytest.raises(NonFiniteLoss):
        check_gradients([good, mixed], 1)
    with pytest.raises(NonFiniteLoss, match="step 3: the weights are NaN or infinite \\('b'\\)"):
        check_weights({"a": good, "b": mixed}, 3)
    check_weights({"a": good, "b": mixed}, 3, masks={"b"})
    assert masks_of(nn.Linear(1, 1).state_dict()) == set() and masks_of({"b": mixed}) == {"b"}
    assert finite.non_finite({"a": torch.zeros(0), "b": mixed}) == "b"
