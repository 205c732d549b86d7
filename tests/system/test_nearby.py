"""What is meant by a path that leads to no run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Call

from yeastexp.errors import UserError
from yeastexp.prediction.predict import predict
from yeastexp.training.run_directory import RunDirectory

PRINTED = "'run' prints its path on the last line"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs, the newest of `mine` being the second, and files around them."""
    monkeypatch.chdir(tmp_path)
    for age, run in enumerate(("mine/002", "mine/001", "other/001")):
        (folder := Path("runs", run)).mkdir(parents=True)
        (folder / "experiment.toml").write_text("")
        os.utime(folder / "experiment.toml", (0, 1000 - age))
    Path("runs/mine/001/checkpoints").mkdir()
    Path("runs/mine/001/checkpoints/best.pt").write_text("")
    Path("mine.toml").write_text("")
    Path("named.toml").write_text("name = 'other'")
    Path("wrong.toml").write_text("name = [")
    Path("empty").mkdir()
    return tmp_path


MEANT = {
    "runs/mine": "did you mean 'runs/mine/002', the newest in it?",
    "runs": "did you mean 'runs/mine/002', the newest in it?",
    "runs/mine/001/checkpoints/best.pt": "did you mean 'runs/mine/001', in which it is?",
    "runs/mine/001/checkpoints": "did you mean 'runs/mine/001', in which it is?",
    "runs/mine/001/experiment.toml": "did you mean 'runs/mine/001', in which it is?",
    "mine.toml": "did you mean 'runs/mine/002', the newest run of it?",
    "named.toml": "did you mean 'runs/other/001', the newest run of it?",
    "wrong.toml": "'run wrong.toml' makes one",
    "runs/mine/1": "did you mean 'runs/mine/001'?",
    "runs/mien/002": "did you mean 'runs/mine/002'?",
    "rnus/mine/002": "did you mean 'runs/mine/002'?",
    "mine": "did you mean 'runs/mine/002', the newest in it?",
    "mine/001": "did you mean 'runs/mine/001'?",
    "runs/x": "there are runs/other/001, runs/mine/001, runs/mine/002",
    "runs/other/x": "did you mean 'runs/other/001'?",
    "empty": PRINTED,
    "nothing": "there are runs/other/001, runs/mine/001, runs/mine/002",
    "x" * 300: "there are runs/other/001, runs/mine/001, runs/mine/002",
}


@pytest.mark.parametrize("path", MEANT)
def test_the_run_that_is_meant(path: str, runs: Path) -> None:
    with pytest.raises(UserError) as error:
        RunDirectory.existing(Path(path))
    assert str(error.value) == f"{path}: not a run directory; {MEANT[path]}"


def test_without_any_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("")
    for path, meant in {"mine.toml": "'run mine.toml' makes one", "runs/mine/001": PRINTED, "/": PRINTED}.items():
        assert RunDirectory(Path(path)).meant == meant


def test_the_runs_of_a_cross_validation(runs: Path) -> None:
    fold = Path("runs/all/001/seed_0_fold_1/checkpoints")
    fold.mkdir(parents=True)
    (fold / "best.pt").write_text("")
    Path("runs/all/001/experiment.toml").write_text("")
    with pytest.raises(UserError) as error:
        predict(Path("runs/all/001"), ["empty"], Path("out"))
    meant = "did you mean 'runs/all/001/seed_0_fold_1', the newest in it?"
    assert str(error.value) == f"runs/all/001: has no checkpoints of its own, but runs; {meant}"


COMMANDS = [
    "predict {} empty -o out",
    "evaluate {}",
    "verify {}",
    "resume {}",
    "report {}",
    "compare {} {}",
    "inspect {}",
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_commands_say_it(command: str, runs: Path, call: Call) -> None:
    status, out, err = call(*command.format("runs/mine", "runs/mine").split())
    assert (status, out) == (2, "") and err.startswith("runs/mine: ")
    assert err.endswith("; did you mean 'runs/mine/002', the newest in it?\n") and err.count("\n") == 1
