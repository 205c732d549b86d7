"""What a first pass over images with their labels tells: kinds, values and forms, before any is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from yeastexp.data.hdf5_file import Form
from yeastexp.data.label_checks import SWAPPED, LabelChecks, unannotated
from yeastexp.data.pairs import SHOWN, Pair
from yeastexp.errors import UserError
from yeastexp.sample import IGNORE
from yeastexp.system.formatting import format_count

Array = npt.NDArray[Any]
Kind = Literal["auto", "mask", "class", "instance"]
KINDS = ("auto", "mask", "class", "instance")


@dataclass
class Survey:
    """What a first pass over all pairs gives, in memory that does not grow with their pixels."""

    ignore: int | None
    kind: Kind
    keeps_lines: bool = False
    """Whether ranges and cells of each image are wanted."""
    checks: LabelChecks = field(default_factory=LabelChecks)
    ignored: int = 0
    raw: dict[str, Form] = field(default_factory=dict)
    image_digests: dict[str, str] = field(default_factory=dict)
    mask_digests: dict[str, str] = field(default_factory=dict)
    values: set[int] = field(default_factory=set)
    foreground: int = 0
    pixels: int = 0
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)
    """By image, the connected regions of a mask, the classes, or the cells."""
    most: dict[str, int] = field(default_factory=dict)
    """The largest value of each further map."""

    def add(self, pair: Pair, raw: Array, labels: Array) -> None:
        """Look at an image (C, H, W) and its labels (H, W)."""
        name, (image, mask) = pair.name, pair.paths
        if raw.shape[1:] != labels.shape:
            sizes = " and ".join(f"{height} × {width}" for height, width in (raw.shape[1:], labels.shape))
            raise UserError(f"{image} and {mask}: differ in size, {sizes} pixels; give each image its own label file")
        if len(raw) == 1 and np.array_equal(raw[0], labels) and len(np.unique(labels)) > 2:
            raise UserError(f"{image} and {mask}: hold the same values; give each image its own label file")
        for first, (shape, _) in self.raw.items():
            if shape[0] != len(raw):
                raise UserError(
                    f"{image}: has {format_count(len(raw), 'channel')}, but '{first}' has {shape[0]}; pack them apart"
                )
            break
        self.raw[name] = (raw.shape, raw.dtype)
        if self.keeps_lines:
            self.ranges[name] = float(raw.min()), float(raw.max())
        self.image_digests[name] = _digest(raw)
        self.mask_digests[name] = _digest(labels)
        known = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        self.foreground += int(np.count_nonzero(labels[known] > 0))
        self.pixels += int(np.count_nonzero(known))
        self.ignored += int(np.count_nonzero(~known))
        values = np.unique(labels[known])
        self.values |= set(values.tolist())
        if self.keeps_lines:
            is_mask = self.kind in ("auto", "mask") and len(values) <= 2
            self.cells[name] = ndimage.label((labels > 0) & known)[1] if is_mask else int((values > 0).sum())
        are_ids = self.kind == "instance" or (self.kind == "auto" and len(values) > 3)
        if values.size:
            self.checks.add(name, raw, np.where(known, labels, 0), are_ids)

    def add_map(self, key: str, pair: Pair, labels: Array) -> None:
        """Look at further labels (H, W) of an image that was added."""
        if labels.shape != self.raw[pair.name][0][1:]:
            raise UserError(f"{pair.paths[1]}: differs in size from its image {pair.paths[0]}; give each its own label")
        if labels.min() < 0:
            raise UserError(f"{pair.paths[1]}: holds negative labels; --map {key} takes masks or ids of cells")
        self.most[key] = max(self.most.get(key, 0), int(labels.max()))

    def warnings(self, kind: Kind) -> Iterator[str]:
        """What may be wrong with the labels."""
        return self.checks.warnings(kind, sorted(self.values), self.foreground / max(self.pixels, 1), self.ignore)

    def recognised(self) -> Kind:
        """The kind of the labels, guessed if it is not given. Raises UserError if it is not clear, or does not fit."""
        if self.ignore is not None and not self.ignored:
            there = _few(sorted(self.values))
            raise UserError(f"--ignore {self.ignore}: no pixel has this label (there are {there}); omit it")
        if not self.values:
            raise UserError("no pixel is labelled; annotate the images, or omit --ignore")
        kind = self._kind()
        self.checks.refuse(kind, sorted(self.values))
        return kind

    def _kind(self) -> Kind:
        kind, values = self.kind, sorted(self.values)
        if kind == "auto" and (self.values <= {0, 1} or self.values <= {0, 255}):
            return "mask"
        if kind == "auto" and self.checks.are_ids(len(self.values)):
            kind = "instance"
        if kind == "auto":
            many = len(values) > 3 and (values[0], values[-1]) == (0, 255)
            smooth = "; masks with smooth edges have to be saved without" if many else ""
            if self.ignore is None:
                smooth = unannotated(values) or smooth
            smooth += f"; {SWAPPED}" if self.checks.swapped else ""
            raise UserError(
                f"the labels hold {_few(values)}, neither 0 and 1 nor 0 and 255; "
                f"say what they are: --labels class (class indices) or --labels instance (ids of cells){smooth}"
            )
        if values[0] < (-1 if kind == "class" else 0):
            raise UserError(
                f"the labels hold {_few(values)}; {kind} labels are not negative{unannotated(values)}; if it is "
                "background, save it as 0"
            )
        return kind


def _digest(values: Array) -> str:
    """The SHA-256 of the values; the same for a picture saved with 8 and with 16 bit."""
    wide = values.astype("<i8" if values.dtype.kind in "ui" else "<f8")
    return hashlib.sha256(repr(values.shape).encode() + wide.tobytes()).hexdigest()


def _few(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:SHOWN]))
    return f"{shown}, … {values[-1]}" if len(values) > SHOWN else shown


def converter(kind: Kind, survey: Survey) -> Callable[[Array], dict[str, Array]]:
    """From labels as they were recorded to the label maps that are stored, all of one type."""
    low, high = min(survey.values), max(survey.values)
    low = low if survey.ignore is None or kind == "instance" else min(low, IGNORE)
    dtype = np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)) if low < 0 else np.min_scalar_type(high)

    def convert(labels: Array) -> dict[str, Array]:
        unknown = np.zeros(labels.shape, bool) if survey.ignore is None else labels == survey.ignore
        if kind == "class":
            return {"gt": np.where(unknown, IGNORE, labels.astype(np.int64)).astype(dtype)}
        mask = (labels > 0).astype(np.uint8)
        gt = mask if survey.ignore is None else np.where(unknown, IGNORE, mask.astype(np.int8))
        return {"gt": gt, "instances": np.where(unknown, 0, labels).astype(dtype)} if kind == "instance" else {"gt": gt}

    return convert
