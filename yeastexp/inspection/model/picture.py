"""A picture of where the outputs of a trained model look, beside all that it is to be compared with."""

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
from yeastexp.inspection.model.analysis import MOST, Effective, Inspection

SIDE = 480
"""Pixels of a tile."""
DECADES = 4
"""Powers of ten from black to white."""
BEYOND = 200
"""Grey of what lies outside the image."""

THEORETICAL, WINDOW, EFFECTIVE, CELL = (86, 180, 233), (240, 228, 66), (230, 97, 0), (0, 200, 140)

Reach = tuple[int, int, int, int]
"""Pixels above, left, below and right of an output's own."""


@dataclass(frozen=True)
class Mark:
    """What is drawn about an output's own pixel, and what is said of it."""

    colour: Colour
    said: str
    squares: tuple[Reach, ...] = ()
    diameter: float = 0.0


def write_picture(found: Inspection, path: Path) -> None:
    """Draw an effective receptive field as a PNG."""
    images.write_png(path, picture(found).transpose(2, 0, 1))


def picture(found: Inspection) -> Picture:
    """The effective receptive field (H, W, 3): about a pixel of a validation image, and by itself."""
    assert found.effective, "with_effective_field comes first"
    marks = list(_marks(found, found.effective))
    radius = max(end for mark in marks for square in mark.squares for end in square) * 21 // 20 + 2
    image, gradient = _image(found.effective, radius), _gradient(found.effective, radius)
    tiles = [
        pictures.captioned(_marked(image, marks), f"{found.effective.example.name}, as the model sees it"),
        pictures.captioned(_marked(gradient, marks), "where the gradient lies"),
    ]
    spread = found.effective.spread
    method = (
        f"mean |∂ logit / ∂ pixel| of {spread.positions} outputs in {found.effective.images} validation images "
        f"(after Luo et al. 2016), best checkpoint, step {found.effective.step}",
        f"right: the shares of the gradient in logarithmic grey; black is 1/{10**DECADES:,} of the strongest",
    )
    title = pictures.truncated(f"{found.subject.name}: where an output looks", 2 * SIDE, pictures.HEADING_SIZE)
    legend = pictures.legend([(mark.colour, mark.said) for mark in marks])
    heading = pictures.text_block(title, size=pictures.HEADING_SIZE)
    sheet = [heading, pictures.in_a_row(tiles), legend, pictures.text_block(*method)]
    return pictures.bordered(pictures.stacked(sheet))


def _marks(found: Inspection, looks: Effective) -> Iterator[Mark]:
    height, width = found.survey.output.axes
    if whole := height.whole or width.whole:
        yield Mark(THEORETICAL, f"theoretical receptive field: the whole image, through {whole}")
    else:
        said = f"theoretical receptive field, exact: up to {height.size}×{width.size} pixels"
        yield Mark(THEORETICAL, said, ((height.before, width.before, height.after, width.after),))
    if window := found.subject.window:
        yield Mark(WINDOW, f"training window: {window}×{window}", (_about(window),))
    most, half = looks.spread.side(MOST), looks.spread.side(0.5)
    said = f"effective: {100 * MOST:.0f} % of the gradient within {most}×{most}, half of it within {half}×{half}"
    yield Mark(EFFECTIVE, said, (_about(most), _about(half)))
    if cell := found.subject.cell_diameter:
        said = f"cells: {cell:.0f} across, the median of {len(found.subject.cell_diameters)}"
        yield Mark(CELL, said, diameter=cell)


def _about(side: int) -> Reach:
    return side // 2, side // 2, (side - 1) // 2, (side - 1) // 2


def _marked(shown: Picture, marks: list[Mark]) -> Picture:
    """What lies about an output's own pixel, enlarged, with marks."""
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


def _image(looks: Effective, radius: int) -> Picture:
    """The example about a pixel deep inside a cell that is not far from the middle."""
    labels = looks.example.labels.numpy()
    away = [np.abs(np.arange(length) - length // 2) for length in labels.shape]
    depth = ndimage.distance_transform_edt(np.pad(labels > 0, 1))[1:-1, 1:-1]
    row, column = np.unravel_index((depth - np.maximum.outer(*away) / 8).argmax(), labels.shape)
    return _around(pictures.grey_of(looks.example.image.numpy()), (int(row), int(column)), radius, BEYOND)


def _gradient(looks: Effective, radius: int) -> Picture:
    """The shares of the gradient, from black to white by powers of ten."""
    density: npt.NDArray[np.float64] = looks.spread.density
    levels = 1 + np.log10(np.maximum(density / density.max(), 10.0**-DECADES)) / DECADES
    grey = np.rint(255 * levels).astype(np.uint8)[..., None].repeat(3, axis=2)
    return _around(grey, (len(density) // 2, len(density) // 2), radius, beyond=0)


def _around(shown: Picture, place: tuple[int, int], radius: int, beyond: int) -> Picture:
    """What lies within so many pixels of a place, with a grey beyond the border."""
    padded = np.pad(shown, ((radius, radius), (radius, radius), (0, 0)), constant_values=beyond)
    return padded[place[0] : place[0] + 2 * radius + 1, place[1] : place[1] + 2 * radius + 1]
