"""Galleries of a page: images with missed pixels and false alarms as vector overlays."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yeastexp.data import images
from yeastexp.drawing import pictures
from yeastexp.drawing.pictures import Labels
from yeastexp.metrics.matching import annotated_cells
from yeastexp.report.html import Gallery, GalleryImage, Overlay
from yeastexp.report.outlines import Mask, cell_outlines, outline
from yeastexp.sample import IGNORE, Sample

LARGEST_SIDE = 720
"""The largest side of an image in pixels, sharp on most screens; larger images are downscaled."""

CATEGORIES = {
    "missed": "missed (blue area)",
    "false": "false alarm (orange area)",
    "confused": "wrong class (purple area)",
    "prediction": "prediction (yellow outline)",
    "ground-truth": "ground truth (white outline)",
    "unlabelled": "unlabelled (crossed out)",
}


@dataclass(frozen=True)
class PredictedImage:
    """An image with its ground truth, its prediction (H, W), its texts, and if the task predicts them, ids of cells."""

    sample: Sample
    prediction: Labels
    heading: str
    note: str
    cells: Labels | None = None


def overlay_gallery(predicted: list[PredictedImage], name: str = "val") -> Gallery:
    """A gallery of images with overlays, with a legend of the categories that occur in them."""
    gallery_images = [_with_overlays(image) for image in predicted]
    present = {overlay.category for image in gallery_images for overlay in image.overlays}
    return Gallery(gallery_images, {key: text for key, text in CATEGORIES.items() if key in present}, name)


def _with_overlays(predicted: PredictedImage) -> GalleryImage:
    grey = pictures.grey_of(predicted.sample.image.numpy())
    if max(grey.shape[:2]) > LARGEST_SIDE:
        grey = pictures.fitted(grey, LARGEST_SIDE)
    truth = pictures.sampled(predicted.sample.labels.numpy(), grey)
    prediction = pictures.sampled(predicted.prediction, grey)
    cells = true_cells = None
    if predicted.cells is not None:
        cells = pictures.sampled(predicted.cells, grey)
        true_cells = pictures.sampled(
            annotated_cells(predicted.sample.maps["instances"], predicted.sample.labels).numpy(), grey
        )
    overlays = {
        "unlabelled": outline(truth == IGNORE),
        **{name: outline(mask) for name, mask in _errors(truth, prediction).items()},
        "ground-truth": cell_outlines(true_cells) if true_cells is not None else _outlines(truth),
        "prediction": cell_outlines(cells) if cells is not None else _outlines(prediction),
    }
    height, width = grey.shape[:2]
    return GalleryImage(
        data_url(grey),
        width,
        height,
        description=_described(predicted),
        heading=predicted.heading,
        note=predicted.note,
        overlays=[Overlay(category, path) for category, path in overlays.items() if path],
    )


def _outlines(labels: Labels) -> str:
    """SVG path data around the regions of each foreground class."""
    return "".join(outline(labels == label) for label in np.unique(labels[labels > 0]).tolist())


def data_url(picture: pictures.Picture) -> str:
    """A data URL of a picture as a JPEG file."""
    return f"data:image/jpeg;base64,{base64.b64encode(pictures.jpeg(picture)).decode('ascii')}"


def _errors(truth: Labels, prediction: Labels) -> dict[str, Mask]:
    """Masks (H, W) of wrong pixels by category: missed foreground, false alarms, and confused foreground classes."""
    wrong = (truth != prediction) & (truth != IGNORE)
    return {
        "missed": wrong & (prediction == 0),
        "false": wrong & (truth == 0),
        "confused": wrong & (truth > 0) & (prediction > 0),
    }


def _described(predicted: PredictedImage) -> str:
    """A sentence on the errors of an image, which screen readers read aloud."""
    truth, prediction = predicted.sample.labels.numpy(), predicted.prediction
    counts = {name: int(mask.sum()) for name, mask in _errors(truth, prediction).items()}
    foreground, positive = int((truth > 0).sum()), int(((prediction > 0) & (truth != IGNORE)).sum())
    height, width = predicted.sample.size
    confused = f", {counts['confused']:,} assigned to another class" if counts["confused"] else ""
    return (
        f"{predicted.sample.name}, {height} × {width} pixels: {counts['missed']:,} of {foreground:,} foreground pixels "
        f"missed{confused}; {counts['false']:,} of {positive:,} predicted pixels are false alarms."
    )


def saved_gallery(folder: Path) -> Gallery | None:
    """A gallery of the PNG files that a run drew when it ended; None if there are none."""
    paths = [folder / f"{rank}.png" for rank in ("worst", "median", "best")]
    saved = [_saved(path) for path in paths if path.is_file()]
    return Gallery(saved) if saved else None


def _saved(path: Path) -> GalleryImage:
    picture = np.ascontiguousarray(images.read_image(path).transpose(1, 2, 0).astype(np.uint8))
    description = (
        f"The {path.stem} image, its ground truth, the prediction, and their difference: "
        "missed pixels in blue, false alarms in orange."
    )
    height, width = picture.shape[:2]
    return GalleryImage(data_url(picture), width, height, description, path.stem, "drawn by the run when it ended")
