"""Fields unlike the one that a model was trained on, made from images with known truth or drawn as synthetic yeast.

What is made of images is drawn with other code, and other shapes, than the augmentations: a model that learnt those by
heart gains nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

HALO_PX = 7
"""How far the light about a cell of the home field reaches."""

DIRECTIONS = 10
"""From which a cell may come to its colony."""


@dataclass(frozen=True)
class View:
    """An image (H, W) in units of its own standard deviation about its mean, and the ids of its cells (H, W)."""

    image: Floats
    cells: Labels
    """0 is background. Cells need not be connected: a wall may cross one."""

    @property
    def labels(self) -> Labels:
        """1 where a cell is (H, W)."""
        return (self.cells > 0).astype(np.int64)


Change = Callable[[View, np.random.Generator], View]


def scaled(factor: float) -> Change:
    """Another magnification, by cubic splines; smoothed first where it shrinks."""

    def change(view: View, source: np.random.Generator) -> View:
        smooth = ndimage.gaussian_filter(view.image, 0.5 * (1 / factor - 1)) if factor < 1 else view.image
        grey = ndimage.zoom(view.image if factor >= 1 else smooth, factor, order=3, mode="reflect", grid_mode=True)
        soft = ndimage.gaussian_filter(view.labels.astype(float), 0.7, mode="nearest")  # else ties make cells smaller
        soft = ndimage.zoom(soft, factor, order=1, mode="nearest", grid_mode=True)
        ids = ndimage.zoom(_spread(view.cells), factor, order=0, mode="nearest", grid_mode=True)
        return View(grey + 0.1 * source.normal(size=grey.shape), np.where(soft > 0.5, ids, 0))

    return change


def _spread(cells: Labels) -> Labels:
    """The id of the nearest cell at every pixel (H, W)."""
    nearest = ndimage.distance_transform_edt(cells == 0, return_distances=False, return_indices=True)
    return np.asarray(cells[tuple(nearest)]) if cells.any() else cells


def contrast(view: View, source: np.random.Generator) -> View:
    """Weaker light with more noise, unevenly spread, on a bent brightness curve."""
    rows, columns = (np.linspace(-1, 1, n) for n in view.image.shape)
    slope = source.uniform(-0.6, 0.6, 2)
    shade = slope[0] * rows[:, None] + slope[1] * columns[None, :] + source.uniform(-0.4, 0.4) * rows[:, None] ** 2
    share = np.clip((view.image + 3) / 12, 0, None) ** source.uniform(0.7, 1.4)
    return View(12 * share + shade + source.normal(0, 0.35, view.image.shape), view.cells)


def inverted(view: View, source: np.random.Generator) -> View:
    """Bright for dark."""
    return View(-view.image, view.cells)


def crowded(view: View, source: np.random.Generator) -> View:
    """More cells: those of the image, with their halos, turned and put down wherever they do not cover another."""
    image, cells = view.image.copy(), view.cells.copy()
    patches = list(_patches(view))
    for _ in range(60 * len(patches)):
        if (cells > 0).mean() > 0.3 or not patches:
            break
        patch = patches[int(source.integers(len(patches)))]
        turned = _turned(patch, int(source.integers(4)), bool(source.integers(2)))
        row, column = (
            int(source.integers(-n // 3, room - n // 3))
            for n, room in zip(turned.cells.shape, cells.shape, strict=True)
        )
        _put_down(image, cells, turned, row, column)
    return View(image, cells)


def _turned(view: View, quarters: int, flipped: bool) -> View:
    image, cells = np.rot90(view.image, quarters), np.rot90(view.cells, quarters)
    return View(image[::-1], cells[::-1]) if flipped else View(image, cells)


def _patches(view: View) -> Iterator[View]:
    """Each group of cells that does not touch the image's border, on a margin for its halo."""
    groups = ndimage.label(view.cells > 0)[0]
    for index, box in enumerate(ndimage.find_objects(groups), start=1):
        low = [one.start - 2 * HALO_PX for one in box]
        high = [one.stop + 2 * HALO_PX for one in box]
        if min(low) < 0 or high[0] > groups.shape[0] or high[1] > groups.shape[1]:
            continue
        cut = slice(low[0], high[0]), slice(low[1], high[1])
        yield View(view.image[cut], np.where(groups[cut] == index, view.cells[cut], 0))


def _put_down(image: Floats, cells: Labels, patch: View, row: int, column: int) -> None:
    """Blend a patch into an image in place, unless its cells would touch others."""
    height, width = patch.cells.shape
    there = slice(max(row, 0), row + height), slice(max(column, 0), column + width)
    here = slice(max(-row, 0), None), slice(max(-column, 0), None)
    room = cells[there].shape
    added, grey = patch.cells[here][: room[0], : room[1]], patch.image[here][: room[0], : room[1]]
    if not added.size or (ndimage.binary_dilation(added > 0, iterations=4) & (cells[there] > 0)).any():
        return
    far = ndimage.distance_transform_edt(added == 0)
    weight = np.clip((2 * HALO_PX - far) / HALO_PX, 0, 1) * (cells[there] == 0)
    image[there] += weight * (grey - image[there])
    _add(cells, there, added)


def _add(cells: Labels, there: tuple[slice, slice], added: Labels) -> None:
    """Give the cells of a patch new ids, in place."""
    cells[there] = np.where(added > 0, added + cells.max(), cells[there])


def structures(view: View, source: np.random.Generator) -> View:
    """Bright walls of channels, a comb of short bars, a row of posts and dust, blurred like the cells."""
    drawn, solid = np.zeros(view.image.shape), np.zeros(view.image.shape, bool)
    for draw in (_channel, _comb, _posts, _dust):
        draw(drawn, solid, source)
    light = ndimage.gaussian_filter(drawn, 1.2)
    fringe = ndimage.gaussian_filter(drawn, 5.0)
    covered = ndimage.gaussian_filter(solid.astype(float), 0.8)
    image = view.image * (1 - 0.85 * covered) + light - 0.6 * fringe
    return View(image, np.where(solid, 0, view.cells))


def _strip(shape: tuple[int, ...], source: np.random.Generator) -> Floats:
    """Distance in pixels of every pixel from a random, slightly bent line across the image."""
    turn = source.uniform(0, np.pi)
    rows, columns = np.indices(shape, dtype=float)
    rows -= source.uniform(0.2, 0.8) * shape[0]
    columns -= source.uniform(0.2, 0.8) * shape[1]
    along, across = rows * np.sin(turn) + columns * np.cos(turn), rows * np.cos(turn) - columns * np.sin(turn)
    return np.asarray(across + source.uniform(-1e-4, 1e-4) * along**2)


def _channel(drawn: Floats, solid: npt.NDArray[np.bool_], source: np.random.Generator) -> None:
    """Two parallel bright lines, the material between them darker or brighter than the medium."""
    away, half, line = np.abs(_strip(drawn.shape, source)), source.uniform(8, 40), source.uniform(2, 5)
    drawn += source.uniform(3, 8) * (np.abs(away - half) < line / 2)
    drawn += source.uniform(-0.8, 0.8) * (away < half)
    solid |= away < half + line / 2


def _comb(drawn: Floats, solid: npt.NDArray[np.bool_], source: np.random.Generator) -> None:
    """Short bars side by side, each an outline brighter than its inside."""
    height, width = int(source.integers(30, 90)), int(source.integers(8, 24))
    level, rim = source.uniform(-1, 3), source.uniform(3, 7)
    row, column = (int(source.integers(0, max(1, n - 80))) for n in drawn.shape)
    for bar in range(int(source.integers(3, 7))):
        box = slice(row, row + height), slice(column + 2 * bar * width, column + (2 * bar + 1) * width)
        inner = slice(row + 3, row + height - 3), slice(box[1].start + 3, box[1].stop - 3)
        drawn[box], solid[box] = rim, True
        drawn[inner] = level


def _posts(drawn: Floats, solid: npt.NDArray[np.bool_], source: np.random.Generator) -> None:
    """A row of posts with a bright rim, as large as cells, of even brightness inside."""
    rows, columns = np.indices(drawn.shape)
    radius, step = source.uniform(9, 22), source.uniform(60, 110)
    y, x, turn = source.uniform(0, drawn.shape[0]), source.uniform(0, drawn.shape[1] / 2), source.uniform(-0.5, 0.5)
    level = source.uniform(-1, 2)
    for post in range(4):
        away = np.hypot(rows - y - post * step * np.sin(turn), columns - x - post * step * np.cos(turn))
        drawn[away < radius] = level
        drawn[np.abs(away - radius) < 2] = source.uniform(4, 7)
        solid |= away < radius + 2


def _dust(drawn: Floats, solid: npt.NDArray[np.bool_], source: np.random.Generator) -> None:
    """Specks of one to a few pixels, bright or dark."""
    for _ in range(int(source.integers(10, 40))):
        y, x = (int(source.integers(0, n)) for n in drawn.shape)
        size = int(source.integers(1, 6))
        drawn[y : y + size, x : x + size] += source.choice([-1, 1]) * source.uniform(3, 9)
        solid[y : y + size, x : x + size] = True


def colonies(view: View, source: np.random.Generator) -> View:
    """Dense colonies of cells about half as large, and buds, between bright walls with corners."""
    shrunk = [scaled(float(source.uniform(0.42, 0.6)))(patch, source) for patch in _patches(view)]
    alone = [patch for patch in shrunk if patch.cells.any() and _solidity(patch.cells) > 0.88]
    image, cells = _emptied(view, source), np.zeros_like(view.cells)
    for _ in range(int(source.integers(2, 5)) if alone else 0):
        middle = source.uniform(0.15, 0.85, 2) * cells.shape
        for _ in range(int(source.integers(15, 50))):
            patch = alone[int(source.integers(len(alone)))]
            if source.random() < 0.2:
                patch = scaled(float(source.uniform(0.4, 0.7)))(patch, source)
            _push_up(image, cells, _turned(patch, int(source.integers(4)), bool(source.integers(2))), middle, source)
    return walls(View(image, cells), source)


def _solidity(cells: Labels) -> float:
    """Of a mask's smallest upright ellipse, the share that it fills: near one for a single cell."""
    rows, columns = np.nonzero(cells)
    spread = np.linalg.eigvalsh(np.cov(rows, columns) + np.eye(2) / 12)
    return float(len(rows) / (4 * np.pi * np.sqrt(np.prod(spread))))


def _emptied(view: View, source: np.random.Generator) -> Floats:
    """Background alone: pixels of cells and their halos are those of other places, mirrored and shifted."""
    near: npt.NDArray[np.bool_] = ndimage.binary_dilation(view.cells > 0, iterations=2 * HALO_PX)
    image, covered = view.image.copy(), near.copy()
    for _ in range(200):
        if not covered.any():
            break
        shift = tuple(int(source.integers(length)) for length in near.shape)
        other, taken = np.roll(view.image[::-1], shift, (0, 1)), np.roll(near[::-1], shift, (0, 1))
        image[covered & ~taken] = other[covered & ~taken]
        covered &= taken
    return image


def _push_up(image: Floats, cells: Labels, patch: View, middle: Floats, source: np.random.Generator) -> None:
    """Put a cell beside others, as near to the middle of its colony as some directions to come from allow, in place."""
    mask = patch.cells > 0
    turns = source.uniform(0, 2 * np.pi, DIRECTIONS)
    ends = (_end(cells, mask, middle, np.array([np.sin(turn), np.cos(turn)])) for turn in turns)
    away, row, column = min(ends)
    if away == np.inf:
        return
    ring = ndimage.binary_dilation(mask, iterations=2 * HALO_PX) & ~ndimage.binary_dilation(mask, iterations=HALO_PX)
    excess = patch.image - np.median(patch.image[ring] if ring.any() else patch.image)
    fade = np.clip(1 - ndimage.distance_transform_edt(~mask) / (1.5 * HALO_PX), 0, 1)
    there = slice(row, row + mask.shape[0]), slice(column, column + mask.shape[1])
    image[there] += np.where(cells[there] > 0, 0.25, 1) * fade * excess
    _add(cells, there, patch.cells)


def _end(cells: Labels, mask: npt.NDArray[np.bool_], middle: Floats, towards: Floats) -> tuple[float, int, int]:
    """How far from the middle, and where, a cell that comes from there touches another one; infinitely, if outside."""
    end = (np.inf, 0, 0)
    for away in range(max(cells.shape) // 2, -1, -1):
        row, column = (int(n) for n in np.round(middle + away * towards - np.array(mask.shape) / 2))
        room = cells[max(row, 0) : row + mask.shape[0], max(column, 0) : column + mask.shape[1]]
        if room.shape == mask.shape:
            if (room[mask] > 0).any():
                return end
            end = (away, row, column)
    return end


def walls(view: View, source: np.random.Generator) -> View:
    """Bright outlines of letters and corners of channels: what they enclose is background."""
    drawn = np.zeros(view.image.shape)
    for _ in range(int(source.integers(4, 9))):
        turn = np.linalg.qr(source.normal(size=(2, 2)))[0]
        place = source.uniform(0, 1, 2) * drawn.shape
        corners = GLYPHS[int(source.integers(len(GLYPHS)))] * source.uniform(14, 60) @ turn + place
        level, width = source.uniform(3, 7), source.uniform(1.5, 4)
        for begin, end in pairwise(corners):
            drawn = np.maximum(drawn, level * (_from_stretch(drawn.shape, begin, end) < width / 2))
    solid = drawn > 0
    image = np.where(solid, ndimage.gaussian_filter(view.image, 2.0), view.image)
    light = ndimage.gaussian_filter(drawn, 1.0) - 0.5 * ndimage.gaussian_filter(drawn, 4.0)
    return View(image + light, np.where(solid, 0, view.cells))


def _from_stretch(shape: tuple[int, ...], begin: Floats, end: Floats) -> Floats:
    """Distance in pixels of every pixel from the straight line between two points."""
    rows, columns = np.indices(shape, dtype=float)
    along = end - begin
    share = ((rows - begin[0]) * along[0] + (columns - begin[1]) * along[1]) / max(float(along @ along), 1e-9)
    share = np.clip(share, 0, 1)
    return np.asarray(np.hypot(rows - begin[0] - share * along[0], columns - begin[1] - share * along[1]))


GLYPHS: list[Floats] = [
    np.array(corners, dtype=float)
    for corners in (
        [(2, 0), (0, 0), (0, 1), (1, 1), (1, 0), (2, 1)],  # R
        [(2, 0), (0, 0.5), (2, 1), (1.2, 0.8), (1.2, 0.2)],  # A
        [(0, 0), (0, 1), (2, 1), (2, 0), (0, 0)],  # 0
        [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (2, 0), (2, 1), (1, 1)],  # 8
        [(0, 0), (2, 0), (2, 3)],  # the corner of a channel
        [(0, 0), (0, 1), (3, 1), (3, 0)],  # a dead end
    )
]
"""Corners of strokes, in heights of a half letter."""


def combined(*changes: Change) -> Change:
    """One change after the other."""

    def change(view: View, source: np.random.Generator) -> View:
        for one in changes:
            view = one(view, source)
        return view

    return change


def anything(view: View, source: np.random.Generator) -> View:
    """Crowded, with structures, at another magnification and contrast: all in one."""
    return combined(crowded, structures, scaled(float(source.uniform(0.5, 1.6))), contrast)(view, source)


FIELDS: dict[str, Change] = {
    "half size": scaled(0.5),
    "size × 0.75": scaled(0.75),
    "size × 1.6": scaled(1.6),
    "contrast": contrast,
    "inverted": inverted,
    "crowded": crowded,
    "structures": structures,
    "all but polarity": anything,
    "colonies": colonies,
    "walls": walls,
}


def foreign(image: Floats, cells: Labels, change: Change, key: tuple[int, ...]) -> View:
    """An image of the home field changed; the same key gives the same. `cells` holds ids, or 1 for all cells."""
    standard = (image - image.mean()) / image.std()
    return change(View(standard, np.maximum(cells, 0)), np.random.default_rng(key))


SYNTHETIC: dict[str, dict[str, Any]] = {
    "half size": {"cell_diameter_px": 13.0, "rim_width": 0.5},
    "size × 1.6": {"cell_diameter_px": 42.0, "rim_width": 1.6},
    "weak contrast": {"contrast": 0.5, "noise": 2.0},
    "noise": {"noise": 4.0},
    "uneven light": {"shading": 4.0},
    "debris": {"debris": 8.0},
    "crowded": {"crowding": 0.45},
    "mostly dead": {"dead_fraction": 0.6},
    "structures": {"structures": 3},
    "all of these": {
        "cell_diameter_px": 36.0,
        "rim_width": 1.4,
        "contrast": 0.7,
        "noise": 2.0,
        "shading": 3.0,
        "debris": 4.0,
        "crowding": 0.35,
        "dead_fraction": 0.4,
        "structures": 2,
    },
}
"""Settings of `synthetic_yeast` that differ from its defaults."""

SYNTHETIC_IMAGES = 5
"""Of each field, 256 × 256 pixels."""

SYNTHETIC_SEED = 2**32
"""Not one that somebody would train with."""


def synthetic(settings: dict[str, Any]) -> list[View]:
    """The images of a synthetic field, in camera counts; the same settings give the same."""
    drawn = SyntheticYeast(SYNTHETIC_IMAGES, seed=SYNTHETIC_SEED, **settings)
    samples = [drawn.read(name) for split in drawn.splits.values() for name in split]
    return [View(sample.image[0].double().numpy(), sample.maps["instances"].numpy()) for sample in samples]
