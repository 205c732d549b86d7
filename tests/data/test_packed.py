"""A packed file by index and by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

import yeastexp as yx
from yeastexp.data import hdf5_file


def test_images_by_index_and_by_name(tiny_data: Path) -> None:
    data = yx.open_packed(tiny_data)
    assert len(data) == 6 == len(list(data)) and "square_5" in data and "square_6" not in data
    image, labels, name, pixel_um = data[5]
    expected = tiny.image(5)
    assert (name, pixel_um, image.dtype, image.shape) == ("square_5", None, np.uint16, (1, 32, 32))
    assert np.array_equal(image[0], expected["raw"]) and np.array_equal(labels, expected["gt"])
    assert data[-1].name == data["square_5"].name == name and data.splits["val"] == ("square_4", "square_5")
    assert repr(data) == f"PackedData({str(tiny_data)!r}: 4 train, 2 val)"
    with pytest.raises(IndexError):
        data[6]
    with pytest.raises(yx.UserError, match=r"no image 'square'; the attribute 'names' lists all$"):
        data["square"]
    with pytest.raises(yx.UserError, match=r"no map 'instances' \(known: none\)"):
        data.map(0, "instances")


def test_maps_pixel_sizes_and_what_nobody_annotated(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [1, 0]], np.int16)
    arrays = {"raw": np.zeros((2, 2, 2), np.uint8), "gt": labels, "instances": 7 * labels}
    splits = {"train": ["a"], "unlabelled": ["b"]}
    hdf5_file.write(tmp_path / "d.h5", splits, lambda name: arrays, provenance={}, pixel_um=0.1)
    data = yx.open_packed(str(tmp_path / "d.h5"))
    assert data.maps == ("instances",) and np.array_equal(data.map("b", "instances"), 7 * labels)
    assert (data[0].pixel_um, data[0].image.shape, data.normalization) == (0.1, (2, 2, 2), None)
    assert data.splits == {"train": ("a",), "unlabelled": ("b",)}


def test_what_is_no_packed_file_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(yx.UserError, match="is not an HDF5 file"):
        yx.open_packed(tmp_path / "text.h5")
