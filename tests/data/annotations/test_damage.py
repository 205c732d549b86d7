"""Whatever a file of annotations holds, it is read or refused with one line, and never with another exception."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from annotated_cells import SIZE, contours, label_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roifile import ImagejRoi

from yeastexp.data.annotations import KINDS, recognised
from yeastexp.errors import UserError

RING = contours(label_image())[0].tolist()
FEATURE = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [RING]}, "properties": {}}
GOOD: dict[str, Any] = {
    "labelme": {
        "shapes": [
            {"label": "a", "points": RING, "shape_type": "polygon", "group_id": 1},
            {"label": "b", "points": RING[:2], "shape_type": "circle"},
            {"label": "b", "points": RING[:2], "shape_type": "mask", "mask": "aGFsbG8="},
        ],
        "imagePath": "a.png",
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    },
    "coco": {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": [np.ravel(RING).tolist()], "area": 80, "iscrowd": 0},
            {"image_id": 1, "category_id": 1, "segmentation": {"size": SIZE, "counts": [9, 5, 96 * 130 - 14]}},
            {"image_id": 1, "category_id": 1, "segmentation": {"size": SIZE, "counts": "9Q0"}},
        ],
        "categories": [{"id": 1, "name": "cell"}],
    },
    "geojson": {"type": "FeatureCollection", "features": [FEATURE, FEATURE]},
}
VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.floats(), st.text(max_size=9), st.just([])),
    *(st.just({}), st.just([[]]), st.lists(st.lists(st.floats(), max_size=3), max_size=3), st.just(10**400)),
)
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")), deadline=None, suppress_health_check=list(HealthCheck)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is a value in nested objects and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


def read_or_one_line(path: Path, kind: str) -> None:
    """Also where a kind is told and not recognised."""
    for read in (lambda: recognised(path), lambda: KINDS[kind].read(path, frames={"a": SIZE})):
        try:
            annotation = read()
            if annotation is not None and not isinstance(annotation, str):
                for name in annotation.names:
                    annotation.labels(name)
        except UserError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))


@FUZZ
@given(st.data())
@pytest.mark.parametrize("kind", GOOD)
def test_wrong_values_in_json(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    content = json.loads(json.dumps(GOOD[kind]))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from([place for place in places(content) if place] or [()]))
        content = replaced(content, place, data.draw(VALUES))
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    read_or_one_line(path, kind)


@pytest.mark.parametrize("name", ["\n", "\x1b[31m", "\u2028"])
def test_names_in_json_break_no_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(replaced(GOOD["labelme"], ("shapes", 0, "shape_type"), name)))
    with pytest.raises(UserError) as caught:
        KINDS["labelme"].read(path, frames={"a": SIZE})
    assert str(caught.value).isprintable()


@FUZZ
@given(st.data())
@pytest.mark.parametrize("kind", ["labelme", "imagej_roi", "hdf5"])
def test_wrong_bytes(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / {"labelme": "a.json", "imagej_roi": "a.zip", "hdf5": "a.h5"}[kind]
    if kind == "labelme":
        path.write_text(json.dumps(GOOD[kind]))
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("label", data=np.zeros(SIZE, np.uint8)).attrs["axistags"] = '{"axes": [{"key": "y"}]}'
    else:
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("a.roi", ImagejRoi.frompoints(RING).tobytes())
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, min(len(content), 2000) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))]))
    read_or_one_line(path, kind)


@FUZZ
@given(st.data())
def test_wrong_bytes_in_a_region(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(ImagejRoi.frompoints(np.array(RING).round().astype(int)).tobytes())
    for place in data.draw(st.lists(st.integers(4, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.roi"
    path.write_bytes(bytes(content))
    read_or_one_line(path, "imagej_roi")


@FUZZ
@given(st.binary(max_size=40))
@pytest.mark.parametrize("begin", [b"", b"{", b"[", b"Iout", b"PK\x03\x04", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n"])
def test_any_bytes(tmp_path: Path, begin: bytes, data: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(begin + data)
    for kind in KINDS:
        read_or_one_line(path, kind)
