"""Measurements of the cells of a label image, taken in bands of rows, and the table of them.

Names and definitions are those of scikit-image's `regionprops_table`, in pixels; that has no `area_um2`,
`touches_border`, `touching_neighbours` (other cells that share a pixel's side or corner), `intensity_sum` and
`confidence_mean`. Minor axes of lines are 0 here, and rounding errors there.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.data.pieces import Size, bands, shifted
from yeastexp.errors import UserError
from yeastexp.metrics import regions
from yeastexp.system import files

Array = npt.NDArray[Any]
Table = dict[str, Array]
Read = Callable[[slice, slice], Array]
"""Returns the given rows and columns of an image."""

HALO = 2
"""Rows beyond a band that the outlines in it depend on: the neighbours of border pixels, and their neighbours."""

LARGEST_ID = (1 << 32) - 1

ROWS_AT_ONCE = 1 << 18
"""The sum of the heights, in rows, of cells whose convex hulls are in memory together."""

LINES_AT_ONCE = 1 << 14


def columns(channels: int, *, pixel_um: bool = False, confidence: bool = False) -> list[str]:
    """Return the names of a table's columns, in order."""
    return [
        *("label", "centroid-0", "centroid-1", "area", *(["area_um2"] if pixel_um else [])),
        *("bbox-0", "bbox-1", "bbox-2", "bbox-3", "axis_major_length", "axis_minor_length", "eccentricity"),
        *("solidity", "perimeter", "equivalent_diameter_area", "touches_border", "touching_neighbours"),
        *(f"intensity_{name}-{channel}" for channel in range(channels) for name in ("mean", "min", "max", "sum")),
        *(["confidence_mean"] if confidence else []),
    ]


def measure(labels: Array, image: Array, *, confidence: Array | None = None, pixel_um: float | None = None) -> Table:
    """Return the measurements of the cells of a label image (H, W): a row for each cell, by ascending label.

    Intensities are those of an image (C, H, W), confidences those of a map (H, W). Pixels of 0 and less belong to no
    cell. Raises UserError if a label is above `LARGEST_ID`.
    """
    return measure_in_windows(
        (labels.shape[0], labels.shape[1]),
        lambda rows, columns: labels[rows, columns],
        lambda rows, columns: image[:, rows, columns],
        (lambda rows, columns: confidence[rows, columns]) if confidence is not None else None,
        pixel_um=pixel_um,
    )


def measure_in_windows(
    size: Size,
    read_labels: Read,
    read_image: Read,
    read_confidence: Read | None = None,
    *,
    pixel_um: float | None = None,
    rows: int | None = None,
) -> Table:
    """Return what `measure` does of an image that is read in windows of `rows` rows and the whole width.

    Labels are read with `HALO` rows more on either side. One window and the table are in memory. No bit depends on
    `rows`: sums are of integers, or of floats in one order, through the pixels of a cell from left to right and from
    top to bottom.
    """
    height, width = size
    across = slice(0, width)
    kind = read_image(slice(0, 1), across)[:, :0]
    cells = _Cells(len(kind), read_confidence is not None)
    windows = [slice(row, min(row + rows, height)) for row in range(0, height, rows)] if rows else bands(size)
    for window in windows:
        around = slice(max(0, window.start - HALO), min(height, window.stop + HALO))
        inside = read_labels(around, across)
        if inside.itemsize > 4 and inside.max() > LARGEST_ID:
            raise UserError(f"label {inside.max()} is too large; number the cells from 1")
        # A margin of zeros all around, also where the image ends, spares all neighbours a check for the border.
        labels = np.zeros((window.stop - window.start + 2 * HALO, width + 2), inside.dtype)
        labels[shifted(around, HALO - window.start), 1:-1] = inside
        confidence = [read_confidence(window, across)] if read_confidence else []
        cells.add(window.start, labels, [*read_image(window, across), *confidence])
    return cells.table(size, kind.dtype, pixel_um)


def write_csv(path: Path, tables: Iterable[tuple[str, Table]], columns: Sequence[str]) -> None:
    """Write a line for each cell: the name of its image, then `columns`, empty where a table lacks one.

    Tables may come from a generator, so that one is in memory at a time. Floats are written with the digits that give
    back their bits. Raises UserError if the file cannot be written.
    """
    try:
        with files.appearing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["image", *columns])
            for image, table in tables:
                for first in range(0, len(table["label"]), LINES_AT_ONCE):
                    part = {name: values[first : first + LINES_AT_ONCE].tolist() for name, values in table.items()}
                    missing = [""] * len(part["label"])
                    lines = zip(*(part.get(name, missing) for name in columns), strict=True)
                    writer.writerows((image, *line) for line in lines)
    except OSError as error:
        raise files.unwritten(path, error) from error


class _Cells:
    """Sums and extremes of each cell over all windows so far, a row for each cell in the order they were met in."""

    def __init__(self, channels: int, confidence: bool) -> None:
        self.channels, self.confidence = channels, confidence
        self.ids, self.rows = np.empty(0, np.int64), np.empty(0, np.int64)
        """All labels, ascending, and the row of each in the arrays below."""
        # Sums of squares may overflow in a huge image: they wrap around, and so does what `regions.ellipse_axes`
        # subtracts from them.
        self.sums = np.zeros((0, 9), np.int64)
        """Pixels; sums of r, c, r², c² and rc; border pixels of each class of `regions.PERIMETER_LENGTHS`."""
        self.least, self.greatest = np.empty((0, 2 + channels)), np.empty((0, 2 + channels))
        """The extremes of rows, of columns and of each channel."""
        self.totals = np.zeros((0, channels + confidence))
        """The sums of each channel and of the confidence."""
        self.touching = [np.empty(0, np.uint64)]
        """Pairs of labels of cells that touch, the smaller label in the upper 32 bits."""
        self.outermost = [np.empty((3, 0), np.int32)]
        """Groups, rows and values of points, as `regions.convex_areas` takes them; row i has groups 2i and 2i + 1."""

    def add(self, top: int, labels: Array, planes: Sequence[Array]) -> None:
        """Add the pixels of a window whose first row is `top`.

        `labels` has `HALO` rows more above and below and a column more at both sides; `planes` (h, W) have not: the
        channels, then the confidence, if any.
        """
        # Everything but outlines is summed by runs, stretches of one label in a row, of which there are far fewer than
        # pixels. They are sorted by label, stably: the runs of a cell stay in reading order, so that its sums of floats
        # have one order whatever the windows are.
        inner = labels[HALO:-HALO, 1:-1]
        starts = np.ones(inner.shape, bool)
        np.not_equal(inner[:, 1:], inner[:, :-1], out=starts[:, 1:])
        begins = np.flatnonzero(starts)
        row, column = np.divmod(begins, inner.shape[1])
        label, length = inner[row, column].astype(np.int64), np.diff(begins, append=inner.size)
        run = np.flatnonzero(label > 0)
        run = run[np.argsort(label[run], kind="stable")]
        if not run.size:
            return
        row, column, label, length = row[run] + top, column[run], label[run], length[run]
        first = np.flatnonzero(np.diff(label, prepend=0))
        ids, index = label[first], np.repeat(np.arange(len(first)), np.diff(first, append=len(run)))
        at = self._rows_of(ids)
        self._add_positions(at, first, row, column, length)
        self._add_values(at, first, index, planes, begins, run)
        self._add_outermost(at[index], row, column, length)
        self._add_outlines(at, ids, labels)

    def _rows_of(self, ids: Array) -> Array:
        """Return the rows of labels, which ascend; new labels are given the next rows."""
        place = np.searchsorted(self.ids, ids)
        new = np.append(self.ids, 0)[place] != ids
        known = len(self.ids)
        self.rows = np.insert(self.rows, place[new], known + np.arange(new.sum()))
        self.ids = np.insert(self.ids, place[new], ids[new])
        # At least doubled, so that copying takes linear time in all.
        if (more := len(self.ids) - len(self.sums)) > 0:
            more = max(more, known)
            self.sums, self.totals = np.pad(self.sums, below := ((0, more), (0, 0))), np.pad(self.totals, below)
            self.least = np.pad(self.least, below, constant_values=np.inf)
            self.greatest = np.pad(self.greatest, below, constant_values=-np.inf)
        return self.rows[np.searchsorted(self.ids, ids)]

    def _add_positions(self, at: Array, first: Array, row: Array, column: Array, length: Array) -> None:
        """Add runs to the sums of rows and columns, and of their products, and to the bounding boxes.

        `first` holds the index of the first run of each cell, `at` the cells' rows.
        """
        # Sums over the columns of a run in closed form: of c, and of c² by the formula for sums of squares.
        stop = column + length
        across = (column + stop - 1) * length // 2
        squares = (stop - 1) * stop * (2 * stop - 1) // 6 - (column - 1) * column * (2 * column - 1) // 6
        for which, values in enumerate((length, row * length, across, row**2 * length, squares, row * across)):
            self.sums[at, which] += np.add.reduceat(values, first)
        for which, (low, high) in enumerate(((row, row + 1), (column, stop))):
            self._extend(at, which, np.minimum.reduceat(low, first), np.maximum.reduceat(high, first))

    def _add_values(
        self, at: Array, first: Array, index: Array, planes: Sequence[Array], begins: Array, run: Array
    ) -> None:
        """Add runs to the totals and extremes of the planes.

        `begins` holds the first pixels of all runs, background included, and `run` the indices of the cells' runs.
        """
        order = np.concatenate([np.arange(len(at)), index])
        for which, plane in enumerate(planes):
            values = np.ascontiguousarray(plane).ravel()
            if which < self.channels:
                low, high = np.minimum.reduceat(values, begins)[run], np.maximum.reduceat(values, begins)[run]
                self._extend(at, 2 + which, np.minimum.reduceat(low, first), np.maximum.reduceat(high, first))
            # `bincount` adds in the order given: first the total of a cell so far, then its runs from top to bottom.
            # Adding up a window first would round differently with other windows.
            sums = np.add.reduceat(values, begins, dtype=np.float64)[run]
            self.totals[at, which] = np.bincount(order, np.concatenate([self.totals[at, which], sums]))

    def _extend(self, at: Array, which: int, low: Array, high: Array) -> None:
        """Extend extremes of cells to those of a window."""
        self.least[at, which] = np.minimum(self.least[at, which], low)
        self.greatest[at, which] = np.maximum(self.greatest[at, which], high)

    def _add_outermost(self, cell: Array, row: Array, column: Array, length: Array) -> None:
        """Keep the first and last pixels of rows that may be vertices of the cells' convex hulls."""
        # The hull of a cell is the hull of the vertices of its hulls in all windows, so other points are dropped now.
        new = np.append(True, (np.diff(cell) != 0) | (np.diff(row) != 0))
        left, right = np.flatnonzero(new), np.flatnonzero(np.append(new[1:], True))
        group = np.concatenate([2 * cell[right], 2 * cell[left] + 1])
        value = np.concatenate([(column + length)[right] - 1, -column[left]])
        points = np.stack([group, np.concatenate([row[right], row[left]]), value])
        self.outermost.append(points[:, regions.hull_vertices(*points)].astype(np.int32))

    def _add_outlines(self, at: Array, ids: Array, labels: Array) -> None:
        """Count border pixels by the number of border pixels beside them, and note which cells touch."""
        # Labels of border pixels alone, in a flat array: a neighbour is a fixed offset away. The columns of zeros at
        # both sides keep offsets that leave a row from meeting a cell.
        middle, step = labels[:, 1:-1], labels.shape[1]
        down, right = middle[1:] != middle[:-1], labels[1:-1, 1:] != labels[1:-1, :-1]
        border = np.zeros((len(labels) - 2, step), bool)
        border[:, 1:-1] = (down[1:] | down[:-1] | right[:, 1:] | right[:, :-1]) & (middle[1:-1] > 0)
        outlines = (labels[1:-1] * border).ravel()
        pixel = np.flatnonzero(border[1:-1]) + step
        own = outlines[pixel]
        same = np.zeros((2, len(pixel)), np.uint8)
        for at_corner, offsets in enumerate(((1, step), (step - 1, step + 1))):
            for offset in offsets:
                before, after = outlines[pixel - offset], outlines[pixel + offset]
                same[at_corner] += before == own
                same[at_corner] += after == own
                # The pair is found from the pixel that comes first; its other pixel may lie in the halo.
                met = np.flatnonzero((after != own) & (after > 0))
                pair = np.minimum(own, after)[met].astype(np.uint64) << 32 | np.maximum(own, after)[met].astype(
                    np.uint64
                )
                self.touching.append(np.unique(pair))
        kinds = regions.PERIMETER_CLASSES[same[1], same[0]]
        counts = np.bincount(4 * np.searchsorted(ids, own.astype(np.int64)) + kinds, minlength=4 * len(ids))
        self.sums[at, 6:] += counts.reshape(-1, 4)[:, 1:]

    def table(self, size: Size, dtype: np.dtype[Any], pixel_um: float | None) -> Table:
        """Return the columns of the table, by ascending label."""
        sums, totals = self.sums[self.rows], self.totals[self.rows]
        least, greatest = self.least[self.rows], self.greatest[self.rows]
        box = np.concatenate([least[:, :2], greatest[:, :2]], axis=1).astype(np.int64)
        area = sums[:, 0]
        major, minor, eccentricity = regions.ellipse_axes(area, sums[:, 1:3], sums[:, 3:6])
        values: Table = {
            "label": self.ids,
            "area": area,
            "axis_major_length": major,
            "axis_minor_length": minor,
            "eccentricity": eccentricity,
            "solidity": area / self._convex_areas(box[:, 2] - box[:, 0]),
            "perimeter": regions.perimeter(sums[:, 6:]),
            "equivalent_diameter_area": np.sqrt(4 * area / np.pi),
            "touches_border": (box[:, :2] == 0).any(axis=1) | (box[:, 2:] == size).any(axis=1),
            "touching_neighbours": self._neighbours(),
        }
        values |= {f"centroid-{axis}": sums[:, 1 + axis] / area for axis in range(2)}
        values |= {f"bbox-{side}": box[:, side] for side in range(4)}
        recorded = dtype if dtype.kind in "iu" else np.dtype(np.float64)
        for channel in range(self.channels):
            total = totals[:, channel]
            values[f"intensity_mean-{channel}"] = total / area
            values[f"intensity_min-{channel}"] = _as(least[:, 2 + channel], recorded)
            values[f"intensity_max-{channel}"] = _as(greatest[:, 2 + channel], recorded)
            values[f"intensity_sum-{channel}"] = _as(total, np.dtype(np.int64)) if dtype.kind in "iu" else total
        if self.confidence:
            values["confidence_mean"] = totals[:, -1] / area
        if pixel_um is not None:
            values["area_um2"] = area * pixel_um**2
        names = columns(self.channels, pixel_um=pixel_um is not None, confidence=self.confidence)
        return {name: values[name] for name in names}

    def _neighbours(self) -> Array:
        """Return the number of cells that each cell touches, by ascending label."""
        pairs = np.unique(np.concatenate(self.touching))
        ends = np.stack([pairs >> 32, pairs & LARGEST_ID]).astype(np.int64)
        return np.bincount(np.searchsorted(self.ids, ends).ravel(), minlength=len(self.ids))

    def _convex_areas(self, heights: Array) -> Array:
        """Return the number of pixels of each cell's convex hull, by ascending label."""
        # Points of all windows are sorted by cell and row, then hulls are taken of a limited number of cells at a time.
        points = np.concatenate(self.outermost, axis=1)
        self.outermost = [points]
        place = np.argsort(self.rows).astype(np.int32)
        points[0] = 2 * place[points[0] // 2] + points[0] % 2
        order = np.argsort(points[0].astype(np.int64) << 32 | points[1])
        begins = np.append(0, np.cumsum(np.bincount(points[0] // 2)))
        parts = np.flatnonzero(np.diff(np.cumsum(heights) // ROWS_AT_ONCE, prepend=-1))
        areas = np.empty(len(heights), np.int64)
        for first, stop in pairwise([*parts, len(heights)]):
            part = points[:, order[begins[first] : begins[stop]]].astype(np.int64)
            group, row, value = part[:, regions.hull_vertices(*part)]
            areas[first:stop] = regions.convex_areas(stop - first, group - 2 * first, row, value)
        return areas


def _as(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return float64 values in a type, or as they are where one is an integer too large for it."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # In float64 the largest integer of 64 bits is rounded up, to one that is too large.
    fits = (values >= float(limits.min)) & (values < float(limits.max) + 1)
    return values.astype(dtype) if fits.all() else values
