"""Tests of images in OME-Zarr, HDF5, JPEG and BMP files, and of formats that need another package."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from yeastexp.data import pack
from yeastexp.data.hdf5_file import Reader
from yeastexp.data.images import read_image
from yeastexp.data.recordings import kinds, optional
from yeastexp.data.recordings.recording import Choices, as_recording
from yeastexp.errors import UserError

zarr = pytest.importorskip("zarr")
RANDOM = np.random.default_rng(0)
MOVIE = RANDOM.integers(0, 60_000, (4, 2, 24, 31)).astype(np.uint16)
CELLS = np.zeros((4, 24, 31), np.uint16)
CELLS[:, 2:9, 3:12], CELLS[:, 12:20, 5:15] = 1, 2


def ome_zarr(path: Path, array: np.ndarray, axes: str, version: str, labels: np.ndarray | None = None) -> None:
    units = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
    kinds_of_axes = {"t": "time", "c": "channel"}
    said = [
        {"name": axis, "type": kinds_of_axes.get(axis, "space")} | ({"unit": units[axis]} if axis in units else {})
        for axis in axes
    ]
    scale = [{"t": 60.0, "c": 1.0, "z": 0.5}.get(axis, 0.25) for axis in axes]
    transformations = [{"type": "scale", "scale": scale}]
    datasets = [{"path": "0", "coordinateTransformations": transformations}]
    content: dict[str, Any] = {"multiscales": [{"axes": said, "datasets": datasets}]}
    if "c" in axes:
        content["omero"] = {"channels": [{"label": "phase"}, {"label": "GFP"}]}
    number = 2 if version == "0.4" else 3
    group = zarr.open_group(str(path), mode="w", zarr_format=number)
    group.attrs.update(content if version == "0.4" else {"ome": {"version": version, **content}})
    group.create_array("0", data=array, chunks=(1,) * (array.ndim - 2) + (16, 16))
    if labels is not None:
        inner = group.create_group("labels")
        names = {"labels": ["cells"]}
        inner.attrs.update(names if version == "0.4" else {"ome": {"version": version, **names}})
        ome_zarr(path / "labels" / "cells", labels, "tyx", version)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, version: str) -> None:
    for name, by in (("a", 0), ("b", 1)):
        ome_zarr(tmp_path / "images" / f"{name}.ome.zarr", MOVIE + by, "tcyx", version, CELLS)
    done = pack.pack([tmp_path / "images"], [tmp_path / "images"], tmp_path / "data.h5", kind="instance")
    assert (done.pixel_um, done.origin.channel_names, done.splits) == (0.25, ("phase", "GFP"), {"train": 4, "val": 4})
    arrays = Reader(tmp_path / "data.h5").read("b_t0002")
    np.testing.assert_array_equal(arrays["raw"], MOVIE[2] + 1)
    np.testing.assert_array_equal(arrays["instances"], CELLS[2])


def test_the_order_of_bytes_is_that_of_the_file(tmp_path: Path) -> None:
    """Programs in Java write the highest byte first."""
    ome_zarr(tmp_path / "images" / "a.ome.zarr", MOVIE.astype(">u2"), "tcyx", "0.5", CELLS.astype(">u2"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["raw"] = MOVIE[:, 0].astype(">f4")
    pack.pack([tmp_path / "images"], [tmp_path / "images"], tmp_path / "data.h5", kind="instance", part_groups=True)
    arrays = Reader(tmp_path / "data.h5").read("a_t0002")
    np.testing.assert_array_equal(arrays["raw"], MOVIE[2], strict=True)
    np.testing.assert_array_equal(arrays["instances"], CELLS[2])
    (stored,) = kinds.arrays(tmp_path / "b.h5", Choices())
    frame = as_recording(stored, Choices(axes="TYX")).read(2)
    np.testing.assert_array_equal(frame, MOVIE[2, :1].astype(np.float32), strict=True)


def test_ome_zarr_in_depth_and_what_is_none(tmp_path: Path) -> None:
    volume = RANDOM.integers(0, 9, (5, 24, 31)).astype(np.uint8)
    ome_zarr(tmp_path / "a.zarr", volume, "zyx", "0.5")
    (stored,) = kinds.arrays(tmp_path / "a.zarr", Choices())
    np.testing.assert_array_equal(as_recording(stored, Choices(z="max")).read()[0], volume.max(axis=0))
    with pytest.raises(UserError, match="holds 5 planes in depth; add --z max"):
        as_recording(stored, Choices())
    zarr.open_group(str(tmp_path / "plate.zarr"), mode="w").attrs["plate"] = {"rows": []}
    with pytest.raises(UserError, match=r"plate.zarr: is a plate; name an image of it"):
        kinds.arrays(tmp_path / "plate.zarr", Choices())


def ilastik(path: Path, array: np.ndarray, axes: str, dataset: str) -> None:
    with h5py.File(path, "a") as file:
        stored = file.create_dataset(dataset, data=array)
        stored.attrs["axistags"] = json.dumps({"axes": [{"key": axis, "typeFlags": 2} for axis in axes]})


def test_hdf5_of_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        ilastik(tmp_path / f"{name}.h5", np.moveaxis(MOVIE, 1, -1), "tyxc", "exported_data")
    (stored,) = kinds.arrays(tmp_path / "a.h5", Choices())
    recording = as_recording(stored, Choices())
    for frame in range(4):
        np.testing.assert_array_equal(recording.read(frame), MOVIE[frame], strict=True)


def test_raw_and_label_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, by in (("a", 0), ("b", 1)):
        with h5py.File(tmp_path / "files" / f"{name}.h5", "w") as file:
            file["raw"], file["label"] = MOVIE[:, 0] + by, CELLS
    where = [tmp_path / "files"], [tmp_path / "files"]
    with pytest.raises(UserError, match=r"a.h5: holds 4 planes of 24 × 31 and does not say what they are; add"):
        pack.pack(*where, tmp_path / "data.h5", kind="instance")
    pack.pack(*where, tmp_path / "data.h5", kind="instance", choices=Choices("TYX"))
    arrays = Reader(tmp_path / "data.h5").read("a_t0001")
    np.testing.assert_array_equal(arrays["raw"], MOVIE[1, :1])
    np.testing.assert_array_equal(arrays["instances"], CELLS[1])


def test_the_array_has_to_be_named_if_there_are_several(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["phase"], file["inner/gfp"] = MOVIE[0, 0], MOVIE[0, 1]
    with pytest.raises(UserError) as caught:
        kinds.arrays(tmp_path / "a.h5", Choices())
    assert str(caught.value) == (
        f"{tmp_path}/a.h5: holds the arrays 'inner/gfp', 'phase'; say which has the images by --dataset"
    )
    (stored,) = kinds.arrays(tmp_path / "a.h5", Choices(dataset="inner/gfp"))
    np.testing.assert_array_equal(as_recording(stored, Choices()).read()[0], MOVIE[0, 1])
    with pytest.raises(UserError, match="has no array 'other' of images"):
        kinds.arrays(tmp_path / "a.h5", Choices(dataset="other"))


def test_bmp_and_jpeg(tmp_path: Path) -> None:
    for folder in ("images", "labels", "lossy"):
        (tmp_path / folder).mkdir()
    for index in range(2):
        grey = (MOVIE[index, 0] >> 8).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / f"{index}.bmp")
        Image.fromarray(grey).save(tmp_path / "lossy" / f"{index}.jpg")
        Image.fromarray(CELLS[0].astype(np.uint8)).save(tmp_path / "labels" / f"{index}.bmp")
        np.testing.assert_array_equal(read_image(tmp_path / "images" / f"{index}.bmp")[0], grey)
    assert pack.pack([tmp_path / "images"], [tmp_path / "labels"], tmp_path / "a.h5", kind="instance").warnings == ()
    done = pack.pack([tmp_path / "lossy"], [tmp_path / "labels"], tmp_path / "b.h5", kind="instance")
    assert done.warnings == ("'0', '1' are JPEG, which changes values; pack the recordings themselves if they exist",)
    with pytest.raises(UserError, match="is JPEG, which changes values, so labels are lost"):
        pack.pack([tmp_path / "images"], [tmp_path / "lossy"], tmp_path / "c.h5", kind="instance")


@pytest.mark.parametrize(
    ("name", "begins", "package"),
    [("a.nd2", b"\xda\xce\xbe\x0a", "nd2"), ("a.lif", b"\x70\0\0\0", "liffile"), ("a.zarr", None, "zarr")],
)
def test_a_package_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, begins: bytes | None, package: str
) -> None:
    def missing(wanted: str) -> Any:
        assert wanted == package
        raise ImportError(wanted)

    if begins is None:
        zarr.open_group(str(tmp_path / name), mode="w")
    else:
        (tmp_path / name).write_bytes(begins + b"\0" * 99)
    monkeypatch.setattr(optional, "importlib", type("importlib", (), {"import_module": staticmethod(missing)}))
    with pytest.raises(UserError, match=rf"{name}: is .*, which needs another package; pip install {package}$"):
        kinds.arrays(tmp_path / name, Choices())
    assert importlib.import_module("json")


def test_a_format_that_is_not_read_names_the_tool_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    (tmp_path / "labels").mkdir()
    Image.fromarray(CELLS[0].astype(np.uint8)).save(tmp_path / "labels" / "a.png")
    for given in (f"{tmp_path}/a*", tmp_path / "a.czi"):
        with pytest.raises(UserError, match=r"\.czi.*; convert them to OME-TIFF with Fiji"):
            pack.pack([given], [tmp_path / "labels"], tmp_path / "data.h5")
