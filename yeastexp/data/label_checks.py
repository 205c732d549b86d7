"""What labels of cells never look like: an image taken for labels, a mask taken for ids, ids of a pixel or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from yeastexp.errors import UserError
from yeastexp.metrics.cells import measure, of_fewer_bits
from yeastexp.sample import compacted

Array = npt.NDArray[Any]

SMALLEST_PX, FEWEST_LABELLED_PX = 1024, 256
"""Pixels of an image, and those above 0, below which there are too few to say what its labels look like."""

NOISE = 0.7
"""Share of neighbours that differ from which on labels are no cells: most would be smaller than 3 × 3 pixels."""

IMAGE, LABELS = 0.4, 0.2
"""The same of labels and of images if the images look like labels as well: then they are swapped."""

SPECK_PX = 5
"""Pixels below which an id or a piece of one is a speck."""

MOST_CLASSES = 64
MOST_IDS = 1000
"""Ids of an image whose pieces are counted."""

SPECKS, FRAGMENTED = 0.1, 0.05
"""Shares of ids from which on there is a warning."""

FEWEST_IDS = 6
"""Values from which on labels in one piece each are taken for ids of cells without being told."""

WHOLE = 0.9
"""The share of an id's pixels that its largest piece has, if it is one cell."""

ALL_FOREGROUND = 0.95
MARKERS = (255, 65535)
"""Labels by which data sets mark pixels that are not annotated."""

SWAPPED = "are images and labels swapped?"


@dataclass
class LabelChecks:
    """What was seen of the labels of all images so far."""

    differing: dict[str, float] = field(default_factory=dict)
    """By image, how many neighbours of its labels differ."""
    median_px: dict[str, float] = field(default_factory=dict)
    """Where many do, the pixels of a label."""
    image_differing: list[float] = field(default_factory=list)
    ids: int = 0
    pieces: int = 0
    specks: int = 0
    fragmented: int = 0
    scattered: int = 0
    """Ids of which no piece is nearly all."""
    most_pieces: tuple[int, str] = (0, "")
    """Of one id, and where."""
    distant: list[str] = field(default_factory=list)
    """Ids of which two pieces lie farther apart than a cell is wide, and where."""

    def add(self, name: str, image: Array, labels: Array, are_ids: bool) -> None:
        """Look at an image (C, H, W) and its labels (H, W)."""
        if labels.size < SMALLEST_PX:
            return
        self.image_differing.append(min(map(_differing, image)))
        differing = _differing(labels) if np.count_nonzero(labels) >= FEWEST_LABELLED_PX else 0.0
        self.differing[name] = differing
        if differing >= IMAGE:
            self.median_px[name] = float(np.median(np.unique(labels[labels != 0], return_counts=True)[1]))
        if are_ids and differing < NOISE:
            self._add_ids(name, labels)

    def _add_ids(self, name: str, labels: Array) -> None:
        numbered, values = compacted(labels)
        areas = np.bincount(numbered.ravel())[1:]
        self.ids += len(areas)
        self.specks += int((areas < SPECK_PX).sum())
        fragmented = self.fragmented
        for index, box in enumerate(ndimage.find_objects(numbered)[:MOST_IDS], 1):
            parts, _ = ndimage.label(numbered[box] == index, structure=np.ones((3, 3)))
            sizes = np.bincount(parts.ravel())[1:]
            count = max(1, int((sizes >= SPECK_PX).sum()))
            self.scattered += int(sizes.max() < WHOLE * sizes.sum())
            self.pieces += count
            self.fragmented += count > 1
            self.most_pieces = max(self.most_pieces, (count, f"id {values[index]} of '{name}'"))
        if self.fragmented > fragmented:
            distant = measure(torch.from_numpy(labels.astype(np.int64))).distant
            self.distant += [f"id {number} of '{name}'" for number in distant]

    @property
    def swapped(self) -> bool:
        """Whether labels look like images, and images like labels."""
        if not self.differing:
            return False
        return bool(np.median(list(self.differing.values())) >= IMAGE and np.median(self.image_differing) <= LABELS)

    def are_ids(self, values: int) -> bool:
        """Whether labels of so many values can only be ids of cells: nearly each is one piece, of some size."""
        known = values >= FEWEST_IDS and self.ids >= FEWEST_IDS and not self.swapped
        smooth = max(self.differing.values(), default=1.0) < IMAGE
        return known and smooth and max(self.specks, self.scattered) <= FRAGMENTED * self.ids

    def refuse(self, kind: str, values: Sequence[int]) -> None:
        """Raises UserError if labels of these values cannot be those of cells."""
        noisy = {name: share for name, share in self.differing.items() if share >= (IMAGE if self.swapped else NOISE)}
        if kind != "mask" and noisy:
            name, share = max(noisy.items(), key=lambda item: item[1])
            raise UserError(
                f"{share:.0%} of neighbouring pixels of '{name}' have different labels, half of which occur on "
                f"{self.median_px[name]:.0f} pixels or fewer ({len(values):,} labels in all); cells are areas of "
                f"one label: {SWAPPED}"
            )
        if kind == "class" and len(values) > MOST_CLASSES:
            raise UserError(
                f"the labels hold {len(values):,} values; classes are few, ids of cells are --labels instance"
            )
        single = len(values) <= 2
        if kind == "instance" and self.pieces >= max(4, (2 if single else 3) * self.ids):
            most, where = self.most_pieces
            raise UserError(
                f"{where} lies in {most} separate pieces ({self.ids:,} ids in {self.pieces:,} pieces in all), but an "
                "id is one cell; omit --labels if these are masks, or give each connected part an id of its own"
                f"{of_fewer_bits(values[-1], len(values))}"
            )

    def warnings(self, kind: str, values: Sequence[int], foreground: float, ignore: int | None = None) -> Iterator[str]:
        """What may be wrong with labels of these values, and the number that says so."""
        remedy = unannotated(values) if ignore is None else ""
        if kind == "class" and values[-1] >= 2 * len(values):
            classes = f"the largest class index is {values[-1]}, but there are {len(values)} of them"
            yield f"{classes}; are these classes?{remedy}"
        if kind == "mask" and remedy:
            yield f"all labels but 0 are foreground ({', '.join(map(str, values[1:]))}){remedy}"
        if foreground >= ALL_FOREGROUND:
            yield f"{foreground:.1%} of the labelled pixels are foreground; are masks inverted (0 is background)?"
        if foreground == 0:
            yield "no pixel is foreground; are these the right labels?"
        if self.specks > SPECKS * self.ids:
            yield f"{self.specks:,} of {self.ids:,} ids have fewer than {SPECK_PX} pixels; are they cells?"
        if self.fragmented > FRAGMENTED * self.ids:
            most, where = self.most_pieces
            yield (
                f"{self.fragmented:,} of {self.ids:,} ids lie in separate pieces ({where} in {most}); are they cells?"
                f"{of_fewer_bits(values[-1], len(values))}"
            )
        elif self.distant:
            yield (
                f"{len(self.distant):,} of {self.ids:,} ids are shared by cells far apart ({self.distant[0]}), but an "
                "id is one cell; 'check --data' names all"
            )
        if self.image_differing and max(self.image_differing) <= LABELS:
            least = max(self.image_differing)
            yield f"at most {least:.0%} of neighbouring pixels of the images differ, as in labels; {SWAPPED}"


def unannotated(values: Sequence[int]) -> str:
    """A remedy if one of the values, from small to large, may mark pixels that are not annotated; "" otherwise."""
    *classes, last = values
    if values[0] < 0:
        marker = values[0]
    elif last == 255 and classes in ([0, 127], [0, 128]):
        marker = classes[1]
    elif classes == [0, 1] or (last in MARKERS and _is_row(classes)):
        marker = last
    else:
        return ""
    return f"; if {marker} marks pixels that are not annotated, add --ignore {marker}"


def _is_row(classes: Sequence[int]) -> bool:
    """Whether they are several in a row, from 0 or 1 on."""
    return len(classes) > 1 and classes[0] in (0, 1) and list(classes) == list(range(classes[0], classes[-1] + 1))


def _differing(values: Array) -> float:
    """The share of neighbouring pixels with different values, background pairs left out."""
    differing = pairs = 0
    for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
        differing += int(np.count_nonzero(one != other))
        pairs += int(np.count_nonzero((one != 0) | (other != 0)))
    return differing / max(pairs, 1)
