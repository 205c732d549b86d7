"""The contract of writers of predicted cells, and the labelled images that they are given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from yeastexp.data.pieces import Size, StoredImage
from yeastexp.errors import UserError
from yeastexp.prediction.cell_table import Table
from yeastexp.system import files

Array = npt.NDArray[Any]


class Named(Protocol):
    """What the files of an image are named by, whether it is predicted or still to be."""

    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def stack(self) -> str | None: ...
    @property
    def frame(self) -> int: ...


NamedT = TypeVar("NamedT", bound=Named)


@dataclass(frozen=True)
class Labelled:
    """An image whose cells were predicted, with their table; `image` opens it and `open` its labels (1, H, W).

    `name` is its name in tables, `stem` that of its files. Frames of a `stack` have its name and their index. Of a file
    with several `planes` in depth it is the `plane` of an index, or their maximum (None). `method` says that cells are
    approximate, if they are.
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
    planes: int = 1
    plane: int | None = 0
    method: str = ""

    @property
    def most(self) -> int:
        """The largest id."""
        return int(self.table["label"].max(initial=0))

    def cells(self) -> Iterator[tuple[int, Array, int, int]]:
        """Yield the id of each cell, its mask (h, w), and the row and column where the mask begins."""
        table, labels = self.table, self.open()
        boxes = np.stack([table[f"bbox-{side}"] for side in range(4)], axis=1).tolist()
        for label, (top, left, bottom, right) in zip(table["label"].tolist(), boxes, strict=True):
            yield label, labels.read(slice(top, bottom), slice(left, right))[0] == label, top, left

    def measurements(self) -> Iterator[dict[str, Any]]:
        """Yield the measurements of each cell by name, without its label."""
        names = [name for name in self.table if name != "label"]
        columns = (self.table[name].tolist() for name in names)
        return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


class Kind(Protocol):
    """A format of cells, written by `predict --as NAME`."""

    name: str
    title: str
    """The name that messages say."""
    form: str
    """The path of its files in the output folder, with placeholders."""
    needs: str
    """The package that it needs; empty if none."""

    def targets(self, images: Sequence[NamedT], output: Path) -> Mapping[Path, Sequence[NamedT]]:
        """Return what `write` writes in an output folder, files or folders that are replaced, and the images of each.

        Raises UserError if two of them would have one name.
        """
        ...

    def write(self, images: Sequence[Labelled], output: Path, asked: Sequence[Named]) -> None:
        """Write images into files, each of which appears only when it is whole.

        All that were `asked` for, those that could not be predicted among them, are for numbers that count images.
        Raises UserError if the format cannot hold the images, or a file cannot be written.
        """
        ...


def stacks(images: Sequence[NamedT]) -> Iterator[tuple[str, list[NamedT]]]:
    """Yield the images of each file, by the stem of its name: the frames of a stack, or a single image.

    Raises UserError if two files would have one name.
    """
    # The second part of a key keeps a single image apart from a stack of its name, which the check below refuses.
    together: dict[tuple[str, bool], list[NamedT]] = {}
    for image in images:
        together.setdefault((image.stack or image.stem, image.stack is None), []).append(image)
    first: dict[str, NamedT] = {}
    for (name, _), (image, *_) in together.items():
        if (other := first.setdefault(name, image)) is not image:
            raise UserError(
                f"{image.path}: its cells would go into the file of those of {other.path}; predict them apart"
            )
    return ((name, members) for (name, _), members in together.items())


def rows_of(frames: Mapping[int, Labelled], size: Size) -> Callable[[int, slice], Array]:
    """Return a function that reads rows (h, W) of the labels of a frame; frames that are missing are 0 everywhere."""
    # Rows are asked for frame after frame, so one open file suffices.
    opened = functools.lru_cache(1)(lambda frame: frames[frame].open())

    def read(frame: int, rows: slice) -> Array:
        if frame not in frames:
            return np.zeros((rows.stop - rows.start, size[1]), np.uint8)
        return np.asarray(opened(frame).read(rows, slice(0, size[1]))[0])

    return read


@contextmanager
def writing(path: Path, becoming: Callable[[Path], AbstractContextManager[Path]] = files.appearing) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` at the end; raises UserError if it cannot be written."""
    try:
        with becoming(path) as temporary:
            yield temporary
    except OSError as error:
        raise files.unwritten(path, error) from error
