"""The files of a run, damaged in every way that a disk, an editor or another run's copy damages them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import pytest
from conftest import Call
from tiny import EXPERIMENT, quiet, write_experiment

from yeastexp.errors import UserError
from yeastexp.prediction.predictor import load_predictor
from yeastexp.report import run_files
from yeastexp.system import records
from yeastexp.training.run import run
from yeastexp.training.run_directory import RunDirectory

Read = Callable[[RunDirectory], Any]
READERS: dict[str, Read] = {
    "environment.json": RunDirectory.read_environment,
    "result.json": RunDirectory.read_result,
    "metrics.csv": RunDirectory.read_metrics,
    "per_image.csv": RunDirectory.read_per_image,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)
    try:
        return folder / run(write_experiment(folder, EXPERIMENT), console=quiet())
    finally:
        os.chdir(before)


@pytest.fixture
def directory(finished: Path, tmp_path: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(finished, tmp_path / "001")))


def without(*keys: str) -> Callable[[Any], Any]:
    def changed(found: Any) -> Any:
        inner = found
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return found

    return changed


def with_digests(**more: Any) -> Callable[[Any], Any]:
    return lambda found: {**found, "digests": {**found["digests"], **more}}


@pytest.mark.parametrize("name", READERS)
def test_files_are_read_as_they_were_written(name: str, directory: RunDirectory) -> None:
    found = READERS[name](directory)
    if name.endswith(".json"):
        assert found == json.loads((directory.path / name).read_text())
    else:
        assert found


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"3", b"\xff\xfe\x00", b"null", b'"', b"a,b\n1\n", b"[" * 99_999])
def test_one_line_names_a_damaged_file_and_what_helps(name: str, damage: bytes, directory: RunDirectory) -> None:
    (directory.path / name).write_bytes(damage)
    with pytest.raises(UserError) as caught:
        READERS[name](directory)
    line = str(caught.value)
    assert line.startswith(f"{directory.path / name}: is damaged (") and "\n" not in line and len(line) < 500
    remedy = "bring it back from a copy" if name == "environment.json" else f"'resume {directory}' writes them anew"
    assert remedy in line


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("environment.json", without("digests"), "digests: Field required"),
        ("environment.json", without("digests", "data"), "digests.data: Field required"),
        ("environment.json", without("versions"), "versions: Field required"),
        ("environment.json", lambda found: {**found, "threads": "2"}, "threads: Input should be a valid integer"),
        ("environment.json", lambda found: {**found, "resumed": 3}, "resumed: Input should be a valid list"),
        ("environment.json", with_digests(folds=[]), "digests.folds: Input should be a valid dictionary"),
        ("result.json", without("val"), "val: Field required"),
        ("result.json", without("val", "best", "iou", "cell", "low"), "val.best.iou.cell.low: Field required"),
        ("result.json", without("val", "last", "iou"), "last: no score of 'iou'"),
        ("result.json", lambda found: {**found, "notes": [3]}, "notes.0: Input should be a valid string"),
        ("result.json", without("planned_steps"), "planned_steps: Field required"),
        ("result.json", without("baselines", "threshold", "iou", "cell"), "threshold: no score of 'iou'"),
    ],
)
def test_a_key_that_readers_rely_on(
    name: str, change: Callable[[Any], Any], fault: str, directory: RunDirectory
) -> None:
    path = directory.path / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError) as caught:
        READERS[name](directory)
    assert str(caught.value).startswith(f"{path}: is damaged ({fault}")


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("metrics.csv", "step", "stop", "no column 'step'"),
        ("metrics.csv", "\n1,", "\nabc,", "'abc' is no number"),
        ("per_image.csv", ",score", ",scope", "no column 'score'"),
        ("per_image.csv", "val,square_4,iou,cell,", "val,square_4,iou,cell,x", "is no number"),
        ("per_image.csv", "val,square_4,iou,cell,", "val,square_4,iou,cell,1,", "cells"),
        ("per_image.csv", "val,square_4,iou,cell,", "val,square_9,iou,cell,", "not every val image has a score of"),
    ],
)
def test_tables_that_are_not_whole(name: str, old: str, new: str, fault: str, directory: RunDirectory) -> None:
    path = directory.path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        READERS[name](directory)
    assert str(caught.value).startswith(f"{path}: is damaged (") and fault in str(caught.value)


def test_what_cannot_be_read_says_why(directory: RunDirectory) -> None:
    directory.environment.unlink()
    with pytest.raises(UserError, match=r"environment\.json: is missing; bring it back from a copy of the run"):
        directory.read_environment()
    directory.environment.mkdir()
    with pytest.raises(UserError, match=r"environment\.json: cannot be read \(Is a directory\); bring it back"):
        directory.read_environment()
    directory.metrics.unlink()
    directory.per_image.unlink()
    assert (directory.read_metrics(), directory.read_per_image()) == ([], {})


def test_a_table_may_hold_quotes_and_an_empty_cell(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('a,b\n"1,\u2028x",\n')
    assert records.read_table(path, ["a"], "") == [{"a": "1,\u2028x", "b": ""}]
    assert records.number(path, "", "") is None


@pytest.mark.parametrize("command", ["report", "evaluate", "verify", "resume", "compare"])
@pytest.mark.parametrize("lost", [True, False])
def test_every_command_names_an_environment_that_it_needs(
    command: str, lost: bool, directory: RunDirectory, finished: Path, call: Call
) -> None:
    directory.environment.unlink()
    if not lost:
        directory.environment.write_text('{"device": "cpu"}')
    if command == "resume":
        directory.result.unlink()
    status, _, err = call(command, directory, *([finished] if command == "compare" else []))
    (line,) = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and line.startswith(f"{directory.environment}: is {'missing' if lost else 'damaged'}")


def test_predictions_do_not_need_the_environment(directory: RunDirectory) -> None:
    directory.environment.unlink()
    (note,) = load_predictor(directory.path).notes
    assert note.startswith(f"{directory.environment}: is missing; ") and "whether plugins are those of the run" in note


@pytest.mark.parametrize("name", ["result.json", "metrics.csv", "per_image.csv"])
def test_a_report_goes_on_without_a_file_and_says_so(name: str, directory: RunDirectory, call: Call) -> None:
    (directory.path / name).write_bytes(b"[\xff")
    status, out, err = call("report", directory)
    assert (status, out.strip()) == (0, str(directory.path / "report.html"))
    assert f"warning: {directory.path / name}: is damaged" in err
    assert "is damaged (byte 1 is no UTF-8)" in (directory.path / "report.html").read_text()


def test_files_of_another_run(directory: RunDirectory, finished: Path, call: Call) -> None:
    result, text = json.loads(directory.result.read_text()), directory.per_image.read_text()
    directory.per_image.write_text(text.replace("square_4", "field_00"))
    status, _, err = call("report", directory)
    assert status == 0 and not err
    named = "per_image.csv: names 'field_00', which is no validation image of this run"
    assert named in (directory.path / "report.html").read_text().replace("&#39;", "'")
    directory.per_image.write_text(text.replace(",accuracy,", ",dice,"))
    (damage,) = run_files.read(directory.path).damage
    assert "per_image.csv: 'accuracy' of 'all' of val images is in one of it and result.json alone" in damage
    directory.per_image.write_text("".join(line for line in text.splitlines(True) if ",iou,cell" not in line))
    status, _, err = call("compare", directory, finished)
    assert status == 2 and "per_image.csv: has no score of 'cell'; bring back" in err
    result["val"]["best"]["iou"]["hypha"] = result["val"]["best"]["iou"].pop("cell")
    for summary in (result["val"]["last"], *result["baselines"].values()):
        summary["iou"]["hypha"] = summary["iou"].pop("cell")
    directory.result.write_text(json.dumps(result))
    assert "its scores of 'iou' are of another experiment" in run_files.read(directory.path).damage[0]


@pytest.mark.parametrize("name", ["log.txt", "pictures", "checkpoints", ".lock", "baselines", "evaluations", "plugins"])
@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_nothing_is_written_through_a_link(name: str, command: str, directory: RunDirectory, call: Call) -> None:
    directory.result.unlink()
    place, target = directory.path / name, directory.path.parent / "target"
    if place.is_dir():
        place.rename(target)
    else:
        place.unlink(missing_ok=True)
        target.mkdir() if "." not in name else target.write_text("mine")
    place.symlink_to(target)
    before = {path: path.stat().st_mtime_ns for path in (target, *target.rglob("*"))}
    status, _, err = call(command, directory)
    assert status == 2
    fault = "is a symbolic link, and a run writes only into itself"
    assert err == f"{place}: {fault}; remove it, or put what it leads to in its place\n"
    assert {path: path.stat().st_mtime_ns for path in (target, *target.rglob("*"))} == before


def test_a_log_that_a_copy_of_the_run_shares_is_not_written(directory: RunDirectory, tmp_path: Path) -> None:
    before = directory.log_file.read_text()
    os.link(directory.log_file, tmp_path / "log.txt")
    directory.log("a line")
    assert (tmp_path / "log.txt").read_text() == before != directory.log_file.read_text()
    assert directory.log_file.read_text().startswith(before)


def test_a_log_that_is_a_pipe_does_not_hang_a_run(directory: RunDirectory, call: Call) -> None:
    directory.result.unlink()
    directory.log_file.unlink()
    os.mkfifo(directory.log_file)
    status, _, err = call("resume", directory)
    assert (status, err) == (2, f"{directory.log_file}: is no file that can be written; remove it\n")


@pytest.mark.parametrize("moment", ["write_metrics", "log", "write_per_image", "write_result"])
def test_a_run_directory_that_is_moved_while_it_trains(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)
    write, moved = getattr(RunDirectory, moment), tmp_path / "moved"

    def moving(self: RunDirectory, content: Any) -> None:
        if not moved.exists():
            self.path.rename(moved)
        write(self, content)

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, moment, moving)
        status, out, err = call("run", "tiny.toml")
    gone = "runs/tiny/001: was moved or removed while the run wrote into it; 'resume' it where it is now, and it "
    assert (status, out, err.splitlines()[-1]) == (1, "", f"{gone}continues from its last checkpoint")
    assert not list((tmp_path / "runs").rglob("001"))
    if moment != "log":  # nothing was saved before
        status, _, err = call("resume", moved)
        assert status == 0, err


@pytest.mark.parametrize(
    ("command", "room", "place"), [("evaluate", 300, "evaluations"), ("report", 20_000, "report.html")]
)
def test_a_full_disk_is_one_line(command: str, room: int, place: str, directory: RunDirectory) -> None:
    words = [sys.executable, "-m", "yeastexp", command, str(directory)]
    done = forks.run(words, file_size=room, cwd=directory.path.parent)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{directory.path / place}")
    assert done.stderr.endswith(": no file may grow so large; make room, or name another place\n")
    assert done.stderr.count("\n") == 1
    assert not list(directory.path.rglob("*.part"))
