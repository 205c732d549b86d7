"""Where the labels of an image come from: a label image or a frame of a stack of them, or a file of annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.data.annotations import KINDS, SUFFIXES, Annotation, Hdf5Labels, Kind, recognised, told
from yeastexp.data.images import SUFFIXES as PICTURES
from yeastexp.data.images import image_files
from yeastexp.data.recordings.recording import Reading, Recording
from yeastexp.errors import UserError

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A file of annotations, to be read once the images are known."""

    path: Path
    kind: Kind


@dataclass(frozen=True, slots=True)
class Drawn:
    """The labels of one image in a file of annotations."""

    file: AnnotationFile
    annotation: Annotation
    name: str


@dataclass(frozen=True, slots=True)
class NoLabels:
    """Stands for the labels of an image that nobody annotated."""

    path: Path


Source = Recording | Drawn | NoLabels
"""What has the labels of an image; of a recording one frame."""


def files_of_labels(paths: Sequence[str | Path], pictures: Sequence[Path], kind: str | None) -> list[Path]:
    """The label files that paths lead to: label images; annotations if there is none beside `pictures`."""
    files = image_files(paths, (*PICTURES, *SUFFIXES))
    given, known = set(map(Path, paths)), set(pictures)
    plain = [path for path in files if path.suffix.lower() in PICTURES or path in given]
    if kind is None and any(path not in known for path in plain):
        return plain
    rest = [path for path in files if path not in known]
    wanted = KINDS[kind].suffixes if kind else SUFFIXES
    return [path for path in rest if path in given or path.suffix.lower() in wanted] or plain or files


def as_annotation(path: Path, forced: str | None, dataset: str | None = None) -> AnnotationFile | None:
    """A file of annotations; None if it is a label image. Raises UserError if it is of a kind that is not read."""
    name = forced or (recognised(path) if path.is_file() else None)
    if name == Hdf5Labels.name:
        return AnnotationFile(path, Hdf5Labels(dataset=dataset))
    return AnnotationFile(path, KINDS[name]) if name else None


@dataclass
class LabelReading:
    """Reads labels (H, W) of many sources, and counts what was odd about outlines."""

    classes: bool = False
    """Whether classes are wanted of annotations that have them, not ids."""
    class_names: tuple[str, ...] = ()
    """The classes of all files together: each file numbers its own in its own order."""
    counts: Counter[str] = field(default_factory=Counter)
    _reading: Reading = field(default_factory=Reading)

    def read(self, source: Recording | Drawn, frame: int) -> Array:
        """The labels of a frame of a recording, or of what was drawn on an image."""
        if isinstance(source, Recording):
            return np.asarray(self._reading.read(source, frame)[0])
        labels = source.annotation.labels(source.name)
        self.counts.update(labels.counts)
        values = self._renumbered(source.annotation, labels.classes) if self.classes else labels.instances
        values = labels.values if values is None else values
        if values is None:
            held, other = ("no classes", "instance") if self.classes else ("classes alone", "class")
            raise UserError(f"{source.file.path}: has {held}; give --labels {other}")
        return np.asarray(values)

    def _renumbered(self, annotation: Annotation, classes: Array | None) -> Array | None:
        """The indices of a file's classes (H, W) as those of `class_names`."""
        names = annotation.class_names
        if classes is None or names == self.class_names or not set(names) <= set(self.class_names):
            return classes
        return np.array([self.class_names.index(name) for name in names], classes.dtype)[classes]

    def told(self) -> list[str]:
        """Lines about what was odd about the outlines read so far."""
        return told(self.counts)

    def close(self) -> None:
        """Close the file that is open."""
        self._reading.close()


def path_of(source: Source) -> Path:
    """The file that labels are in; that of the image if it has none."""
    if isinstance(source, NoLabels):
        return source.path
    return source.array.path if isinstance(source, Recording) else source.file.path


def title_of(source: Source) -> str:
    """A short description of the file that labels are in."""
    if isinstance(source, NoLabels):
        return "not annotated"
    return source.array.kind if isinstance(source, Recording) else source.file.kind.title


def has_ids(source: Drawn) -> bool:
    """Whether what was drawn are cells, each with an id."""
    return source.annotation.labels(source.name).instances is not None
