"""Labelme's JSON files, one beside each image: polygons, rectangles, circles and masks with a label each."""

from __future__ import annotations

import base64
import binascii
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from yeastexp.data.annotations import json_file, polygons
from yeastexp.data.annotations.contract import Annotation, Frames, of_shapes, only_frame
from yeastexp.data.annotations.json_file import Node
from yeastexp.data.annotations.polygons import Shape
from yeastexp.errors import in_one_line
from yeastexp.system.formatting import format_count

NO_AREAS = ("point", "points", "line", "linestrip")


class Labelme:
    """Shapes of one label and `group_id` are one cell."""

    name, title, suffixes, names_images = "labelme", "labelme JSON", (".json",), False

    def recognises(self, path: Path) -> bool:
        """Whether it has labelme's keys."""
        return json_file.begins_as_json(path) and is_labelme(json_file.load(path))

    def read(self, path: Path, *, frames: Frames) -> Annotation:
        """The labels of the one image that the file lies beside."""
        name, file = only_frame(path, frames, self.title), Node(path, json_file.load(path))
        for key, pixels in zip(("imageHeight", "imageWidth"), frames[name], strict=True):
            if (node := file.get(key)) and node.whole != pixels:
                raise node.fault(
                    f"is {node.whole}, but the image has {' × '.join(map(str, frames[name]))} pixels",
                    "pair the file with its image",
                )
        classes: list[str] = []
        cells: dict[tuple[str, Any], Shape] = {}
        lines = 0
        for index, node in enumerate(file["shapes"].items()):
            kind = kind_node.text if (kind_node := node.get("shape_type")) else "polygon"
            if kind in NO_AREAS:
                lines += 1
                continue
            label = node["label"].text
            if label not in classes:
                classes.append(label)
            shape = _shape(node, kind, classes.index(label) + 1)
            group = group_node.text if (group_node := node.get("group_id")) else index
            if (earlier := cells.get((label, group))) is not None:
                if shape.mask is not None or earlier.mask is not None:
                    raise node.fault("is a mask in a group", "omit its group_id")
                shape = Shape(earlier.parts + shape.parts, shape.label)
            cells[label, group] = shape
        if not cells:
            raise file["shapes"].fault("holds no outline of an area", "annotate the image, or remove the file")
        shapes = list(cells.values())
        if polygons.count_corners(shapes, usual=False):
            shapes = polygons.from_corners(shapes)
        notes = [f"{format_count(lines, 'point or line')} left out"] if lines else []
        return of_shapes(self.name, {name: shapes}, frames, classes, notes=notes)


def is_labelme(content: Any) -> bool:
    """Whether what a JSON file holds has labelme's keys."""
    return isinstance(content, dict) and "shapes" in content and bool({"imagePath", "imageHeight"} & content.keys())


def _shape(node: Node, kind: str, label: int) -> Shape:
    points = node["points"].points()
    if kind == "polygon":
        return Shape(((points,),) if len(points) > 2 else (), label)
    if len(points) != 2:
        raise node["points"].fault(f"has {len(points)} points, but a {kind} has 2")
    if kind == "rectangle":
        return Shape(((polygons.rectangle(*points),),), label)
    if kind == "circle":
        radius = math.dist(*points)
        center = (float(points[0, 0]), float(points[0, 1]))
        return Shape(((polygons.ellipse(center, (radius, radius)),),), label)
    if kind == "mask":
        left, top = (int(value) for value in points[0])
        return Shape((), label, _mask(node["mask"], points), (top, left))
    raise node["shape_type"].fault(f"is {kind!r}, which is not read", "draw it as a polygon")


def _mask(node: Node, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    width, height = (int(value) + 1 for value in points[1].astype(int) - points[0].astype(int))
    try:
        with Image.open(io.BytesIO(base64.b64decode(node.text, validate=True)), formats=["PNG"]) as image:
            if image.size != (width, height):
                raise node.fault(f"has {image.height} × {image.width} pixels, but its points say {height} × {width}")
            return np.asarray(image.convert("L")) > 0
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise node.fault(f"is no PNG image in base64 ({in_one_line(error)})") from None
