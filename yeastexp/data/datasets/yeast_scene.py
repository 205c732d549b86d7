"""One synthetic brightfield picture of budding yeast with its labels: cells placed in colonies, then an optical look.

The look is a sketch of brightfield, not a simulation of optics: a rim and a halo of opposite sign about each outline,
whose signs swap with focus. That dead cells are darker, granular and without a bright rim is an assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

BACKGROUND = 1400.0
"""Camera counts (of 4095) of the empty field."""

READ_NOISE = 9.0
"""Camera counts, standard deviation."""

GAPS_PX = (1.2, 3.0)
"""Between the outlines of neighbours in a colony."""

BUD_RATIOS = (0.2, 0.6)
"""Of the mother's diameter; smaller than about 4 pixels is no cell that a camera shows."""

SMALLEST_PX = 4.0

SOLID = -1
"""Where a structure stands, among the numbers of cells."""


@dataclass(frozen=True)
class Look:
    """What a picture is of, in pixels and shares."""

    size: int
    cell_diameter_px: float
    crowding: float
    dead_fraction: float
    bright_rim_fraction: float
    noise: float
    contrast: float = 1.0
    rim_width: float = 1.0
    debris: float = 1.0
    shading: float = 1.0
    structures: int = 0
    gaps: float = 1.0


@dataclass(frozen=True)
class Cell:
    """An ellipse whose radius is modulated by two low harmonics."""

    y: float
    x: float
    long_px: float
    short_px: float
    angle: float
    wobble: tuple[float, float, float, float]
    alive: bool

    def moved(self, y: float, x: float) -> Cell:
        """The same cell elsewhere."""
        return Cell(y, x, self.long_px, self.short_px, self.angle, self.wobble, self.alive)

    def distance(self, box: tuple[slice, slice]) -> Floats:
        """Signed distance in pixels to the outline along rays from the centre, negative inside, on a box of pixels."""
        rows = np.arange(box[0].start, box[0].stop)[:, None] - self.y
        columns = np.arange(box[1].start, box[1].stop)[None, :] - self.x
        along = rows * math.sin(self.angle) + columns * math.cos(self.angle)
        across = rows * math.cos(self.angle) - columns * math.sin(self.angle)
        radius = np.hypot(rows, columns)
        turn = np.arctan2(across, along)
        two, two_at, three, three_at = self.wobble
        bent = 1 + two * np.cos(2 * turn + two_at) + three * np.cos(3 * turn + three_at)
        inverse = np.hypot(np.cos(turn) / self.long_px, np.sin(turn) / self.short_px)
        return np.asarray(radius - bent / inverse)

    def box(self, canvas: int, margin: int) -> tuple[slice, slice]:
        """The pixels of a square canvas within `margin` pixels of the cell."""
        reach = 1.2 * self.long_px + margin
        first = [min(max(0, int(centre - reach)), canvas) for centre in (self.y, self.x)]
        last = [min(max(0, int(centre + reach) + 2), canvas) for centre in (self.y, self.x)]
        return slice(first[0], last[0]), slice(first[1], last[1])


class Field:
    """Cells placed on a square canvas, larger than the picture so that cells cross its border."""

    def __init__(self, look: Look, source: np.random.Generator) -> None:
        self.look = look
        self.source = source
        self.margin = math.ceil(look.cell_diameter_px)
        self.canvas = look.size + 2 * self.margin
        self.taken: Labels = np.zeros((self.canvas, self.canvas), np.int32)
        self.cells: list[Cell] = []
        self.structures: Floats = np.zeros(self.taken.shape)
        for _ in range(look.structures):
            self.build()

    def build(self) -> None:
        """Put up a straight wall across the canvas or a row of round posts, and draw it into `structures`."""
        turn, (y, x) = self.source.uniform(0, math.pi), self.source.uniform(0, self.canvas, 2)
        rows, columns = np.arange(self.canvas)[:, None] - y, np.arange(self.canvas)[None, :] - x
        across = rows * math.cos(turn) - columns * math.sin(turn)
        if self.source.random() < 0.5:
            distance = np.abs(across) - self.look.cell_diameter_px * self.source.uniform(0.1, 0.5)
        else:
            along = rows * math.sin(turn) + columns * math.cos(turn)
            radius = self.look.cell_diameter_px * self.source.uniform(0.25, 0.6)
            step = radius * self.source.uniform(3, 6)
            distance = np.hypot((along + step / 2) % step - step / 2, across) - radius
        self.taken[distance < 0] = SOLID
        self.structures += _structure(distance / self.look.rim_width, self.source)

    def fill(self) -> None:
        """Grow colonies until cells cover the wanted share of the canvas, or nothing more fits."""
        wanted = self.look.crowding * self.source.uniform(0.6, 1.4) * self.canvas**2
        misses = 0
        while np.count_nonzero(self.taken > 0) < wanted and misses < 60:
            first = self.place(self.new_cell(), near=None)
            misses = 0 if first else misses + 1
            if first is None:
                continue
            for _ in range(int(self.source.integers(0, 9))):
                parent = self.cells[int(self.source.integers(first, len(self.cells)))]
                added = self.place(self.new_cell(), near=parent)
                if added is not None and self.cells[added].alive and self.source.random() < 0.35:
                    self.place(self.bud(self.cells[added]), near=self.cells[added])

    def new_cell(self) -> Cell:
        """A cell of any size in the population, dead as often as wanted."""
        radius = self.look.cell_diameter_px / 2 * math.exp(self.source.normal(0, 0.16))
        alive = bool(self.source.random() >= self.look.dead_fraction)
        stretch = self.source.uniform(1.0, 1.3)
        return self.shaped(radius * math.sqrt(stretch), radius / math.sqrt(stretch), alive)

    def bud(self, mother: Cell) -> Cell:
        """A small live cell for a mother."""
        radius = math.sqrt(mother.long_px * mother.short_px) * self.source.uniform(*BUD_RATIOS)
        radius = max(radius, SMALLEST_PX / 2)
        return self.shaped(radius * 1.05, radius / 1.05, alive=True)

    def shaped(self, long_px: float, short_px: float, alive: bool) -> Cell:
        """A cell of these semi-axes, turned and bent at random, anywhere on the canvas."""
        y, x = self.source.uniform(0, self.canvas, 2)
        angle, two_at, three_at = self.source.uniform(0, 2 * math.pi, 3)
        two, three = self.source.uniform(0, 0.035, 2)
        return Cell(float(y), float(x), long_px, short_px, angle, (two, two_at, three, three_at), alive)

    def place(self, cell: Cell, near: Cell | None) -> int | None:
        """Put a cell down, beside another with a gap of a few pixels or alone; its index, or nothing if it cannot."""
        if near is not None:
            cell = self.beside(cell, near)
        box = cell.box(self.canvas, margin=4)
        distance = cell.distance(box)
        if self.taken[box][distance < self.look.gaps * GAPS_PX[0]].any() or not (distance < 0).any():
            return None
        self.taken[box][distance < 0] = len(self.cells) + 1
        self.cells.append(cell)
        return len(self.cells) - 1

    def beside(self, cell: Cell, near: Cell) -> Cell:
        """The cell moved along a random ray until its outline is the wanted gap away from what is there."""
        direction = self.source.uniform(0, 2 * math.pi)
        gap = self.look.gaps * self.source.uniform(*GAPS_PX) + 0.3
        apart = near.long_px + cell.long_px
        for _ in range(5):
            cell = cell.moved(near.y + apart * math.sin(direction), near.x + apart * math.cos(direction))
            box = cell.box(self.canvas, margin=12)
            there = self.taken[box] != 0
            if not there.any():
                break
            apart += gap - float(cell.distance(box)[there].min())
        return cell


def render(look: Look, source: np.random.Generator) -> dict[str, npt.NDArray[np.generic]]:
    """`raw` (H, W) uint16, `gt` uint8, `instances` and `dead` (H, W) int32 ids of one picture."""
    field = Field(look, source)
    field.fill()
    inside = slice(field.margin, field.margin + look.size)
    ids = field.taken[inside, inside].clip(0)
    alive = np.array([False, *(cell.alive for cell in field.cells)])[ids]
    light = _light(field)[inside, inside]
    return {
        "raw": _camera(light, look, source),
        "gt": alive.astype(np.uint8),
        "instances": np.where(alive, ids, 0).astype(np.int32),
        "dead": np.where(alive, 0, ids).astype(np.int32),
    }


def _light(field: Field) -> Floats:
    """Relative brightness of the canvas before the camera: 1 where nothing is."""
    source, shape, look = field.source, field.taken.shape, field.look
    polarity = 1.0 if source.random() < look.bright_rim_fraction else -1.0
    focus = source.uniform(0.75, 1.25)
    fine = _noise(source, shape, 1.2)
    coarse = _noise(source, shape, 3.0)
    light = np.ones(shape)
    for cell in field.cells:
        box = cell.box(field.canvas, margin=math.ceil(8 * look.rim_width))
        distance = cell.distance(box) / look.rim_width
        other = (field.taken[box] != 0) & (distance > 0)  # a neighbour's inside, which halos hardly reach
        if cell.alive:
            strength = polarity * focus * source.uniform(0.8, 1.15)
            drawn = _live(cell, distance, strength, fine[box], coarse[box], source)
        else:
            drawn = _dead(distance, fine[box], coarse[box], source)
        light[box] += look.contrast * np.where(other, 0.25, 1.0) * drawn
    light += field.structures
    light += _debris(source, shape, look.debris)
    return light * _illumination(source, shape, look.shading)


def _live(
    cell: Cell, distance: Floats, strength: float, fine: Floats, coarse: Floats, source: np.random.Generator
) -> Floats:
    """A live cell: halo outside, rim inside, slightly brighter or darker plasma, a vacuole, granules."""
    small = min(1.0, cell.short_px / 8)
    halo = 0.34 * np.exp(-(((distance - 1.4) / 1.5) ** 2)) + 0.06 * np.exp(-(((distance - 4.5) / 2.0) ** 2))
    rim = 0.33 * np.exp(-(((distance + 1.5) / 1.6) ** 2))
    within = 1 / (1 + np.exp(np.clip(distance / 0.6, -50, 50)))
    absorbed = source.normal(0.09, 0.10)  # does not swap with focus, so that live cells are as dark as dead ones
    plasma = within * (-0.02 * strength - absorbed + 0.05 * coarse + 0.035 * fine)
    turn, off = source.uniform(0, 2 * math.pi), source.uniform(0.1, 0.4) * cell.short_px
    radius = source.uniform(0.3, 0.5) * cell.short_px
    deep = np.sqrt((-distance).clip(0))  # a vacuole stays inside
    rows, columns = np.indices(distance.shape)
    lowest = np.unravel_index(int(distance.argmin()), distance.shape)
    away = np.hypot(rows - lowest[0] - off * math.sin(turn), columns - lowest[1] - off * math.cos(turn)) - radius
    vacuole = source.choice([-1.0, 1.0]) * 0.12 / (1 + np.exp(np.clip(away / 0.8, -50, 50)))
    vacuole += -0.14 * strength * np.exp(-((away / 1.1) ** 2))
    return np.asarray(small * strength * (halo - rim) + plasma + small * vacuole * np.minimum(deep, 1.0))


def _dead(distance: Floats, fine: Floats, coarse: Floats, source: np.random.Generator) -> Floats:
    """A dead cell: dark, granular, its outline soft and without a bright rim."""
    within = 1 / (1 + np.exp(np.clip(distance / 1.3, -50, 50)))
    darkness = source.uniform(0.05, 0.32)
    outline = source.uniform(0.02, 0.14) * np.exp(-(((distance + 1.0) / 1.8) ** 2))
    return np.asarray(within * (-darkness + 0.09 * fine + 0.06 * coarse) - outline)


def _structure(distance: Floats, source: np.random.Generator) -> Floats:
    """A wall or posts: a bright or dark outline, an even inside."""
    outline = source.choice([-1.0, 1.0]) * source.uniform(0.2, 0.6) * np.exp(-((distance / 1.8) ** 2))
    level = source.uniform(-0.15, 0.15)
    return np.asarray(outline + level / (1 + np.exp(np.clip(distance / 0.8, -50, 50))))


def _debris(source: np.random.Generator, shape: tuple[int, ...], amount: float) -> Floats:
    """Specks, bright or dark, sharp or blurred."""
    light = np.zeros(shape)
    for _ in range(int(source.poisson(amount * (shape[0] * shape[1] / 7000)))):
        y, x = (int(source.integers(0, n)) for n in shape)
        speck = np.zeros((25, 25))
        speck[12, 12] = source.choice([-1.0, 1.0]) * source.uniform(1.0, 6.0)
        speck = ndimage.gaussian_filter(speck, source.uniform(0.7, 2.2))
        window = light[max(0, y - 12) : y + 13, max(0, x - 12) : x + 13]
        window += speck[max(0, 12 - y) :, max(0, 12 - x) :][: window.shape[0], : window.shape[1]]
    return light


def _illumination(source: np.random.Generator, shape: tuple[int, ...], amount: float) -> Floats:
    """A smooth factor about 1: a slope and a curved fall-off."""
    rows, columns = (np.linspace(-1, 1, n) for n in shape)
    slope = amount * source.normal(0, 0.06, 2)
    fall = amount * source.uniform(0, 0.12)
    centre = source.uniform(-0.5, 0.5, 2)
    bowl = (rows[:, None] - centre[0]) ** 2 + (columns[None, :] - centre[1]) ** 2
    return np.asarray(1 + slope[0] * rows[:, None] + slope[1] * columns[None, :] - fall * (bowl - 0.66))


def _camera(light: Floats, look: Look, source: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Defocus, Poisson and read noise, counts of 12 bits."""
    blurred = ndimage.gaussian_filter(light, source.uniform(0.5, 1.2))
    exposed = np.maximum(BACKGROUND * source.uniform(0.8, 1.2) * blurred, 1.0)
    if look.noise:
        electrons = 2.0 / look.noise**2  # for each count: fewer, and the shot noise is larger
        exposed = source.poisson(exposed * electrons) / electrons
        exposed = exposed + source.normal(0, READ_NOISE * look.noise, exposed.shape)
    return np.asarray(np.clip(np.rint(exposed), 0, 4095).astype(np.uint16))


def _noise(source: np.random.Generator, shape: tuple[int, ...], smoothing_px: float) -> Floats:
    """Smoothed white noise of unit standard deviation."""
    smooth = ndimage.gaussian_filter(source.normal(size=shape), smoothing_px)
    return np.asarray(smooth / smooth.std())
