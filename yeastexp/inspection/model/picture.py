"""A picture of the effective receptive field of a trained model, with sizes to compare it with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from yeastexp.data import images
from yeastexp.drawing import pictures
from yeastexp.drawing.pictures import Colour, Picture
from yeastexp.inspection.model.analysis import EFFECTIVE_SHARE, EffectiveField, Inspection

SIDE = 480
"""The side of a tile in pixels."""
DECADES = 4
"""The powers of ten from black to white."""
BEYOND = 200
"""The grey value outside the image."""

THEORETICAL, PATCH, EFFECTIVE, CELL = (86, 180, 233), (240, 228, 66), (230, 97, 0), (0, 200, 140)

Sides = tuple[int, int, int, int]
"""The numbers of pixels above, left of, below and right of an output's own pixel."""


@dataclass(frozen=True)
class Mark:
    """Squares or a circle drawn about an output's own pixel, and their entry in the legend."""

    colour: Colour
    text: str
    squares: tuple[Sides, ...] = ()
    diameter: float = 0.0


def write_picture(inspection: Inspection, path: Path) -> None:
    """Draw an effective receptive field as a PNG."""
    images.write_png(path, picture(inspection).transpose(2, 0, 1))


def picture(inspection: Inspection) -> Picture:
    """Draw the effective receptive field (H, W, 3): once on a validation image, once its gradient alone."""
    effective = inspection.effective
    assert effective, "with_effective_field comes first"
    marks = list(_marks(inspection, effective))
    radius = max(end for mark in marks for square in mark.squares for end in square) * 21 // 20 + 2
    image, gradient = _image(effective, radius), _gradient(effective, radius)
    tiles = [
        pictures.captioned(_marked(image, marks), f"{effective.example.name}, after the transforms"),
        pictures.captioned(_marked(gradient, marks), "gradient"),
    ]
    method = (
        f"mean |∂ logit / ∂ pixel| of {effective.gradient.positions} outputs in {effective.images} validation images "
        f"(after Luo et al. 2016), best checkpoint, step {effective.step}",
        f"right: the shares of the gradient in logarithmic grey; black is 1/{10**DECADES:,} of the strongest",
    )
    title = pictures.truncated(f"{inspection.subject.name}: effective receptive field", 2 * SIDE, pictures.HEADING_SIZE)
    legend = pictures.legend([(mark.colour, mark.text) for mark in marks])
    heading = pictures.text_block(title, size=pictures.HEADING_SIZE)
    sheet = [heading, pictures.in_a_row(tiles), legend, pictures.text_block(*method)]
    return pictures.bordered(pictures.stacked(sheet))


def _marks(inspection: Inspection, effective: EffectiveField) -> Iterator[Mark]:
    height, width = inspection.survey.output.axes
    if layer := height.global_layer or width.global_layer:
        yield Mark(THEORETICAL, f"theoretical receptive field: the whole image, through {layer}")
    else:
        text = f"theoretical receptive field, exact: up to {height.size}×{width.size} pixels"
        yield Mark(THEORETICAL, text, ((height.before, width.before, height.after, width.after),))
    if patch := inspection.subject.patch_size:
        yield Mark(PATCH, f"training patch: {patch}×{patch}", (_about(patch),))
    most, half = effective.gradient.side(EFFECTIVE_SHARE), effective.gradient.side(0.5)
    text = f"effective: {100 * EFFECTIVE_SHARE:.0f} % of the gradient within {most}×{most}, half within {half}×{half}"
    yield Mark(EFFECTIVE, text, (_about(most), _about(half)))
    if cell := inspection.subject.cell_diameter:
        text = f"cells: {cell:.0f} across, the median of {len(inspection.subject.cell_diameters)}"
        yield Mark(CELL, text, diameter=cell)


def _about(side: int) -> Sides:
    return side // 2, side // 2, (side - 1) // 2, (side - 1) // 2


def _marked(shown: Picture, marks: list[Mark]) -> Picture:
    """An enlarged picture, centred on an output's own pixel, with the marks drawn into it."""
    scale, middle = SIDE / len(shown), len(shown) // 2
    drawn = pictures.fitted(shown, SIDE)
    for mark in marks:
        for above, left, below, right in mark.squares:
            ends = (middle - above, middle - left, middle + below + 1, middle + right + 1)
            top, first, bottom, last = (end * scale for end in ends)
            drawn = pictures.framed(drawn, (top, first, bottom, last), mark.colour)
        if mark.diameter:
            centre = (middle + 0.5) * scale
            drawn = pictures.circled(drawn, (centre, centre), mark.diameter * scale, mark.colour)
    return drawn


def _image(effective: EffectiveField, radius: int) -> Picture:
    """The example image around a pixel deep inside a cell and not far from the middle."""
    labels = effective.example.labels.numpy()
    distances = [np.abs(np.arange(length) - length // 2) for length in labels.shape]
    # Padded, as a cell that the border cuts would else be deepest at the border.
    depth = ndimage.distance_transform_edt(np.pad(labels > 0, 1))[1:-1, 1:-1]
    row, column = np.unravel_index((depth - np.maximum.outer(*distances) / 8).argmax(), labels.shape)
    return _around(pictures.grey_of(effective.example.image.numpy()), (int(row), int(column)), radius, BEYOND)


def _gradient(effective: EffectiveField, radius: int) -> Picture:
    """The gradient in grey, on a logarithmic scale."""
    density: npt.NDArray[np.float64] = effective.gradient.density
    levels = 1 + np.log10(np.maximum(density / density.max(), 10.0**-DECADES)) / DECADES
    grey = np.rint(255 * levels).astype(np.uint8)[..., None].repeat(3, axis=2)
    return _around(grey, (len(density) // 2, len(density) // 2), radius, beyond=0)


def _around(shown: Picture, place: tuple[int, int], radius: int, beyond: int) -> Picture:
    """The pixels within a radius of a place, with the grey value `beyond` outside the image."""
    padded = np.pad(shown, ((radius, radius), (radius, radius), (0, 0)), constant_values=beyond)
    return padded[place[0] : place[0] + 2 * radius + 1, place[1] : place[1] + 2 * radius + 1]
