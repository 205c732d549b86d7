"""COCO's JSON file, which names its images: polygons and run lengths (RLE), with categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.data.annotations import json_file, polygons
from yeastexp.data.annotations.contract import Annotation, Frames, Size, of_shapes
from yeastexp.data.annotations.json_file import Node
from yeastexp.data.annotations.polygons import Shape
from yeastexp.system.formatting import format_count

Array = npt.NDArray[Any]


class Coco:
    """Images are matched by the stems of their names, categories become classes in their order."""

    name, title, suffixes, names_images = "coco", "COCO JSON", (".json",), True

    def recognises(self, path: Path) -> bool:
        """Whether it has COCO's keys."""
        return json_file.begins_as_json(path) and is_coco(json_file.load(path))

    def read(self, path: Path, *, frames: Frames) -> Annotation:
        """The labels of all images that the file names."""
        file = Node(path, json_file.load(path))
        images, absent = _images(file, frames)
        numbers, classes = _categories(file)
        shapes: dict[str, list[Shape]] = {name: [] for name in images.values() if name}
        areas = 0.0
        crowds = foreign = 0
        for node in file["annotations"].items():
            image = node["image_id"].text
            if image not in images:
                raise node["image_id"].fault(f"is {image!r}, but no image has this id", "fix or remove the annotation")
            if (name := images[image]) is None:
                foreign += 1
                continue
            category = numbers.get(number.text) if (number := node.get("category_id")) else None
            if category is None and classes:
                raise node.fault("has no category_id of a category", "fix or remove the annotation")
            if (crowd := node.get("iscrowd")) and crowd.whole:
                crowds += 1
                continue
            shape = _shape(node["segmentation"], category or 0, frames[name])
            if shape.parts and (area := node.get("area")):
                areas += area.area
            shapes[name].append(shape)
        if not any(shapes.values()) and not foreign:
            raise file["annotations"].fault("holds no outline of an area", "annotate the images, or remove the file")
        every = [shape for cells in shapes.values() for shape in cells]
        if polygons.count_corners(every, usual=_areas_of_corners(every, areas)):
            shapes = {name: polygons.from_corners(cells) for name, cells in shapes.items()}
        notes = [f"{format_count(crowds, 'crowd')} (iscrowd) left out; they are areas of many cells"] if crowds else []
        return of_shapes(self.name, shapes, frames, classes, absent=absent, notes=notes)


def is_coco(content: Any) -> bool:
    """Whether what a JSON file holds has COCO's keys."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _images(file: Node, frames: Frames) -> tuple[dict[str, str | None], list[str]]:
    """The names of images by id, None for images that are not in `frames`; and the file names of the absent ones."""
    images: dict[str, str | None] = {}
    absent: list[str] = []
    taken: set[str] = set()
    for node in file["images"].items():
        file_name = node["file_name"].text
        number, stem = node["id"].text, PurePosixPath(file_name.replace("\\", "/")).stem
        name = next((name for name in (file_name, stem, stem.removesuffix(".ome")) if name in frames), None)
        if number in images or name in taken:
            raise node.fault(f"({file_name!r}) has the id or the name of an earlier image", "give each its own")
        images[number] = name
        if name is None:
            absent.append(file_name)
            continue
        taken.add(name)
        size = (node["height"].whole, node["width"].whole)
        if size != frames[name]:
            sizes = " but the image has ".join(f"{height} × {width}" for height, width in (size, frames[name]))
            raise node.fault(f"({file_name!r}) has {sizes} pixels", "pair the file with its images")
    return images, absent


def _categories(file: Node) -> tuple[dict[str, int], list[str]]:
    """The index of each category by its id, from 1 on, and their names; none where the file has none."""
    nodes = list(file["categories"].items()) if file.get("categories") else []
    nodes.sort(key=lambda node: node["id"].whole)
    return {node["id"].text: index for index, node in enumerate(nodes, 1)}, [node["name"].text for node in nodes]


def _areas_of_corners(shapes: Sequence[Shape], areas: float) -> bool:
    """Whether outlines of whole numbers are as large as the areas that the file says, so that these are corners.

    Through the centres of pixels they are smaller than the pixels, by half their length.
    """
    rings = [ring for shape in shapes for part in shape.parts for ring in part]
    if not rings or not areas or not polygons.are_whole(shapes):
        return False
    enclosed = sum(abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2 for x, y in (ring.T for ring in rings))
    return abs(enclosed - areas) <= 0.01 * areas


def _shape(node: Node, label: int, size: Size) -> Shape:
    if isinstance(node.value, Mapping):
        return Shape((), label, _runs(node, size))
    parts = []
    for ring in node.items():
        flat = ring.get_list()
        if len(flat) % 2:
            raise ring.fault("has an odd number of values, but they are x and y in turn")
        if len(flat) > 4:
            points = Node(ring.path, [flat[at : at + 2] for at in range(0, len(flat), 2)], ring.place).points()
            parts.append((points,))
    return Shape(tuple(parts), label)


def _runs(node: Node, size: Size) -> Array:
    """The mask (H, W) of run lengths, which go down the columns and begin with background."""
    claimed = tuple(side.whole for side in node["size"].items())
    if claimed != size:
        raise node["size"].fault(f"is {list(claimed)}, but the image has {size[0]} × {size[1]} pixels")
    counts = node["counts"]
    runs = decompressed(counts) if isinstance(counts.value, str) else [run.count for run in counts.items()]
    if any(run < 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise counts.fault(f"is of {sum(runs):,} pixels, but the image has {size[0] * size[1]:,}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[::-1]).T


def decompressed(node: Node) -> list[int]:
    """Run lengths of COCO's compressed text: six bits a character, of which one says that the number goes on.

    The lowest bits come first, and from the fourth number on each is added to the one two before it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in node.text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise node.fault("is no run lengths in COCO's compressed form")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits >> 4 & 1) << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise node.fault("breaks off within a number")
    return runs
