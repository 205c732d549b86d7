"""Which kind of file something is, by its content, and the arrays in it."""

from __future__ import annotations

from pathlib import Path

from yeastexp.data import images
from yeastexp.data.recordings import tiff
from yeastexp.data.recordings.recording import Choices, StoredArray, one_image
from yeastexp.data.tiff_file import BEGINNINGS

BEGINS = {images.PNG: "PNG", images.JPEG: "JPEG", images.BMP: "BMP"} | dict.fromkeys(BEGINNINGS, "TIFF")
"""What files of a kind begin with; a file of another kind is refused when it is read."""


def arrays(path: Path, choices: Choices, *, labels: bool = False) -> list[StoredArray]:
    """The arrays of a file, as images or as labels. Raises UserError if it is known to hold none."""
    kind, name = _kind(path), stem(path)
    if kind == "TIFF":
        return tiff.arrays(path, name, labels)
    return [one_image(path, name, kind, images.read_labels if labels else images.read_image)]


def stem(path: Path) -> str:
    """What the images of a file are called."""
    return path.stem.removesuffix(".ome")


def _kind(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return ""
    return next((kind for beginning, kind in BEGINS.items() if head.startswith(beginning)), "")
