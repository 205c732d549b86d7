"""COCO's files come back as the cells that were drawn: run lengths exactly, polygons as scikit-image fills them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_cells import SIZE, contours, label_image, traced
from hypothesis import given
from hypothesis import strategies as st

from yeastexp.data.annotations import KINDS, recognised
from yeastexp.data.annotations.coco import decompressed
from yeastexp.data.annotations.json_file import Node
from yeastexp.errors import UserError

LABELS = label_image()
FRAMES = {"a": SIZE, "b": SIZE}


def runs(mask: Any) -> list[int]:
    """Run lengths down the columns, of background first."""
    flat = np.concatenate([[False], np.asarray(mask, bool).T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [flat.size - 1]])).tolist()


def compressed(counts: list[int]) -> str:
    """As the C code of the COCO API writes them."""
    text = ""
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | (32 if more else 0)) + 48)
            if not more:
                break
    return text


def segment(mask: Any, form: str = "plain") -> dict[str, Any]:
    counts = runs(mask)
    return {"size": list(mask.shape), "counts": compressed(counts) if form == "compressed" else counts}


def annotation(segmentation: Any, image: int = 1, category: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": category, "iscrowd": 0, "segmentation": segmentation, **more}


def write(path: Path, annotations: Any, **more: Any) -> Path:
    names = ("folder/a.png", "b.ome.tif")
    images = [{"id": i, "file_name": n, "height": SIZE[0], "width": SIZE[1]} for i, n in enumerate(names, 1)]
    categories = [{"id": 7, "name": "bud"}, {"id": 3, "name": "cell", "supercategory": "yeast"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories} | more))
    return path


def read(path: Path) -> Any:
    assert recognised(path) == "coco"
    return KINDS["coco"].read(path, frames=FRAMES)


@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_run_lengths_come_back_exactly(tmp_path: Path, form: str) -> None:
    segments = [annotation(segment(number == LABELS, form), category=3 + 4 * (number % 2)) for number in range(1, 9)]
    result = read(write(tmp_path / "x.json", segments))
    assert result.names == ("a", "b") and result.class_names == ("background", "cell", "bud")
    np.testing.assert_array_equal(result.labels("a").instances, LABELS)
    np.testing.assert_array_equal(result.labels("a").classes, np.where(LABELS > 0, 1 + LABELS % 2, 0))
    assert not result.labels("b").instances.any() and not result.labels("a").counts


def test_a_run_may_be_longer_than_any_side(tmp_path: Path) -> None:
    size = 4000, 4000
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}],
        "categories": [],
        "annotations": [annotation({"size": size, "counts": [15_000_000, 1_000_000]}, area=1e6)],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    labels = KINDS["coco"].read(tmp_path / "x.json", frames={"a": size}).labels("a")
    assert labels.instances is not None and labels.instances[:, 3750:].all() and not labels.instances[:, :3750].any()


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=30))
def test_compressed_run_lengths(counts: list[int]) -> None:
    assert decompressed(Node(Path("x"), compressed(counts))) == counts


def test_compressed_as_the_api_does() -> None:
    """A text that pycocotools wrote."""
    rows, columns = np.mgrid[:40, :50]
    mask = np.hypot(rows - 12, columns - 20) <= 10
    mask[30:38, 3:45] = True
    text = (
        "f48P100000000000^OI37I13OK53KL73IL93GM93GL;3EM;3EM;3EM;3EL=3CN;3EM;3EM;3EM;3EN93GM93GN73IN53KO13O1I37?"
        "000000000000000000000000000Z5"
    )
    assert compressed(runs(mask)) == text
    assert decompressed(Node(Path("x"), text)) == runs(mask)


@pytest.mark.parametrize("shift", [0, 0.5])
def test_polygons_come_back(tmp_path: Path, shift: float) -> None:
    rings = [[(ring + shift).ravel().tolist()] for ring in contours(LABELS)]
    result = read(write(tmp_path / "x.json", [annotation(ring, image=2) for ring in rings]))
    np.testing.assert_array_equal(result.labels("b").instances, LABELS)


def test_whole_numbers_are_what_the_area_says(tmp_path: Path) -> None:
    masks = [number == LABELS for number in range(1, 9)]
    told = [annotation([traced(mask).ravel().tolist()], area=int(mask.sum())) for mask in masks]
    np.testing.assert_array_equal(read(write(tmp_path / "x.json", told)).labels("a").instances, LABELS)
    silent = read(write(tmp_path / "x.json", [annotation([[10, 10, 20, 10, 20, 20, 10, 20]])]))
    assert silent.labels("a").instances.sum() == 11 * 11, "as scikit-image"


def test_crowds_are_left_out_and_pieces_are_one_cell(tmp_path: Path) -> None:
    pieces = [[1, 1, 4, 1, 4, 4, 1, 4], [8, 8, 9, 8, 9, 9, 8, 9], [1, 1, 2, 2]]
    result = read(write(tmp_path / "x.json", [annotation(pieces), annotation(segment(LABELS > 0), iscrowd=1)]))
    assert (result.labels("a").instances == 1).sum() == 16 + 4
    assert result.notes == ("1 crowd (iscrowd) left out; they are areas of many cells",)


def test_images_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", [annotation([[1, 1, 4, 1, 4, 4]], image=2)])
    result = KINDS["coco"].read(path, frames={"a": SIZE})
    assert result.absent == ("b.ome.tif",) and result.names == ("a",)


RING = [[1, 1, 9, 1, 9, 9]]


@pytest.mark.parametrize(
    ("annotations", "more", "message"),
    [
        ([], {}, "annotations holds no outline of an area; annotate the images, or remove the file"),
        ([annotation(RING)], {"images": [{"id": 1, "file_name": "a.png", "height": 5, "width": 6}]}, "images[0]"),
        ([annotation(RING)], {"images": [{"id": 1, "height": 5, "width": 6}]}, "images[0] has no 'file_name'"),
        ([annotation(RING, image=9)], {}, "annotations[0].image_id is '9', but no image has this id"),
        ([annotation(RING, category=9)], {}, "annotations[0] has no category_id of a category"),
        ([{"id": 1, "image_id": 1, "category_id": 3}], {}, "annotations[0] has no 'segmentation'"),
        ([annotation("x")], {}, "annotations[0].segmentation is not a list"),
        ([annotation([[1, 2, 3]])], {}, "annotations[0].segmentation[0] has an odd number of values"),
        ([annotation([[1, 1, 2, 2, None, 3]])], {}, "annotations[0].segmentation[0][2][0] is not a number"),
        ([annotation([[1, 1, 2, 2, float("nan"), 3]])], {}, "annotations[0].segmentation[0][2][0] is nan"),
        ([annotation({"size": [10**9, 10**9], "counts": [10**18]})], {}, "annotations[0].segmentation.size[0] is 1000"),
        ([annotation({"size": [9, 9], "counts": [81]})], {}, "annotations[0].segmentation.size is [9, 9], but the"),
        ([annotation({"size": SIZE, "counts": [5, 5]})], {}, "annotations[0].segmentation.counts is of 10 pixels"),
        (
            [annotation({"size": SIZE, "counts": [-5, 12485]})],
            {},
            "annotations[0].segmentation.counts[0] is no number",
        ),
        ([annotation({"size": SIZE, "counts": "o" * 90})], {}, "annotations[0].segmentation.counts is no run lengths"),
        ([annotation({"size": SIZE, "counts": "\x01"})], {}, "annotations[0].segmentation.counts is no run lengths"),
        ([annotation({"size": SIZE, "counts": "o"})], {}, "annotations[0].segmentation.counts breaks off"),
        ([annotation({"size": SIZE})], {}, "annotations[0].segmentation has no 'counts'"),
        ({}, {}, "annotations is not a list"),
    ],
)
def test_bad_files(tmp_path: Path, annotations: Any, more: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "x.json", annotations, **more)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)
