"""The hills of cells: closed forms, symmetries and borders."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from yeastexp.tasks.hills import hills

Ids = npt.NDArray[np.int32]


def disc(radius: float, size: int, centre: tuple[float, float]) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:size, :size]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


def blobs(seed: int, size: tuple[int, int]) -> Ids:
    """Random ids: regions of all shapes, some in several pieces, many at the border."""
    source = np.random.default_rng(seed)
    coarse = source.integers(0, 7, (-(-size[0] // 5), -(-size[1] // 5)))
    ids = np.kron(coarse, np.ones((5, 5), int))[: size[0], : size[1]]
    ids[source.random(size) < 0.1] = 0
    return ids.astype(np.int32)


def test_a_disc_has_the_hill_of_the_closed_form() -> None:
    """∇²u = -1 in a disc is solved by (R² - r²) / 4, so the hill is √(1 - r²/R²)."""
    inside = disc(40.2, 101, (50, 50))
    rows, columns = np.mgrid[:101, :101]
    away = np.hypot(rows - 50, columns - 50)
    expected = np.sqrt(np.clip(1 - (away / 40.7) ** 2, 0, 1))
    hill = hills(inside.astype(np.int32))
    core = away < 32  # beyond, the outline's steps show
    assert np.abs(hill - expected)[core].max() < 0.01
    assert hill.max() == 1 and (hill[~inside] == 0).all() and (hill[inside] > 0).all()


def test_a_pixel_and_a_pair_are_as_high_as_can_be() -> None:
    ids = np.zeros((5, 7), np.int32)
    ids[1, 1], ids[3, 3:5] = 4, 9
    assert hills(ids)[[1, 3, 3], [1, 3, 4]].tolist() == [1, 1, 1]
    assert not hills(np.zeros((4, 4), np.int32)).any() and not hills(np.full((4, 4), -1)).any()


@pytest.mark.parametrize(("up", "left", "turned"), list(product((False, True), repeat=3)))
def test_the_hills_of_a_flipped_image_are_the_flipped_hills(up: bool, left: bool, turned: bool) -> None:
    def flipped(plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        plane = plane[::-1] if up else plane
        plane = plane[:, ::-1] if left else plane
        return plane.T if turned else plane

    for seed in range(3):
        ids = blobs(seed, (43, 38))
        assert np.array_equal(hills(np.ascontiguousarray(flipped(ids))), flipped(hills(ids)))


def test_cells_do_not_depend_on_their_numbers_or_on_others() -> None:
    ids = blobs(1, (40, 40))
    assert np.array_equal(hills(ids * 1000), hills(ids))
    alone = np.where(ids == 3, ids, 0)
    assert np.abs(hills(alone) - np.where(ids == 3, hills(ids), 0)).max() < 1e-3


def test_a_cell_cut_by_the_border_goes_on_beyond_it() -> None:
    """Half a cell has half the hill of the whole one, whose mirror image lies beyond the border."""
    whole = disc(15, 64, (31.5, 31.5)).astype(np.int32)
    half = np.ascontiguousarray(whole[32:])
    assert np.abs(hills(half) - hills(whole)[32:]).max() < 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_the_hills_solve_the_equations(seed: int) -> None:
    """A direct solver of the sparse equations gives the same, within the precision of the iteration."""
    ids = blobs(seed, (30, 41))
    ids[0], ids[-1], ids[:, 0], ids[:, -1] = 0, 0, 0, 0  # away from borders, where cells are mirrored
    rows, columns = np.nonzero(ids)
    place = np.full(ids.shape, -1)
    place[rows, columns] = np.arange(len(rows))
    links = [
        (place[y, x], place[y + down, x + right])
        for y, x in zip(rows, columns, strict=True)
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))
        if ids[y, x] == ids[y + down, x + right]
    ]
    here, there = np.array(links).T
    size = (len(rows), len(rows))
    equations = sparse.csc_array(
        4 * sparse.identity(len(rows)) - sparse.coo_array((np.ones(len(links)), (here, there)), size)
    )
    times = spsolve(equations, np.ones(len(rows)))
    longest = ndimage.maximum(times, ids[rows, columns], ids[rows, columns])
    assert np.abs(hills(ids)[rows, columns] - np.sqrt(times / longest)).max() < 2e-3


def test_a_strip_from_border_to_border_is_as_high_everywhere_along_it() -> None:
    """In one dimension u_k = k (n + 1 - k) / 2 solves the equations; cells beside it do not change that."""
    ids = np.zeros((40, 4), np.int32)
    ids[5:26], ids[30:33, 1:3] = 1, 2
    place = np.arange(1, 22)
    expected = np.sqrt(place * (22 - place) / 121)
    assert np.abs(hills(ids)[5:26] - expected[:, None]).max() < 1e-3
    assert hills(np.ones((7, 9), np.int32)).min() > 0.99, "a cell without an outline has no slope"
