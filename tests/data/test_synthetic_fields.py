"""Synthetic yeast under many microscopes: the same every time, exact ids, and the variety that it is for."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Call
from scipy import ndimage

from yeastexp.data.datasets.drawn import Picture
from yeastexp.data.datasets.field_scene import OFTEN, SMALLEST_BUD_PX, STRUCTURES, Field, FieldLook
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.datasets.synthetic_fields import SyntheticFields
from yeastexp.errors import UserError
from yeastexp.randomness import generator

SMALLEST, LARGEST = 8.0, 80.0


@pytest.fixture(scope="module")
def fields() -> list[Field]:
    return [Field(FieldLook(128, SMALLEST, LARGEST, 1), generator(7, "fields", index=index)) for index in range(48)]


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    data = SyntheticFields(images=60, size=96, seed=3)
    return [data.arrays(f"field_{index:03d}") for index in range(60)]


def test_an_image_depends_on_settings_seed_and_number_alone(pictures: list[Picture]) -> None:
    again = pickle.loads(pickle.dumps(SyntheticFields(images=99, size=96, seed=3, val=2)))
    for index in (41, 7):
        assert _same(again.arrays(f"field_{index:03d}"), pictures[index])
    assert not _same(SyntheticFields(images=60, size=96, seed=4).arrays("field_007"), pictures[7])


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in ("raw", "gt", "instances"))


def test_labels_are_ids_of_cells_in_one_piece(fields: list[Field], pictures: list[Picture]) -> None:
    cells = 0
    for ids in (*(field.ids for field in fields), *(picture["instances"] for picture in pictures)):
        for number, box in enumerate(ndimage.find_objects(ids), start=1):
            if box is not None:
                cells += 1
                assert ndimage.label(ids[box] == number)[1] == 1
    assert cells > 500


def test_the_mask_is_where_ids_are(pictures: list[Picture]) -> None:
    for picture in pictures:
        assert np.array_equal(picture["gt"], (picture["instances"] > 0).astype(np.uint8))


def test_cells_are_as_large_as_asked_for(fields: list[Field]) -> None:
    sizes = np.concatenate([2 * field.cells[:, 2:4] for field in fields])
    assert sizes.min() >= SMALLEST_BUD_PX and sizes.max() <= LARGEST
    diameters = np.array([field.diameter for field in fields])
    assert diameters.min() < 12 and diameters.max() > 55
    only = [field.cells for field in _fields(24, FieldLook(96, 20, 30, 1))]
    assert 2 * np.concatenate(only)[:, 3].min() >= 6 and 2 * np.concatenate(only)[:, 2].max() <= 30
    # What is drawn of a cell that nothing cuts is as large as the cell.
    for field in only_cells(fields):
        area = np.bincount(field.ids.ravel(), minlength=len(field.cells) + 1)[1:]
        assert np.median(area / (np.pi * field.cells[:, 2] * field.cells[:, 3])) == pytest.approx(0.95, abs=0.12)


def only_cells(fields: list[Field]) -> Iterator[Field]:
    """Fields without structures."""
    return (field for field in fields if len(field.cells) > 8 and field.clear is None)


def _fields(count: int, look: FieldLook) -> list[Field]:
    return [Field(look, generator(1, "fields", index=index)) for index in range(count)]


def test_fields_are_empty_sparse_and_dense(fields: list[Field]) -> None:
    covered = np.array([np.mean(field.ids > 0) for field in fields])
    assert (covered == 0).any() and ((covered > 0) & (covered < 0.1)).any() and (covered > 0.5).any()


def test_cells_touch_and_mothers_have_buds(fields: list[Field]) -> None:
    touching = ratios = 0
    for field in fields:
        beside = (field.ids[1:] != field.ids[:-1]) & (field.ids[1:] > 0) & (field.ids[:-1] > 0)
        pairs = {tuple(sorted(pair)) for pair in np.stack([field.ids[1:][beside], field.ids[:-1][beside]], axis=1)}
        touching += len(pairs)
        ratios += sum(min(a, b) < 0.6 * max(a, b) for a, b in (field.cells[[p - 1, q - 1], 3] for p, q in pairs))
    assert touching > 300 and ratios > 20


def test_no_cell_lies_on_a_structure(fields: list[Field]) -> None:
    built = [field for field in fields if field.clear is not None]
    assert len(fields) * 0.3 < len(built) < len(fields) * 0.9
    assert all(not field.ids[field.solid < 0].any() for field in built)


@pytest.mark.parametrize("kind", STRUCTURES[1:])
def test_a_structure_has_an_inside(kind: str) -> None:
    assert OFTEN[STRUCTURES.index(kind)] > 0
    field = Field(FieldLook(96, 12, 20, 1), generator(0, "structure"))
    field.solid[:] = 99
    field.structures(kind)
    assert 0.001 < np.mean(field.solid < 0) < 0.9


def test_cells_are_dark_in_some_images_and_bright_in_others(pictures: list[Picture]) -> None:
    signs = [np.sign(_excess(picture)) for picture in pictures if 0.05 < picture["gt"].mean() < 0.8]
    assert min(signs.count(1), signs.count(-1)) >= len(signs) // 5


def _excess(picture: Picture) -> float:
    inside = picture["gt"] > 0
    return float(np.median(picture["raw"][inside]) - np.median(picture["raw"][~inside]))


def test_what_focus_changes_about_outlines_inverts_through_the_focus() -> None:
    data = SyntheticFields(images=60, size=96, seed=5, val=3, focus_steps=3, smallest_px=16, largest_px=40)
    inverted = 0
    for scene in range(20):
        below, focus, above = (data.arrays(f"field_{3 * scene + plane:03d}") for plane in range(3))
        assert np.array_equal(below["instances"], above["instances"])
        inside = below["gt"] > 0
        outline = ndimage.binary_dilation(inside, iterations=3) & ~ndimage.binary_erosion(inside, iterations=3)
        if outline.any():
            changes = [picture["raw"][outline] - focus["raw"][outline].astype(float) for picture in (below, above)]
            inverted += np.corrcoef(*changes)[0, 1] < -0.3
    assert inverted >= 5  # those in brightfield without much noise; a phase ring hardly depends on the focus


def test_a_scene_is_not_cut_between_training_and_validation() -> None:
    assert [len(names) for names in SyntheticFields(images=21, focus_steps=3).splits.values()] == [12, 9]
    with pytest.raises(UserError, match="4 is no multiple of focus_steps, 3"):
        SyntheticFields(images=21, val=4, focus_steps=3)
    with pytest.raises(UserError, match="larger than the largest"):
        SyntheticFields(smallest_px=20, largest_px=10)


def test_a_packed_file_holds_the_same(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "fields.h5"
    settings = ("--images", "3", "--size", "64", "--seed", "2", "--set", "largest_px=20")
    status, out, _ = call("synth", "-o", path, "--dataset", "synthetic_fields", *settings)
    assert status == 0 and out.startswith("images   2 train, 1 val; 64 × 64")
    stored, drawn = Hdf5(path), SyntheticFields(images=3, size=64, seed=2, largest_px=20)
    for name in ("field_000", "field_002"):
        one, other = stored.read(name), drawn.read(name)
        assert one.image.equal(other.image) and one.maps["instances"].equal(other.maps["instances"])


@pytest.mark.parametrize("option", ["--size", "--seed"])
def test_a_value_out_of_bounds_is_named_by_its_option(call: Call, tmp_path: Path, option: str) -> None:
    value = {"--size": "4096", "--seed": str(10**20)}[option]
    status, _, err = call("synth", "-o", tmp_path / "a.h5", "--dataset", "synthetic_fields", option, value)
    assert status == 2 and err.startswith(f"{option}: should ")
