"""COCO's JSON: one file for all images, with the run lengths of each cell, so that no pixel changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.prediction.exports.contract import Labelled, Named, NamedT, writing


class Coco:
    """Run lengths, areas and boxes of the pixels of each cell; its id is kept as `cell`, its confidence as the score.

    The ids of annotations count through all images, as COCO wants it.
    """

    name, title, form, needs = "coco", "COCO JSON", "coco.json", ""

    def targets(self, images: Sequence[NamedT], output: Path) -> Mapping[Path, Sequence[NamedT]]:
        """Return the file of all images."""
        return {output / self.form: images}

    def write(self, images: Sequence[Labelled], output: Path, asked: Sequence[Named]) -> None:
        """Write one file for all images."""
        # Annotations are appended one by one to the text of the other tables, so that they are never all in memory.
        methods = dict.fromkeys(image.method for image in images if image.method)
        head = {
            "info": {"description": ", ".join(["cells predicted by yeastexp", *methods])},
            "categories": [{"id": 1, "name": "cell", "supercategory": ""}],
            "images": [_image(number, image) for number, image in enumerate(images, 1)],
        }
        with writing(output / self.form) as path, path.open("w", encoding="utf-8") as text:
            text.write(json.dumps(head, indent=1)[:-2] + ',\n "annotations": [')
            annotations = (each for number, image in enumerate(images, 1) for each in _annotations(number, image))
            for number, annotation in enumerate(annotations, 1):
                line = json.dumps({"id": number, **annotation}, allow_nan=False)
                text.write((",\n" if number > 1 else "\n") + line)
            text.write("\n]}\n")


def _image(number: int, image: Labelled) -> dict[str, Any]:
    """Return the entry of an image, named as its file unless that holds several images."""
    height, width = image.size
    is_file = image.name == str(image.path)
    return {"id": number, "file_name": image.path.name if is_file else image.stem, "width": width, "height": height}


def _annotations(number: int, image: Labelled) -> Iterator[dict[str, Any]]:
    """Yield the annotation of each cell, without the id that counts through all images."""
    for (label, mask, top, left), row in zip(image.cells(), image.measurements(), strict=True):
        score = {"score": row["confidence_mean"]} if "confidence_mean" in row else {}
        yield {
            "image_id": number,
            "category_id": 1,
            "segmentation": {"size": list(image.size), "counts": runs(mask, top, left, image.size)},
            "area": int(mask.sum()),
            "bbox": [left, top, mask.shape[1], mask.shape[0]],
            "iscrowd": 0,
            "cell": label,
            **score,
        }


def runs(mask: npt.NDArray[np.bool_], top: int, left: int, size: tuple[int, int]) -> list[int]:
    """Return the lengths of runs of background and cell in turn, down the columns of an image of `size` (H, W)."""
    # From the mask of the cell alone: its pixels are placed in the image, whose columns follow each other without a
    # gap, so that a run may go on from the bottom of one column to the top of the next.
    columns, rows = np.nonzero(mask.T)
    place = (left + columns) * size[0] + top + rows
    breaks = np.flatnonzero(np.diff(place) > 1)
    begins, stops = place[np.append(0, breaks + 1)], place[np.append(breaks, -1)] + 1
    ends = np.stack([begins, stops], axis=1).ravel()
    lengths: list[int] = np.diff(ends, prepend=0, append=size[0] * size[1]).tolist()
    return lengths if lengths[-1] else lengths[:-1]
