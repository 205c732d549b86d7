"""One synthetic picture of yeast under a transmitted-light microscope, with its labels.

Cells and structures are a map of optical thickness and of absorption. A wave that passes it, a phase ring, defocus and
a camera give the picture, so that halos, rings about outlines and their inversion with focus follow from a few numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

SMALLEST_BUD_PX = 6.0
"""Diameter of the smallest bud that is drawn."""

MOST = 9999
"""Largest number of cells in a picture."""

COVER = {
    "none": (0.0, 0.0),
    "single": (0.0, 0.02),
    "sparse": (0.03, 0.12),
    "colonies": (0.12, 0.4),
    "dense": (0.4, 1.0),
}
"""Range of the share of the field that cells cover, by crowding."""

CROWDING = (0.03, 0.12, 0.2, 0.35, 0.3)
"""Probabilities of the keys of `COVER`."""

TRAPPED = (0.15, 0.2, 0.4, 0.15, 0.1)
"""Probabilities of the keys of `COVER` where structures hold the cells."""

STRUCTURES = ("nothing", "traps", "walls", "letters", "posts")
OFTEN = (0.4, 0.25, 0.13, 0.1, 0.12)


@dataclass(frozen=True)
class FieldLook:
    """Size of the pictures in pixels, range of cell diameters, and number of focal planes of a scene."""

    size: int
    smallest_px: float
    largest_px: float
    focus_steps: int


def render(
    look: FieldLook, source: np.random.Generator, plane: int, optics: np.random.Generator
) -> dict[str, npt.NDArray[np.generic]]:
    """`raw` (H, W) uint8, `gt` uint8 and `instances` int32 ids of a scene at one plane of its focus series."""
    # `source` begins alike for all planes of a scene, so no draw from it may depend on the plane: only the focus and,
    # by `optics`, the noise of the camera differ.
    field = Field(look, source)
    inside = slice(field.margin, field.margin + look.size)
    ids = _one_part_each(field.ids[inside, inside].copy())  # the border can cut a cell in two
    light, contrast = _light(field, source, plane, look.focus_steps)
    raw = _camera(light[inside, inside], contrast, source, optics)
    return {"raw": raw, "gt": (ids > 0).astype(np.uint8), "instances": ids}


class Field:
    """Cells and structures on a square canvas, larger than the picture so that cells cross its border."""

    def __init__(self, look: FieldLook, source: np.random.Generator) -> None:
        self.source = source
        self.range = look.smallest_px, look.largest_px
        self.diameter = math.exp(source.uniform(*np.log(self.range)))
        self.margin = math.ceil(0.6 * self.diameter) + 12
        self.canvas = look.size + 2 * self.margin
        self.rows, self.columns = (
            np.arange(self.canvas, dtype=np.float32).reshape(shape) for shape in ((-1, 1), (1, -1))
        )
        self.solid: Floats = np.full((self.canvas, self.canvas), 99.0, np.float32)
        self.held: list[tuple[float, float]] = []
        """Places (y, x) where structures hold cells."""
        self.structures(str(source.choice(STRUCTURES, p=OFTEN)))
        self.clear = ndimage.distance_transform_edt(self.solid > 0) if (self.solid < 0).any() else None
        self.cells = self.grow(str(source.choice(list(COVER), p=TRAPPED if self.held else CROWDING)))
        self.paint()

    # Structures are signed distances, negative inside, that are drawn into `solid`.

    def structures(self, kind: str) -> None:
        """Draw structures of a kind into `solid`."""
        build = {"traps": self.traps, "walls": self.walls, "letters": self.letters, "posts": self.posts}
        if kind in build:
            build[kind]()

    def traps(self) -> None:
        """Pairs of pillars with room for cells between them, once or in rows."""
        source, wide, d = self.source, self.canvas, self.diameter
        apart, tilt, lean = d * source.uniform(1.4, 2.6), source.uniform(0, 2 * math.pi), source.uniform(-0.7, 0.7)
        axes = d * source.uniform(0.5, 0.9), d * source.uniform(0.3, 0.55)
        step = apart * source.uniform(2.2, 4.5)
        count = min(4, math.ceil(wide / step))
        first = source.uniform(0, max(1.0, wide - (count - 1) * step), 2)
        if count == 1:
            first = wide * source.uniform(0.3, 0.7, 2)
        for row, column in np.ndindex(count, count):
            y, x = first + step * np.array([row, column])
            self.held.append((y, x))
            for side in (-1, 1):
                dy, dx = side * apart / 2 * math.sin(tilt), side * apart / 2 * math.cos(tilt)
                _join(self.solid, self.ellipse(y + dy, x + dx, *axes, tilt + math.pi / 2 + side * lean))

    def walls(self) -> None:
        """Straight channel walls, sometimes with teeth."""
        source, d = self.source, self.diameter
        tilt, half = source.uniform(0, math.pi), d * source.uniform(0.08, 0.8)
        pitch, offset = d * source.uniform(1.3, 6) + 2 * half, source.uniform(-0.5, 0.5) * self.canvas
        along, across = self.turned(tilt, self.canvas / 2, self.canvas / 2)
        across = across - offset
        for number in range(-6, 7) if source.random() < 0.5 else range(source.integers(1, 3)):
            _join(self.solid, np.abs(across - number * pitch) - half)
        if source.random() < 0.4:
            pitch, length = d * source.uniform(1.5, 4), d * source.uniform(1, 5)
            tooth = np.abs((along % pitch) - pitch / 2) - half * source.uniform(0.4, 1)
            _join(self.solid, np.maximum(tooth, np.abs(across) - length))

    def posts(self) -> None:
        """Round posts in a row, or in a grid."""
        source, wide = self.source, self.canvas
        radius = self.diameter * source.uniform(0.25, 1.1)
        step = radius * source.uniform(3, 8)
        along, across = self.turned(source.uniform(0, math.pi), *source.uniform(0.1 * wide, 0.9 * wide, 2))
        if source.random() < 0.5:
            across = (across + step / 2) % step - step / 2
        _join(self.solid, np.hypot((along % step) - step / 2, across) - radius)

    def letters(self) -> None:
        """One to four letters."""
        for _ in range(int(self.source.integers(1, 5))):
            self.letter()

    def turned(self, tilt: float, y: float, x: float) -> tuple[Floats, Floats]:
        """Coordinates of all pixels along and across a direction, from a point."""
        rows, columns = self.rows - y, self.columns - x
        along = rows * math.sin(tilt) + columns * math.cos(tilt)
        return along, rows * math.cos(tilt) - columns * math.sin(tilt)

    def letter(self) -> None:
        """Strokes between the points of a grid of 3 × 3, and circles; sometimes their outlines alone."""
        source = self.source
        high = float(np.clip(self.diameter * source.uniform(2, 6), 20, 140))
        tilt, (y, x) = source.choice([0.0, source.uniform(0, 2 * math.pi)]), source.uniform(0, self.canvas, 2)
        half, glyph = high * source.uniform(0.04, 0.12), np.full_like(self.solid, 99.0)
        for _ in range(int(source.integers(2, 5))):
            ends = source.integers(-1, 2, (2, 2)) * (high / 2, 0.3 * high)
            ends = np.array([y, x]) + ends @ [[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]]
            if source.random() < 0.3:
                middle = ends.mean(axis=0)
                _join(glyph, np.abs(np.hypot(self.rows - middle[0], self.columns - middle[1]) - high / 4) - half)
            else:
                _join(glyph, self.stroke(*ends) - half)
        _join(self.solid, np.abs(glyph) - half * 0.3 if source.random() < 0.3 else glyph)

    def ellipse(self, y: float, x: float, long_px: float, short_px: float, angle: float) -> Floats:
        """Signed distance to an ellipse: 0 on its outline, elsewhere within a factor of the root of its axes' ratio."""
        along, across = self.turned(angle, y, x)
        return np.asarray((np.hypot(along / long_px, across / short_px) - 1) * math.sqrt(long_px * short_px))

    def stroke(self, start: Points, end: Points) -> Floats:
        """Distance to a line between two points."""
        dy, dx = end[0] - start[0], end[1] - start[1]
        rows, columns = self.rows - start[0], self.columns - start[1]
        at = ((rows * dy + columns * dx) / max(dy * dy + dx * dx, 1e-6)).clip(0, 1)
        return np.asarray(np.hypot(rows - at * dy, columns - at * dx))

    # Cells are rows of (y, x, long semi-axis, short semi-axis, angle).

    def grow(self, crowding: str) -> Points:
        """Cells in colonies: each touches one that is there."""
        source, d = self.source, self.diameter
        cells = np.zeros((0, 5))
        if crowding == "none":
            return cells
        wanted = max(source.uniform(*COVER[crowding]) * self.canvas**2, 1.0)
        spread, long = source.uniform(0.03, 0.25), source.choice([1.15, 1.35, 1.8], p=[0.5, 0.4, 0.1])
        budding, tight = source.choice([0.0, 0.3, 0.7]), source.uniform(0.86, 1.0)
        compact = 0.95 if crowding == "dense" else source.uniform(0, 1)
        most, colony = {"single": (3, 2), "sparse": (MOST, 6), "colonies": (MOST, 25), "dense": (MOST, MOST)}[crowding]
        misses, left, first = 0, 0, 0
        while math.pi * (cells[:, 2] * cells[:, 3]).sum() < wanted and misses < 300 and len(cells) < most:
            cell = self.cell(d * math.exp(source.normal(0, spread)), source.uniform(1.0, long))
            if left and source.random() < 0.97:
                members = cells[first:]
                # Skewed to the youngest members, which are most likely at the edge of the colony and have room.
                parent = members[int(len(members) * source.uniform(0, 1) ** 0.4)]
                about = members[0, :2] if source.random() < compact else None
                placed = self.beside(cells, cell, parent, tight, source.uniform(0, 2 * math.pi, 16), about)
            else:
                first, left = len(cells), int(source.integers(1, colony + 1)) + 1
                placed = self.kept(cells, cell, self.somewhere(crowding)[None], tight)
                left = left if placed is not None else 0
            if placed is None:
                # A colony that is shut in is given up for a new one. The field is full after 300 misses, of which every
                # success takes back five.
                misses += 1
                left = 0 if misses % 30 == 0 else left
                continue
            misses, left = max(0, misses - 5), left - 1
            cells = np.vstack([cells, placed])
            if source.random() < budding and (bud := self.bud(cells, placed)) is not None:
                cells = np.vstack([cells, bud])
        return cells

    def somewhere(self, crowding: str) -> Points:
        """Where a colony begins."""
        source, wide = self.source, self.canvas
        if self.held and source.random() < 0.95:
            held = np.array(self.held[source.integers(len(self.held))])
            return np.asarray(held + source.normal(0, 0.25 * self.diameter, 2))
        return source.uniform(0, wide, 2) if crowding != "single" else source.uniform(0.25 * wide, 0.75 * wide, 2)

    def bud(self, cells: Points, mother: Points) -> Points | None:
        """A bud near an end of its mother, or None if it is too small or has no room."""
        source, across = self.source, 2 * mother[3] * self.source.uniform(0.3, 0.8)
        if across < SMALLEST_BUD_PX:
            return None
        bud = self.cell(across, source.uniform(1.0, 1.35), smallest=SMALLEST_BUD_PX)
        turns = mother[4] + source.choice([0, math.pi]) + source.normal(0, 0.5, 4)
        bud[4] = turns[0]
        return self.beside(cells, bud, mother, 0.9, turns)

    def cell(self, across: float, stretch: float, smallest: float | None = None) -> Points:
        """A cell at the origin, of a diameter `across` clipped to the range of sizes, and of random angle."""
        short = float(np.clip(across / math.sqrt(stretch), smallest or self.range[0], self.range[1])) / 2
        long = min(short * stretch, self.range[1] / 2)
        return np.array([0.0, 0.0, max(long, short), short, self.source.uniform(0, 2 * math.pi)])

    def beside(
        self,
        cells: Points,
        cell: Points,
        parent: Points,
        tight: float,
        turns: Points,
        about: Points | None = None,
    ) -> Points | None:
        """The cell touching its parent in the first direction of `turns` where it is free; None if there is none.

        With `about`, directions that lead nearer to that place come first, which makes compact colonies.
        """
        apart = (_reach(cell, turns) + _reach(parent, turns)) * tight * self.source.uniform(1.0, 1.08)
        at = parent[:2] + apart[:, None] * np.stack([np.sin(turns), np.cos(turns)], axis=1)
        if about is not None:
            at = at[np.argsort(((at - about) ** 2).sum(axis=1))]
        return self.kept(cells, cell, at, tight * 0.995)

    def kept(self, cells: Points, cell: Points, at: Points, tight: float) -> Points | None:
        """The cell at the first of the places `at` (n, 2) where it overlaps nothing; None if there is none.

        Two ellipses count as apart if their centres are further apart than both radii in that direction. That is exact
        for circles, and lets ellipses overlap a little; `paint` divides what two cells share.
        """
        free = ((at > -0.2 * self.diameter) & (at < self.canvas + 0.2 * self.diameter)).all(axis=1)
        if self.clear is not None:
            y, x = at.astype(int).clip(0, self.canvas - 1).T
            free &= self.clear[y, x] > 0.95 * cell[3]
        if len(cells):
            far = cell[2] + cells[:, 2].max()
            cells = cells[((cells[:, :2] > at.min(axis=0) - far) & (cells[:, :2] < at.max(axis=0) + far)).all(axis=1)]
            apart = at[:, None] - cells[None, :, :2]
            turns = np.arctan2(apart[..., 0], apart[..., 1])
            least = tight * (_reach(cell, turns) + _reach(cells.T[..., None, :], turns))
            free &= (np.hypot(apart[..., 0], apart[..., 1]) >= least - 1e-6).all(axis=1)
        if not free.any():
            return None
        return np.concatenate([at[int(free.argmax())], cell[2:]])

    def paint(self) -> None:
        """Draw the cells: sets `ids`, `depth` (pixels below the outline) and `inner` (optical thickness of bodies)."""
        source, shape = self.source, (self.canvas, self.canvas)
        best, second, inner = (
            np.full(shape, 99.0, np.float32),
            np.full(shape, 99.0, np.float32),
            np.zeros(shape, np.float32),
        )
        ids = np.zeros(shape, np.int32)
        bodies = source.choice(["vacuole", "granules", "spores", "mixed"], p=[0.35, 0.3, 0.1, 0.25])
        bent = source.uniform(0, 0.05)
        gap = min(1.0, 0.03 * self.diameter) * source.choice([0.0, 0.0, source.uniform(0, 1)])
        for number, (y, x, long, short, angle) in enumerate(self.cells, start=1):
            reach = long * 1.15 + 5
            box = tuple(slice(max(0, int(c - reach)), max(0, min(self.canvas, int(c + reach) + 2))) for c in (y, x))
            rows, columns = self.rows[box[0]] - y, self.columns[:, box[1]] - x
            if not rows.size or not columns.size:
                continue
            along = (rows * math.sin(angle) + columns * math.cos(angle)) / long
            across = (rows * math.cos(angle) - columns * math.sin(angle)) / short
            radius = np.hypot(along, across) + 1e-6
            # The real part of (along + i across)³ is cos 3θ, without a trigonometric function for each pixel.
            three = (along**3 - 3 * along * across**2) / radius**3 * bent * source.uniform(-1, 1)
            away = (radius / (1 + three) - 1) * math.sqrt(long * short)
            nearer = away < best[box]
            second[box] = np.where(nearer, best[box], np.minimum(second[box], away))
            best[box] = np.where(nearer, away, best[box])
            ids[box] = np.where(nearer, number, ids[box])
            inner[box] += self.bodies(bodies, rows, columns, long, short, angle)
        # Where two cells overlap, the outline between them is where both distances are equal, and half their difference
        # is the distance to it.
        depth = np.minimum(-best, (second - best) / 2)
        ids[(depth <= gap) | (self.solid < 0.5)] = 0
        self.ids, self.depth, self.inner = _one_part_each(ids), depth, inner

    def bodies(self, kind: str, rows: Floats, columns: Floats, long: float, short: float, angle: float) -> Floats:
        """Vacuoles, spores or granules of a cell, as optical thickness relative to the cell's."""
        source = self.source
        drawn = np.zeros((rows.size, columns.size), np.float32)
        kind = str(source.choice(["vacuole", "granules"])) if kind == "mixed" else kind
        if short < 4 or source.random() < 0.15:
            return drawn
        wanted = []
        if kind == "spores":
            turn = source.uniform(0, math.pi)
            for quarter in range(4):
                at = turn + quarter * math.pi / 2
                wanted.append((0.42 * math.sin(at), 0.42 * math.cos(at), 0.36, source.uniform(0.3, 1.0)))
        if kind == "vacuole" or source.random() < 0.4:
            away, at, radius = source.uniform(0, 0.4), source.uniform(0, 2 * math.pi), source.uniform(0.25, 0.55)
            wanted.append((away * math.sin(at), away * math.cos(at), radius, source.uniform(-0.9, -0.1)))
        if kind == "granules":
            for _ in range(int(source.integers(1, 8))):
                away, at = 0.75 * math.sqrt(source.uniform()), source.uniform(0, 2 * math.pi)
                wanted.append(
                    (away * math.sin(at), away * math.cos(at), source.uniform(0.06, 0.2), source.uniform(-0.4, 0.9))
                )
        for v, u, radius, strength in wanted:
            y, x = (
                u * long * math.sin(angle) + v * short * math.cos(angle),
                u * long * math.cos(angle) - v * short * math.sin(angle),
            )
            far = ((rows - y) ** 2 + (columns - x) ** 2) / max(radius * short, 0.8) ** 2
            drawn += strength * np.sqrt((1 - far).clip(0))
        return drawn


def _light(field: Field, source: np.random.Generator, plane: int, planes: int) -> tuple[Floats, float]:
    """Brightness relative to the empty field, minus 1, and its standard deviation where cells and structures are.

    The field is a thin object: it delays a plane wave by `phase` and absorbs a part of it. The microscope multiplies
    the wave's Fourier transform by a transfer function; the intensity is the squared magnitude of the result.
    """
    d, shape, cells = field.diameter, field.ids.shape, field.cells
    ring = source.random() < 0.5
    softness, texture, wall = source.uniform(1.6, 5), source.uniform(0, 0.35), source.uniform(-0.3, 0.6)
    typical = source.uniform(0.4, 3.0) if ring else source.uniform(0.4, 2.2)
    if field.held:  # pillars are taller than cells
        typical *= source.uniform(0.25, 1)
    thick = np.concatenate([[0], typical * np.exp(source.normal(0, 0.2, len(cells)))]).astype(np.float32)
    radius = np.concatenate([[1], cells[:, 3]]).astype(np.float32)
    # An outline is drawn in the bright ring about a cell, a little outside of where the cell ends.
    depth = np.where(field.ids > 0, field.depth - (source.uniform(0, 0.025) * d if ring else 0), 0).clip(0)
    share = 1 - (1 - depth / radius[field.ids]).clip(0)
    height = np.sqrt(1 - (1 - share) ** softness)
    shell = max(0.05 * d, 1.0)
    grains = _noise(source, shape, max(0.8, source.uniform(0.02, 0.08) * d))
    phase = height * (1 + texture * grains + field.inner) + wall * np.exp(-(((depth - shell) / shell) ** 2)) * (
        depth > 0
    )
    phase *= thick[field.ids]
    absorbed = source.choice([0.0, source.uniform(0, 0.3)]) * height * (1 + 0.5 * texture * grains)
    if field.clear is not None:
        strength = source.choice([-1, 1]) * math.exp(source.uniform(-1, 1.9))
        ramp, dome = source.uniform(1, 0.25 * d + 1), source.choice([0.5, 1.0, 2.0])
        phase += strength * (1 - (1 - (-field.solid / ramp).clip(0, 1)) ** 2) ** dome
        absorbed = absorbed + source.uniform(-0.1, 0.2) * (field.solid < 0)
    if field.held and source.random() < 0.4:  # what is out of focus between pillars
        reach, dark = d * source.uniform(0.3, 0.8), source.uniform(-0.3, 0.6)
        for y, x in field.held:
            away = (field.rows - y) ** 2 + (field.columns - x) ** 2
            absorbed = absorbed + dark * np.exp(-away / (2 * reach**2))
    _debris(field, source, phase, absorbed)
    low, blur = 0.0, source.uniform(0.4, 1.0) + 0.015 * d * source.uniform(0, 1)
    if ring:
        low, ratio = float(np.clip(d * math.exp(source.uniform(-2.7, -0.9)), 2, 25)), source.uniform(0.2, 0.8)
        bright = source.random() < 0.2
        # Bright cells with a dark inside would look as dark ones do with their halo, and end elsewhere.
        low, advance = max(low, 0.25 * d * bright), 1j if bright else -1j
        focus = source.choice([-1, 1]) * source.uniform(0, max(1.5, 0.06 * d))
    else:
        focus = source.choice([-1, 1]) * source.uniform(0.8, float(np.clip(0.3 * d, 2, 9)))
    if planes > 1:
        focus = abs(focus) * (2 * plane / (planes - 1) - 1)
    length = fft.next_fast_len(shape[0])
    wave = np.exp(1j * phase - absorbed).astype(np.complex64)
    # Padded with the empty field, to a length that the FFT is fast for.
    wave = np.pad(wave, (0, length - shape[0]), constant_values=1)
    squared = (fft.fftfreq(length)[:, None] ** 2 + fft.fftfreq(length)[None, :] ** 2).astype(np.float32)
    # Defocus is Fresnel propagation: exp(iπ λz q²) with |λz| = focus² in square pixels; the sign of `focus` is the side
    # of the focal plane. Light comes from many directions, which blurs fringes in proportion to the defocus.
    spread = blur**2 + (source.uniform(0.15, 0.45) * focus) ** 2
    transfer = np.exp((1j * math.pi * math.copysign(focus**2, focus) - 2 * math.pi**2 * spread) * squared)
    if ring:
        # Phase contrast: the direct light is dimmed to `ratio` and shifted by a quarter wave, which turns phase into
        # brightness. The ring also covers frequencies below 1 / (2π `low`), and that makes the halo.
        transfer *= 1 + (ratio * advance - 1) * np.exp(-2 * math.pi**2 * low**2 * squared)
    seen = fft.ifft2(fft.fft2(wave) * transfer.astype(np.complex64))[: shape[0], : shape[1]]
    light = (seen.real**2 + seen.imag**2) / (ratio**2 if ring else 1) - 1
    near = (field.depth > -3) | (field.solid < 3)
    return light.astype(np.float32), float(light[near].std() if near.any() else light.std()) + 1e-3


def _debris(field: Field, source: np.random.Generator, phase: Floats, absorbed: Floats) -> None:
    """Add specks, and dark soft granular blobs like dead cells out of focus. Both are background, away from cells.

    Changes `phase` and `absorbed` in place.
    """
    d, wide = field.diameter, field.canvas
    many = source.choice([0.0, 0.5, 2.0, 6.0], p=[0.3, 0.3, 0.25, 0.15])
    for _ in range(int(source.poisson(many * wide**2 / 256**2))):
        y, x = source.uniform(0, wide, 2)
        large = source.random() < 0.4
        size = d * source.uniform(0.25, 0.5) if large else max(0.7, d * source.uniform(0.02, 0.09))
        if field.depth[int(y), int(x)] > -1 or (large and _near(field, y, x, size)):
            continue
        reach = int(3 * size) + 3
        box = tuple(slice(max(0, int(c) - reach), min(wide, int(c) + reach + 1)) for c in (y, x))
        away = np.hypot(field.rows[box[0]] - y, field.columns[:, box[1]] - x)
        empty = field.ids[box] == 0
        if large:
            soft = size * source.uniform(0.15, 0.4)
            grains = ndimage.gaussian_filter(source.normal(size=away.shape), max(0.8, 0.15 * size))
            blob = (1 + source.uniform(0, 1) * grains / grains.std()) / (
                1 + np.exp(((away - 0.8 * size) / soft).clip(-30, 30))
            )
            absorbed[box] += empty * blob * source.uniform(0.05, 0.5)
        else:
            phase[box] += empty * source.choice([-1, 1]) * source.uniform(0.3, 2) * np.exp(-((away / size) ** 2))


def _near(field: Field, y: float, x: float, size: float) -> bool:
    box = tuple(slice(max(0, int(c - size)), int(c + size) + 1) for c in (y, x))
    return bool((field.ids[box] > 0).any())


def _camera(
    light: Floats, contrast: float, source: np.random.Generator, optics: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """The picture (H, W) uint8 of a camera, with uneven light and noise.

    Both are relative to the contrast of the cells: otherwise noise would bury faint ones and vanish beside strong ones.
    """
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in light.shape)
    uneven = source.choice([0.0, source.uniform(0, 1.2)])
    slope, centre = source.normal(0, 0.6, 2), source.uniform(-0.5, 0.5, 2)
    fall = (rows[:, None] - centre[0]) ** 2 + (columns[None, :] - centre[1]) ** 2
    shade = uneven * (slope[0] * rows[:, None] + slope[1] * columns[None, :] - source.uniform(0, 0.8) * fall)
    if source.random() < 0.3:
        shade = shade + source.uniform(0, 0.4) * _noise(source, light.shape, light.shape[0] / 8)
    noise = math.exp(source.uniform(math.log(0.02), math.log(0.7)))
    grain = noise * optics.normal(size=light.shape).astype(np.float32)
    if source.random() < 0.3:
        grain = ndimage.gaussian_filter(grain, 0.6) * 1.6
    seen = light / contrast + shade
    low, high = np.percentile(seen, (source.uniform(0, 2), source.uniform(97, 100))) + np.array(
        [-0.5, 0.5]
    ) * source.uniform(0, 4)
    counts = source.uniform(0, 60) + (seen + grain - low) * source.uniform(60, 200) / (high - low)
    return np.asarray(np.clip(np.rint(counts), 0, 255).astype(np.uint8))


def _join(solid: Floats, other: npt.NDArray[np.floating]) -> None:
    np.minimum(solid, other, out=solid, casting="unsafe")


def _reach(cell: Points, turns: Points) -> Points:
    """Distance from the centre of an ellipse to its outline in the directions `turns`."""
    long, short, angle = cell[2], cell[3], cell[4]
    return np.asarray(1 / np.hypot(np.cos(turns - angle) / long, np.sin(turns - angle) / short))


def _one_part_each(ids: Labels) -> Labels:
    """Ids (H, W), changed in place so that of every cell only its largest connected part remains."""
    for number, box in enumerate(ndimage.find_objects(ids), start=1):
        if box is None:
            continue
        parts, count = ndimage.label(ids[box] == number)
        if count > 1:
            sizes = np.bincount(parts.ravel())[1:]
            ids[box][(parts > 0) & (parts != sizes.argmax() + 1)] = 0
    return ids


def _noise(source: np.random.Generator, shape: tuple[int, ...], smoothing_px: float) -> Floats:
    """Smoothed white noise of unit standard deviation."""
    smooth = ndimage.gaussian_filter(source.normal(size=shape).astype(np.float32), smoothing_px)
    return np.asarray(smooth / smooth.std())
