"""Measurements of cells: those of scikit-image, the same bits in windows of any size, and the table in a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from skimage.measure import regionprops_table

from yeastexp.errors import UserError
from yeastexp.prediction import cell_table
from yeastexp.prediction.cell_table import columns, measure, measure_in_windows, write_csv

Array = npt.NDArray[Any]

EXACT = ("label", "area", "bbox", "intensity_min", "intensity_max")
ROUNDED = (
    *("centroid", "axis_major_length", "axis_minor_length", "eccentricity", "solidity", "perimeter"),
    *("equivalent_diameter_area", "intensity_mean"),
)


def blobs(seed: int) -> Array:
    """Smooth blobs, with holes."""
    generator = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(generator.random((70, 90)), generator.uniform(0.5, 3))
    return np.asarray(ndimage.label(smooth > 0.5)[0])


def packed(seed: int) -> Array:
    """Discs that touch, with missing pixels."""
    generator = np.random.default_rng(seed)
    points = generator.random((2, 30, 1, 1)) * np.reshape([80, 60], (2, 1, 1, 1))
    squares = ((np.indices((80, 60))[:, None] - points) ** 2).sum(axis=0)
    return (squares.argmin(axis=0) + 1) * (squares.min(axis=0) < 80) * (generator.random((80, 60)) > 0.03)


def scattered(seed: int) -> Array:
    """Cells in many pieces, each of which touches most others."""
    return np.random.default_rng(seed).integers(0, 12, (40, 37))


def hand_made() -> Array:
    """One pixel, lines in four directions, a ring, a U, two pieces far apart, and the corners of the image."""
    labels = np.zeros((40, 50), np.int64)
    labels[3, 3] = 1
    labels[6, 2:20] = labels[7, 20:25] = 2
    labels[8:30, 2] = 3
    labels[np.arange(10, 25), np.arange(10, 25)] = 4
    labels[np.arange(30, 10, -2), np.arange(30, 40)] = 5
    labels[25:34, 5:14] = 6
    labels[27:32, 7:12] = 0
    labels[2:12, 30:45] = 7
    labels[2:9, 33:42] = 0
    labels[36, 3] = labels[37, 40:44] = 9
    labels[:2, :2] = labels[-1, -1] = 12
    labels[0, -1] = 1000
    return labels


SCENES = [*(scene(seed) for scene in (blobs, packed, scattered) for seed in range(5)), hand_made()]


def image_of(labels: Array, dtype: type[np.generic]) -> Array:
    """Two channels of values that add up with rounding errors if they are floats."""
    values = np.random.default_rng(int(labels.sum())).random((2, *labels.shape)) * 60000
    return values.astype(dtype)


def in_windows(labels: Array, image: Array, confidence: Array, rows: int) -> dict[str, Array]:
    return measure_in_windows(
        labels.shape[:2],
        lambda rows, columns: labels[rows, columns],
        lambda rows, columns: image[:, rows, columns],
        lambda rows, columns: confidence[rows, columns],
        pixel_um=0.5,
        rows=rows,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("scene", range(len(SCENES)))
def test_equal_to_scikit_image(scene: int, dtype: type[np.generic]) -> None:
    labels = SCENES[scene].astype(np.uint16)
    image = image_of(labels, dtype)
    table = measure(labels, image)
    reference = regionprops_table(labels, np.moveaxis(image, 0, -1).astype(np.float64), (*EXACT, *ROUNDED))
    assert set(reference) < set(table)
    for name, expected in reference.items():
        values = table[name].astype(np.float64)
        if name.rpartition("-")[0] in EXACT or name in EXACT:
            np.testing.assert_array_equal(values, expected, name)
        elif name in ("axis_minor_length", "eccentricity"):
            # These are roots of what cancels: of a line's variance across, which is 0 here and a rounding error there.
            unit = table["axis_major_length"] if name == "axis_minor_length" else 1
            np.testing.assert_allclose(values**2, expected**2, rtol=1e-9, atol=1e-12 * np.max(unit) ** 2, err_msg=name)
        else:
            np.testing.assert_allclose(values, expected, rtol=1e-9, atol=0, err_msg=name)


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 41])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_same_bits_whatever_the_window(rows: int, dtype: type[np.generic]) -> None:
    for labels in SCENES:
        image = image_of(labels, dtype)
        confidence = np.random.default_rng(1).random(labels.shape).astype(np.float32)
        whole = measure(labels, image, confidence=confidence, pixel_um=0.5)
        pieces = in_windows(labels, image, confidence, rows)
        assert list(whole) == list(pieces) == columns(2, pixel_um=True, confidence=True)
        for name in whole:
            assert whole[name].dtype == pieces[name].dtype, name
            assert whole[name].tobytes() == pieces[name].tobytes(), name


def test_convex_hulls_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = packed(0)
    whole = measure(labels, labels[None])
    monkeypatch.setattr(cell_table, "ROWS_AT_ONCE", 25)
    assert measure(labels, labels[None])["solidity"].tobytes() == whole["solidity"].tobytes()


@pytest.mark.parametrize("scene", range(len(SCENES)))
def test_neighbours_share_a_side_or_a_corner(scene: int) -> None:
    labels = SCENES[scene]
    table = measure(labels, labels[None])
    for label, neighbours in zip(table["label"], table["touching_neighbours"], strict=True):
        around = ndimage.binary_dilation(labels == label, np.ones((3, 3)))
        assert neighbours == len(set(np.unique(labels[around])) - {0, label})


def test_what_scikit_image_does_not_have() -> None:
    labels = np.array([[1, 1, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0]], np.uint8)
    image = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    table = measure(labels, image, confidence=np.arange(16).reshape(4, 4) / 16, pixel_um=0.5)
    assert table["area_um2"].tolist() == [0.5, 0.25, 0.25]
    assert table["touches_border"].tolist() == [True, False, True]
    assert table["touching_neighbours"].tolist() == [1, 1, 0]
    assert table["intensity_sum-0"].tolist() == [1, 6, 8]
    assert table["intensity_sum-1"].tolist() == [33, 22, 24]
    assert table["confidence_mean"].tolist() == [0.5 / 16, 6 / 16, 8 / 16]
    assert {"area_um2", "confidence_mean"}.isdisjoint(measure(labels, image))


@pytest.mark.parametrize(
    ("values", "extremes", "total"),
    [
        (np.full((2, 2), 2**62, np.int64), 2**62, 2.0**64),
        (np.full((2, 2), -(2**62), np.int64), -(2**62), -(2.0**64)),
        (np.full((2, 2), 2**64 - 1, np.uint64), 2.0**64, 2.0**66),
        (np.full((2, 2), 255, np.uint8), 255, 1020),
        (np.full((2, 2), -128, np.int8), -128, -512),
    ],
)
def test_values_of_64_bits_do_not_wrap_around(values: Array, extremes: float, total: float) -> None:
    """What no integer of 64 bits holds is a float."""
    table = measure(np.ones((2, 2), np.int64), values[None])
    found = [table[f"intensity_{name}-0"].tolist() for name in ("min", "max", "sum")]
    assert found == [[extremes], [extremes], [total]]
    assert table["intensity_sum-0"].dtype == (np.int64 if abs(total) < 2**63 else np.float64)


def test_labels_of_any_type_and_size() -> None:
    labels = packed(3)
    table = measure(labels, labels[None])
    for dtype in (np.uint8, np.int16, np.uint32, np.uint64):
        other = measure(labels.astype(dtype), labels[None])
        assert all(other[name].tobytes() == table[name].tobytes() for name in table)
    sparse = np.where(labels, 2**32 - 1 - labels, 0)
    assert measure(sparse, labels[None])["label"].tolist() == (2**32 - 1 - table["label"][::-1]).tolist()
    with pytest.raises(UserError, match="label 4294967296 is too large; number the cells from 1"):
        measure(np.array([[1 << 32]]), np.zeros((1, 1, 1)))


def test_unlabelled_pixels_and_images_without_cells() -> None:
    labels = hand_made()
    table = measure(labels, labels[None])
    unlabelled = measure(np.where(labels, labels, -1), labels[None])
    assert all(unlabelled[name].tobytes() == table[name].tobytes() for name in table)
    empty = measure(np.zeros((5, 4), np.uint8), np.zeros((3, 5, 4)))
    assert list(empty) == columns(3) and not any(len(values) for values in empty.values())


def test_each_window_is_read_once() -> None:
    labels, rows_read = packed(1), np.zeros(80, int)

    def read(rows: slice, columns: slice) -> Array:
        rows_read[rows] += 1
        return labels[rows, columns]

    measure_in_windows((80, 60), read, lambda rows, columns: labels[None, rows, columns], rows=20)
    assert rows_read.max() == 2 and (rows_read == 2).sum() == 3 * 2 * cell_table.HALO


def test_a_line_a_cell(tmp_path: Path) -> None:
    labels = packed(2)
    tables = [(name, measure(labels, image_of(labels, np.float32))) for name in ('a, "b".tif', "c.tif")]
    names = columns(2, pixel_um=True)
    write_csv(tmp_path / "new" / "cells.csv", iter(tables), names)
    with (tmp_path / "new" / "cells.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["image", *names]
    assert [line["image"] for line in lines] == [name for name, table in tables for _ in table["label"]]
    assert {line["area_um2"] for line in lines} == {""}
    assert [int(line["area"]) for line in lines] == [area for _, table in tables for area in table["area"]]
    for name in ("centroid-0", "solidity", "intensity_mean-1"):
        assert [float(line[name]) for line in lines] == [value for _, table in tables for value in table[name]]


def test_long_tables_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = packed(2)
    table = measure(labels, labels[None])
    write_csv(tmp_path / "whole.csv", [("a", table)], columns(1))
    monkeypatch.setattr(cell_table, "LINES_AT_ONCE", 7)
    write_csv(tmp_path / "parts.csv", [("a", table)], columns(1))
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_no_table_is_left_half_written(tmp_path: Path) -> None:
    labels = packed(2)

    def tables() -> Iterator[tuple[str, dict[str, Array]]]:
        yield "a", measure(labels, labels[None])
        raise UserError("b.tif: cannot be decoded")

    with pytest.raises(UserError, match="cannot be decoded"):
        write_csv(tmp_path / "new" / "cells.csv", tables(), columns(1))
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cells\.csv: cannot be written \(.+\); make room or name another place"):
        write_csv(tmp_path / "file" / "cells.csv", [], columns(1))
