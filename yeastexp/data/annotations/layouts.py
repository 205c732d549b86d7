"""Folders of images with their labels as others lay them out: nnU-Net, Cell Tracking Challenge, StarDist, YeaZ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from yeastexp.data.annotations import json_file
from yeastexp.data.annotations.json_file import Node
from yeastexp.data.images import LOSSY, without_previews
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_count

PICTURES = (".png", ".tif", ".tiff", ".bmp")
LABELLED = re.compile(r"[ _.-](cp[ _-]?)?(masks?|labels?|seg|gt)$", re.IGNORECASE)
SEQUENCE, FRAME = re.compile(r"\d{2,}"), re.compile(r"t(\d{3,})\.tiff?")
MISSING_SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """An image by its name, in a file or in one a channel, and its labels; None where it is not annotated."""

    name: str
    images: tuple[Path, ...]
    labels: Path | None
    group: str | None = None
    split: str | None = None
    """Train, val or test, if the folder says it."""


@dataclass(frozen=True)
class Layout:
    """What a folder holds. `labels` says what they are: 'class' or 'instance', None if the layout does not say."""

    title: str
    pairs: tuple[Pair, ...]
    labels: str | None = None
    class_names: tuple[str, ...] = ()
    channel_names: tuple[str, ...] = ()
    ignore: int | None = None
    notes: tuple[str, ...] = ()


def recognised_layout(folder: Path) -> Layout | None:
    """The layout of a folder, or None if it is none of these. Raises UserError if the layout lacks files."""
    if not folder.is_dir():
        return None
    layouts: tuple[Callable[[Path], Layout | None], ...] = (_nnunet, _tracking_challenge, _image_and_mask_folders)
    return next((layout for read in layouts if (layout := read(folder)) is not None), None)


def _nnunet(folder: Path) -> Layout | None:
    """nnU-Net's second version: `imagesTr/CASE_0000.png` for each channel, `labelsTr/CASE.png`, `dataset.json`."""
    if not ((folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir()):
        return None
    path = folder / "dataset.json"
    file = Node(path, json_file.load(path))
    names = file["channel_names"] if file.get("channel_names") else file["modality"]
    channels = [names[str(index)].text for index in range(len(names.keys_in_order()))]
    classes, ignore = _classes_of_nnunet(file["labels"])
    ending = file["file_ending"].text
    if ending.lower() not in PICTURES:
        raise file["file_ending"].fault(f"is {ending!r}, which is not read", "convert images and labels to TIFF")
    labels = {case.name.removesuffix(ending): case for case in _files(folder / "labelsTr", ending)}
    images: dict[str, dict[int, Path]] = {}
    for image in _files(folder / "imagesTr", ending):
        if (match := re.fullmatch(r"(.+)_(\d{4})", image.name.removesuffix(ending))) is None:
            raise UserError(
                f"{image}: has no channel in its name; call it {image.name.removesuffix(ending)}_0000{ending}"
            )
        images.setdefault(match[1], {})[int(match[2])] = image
    pairs = []
    for case, files in images.items():
        if sorted(files) != list(range(len(channels))):
            there = ", ".join(f"{channel:04}" for channel in sorted(files))
            raise UserError(
                f"{folder / 'imagesTr'}: '{case}' has the channels {there}, but dataset.json names "
                f"{format_count(len(channels), 'channel')}; add or remove files"
            )
        pairs.append(Pair(case, tuple(files[channel] for channel in sorted(files)), labels.get(case), split="train"))
    _refuse_lonely(folder, [pair.name for pair in pairs if pair.labels is None], sorted(labels.keys() - images.keys()))
    if (count := file.get("numTraining")) and count.whole != len(pairs):
        raise count.fault(f"is {count.whole}, but there {_are(len(pairs), 'image')}", "add what is missing, or fix it")
    return Layout("nnU-Net", tuple(pairs), "class", tuple(classes), tuple(channels), ignore)


def _classes_of_nnunet(node: Node) -> tuple[list[str], int | None]:
    """The names of the classes from 0 on, and the label of pixels that are not annotated."""
    numbers: dict[int, str] = {}
    ignore = None
    for name in node.keys_in_order():
        if isinstance(node[name].value, list):
            raise node[name].fault("is a region of several labels, which is not read", "give each label a name")
        if name == "ignore":
            ignore = node[name].whole
        else:
            numbers[node[name].whole] = name
    if sorted(numbers) != list(range(len(numbers))):
        raise node.fault(f"has the values {sorted(numbers)}, which do not count from 0 on", "number them 0, 1, 2, …")
    return [numbers[number] for number in sorted(numbers)], ignore


def _tracking_challenge(folder: Path) -> Layout | None:
    """The Cell Tracking Challenge: `01/t000.tif`, `01_GT/SEG/man_seg000.tif`, or `01_GT/TRA/man_track000.tif`."""
    sequences = {
        path: _truth(path) for path in sorted(folder.iterdir()) if path.is_dir() and SEQUENCE.fullmatch(path.name)
    }
    pairs: list[Pair] = []
    notes: list[str] = []
    for sequence, place in sequences.items():
        if place is None:
            continue
        truth, mark = place
        frames = {match[1]: path for path in sorted(sequence.iterdir()) if (match := FRAME.fullmatch(path.name))}
        labels = {
            match[1]: path
            for path in sorted(truth.iterdir())
            if (match := re.fullmatch(mark + r"(\d{3,})\.tiff?", path.name))
        }
        if lonely := sorted(labels.keys() - frames.keys()):
            raise UserError(f"{labels[lonely[0]]}: has no frame 't{lonely[0]}.tif' in {sequence}; add or remove it")
        if not labels:
            raise UserError(f"{truth}: has no '{mark}000.tif' of a frame; volumes are not read; name images and labels")
        name = sequence.name
        pairs += [Pair(f"{name}_t{at}", (path,), labels.get(at), group=name) for at, path in frames.items()]
        if truth.name == "TRA":
            notes.append(f"{name}: labels are the markers of tracks, which may be smaller than cells")
        elif truth.name == f"{name}_RES":
            notes.append(f"{name}: labels are results of a program, not ground truth")
        if len(labels) < len(frames):
            notes.append(f"{name}: {len(labels):,} of {format_count(len(frames), 'frame')} have labels")
    notes += [f"{path.name}: left out, for it has no labels" for path, place in sequences.items() if place is None]
    return Layout("Cell Tracking Challenge", tuple(pairs), "instance", notes=tuple(notes)) if pairs else None


def _truth(sequence: Path) -> tuple[Path, str] | None:
    """Where labels of a sequence lie, and how names begin: outlines by people, by computers, tracks, or results."""
    places = (("GT", "SEG", "man_seg"), ("ST", "SEG", "man_seg"), ("GT", "TRA", "man_track"), ("RES", "", "mask"))
    for suffix, kind, mark in places:
        if (truth := sequence.with_name(f"{sequence.name}_{suffix}") / kind).is_dir() and any(truth.iterdir()):
            return truth, mark
    return None


def _image_and_mask_folders(folder: Path) -> Layout | None:
    """StarDist's and YeaZ's `images/` and `masks/`, or folders of splits that hold them; labels are ids of cells."""
    whole = _folders(folder)
    parts = {None: whole} if whole else {name: _folders(folder / name) for name in ("train", "val", "test")}
    pairs = [pair for split, folders in parts.items() if folders for pair in _in_folders(*folders, split)]
    if len({pair.name for pair in pairs}) < len(pairs):
        pairs = [replace(pair, name=f"{pair.split}_{pair.name}") for pair in pairs]  # each folder counts from 0
    return Layout("images and masks", tuple(pairs)) if pairs else None


def _folders(folder: Path) -> tuple[Path, Path] | None:
    if not (images := folder / "images").is_dir():
        return None
    labels = next((folder / name for name in ("masks", "labels") if (folder / name).is_dir()), None)
    return None if labels is None else (images, labels)


def _in_folders(images: Path, masks: Path, split: str | None) -> Iterator[Pair]:
    labels: dict[str, Path] = {}
    for path in _files(masks, *PICTURES):
        if (name := LABELLED.sub("", _stem(path))) in labels:
            raise UserError(f"{labels[name]} and {path}: are labels of one image; remove one")
        labels[name] = path
    pictures: dict[str, Path] = {}
    for path in without_previews(_files(images, *PICTURES, *LOSSY)):
        if (name := _stem(path)) in pictures:
            raise UserError(f"{pictures[name]} and {path}: have the same name '{name}'; rename one")
        pictures[name] = path
    _refuse_lonely(images.parent, sorted(pictures.keys() - labels.keys()), sorted(labels.keys() - pictures.keys()))
    for name, path in pictures.items():
        yield Pair(name, (path,), labels[name], split=split)


def _refuse_lonely(folder: Path, images: list[str], labels: list[str]) -> None:
    """Raises UserError with images that have no labels, or labels that have no image."""
    for names, what in ((images, "no labels for the images"), (labels, "no images for the labels")):
        if names:
            more = f" and {len(names) - MISSING_SHOWN:,} more" if len(names) > MISSING_SHOWN else ""
            shown = ", ".join(map(repr, names[:MISSING_SHOWN]))
            raise UserError(f"{folder}: has {what} {shown}{more}; add or remove them")


def _are(number: int, noun: str) -> str:
    return f"{'is' if number == 1 else 'are'} {format_count(number, noun)}"


def _files(folder: Path, *endings: str) -> list[Path]:
    """Those with these endings, hidden ones left out, sorted by name. Raises UserError if there is no such folder."""
    try:
        files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(tuple(map(str.lower, endings))))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check the folder") from None
    return [path for path in files if not path.name.startswith(".")]


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")
