"""Images and the labels that belong to them, by name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from yeastexp.data import tiff_file
from yeastexp.data.annotations import Annotation
from yeastexp.data.annotations.colours import of_colours, parsed
from yeastexp.data.annotations.layouts import Layout, recognised_layout
from yeastexp.data.hdf5_file import is_plain
from yeastexp.data.images import HOLDERS, image_files, read_image, read_labels, size_of
from yeastexp.data.label_sources import AnnotationFile, Drawn, NoLabels, Source, as_annotation, files_of_labels, path_of
from yeastexp.data.recordings import kinds, tiff
from yeastexp.data.recordings.recording import (
    UNKNOWN,
    Choices,
    Recording,
    StoredArray,
    as_recording,
    of_channels,
    one_image,
)
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_count

Array = npt.NDArray[Any]

SHOWN = 5
"""Names in a message before it says how many more there are."""

WORDS = "(masks?|labels?|labell?ed|seg|segmentation|gt|instances?|truth|simple segmentation|object identities)"
MARKED = re.compile(rf"[ _.-](cp[ _-]?)?{WORDS}$|^{WORDS}[ _.-]|^(man_(seg|track)|mask)(?=\d)", re.IGNORECASE)
"""What tells the name of a label file from that of its image: Cellpose writes `a_masks`, others `mask_a`."""

SUFFIX = re.compile(r"[ _.-][A-Za-z]+$")
CHANNEL, FRAME = re.compile(r"_0000$"), re.compile(r"^t(?=\d)")
"""What images may have that label files lack: nnU-Net's first channel, the `t` of the Cell Tracking Challenge."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with its labels: a frame of each of two recordings."""

    name: str
    image: Recording
    frame: int
    labels: Source
    label_frame: int
    of_group: str | None = None
    split: str | None = None

    @property
    def group(self) -> str | None:
        """The group of the image, such as the stack that it is a frame of."""
        return self.image.array.name if self.image.is_stack else self.of_group

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files of the image and of its labels."""
        return self.image.array.path, path_of(self.labels)


@dataclass(frozen=True)
class Pairs:
    """Pairs by the name of the image, in natural order; `doubtful` are files whose two pages were taken as channels.

    `left_out` is the number of images without labels that were left out.
    """

    by_name: dict[str, Pair]
    doubtful: tuple[str, ...] = ()
    left_out: int = 0
    layout: Layout | None = None
    """How others lay out the folder, if it is laid out so."""


REMEDY = "put labels into a folder of their own, or give them the image's name and '_masks'"

LabelFile = StoredArray | AnnotationFile
Named = TypeVar("Named", StoredArray, LabelFile)

Entry = tuple[Recording, int | None]
"""A recording, or one frame of it that has a label file of its own."""


def paired(
    images: Sequence[str | Path],
    labels: Sequence[str | Path],
    choices: Choices | None = None,
    annotations: str | None = None,
    colours: str | None = None,
    labelled_only: bool = False,
) -> Pairs:
    """Images and labels by name, frame by frame where both are stacks. Raises UserError unless all of them are pairs.

    With `labelled_only` images without labels are left out, but all labels have to have an image. Names are equal, or
    those of label files have a suffix more. Files in one folder are told apart by that suffix. Labels are of the kind
    of `annotations`, if one is named, or painted in `colours`.
    """
    choices = choices or Choices()
    folders = {os.path.realpath(path) for path in (*images, *labels)}
    if len(folders) == 1 and annotations is None and (layout := recognised_layout(Path(images[0]))) is not None:
        pairs = _laid_out(layout)
        kept = {name: pair for name, pair in pairs.items() if not (labelled_only and isinstance(pair.labels, NoLabels))}
        return Pairs(kept, left_out=len(pairs) - len(kept), layout=layout)
    pictures = image_files(images)
    pictures, masks = _apart(pictures, files_of_labels(labels, pictures, annotations))
    arrays = _by_name(pictures, lambda path: kinds.arrays(path, choices))
    _refuse_unclear(arrays.values(), choices)
    label_files: dict[str, LabelFile] = _by_name(
        masks,
        (lambda path: _label_arrays(path, choices, annotations))
        if colours is None
        else (lambda path: [one_image(path, kinds.stem(path), "colours", partial(_painted, parsed(colours)))]),
    )
    if all_of_them := [file for file in label_files.values() if _names_images(file)]:
        return _annotated(arrays, all_of_them, len(label_files), choices, labelled_only)
    label_of = _renamed(arrays, label_files)
    arrays, doubtful = _two_channels(arrays, label_of, choices)
    entries: dict[str, Entry] = {name: (as_recording(array, choices), None) for name, array in arrays.items()}
    if any(recording.is_stack and name not in label_of for name, (recording, _) in entries.items()):
        frames = _by_frame(entries, label_of)
        if (frames.keys() - entries.keys()) & (of_frames := _renamed(frames, label_files)).keys():
            entries, label_of = frames, of_frames
    faults = []
    unlabelled = [name for name in entries if name not in label_of]
    lonely = [name for name in label_of if name not in entries]
    if labelled_only and len(unlabelled) < len(entries):
        entries = {name: entry for name, entry in entries.items() if name in label_of}
    elif unlabelled:
        # Where labels lack images as well, names differ that should not.
        remedy = ", or add --labelled-only" if len(unlabelled) < len(entries) and not lonely else ""
        faults.append(f"no label for {listed(unlabelled)}; give each image a label file of the same name{remedy}")
    if lonely:
        faults.append(
            f"no image for the {'label' if len(lonely) == 1 else 'labels'} {listed(lonely)}; remove or add it"
        )
    if faults:
        raise UserError(*faults)
    pairs = {}
    for name, (recording, frame) in entries.items():
        for pair in _frames(recording, frame, label_of[name]):
            if pair.name in pairs:
                first = pairs[pair.name].image.array.path
                raise UserError(f"{first} and {pair.image.array.path}: have the same name '{pair.name}'; rename one")
            pairs[pair.name] = pair
    return Pairs(pairs, tuple(doubtful), len(unlabelled) if labelled_only else 0)


def _laid_out(layout: Layout) -> dict[str, Pair]:
    """The pairs of a folder in a known layout, including images that are not annotated."""
    pairs: dict[str, Pair] = {}
    for pair in layout.pairs:
        image = of_channels(pair.images, pair.name, layout.title, read_image)
        image = replace(image, channel_names=layout.channel_names)
        labels: Source = NoLabels(image.path)
        if pair.labels is not None:
            labels = Recording(one_image(pair.labels, pair.name, layout.title, read_labels), "")
        if pair.name in pairs:
            raise UserError(
                f"{pairs[pair.name].paths[0]} and {image.path}: have the same name '{pair.name}'; rename one"
            )
        pairs[pair.name] = Pair(pair.name, Recording(image, ""), 0, labels, 0, pair.group, pair.split)
    return pairs


def _painted(colours: Mapping[str, int], path: Path) -> Array:
    """The classes of a mask painted in colours, as an image of one channel (1, H, W)."""
    return np.asarray(of_colours(path, read_image(path), colours).classes)[None]


def _label_arrays(path: Path, choices: Choices, annotations: str | None) -> Sequence[LabelFile]:
    file = as_annotation(path, annotations, choices.label_dataset)
    return kinds.arrays(path, choices, labels=True) if file is None else [file]


def _names_images(file: LabelFile) -> TypeGuard[AnnotationFile]:
    return isinstance(file, AnnotationFile) and file.kind.names_images


def _annotated(
    arrays: Mapping[str, StoredArray],
    files: Sequence[AnnotationFile],
    count: int,
    choices: Choices,
    labelled_only: bool,
) -> Pairs:
    """Pairs of images with annotation files that name many images each."""
    if len(files) < count:
        raise UserError(f"{files[0].path}: names images, but other labels do not; pack them apart")
    frames: dict[str, tuple[Recording, int]] = {}
    for array in arrays.values():
        recording = as_recording(array, choices)
        frames |= {recording.image_name(index): (recording, index) for index in range(recording.frames)}
    sizes = {name: _size(recording) for name, (recording, _) in frames.items()}
    pairs: dict[str, Pair] = {}
    for file in files:
        annotation = file.kind.read(file.path, frames=sizes)
        _refuse_absent(file, annotation)
        for name in annotation.names:
            if name in pairs:
                raise UserError(f"{path_of(pairs[name].labels)} and {file.path}: both annotate '{name}'; omit one")
            pairs[name] = Pair(name, *frames[name], Drawn(file, annotation, name), 0)
    lonely = [name for name in frames if name not in pairs]
    if lonely and not (labelled_only and pairs):
        raise UserError(
            f"{files[0].path}: does not annotate {listed(lonely)}; annotate or remove them, or add --labelled-only"
        )
    return Pairs({name: pairs[name] for name in frames if name in pairs}, left_out=len(lonely))


def _refuse_absent(file: AnnotationFile, annotation: Annotation) -> None:
    """Raises UserError if a file annotates images that are not there."""
    if annotation.absent:
        raise UserError(f"{file.path}: annotates {listed(annotation.absent)}, which are not among the images; add them")


def _size(recording: Recording) -> tuple[int, int]:
    return recording.shape[1:] if recording.axes else size_of(recording.array.path)


def _by_name(paths: Iterable[Path], read: Callable[[Path], Sequence[Named]]) -> dict[str, Named]:
    """What files hold, by name. Raises UserError if a name cannot be that of an image, or two things have it."""
    by_name: dict[str, Named] = {}
    for path in paths:
        for held in read(path):
            name = held.name if isinstance(held, StoredArray) else kinds.stem(path)
            if not is_plain(name):
                raise UserError(f"{path}: {name!r} cannot be the name of an image; rename it")
            if name in by_name:
                raise UserError(f"{by_name[name].path} and {path}: have the same name '{name}'; rename one")
            by_name[name] = held
    return by_name


def _refuse_unclear(arrays: Iterable[StoredArray], choices: Choices) -> None:
    """Raises UserError with the questions of all files, before anything is said of their names or number."""
    faults: list[str] = []
    for array in arrays:
        try:
            if array.unknown != 2 or choices.axes:
                as_recording(array, choices)
        except UserError as error:
            faults += error.faults
    if faults:
        more = [f"and {len(faults) - SHOWN} more files like these"] if len(faults) > SHOWN else []
        raise UserError(*faults[:SHOWN], *more)


def _two_channels(
    arrays: dict[str, StoredArray], label_of: Mapping[str, LabelFile], choices: Choices
) -> tuple[dict[str, StoredArray], list[str]]:
    """Two pages of a file that does not say what they are, but has one label map, as channels of one image."""
    doubtful = [
        name
        for name, array in arrays.items()
        if array.unknown == 2 and not choices.axes and name in label_of and not _stacked(label_of[name])
    ]
    channels = {name: replace(arrays[name], axes=arrays[name].axes.replace(UNKNOWN, "C")) for name in doubtful}
    return arrays | channels, doubtful


def _by_frame(entries: Mapping[str, Entry], label_of: Mapping[str, LabelFile]) -> dict[str, Entry]:
    """The same with each frame by itself of the stacks that have no label, as there may be a file for each frame."""
    apart: dict[str, Entry] = {}
    for name, (recording, frame) in entries.items():
        if name in label_of or not recording.is_stack:
            apart[name] = recording, frame
        else:
            apart |= {recording.image_name(index): (recording, index) for index in range(recording.frames)}
    return apart


def _stacked(array: LabelFile) -> list[int]:
    """The lengths of the axes other than rows and columns."""
    if isinstance(array, AnnotationFile):
        return []
    return [size for axis, size in zip(array.axes, array.shape, strict=True) if axis not in "YX" and size > 1]


def _frames(recording: Recording, frame: int | None, array: LabelFile) -> Iterator[Pair]:
    """An image, or each of a stack, with its labels. Raises UserError if there are not as many."""
    image = recording.array.path
    if isinstance(array, AnnotationFile):
        yield from _drawn(recording, range(recording.frames) if frame is None else [frame], array)
        return
    if image.is_file() and array.path.exists() and image.samefile(array.path):
        raise UserError(f"{image}: is given as an image and as its label; {REMEDY}")
    frames = recording.frames if frame is None else 1
    array = _planes_of(array, frames)
    there = _stacked(array)
    axes = [axis for axis in recording.axes if axis in "TZ" and recording.length(axis) > 1 and frame is None]
    if there == [recording.length(axis) for axis in axes]:
        letters = axes
    elif there == [frames]:
        letters = ["T"]
    elif there or frames > 1:
        sizes = f"{format_count(frames, 'frame')} and {' × '.join(map(str, there)) or '1'}"
        remedy = "give each image its own label"
        if frames == 1 and tiff_file.may_be_a_stack(image):
            remedy = "if the planes of the image, which are tagged as colours, are frames, add --axes TYX"
        raise UserError(f"{image} and {array.path}: differ in frames, {sizes}; {remedy}")
    else:
        letters = []
    if "Z" in letters and recording.z == "max":
        raise UserError(
            f"{array.path}: has labels for each plane in depth, which --z max has none of; give --z middle or a number"
        )
    named, rest = "", iter(letters)
    for axis, size in zip(array.axes, array.shape, strict=True):
        named += axis if axis in "YX" else next(rest) if size > 1 else "1"
    labels = Recording(array, named, recording.z if "Z" in letters else None)
    if frame is not None:
        yield Pair(recording.image_name(frame), recording, frame, labels, 0)
        return
    for index in range(frames):
        yield Pair(recording.image_name(index), recording, index, labels, index)


def _planes_of(array: StoredArray, frames: int) -> StoredArray:
    """Labels of as many frames, if planes that a file tags as the colours of one image are these."""
    if frames == 1 or array.axes or not tiff_file.may_be_a_stack(array.path, of_any_program=True):
        return array
    planes = tiff.arrays(array.path, array.name, True, planes=True)[0]
    return planes if _stacked(planes) == [frames] else array


def _drawn(recording: Recording, frames: Sequence[int], file: AnnotationFile) -> Iterator[Pair]:
    """The frames of a recording as pairs, without labels where a file annotates only some of a stack."""
    names = {recording.image_name(frame): frame for frame in frames}
    annotation = file.kind.read(file.path, frames=dict.fromkeys(names, _size(recording)))
    _refuse_absent(file, annotation)
    lonely = [name for name in names if name not in annotation.names]
    if len(lonely) == len(names):
        raise UserError(f"{file.path}: does not annotate {listed(lonely)}; annotate or remove them")
    for name, frame in names.items():
        labels = Drawn(file, annotation, name) if name in annotation.names else NoLabels(recording.array.path)
        yield Pair(name, recording, frame, labels, 0)


def _apart(pictures: list[Path], masks: list[Path]) -> tuple[list[Path], list[Path]]:
    """Images and labels, each without the files that belong to the other list, if a file is in both."""
    both = {_place(path) for path in pictures} & {_place(path) for path in masks}
    if not both or all(path.suffix.lower() in (*HOLDERS, ".zarr") for path in (*pictures, *masks)):
        return pictures, masks
    rest = (
        [path for path in pictures if _place(path) not in both],
        [path for path in masks if _place(path) not in both],
    )
    if rest[0] and not rest[1]:  # a glob of labels within a folder of all
        return rest[0], masks
    if rest[1] and not rest[0]:
        return pictures, rest[1]
    marked = [path for path in masks if MARKED.search(kinds.stem(path))]
    plain = [path for path in pictures if not MARKED.search(kinds.stem(path))]
    if not marked or not plain:
        names = listed([path.name for path in masks])
        raise UserError(f"the same files are given as images and as labels ({names}); {REMEDY}")
    return plain, marked


def _renamed(images: Iterable[str], labels: dict[str, LabelFile]) -> dict[str, LabelFile]:
    """Labels by the names of their images, if those differ in the same way for all; else by their own names."""
    images = dict.fromkeys(images)
    best, most = labels, len(images.keys() & labels.keys())
    for label_mark, image_mark in itertools.product((None, MARKED, SUFFIX), (None, SUFFIX, CHANNEL, FRAME)):
        image_of, label_of = _by_base(images, image_mark), _by_base(labels, label_mark)
        if len(image_of.keys() & label_of.keys()) > most:
            best = {image_of.get(base, name): labels[name] for base, name in label_of.items()}
            most = len(image_of.keys() & label_of.keys())
    return best


def _by_base(names: Iterable[str], mark: re.Pattern[str] | None) -> dict[str, str]:
    """Names by what is left of them without `mark`; empty unless the same text matches it in all of them."""
    if mark is None:
        return {name: name for name in names}
    found = {name: mark.search(name) for name in names}
    if len({match and match[0] for match in found.values()}) > 1 or None in found.values():
        return {}
    return {mark.sub("", name, count=1): name for name in found}


def _place(path: Path) -> str:
    # Path.resolve raises on a link to itself, which is a fault of that file alone.
    return os.path.realpath(path)


def listed(names: Sequence[str]) -> str:
    """The first names in quotes, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
