"""QuPath's objects come back as the cells that were drawn, and bad ones with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_cells import SIZE, contours, label_image, traced
from skimage.draw import polygon

from yeastexp.data.annotations import KINDS, polygons, recognised
from yeastexp.errors import UserError

LABELS = label_image()


def feature(coordinates: Any, kind: str = "Polygon", name: str | None = None, **geometry: Any) -> dict[str, Any]:
    """As QuPath writes it."""
    classification = {} if name is None else {"classification": {"name": name, "color": [200, 0, 0]}}
    return {
        "type": "Feature",
        "id": "3bd30ba3-2d5f-4ac8-a2ba-a3e0a1b4b3d3",
        "geometry": {"type": kind, "coordinates": coordinates, **geometry},
        "properties": {"objectType": "annotation", **classification},
    }


def closed(ring: Any) -> list[Any]:
    ring = np.asarray(ring).tolist()
    return [*ring, ring[0]]


def write(path: Path, features: Any, form: str = "collection") -> Path:
    content = {"type": "FeatureCollection", "features": features} if form == "collection" else features
    path.write_text(json.dumps(content))
    return path


def read(path: Path, frames: dict[str, Any] | None = None) -> Any:
    assert recognised(path) == "geojson"
    return KINDS["geojson"].read(path, frames=frames or {"a": SIZE})


@pytest.mark.parametrize("form", ["collection", "list"])
def test_traced_pixels_come_back_exactly(tmp_path: Path, form: str) -> None:
    """QuPath and rasterio write them along the corners of pixels."""
    rings = [closed(traced(number == LABELS)) for number in range(1, 9)]
    result = read(write(tmp_path / "a.geojson", [feature([ring]) for ring in rings], form))
    np.testing.assert_array_equal(result.labels("a").instances, LABELS)
    assert result.class_names == () and result.labels("a").classes is None


@pytest.mark.parametrize("shift", [0, 0.5])
def test_contours_come_back_exactly(tmp_path: Path, shift: float) -> None:
    features = [feature([closed(ring + shift)]) for ring in contours(LABELS)]
    np.testing.assert_array_equal(read(write(tmp_path / "a.geojson", features)).labels("a").instances, LABELS)


def test_smooth_outlines_of_qupath_and_of_scripts(tmp_path: Path) -> None:
    """QuPath rounds to two decimals, and its whole numbers are corners; those of scripts are centres of pixels."""
    ring = polygons.ellipse((40.3, 30.4), (5.2, 5.2))
    wanted = np.zeros(SIZE, int)
    wanted[polygon(ring[:, 1], ring[:, 0], SIZE)] = 1
    script = read(write(tmp_path / "a.geojson", [feature([closed(ring)])]))
    np.testing.assert_array_equal(script.labels("a").instances, wanted)
    qupath = read(write(tmp_path / "a.geojson", [feature([closed((ring + 0.5).round(2))])]))
    np.testing.assert_array_equal(qupath.labels("a").instances, wanted)


def test_holes_pieces_classes_and_frames(tmp_path: Path) -> None:
    outer, hole, other = (
        closed(polygons.rectangle((at, at), (at + side, at + side))) for at, side in ((2, 9), (4, 3), (20, 2))
    )
    features = [
        feature([outer, hole], name="bud"),
        feature([[outer, hole], [other]], "MultiPolygon", plane={"c": -1, "z": 0, "t": 1}),
        feature([other], name="mother", plane={"c": -1, "z": 0, "t": 1}),
        feature([3, 4], "Point"),
        {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": [feature([other])["geometry"]]}},
    ]
    result = read(write(tmp_path / "a.geojson", features), {"a_t0": SIZE, "a_t1": SIZE, "a_t2": SIZE})
    assert result.names == ("a_t0", "a_t1") and result.notes == ("1 point or line left out",)
    assert result.class_names == ("background", "bud", "mother", "unclassified")
    first, second = result.labels("a_t0"), result.labels("a_t1")
    assert (first.instances == 1).sum() == 81 - 9 and (first.instances == 2).sum() == 4
    assert (second.instances == 1).sum() == 72 and (second.instances == 2).sum() == 4
    assert (
        first.classes.max() == 3
        and second.classes[21, 21] == 2
        and second.counts
        == {
            "overlapping": 1,
        }
    )


SQUARE = [[1, 1], [5, 1], [5, 5], [1, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the file holds no outline of an area; annotate the image, or remove the file"),
        ([feature([3, 4], "Point")], "the file holds no outline of an area"),
        ([feature([SQUARE], "Circle")], "features[0].geometry.type is 'Circle', which is not read"),
        ([feature(SQUARE)], "features[0].geometry.coordinates[0][0] is not a list"),
        ([feature([[[1, None], *SQUARE]])], "features[0].geometry.coordinates[0][0][1] is not a number"),
        ([feature([[[1, float("inf")], *SQUARE]])], "features[0].geometry.coordinates[0][0][1] is inf, which lies out"),
        ([feature([SQUARE], plane={"t": 4})], "the file has an object on frame 5, but the image has 1 frame"),
        ([feature([SQUARE], plane={"t": -4})], "features[0].geometry.plane.t is -4, but frames are counted from 0"),
        ([{"type": "Feature"}], "features[0] has no 'geometry'"),
        ([5], "features[0] is not an object"),
        ("x", "features is not a list"),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "a.geojson", content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)
