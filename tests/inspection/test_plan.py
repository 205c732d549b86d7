"""`new`: an experiment file written from images or packed data, whose values are those that were measured."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Call

from docs import planning
from yeastexp.config import starters
from yeastexp.config.loading import load_experiment
from yeastexp.data import hdf5_file
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.datasets.yeast_scene import Look, render
from yeastexp.data.images import read_mask, write_png
from yeastexp.errors import UserError
from yeastexp.inspection import check, plan
from yeastexp.inspection.measured import Measured
from yeastexp.inspection.preflight import alignment
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE
from yeastexp.training import build

MOST_LINES = 40

Arrays = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module", autouse=True)
def quick_starters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Starters whose scenes and network are small, and no step that is timed for long."""
    folder = tmp_path_factory.mktemp("starters")
    for path in starters.folder().glob("*.toml"):
        text = path.read_text().replace('"pasted_cells"', '"pasted_cells"\ncount = 2\nsize = 64')
        (folder / path.name).write_text(text.replace("residual = true", "residual = true\nwidth = 2"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(starters, "folder", lambda: folder)
        patched.setattr(check, "PATIENCE", 0.0)
        yield


def discs(side: int, diameter: int, images: int = 4, channels: int = 1) -> Arrays:
    """Images with a grid of discs of a diameter that touch in rows."""
    rows, columns = np.mgrid[:side, :side]
    ids = np.zeros((side, side), np.int32)
    for number, (y, x) in enumerate(np.ndindex(side // (diameter + 2), side // diameter), start=1):
        centre = (y + 0.5) * (diameter + 2), (x + 0.5) * diameter
        ids[np.hypot(rows + 0.5 - centre[0], columns + 0.5 - centre[1]) <= diameter / 2] = number
    source = np.random.default_rng(0)
    arrays = {}
    for index in range(images):
        raw = source.integers(0, 50, (channels, side, side)) + 100 * (ids > 0)
        raw = raw.astype(np.uint16)
        arrays[f"a{index}"] = {
            "raw": raw[0] if channels == 1 else raw,
            "gt": (ids > 0).astype(np.uint8),
            "instances": ids,
        }
    return arrays


def packed(folder: Path, arrays: Arrays, **more: Any) -> Path:
    """A file of images, the last of which validates."""
    path, names = folder / "data.h5", list(arrays)
    splits = {"train": names[:-1], "val": names[-1:]}
    hdf5_file.write(path, splits, arrays.__getitem__, **({"provenance": {}} | more))
    return path


def written(folder: Path, call: Call) -> dict[str, Any]:
    """The file that `new` writes, which is valid."""
    status, out, err = call("new", folder / "data.h5", "-o", folder / "mine.toml")
    assert status == 0, err
    text = (folder / "mine.toml").read_text()
    assert out == f"{text}{folder / 'mine.toml'}\n" and len(text.splitlines()) <= MOST_LINES
    load_experiment(folder / "mine.toml")
    return tomllib.loads(text)


def test_cells_of_usual_size_need_few_words(tmp_path: Path, call: Call) -> None:
    packed(tmp_path, discs(128, 24))
    file = written(tmp_path, call)
    task = {"channels": 1, "classes": ["background", "cell"]}
    # Discs are what the pretrained weights take for cells.
    gentle = {
        "optimizer": {"learning_rate": plan.GENTLE},
        "train": {"init_share": plan.SHARE, "plain_steps": plan.PLAIN},
    }
    assert file == {"extends": "yeastexp:cells", "dataset": {"path": "data.h5"}, "task": task, **gentle}
    text = (tmp_path / "mine.toml").read_text()
    for told in (
        '"data.h5"  # 3 train, 1 val',
        "100 % of 80 cells touch another one",
        "# data: 4 images; 128 × 128 px, uint16, 1 channel",
        "# cells: 80, 24 px across (median), 90 % of them 24 to 24 px, the longest 24 px",
        "# polarity: cells are brighter than their surroundings in 3 of 3 training images ← constant: no negatives",
        "# groups: 1 of 1 validation image nearly equal a training image",
        "# receptive field: an output depends on 200 × 200 px, 8.4 cells across: more than enough",
        "# machine: 1 thread, ",
        "# budget: 5 minutes are about ",
    ):
        assert told in text


USUAL = Measured(
    path=Path("data.h5"),
    splits={"train": 3, "val": 1},
    groups=0,
    parted=(),
    alike=0,
    channels=1,
    channel_names=(),
    dtype="uint16",
    smallest=(300, 400),
    largest=(300, 400),
    pixels=360_000,
    classes=2,
    class_names=(),
    foreground=0.2,
    empty=0,
    cells=100,
    has_ids=True,
    has_whole_cell=True,
    diameter_px=30.0,
    diameters_px=(20.0, 40.0),
    longest_px=55,
    touching=0.5,
    range=(0.0, 4095.0),
    contrast_ratio=1.5,
    pretrained_f1=0.1,
    brighter=3,
    darker=0,
)
TASK = {"task.channels": 1, "task.classes": ["background", "cell"]}


@pytest.mark.parametrize(
    ("changes", "rule", "keys"),
    [
        ({"channels": 2}, "task", {"task.channels": 2, "task.classes": ["background", "cell"]}),
        ({"classes": 3}, "task", {"task.channels": 1, "task.classes": ["background", "class_1", "class_2"]}),
        ({"class_names": ("none", "bud")}, "task", {"task.channels": 1, "task.classes": ["none", "bud"]}),
        (
            {"classes": 4, "class_names": ("background", "dead cell", " dead/cell", "background")},
            "task",
            {"task.channels": 1, "task.classes": ["background", "dead_cell", "dead_cell_2", "background_2"]},
        ),
        ({"has_whole_cell": False}, "pasted_cells", {"augment.pasted_cells": None}),
        ({"has_whole_cell": False, "has_ids": False}, "pasted_cells", {"augment.pasted_cells": None}),
        ({"darker": 1}, "negatives", {"augment.invert_contrast": {}}),
        ({"darker": 1, "has_ids": False}, "negatives", {}),
        ({"darker": 1, "diameter_px": 13.9}, "negatives", {}),
        ({"brighter": 7, "darker": 1}, "negatives", {}),
        ({"brighter": 0, "darker": 5}, "negatives", {}),
        (
            {"pretrained_f1": 0.3},
            "known_cells",
            {"optimizer.learning_rate": 0.001, "train.init_share": 0.25, "train.plain_steps": 200},
        ),
        ({"pretrained_f1": None}, "known_cells", {}),
    ],
)
def test_a_rule_sets_a_key_where_the_starter_is_not_right(
    changes: dict[str, Any], rule: str, keys: dict[str, Any]
) -> None:
    by_name = {each.__name__: each for each in plan.RULES}
    usual = {choice.key: choice.value for each in plan.RULES for choice in each(USUAL)}
    assert usual == TASK
    choices = list(by_name[rule](dataclasses.replace(USUAL, **changes)))
    assert {choice.key: choice.value for choice in choices} == keys and all(choice.reason for choice in choices)


def test_cells_larger_than_half_the_field_of_the_network_are_told(tmp_path: Path, call: Call) -> None:
    packed(tmp_path, discs(272, 130, images=2))
    assert "model" not in written(tmp_path, call)
    assert "200 × 200 px, 1.5 cells across: little, but a deeper network lost" in (tmp_path / "mine.toml").read_text()


def test_images_are_measured(tmp_path: Path) -> None:
    arrays = discs(96, 20, images=5)
    for name in ("a1", "a2"):
        arrays[name]["raw"] = (200 - arrays[name]["raw"]).astype(np.uint16)
    arrays["a3"] = {
        "raw": np.arange(96 * 64, dtype=np.uint16).reshape(96, 64),
        **{key: np.zeros((96, 64), arrays["a3"][key].dtype) for key in ("gt", "instances")},
    }
    groups = {"a0": "m", "a1": "m", "a3": "n", "a4": "m"}
    path = packed(tmp_path, arrays, origin=hdf5_file.Origin(groups=groups))
    measured = Measured.of(path)
    assert (measured.brighter, measured.darker, measured.empty) == (1, 2, 1)
    assert (measured.smallest, measured.largest, measured.pixels) == ((96, 64), (96, 96), 3 * 96 * 96 + 96 * 64)
    assert (measured.groups, measured.parted, measured.alike) == (2, ("m",), 1)
    assert measured.has_whole_cell and measured.range == (0.0, 6143.0) and measured.dtype == "uint16"
    for image in arrays.values():
        inner = np.zeros(image["gt"].shape, np.uint8)
        inner[0, :50] = 1
        image["gt"], image["instances"] = inner, inner.astype(np.int32)
    assert not Measured.of(packed(tmp_path, arrays, force=True)).has_whole_cell


def test_the_pretrained_weights_are_tried_on_the_training_images(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SyntheticYeast(images=5, size=192, seed=11)
    arrays = {name: dict(data.arrays(name)) for name in (*data.splits["train"], *data.splits["val"])}
    found = Measured.of(packed(tmp_path, arrays)).pretrained_f1
    assert found is not None and found > 0.6
    keys = written(tmp_path, call)
    kept = keys["optimizer"]["learning_rate"], keys["train"]["init_share"], keys["train"]["plain_steps"]
    assert kept == gentle_keys("from_yeast") and kept[0] < gentle_keys("cells")[0]
    # Cells that nobody annotated are no mistakes of the weights.
    below = {name: {key: image.copy() for key, image in of.items()} for name, of in arrays.items()}
    for image in below.values():
        image["gt"] = image["gt"].astype(np.int8)
        image["gt"][64:], image["instances"][64:] = IGNORE, 0
    partly = Measured.of(packed(tmp_path, below, force=True)).pretrained_f1
    assert partly is not None and partly > 0.6
    # The cells need not lie in the middle of a large image, and a run that has the name is none of the weights.
    corner = {name: {key: np.pad(one, ((900, 0), (0, 0))) for key, one in arrays[name].items()} for name in arrays}
    (tmp_path / "yeast").mkdir()
    (tmp_path / "yeast" / "experiment.toml").touch()
    monkeypatch.chdir(tmp_path)
    moved = Measured.of(packed(tmp_path, corner, force=True)).pretrained_f1
    assert moved is not None and moved > 0.6
    for image in arrays.values():
        image["raw"] = np.flipud(image["raw"])
    other = Measured.of(packed(tmp_path, arrays, force=True)).pretrained_f1
    assert other is not None and other < 0.1
    for image in arrays.values():
        del image["instances"]
    assert Measured.of(packed(tmp_path, arrays, force=True)).pretrained_f1 is None


def gentle_keys(name: str) -> tuple[float, float, int]:
    path = starters.find(f"yeastexp:{name}")
    assert path is not None
    starter = load_experiment(path, data=False)
    return starter.optimizer.options["learning_rate"], starter.train.init_share, starter.train.plain_steps


def test_channels_without_information_do_not_decide_the_polarity(tmp_path: Path) -> None:
    arrays = discs(64, 20, channels=2)
    for image in arrays.values():
        image["raw"][0] = np.random.default_rng(0).integers(0, 9, (64, 64))
    assert Measured.of(packed(tmp_path, arrays)).brighter == 3


def test_validation_images_of_whole_groups(tmp_path: Path, call: Call) -> None:
    arrays = discs(64, 20, images=6)
    names = list(arrays)
    groups = dict(zip(names, "mmnnnn", strict=True))
    data = tmp_path / "data.h5"
    parted = {"train": [*names[:1], *names[2:5]], "val": [names[1], names[5]]}
    origin = hdf5_file.Origin(groups=groups)
    hdf5_file.write(data, parted, arrays.__getitem__, provenance={}, origin=origin)
    assert written(tmp_path, call)["dataset"]["val"] == 2
    assert "2 groups stood in training and validation images" in (tmp_path / "mine.toml").read_text()
    one = hdf5_file.Origin(groups=dict.fromkeys(names, "m"))
    hdf5_file.write(data, parted, arrays.__getitem__, provenance={}, origin=one, force=True)
    (tmp_path / "mine.toml").unlink()
    assert "val" not in written(tmp_path, call)["dataset"]
    assert "# groups: training and validation share m ← scores are optimistic" in (tmp_path / "mine.toml").read_text()


def scenes(kind: str) -> tuple[Arrays, dict[str, Any]]:
    """What the generator of synthetic images makes, and what it is made into."""
    look = Look(96, 20.0, 0.3, 0.2, 0.5 if kind == "two polarities" else 1.0, 1.0)
    images = 2 if kind in ("one image to train on", "one group") else 4
    drawn = [render(look, generator(0, "new", index=index)) for index in range(images)]
    arrays = {f"i{index}": {key: image[key] for key in ("raw", "gt", "instances")} for index, image in enumerate(drawn)}
    for index, image in enumerate(arrays.values()):
        if kind in ("masks", "three classes"):
            del image["instances"]
        if kind == "three classes":
            image["gt"] = np.where(drawn[index]["dead"] > 0, 2, image["gt"]).astype(np.uint8)
        elif kind == "two channels":
            image["raw"] = np.stack([image["raw"], image["raw"][::-1]])
        elif kind == "unlabelled pixels":
            image["gt"] = image["gt"].astype(np.int8)
            image["gt"][:20] = -1
            image["instances"][:20] = 0
        elif kind == "tiny images":
            for key in image:
                image[key] = image[key][:20, :24]
        elif kind == "no cells in one image" and index == 1:
            image["gt"], image["instances"] = np.zeros_like(image["gt"]), np.zeros_like(image["instances"])
        elif kind == "cells that the border cuts":
            image["instances"] = np.broadcast_to(np.int32(np.arange(96) // 48 + 1), (96, 96)).copy()
            image["instances"][:, 40:50] = 0
            image["gt"] = (image["instances"] > 0).astype(np.uint8)
    groups = dict.fromkeys(arrays, "m") if kind == "one group" else {}
    return arrays, {"origin": hdf5_file.Origin(groups=groups)}


KINDS = (
    "cells",
    "masks",
    "two channels",
    "three classes",
    "one image to train on",
    "one group",
    "two polarities",
    "unlabelled pixels",
    "tiny images",
    "no cells in one image",
    "cells that the border cuts",
)


SHORT = ("train.steps=2", "runtime.threads=1", "model.width=2")


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_images_the_file_is_accepted_and_trains(
    kind: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`new` has taken the step of `check` before the file appears."""
    monkeypatch.chdir(tmp_path)
    arrays, more = scenes(kind)
    packed(tmp_path, arrays, **more)
    file = written(tmp_path, call)
    assert file["extends"] == f"yeastexp:{'hdf5' if kind in ('masks', 'three classes') else 'cells'}"
    added = {augmentation["name"] for augmentation in file.get("augment", [])}
    assert ("invert_contrast" in added) == (kind == "two polarities")
    assert (bool(added) and "pasted_cells" not in added) == (kind in ("tiny images", "cells that the border cuts"))
    if kind in ("two channels", "unlabelled pixels"):
        assembly = build.assemble(load_experiment(tmp_path / "mine.toml", SHORT))
        assert not list(alignment.findings(alignment.check_alignment(assembly)))
    if kind in ("cells", "three classes", "unlabelled pixels"):
        status, _, err = call("run", "mine.toml", *(word for setting in SHORT for word in ("--set", setting)))
        assert status == 0, err


def test_names_in_the_data_write_no_keys(tmp_path: Path, call: Call) -> None:
    """Whoever made the data named its channels and classes; the file that is written from them will be executed."""
    arrays = discs(64, 20, channels=2)
    odd = 'GFP"\nplugins = ["other.py"]\n#\U0001f9eb'
    origin = hdf5_file.Origin(channel_names=("phase", odd))
    packed(tmp_path, arrays, origin=origin)
    file = written(tmp_path, call)
    assert "plugins" not in file and file["task"] == {"channels": 2, "classes": ["background", "cell"]}
    (tmp_path / "mine.toml").unlink()
    packed(tmp_path, arrays, provenance={"classes": ["background", odd]}, force=True)
    file = written(tmp_path, call)
    assert "plugins" not in file and file["task"]["classes"] == [
        "background",
        'GFP"_plugins_=_["other.py"]_#\U0001f9eb',
    ]


def test_the_data_are_not_overwritten(tmp_path: Path, call: Call) -> None:
    data = packed(tmp_path, discs(64, 20))
    before = data.read_bytes()
    status, _, err = call("new", data, "-o", data, "--force")
    assert status == 2 and "is the file that is read; name another one" in err and data.read_bytes() == before


def test_a_path_leads_from_the_file_to_the_data(tmp_path: Path, call: Call) -> None:
    data = packed(tmp_path, discs(64, 20))
    assert call("new", data, "-o", tmp_path / "experiments" / "mine.toml")[0] == 0
    assert tomllib.loads((tmp_path / "experiments" / "mine.toml").read_text())["dataset"]["path"] == "../data.h5"


@pytest.mark.parametrize(
    ("prepare", "fault"),
    [
        (lambda folder: None, "data.h5"),
        (lambda folder: (folder / "data.h5").write_text("no"), "data.h5"),
        (lambda folder: packed(folder, discs(64, 20, images=1)), "data.h5: has no image to train; pack it with other"),
        (lambda folder: [packed(folder, discs(64, 20)), (folder / "mine.toml").write_text("x")], "exists; add --force"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(prepare: Any, fault: str, tmp_path: Path, call: Call) -> None:
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    status, out, err = call("new", tmp_path / "data.h5", "-o", tmp_path / "mine.toml")
    assert status == 2 and not out and fault in err and len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def folders(folder: Path, arrays: Arrays) -> tuple[Path, Path]:
    """Images and labels as PNG files."""
    for name, image in arrays.items():
        write_png(folder / "images" / f"{name}.png", image["raw"])
        write_png(folder / "labels" / f"{name}.png", image["instances"].astype(np.uint16))
    return folder / "images", folder / "labels"


def test_images_are_packed_first(tmp_path: Path, call: Call) -> None:
    where = folders(tmp_path, discs(64, 20))
    output = tmp_path / "out" / "mine.toml"
    options = "--labels", "instance", "--val", "a1,a2", "--pixel-um", 0.5, "--group-by", "(.*)"
    status, out, err = call("new", *where, "-o", output, *options)
    assert status == 0 and not err, err
    text = output.read_text()
    assert f"packed {where[0]} and {where[1]} (instance) into mine.h5" in text and out.endswith(f"{text}{output}\n")
    assert out.startswith("images   2 train, 2 val; 1 × uint16, stacked\nlabels   instance: ")
    assert tomllib.loads(text)["dataset"]["path"] == "mine.h5" and "2 train, 2 val" in text
    contents = hdf5_file.Reader(tmp_path / "out" / "mine.h5").contents
    assert contents.splits["val"] == ("a1", "a2") and contents.pixel_um == 0.5
    assert sorted(path.name for path in output.parent.iterdir()) == ["mine.h5", "mine.toml"]


def test_images_without_labels_are_left_out_if_asked(tmp_path: Path, call: Call) -> None:
    where = folders(tmp_path, discs(64, 20))
    (where[1] / "a0.png").unlink()
    words = ["new", *where, "-o", tmp_path / "mine.toml", "--labels", "instance"]
    assert "no label for 'a0'; give each image a label file of the same name, or add --labelled" in call(*words)[2]
    status, out, err = call(*words, "--labelled-only")
    assert (
        status == 0 and not err and out.startswith("read     1 image without labels left out\nimages   2 train, 1 val")
    )


def test_labels_without_a_background_are_a_fault_with_what_packing_says_of_them(tmp_path: Path) -> None:
    where = folders(tmp_path, discs(64, 20))
    for path in where[1].iterdir():
        write_png(path, read_mask(path).astype(np.uint8) + 1)
    with (
        pytest.warns(UserWarning, match=r"foreground; are masks inverted \(0 is background\)\?$"),
        pytest.raises(UserError, match=r"single class: .*; check that the labels were read: 0 is the background, and"),
    ):
        plan.new_from_images(str(where[0]), str(where[1]), tmp_path / "mine.toml", {"kind": "instance"})


@pytest.mark.parametrize("name", ["mine.h5", "mine.toml"])
def test_neither_file_is_overwritten_unless_forced(name: str, tmp_path: Path, call: Call) -> None:
    where = folders(tmp_path, discs(64, 20))
    (tmp_path / name).write_text("precious")
    words = ["new", *where, "-o", tmp_path / "mine.toml", "--labels", "instance"]
    status, _, err = call(*words)
    assert status == 2 and f"{tmp_path / name}: exists; add --force" in err and len(err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"images", "labels", name}
    assert call(*words, "--force")[0] == 0 and (tmp_path / name).read_bytes() != b"precious"


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        (["--val", "4"], "of 4 in all 0 train, 4 val; training and validation need one image each at least; lower "
         "--val or --test, or add images (pack --test '*' packs all for evaluation alone)"),
        (["--test", "*"], "mine.h5: has no image to train; lower --val or --test, or add images"),
    ],
)  # fmt: skip
def test_a_remedy_for_splits_is_one_of_this_command(option: list[str], fault: str, tmp_path: Path, call: Call) -> None:
    where = folders(tmp_path, discs(64, 20))
    words = ["new", *where, "-o", tmp_path / "mine.toml", "--labels", "instance"]
    status, _, err = call(*words, *option)
    assert status == 2 and err.endswith(f"{fault}\n") and err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"images", "labels"}


@pytest.mark.parametrize("step", ["Measured.of", "check"])
def test_what_fails_half_way_leaves_what_was_there(
    step: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = folders(tmp_path, discs(64, 20))
    for name in ("mine.h5", "mine.toml"):
        (tmp_path / name).write_text("precious")

    def fail(*_: object, **__: object) -> None:
        raise UserError(f"{step}: does not work")

    monkeypatch.setattr(f"yeastexp.inspection.plan.{step}", fail)
    words = ["new", *where, "--labels", "instance", "--force", "-o"]
    assert call(*words, tmp_path / "folder" / "mine.toml")[0] == 2 and not (tmp_path / "folder").exists()
    status, _, err = call(*words, tmp_path / "mine.toml")
    assert status == 2 and f"{step}: does not work" in err
    assert all((tmp_path / name).read_text() == "precious" for name in ("mine.h5", "mine.toml"))
    assert {path.name for path in tmp_path.iterdir()} == {"images", "labels", "mine.h5", "mine.toml"}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--val", "3"], "--val goes with IMAGES and LABELS, which are packed; "),
        (["--labels", "auto"], "--labels goes with IMAGES and LABELS"),
        (["LABELS"], "LABELS: no such file or folder"),
        (["LABELS", "-o", "mine.h5"], "mine.h5: is where the images are packed; name an experiment file"),
    ],
)
def test_options_of_packing_go_with_labels(
    words: list[str], fault: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = packed(tmp_path, discs(64, 20))
    status, _, err = call("new", data, "-o", "mine.toml", *words)
    assert status == 2 and fault in err
    assert list(tmp_path.iterdir()) == [data]


def test_the_table_of_what_rules_are_worth() -> None:
    def result(file: str, seed: int, value: float) -> dict[str, Any]:
        scores = {"iou": {"cell": {"per_image": 0.0}}, "average_precision": {"all": {"per_image": value}}}
        return {"set": "yeast", "file": file, "seed": seed, "steps": 1000, "scores": {"summary": scores}}

    results = [result("new", 1, 0.5), result("starter", 1, 0.25), result("starter", 0, 0.75), result("new", 0, 0.75)]
    assert planning.table([*results, result("without_inversion", 0, 0.5)]).splitlines()[2:] == [
        "| yeast | starter | 1,000 | 0.750 0.250 | 0.500 |  |",
        "| yeast | new | 1,000 | 0.750 0.500 | 0.625 | +0.125 |",
        "| yeast | without inversion | 1,000 | 0.500 | 0.500 | -0.250 |",
    ]
    assert "| yeast | starter = `new` | 1,000 | 0.750 |" in planning.table([result("starter", 0, 0.75)])
