"""The record of an output folder: whose results it has, and which files predictions wrote there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from yeastexp.errors import UserError
from yeastexp.prediction.output_folder import ORIGIN, OutputFolder


def planned(
    path: Path, *names: str, exported: tuple[str, ...] = (), checkpoint: str = "0", contents: str = "same"
) -> OutputFolder:
    """A folder as a call takes it that writes some files."""
    folder = OutputFolder(path, Path("runs/001"), checkpoint)
    folder.refuse_other_run(path / "predictions.csv")
    folder.plan(*({path / name: contents for name in each} for each in (names, exported)), {contents})
    return folder


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / ORIGIN).read_text())
    return found


@pytest.mark.parametrize("place", ["a.png", "coco.json", "ctc/01_RES/notes.txt"])
def test_a_file_that_no_prediction_wrote_is_refused(tmp_path: Path, place: str) -> None:
    """Until it is moved away; what a prediction has written is replaced."""
    given = tmp_path / place
    given.parent.mkdir(parents=True, exist_ok=True)
    given.write_text("drawn by hand")
    target = given.parent if "ctc" in place else given
    said = f"{target}: exists, and no prediction wrote it; name another folder, or move it"
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        planned(tmp_path, "a.png", exported=("coco.json", "ctc/01_RES"))
    assert given.read_text() == "drawn by hand"
    given.unlink()
    planned(tmp_path, "a.png", exported=("coco.json", "ctc/01_RES")).claim(result=True)
    given.write_text("predicted")
    planned(tmp_path, "a.png", exported=("coco.json", "ctc/01_RES"))


def test_the_first_of_several_files_is_named(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"/b: exists \(as do 1 more\), and no prediction wrote it; name another"):
        planned(tmp_path, "b", "c", "d")


def test_what_a_killed_call_has_written_is_not_refused(tmp_path: Path) -> None:
    """The record is there before the first file, but the folder is no run's before there is a result."""
    planned(tmp_path / "out", "a.png", "b.png").claim()
    (tmp_path / "out/a.png").touch()
    assert record(tmp_path / "out") == {"files": {"a.png": ["same"], "b.png": ["same"]}}
    planned(tmp_path / "out", "a.png", "b.png", checkpoint="1").claim(result=True)
    found = record(tmp_path / "out")
    assert found == {"files": {"a.png": ["same"], "b.png": ["same"]}, "run": "runs/001", "checkpoint": "1"}
    with pytest.raises(UserError, match="holds results of another run"):
        planned(tmp_path / "out", "a.png")


def test_a_folder_whose_results_were_all_removed_is_free_for_another_run(tmp_path: Path) -> None:
    wrote(planned(tmp_path, "a.png", "b.png"), "a.png", "b.png")
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match="holds results of another run"):
        planned(tmp_path, "a.png", checkpoint="1")
    (tmp_path / "b.png").unlink()
    wrote(planned(tmp_path, "a.png", checkpoint="1"), "a.png")
    assert record(tmp_path) == {"files": {"a.png": ["same"]}, "run": "runs/001", "checkpoint": "1"}


def test_a_call_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    folder = planned(tmp_path / "new" / "out", "a.png")
    folder.claim()
    folder.withdraw()
    assert list(tmp_path.iterdir()) == []
    folder = planned(tmp_path / "out", "masks/a.png")
    folder.claim()
    (tmp_path / "out/masks").mkdir()
    (tmp_path / "out/masks/a.png").touch()
    folder.withdraw()
    assert record(tmp_path / "out") == {"files": {"masks/a.png": ["same"]}}, "what it wrote half is its own"


def test_a_part_without_images_does_not_remove_the_record_of_another(tmp_path: Path) -> None:
    part, empty = (planned(tmp_path, "a.png") for _ in range(2))
    part.claim()
    empty.withdraw()
    assert record(tmp_path) == {"files": {"a.png": ["same"]}}


def test_a_file_that_could_not_be_written_is_not_taken_for_written(tmp_path: Path) -> None:
    folder = planned(tmp_path, "a.png", "b.png")
    folder.claim(result=True)
    (tmp_path / "a.png").touch()
    folder.settle(complete=False)
    (tmp_path / "b.png").touch()
    with pytest.raises(UserError, match=r"/b\.png: exists, and no prediction wrote it"):
        planned(tmp_path, "a.png", "b.png")


@pytest.mark.parametrize("said", [{}, {"files": ["a.png", "coco.json", "zarr/a.zarr"], "contents": "0"}])
def test_a_record_of_an_earlier_version_does_not_say_what_files_are_of(tmp_path: Path, said: dict[str, object]) -> None:
    """Or not even which ones predictions wrote; then all that are there may be replaced by this call and later ones."""
    (tmp_path / ORIGIN).write_text(json.dumps({"run": "runs/001", "checkpoint": "0", **said}))
    for name in ("a.png", "coco.json", "zarr/a.zarr/0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    wrote(planned(tmp_path, "a.png"))
    assert record(tmp_path)["files"]["a.png"] == ["same"] and record(tmp_path)["files"]["coco.json"] == []
    planned(tmp_path, "a.png", exported=("coco.json", "zarr/a.zarr"))


def wrote(folder: OutputFolder, *names: str, complete: bool = True) -> None:
    """What a call does that writes some of its files."""
    folder.claim(result=True)
    for name in names:
        (folder.path / name).touch()
    folder.settle(complete=complete)


def test_a_file_of_other_contents_is_written_anew_or_refused(tmp_path: Path) -> None:
    """One of the same images and options stays, as its ids are those of the new label images."""
    wrote(planned(tmp_path, "a.png", exported=("coco.json",)), "a.png", "coco.json")
    wrote(planned(tmp_path, "a.png", "a.tif"), "a.tif")
    assert [*record(tmp_path)["files"]] == ["a.png", "a.tif", "coco.json"]
    said = (
        f"{tmp_path}/a.tif: is of an earlier prediction of other images or options (and so are 1 more), and its ids "
        "are not those of this one; add the options that write it, remove it, or name another folder"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        planned(tmp_path, "a.png", contents="other")
    (tmp_path / "coco.json").unlink()
    wrote(planned(tmp_path, "a.png", "a.tif", contents="other"))
    assert record(tmp_path)["files"] == {"a.png": ["other"], "a.tif": ["other"]}
    planned(tmp_path, "a.png", contents="other")


def test_older_files_of_a_call_that_was_killed_are_still_older(tmp_path: Path) -> None:
    """Its own contents are in the record, but it came to write some of its files only."""
    wrote(planned(tmp_path, "a.png", exported=("coco.json",)), "a.png", "coco.json")
    planned(tmp_path, "a.png", exported=("coco.json",), contents="other").claim(result=True)
    with pytest.raises(UserError, match=r"/coco\.json: is of an earlier prediction"):
        planned(tmp_path, "a.png", contents="other")
    wrote(planned(tmp_path, "a.png", exported=("coco.json",), contents="other"))
    planned(tmp_path, "a.png", contents="other")
