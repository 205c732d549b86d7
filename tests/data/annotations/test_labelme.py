"""Labelme's files come back as the cells that were drawn, and bad ones with one line."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_cells import SIZE, contours, label_image, least_iou
from PIL import Image
from skimage.draw import polygon

from yeastexp.data.annotations import KINDS, recognised
from yeastexp.data.hdf5_file import Reader
from yeastexp.data.pack import pack
from yeastexp.errors import UserError

LABELS = label_image()
FRAMES = {"a": SIZE}


def shape(points: Any, label: str = "cell", kind: str = "polygon", **more: Any) -> dict[str, Any]:
    points = np.asarray(points).tolist()
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def write(path: Path, shapes: Any, **more: Any) -> Path:
    """As labelme writes it."""
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }
    path.write_text(json.dumps(content | more, indent=2))
    return path


def read(path: Path) -> tuple[Any, Any]:
    assert recognised(path) == "labelme"
    annotation = KINDS["labelme"].read(path, frames=FRAMES)
    assert annotation.names == ("a",)
    return annotation, annotation.labels("a")


def test_polygons_come_back(tmp_path: Path) -> None:
    annotation, labels = read(write(tmp_path / "a.json", [shape(ring) for ring in contours(LABELS)]))
    np.testing.assert_array_equal(labels.instances, LABELS)
    assert annotation.class_names == ("background", "cell") and not labels.counts


def test_outlines_with_points_left_out_come_back_as_alike(tmp_path: Path) -> None:
    """As scikit-image fills the same outlines."""
    rings = [ring[::3] + 0.123 for ring in contours(LABELS)]
    wanted = np.zeros(SIZE, int)
    for number, ring in enumerate(rings, 1):
        wanted[polygon(ring[:, 1], ring[:, 0], SIZE)] = number
    _, labels = read(write(tmp_path / "a.json", [shape(ring) for ring in rings]))
    np.testing.assert_array_equal(labels.instances, wanted)


def test_contours_along_the_corners_of_pixels(tmp_path: Path) -> None:
    _, labels = read(write(tmp_path / "a.json", [shape(ring + 0.5) for ring in contours(LABELS)]))
    assert least_iou(labels.instances, LABELS) == 1


def test_classes_groups_rectangles_circles_and_masks(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(3, 4, dtype=bool)).save(buffer, format="PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        shape([(2, 3), (5, 8)], "bud", "rectangle"),
        shape([(30, 20), (33, 24)], "mother", "circle"),
        shape([(50, 50), (55, 50), (55, 55)], "bud", group_id=1),
        shape([(60, 50), (65, 50), (65, 55)], "bud", group_id=1),
        shape([(60, 70), (65, 70), (65, 75)], "mother", group_id=1),
        shape([(1, 1)], "note", "point"),
        shape([(80, 70), (83, 72)], "bud", "mask", mask=mask),
    ]
    annotation, labels = read(write(tmp_path / "a.json", shapes))
    ids, classes = labels.instances, labels.classes
    assert annotation.class_names == ("background", "bud", "mother")
    assert annotation.notes == ("1 point or line left out",)
    assert np.argwhere(ids == 1).tolist() == [[y, x] for y in range(3, 9) for x in range(2, 6)]
    assert (ids == 2).sum() == np.sum(np.hypot(*np.mgrid[-5:6, -5:6]) <= 5)
    assert ids[51, 54] == ids[51, 64] == 3 and ids[71, 64] == 4 and classes[71, 64] == 2
    assert np.argwhere(ids == 5).tolist() == [[70, 80], [71, 81], [72, 82]]
    np.testing.assert_array_equal(classes, np.array([0, 1, 2, 1, 2, 1])[ids])


RING = [(1, 1), (9, 1), (9, 9)]


@pytest.mark.parametrize(
    ("shapes", "more", "message"),
    [
        ([], {}, "shapes holds no outline of an area; annotate the image, or remove the file"),
        ([shape([(1, 1)], kind="point")], {}, "shapes holds no outline of an area"),
        ([shape(RING)], {"imageHeight": 50}, "imageHeight is 50, but the image has 96 × 130 pixels; pair the file"),
        ([shape(RING)], {"imageWidth": "x"}, "imageWidth is not a number; save the file again"),
        ({}, {}, "shapes is not a list"),
        ([7], {}, "shapes[0] is not an object"),
        ([{"points": RING}], {}, "shapes[0] has no 'label'"),
        ([{"label": "a"}], {}, "shapes[0] has no 'points'"),
        ([shape([])], {}, None),
        ([shape([*RING, (1, float("nan"))])], {}, "shapes[0].points[3][1] is nan, which lies outside of any image"),
        ([shape([*RING, (1, 1e300)])], {}, "shapes[0].points[3][1] is 1e+300, which lies outside of any image"),
        ([{"label": "a", "points": [[10**400, 1], *RING]}], {}, "shapes[0].points[0][0] is 1000000000"),
        ([{"label": "a", "points": [["1", "2"], *RING]}], {}, "shapes[0].points[0][0] is not a number"),
        ([{"label": "a", "points": [[1], *RING]}], {}, "shapes[0].points[0] is not x and y"),
        ([{"label": "a", "points": [[True, 1]]}], {}, None),
        ([shape(RING, kind="rectangle")], {}, "shapes[0].points has 3 points, but a rectangle has 2"),
        ([shape(RING[:2], kind="star")], {}, "shapes[0].shape_type is 'star', which is not read; draw it as a polygon"),
        ([shape(RING[:2], kind="mask", mask="%")], {}, "shapes[0].mask is no PNG image in base64"),
        ([shape(RING[:2], kind="mask", mask="aGFsbG8=")], {}, "shapes[0].mask is no PNG image in base64"),
    ],
)
def test_bad_files(tmp_path: Path, shapes: Any, more: dict[str, Any], message: str | None) -> None:
    path = write(tmp_path / "a.json", shapes, **more)
    if message is None:
        assert read(path)[1].counts == {"empty": 1}
        return
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


def test_one_image_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [shape(RING)])
    with pytest.raises(UserError, match="a labelme JSON file annotates one image, but there are 2 frames"):
        KINDS["labelme"].read(path, frames={"a": SIZE, "b": SIZE})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON (line "),
        (lambda text: "[" * 100_000, "is nested too deeply"),
        (lambda text: text.replace("cell", "c\udcff"), "is not valid JSON (text is not UTF-8)"),
        (lambda text: text.replace('"shapes"', '"forms"'), "is JSON, but neither of labelme, coco"),
    ],
)
def test_damaged_json(tmp_path: Path, spoil: Callable[[str], str], message: str) -> None:
    path = write(tmp_path / "a.json", [shape(RING)])
    path.write_bytes(spoil(path.read_text()).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        recognised(path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


def test_classes_are_numbered_alike_in_all_files(tmp_path: Path) -> None:
    """Each file numbers its own in the order in which they appear in it."""
    (near, far), names = ([[1, 1], [9, 1], [9, 9], [1, 9]], [[21, 21], [29, 21], [29, 29], [21, 29]]), "abc"
    drawn = [[("bud", near), ("dead", far)], [("dead", near), ("bud", far)], [("dead", near)]]
    for folder in ("images", "outlines"):
        (tmp_path / folder).mkdir()
    for name, shapes in zip(names, drawn, strict=True):
        Image.fromarray(np.random.default_rng(0).integers(0, 99, SIZE).astype(np.uint8)).save(
            tmp_path / f"images/{name}.png"
        )
        outlines = [shape(ring, label) for label, ring in shapes]
        write(tmp_path / f"outlines/{name}.json", outlines, imagePath=f"{name}.png")
    done = pack([tmp_path / "images"], [tmp_path / "outlines"], tmp_path / "data.h5", kind="class", val=1)
    assert done.label_values == (0, 1, 2)
    reader = Reader(tmp_path / "data.h5")
    assert reader.contents.provenance["classes"] == ["background", "bud", "dead"]
    found = [reader.read(name)["gt"] for name in names]
    assert [(labels[5, 5], labels[25, 25]) for labels in found] == [(1, 2), (2, 1), (2, 0)]
