"""QuPath's GeoJSON: objects with an outline, of which pieces and holes are told apart, and a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from yeastexp.data.annotations import json_file, polygons
from yeastexp.data.annotations.contract import Annotation, Frames, of_shapes
from yeastexp.data.annotations.json_file import Node
from yeastexp.data.annotations.polygons import Shape
from yeastexp.system.formatting import format_count

NO_AREAS = ("Point", "MultiPoint", "LineString", "MultiLineString")
DECIMALS = 2
"""Of the coordinates that QuPath writes."""

UNCLASSIFIED = "unclassified"


class GeoJson:
    """Each feature with an area is a cell, even of several pieces. The `plane` of a geometry says its frame."""

    name, title, suffixes, names_images = "geojson", "GeoJSON", (".geojson", ".json"), False

    def recognises(self, path: Path) -> bool:
        """Whether it holds features."""
        return json_file.begins_as_json(path) and is_geojson(json_file.load(path))

    def read(self, path: Path, *, frames: Frames) -> Annotation:
        """The labels of the image, or of the frames of the stack, that the file lies beside."""
        file = Node(path, json_file.load(path))
        collection = file if isinstance(file.value, list) else file.get("features")
        features = [file] if collection is None else list(collection.items())
        cells: list[tuple[int, str, Shape]] = []
        lines = 0
        for node in features:
            geometry = node["geometry"]
            if geometry["type"].text in NO_AREAS:
                lines += 1
            else:
                cells.append((_plane(geometry), _class(node), Shape(_parts(geometry))))
        if not cells:
            raise file.fault("holds no outline of an area", "annotate the image, or remove the file")
        shapes = [shape for _, _, shape in cells]
        if polygons.count_corners(shapes, usual=_as_qupath_writes(shapes)):
            shapes = polygons.from_corners(shapes)
        classes = [name for name in dict.fromkeys(name for _, name, _ in cells) if name != UNCLASSIFIED]
        if classes and any(name == UNCLASSIFIED for _, name, _ in cells):
            classes.append(UNCLASSIFIED)
        by_frame: dict[str, list[Shape]] = {}
        names = list(frames)
        for (plane, label, _), shape in zip(cells, shapes, strict=True):
            if plane >= len(names):
                there = format_count(len(names), "frame")
                raise file.fault(
                    f"has an object on frame {plane + 1}, but the image has {there}", "pair it with its stack"
                )
            number = classes.index(label) + 1 if classes else 0
            by_frame.setdefault(names[plane], []).append(Shape(shape.parts, number))
        notes = [f"{format_count(lines, 'point or line')} left out"] if lines else []
        return of_shapes(self.name, by_frame, frames, classes, notes=notes)


def is_geojson(content: Any) -> bool:
    """Whether what a JSON file holds is a feature, a collection of them or a list of them."""
    if isinstance(content, list):
        return bool(content) and all(isinstance(item, dict) and item.get("type") == "Feature" for item in content)
    return isinstance(content, dict) and content.get("type") in ("Feature", "FeatureCollection")


def _class(node: Node) -> str:
    """QuPath writes {"name": …}, older versions of it and scripts a name or a list of them."""
    properties = node.get("properties")
    classification = properties.get("classification") if properties else None
    if classification is None:
        return UNCLASSIFIED
    value = classification.value
    if isinstance(value, dict):
        names = classification.get("names")
        value = classification["name"].text if names is None else [item.text for item in names.items()]
    return ": ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plane(geometry: Node) -> int:
    """The index of the frame, 0 where there is none."""
    plane = geometry.get("plane")
    index = plane.get("t") if plane else None
    if index is not None and index.whole < 0:
        raise index.fault(f"is {index.whole}, but frames are counted from 0")
    return 0 if index is None else index.whole


def _parts(geometry: Node) -> tuple[tuple[np.ndarray[Any, Any], ...], ...]:
    kind = geometry["type"].text
    if kind == "GeometryCollection":
        return tuple(part for item in geometry["geometries"].items() for part in _parts(item))
    if kind not in ("Polygon", "MultiPolygon"):
        raise geometry["type"].fault(f"is {kind!r}, which is not read", "export objects with an area")
    polygon_nodes = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"].items()
    return tuple(tuple(ring.points() for ring in polygon.items()) for polygon in polygon_nodes)


def _as_qupath_writes(shapes: list[Shape]) -> bool:
    """Whether coordinates are rounded as QuPath does it, where whole numbers are the corners of pixels."""
    scale = 10**DECIMALS
    rings = (ring * scale for shape in shapes for part in shape.parts for ring in part)
    return all(bool((np.abs(ring - np.rint(ring)) < 1e-4).all()) for ring in rings)
