"""What every writer of predicted cells is given, and what it is: label images with their measurements, in order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from yeastexp.data.pieces import Size, StoredImage
from yeastexp.errors import UserError
from yeastexp.prediction.cell_table import Table
from yeastexp.system import files

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Labelled:
    """An image whose cells were predicted: where it came from, its table, and what opens it and its labels (1, H, W).

    `name` is that of the tables, `stem` that of its files. Frames of a `stack` have its name and their index. `method`
    says that cells are approximate, if they are.
    """

    name: str
    stem: str
    path: Path
    channels: int
    size: Size
    pixel_um: float | None
    table: Table
    image: Callable[[], StoredImage]
    open: Callable[[], StoredImage]
    stack: str | None = None
    frame: int = 0
    method: str = ""

    @property
    def most(self) -> int:
        """The largest id."""
        return int(self.table["label"].max(initial=0))

    def cells(self) -> Iterator[tuple[int, Array, int, int]]:
        """The id of each cell, its mask (h, w), and the row and column where that begins."""
        table, labels = self.table, self.open()
        boxes = np.stack([table[f"bbox-{side}"] for side in range(4)], axis=1).tolist()
        for label, (top, left, bottom, right) in zip(table["label"].tolist(), boxes, strict=True):
            yield label, labels.read(slice(top, bottom), slice(left, right))[0] == label, top, left

    def measurements(self) -> Iterator[dict[str, Any]]:
        """The row of each cell, without its label."""
        names = [name for name in self.table if name != "label"]
        columns = (self.table[name].tolist() for name in names)
        return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


class Kind(Protocol):
    """A format of cells: what it is called, what is written where, and the package that it needs, if it does."""

    name: str
    title: str
    form: str
    needs: str

    def write(self, images: Sequence[Labelled], output: Path) -> None:
        """Write images into files that appear whole. Raises UserError if the format cannot hold them."""
        ...


def stacks(images: Sequence[Labelled]) -> Iterator[tuple[str, list[Labelled]]]:
    """Images that belong into one file, by the stem of its name: the frames of a stack, or a single image.

    Raises UserError if two files would have one name.
    """
    together: dict[tuple[str, bool], list[Labelled]] = {}
    for image in images:
        together.setdefault((image.stack or image.stem, image.stack is None), []).append(image)
    first: dict[str, Labelled] = {}
    for (name, _), (image, *_) in together.items():
        if (other := first.setdefault(name, image)) is not image:
            raise UserError(
                f"{image.path}: its cells would go into the file of those of {other.path}; predict them apart"
            )
    return ((name, members) for (name, _), members in together.items())


def rows_of(frames: Mapping[int, Labelled], size: Size) -> Callable[[int, slice], Array]:
    """Reads rows (h, W) of the labels of a frame, which are 0 where there is none."""
    opened = functools.lru_cache(1)(lambda frame: frames[frame].open())

    def read(frame: int, rows: slice) -> Array:
        if frame not in frames:
            return np.zeros((rows.stop - rows.start, size[1]), np.uint8)
        return np.asarray(opened(frame).read(rows, slice(0, size[1]))[0])

    return read


@contextmanager
def writing(path: Path, becoming: Callable[[Path], AbstractContextManager[Path]] = files.appearing) -> Iterator[Path]:
    """A temporary path that becomes `path`. Raises UserError if it cannot be written."""
    try:
        with becoming(path) as temporary:
            yield temporary
    except OSError as error:
        raise files.unwritten(path, error) from error
