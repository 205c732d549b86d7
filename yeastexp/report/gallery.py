"""Pictures of a page: images with what was missed and what was false, outlined above them in strokes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yeastexp.data import images
from yeastexp.drawing import pictures
from yeastexp.drawing.pictures import Labels
from yeastexp.report.html import Gallery, Overlay, Picture
from yeastexp.report.outlines import Mask, path
from yeastexp.sample import IGNORE, Sample

LARGEST_SIDE = 720
"""Pixels of a picture: a sharp one on most screens; larger images are shown smaller."""

LOOKS = {
    "missed": "missed (solid outline)",
    "false": "false alarm (dashed outline, hatched)",
    "confused": "another class (dotted outline)",
    "truth": "truth (thin white line)",
    "unlabelled": "no label (crossed out)",
}


@dataclass(frozen=True)
class Shown:
    """An image as it is stored, what was predicted of it (H, W), and what to say about it."""

    sample: Sample
    prediction: Labels
    heading: str
    note: str


def drawn(every: list[Shown]) -> Gallery:
    """Images with overlays, those that no image has left out."""
    made = [_picture(one) for one in every]
    there = {overlay.look for one in made for overlay in one.overlays}
    return Gallery(made, {look: said for look, said in LOOKS.items() if look in there})


def _picture(one: Shown) -> Picture:
    grey = pictures.grey_of(one.sample.image.numpy())
    if max(grey.shape[:2]) > LARGEST_SIDE:
        grey = pictures.fitted(grey, LARGEST_SIDE)
    truth = pictures.sampled(one.sample.labels.numpy(), grey)
    prediction = pictures.sampled(one.prediction, grey)
    height, width = grey.shape[:2]
    return Picture(
        _address(pictures.jpeg(grey)),
        width,
        height,
        said=_said(one),
        heading=one.heading,
        note=one.note,
        overlays=[Overlay(look, found) for look, found in _overlays(truth, prediction).items() if found],
    )


def _address(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"


def _overlays(truth: Labels, prediction: Labels) -> Mapping[str, str]:
    masks = _wrong(truth, prediction)
    outlines = "".join(path(truth == label) for label in np.unique(truth[truth > 0]).tolist())
    return {
        "truth": outlines,
        "unlabelled": path(truth == IGNORE),
        **{look: path(mask) for look, mask in masks.items()},
    }


def _wrong(truth: Labels, prediction: Labels) -> dict[str, Mask]:
    """Pixels of a class that were taken for background, the other way round, and for another class."""
    wrong = (truth != prediction) & (truth != IGNORE)
    return {
        "missed": wrong & (prediction == 0),
        "false": wrong & (truth == 0),
        "confused": wrong & (truth > 0) & (prediction > 0),
    }


def _said(one: Shown) -> str:
    """What the picture shows, for those who cannot see it."""
    truth, prediction = one.sample.labels.numpy(), one.prediction
    counts = {look: int(mask.sum()) for look, mask in _wrong(truth, prediction).items()}
    true, found = int((truth > 0).sum()), int(((prediction > 0) & (truth != IGNORE)).sum())
    height, width = one.sample.size
    other = f", {counts['confused']:,} taken for another class" if counts["confused"] else ""
    return (
        f"{one.sample.name}, {height} × {width} pixels: of {true:,} foreground pixels {counts['missed']:,} were missed"
        f"{other}; of {found:,} predicted {counts['false']:,} are false."
    )


def kept(folder: Path) -> Gallery | None:
    """The pictures that a run drew itself, where it did."""
    places = [folder / f"{rank}.png" for rank in ("worst", "median", "best")]
    found = [_kept(place) for place in places if place.is_file()]
    return Gallery(found) if found else None


def _kept(place: Path) -> Picture:
    picture = np.ascontiguousarray(images.read_image(place).transpose(1, 2, 0).astype(np.uint8))
    said = f"The {place.stem} image, its truth, the prediction, and where they differ: blue missed, orange false."
    height, width = picture.shape[:2]
    return Picture(_address(pictures.jpeg(picture)), width, height, said, place.stem, "drawn by the run when it ended")
