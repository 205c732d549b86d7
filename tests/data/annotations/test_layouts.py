"""Folders of nnU-Net, of the Cell Tracking Challenge, of StarDist and YeaZ give pairs, or say what is missing.

Frames of a movie that nobody annotated are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from annotated_cells import SIZE, contours, label_image
from roifile import ImagejRoi, roiwrite

from yeastexp.data import pack
from yeastexp.data.annotations.layouts import recognised_layout
from yeastexp.data.datasets.hdf5 import hdf5
from yeastexp.data.hdf5_file import Reader, stored_images
from yeastexp.data.recordings.recording import Choices, Reading
from yeastexp.errors import UserError
from yeastexp.inspection.measured import Measured
from yeastexp.prediction import predict
from yeastexp.sample import IGNORE


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, np.zeros((4, 5), np.uint16))
    return folder


def nnunet(folder: Path, cases: Any = ("a", "b"), channels: int = 2, **more: Any) -> Path:
    for case in cases:
        write(folder, *(f"imagesTr/{case}_{index:04}.tif" for index in range(channels)), f"labelsTr/{case}.tif")
    content = {
        "channel_names": {"0": "BF", "1": "GFP"},
        "labels": {"background": 0, "cell": 1, "bud": 2, "ignore": 3},
        "numTraining": len(cases),
        "file_ending": ".tif",
    }
    (folder / "dataset.json").write_text(json.dumps(content | more))
    return folder


def test_nnunet(tmp_path: Path) -> None:
    layout = recognised_layout(nnunet(tmp_path))
    assert layout is not None and (layout.title, layout.labels, layout.ignore) == ("nnU-Net", "class", 3)
    assert layout.class_names == ("background", "cell", "bud") and layout.channel_names == ("BF", "GFP")
    assert [pair.name for pair in layout.pairs] == ["a", "b"]
    first = layout.pairs[0]
    assert first.images == (tmp_path / "imagesTr/a_0000.tif", tmp_path / "imagesTr/a_0001.tif")
    assert first.labels == tmp_path / "labelsTr/a.tif"


@pytest.mark.parametrize(
    ("more", "files", "message"),
    [
        ({"numTraining": 3}, [], "dataset.json: numTraining is 3, but there are 2 images; add what is missing"),
        ({"file_ending": ".nii.gz"}, [], "dataset.json: file_ending is '.nii.gz', which is not read; convert"),
        (
            {"labels": {"background": 0, "cell": 2}},
            [],
            "dataset.json: labels has the values [0, 2], which do not count",
        ),
        (
            {"labels": {"background": 0, "whole": [1, 2]}},
            [],
            "dataset.json: labels.whole is a region of several labels",
        ),
        ({"labels": None}, [], "dataset.json: the file has no 'labels'"),
        (
            {"channel_names": {"0": "BF"}},
            [],
            "imagesTr: 'a' has the channels 0000, 0001, but dataset.json names 1 channel",
        ),
        ({"channel_names": {"1": "BF"}}, [], "dataset.json: channel_names has no '0'"),
        ({}, ["imagesTr/c_0000.tif"], "imagesTr: 'c' has the channels 0000, but dataset.json names 2 channels"),
        ({}, ["imagesTr/c.tif"], "imagesTr/c.tif: has no channel in its name; call it c_0000.tif"),
        ({}, ["imagesTr/c_0000.tif", "imagesTr/c_0001.tif"], ": has no labels for the images 'c'; add or remove them"),
        ({}, ["labelsTr/c.tif"], ": has no images for the labels 'c'; add or remove them"),
    ],
)
def test_nnunet_with_something_missing(tmp_path: Path, more: dict[str, Any], files: list[str], message: str) -> None:
    write(nnunet(tmp_path, **more), *files)
    with pytest.raises(UserError) as caught:
        recognised_layout(tmp_path)
    assert str(caught.value).removeprefix(f"{tmp_path}").lstrip("/").startswith(message), caught.value


def frames(folder: str, begin: str, *numbers: int) -> list[str]:
    return [f"{folder}/{begin}{number:03}.tif" for number in numbers]


def test_the_cell_tracking_challenge(tmp_path: Path) -> None:
    """Frames without labels are not annotated."""
    write(tmp_path, *frames("01", "t", 0, 1, 2), *frames("01_GT/SEG", "man_seg", 0, 2))
    write(tmp_path, *frames("01_GT/TRA", "man_track", 0, 1, 2), "01_GT/TRA/man_track.txt")
    write(tmp_path, *frames("02", "t", 0, 1), *frames("02_GT/TRA", "man_track", 0, 1), *frames("03", "t", 0))
    layout = recognised_layout(tmp_path)
    assert layout is not None and (layout.title, layout.labels) == ("Cell Tracking Challenge", "instance")
    found = {pair.name: pair.labels and str(pair.labels.relative_to(tmp_path)) for pair in layout.pairs}
    assert found == {
        "01_t000": "01_GT/SEG/man_seg000.tif",
        "01_t001": None,
        "01_t002": "01_GT/SEG/man_seg002.tif",
        "02_t000": "02_GT/TRA/man_track000.tif",
        "02_t001": "02_GT/TRA/man_track001.tif",
    }
    assert [pair.group for pair in layout.pairs] == ["01"] * 3 + ["02"] * 2
    assert layout.notes == (
        "01: 2 of 3 frames have labels",
        "02: labels are the markers of tracks, which may be smaller than cells",
        "03: left out, for it has no labels",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (frames("01_GT/SEG", "man_seg", 5), "01_GT/SEG/man_seg005.tif: has no frame 't005.tif' in "),
        (frames("01_GT/SEG", "man_seg_000_", 5), "01_GT/SEG: has no 'man_seg000.tif' of a frame; volumes are not read"),
    ],
)
def test_challenges_that_do_not_fit(tmp_path: Path, files: list[str], message: str) -> None:
    write(tmp_path, *frames("01", "t", 0, 1), *files)
    with pytest.raises(UserError) as caught:
        recognised_layout(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    write(tmp_path / "flat", "images/a.tif", "images/b.ome.tif", "masks/a.tif", "masks/b_mask.tif", "masks/.hidden.tif")
    layout = recognised_layout(tmp_path / "flat")
    assert layout is not None
    assert [(pair.name, pair.labels and pair.labels.name) for pair in layout.pairs] == [
        ("a", "a.tif"),
        ("b", "b_mask.tif"),
    ]
    write(tmp_path / "split", "train/images/a.tif", "train/masks/a.tif", "test/images/b.tif", "test/masks/b.tif")
    layout = recognised_layout(tmp_path / "split")
    assert layout is not None and [(pair.name, pair.split) for pair in layout.pairs] == [("a", "train"), ("b", "test")]
    write(tmp_path / "split", "val/images/a.tif", "val/masks/a.tif")
    layout = recognised_layout(tmp_path / "split")
    named = [("train_a", "train"), ("val_a", "val"), ("test_b", "test")]
    assert layout is not None and [(pair.name, pair.split) for pair in layout.pairs] == named


def test_images_beside_masks_may_be_photographs(tmp_path: Path) -> None:
    """A JPEG file of an image's name is its preview."""
    write(tmp_path, "images/a.jpg", "images/b.tif", "images/b.jpg", "masks/a.tif", "masks/b.tif")
    layout = recognised_layout(tmp_path)
    assert layout is not None and [pair.images[0].name for pair in layout.pairs] == ["a.jpg", "b.tif"]


def test_folders_that_miss_something(tmp_path: Path) -> None:
    write(tmp_path, "images/a.tif", "images/b.tif", "masks/a.tif")
    with pytest.raises(UserError, match="has no labels for the images 'b'; add or remove them"):
        recognised_layout(tmp_path)
    write(tmp_path, "images/b.png", "masks/b.tif")
    with pytest.raises(UserError, match="have the same name 'b'; rename one"):
        recognised_layout(tmp_path)
    (tmp_path / "images/b.png").unlink()
    write(tmp_path, "masks/b_mask.tif")
    with pytest.raises(UserError, match="are labels of one image; remove one"):
        recognised_layout(tmp_path)


def test_other_folders_are_none(tmp_path: Path) -> None:
    write(tmp_path, "a.tif", "images/b.tif", "01/t000.tif")
    assert recognised_layout(tmp_path) is None
    assert recognised_layout(tmp_path / "a.tif") is None


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(100, 2000, (48, 60)).astype(np.uint16)


def cells(index: int) -> np.ndarray:
    """Fifteen cells, each of which touches another, by ids that begin at 3 and have gaps."""
    ids = 3 + 20 * np.arange(15, dtype=np.uint16).reshape(3, 5)
    return np.pad(ids.repeat(10, 0).repeat(8, 1), ((8, 10), (index, 20 - index)))


LAYOUTS = {
    "StarDist": ("images/im{0}.tif", "masks/im{0}.tif"),
    "StarDist, split": ("{1}/images/im{0}.tif", "{1}/masks/im{0}.tif"),
    "StarDist, each split from 0 on": ("{1}/images/im{2}.tif", "{1}/masks/im{2}.tif"),
    "YeaZ": ("images/im{0}.tif", "masks/im{0}_mask.tif"),
    "Cell Tracking Challenge": ("01/t00{0}.tif", "01_GT/SEG/man_seg00{0}.tif"),
    "Cell Tracking Challenge, results": ("01/t00{0}.tif", "01_RES/mask00{0}.tif"),
}


@pytest.mark.parametrize("images, labels", LAYOUTS.values(), ids=LAYOUTS)
def test_a_packed_folder_has_every_pixel_of_it(tmp_path: Path, images: str, labels: str) -> None:
    root = tmp_path / "root"
    expected = {}
    for index in range(4):
        split = "test" if index == 3 else "train"
        numbers = index, split, index % 3
        image, mask = root / images.format(*numbers), root / labels.format(*numbers)
        for path, values in ((image, picture(index)), (mask, cells(index))):
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, values)
        name = f"{split}_{image.stem}" if "{2}" in images else image.stem
        expected[name if "images" in images else f"01_t00{index}"] = index
    part = {"part_groups": True} if images.startswith("01") else {}
    done = pack.pack([root], [root], tmp_path / "data.h5", **part)  # type: ignore[arg-type]
    assert done.kind == "instance" and sum(done.splits.values()) == 4
    assert done.splits.get("test", 0) == ("{1}" in images)
    reader = Reader(tmp_path / "data.h5")
    assert set(reader.contents.names) == expected.keys()
    for name, index in expected.items():
        arrays = reader.read(name)
        np.testing.assert_array_equal(arrays["raw"].squeeze(), picture(index))
        np.testing.assert_array_equal(arrays["instances"], cells(index))
        np.testing.assert_array_equal(arrays["gt"], cells(index) > 0)


def test_frames_without_labels_are_kept_unlabelled(tmp_path: Path) -> None:
    """They are in the file, to be predicted, and in no split that trains or scores."""
    root, path = tmp_path / "root", tmp_path / "data.h5"
    for index in range(5):
        (root / "01").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / f"01/t00{index}.tif", picture(index))
    (root / "01_GT/SEG").mkdir(parents=True)
    for index in (1, 4):
        tifffile.imwrite(root / f"01_GT/SEG/man_seg00{index}.tif", cells(index))
    looked = pack.pack([root], [root], path, part_groups=True, dry_run=True)
    assert looked.files[0].endswith("; not annotated") and "15 cells" in looked.files[1] and not path.exists()
    done = pack.pack([root], [root], path, part_groups=True)
    assert done.splits == {"train": 1, "val": 1, "unlabelled": 3} and done.warnings == ()
    assert {"3 images without labels kept unlabelled", "01: 2 of 5 frames have labels"} <= {*done.choices}
    reader = Reader(path)
    for index in range(5):
        arrays = reader.read(f"01_t00{index}")
        annotated = index in (1, 4)
        np.testing.assert_array_equal(arrays["raw"][0], picture(index))
        np.testing.assert_array_equal(arrays["gt"], cells(index) > 0 if annotated else np.full((48, 60), IGNORE))
        np.testing.assert_array_equal(arrays["instances"], cells(index) * annotated)
    assert reader.contents.origin.frames == {}
    assert hdf5(path).splits == {"train": ["01_t001"], "val": ["01_t004"]}
    assert hdf5(path, 1, part_groups=True).splits == hdf5(path).splits
    assert Measured.of(path).splits == {"train": 1, "val": 1}
    assert len(stored_images(path)) == 5
    # They have no numbers of frames, so exports take them for images of their own.
    found = predict.sources_of([str(path)], [], Choices(), Reading())
    assert {(source.stack, source.frame) for source in found} == {(None, 0)}


def yeaz(path: Path, labels: dict[int, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for frame, ids in labels.items():
            file[f"FOV0/T{frame}"] = ids


def regions(path: Path, labels: dict[int, np.ndarray]) -> None:
    """As Fiji has them of a movie, the cells in the order of their ids."""
    roiwrite(path, [
        ImagejRoi.frompoints(outline + 0.5, position=frame, name=f"{frame}-{number}")
        for frame, ids in labels.items() for number, outline in enumerate(contours(ids))
    ])  # fmt: skip


@pytest.mark.parametrize(("write", "name"), [(yeaz, "movie_mask.h5"), (regions, "movie.zip")])
def test_frames_of_a_stack_that_are_not_annotated_are_kept_unlabelled(tmp_path: Path, write: Any, name: str) -> None:
    frames = np.random.default_rng(0).integers(0, 999, (5, *SIZE)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "movie.tif", frames, imagej=True, metadata={"axes": "TYX"})
    labels = {frame: label_image(seed=frame) for frame in (1, 3)}
    write(tmp_path / name, labels)
    where = [tmp_path / "movie.tif"], [tmp_path / name]
    done = pack.pack(*where, tmp_path / "data.h5", kind="instance" if write is yeaz else "auto", part_groups=True)
    assert done.splits == {"train": 1, "val": 1, "unlabelled": 3}
    assert "3 images without labels kept unlabelled" in done.choices
    reader = Reader(tmp_path / "data.h5")
    for frame in range(5):
        arrays = reader.read(f"movie_t{frame:04}")
        np.testing.assert_array_equal(arrays["raw"][0], frames[frame])
        np.testing.assert_array_equal(arrays["instances"], labels.get(frame, np.zeros(SIZE)))
        assert (arrays["gt"] == -1).all() == (frame not in labels)
