"""A part of a run comes out the same, or what differs first is named."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from test_resume import ALL_OPTIONS, broken, here, ran, whole
from tiny import quiet

from yeastexp.cli import commands
from yeastexp.errors import UserError
from yeastexp.training import build, checkpoints
from yeastexp.training.resume import resume
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.verify import verify

__all__ = ["here", "whole"]


def changed(run: Path, **changes: Any) -> None:
    """Write the last checkpoint anew with other contents."""
    path = run / "checkpoints" / "last.pt"
    checkpoints.save(path, {**checkpoints.load(path), **changes})


def test_a_run_repeats_and_stays_as_it_is(here: Path, whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    said = io.StringIO()
    found = verify(whole, console=Console(file=said))
    assert (found.first, found.last, found.elsewhere) == (8, 12, []) and found.compared > 100
    assert ": steps 8 to 12 again on cpu\n" in said.getvalue()
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("step", "by", "part"), [(6, "a wish", (4, 7)), (9, "power", (4, 8)), (4, "a wish", (0, 4))])
def test_so_does_one_that_was_cut_short(here: Path, step: int, by: str, part: tuple[int, int]) -> None:
    found = verify(broken(here, step, by), console=quiet())
    assert (found.first, found.last) == part


def test_so_does_one_that_ran_out_of_time_or_stopped_early(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("yeastexp.training.run.never", lambda step: step >= 7)
        late = ran(here)
    assert json.loads((late / "result.json").read_text())["stopped_by_budget"]
    assert verify(late, console=quiet()).last == 7
    with monkeypatch.context() as patched:
        patched.setattr("yeastexp.training.run.as_planned", {4: 9}.get)
        earlier = ran(here)
    result = json.loads((earlier / "result.json").read_text())
    assert (result["steps"], result["planned_steps"]) == (8, 12), "the end of a group"
    assert "having let the learning rate fall faster from step 4 on; give" in result["notes"][0]
    assert (verify(earlier, console=quiet()).first, verify(earlier, console=quiet()).last) == (4, 8)
    with pytest.raises(UserError, match="after step 4 the learning rate was made to fall until step 8, as a budget"):
        resume(earlier, ["train.epochs=6"], console=quiet())
    with monkeypatch.context() as patched:
        patched.setattr("yeastexp.training.run.as_planned", {4: 9}.get)
        constant = ran(here, ALL_OPTIONS, ["scheduler.name=constant", "train.plain_steps=0"])
    (note, *_) = json.loads((constant / "result.json").read_text())["notes"]
    assert note.startswith("the budget ended the run after 8 of 12 planned steps; give it more time")
    assert resume(constant, ["train.epochs=6"], console=quiet()) and verify(constant, console=quiet()).last == 24
    still = ["validation.patience=1", "validation.every=1", "optimizer.learning_rate=1e-12", "model.norm=none"]
    early = ran(here, ALL_OPTIONS, still)
    assert json.loads((early / "result.json").read_text())["stopped_early"]
    assert verify(early, console=quiet()).last == 8


def test_a_run_that_went_on_with_other_threads_repeats_with_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = broken(here, 4, "a wish")
    resume(run, ["runtime.threads=2"], console=quiet())
    made: list[int] = []
    assemble = build.assemble
    monkeypatch.setattr(build, "assemble", lambda loaded: made.append(loaded.runtime.threads) or assemble(loaded))
    assert verify(run, console=quiet()).last == 12 and made == [2]


def test_two_checkpoints_of_one_step_have_nothing_between_them(here: Path) -> None:
    run = broken(here, 9)
    shutil.copyfile(run / "checkpoints/last.pt", run / "checkpoints/previous.pt")
    with pytest.raises(UserError) as caught:
        verify(run, console=quiet())
    assert str(caught.value) == (
        f"{run}: both of its checkpoints are of step 8; 'python -m yeastexp resume {run}' makes steps to verify"
    )
    resume(run, console=quiet())
    assert verify(run, console=quiet()).last == 12


def test_the_first_difference_is_named(here: Path, whole: Path) -> None:
    run = here / "copy"
    shutil.copytree(whole, run)
    weights = dict(checkpoints.load(run / "checkpoints" / "last.pt")["model"])
    name = next(iter(weights))
    weights[name] = weights[name].clone()
    weights[name][0, 0, 0, 0] += 0.5
    changed(run, model=weights)
    with pytest.raises(UserError) as caught:
        verify(run, console=quiet())
    numbers = weights[name].numel()
    assert str(caught.value) == (
        f"{run}: steps 8 to 12 do not repeat: model.{name}: 1 of {numbers} numbers differ, by up to 0.5"
    )
    assert caught.value.status == 1


def test_what_is_not_as_it_was_is_said(here: Path, whole: Path) -> None:
    run = here / "copy"
    shutil.copytree(whole, run)
    found = RunDirectory(run).read_environment()
    found["versions"]["torch"] = "1.0"
    RunDirectory(run).write_environment(found)
    assert verify(run, console=quiet()).elsewhere == [f"versions.torch was 1.0, is {torch.__version__}"]


def test_one_checkpoint_is_not_enough(here: Path) -> None:
    run = broken(here, 1)
    with pytest.raises(UserError, match=r"previous\.pt: no such checkpoint; a run is verified between two of them"):
        verify(run, console=quiet())


def test_the_command_says_it_in_a_line(whole: Path) -> None:
    found = CliRunner().invoke(commands, ["verify", str(whole)])
    assert found.exit_code == 0 and found.stdout.startswith("steps 8 to 12 repeated: ")
    assert found.stdout.endswith(" values, all bits equal\n")


@pytest.mark.parametrize(
    ("old", "new", "edit"),
    [
        ("seed = 0\n", "seed = 3\n", "train.seed was 0, is 3"),
        ("width = 2", "width = 3", "model.width was 2, is 3"),
        ("learning_rate = 0.01", "learning_rate = 0.1", "optimizer.learning_rate was 0.01, is 0.1"),
    ],
)
def test_an_edited_experiment_is_no_repetition(here: Path, whole: Path, old: str, new: str, edit: str) -> None:
    run = here / "copy"
    shutil.copytree(whole, run)
    path = run / "experiment.toml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError) as caught:
        verify(run, console=quiet())
    assert str(caught.value).startswith(f"{path}: is not the experiment of the checkpoint ({edit}")


def test_other_data_are_named(here: Path) -> None:
    run = ran(here)
    with h5py.File(here / "data.h5", "r+") as file:
        file["raw"][0, 0, 0] += 1
    said = f"'{here}/data.h5' has changed and holds other data now"
    with pytest.raises(UserError, match=f"do not repeat: .*; not as it was: {said}$"):
        verify(run, console=quiet())
