"""Images and the label files that belong to them, by name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from yeastexp.data import tiff_file
from yeastexp.data.hdf5_file import is_plain
from yeastexp.data.images import image_files
from yeastexp.errors import UserError

SHOWN = 5
"""Names in a message before it says how many more there are."""

WORDS = "(masks?|labels?|labell?ed|seg|segmentation|gt|instances?|truth)"
MARKED = re.compile(rf"[ _.-](cp[ _-]?)?{WORDS}$|^{WORDS}[ _.-]|^man_(seg|track)(?=\d)", re.IGNORECASE)
"""What tells the name of a label file from that of its image: Cellpose writes `a_masks`, others `mask_a`."""

SUFFIX = re.compile(r"[ _.-][A-Za-z]+$")
CHANNEL, FRAME = re.compile(r"_0000$"), re.compile(r"^t(?=\d)")
"""What images may have that label files lack: nnU-Net's first channel, the `t` of the Cell Tracking Challenge."""


def paired(images: Sequence[str | Path], labels: Sequence[str | Path]) -> dict[str, tuple[Path, Path]]:
    """Image and label file by the image's name, in natural order. Raises UserError unless all of them are pairs.

    Names are equal, or those of label files have a suffix more. Files in one folder are told apart by that suffix.
    """
    pictures, masks = image_files(images), image_files(labels)
    _refuse_stacks(dict.fromkeys([*pictures, *masks]))
    pictures, masks = _apart(pictures, masks)
    by_name, label_of = _by_stem(pictures), _by_stem(masks)
    label_of = _renamed(by_name, label_of)
    faults = []
    if lonely := [name for name in by_name if name not in label_of]:
        faults.append(f"no label for {listed(lonely)}; give each image a label file of the same name")
    if lonely := [name for name in label_of if name not in by_name]:
        faults.append(
            f"no image for the {'label' if len(lonely) == 1 else 'labels'} {listed(lonely)}; remove or add it"
        )
    if faults:
        raise UserError(*faults)
    for name, picture in by_name.items():
        if picture.exists() and label_of[name].exists() and picture.samefile(label_of[name]):
            raise UserError(f"{picture}: is given as an image and as its label; {REMEDY}")
    return {name: (by_name[name], label_of[name]) for name in by_name}


REMEDY = "put labels into a folder of their own, or give them the image's name and '_masks'"


def _refuse_stacks(paths: Iterable[Path]) -> None:
    """Raises UserError with the files that hold several images, before anything is said of their names or number."""
    faults = [fault for path in paths if (fault := tiff_file.stack_fault(path))]
    if faults:
        more = [f"and {len(faults) - SHOWN} more files like these"] if len(faults) > SHOWN else []
        raise UserError(*faults[:SHOWN], *more)


def _apart(pictures: list[Path], masks: list[Path]) -> tuple[list[Path], list[Path]]:
    """Images and labels without the files that are in both lists but belong to one."""
    both = {_place(path) for path in pictures} & {_place(path) for path in masks}
    if not both:
        return pictures, masks
    rest = (
        [path for path in pictures if _place(path) not in both],
        [path for path in masks if _place(path) not in both],
    )
    if rest[0] and not rest[1]:  # a glob of labels within a folder of all
        return rest[0], masks
    if rest[1] and not rest[0]:
        return pictures, rest[1]
    marked = [path for path in masks if MARKED.search(_stem(path))]
    plain = [path for path in pictures if not MARKED.search(_stem(path))]
    if not marked or not plain:
        names = listed([path.name for path in masks])
        raise UserError(f"the same files are given as images and as labels ({names}); {REMEDY}")
    return plain, marked


def _renamed(images: Mapping[str, Path], labels: dict[str, Path]) -> dict[str, Path]:
    """Label files by the names of their images, if those differ in the same way for all; else by their own names."""
    best, most = labels, len(images.keys() & labels.keys())
    for label_mark, image_mark in itertools.product((None, MARKED, SUFFIX), (None, SUFFIX, CHANNEL, FRAME)):
        image_of, label_of = _by_base(images, image_mark), _by_base(labels, label_mark)
        if len(image_of.keys() & label_of.keys()) > most:
            best = {image_of.get(base, name): labels[name] for base, name in label_of.items()}
            most = len(image_of.keys() & label_of.keys())
    return best


def _by_base(names: Iterable[str], mark: re.Pattern[str] | None) -> dict[str, str]:
    """Names by what they are without a mark; nothing if one has none, or another one than the first."""
    if mark is None:
        return {name: name for name in names}
    found = {name: mark.search(name) for name in names}
    if len({match and match[0] for match in found.values()}) > 1 or None in found.values():
        return {}
    return {mark.sub("", name, count=1): name for name in found}


def _place(path: Path) -> str:
    # Path.resolve raises on a link to itself, which is a fault of that file alone.
    return os.path.realpath(path)


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in paths:
        stem = _stem(path)
        if not is_plain(stem):
            raise UserError(f"{path}: {stem!r} cannot be the name of an image; rename it")
        if stem in by_stem:
            raise UserError(f"{by_stem[stem]} and {path}: have the same name '{stem}'; rename one")
        by_stem[stem] = path
    return by_stem


def listed(names: Sequence[str]) -> str:
    """The first names in quotes, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
