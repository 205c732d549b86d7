"""Which kind of file something is, by its content, and the arrays in it."""

from __future__ import annotations

from pathlib import Path

from yeastexp.data import hdf5_file, images, tiff_file
from yeastexp.data.recordings import hdf5, microscopes, ome_zarr, tiff
from yeastexp.data.recordings.recording import Choices, StoredArray, one_image
from yeastexp.data.tiff_file import BEGINNINGS
from yeastexp.errors import UserError

BEGINS = {images.PNG: "PNG", images.JPEG: "JPEG", images.BMP: "BMP"} | dict.fromkeys(BEGINNINGS, "TIFF")
BEGINS |= dict.fromkeys(microscopes.ND2_BEGINS, "ND2") | {microscopes.LIF_BEGINS: "LIF", hdf5_file.BEGINNING: "HDF5"}
"""What files of a kind begin with; a file of another kind is refused when it is read."""

OF_IMAGES = ("HDF5", "ND2", "LIF")


def arrays(path: Path, choices: Choices, *, labels: bool = False) -> list[StoredArray]:
    """The arrays of a file, as images or as labels. Raises UserError if it is known to hold none."""
    kind, name = _kind(path), stem(path)
    if path.is_file() and _head(path) == b"":
        raise UserError(f"{path}: is empty; copy or save it again")
    if kind == "TIFF":
        return tiff.arrays(path, name, labels, planes=choices.axes is not None)
    if kind == "OME-Zarr":
        return ome_zarr.arrays(path, name, labels)
    if kind in OF_IMAGES and labels:
        raise UserError(f"{path}: is {kind}, which is not read as labels; export them as TIFF")
    if kind == "HDF5":
        return hdf5.arrays(path, name, choices.dataset)
    if kind == "ND2":
        return microscopes.nd2_arrays(path, name)
    if kind == "LIF":
        return microscopes.lif_arrays(path, name)
    if path.suffix.lower() in images.OTHER_FORMATS and path.is_file():
        raise UserError(f"{path}: is {path.suffix.lower()}, which is not read; {images.CONVERT}")
    return [one_image(path, name, kind, images.read_labels if labels else images.read_image)]


def holds_several(path: Path, choices: Choices) -> bool:
    """Whether a file holds what is read image by image, not at once: a stack, or a file of a microscope."""
    if _kind(path) in ("OME-Zarr", "ND2", "LIF") or tiff_file.stack_fault(path) is not None:
        return True
    return choices.axes is not None and tiff_file.may_be_a_stack(path, of_any_program=True)


def stem(path: Path) -> str:
    """The name that images of a file are given."""
    return path.stem.removesuffix(".ome")


def _kind(path: Path) -> str:
    if images.is_zarr(path):
        return "OME-Zarr"
    if not path.is_file():
        return ""
    head = _head(path) or b""
    return next((kind for beginning, kind in BEGINS.items() if head.startswith(beginning)), "")


def _head(path: Path) -> bytes | None:
    """The first bytes of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return None
