"""Pictures of cells in colours that tell neighbours apart, with their numbers and their errors."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from yeastexp.drawing import pictures
from yeastexp.drawing.pictures import OKABE_ITO, Labels, Limits, Picture
from yeastexp.sample import IGNORE, compacted
from yeastexp.system.formatting import format_number

COLOURS = np.array(OKABE_ITO, np.uint8)

NEAR_PX = 2
"""The distance in pixels up to which two cells get different colours."""

NUMBER_SIZE = 11

LEAST_SIDE = 256
"""The least length in pixels of the longer side of a picture in a panel."""
WRONG = {"missed": OKABE_ITO[1], "false": OKABE_ITO[5], "split": OKABE_ITO[3], "merged": OKABE_ITO[6]}
"""The colours of cells with an error."""


def colours(ids: Labels) -> npt.NDArray[np.uint8]:
    """A colour for each of the ids 0 to n, (n + 1, 3), black for 0; neighbours differ as long as colours suffice."""
    count = int(ids.max(initial=0))
    neighbours: list[set[int]] = [set() for _ in range(count + 1)]
    # If the largest or the smallest id within a window is not the pixel's own, two cells are near each other. The two
    # filters miss a middle one of three ids in a window, but find it from another pixel, as a rule.
    size = 2 * NEAR_PX + 1
    unset = np.where(ids > 0, ids, count + 1)
    for nearby in (ndimage.maximum_filter(ids, size), ndimage.minimum_filter(unset, size)):
        pairs = (ids > 0) & (nearby != ids) & (nearby > 0) & (nearby <= count)
        for first, second in np.unique(np.stack([ids[pairs], nearby[pairs]]), axis=1).T.tolist():
            neighbours[first].add(second)
            neighbours[second].add(first)
    # Greedy colouring in the order of ids. Among the free colours the id chooses, so that all of them are in use: the
    # first free one would give cells without neighbours all the same.
    chosen = np.zeros(count + 1, np.int64)
    for number in range(1, count + 1):
        taken = {int(chosen[neighbour]) for neighbour in neighbours[number] if neighbour < number}
        free = [place for place in range(len(COLOURS)) if place not in taken]
        chosen[number] = (free or range(len(COLOURS)))[number % len(free or COLOURS)]
    return np.where(np.arange(count + 1)[:, None] > 0, COLOURS[chosen], 0).astype(np.uint8)


def outlined(grey: Picture, ids: Labels, *, numbers: bool = False) -> Picture:
    """Outline each cell of `ids` (H, W), just inside its edge, and with `numbers` write its id into its middle."""
    drawn, edges = np.array(grey), pictures.edges(ids)
    compact, known = compacted(ids)
    table = colours(compact)
    drawn[edges] = table[compact[edges]]
    return _numbered(drawn, compact, known, table) if numbers else drawn


def tile(image: npt.NDArray[np.float32], ids: Labels, side: int, limits: Limits | None = None) -> Picture:
    """An image (C, H, W) resized to a longer side of `side` pixels, with cells outlined in colours of their own."""
    shown = pictures.fitted(pictures.grey_of(image, limits), side)
    ids = pictures.sampled(ids, shown)
    compact, _ = compacted(ids.clip(0))
    table = colours(compact)
    return pictures.outlined(shown, np.where(ids == IGNORE, IGNORE, compact), lambda number: table[number])


def _numbered(picture: Picture, compact: Labels, known: Labels, table: npt.NDArray[np.uint8]) -> Picture:
    """Write numbers into the middle of cells: `known[i]` for the cell of compact id i, for 1 to n."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    font = pictures.typeface(NUMBER_SIZE)
    middles = ndimage.center_of_mass(np.ones(compact.shape), compact, range(1, len(known)))
    for (y, x), number, colour in zip(middles, known[1:].tolist(), table[1:].tolist(), strict=True):
        draw.text((x, y), str(number), tuple(colour), font, anchor="mm", stroke_width=1, stroke_fill=0)
    return np.asarray(canvas)


def panel(
    image: npt.NDArray[np.float32],
    true: Labels,
    predicted: Labels,
    wrong_true: dict[str, Collection[int]],
    wrong_predicted: dict[str, Collection[int]],
) -> Picture:
    """A row of pictures: the image (C, H, W), outlines of true and predicted cells (H, W), errors, and their legend.

    `wrong_true` and `wrong_predicted` are ids by the names in `WRONG`. Small images are enlarged, so that outlines are
    thin beside the cells.
    """
    grey = pictures.grey_of(image)
    grey = pictures.fitted(grey, min(max(*grey.shape[:2], LEAST_SIDE), pictures.LARGEST_SIDE))
    marked = grey // 2
    drawn = {"true cells": pictures.sampled(true, grey), "predicted cells": pictures.sampled(predicted, grey)}
    for ids, wrong in zip(drawn.values(), (wrong_true, wrong_predicted), strict=True):
        for name, members in wrong.items():
            pixels = np.isin(ids, list(members))
            marked[pixels] = marked[pixels] // 2 + np.array(WRONG[name]) // 2
    counts = {name: len(members) for wrong in (wrong_true, wrong_predicted) for name, members in wrong.items()}
    shown = {"image": grey}
    for (text, ids), whole in zip(drawn.items(), (true, predicted), strict=True):
        shown[f"{format_number(_cells(whole))} {text}"] = outlined(grey, ids)
    shown["cells with an error"] = marked
    legend = pictures.legend([(WRONG[name], f"{format_number(count)} {name}") for name, count in counts.items()])
    columns = [pictures.captioned(picture, text) for text, picture in shown.items()]
    return pictures.in_a_row([*columns, pictures.captioned(legend, "")])


def _cells(ids: Labels) -> int:
    return len(np.unique(ids[ids > 0]))
