"""Predictions in parts: joined, they are those of one process, whatever order the parts ran in or where they ended."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conftest import Call
from tiny import quiet

from yeastexp.data import images, pieces
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.images import write_png
from yeastexp.data.recordings import recording
from yeastexp.data.recordings.recording import Choices
from yeastexp.errors import UserError
from yeastexp.prediction import growing_tiff, outputs, tiling
from yeastexp.prediction import predictor as predictor_module
from yeastexp.prediction.growing_tiff import GrowingTiffs
from yeastexp.prediction.parts import Part
from yeastexp.prediction.predict import predict
from yeastexp.tasks import watershed
from yeastexp.training.run import run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SHORT = ["train.steps=60", "runtime.threads=1", "patches.size=48", "validation.every=1000"]
OF_CELLS = ["task.least_height=0.4", "task.least_foreground=0.5", "task.views=1"]
DATA = SyntheticYeast(images=4, size=96, val=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("parts"))
        return {
            "cells": run(EXPERIMENTS / "quick_cells.toml", [*SHORT, *OF_CELLS], console=quiet()).resolve(),
            "masks": run(EXPERIMENTS / "quick.toml", SHORT, console=quiet()).resolve(),
        }


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three images, and one that is too large for memory."""
    monkeypatch.chdir(tmp_path)
    for name in DATA.splits["train"]:
        write_png(Path("in") / f"{name}.png", DATA.arrays(name)["raw"])
    values = np.tile(DATA.arrays(DATA.splits["val"][0])["raw"], (3, 2))[:260, :170]
    tifffile.imwrite("in/large.tif", values)
    monkeypatch.setattr(images, "LARGEST", 20_000)
    monkeypatch.setattr(outputs, "LARGE", 10_000)
    monkeypatch.setattr(pieces, "BAND", 4_000)
    monkeypatch.setattr(watershed, "BAND", 4_000)
    monkeypatch.setattr(predictor_module, "AT_ONCE", 0)
    monkeypatch.setattr(tiling, "activation_bytes", lambda device: 200_000)
    return ["in"]


def contents(folder: str) -> dict[str, bytes]:
    """What is in a folder, without the seconds in the table."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    table = found.pop("predictions.csv").decode().splitlines()
    at = table[0].split(",").index("seconds")
    found["predictions.csv"] = repr([line.split(",")[:at] + line.split(",")[at + 1 :] for line in table]).encode()
    return found


OPTIONS: dict[str, dict[str, Any]] = {
    "cells": {"tile": 48},
    "masks": {"tile": 48, "probabilities": True, "cells": True, "overlay": True, "kinds": ("geojson",)},
}


@pytest.mark.parametrize(("kind", "count"), [("cells", 7), ("masks", 2)])
def test_parts_in_any_order_are_joined_to_what_one_process_writes(
    runs: dict[str, Path], inputs: list[str], kind: str, count: int
) -> None:
    predict(runs[kind], inputs, Path("whole"), **OPTIONS[kind])
    told = [
        predict(runs[kind], inputs, Path("out"), part=Part(index, count), **OPTIONS[kind])
        for index in (*range(2, count + 1), 1)
    ]
    assert sum(told) == 3 + count
    assert predict(runs[kind], inputs, Path("out"), join=True, **OPTIONS[kind]) == 4
    assert contents("out") == contents("whole")
    with pytest.raises(UserError, match="no part of it is there to be joined; run the one that has it, again if all"):
        predict(runs[kind], inputs, Path("out"), join=True, **OPTIONS[kind])


class Killed(BaseException):
    """What ends a process in the middle."""


def killed_after(calls: int, function: Any) -> Any:
    left = itertools.count(calls, -1)

    def maybe(*given: Any, **options: Any) -> Any:
        if next(left) <= 0:
            raise Killed
        return function(*given, **options)

    return maybe


def test_a_part_that_is_killed_does_what_is_missing_when_it_runs_again(
    runs: dict[str, Path], inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OPTIONS["cells"]
    predict(runs["cells"], inputs, Path("whole"), **options)
    for part in (Part(1, 2), Part(2, 2)):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(GrowingTiffs, "keep", killed_after(1, GrowingTiffs.keep))
            predict(runs["cells"], inputs, Path("out"), part=part, **options)
        predict(runs["cells"], inputs, Path("out"), part=part, **options)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    with monkeypatch.context() as patched:
        patched.setattr(outputs, "_tiled", None)  # nothing is predicted twice
        patched.setattr(outputs, "logits_in_tiles", None)
        predict(runs["cells"], inputs, Path("out"), part=Part(1, 2), **options)
        with pytest.raises(Killed):
            patched.setattr(outputs, "measure_in_windows", killed_after(0, None))
            predict(runs["cells"], inputs, Path("out"), join=True, **options)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert predict(runs["cells"], inputs, Path("out"), join=True, **options) == 4
    assert contents("out") == contents("whole")


def test_an_ome_zarr_too_large_for_memory_in_parts(
    runs: dict[str, Path], inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr = pytest.importorskip("zarr")
    values = tifffile.imread("in/large.tif")
    group = zarr.open_group("in_zarr/large.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=values[None], chunks=(1, 64, 64), chunk_key_encoding={"name": "v2", "separator": "/"})
    group.attrs["multiscales"] = [{"version": "0.4", "axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}]
    monkeypatch.setattr(recording, "LARGEST", images.LARGEST)
    options = {**OPTIONS["cells"], "kinds": ("zarr",)}
    predict(runs["cells"], ["in/large.tif"], Path("of_tiff"), tile=48)
    predict(runs["cells"], ["in_zarr"], Path("whole"), **options)
    for index in (2, 3, 1):
        predict(runs["cells"], ["in_zarr"], Path("out"), part=Part(index, 3), **options)
    predict(runs["cells"], ["in_zarr"], Path("out"), join=True, **options)
    assert contents("out") == contents("whole")
    assert Path("out/large.tif").read_bytes() == Path("of_tiff/large.tif").read_bytes()
    stored = zarr.open("out/zarr/large.zarr", mode="r")
    np.testing.assert_array_equal(stored["0"][0], values)
    np.testing.assert_array_equal(stored["labels/cells/0"][:], tifffile.imread("out/large.tif"))


def in_depth(seeds: tuple[int, ...]) -> None:
    """Write a stack of planes in depth."""
    Path("depth").mkdir()
    planes = np.stack([DATA.arrays(DATA.splits["train"][seed])["raw"] for seed in seeds])
    tifffile.imwrite("depth/a.tif", planes, imagej=True, metadata={"axes": "ZYX"})


def test_results_of_another_plane_are_not_taken(runs: dict[str, Path], inputs: list[str]) -> None:
    """Neither by a part nor by the call that joins."""
    in_depth((0, 1))
    for plane in "01":
        predict(runs["cells"], ["depth"], Path("out"), part=Part(1, 1), choices=Choices(z=plane))
    with pytest.raises(UserError, match=r"^depth/a\.tif: no part of it is there to be joined; run the one that has it"):
        predict(runs["cells"], ["depth"], Path("out"), join=True, choices=Choices(z="0"))
    predict(runs["cells"], ["depth"], Path("out"), join=True, choices=Choices(z="1"))
    predict(runs["cells"], ["depth"], Path("fresh"), choices=Choices(z="1"))
    assert contents("out") == contents("fresh")


def test_results_of_a_part_are_not_joined_once_they_are_replaced(runs: dict[str, Path], inputs: list[str]) -> None:
    """Neither by those of a call without parts nor by those of a part that was killed before its record."""
    in_depth((0, 1))
    part, first, second = Part(1, 1), Choices(z="0"), Choices(z="1")
    predict(runs["cells"], ["depth"], Path("out"), part=part, choices=first)
    predict(runs["cells"], ["depth"], Path("out"), choices=second)
    assert not list(Path("out").glob(".*.progress"))
    predict(runs["cells"], ["depth"], Path("out"), part=part, choices=first)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr(growing_tiff, "remember", killed_after(0, None))
        predict(runs["cells"], ["depth"], Path("out"), part=part, choices=second)
    with pytest.raises(UserError, match=r"^depth/a\.tif: no part of it is there to be joined; run the one that has it"):
        predict(runs["cells"], ["depth"], Path("out"), join=True, choices=first)


def test_chunks_that_were_written_anew_are_predicted_anew(runs: dict[str, Path], inputs: list[str]) -> None:
    """Writing into a file does not change the time of its folder."""
    zarr = pytest.importorskip("zarr")
    first, second = (DATA.arrays(name)["raw"] for name in DATA.splits["train"][:2])
    group = zarr.open_group("in_zarr/a.zarr", mode="w", zarr_format=2)
    array = group.create_array("0", data=first, chunks=first.shape)
    group.attrs["multiscales"] = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    predict(runs["cells"], ["in_zarr"], Path("out"), part=Part(1, 1))
    array[:] = second
    with pytest.raises(
        UserError, match=r"^in_zarr/a\.zarr: no part of it is there to be joined; run the one that has it"
    ):
        predict(runs["cells"], ["in_zarr"], Path("out"), join=True)


def test_what_is_missing_is_said_and_nothing_joined(runs: dict[str, Path], inputs: list[str]) -> None:
    options = OPTIONS["cells"]
    predict(runs["cells"], inputs, Path("out"), part=Part(1, 3), **options)
    with pytest.raises(UserError) as caught:
        predict(runs["cells"], inputs, Path("out"), join=True, **options)
    large, *others = caught.value.faults
    said = "no part of it is there to be joined; run the one that has it, again if all were joined"
    assert others == [f"in/yeast_00{index}.png: {said}" for index in (1, 2)]
    assert large == "in/large.tif: not all of its rows are predicted; run --part 2/3 and --part 3/3"
    assert not Path("out/cells.csv").exists() and not Path("out/predictions.csv").exists()
    with pytest.raises(UserError, match=r"in/large\.tif: there are parts of 2 and 3; take another folder for one of"):
        predict(runs["cells"], inputs, Path("out"), part=Part(2, 2), **options)


def test_parts_of_unlike_tiles_do_not_meet(runs: dict[str, Path], inputs: list[str]) -> None:
    for part, tile in ((Part(1, 2), 48), (Part(2, 2), 64)):
        predict(runs["cells"], ["in/large.tif"], Path("out"), part=part, tile=tile)
    with pytest.raises(UserError, match="not all of its rows are predicted; run --part 2/2"):
        predict(runs["cells"], ["in/large.tif"], Path("out"), join=True, tile=48)


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "1", "1/0", "-1/4", "1/4/2", "١/٤", ""])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(UserError, match=r"^--part .*: is no part; give I/N with I from 1 to N, as --part 2/4$"):
        Part.of(text)


def test_the_commands_of_the_page_run(runs: dict[str, Path], inputs: list[str], call: Call) -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/001").symlink_to(runs["masks"])
    Path("images").symlink_to("in")
    page = (EXPERIMENTS.parent / "docs/scaling.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m yeastexp (predict .* -o out --(?:part \d/\d|join))$", page, re.MULTILINE)
    assert len(commands) == 3
    assert [call(*command.split())[0] for command in commands] == [0, 0, 0]


def test_the_command_takes_parts(runs: dict[str, Path], inputs: list[str], call: Call) -> None:
    words = ["predict", runs["cells"], *inputs, "-o", "out", "--tile", "48"]
    assert call(*words, "--part", "1/2")[:2] == (
        0,
        "part 1/2: 3 images in out; when all 2 parts are done, --join in place of --part\n",
    )
    assert call(*words, "--part", "2/2")[0] == 0
    status, said, _ = call(*words, "--join")
    assert status == 0 and said.startswith("4 label images in out; ")
    assert call(*words, "--join", "--part", "1/2")[::2] == (
        2,
        "--part, --join: join when all parts are done; give one of them\n",
    )
