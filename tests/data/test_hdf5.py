"""Tests of the data set in one HDF5 file."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest
import torch

from yeastexp.data.datasets import dataset
from yeastexp.data.hdf5_file import write
from yeastexp.errors import UserError

SPLITS = {"train": ("a", "b", "c"), "val": ("d",), "test": ("e",)}


def arrays(name):
    generator = np.random.default_rng(ord(name))
    return {
        "raw": generator.integers(0, 65536, (3, 4)).astype(np.uint16),
        "gt": generator.integers(0, 2, (3, 4)).astype(np.uint8),
        "instances": generator.integers(0, 700, (3, 4)).astype(np.uint16),
    }


def made(path, **options):
    return dataset["hdf5"](path=path, **options)


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "data.h5"
    write(path, SPLITS, arrays, provenance={}, pixel_um=0.25, normalization={"mean": 1.0, "std": 2.0})
    return path


def test_samples(packed):
    data = made(packed)
    assert data.splits == {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}
    assert data.maps == ("instances",)
    assert data.normalization == {"mean": 1.0, "std": 2.0}
    assert data.shape("a") == (1, 3, 4)
    for one in (data, pickle.loads(pickle.dumps(data))):
        sample = one.read("d")
        expected = arrays("d")
        assert (sample.name, sample.pixel_um, sample.size) == ("d", 0.25, (3, 4))
        assert (sample.image.dtype, sample.labels.dtype) == (torch.float32, torch.int64)
        assert torch.equal(sample.image, torch.tensor(expected["raw"].astype(np.float32))[None])
        assert torch.equal(sample.labels, torch.tensor(expected["gt"].astype(np.int64)))
        assert sample.maps.keys() == {"instances"}
        assert torch.equal(sample.maps["instances"], torch.tensor(expected["instances"].astype(np.int64)))


def test_names_of_any_stored_form_are_read(packed):
    names = ["a", "b", "c", "d", "e"]
    for stored in (np.array(names, object), np.array(names, "S1"), np.array(names, "S9")):
        with h5py.File(packed, "r+") as file:
            replaced("names", stored)(file)
        assert [name for split in made(packed).splits.values() for name in split] == names
    with h5py.File(packed) as file:
        assert h5py.check_string_dtype(file["splits/val"].dtype).length == 1


def test_names_beyond_ascii(tmp_path):
    names = {"train": ("Größe", "酵母 1"), "val": ("🧫",)}
    write(tmp_path / "data.h5", names, lambda name: arrays("a"), provenance={"note": "ä"})
    assert made(tmp_path / "data.h5").splits == {split: list(members) for split, members in names.items()}


@pytest.mark.parametrize(
    ("val", "train", "chosen"),
    [(1, "abc", "d"), (3, "a", "bcd"), (("a", "b"), "cd", "ab"), (("[bc]",), "ad", "bc")],
)
def test_other_images_validate_and_test_stays(packed, val, train, chosen):
    assert made(packed, val=val).splits == {"train": list(train), "val": list(chosen), "test": ["e"]}


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (5, "5 of 4 images cannot be chosen; give a number from 1 to 3"),
        (("x",), "none of the images is called 'x'; there are 4, from 'a' to 'd'"),
        (("e",), "none of the images is called 'e'; there are 4, from 'a' to 'd'"),
        ((), "no image is chosen; name at least one"),
        (4, "{path}: leaves no training image; choose others with 'val'"),
    ],
)
def test_bad_choices_name_the_key(packed, val, message):
    with pytest.raises(UserError) as caught:
        made(packed, val=val)
    assert (str(caught.value), caught.value.key) == (message.format(path=packed), "val")


def test_the_sheets_own_file(tmp_path):
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = np.arange(18 * 4, dtype=np.float64).reshape(18, 1, 2, 2)
        file["gt"] = np.ones((18, 2, 2), np.int32)
    data = made(path)
    assert data.splits["train"] == [f"{index:03d}" for index in range(10)]
    assert data.splits["val"] == [f"{index:03d}" for index in range(10, 18)]
    assert data.read("001").image.tolist() == [[[4, 5], [6, 7]]]
    assert made(path, val=2).splits["val"] == ["016", "017"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_found_when_they_are_read(tmp_path, value):
    path = tmp_path / "plain.h5"
    raw = np.zeros((3, 2, 2))
    raw[1, 0, 1] = value
    with h5py.File(path, "w") as file:
        file["raw"], file["gt"] = raw, np.zeros((3, 2, 2), np.uint8)
    data = made(path)
    assert data.read("000").image.sum() == 0
    with pytest.raises(UserError) as caught:
        data.read("001")
    assert str(caught.value) == f"{path}: image '001' holds NaN or infinite values; fix or remove it"


def plain(raw=(4, 2, 3), gt=(4, 2, 3), raw_dtype="u2", gt_dtype="u1"):
    def make(path):
        with h5py.File(path, "w") as file:
            if raw is not None:
                file.create_dataset("raw", raw, raw_dtype)
            if gt is not None:
                file.create_dataset("gt", gt, gt_dtype)

    return make


def sparse(shape, chunks=(1, 64, 64)):
    """Arrays that claim a shape and store nothing."""

    def make(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", shape, "u1", chunks=chunks, maxshape=(None, None, None))
            file.create_dataset("gt", shape, "u1", chunks=(1, 64, 64), maxshape=(None, None, None))

    return make


def edited(edit):
    def make(path):
        write(path, SPLITS, arrays, provenance={})
        with h5py.File(path, "r+") as file:
            edit(file)

    return make


def truncated(path):
    with h5py.File(path, "w") as file:
        file["raw"] = file["gt"] = np.zeros((40, 50, 50), np.uint8)
    path.write_bytes(path.read_bytes()[:20_000])


def linked(link):
    def make(path):
        plain()(path.with_name("other.h5"))
        with h5py.File(path, "w") as file:
            file["gt"] = np.zeros((4, 2, 3), np.uint8)
            file["raw"] = link

    return make


def virtual(path):
    plain()(path.with_name("other.h5"))
    layout = h5py.VirtualLayout((4, 2, 3), "u2")
    layout[:] = h5py.VirtualSource(path.with_name("other.h5"), "raw", (4, 2, 3))
    plain(raw=None)(path)
    with h5py.File(path, "r+") as file:
        file.create_virtual_dataset("raw", layout)


def external(path):
    path.with_name("secret").write_bytes(bytes(48))
    plain(raw=None)(path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("raw", (4, 2, 3), "u2", external=[(str(path.with_name("secret")), 0, 48)])


def grouped(edit):
    def make(path):
        sizes = {"a": (2, 3), "b": (4, 5)}
        write(
            path,
            {"train": ["a"], "val": ["b"]},
            lambda name: {"raw": np.zeros(sizes[name], np.uint8), "gt": np.zeros(sizes[name], np.uint8)},
            provenance={},
        )
        with h5py.File(path, "r+") as file:
            edit(file)

    return make


def replaced(key, value):
    def edit(file):
        del file[key]
        if value is not None:
            file[key] = value

    return edit


BAD = {
    "missing": (lambda path: None, "cannot be opened (No such file or directory); name an HDF5 file"),
    "a folder": (lambda path: path.mkdir(), "cannot be opened (Is a directory); name an HDF5 file"),
    "empty": (lambda path: path.touch(), "is empty; make it again"),
    "text": (lambda path: path.write_text("raw"), "is not an HDF5 file; 'yeastexp pack' makes one from images"),
    "truncated": (truncated, "is cut short; copy or make it again"),
    "nothing": (plain(None, None), "has no 'raw' (it holds nothing); store images as 'raw' and their labels as 'gt'"),
    "no raw": (plain(raw=None), "has no 'raw' (it holds gt); store images as 'raw' and their labels as 'gt'"),
    "no gt": (plain(gt=None), "has no 'gt' (it holds raw); store images as 'raw' and their labels as 'gt'"),
    "one picture": (plain((2, 3), (2, 3)), "'raw' has shape (2, 3); it must be (N, H, W) or (N, C, H, W)"),
    "five axes": (
        plain((1, 1, 1, 2, 3)),
        "'raw' has shape (1, 1, 1, 2, 3); it must be (N, H, W) or (N, C, H, W)",
    ),
    "gt with channels": (plain(gt=(4, 1, 2, 3)), "'gt' has shape (4, 1, 2, 3); it must be (N, H, W)"),
    "scalar": (plain(raw=()), "'raw' has shape (); it must be (N, H, W) or (N, C, H, W)"),
    "N differs": (plain(gt=(3, 2, 3)), "'gt' holds 3 images, but there are 4 in all; make them the same"),
    "sizes differ": (
        plain(gt=(4, 3, 2)),
        "image '000': 'raw' (2, 3) and 'gt' (3, 2) differ in size; make them fit",
    ),
    "no image": (plain((0, 2, 3), (0, 2, 3)), "holds no image"),
    "no pixels": (plain((4, 0, 3), (4, 0, 3)), "image '000' of shape (0, 3) has no pixels"),
    "one image": (plain((1, 2, 3), (1, 2, 3)), "leaves no training image; choose others with 'val'"),
    "float gt": (
        plain(gt_dtype="f4"),
        "'gt' holds float32 values; store integers: labels are class indices or ids",
    ),
    "complex raw": (plain(raw_dtype="c8"), "'raw' holds complex64 values; store numbers"),
    "a group without names": (
        lambda path: h5py.File(path, "w").create_group("raw").file.create_group("gt").file.close(),
        "'raw' is a group; a file not made by 'pack' needs stacks of images (N, H, W)",
    ),
    "a link out": (
        linked(h5py.ExternalLink("other.h5", "/raw")),
        "'raw' is a link, which may lead out of the file; copy the data into the file",
    ),
    "a soft link": (
        linked(h5py.SoftLink("/gt")),
        "'raw' is a link, which may lead out of the file; copy the data into the file",
    ),
    "virtual": (virtual, "'raw' is kept in another file; copy the data into this file"),
    "external": (external, "'raw' is kept in another file; copy the data into this file"),
    "newer layout": (
        edited(lambda file: file.attrs.modify("yeastexp_layout", 2)),
        "has layout 2, this version reads 1; use the version that wrote it",
    ),
    "no names": (edited(replaced("names", None)), "has no 'names'; make the file again"),
    "numbers for names": (edited(replaced("names", [1, 2])), "'names' is not a list of names; make the file again"),
    "a name twice": (
        edited(replaced("names", ["a", "a", "b", "c", "d"])),
        "'names' names an image twice; make the file again",
    ),
    "no splits": (edited(replaced("splits", None)), "has no 'splits'; make the file again"),
    "no validation": (
        edited(replaced("splits/val", None)),
        "leaves no validation image; choose others with 'val'",
    ),
    "unknown in a split": (
        edited(replaced("splits/val", ["x"])),
        "'splits' names an image 'x' that is not there; make the file again",
    ),
    "in two splits": (
        edited(replaced("splits/val", ["a"])),
        "an image is in two splits, or twice in one; make the file again",
    ),
    "normalization": (
        edited(lambda file: file.attrs.modify("normalization", "[1]")),
        "attribute 'normalization' is not a JSON object; make the file again",
    ),
    "pixel_um": (
        edited(lambda file: file.attrs.modify("pixel_um", "wide")),
        "attribute 'pixel_um' should be a number above 0, got 'wide'; make the file again",
    ),
    "pixel_um of nothing": (
        edited(lambda file: file.attrs.modify("pixel_um", np.nan)),
        "attribute 'pixel_um' should be a number above 0, got nan; make the file again",
    ),
    "several pixel_um": (
        edited(lambda file: file.attrs.create("pixel_um", [1.0, 2.0])),
        "attribute 'pixel_um' should be a number above 0, got [1.0, 2.0]; make the file again",
    ),
    "several layouts": (
        edited(lambda file: file.attrs.create("yeastexp_layout", [1, 1])),
        "has layout [1, 1], this version reads 1; use the version that wrote it",
    ),
    "figures that are none": (
        edited(lambda file: file.attrs.modify("normalization", '{"mean": 1, "std": 0}')),
        "attribute 'normalization' has the 'std' 0, which should be above 0; make the file again",
    ),
    "figures that are text": (
        edited(lambda file: file.attrs.modify("normalization", '{"mean": "1", "std": "2"}')),
        "attribute 'normalization' has no 'mean' and 'std'; make the file again",
    ),
    "deep JSON": (
        edited(lambda file: file.attrs.modify("provenance", "[" * 50_000)),
        "attribute 'provenance' is not a JSON object; make the file again",
    ),
    "images larger than memory": (
        sparse((4, 100_000, 100_000)),
        "image '000' of shape (100000, 100000) is larger than this program reads; cut it into pieces",
    ),
    "more images than names": (
        sparse((1 << 40, 2, 3)),
        "'raw' holds 1099511627776 images, more than this program reads; make several files of it",
    ),
    "a chunk larger than memory": (
        sparse((4, 2, 3), chunks=(1 << 10, 1 << 10, 1 << 11)),
        "'raw' is stored in chunks of more than a gigabyte; store it in chunks of one image",
    ),
    "names larger than memory": (
        edited(lambda file: (replaced("names", None)(file), file.create_dataset("names", (1 << 40,), "S9"))),
        "'names' lists 1099511627776 names, more than this program reads; make several files of it",
    ),
    "a pipe": (lambda path: os.mkfifo(path), "is a pipe; name an HDF5 file"),
    "float instances": (
        edited(replaced("instances", np.zeros((5, 3, 4)))),
        "'instances' holds float64 values; store integers: labels are class indices or ids",
    ),
    "grouped, one missing": (
        grouped(replaced("raw/b", None)),
        "'raw' has no array 'b'; make the file again",
    ),
    "grouped, sizes differ": (
        grouped(replaced("gt/b", np.zeros((2, 3), int))),
        "image 'b': 'raw' (4, 5) and 'gt' (2, 3) differ in size; make them fit",
    ),
    "grouped, a link out": (
        grouped(replaced("raw/b", h5py.ExternalLink("other.h5", "/raw"))),
        "'b' is a link, which may lead out of the file; copy the data into the file",
    ),
}


for name in ("../../x", "/etc/passwd", "a\nb", "\x1b[31m", "a\0b", "..", "", "x" * 201, "\u2028"):
    BAD[f"an image called {name[:9]!r}"] = (
        edited(
            replaced("names", np.array([b"a", b"b", b"c", b"d", name.encode()]) if "\0" in name else [*"abcd", name])
        ),
        f"'names' holds {name[:200]!r}, which cannot be the name of an image; make the file again",
    )


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, case):
    path = tmp_path / "bad.h5"
    make, message = BAD[case]
    make(path)
    with pytest.raises(UserError) as caught:
        made(path)
    assert (str(caught.value), caught.value.key) == (f"{path}: {message}", "path")
