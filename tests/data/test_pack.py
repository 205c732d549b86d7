"""Tests of packing and normalising."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import sys
import tracemalloc
from pathlib import Path

import forks
import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from yeastexp.cli import data as commands
from yeastexp.data import pack
from yeastexp.data.datasets import dataset
from yeastexp.data.hdf5_file import Reader, stored_images, write
from yeastexp.data.images import image_files, read_image, read_mask, write_png
from yeastexp.data.normalization import rescaled
from yeastexp.data.recordings.recording import Choices
from yeastexp.errors import UserError
from yeastexp.sample import IGNORE
from yeastexp.system import files

SIZE = (6, 8)
SHEET = [f"img{index}" for index in range(1, 19)]


def picture(seed, size=SIZE, dtype=np.uint16):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True)


def labelled(seed, values, size=SIZE):
    return np.random.default_rng(1000 + seed).choice(np.array(values, np.uint8), size)


def folders(root, names=SHEET, *, values=(0, 255), sizes=None, dtype=np.uint16):
    """Two folders of PNG with the same names; image i is `picture(i)`, its labels `labelled(i)`."""
    for index, name in enumerate(names):
        size = sizes[index % len(sizes)] if sizes else SIZE
        write_png(root / "images" / f"{name}.png", picture(index, size, dtype))
        write_png(root / "labels" / f"{name}.png", labelled(index, values, size))
    return [root / "images"], [root / "labels"]


def test_the_sheets_eighteen(tmp_path):
    output = tmp_path / "data.h5"
    done = pack.pack(*folders(tmp_path), output, pixel_um=0.2)
    masks = np.stack([labelled(index, (0, 255)) for index in range(18)])
    assert done == pack.Packed(
        output=output,
        splits={"train": 10, "val": 8},
        stacked=True,
        channels=1,
        dtype="uint16",
        kind="mask",
        label_values=(0, 255),
        foreground=np.count_nonzero(masks) / masks.size,
        duplicates=(),
    )
    with h5py.File(output) as file:
        np.testing.assert_array_equal(file["raw"], np.stack([picture(index) for index in range(18)]), strict=True)
        np.testing.assert_array_equal(file["gt"], (masks > 0).astype(np.uint8), strict=True)
        assert set(file) == {"raw", "gt", "names", "splits"}
    contents = Reader(output).contents
    assert contents.splits == {"train": tuple(SHEET[:10]), "val": tuple(SHEET[10:])}
    assert contents.pixel_um == 0.2
    assert contents.normalization is None
    assert contents.provenance.keys() == {"made_by", "labels", "images_sha256", "labels_sha256"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sizes_that_differ_are_grouped_and_values_are_kept(tmp_path, dtype):
    sizes = [(6, 8), (5, 3)]
    done = pack.pack(*folders(tmp_path, SHEET[:4], sizes=sizes, dtype=dtype), tmp_path / "data.h5")
    assert (done.stacked, done.dtype) == (False, np.dtype(dtype).name)
    for index, name in enumerate(SHEET[:4]):
        raw = Reader(tmp_path / "data.h5").read(name)["raw"]
        np.testing.assert_array_equal(raw, picture(index, sizes[index % 2], dtype)[None], strict=True)


def test_colour_is_stored_as_channels(tmp_path):
    for index in range(2):
        tifffile.imwrite(tmp_path / f"{index}.tif", picture(index, (3, *SIZE), np.uint8), photometric="rgb")
        write_png(tmp_path / "labels" / f"{index}.png", labelled(index, (0, 1)))
    done = pack.pack([f"{tmp_path}/*.tif"], [tmp_path / "labels"], tmp_path / "data.h5")
    assert (done.channels, done.stacked) == (3, True)
    np.testing.assert_array_equal(Reader(tmp_path / "data.h5").read("1")["raw"], picture(1, (3, *SIZE), np.uint8))


@pytest.mark.parametrize(
    ("kind", "values", "found", "gt", "instances"),
    [
        ("auto", (0, 1), "mask", lambda labels: labels > 0, None),
        ("auto", (0, 255), "mask", lambda labels: labels > 0, None),
        ("auto", (0,), "mask", lambda labels: labels > 0, None),
        ("auto", (255,), "mask", lambda labels: labels > 0, None),
        ("class", (0, 1, 2), "class", lambda labels: labels, None),
        ("class", (0, 255), "class", lambda labels: labels, None),
        ("instance", (0, 1, 7), "instance", lambda labels: labels > 0, lambda labels: labels),
        ("instance", (0, 1), "instance", lambda labels: labels > 0, lambda labels: labels),
    ],
)
def test_kinds_of_labels(tmp_path, kind, values, found, gt, instances):
    done = pack.pack(*folders(tmp_path, SHEET[:3], values=values), tmp_path / "data.h5", kind=kind)
    assert (done.kind, done.label_values) == (found, values)
    for index, name in enumerate(SHEET[:3]):
        arrays, labels = Reader(tmp_path / "data.h5").read(name), labelled(index, values)
        np.testing.assert_array_equal(arrays["gt"], gt(labels).astype(np.uint8), strict=True)
        assert ("instances" in arrays) == (instances is not None)
        if instances:
            np.testing.assert_array_equal(arrays["instances"], instances(labels), strict=True)


def test_more_cells_than_8_bits_hold(tmp_path):
    """Ids that went on from 0 lie in several pieces, be it too many to pack, or a few."""
    squares = np.arange(32 * 32).reshape(32, 32).repeat(4, 0).repeat(4, 1)
    for name in ("0.png", "1.png"):
        write_png(tmp_path / "images" / name, picture(int(name[0]), (128, 128)))
        write_png(tmp_path / "labels" / name, (squares % 256).astype(np.uint8))
    where = [tmp_path / "images"], [tmp_path / "labels"]
    remedy = "; the largest id is 255, the most that 8 bits hold: save ids in 16"
    with pytest.raises(UserError, match=f"an id of its own{remedy}$"):
        pack.pack(*where, tmp_path / "ids.h5", kind="instance")
    for name in ("0.png", "1.png"):
        write_png(tmp_path / "labels" / name, (squares % 256 * (squares < 300)).astype(np.uint8))
    packed = pack.pack(*where, tmp_path / "ids.h5", kind="instance")
    assert any(warning.endswith(f"are they cells?{remedy}") for warning in packed.warnings)


def test_many_ids_and_negative_class_indices(tmp_path):
    for index, top in enumerate((3, 70_000)):
        write_png(tmp_path / "images" / f"{index}.png", picture(index))
        (tmp_path / "labels").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "labels" / f"{index}.tif", np.full(SIZE, top, np.int32))
    where = [tmp_path / "images"], [tmp_path / "labels"]
    pack.pack(*where, tmp_path / "ids.h5", kind="instance")
    assert Reader(tmp_path / "ids.h5").read("0")["instances"].dtype == np.uint32
    tifffile.imwrite(tmp_path / "labels" / "1.tif", np.full(SIZE, -1, np.int32))
    pack.pack(*where, tmp_path / "classes.h5", kind="class")
    assert set(np.unique(Reader(tmp_path / "classes.h5").read("1")["gt"])) == {-1}
    said = (
        "the labels hold -1, 3; instance labels are not negative; if -1 marks pixels that are not annotated, add "
        "--ignore -1; if it is background, save it as 0"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        pack.pack(*where, tmp_path / "no.h5", kind="instance")


@pytest.mark.parametrize("kind", ["instance", "auto"])
@pytest.mark.parametrize("ignore", [None, -1])
def test_negative_values_among_ids_are_no_ids(tmp_path: Path, ignore: int | None, kind: str) -> None:
    """They are unlabelled if --ignore says so, and refused otherwise."""
    labels = np.zeros((48, 48), np.int16)
    for number, row in enumerate(range(4, 44, 4), 1):
        labels[row : row + 3, 4:40] = number
    labels[:3] = -1
    (tmp_path / "labels").mkdir()
    for name in "01":
        write_png(tmp_path / "images" / f"{name}.png", np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * int(name))
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", labels)
    where = [tmp_path / "images"], [tmp_path / "labels"], tmp_path / "ids.h5"
    if ignore is None:
        with pytest.raises(UserError, match="instance labels are not negative"):
            pack.pack(*where, kind=kind)
        return
    pack.pack(*where, kind=kind, ignore=ignore)
    kept = Reader(tmp_path / "ids.h5").read("0")
    assert kept["instances"].max() == 10 and (kept["gt"][:3] == -1).all() and (kept["instances"][:3] == 0).all()


@pytest.mark.parametrize(
    ("values", "shown"),
    [((0, 1, 255), "0, 1, 255"), ((0, 2), "0, 2"), (tuple(range(9)), "0, 1, 2, 3, 4, … 8"), ((1, 2, 3, 4, 5), None)],
)
def test_labels_that_are_not_masks_have_to_be_named(tmp_path, values, shown):
    with pytest.raises(UserError) as caught:
        pack.pack(*folders(tmp_path, SHEET[:3], values=values), tmp_path / "data.h5")
    assert str(caught.value) == (
        f"the labels hold {shown or '1, 2, 3, 4, 5'}, neither 0 and 1 nor 0 and 255; "
        "say what they are: --labels class (class indices) or --labels instance (ids of cells)"
        + ("; if 255 marks pixels that are not annotated, add --ignore 255" if 255 in values else "")
    )


def test_duplicates_across_splits_are_reported_not_those_within(tmp_path):
    where = folders(tmp_path, ["a", "b", "c", "d", "e"])
    write_png(tmp_path / "images" / "b.png", picture(0))  # a and b, both train
    write_png(tmp_path / "images" / "d.png", picture(2))  # c trains, d validates
    write_png(tmp_path / "images" / "c.png", picture(2))
    write_png(tmp_path / "images" / "e.png", picture(2))
    done = pack.pack(*where, tmp_path / "data.h5", val=("d",), test=("e",))
    assert done.duplicates == (("train/c", "val/d", "test/e"),)


def test_a_duplicate_is_found_at_another_depth(tmp_path):
    where = folders(tmp_path, ["a", "b"])
    write_png(tmp_path / "images" / "a.png", picture(7, dtype=np.uint8))
    write_png(tmp_path / "images" / "b.png", picture(7, dtype=np.uint8).astype(np.uint16))
    done = pack.pack(*where, tmp_path / "data.h5")
    assert done.duplicates == (("train/a", "val/b"),)
    assert (done.stacked, done.dtype) == (False, "uint16")


def names_differ(root):
    where = folders(root, [f"n{index}" for index in range(8)])
    for index in range(1, 8):
        (root / "labels" / f"n{index}.png").rename(root / "labels" / f"m{index}.png")
    return where, (
        "no label for 'n1', 'n2', 'n3', 'n4', 'n5' and 2 more; give each image a label file of the same name\n"
        "no image for the labels 'm1', 'm2', 'm3', 'm4', 'm5' and 2 more; remove or add it"
    )


def same_stem(root):
    where = folders(root, ["a", "b"])
    tifffile.imwrite(root / "images" / "a.tif", picture(0))
    images = root / "images"
    return where, f"{images}/a.png and {images}/a.tif: have the same name 'a'; rename one"


def sizes_differ(root):
    where = folders(root, ["a", "b"])
    write_png(root / "labels" / "b.png", labelled(1, (0, 1), (8, 6)))
    return where, (
        f"{root}/images/b.png and {root}/labels/b.png: differ in size, 6 × 8 and 8 × 6 pixels; "
        "give each image its own label file"
    )


def channels_differ(root):
    where = folders(root, ["a", "b"])
    write_png(root / "images" / "b.png", picture(1, (3, *SIZE), np.uint8))
    return where, f"{root}/images/b.png: has 3 channels, but 'a' has 1; pack them apart"


def not_finite(root):
    where = folders(root, ["a", "b"])
    (root / "images" / "b.png").unlink()
    tifffile.imwrite(root / "images" / "b.tif", np.full(SIZE, np.nan, np.float32))
    return where, f"{root}/images/b.tif: holds NaN or infinite values; fix or remove it"


def damaged(root):
    where = folders(root, ["a", "b"])
    (root / "labels" / "b.png").write_bytes(b"")
    return where, f"{root}/labels/b.png: is empty; copy or save it again"


def no_labels(root):
    images, labels = folders(root, ["a", "b"])
    for file in labels[0].iterdir():
        file.unlink()
    return (images, labels), f"{labels[0]}: is empty; name the folder that holds the images"


@pytest.mark.parametrize(
    "make", [names_differ, same_stem, sizes_differ, channels_differ, not_finite, damaged, no_labels]
)
@pytest.mark.parametrize("old", [None, "old"])
def test_bad_input_is_refused_and_nothing_is_written(tmp_path, make, old):
    where, message = make(tmp_path)
    output = tmp_path / "out" / "data.h5"
    output.parent.mkdir()
    if old:
        output.write_text(old)
    with pytest.raises(UserError) as caught:
        pack.pack(*where, output, force=True)
    assert str(caught.value) == message
    assert [file.read_text() for file in output.parent.iterdir()] == ([old] if old else [])


def test_what_is_there_is_not_overwritten(tmp_path):
    where = folders(tmp_path, ["a", "b"])
    output = tmp_path / "data.h5"
    output.write_text("old")
    with pytest.raises(UserError) as caught:
        pack.pack(*where, output)
    assert str(caught.value) == f"{output}: exists; add --force to replace it, or name another file"
    with pytest.raises(UserError) as caught:
        pack.pack(*where, tmp_path / "images" / "a.png", force=True)
    assert str(caught.value).endswith("a.png: is one of the files that are read; name another one to write")
    pack.pack(*where, output, force=True)
    assert Reader(output).contents.names == ("a", "b")


@pytest.mark.parametrize("pixel_um", [0, -1, float("nan"), float("inf")])
def test_a_pixel_has_a_size(tmp_path, pixel_um):
    with pytest.raises(UserError) as caught:
        pack.pack(*folders(tmp_path, ["a", "b"]), tmp_path / "data.h5", pixel_um=pixel_um)
    assert str(caught.value) == (
        f"--pixel-um: {pixel_um} is not the size of a pixel; give a number of micrometres above 0"
    )


def test_the_same_input_gives_the_same_bytes_wherever_it_lies(tmp_path):
    for place in ("here", "there"):
        pack.pack(*folders(tmp_path / place, SHEET[:4]), tmp_path / place / "data.h5")
        pack.normalize(tmp_path / place / "data.h5", tmp_path / place / "normalized.h5")
    for name in ("data.h5", "normalized.h5"):
        assert files.digest(tmp_path / "here" / name) == files.digest(tmp_path / "there" / name)


def test_progress_sees_every_image_in_each_pass(tmp_path):
    seen = []

    def progress(names):
        for name in names:
            seen.append(name)
            yield name

    names = SHEET[:3]
    pack.pack(*folders(tmp_path, names), tmp_path / "data.h5", progress=progress)
    assert seen == names * 2
    seen.clear()
    pack.normalize(tmp_path / "data.h5", tmp_path / "normalized.h5", progress=progress)
    assert seen == names * 2


KILLED = """
import os, signal, sys
from pathlib import Path
from yeastexp.data.pack import pack

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits it ignored

def progress(names):
    for index, name in enumerate(names):
        if index == 2 and list(Path(sys.argv[3]).parent.glob(".data.h5.*")):
            os.kill(os.getpid(), int(sys.argv[4]))
        yield name

pack([sys.argv[1]], [sys.argv[2]], Path(sys.argv[3]), force=True, progress=progress)
"""


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_pack_leaves_no_file_and_the_old_one_as_it_was(tmp_path, old, number):
    images, labels = folders(tmp_path, SHEET[:4])
    output = tmp_path / "out" / "data.h5"
    output.parent.mkdir()
    if old:
        output.write_text(old)
    command = [sys.executable, "-c", KILLED, *map(str, (images[0], labels[0], output, int(number)))]
    done = forks.run(command)
    assert done.returncode == -number, done.stderr
    visible = [file for file in output.parent.iterdir() if not file.name.startswith(".")]
    assert [file.read_text() for file in visible] == ([old] if old else [])
    if number == signal.SIGINT:
        assert list(output.parent.iterdir()) == visible


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    size = (200, 250)
    peaks = {}
    for count in (10, 40):
        where = folders(tmp_path / str(count), [f"{index:02d}" for index in range(count)], sizes=[size])
        data, normalized = tmp_path / f"{count}.h5", tmp_path / f"{count}_normalized.h5"
        tracemalloc.start()
        pack.pack(*where, data)
        pack.normalize(data, normalized)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    one_image = size[0] * size[1] * np.dtype(np.uint16).itemsize
    assert peaks[40] - peaks[10] < one_image


def raw_of(path):
    reader = Reader(path)
    return {name: reader.read(name)["raw"] for name in reader.contents.names}


@pytest.mark.parametrize("sizes", [[(6, 8)], [(6, 8), (5, 3)]])
@pytest.mark.parametrize("fit", ["all", "train"])
def test_normalize(tmp_path, sizes, fit):
    source, output = tmp_path / "data.h5", tmp_path / "normalized.h5"
    where = folders(tmp_path, values=(0, 1, 2), sizes=sizes)
    pack.pack(*where, source, kind="instance", pixel_um=0.2, test=2)
    done = pack.normalize(source, output, fit=fit)
    names = Reader(source).contents.names if fit == "all" else Reader(source).contents.splits["train"]
    stored_raw, normalized_raw = raw_of(source), raw_of(output)
    pixels = np.concatenate([stored_raw[name].ravel() for name in names]).astype(np.float64)
    assert done.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert done.std == pytest.approx(pixels.std(), rel=1e-12)
    assert (done.splits, done.stacked, done.fit) == ({"train": 9, "val": 7, "test": 2}, len(sizes) == 1, fit)
    before, after = Reader(source).contents, Reader(output).contents
    assert after.normalization == {
        "mean": done.mean,
        "std": done.std,
        "fit": fit,
        "source_sha256": files.digest(source),
    }
    assert (after.names, after.splits, after.maps, after.pixel_um, after.provenance) == (
        before.names,
        before.splits,
        before.maps,
        before.pixel_um,
        before.provenance,
    )
    normalized = np.concatenate([normalized_raw[name].ravel() for name in names]).astype(np.float64)
    assert abs(normalized.mean()) < 1e-7
    assert abs(normalized.std() - 1) < 1e-7
    packed, normalised = Reader(source), Reader(output)
    for name in before.names:
        old, new = packed.read(name), normalised.read(name)
        expected = ((old["raw"].astype(np.float64) - done.mean) / done.std).astype(np.float32)
        np.testing.assert_array_equal(new["raw"], expected, strict=True)
        for key in ("gt", "instances"):
            np.testing.assert_array_equal(new[key], old[key], strict=True)


def test_normalize_takes_each_channel_by_itself(tmp_path):
    """And predicts, evaluates and reads the result as what was recorded."""
    source = np.random.default_rng(0)
    raw = np.stack([source.normal(5, 1, (4, 6, 8)), source.normal(1000, 100, (4, 6, 8))], axis=1)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["raw"], file["gt"] = raw, np.zeros((4, 6, 8), np.uint8)
    done = pack.normalize(tmp_path / "plain.h5", tmp_path / "each.h5")
    with h5py.File(tmp_path / "each.h5") as file:
        stored = file["raw"][()]
    np.testing.assert_allclose(stored.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(stored.std(axis=(0, 2, 3)), 1, atol=1e-6)
    data = dataset["hdf5"](path=tmp_path / "each.h5", val=1)
    assert data.normalization["mean"] == list(done.mean) == pytest.approx(raw.mean(axis=(0, 2, 3)).tolist())
    np.testing.assert_allclose(rescaled(data.read("000").image, data.normalization, None), raw[0], rtol=1e-5)
    together = pack.normalize(tmp_path / "plain.h5", tmp_path / "joint.h5", joint=True)
    assert (together.mean, together.std) == pytest.approx((raw.mean(), raw.std()), rel=1e-12)


def test_normalize_names_a_constant_channel(tmp_path):
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["raw"], file["gt"] = (
            np.stack([np.arange(4.0).reshape(1, 2, 2), np.full((1, 2, 2), 3)], 1),
            np.zeros((1, 2, 2), int),
        )
    with pytest.raises(UserError, match="all pixels in channel 2 have the value 3, so their spread is 0"):
        pack.normalize(tmp_path / "plain.h5", tmp_path / "out.h5")


@pytest.mark.parametrize(
    "normalization",
    [{"mean": [1, 2, 3], "std": [1, 2, 3]}, {"mean": [1, 2], "std": [1, 0]}, {"mean": [1, 2], "std": 1}],
)
def test_a_normalisation_of_other_channels_is_refused(tmp_path, normalization):
    raw = np.random.default_rng(0).normal(size=(3, 2, 2, 2))
    stored(tmp_path / "data.h5", raw, normalization=normalization)
    for read in (lambda: dataset["hdf5"](path=tmp_path / "data.h5"), lambda: stored_images(tmp_path / "data.h5")):
        with pytest.raises(UserError, match=r"data.h5: attribute 'normalization' .*; make the file again"):
            read()


def test_figures_stay_exact_far_from_zero(tmp_path):
    source = tmp_path / "plain.h5"
    raw = 1e8 + np.arange(4 * 6, dtype=np.float64).reshape(4, 2, 3) / 4
    with h5py.File(source, "w") as file:
        file["raw"], file["gt"] = raw, np.zeros(raw.shape, np.uint8)
    done = pack.normalize(source, tmp_path / "normalized.h5")
    assert (done.mean, done.std) == pytest.approx((1e8 + 23 / 8, np.arange(24).std() / 4), rel=1e-14)


def test_the_sheets_own_file_is_normalised(tmp_path):
    source, output = tmp_path / "plain.h5", tmp_path / "normalized.h5"
    with h5py.File(source, "w") as file:
        file["raw"] = np.arange(18 * 4, dtype=np.uint8).reshape(18, 1, 2, 2)
        file["gt"] = np.zeros((18, 2, 2), bool)
    pack.normalize(source, output)
    data = dataset["hdf5"](path=output)
    assert (len(data.splits["train"]), len(data.splits["val"])) == (10, 8)
    assert data.normalization["mean"] == 35.5
    with h5py.File(output) as file:
        assert (file["raw"].shape, file["raw"].dtype) == ((18, 2, 2), np.float32)


def stored(path, raw, **options):
    splits = {"train": ("a", "b"), "val": ("c",)}
    images = dict(zip("abc", np.asarray(raw), strict=True))
    write(path, splits, lambda name: {"raw": images[name], "gt": np.zeros((2, 2), np.uint8)}, provenance={}, **options)


FLAT = np.full((3, 2, 2), 0.1)
TRAIN_FLAT = np.concatenate([np.full((2, 2, 2), 7.0), np.arange(4.0).reshape(1, 2, 2)])
HOLED = np.where(np.arange(12).reshape(3, 2, 2) == 5, np.nan, 1.0)


@pytest.mark.parametrize(
    ("raw", "options", "fit", "message"),
    [
        (FLAT, {}, "all", "all pixels have the value 0.1, so their spread is 0; check the images"),
        (
            TRAIN_FLAT,
            {},
            "train",
            "all pixels of the training images have the value 7, so their spread is 0; check the images",
        ),
        (HOLED, {}, "all", "image 'b' holds NaN or infinite values; fix or remove it"),
        (-np.inf * np.ones((3, 2, 2)), {}, "all", "image 'a' holds NaN or infinite values; fix or remove it"),
        (1e300 * np.ones((3, 2, 2)), {}, "all", "image 'a' holds NaN or infinite values; fix or remove it"),
        (
            TRAIN_FLAT,
            {"normalization": {"mean": 0}},
            "all",
            "is normalised already; give the file it was made from",
        ),
    ],
)
def test_what_cannot_be_normalised(tmp_path, raw, options, fit, message):
    source = tmp_path / "data.h5"
    stored(source, raw, **options)
    with pytest.raises(UserError) as caught:
        pack.normalize(source, tmp_path / "normalized.h5", fit=fit)
    assert str(caught.value) == f"{source}: {message}"
    assert list(tmp_path.iterdir()) == [source]


def test_a_hole_outside_the_fitted_images_is_found_too(tmp_path):
    source = tmp_path / "data.h5"
    stored(source, [[[0.0, 1], [2, 3]], [[4, 5], [6, 7]], [[0, 0], [np.inf, 0]]])
    with pytest.raises(UserError, match="image 'c' holds NaN or infinite values"):
        pack.normalize(source, tmp_path / "normalized.h5", fit="train")
    assert list(tmp_path.iterdir()) == [source]


def test_normalize_never_writes_over_what_it_reads(tmp_path):
    source, link, other = tmp_path / "data.h5", tmp_path / "link.h5", tmp_path / "other.h5"
    stored(source, np.arange(12.0).reshape(3, 2, 2))
    before = source.read_bytes()
    link.hardlink_to(source)
    for output in (source, link, tmp_path / "." / "data.h5"):
        with pytest.raises(UserError) as caught:
            pack.normalize(source, output, force=True)
        assert str(caught.value) == f"{output}: is the file that is read; name another one to write"
    other.write_text("old")
    with pytest.raises(UserError, match="exists; add --force"):
        pack.normalize(source, other)
    assert (source.read_bytes(), other.read_text()) == (before, "old")
    with pytest.raises(UserError, match="cannot be opened"):
        pack.normalize(tmp_path / "no.h5", tmp_path / "new.h5")


def test_palette_masks_are_read_by_index(tmp_path):
    images, labels = folders(tmp_path, ["a", "b"], values=(0, 1))
    for index, name in enumerate("ab"):
        mask = Image.fromarray(labelled(index, (0, 1))).convert("P")
        mask.putpalette([0, 0, 0, 255, 255, 255])
        mask.save(labels[0] / f"{name}.png")
    assert pack.pack(images, labels, tmp_path / "data.h5").label_values == (0, 1)


@pytest.mark.skipif("YEASTEXP_IMAGES" not in os.environ, reason="YEASTEXP_IMAGES names no folder of real images")
@pytest.mark.parametrize(("folder", "stacked"), [("yeast_phase", True), ("yeast_trap", False)])
def test_real_images(tmp_path, folder, stacked):
    root = Path(os.environ["YEASTEXP_IMAGES"]) / folder
    done = pack.pack([root / "images"], [root / "masks"], tmp_path / "data.h5")
    assert (done.splits, done.stacked, done.dtype) == ({"train": 10, "val": 8}, stacked, "uint16")
    assert (done.kind, done.label_values, done.duplicates) == ("mask", (0, 255), ())
    assert 0.06 < done.foreground < 0.08
    ids = pack.pack([root / "images"], [root / "labels"], tmp_path / "ids.h5", kind="instance")
    assert ids.foreground == done.foreground
    for image, mask in zip(image_files([root / "images"]), image_files([root / "masks"]), strict=True):
        arrays = Reader(tmp_path / "data.h5").read(image.stem)
        np.testing.assert_array_equal(arrays["raw"], read_image(image), strict=True)
        np.testing.assert_array_equal(arrays["gt"], (read_mask(mask) > 0).astype(np.uint8), strict=True)
    pack.normalize(tmp_path / "data.h5", tmp_path / "normalized.h5")
    pixels = np.concatenate([raw.ravel() for raw in raw_of(tmp_path / "normalized.h5").values()]).astype(np.float64)
    assert abs(pixels.mean()) < 1e-6
    assert abs(pixels.std() - 1) < 1e-6
    data = dataset["hdf5"](path=tmp_path / "normalized.h5")
    assert data.read(data.splits["val"][0]).image.isfinite().all()


# Pairs by name


def painted(path, labels=False, dtype=np.uint16):
    """An image of noise, or the labels of two cells, that are large enough to be looked at."""
    ids = np.zeros((40, 40), np.uint8)
    ids[4:16, 4:16], ids[20:36, 20:36] = 1, 2
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, ids if labels else picture(len(path.stem) + ord(path.stem[0]), (40, 40), dtype))


SCHEMES = {
    "one folder, a suffix": ("all/{}.tif", "all/{}_masks.tif", "all", "all"),
    "one folder, that of cellpose": ("all/{}.tif", "all/{}_cp_masks.tif", "all", "all"),
    "one folder, two suffixes": ("all/{}_raw.tif", "all/{}_seg.tif", "all", "all"),
    "one folder, a prefix": ("all/{}.tif", "all/mask_{}.tif", "all", "all"),
    "a glob of labels in a folder of all": ("all/{}.tif", "all/{}_cells.tif", "all", "all/*_cells.tif"),
    "two folders, a suffix": ("images/{}.tif", "labels/{}_labels.tif", "images", "labels"),
    "two folders, as ilastik names them": ("images/{}.tif", "labels/{}_Object Identities.tif", "images", "labels"),
    "two folders, the first channel": ("images/{}_0000.tif", "labels/{}.tif", "images", "labels"),
    "two folders, frames": ("01/t00{}.tif", "01_GT/man_seg00{}.tif", "01", "01_GT"),
    "two folders, frames and results": ("01/t00{}.tif", "01_RES/mask00{}.tif", "01", "01_RES"),
    "OME": ("images/{}.ome.tif", "labels/{}.tif", "images", "labels"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_images_and_labels_are_told_apart_and_paired(tmp_path, scheme):
    image, label, *where = SCHEMES[scheme]
    for key in ("1", "2", "10") if "frames" in scheme else ("a", "b10", "b2"):
        painted(tmp_path / image.format(key))
        painted(tmp_path / label.format(key), labels=True)
    done = pack.pack(*([tmp_path / folder] for folder in where), tmp_path / "data.h5", kind="instance")
    assert (done.splits, done.label_values) == ({"train": 2, "val": 1}, (0, 1, 2))
    reader = Reader(tmp_path / "data.h5")
    assert len(reader.contents.names) == 3
    for name in reader.contents.names:
        assert reader.read(name)["raw"].max() > 255 and not name.endswith(("masks", "seg", "ome"))


def test_one_folder_without_a_suffix_is_refused(tmp_path):
    for name in ("a", "b", "c"):
        painted(tmp_path / "all" / f"{name}.tif")
    for labels in ("all", "all/*.tif"):
        with pytest.raises(UserError) as caught:
            pack.pack([tmp_path / "all"], [tmp_path / labels], tmp_path / "data.h5", kind="instance")
        assert str(caught.value) == (
            "the same files are given as images and as labels ('a.tif', 'b.tif', 'c.tif'); put labels into a folder of "
            "their own, or give them the image's name and '_masks'"
        )
    assert not (tmp_path / "data.h5").exists()


def test_a_missing_label_in_one_folder_is_named(tmp_path):
    for name in ("a", "b", "c"):
        painted(tmp_path / "all" / f"{name}.tif")
    painted(tmp_path / "all" / "a_masks.tif", labels=True)
    painted(tmp_path / "all" / "c_masks.tif", labels=True)
    where = [tmp_path / "all"], [tmp_path / "all"], tmp_path / "data.h5"
    with pytest.raises(UserError, match=r"^no label for 'b'; give each image a label .* or add --labelled-only$"):
        pack.pack(*where, kind="instance")
    done = pack.pack(*where, kind="instance", labelled_only=True)
    assert Reader(where[2]).contents.splits == {"train": ("a",), "val": ("c",)}
    assert "1 image without labels left out" in done.choices


def test_labels_without_an_image_are_named_whatever_is_left_out(tmp_path: Path) -> None:
    where = folders(tmp_path, ["a", "b", "c"])
    (tmp_path / "labels" / "b.png").rename(tmp_path / "labels" / "d.png")
    with pytest.raises(UserError, match=r"^no image for the label 'd'; remove or add it$"):
        pack.pack(*where, tmp_path / "data.h5", labelled_only=True)
    for path in (tmp_path / "labels").iterdir():
        path.rename(path.with_stem(f"other_{path.stem}"))
    with pytest.raises(UserError, match=r"^no label for 'a', 'b', 'c'; give each image a label file of the same n"):
        pack.pack(*where, tmp_path / "data.h5", labelled_only=True)


def test_images_of_other_frames_are_no_labels(tmp_path):
    for name in ("a", "b"):
        painted(tmp_path / "images" / f"{name}_t1.tif")
        painted(tmp_path / "labels" / f"{name}_t2.tif", labels=True)
    with pytest.raises(UserError, match="no label for 'a_t1', 'b_t1'"):
        pack.pack([tmp_path / "images"], [tmp_path / "labels"], tmp_path / "data.h5", kind="instance")


@pytest.mark.parametrize("stacks", [1, 2, 9])
def test_a_stack_is_what_is_said_of_a_stack(tmp_path, stacks):
    """Not that there are too few images, nor that it has no label."""
    for index in range(stacks):
        path = tmp_path / "images" / f"movie{index}.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, picture(0, (5, 40, 40)), photometric="minisblack")
    for index in range(5):
        painted(tmp_path / "labels" / f"frame_{index}.tif", labels=True)
    with pytest.raises(UserError) as caught:
        pack.pack([tmp_path / "images"], [tmp_path / "labels"], tmp_path / "data.h5", val=5)
    assert caught.value.faults[0] == (
        f"{tmp_path}/images/movie0.tif: holds 5 pages of 40 × 40 and does not say what they are; add --axes TYX if "
        "they are frames, CYX if channels, ZYX with --z if planes in depth"
    )
    assert len(caught.value.faults) == min(stacks, 6) and (stacks < 9) == ("4 more" not in caught.value.faults[-1])
    with pytest.raises(UserError, match=r"^no label for 'movie0'"):
        pack.pack([tmp_path / "images"], [tmp_path / "labels"], tmp_path / "data.h5", choices=Choices("TYX"))


def test_three_planes_that_may_be_a_stack_are_told_of(tmp_path):
    for index in range(2):
        painted(tmp_path / "labels" / f"{index}.tif", labels=True)
        (tmp_path / "images").mkdir(exist_ok=True)
        options = {"photometric": "rgb", "planarconfig": "separate"}
        tifffile.imwrite(tmp_path / "images" / f"{index}.tif", picture(index, (3, 40, 40)), **options)
    done = pack.pack([tmp_path / "images"], [tmp_path / "labels"], tmp_path / "data.h5", kind="instance")
    assert done.channels == 3 and done.warnings == (
        "three planes of '0', '1' are tagged as RGB, as tifffile tags any three; they are packed as channels; if they "
        "are frames, pack them with --axes TYX",
    )


@pytest.mark.filterwarnings("ignore:.*photometric")
@pytest.mark.parametrize("count", [3, 4])
def test_planes_that_are_tagged_as_colours_are_frames_if_it_is_said(tmp_path, count):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    values = picture(0, (count, 40, 40))
    tifffile.imwrite(tmp_path / "images" / "movie.tif", values, photometric="rgb", planarconfig="separate")
    labels = np.zeros((count, 40, 40), np.uint8)
    labels[:, 5:20, 5:20], labels[:, 25:35, 25:35] = 1, 2
    tifffile.imwrite(tmp_path / "labels" / "movie.tif", labels, photometric="minisblack")
    where, options = ([tmp_path / "images"], [tmp_path / "labels"]), {"kind": "instance", "val": 1, "part_groups": True}
    with pytest.raises(UserError, match=rf"1 frame and {count}; if the planes .* are frames, add --axes TYX$"):
        pack.pack(*where, tmp_path / "data.h5", **options)
    done = pack.pack(*where, tmp_path / "data.h5", choices=Choices("TYX"), **options)
    assert (done.channels, done.warnings) == (1, ())
    read = Reader(tmp_path / "data.h5").read
    assert all(np.array_equal(read(f"movie_t000{index}")["raw"].squeeze(), values[index]) for index in range(count))


@pytest.mark.filterwarnings("ignore:.*photometric")
@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("metadata", [{}, None], ids=["said by tifffile", "by no program"])
def test_labels_in_planes_that_are_tagged_as_colours_are_those_of_frames(tmp_path, metadata, count):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    values, labels = picture(0, (count, 40, 40)), np.zeros((count, 40, 40), np.uint16)
    labels[:, 5:20, 5:20], labels[1:, 25:35, 25:35] = 1, 300
    colours = {"photometric": "rgb", "planarconfig": "separate", "metadata": metadata}
    tifffile.imwrite(tmp_path / "images" / "movie.tif", values, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "labels" / "movie.tif", labels, **colours)
    where, options = ([tmp_path / "images"], [tmp_path / "labels"]), {"kind": "instance", "test": ("*",)}
    pack.pack(*where, tmp_path / "of_frames.h5", **options)
    tifffile.imwrite(tmp_path / "images" / "movie.tif", values, **colours)
    with pytest.raises(UserError, match=r"; if its planes are frames, add --axes TYX$"):
        pack.pack(*where, tmp_path / "none.h5", **options)
    pack.pack(*where, tmp_path / "said.h5", choices=Choices("TYX"), **options)
    for index, name in itertools.product(range(count), ("of_frames.h5", "said.h5")):
        arrays = Reader(tmp_path / name).read(f"movie_t000{index}")
        np.testing.assert_array_equal(arrays["raw"].squeeze(), values[index])
        np.testing.assert_array_equal(arrays["instances"], labels[index])


def test_options_that_change_nothing_are_told(tmp_path):
    for index in range(2):
        painted(tmp_path / "images" / f"{index}.png")
        painted(tmp_path / "labels" / f"{index}.png", labels=True)
    where, choices = ([tmp_path / "images"], [tmp_path / "labels"]), Choices("TYX", "max", "raw", "label")
    done = pack.pack(*where, tmp_path / "data.h5", kind="instance", choices=choices, part_groups=True)
    assert done.warnings == tuple(
        f"{why}, so it changes nothing; omit it"
        for why in (
            "--axes TYX: no file is a stack",
            "--z max: no image has planes in depth",
            "--dataset raw: no image is in an HDF5 file",
            "--label-dataset label: no labels are in an HDF5 file",
            "--part-groups: there are no groups",
        )
    )


@pytest.mark.parametrize("said", ["dead", "dead=", "=dead/"])
def test_a_map_without_a_name_or_a_place_is_refused(tmp_path, said):
    command = [str(tmp_path), str(tmp_path), "-o", str(tmp_path / "data.h5"), "--map", said]
    fault = f"--map {said}: does not say where the labels are; write --map dead=dead_cells/"
    assert str(CliRunner().invoke(commands.pack, command).exception) == fault


# What labels of cells never look like


def pairs(root, images, labels):
    for kind, arrays in (("images", images), ("labels", labels)):
        (root / kind).mkdir()
        for index, array in enumerate(arrays):
            tifffile.imwrite(root / kind / f"{index}.tif", array, photometric="minisblack")
    return [root / "images"], [root / "labels"]


def cells(count=6, value=None):
    ids = np.zeros((96, 96), np.int32)
    corners = [(y, x) for y in range(4, 90, 20) for x in range(4, 90, 20)][:count]
    for index, (y, x) in enumerate(corners, 1):
        ids[y : y + 12, x : x + 14] = value or index
    return ids.astype(np.uint16)


NOISE = [picture(index, (96, 96)) for index in range(3)]


def test_a_mask_is_no_label_image(tmp_path):
    where = pairs(tmp_path, NOISE, [cells(value=255).astype(np.uint8)] * 3)
    with pytest.raises(UserError) as caught:
        pack.pack(*where, tmp_path / "data.h5", kind="instance")
    assert str(caught.value) == (
        "id 255 of '2' lies in 6 separate pieces (3 ids in 18 pieces in all), but an id is one cell; omit --labels if "
        "these are masks, or give each connected part an id of its own"
    )
    assert pack.pack(*where, tmp_path / "data.h5").warnings == ()


@pytest.mark.parametrize("kind", ["auto", "class", "instance"])
@pytest.mark.parametrize("labels", ["mask", "ids"])
def test_images_and_labels_that_are_swapped_are_refused(tmp_path, kind, labels):
    blurred = [np.rint(ndimage.gaussian_filter(i / 256, 1)).astype(np.uint8) for i in NOISE]
    for index, images in enumerate((NOISE, blurred)):
        place = tmp_path / str(index)
        place.mkdir()
        where = pairs(place, [cells(value=255 if labels == "mask" else None)] * 3, images)
        with pytest.raises(UserError, match="are images and labels swapped"):
            pack.pack(*where, tmp_path / "data.h5", kind=kind)


def test_an_image_that_is_its_own_label_is_refused(tmp_path):
    where = pairs(tmp_path, [cells(), cells(5)], [cells(), cells(5)])
    with pytest.raises(UserError, match="hold the same values; give each image its own label file"):
        pack.pack(*where, tmp_path / "data.h5", kind="instance")


def test_one_file_of_ids_of_a_pixel_is_refused_but_not_one_of_a_few_specks(tmp_path):
    dots, specks = np.zeros((96, 96), np.uint16), np.zeros((96, 96), np.uint16)
    dots[::3, ::3] = np.arange(1, 32 * 32 + 1).reshape(32, 32)
    specks[5, 5:15:3] = [1, 2, 3, 4]
    for name, labels in (("dots", dots), ("specks", specks)):
        (tmp_path / name).mkdir()
        where = pairs(tmp_path / name, NOISE, [cells(20), labels, cells(20)])
        if name == "dots":
            with pytest.raises(UserError, match=r"^100% of neighbouring pixels of '1' have different labels"):
                pack.pack(*where, tmp_path / "data.h5", kind="instance")
        else:
            assert pack.pack(*where, tmp_path / "data.h5", kind="instance").warnings == ()


def test_class_indices_with_gaps_are_warned_about(tmp_path):
    where = pairs(tmp_path, NOISE, [cells(value=255)] * 3)
    said = "the largest class index is 255, but there are 2 of them; are these classes?"
    assert pack.pack(*where, tmp_path / "data.h5", kind="class").warnings == (said,)


def test_ids_of_a_pixel_are_refused_with_their_size(tmp_path):
    dots = np.zeros((96, 96), np.uint16)
    dots[::2, ::2] = np.arange(1, 48 * 48 + 1).reshape(48, 48)
    with pytest.raises(UserError) as caught:
        pack.pack(*pairs(tmp_path, NOISE, [dots] * 3), tmp_path / "data.h5", kind="instance")
    assert "100% of neighbouring pixels" in str(caught.value) and "on 1 pixels or fewer (2,305 labels" in str(
        caught.value
    )


def test_odd_labels_are_warned_about_with_a_number(tmp_path):
    torn, speckled, full = cells(20), cells(8), np.ones((96, 96), np.uint16)
    torn[90:95, 90:95] = torn[80:84, 85:90] = 1
    torn[90:95, 60:65] = 2
    speckled[91, 1:40:4] = np.arange(100, 110)
    for index, (labels, said) in enumerate(
        (
            ([torn] * 3, "6 of 60 ids lie in separate pieces (id 1 of '2' in 3); are they cells?"),
            ([speckled] * 3, "30 of 54 ids have fewer than 5 pixels; are they cells?"),
            ([full] * 3, "100.0% of the labelled pixels are foreground; are masks inverted (0 is background)?"),
            ([cells(0)] * 3, "no pixel is foreground; are these the right labels?"),
        )
    ):
        place = tmp_path / str(index)
        place.mkdir()
        assert pack.pack(*pairs(place, NOISE, labels), place / "data.h5", kind="instance").warnings == (said,)


def test_an_id_of_two_distant_cells_is_counted(tmp_path):
    """However many others there are; a cell that lies in two pieces beside each other is none."""
    for index in range(2):
        ids = 1 + np.arange(100, dtype=np.uint16).reshape(10, 10)
        ids = np.kron(ids, np.pad(np.ones((8, 8), np.uint16), 2))
        ids[ids == 50] = 7 if index else 0
        ids[5, :12] = 0  # parts the first cell
        tifffile.imwrite(tmp_path / f"{index}.tif", picture(index, ids.shape))
        tifffile.imwrite(tmp_path / f"{index}_masks.tif", ids)
    done = pack.pack([tmp_path], [tmp_path], tmp_path / "data.h5", kind="instance")
    assert done.warnings == (
        "1 of 198 ids are shared by cells far apart (id 7 of '1'), but an id is one cell; 'check --data' names all",
    )


def test_labels_of_cells_are_taken_without_a_word(tmp_path):
    assert pack.pack(*pairs(tmp_path, NOISE, [cells(20)] * 3), tmp_path / "data.h5", kind="instance").warnings == ()


# Pixels that are not annotated


@pytest.mark.parametrize(
    ("kind", "values", "gt", "instances"),
    [
        ("auto", (0, 1, 255), (0, 1, -1), None),
        ("class", (0, 1, 2, 255), (0, 1, 2, -1), None),
        ("instance", (0, 3, 255), (0, 1, -1), (0, 3, 0)),
    ],
)
def test_pixels_that_are_not_annotated(tmp_path, kind, values, gt, instances):
    where = folders(tmp_path, SHEET[:3], values=values)
    done = pack.pack(*where, tmp_path / "data.h5", kind=kind, ignore=255)
    assert done.label_values == values[:-1] and 0 < done.foreground < 1
    for index, name in enumerate(SHEET[:3]):
        found, places = Reader(tmp_path / "data.h5").read(name), np.searchsorted(values, labelled(index, values))
        np.testing.assert_array_equal(found["gt"], np.array(gt)[places])
        if instances:
            np.testing.assert_array_equal(found["instances"], np.array(instances)[places])
    sample = dataset["hdf5"](path=tmp_path / "data.h5").read(SHEET[0])
    assert int((sample.labels == IGNORE).sum()) == int((labelled(0, values) == 255).sum())
    assert Reader(tmp_path / "data.h5").contents.provenance["ignore"] == 255


@pytest.mark.parametrize(
    ("kind", "values", "marker"),
    [
        ("auto", (0, 1, 2, 255), 255),
        ("auto", (1, 2, 255), 255),
        ("auto", (0, 128, 255), 128),
        ("auto", (0, 2, 255), None),
        ("mask", (0, 1, 255), 255),
        ("class", (0, 1, 255), 255),
        ("class", (0, 1, 2, 3), None),
        ("mask", (0, 40, 80, 255), None),
        ("mask", (0, 255), None),
    ],
)
def test_what_may_mark_pixels_that_are_not_annotated_is_told(tmp_path, kind, values, marker):
    where = folders(tmp_path, SHEET[:3], values=values)
    try:
        said = "".join(pack.pack(*where, tmp_path / "data.h5", kind=kind).warnings)
    except UserError as error:
        said = str(error)
    assert said.endswith(f"if {marker} marks pixels that are not annotated, add --ignore {marker}") == bool(marker)
    assert ("--ignore" in said) == bool(marker)


def test_a_label_that_is_ignored_leaves_no_other_to_be_ignored(tmp_path):
    where = folders(tmp_path, SHEET[:3], values=(0, 1, 2, 255))
    with pytest.raises(UserError, match=r"^the labels hold 0, 1, 2, neither .*ids of cells\)$"):
        pack.pack(*where, tmp_path / "data.h5", ignore=255)


def test_the_command_takes_the_label_to_ignore(tmp_path):
    (images,), (labels,) = folders(tmp_path, SHEET[:3], values=(0, 1, 255))
    given = [str(images), str(labels), "-o", str(tmp_path / "data.h5"), "--ignore", "255"]
    assert not CliRunner().invoke(commands.pack, given).exit_code
    assert Reader(tmp_path / "data.h5").contents.provenance["ignore"] == 255


def test_many_files_with_the_same_fault_are_a_few_lines(tmp_path):
    (images,), (labels,) = folders(tmp_path, [f"i{index:02}" for index in range(24)], values=(0, 1))
    for index in range(12):
        shutil.copy(images / f"i{index:02}.png", images / f"i{index + 12}.png")
    said = CliRunner().invoke(commands.pack, [str(images), str(labels), "-o", str(tmp_path / "d.h5"), "--val", "12"])
    assert said.output.count("the same image in several splits") == commands.MOST_LINES
    assert "warning: and 4 more like these\n" in said.output


def test_a_label_to_ignore_that_does_not_occur_is_refused(tmp_path):
    where = folders(tmp_path, SHEET[:3], values=(0, 1))
    with pytest.raises(UserError, match=r"^--ignore 255: no pixel has this label \(there are 0, 1\); omit it$"):
        pack.pack(*where, tmp_path / "data.h5", ignore=255)


@pytest.mark.parametrize("kind", ["auto", "mask", "class", "instance"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_images_of_which_all_pixels_are_ignored(tmp_path, kind, dry_run):
    where = folders(tmp_path, SHEET[:3], values=(255, 255))
    with pytest.raises(UserError, match=r"^no pixel is labelled; annotate the images, or omit --ignore$"):
        pack.pack(*where, tmp_path / "data.h5", kind=kind, ignore=255, dry_run=dry_run)
