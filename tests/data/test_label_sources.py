"""Tests of packing images with files of annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.draw import polygon2mask

from yeastexp.data import pack
from yeastexp.data.hdf5_file import Reader
from yeastexp.errors import UserError

SIZE = (40, 50)
CELLS = [[(5.0, 4.0), (20.0, 5.0), (18.0, 16.0), (6.0, 15.0)], [(25.0, 20.0), (44.0, 22.0), (40.0, 36.0), (24.0, 33.0)]]
"""Corners (x, y) of two cells."""


def drawn() -> np.ndarray:
    ids = np.zeros(SIZE, np.int32)
    for number, corners in enumerate(CELLS, 1):
        ids[polygon2mask(SIZE, np.array(corners)[:, ::-1])] = number
    return ids


def images(root: Path, names: Any = ("a", "b", "c")) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        array = np.random.default_rng(index).integers(0, 60_000, SIZE).astype(np.uint16)
        tifffile.imwrite(root / "images" / f"{name}.tif", array)
    return root / "images"


def labelme(path: Path, cells: Any = CELLS) -> None:
    shapes = [{"label": "cell", "points": corners, "shape_type": "polygon"} for corners in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"imagePath": path.stem, "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": shapes})
    )


def coco(path: Path, names: Any = ("a", "b", "c"), cells: Any = CELLS) -> None:
    path.write_text(
        json.dumps(
            {
                "images": [
                    {"id": index, "file_name": f"{name}.tif", "height": SIZE[0], "width": SIZE[1]}
                    for index, name in enumerate(names)
                ],
                "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "bud"}],
                "annotations": [
                    {
                        "id": 10 * index + number,
                        "image_id": index,
                        "category_id": number + 1,
                        "segmentation": [[value for point in corners for value in point]],
                        "iscrowd": 0,
                    }
                    for index in range(len(names))
                    for number, corners in enumerate(cells)
                ],
            }
        )
    )


@pytest.mark.parametrize("place", ["labels", "images"])
def test_a_file_of_annotations_beside_each_image(tmp_path: Path, place: str) -> None:
    where = images(tmp_path)
    for name in "abc":
        labelme(tmp_path / place / f"{name}.json")
    done = pack.pack([where], [tmp_path / place], tmp_path / "data.h5")
    assert (done.kind, done.label_files, done.label_values) == ("instance", ("labelme JSON",), (0, 1, 2))
    arrays = Reader(tmp_path / "data.h5").read("b")
    np.testing.assert_array_equal(arrays["instances"], drawn())
    np.testing.assert_array_equal(arrays["gt"], drawn() > 0)
    assert Reader(tmp_path / "data.h5").contents.provenance["label_files"] == ["labelme JSON"]


def test_one_file_for_all_images(tmp_path: Path) -> None:
    where = images(tmp_path)
    coco(tmp_path / "all.json")
    done = pack.pack([where], [tmp_path / "all.json"], tmp_path / "data.h5")
    assert done.splits == {"train": 2, "val": 1} and done.label_values == (0, 1, 2)
    np.testing.assert_array_equal(Reader(tmp_path / "data.h5").read("c")["instances"], drawn())
    classes = pack.pack([where], [tmp_path / "all.json"], tmp_path / "classes.h5", kind="class")
    assert classes.kind == "class"
    contents = Reader(tmp_path / "classes.h5").contents
    assert contents.provenance["classes"] == ["background", "cell", "bud"] and contents.maps == ()
    with pytest.raises(UserError, match=r"^--labels cocoa: is no kind of labels; there are auto, mask, class"):
        pack.pack([where], [tmp_path / "all.json"], tmp_path / "no.h5", kind="cocoa")


def test_images_that_are_not_annotated_are_left_out_if_asked(tmp_path: Path) -> None:
    where = images(tmp_path)
    coco(tmp_path / "all.json", ("a", "b"), CELLS)
    done = pack.pack([where], [tmp_path / "all.json"], tmp_path / "data.h5", labelled_only=True)
    assert sum(done.splits.values()) == 2 and "1 image without labels left out" in done.choices


@pytest.mark.parametrize(
    ("names", "cells", "said"),
    [
        (("a", "b"), CELLS, "all.json: does not annotate 'c'; annotate or remove them, or add --labelled-only"),
        (("a", "b", "c", "d"), CELLS, "all.json: annotates 'd.tif', which are not among the images; add them"),
    ],
)
def test_annotations_and_images_that_do_not_fit(tmp_path: Path, names: Any, cells: Any, said: str) -> None:
    where = images(tmp_path)
    coco(tmp_path / "all.json", names, cells)
    with pytest.raises(UserError) as caught:
        pack.pack([where], [tmp_path / "all.json"], tmp_path / "data.h5")
    assert str(caught.value) == f"{tmp_path}/{said}"
    assert not (tmp_path / "data.h5").exists()


def test_annotations_without_a_cell(tmp_path: Path) -> None:
    where = images(tmp_path)
    for name in "abc":
        labelme(tmp_path / "labels" / f"{name}.json", [] if name == "b" else CELLS)
    with pytest.raises(UserError, match=r"b\.json: .*shapes"):
        pack.pack([where], [tmp_path / "labels"], tmp_path / "data.h5")
    coco(tmp_path / "all.json", cells=[])
    with pytest.raises(UserError, match=r"all\.json: "):
        pack.pack([where], [tmp_path / "all.json"], tmp_path / "data.h5")
    assert not (tmp_path / "data.h5").exists()


@pytest.mark.parametrize("name", ["b.json", "b.npy", "b.h5", "b.zip", "b.png", "b.tif"])
def test_a_label_file_without_a_byte(tmp_path: Path, name: str) -> None:
    where = images(tmp_path)
    for letter in "ac":
        labelme(tmp_path / "labels" / f"{letter}.json")
    (tmp_path / "labels" / name).touch()
    with pytest.raises(UserError) as caught:
        pack.pack([where], [tmp_path / "labels" / f"{letter}.*" for letter in "abc"], tmp_path / "data.h5")
    assert str(caught.value) == f"{tmp_path}/labels/{name}: is empty; copy or save it again"


def test_an_image_in_hdf5_is_not_taken_for_its_labels(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for name in "ab":
        with h5py.File(tmp_path / "all" / f"{name}.h5", "w") as file:
            file["raw"] = np.random.default_rng(0).integers(0, 999, SIZE).astype(np.uint16)
            if name == "a":
                file["label"] = drawn()
    with pytest.raises(UserError) as caught:
        pack.pack([tmp_path / "all"], [tmp_path / "all"], tmp_path / "data.h5")
    assert str(caught.value) == (
        f"{tmp_path}/all/b.h5: has no dataset 'label'; name the one with labels (there: 'raw')"
    )


def test_outlines_that_leave_the_image_are_counted(tmp_path: Path) -> None:
    where = images(tmp_path)
    for name in "abc":
        labelme(tmp_path / "labels" / f"{name}.json", [*CELLS, [(45.0, 35.0), (60.0, 35.0), (60.0, 39.0)]])
    done = pack.pack([where], [tmp_path / "labels"], tmp_path / "data.h5")
    assert any("3 outlines are cut by the border" in warning for warning in done.warnings)


def ids(count: int = 8) -> np.ndarray:
    """Labels of cells in a row."""
    labels = np.zeros(SIZE, np.uint16)
    for number in range(count):
        top, left = 4 + 16 * (number // 4), 3 + 12 * (number % 4)
        labels[top : top + 10, left : left + 9] = number + 1
    return labels


def test_ids_are_recognised_and_classes_are_not(tmp_path: Path) -> None:
    where = images(tmp_path)
    for index, labels in enumerate((ids(), ids() % 7, ids(3))):
        (tmp_path / str(index)).mkdir()
        for name in "abc":
            tifffile.imwrite(tmp_path / str(index) / f"{name}.tif", labels)
    done = pack.pack([where], [tmp_path / "0"], tmp_path / "data.h5")
    assert done.kind == "instance" and done.label_values == tuple(range(9))
    np.testing.assert_array_equal(Reader(tmp_path / "data.h5").read("a")["instances"], ids())
    for index in (1, 2):
        with pytest.raises(UserError, match="say what they are: --labels class"):
            pack.pack([where], [tmp_path / str(index)], tmp_path / "no.h5")


def test_masks_in_colours(tmp_path: Path) -> None:
    where = images(tmp_path)
    painted = np.zeros((*SIZE, 3), np.uint8)
    painted[drawn() == 1], painted[drawn() == 2] = (255, 0, 0), (0, 255, 0)
    (tmp_path / "labels").mkdir()
    for name in "abc":
        Image.fromarray(painted).save(tmp_path / "labels" / f"{name}.png")
    labels = [tmp_path / "labels"]
    done = pack.pack([where], labels, tmp_path / "data.h5", colours="cell=#ff0000,dead=#00ff00")
    assert done.kind == "class"
    reader = Reader(tmp_path / "data.h5")
    np.testing.assert_array_equal(reader.read("a")["gt"], drawn())
    assert reader.contents.provenance["classes"] == ["background", "cell", "dead"]
    with pytest.raises(UserError, match=r"a\.png: has colours that --colours does not name: #00ff00"):
        pack.pack([where], labels, tmp_path / "no.h5", colours="cell=#ff0000")


def test_a_folder_of_nnunet(tmp_path: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    arrays = np.random.default_rng(0).integers(0, 60_000, (3, 2, *SIZE)).astype(np.uint16)
    for index in range(3):
        for channel in range(2):
            tifffile.imwrite(tmp_path / "imagesTr" / f"case{index}_{channel:04d}.tif", arrays[index, channel])
        tifffile.imwrite(tmp_path / "labelsTr" / f"case{index}.tif", drawn().astype(np.uint8))
    said = {
        "channel_names": {"0": "phase", "1": "GFP"},
        "labels": {"background": 0, "cell": 1, "bud": 2},
        "numTraining": 3,
        "file_ending": ".tif",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    done = pack.pack([tmp_path], [tmp_path], tmp_path / "data.h5")
    assert (done.kind, done.channels, done.origin.channel_names) == ("class", 2, ("phase", "GFP"))
    reader = Reader(tmp_path / "data.h5")
    np.testing.assert_array_equal(reader.read("case1")["raw"], arrays[1])
    np.testing.assert_array_equal(reader.read("case1")["gt"], drawn())
    assert reader.contents.provenance["classes"] == ["background", "cell", "bud"]


def test_a_folder_of_the_cell_tracking_challenge(tmp_path: Path) -> None:
    for sequence in ("01", "02"):
        for folder in (sequence, f"{sequence}_GT/SEG"):
            (tmp_path / folder).mkdir(parents=True)
        for frame in range(4):
            array = np.random.default_rng(frame + 9 * int(sequence)).integers(0, 99, SIZE).astype(np.uint8)
            tifffile.imwrite(tmp_path / sequence / f"t{frame:03d}.tif", array)
        for frame in (1, 3):
            tifffile.imwrite(tmp_path / f"{sequence}_GT/SEG/man_seg{frame:03d}.tif", drawn().astype(np.uint16))
    done = pack.pack([tmp_path], [tmp_path], tmp_path / "data.h5")
    assert done.kind == "instance" and done.splits == {"train": 2, "val": 2, "unlabelled": 4}
    assert "4 images without labels kept unlabelled" in done.choices
    reader = Reader(tmp_path / "data.h5")
    assert reader.contents.splits["val"] == ("02_t001", "02_t003")
    np.testing.assert_array_equal(reader.read("01_t003")["instances"], drawn())


def test_a_further_map(tmp_path: Path) -> None:
    where = images(tmp_path)
    for folder, labels in (("cells", ids()), ("dead", ids(3))):
        (tmp_path / folder).mkdir()
        for name in "abc":
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", labels)
    maps = {"dead": str(tmp_path / "dead")}
    pack.pack([where], [tmp_path / "cells"], tmp_path / "data.h5", maps=maps)
    reader = Reader(tmp_path / "data.h5")
    assert reader.contents.maps == ("instances", "dead")
    np.testing.assert_array_equal(reader.read("b")["dead"], ids(3))
    (tmp_path / "dead" / "c.tif").unlink()
    with pytest.raises(UserError, match="no label for 'c'"):
        pack.pack([where], [tmp_path / "cells"], tmp_path / "no.h5", maps=maps)
    with pytest.raises(UserError, match="there is no further map of this name; take instances or dead"):
        pack.pack([where], [tmp_path / "cells"], tmp_path / "no.h5", maps={"buds": str(tmp_path / "dead")})
    for kind in ("auto", "instance"):
        with pytest.raises(UserError, match=r"^--map instances: the labels themselves are ids of cells; omit it"):
            ids_twice = {"instances": str(tmp_path / "cells")}
            pack.pack([where], [tmp_path / "cells"], tmp_path / "no.h5", kind=kind, maps=ids_twice)
    assert not (tmp_path / "no.h5").exists()
