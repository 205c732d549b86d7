"""The contract of readers of label formats: label maps of images by name, with counts of what was odd about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from yeastexp.data.annotations import polygons
from yeastexp.data.annotations.polygons import Shape
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_count

Array = npt.NDArray[Any]
Size = tuple[int, int]
Frames = Mapping[str, Size]
"""Heights and widths of images by name, in the order of the frames where one file holds several."""

BACKGROUND = "background"


@dataclass(frozen=True)
class Labels:
    """What a file says of one image. `values` are integers of which the file does not say what they are.

    `instances` (H, W) are int32 ids, from 1 on in the order of the file, 0 where there is no cell; `classes` (H, W)
    are indices into `Annotation.class_names`. `counts` says how many outlines overlap, leave the image and so on.
    """

    instances: Array | None = None
    classes: Array | None = None
    values: Array | None = None
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Annotation:
    """What a file says of images. `labels(name)` is called for those in `names`, one at a time, as often as needed.

    Images that are not in `names` are not annotated, which is not the same as annotated without cells. `absent` are
    images that the file names but that are not there. The first of `class_names` is the background.
    """

    kind: str
    names: tuple[str, ...]
    labels: Callable[[str], Labels]
    class_names: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Kind(Protocol):
    """A format of annotations.

    `names_images` says that a file speaks of many images, by their names; else it belongs to the image, or to the
    stack of frames, that has its name.
    """

    name: str
    title: str
    names_images: bool

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the names of its files."""
        ...

    def recognises(self, path: Path) -> bool:
        """Whether a file is of this kind, by its content."""
        ...

    def read(self, path: Path, *, frames: Frames) -> Annotation:
        """Read the annotation of these images. Raises UserError if the file is damaged, or does not fit them."""
        ...


def of_shapes(
    kind: str,
    shapes: Mapping[str, Sequence[Shape]],
    frames: Frames,
    classes: Sequence[str] = (),
    *,
    absent: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Annotation:
    """The annotation by outlines of cells; a shape's label is 1 for the first of the classes."""

    def labels(name: str) -> Labels:
        ids, indices, counts = polygons.drawn(shapes[name], frames[name])
        return Labels(ids, indices if classes else None, counts=counts)

    class_names = (BACKGROUND, *classes) if classes else ()
    return Annotation(kind, tuple(shapes), labels, class_names, tuple(absent), tuple(notes))


def of_values(path: Path, values: Array, size: Size, *, ids: bool = False) -> Labels:
    """Labels from an array (H, W). Raises UserError if it holds fractions, or differs in size from the image."""
    if values.shape != size:
        shape = " × ".join(map(str, values.shape)) or "single value"
        raise UserError(
            f"{path}: holds labels of {shape} pixels, but the image has {size[0]} × {size[1]}; pair it with its image"
        )
    if values.dtype.kind == "f" and bool(np.isfinite(values).all()) and bool((values == np.rint(values)).all()):
        values = values.astype(np.int64)
    if values.dtype.kind not in "bui":
        raise UserError(f"{path}: holds {values.dtype} values, but labels are whole numbers; save it as integers")
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    if not ids:
        return Labels(values=np.ascontiguousarray(values))
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 1 << 31:
        raise UserError(f"{path}: holds ids from {values.min()} to {values.max()}; ids are 0 or more, below 2³¹")
    return Labels(instances=np.ascontiguousarray(values, np.int32))


def only_frame(path: Path, frames: Frames, title: str) -> str:
    """The image that a file of one image belongs to. Raises UserError if it is one of several frames."""
    if len(frames) != 1:
        raise UserError(
            f"{path}: a {title} file annotates one image, but there are {len(frames):,} frames; "
            "save each frame as an image of its own, or the labels as a stack"
        )
    return next(iter(frames))


SENTENCES = {
    polygons.OVERLAPPING: "{} earlier ones (the later one is kept)",
    polygons.CUT: "{} cut by the border of the image",
    polygons.OUTSIDE: "{} outside of the image",
    polygons.EMPTY: "{} no pixel",
    polygons.HIDDEN: "{} hidden by later ones",
}
VERBS = {polygons.OVERLAPPING: ("overlaps", "overlap"), polygons.EMPTY: ("covers", "cover")}


def told(counts: Mapping[str, int]) -> list[str]:
    """What was counted of outlines, as ends of a line: '3 outlines are cut by the border of the image'."""
    told = []
    for what, sentence in SENTENCES.items():
        if number := counts.get(what, 0):
            verb = VERBS.get(what, ("is", "are"))[number != 1]
            told.append(f"{format_count(number, 'outline')} {sentence.format(verb)}")
    return told
