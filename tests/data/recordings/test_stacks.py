"""Tests of stacks: which axes a file says it has, what is asked, and which arrays are packed."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from yeastexp.cli.data import pack as command
from yeastexp.data import pack
from yeastexp.data.datasets import dataset
from yeastexp.data.datasets.hdf5 import hdf5
from yeastexp.data.folds import split_into_folds
from yeastexp.data.hdf5_file import Reader
from yeastexp.data.recordings import kinds
from yeastexp.data.recordings.recording import Choices, as_recording
from yeastexp.errors import UserError

SIZE = (24, 31)
SIZES = {"T": 4, "C": 2, "Z": 3, "Y": SIZE[0], "X": SIZE[1]}


def values(axes: str, dtype: Any = np.uint16, **sizes: int) -> np.ndarray:
    """An array that is the same nowhere, with these axes."""
    shape = tuple((SIZES | sizes)[axis] for axis in axes)
    if np.dtype(dtype).kind == "f":
        return np.random.default_rng(len(axes)).normal(size=shape).astype(dtype)
    most = 200 if np.dtype(dtype).itemsize == 1 else 30_000
    return np.random.default_rng(len(axes)).integers(0, most, shape).astype(dtype)


def cells(frames: int = 4) -> np.ndarray:
    """Labels (T, H, W) of two cells that move."""
    ids = np.zeros((frames, *SIZE), np.uint8)
    for index in range(frames):
        ids[index, 2:9, 3 + index : 12 + index], ids[index, 12:20, 5:15] = 1, 2
    return ids


def imagej(path: Path, array: np.ndarray, axes: str) -> None:
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": axes, "unit": "um"}, resolution=(5, 5))


def ome(path: Path, array: np.ndarray, axes: str, **options: Any) -> None:
    said: dict[str, Any] = {"axes": axes, "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    if "C" in axes:
        said["Channel"] = {"Name": ["phase", "GFP"]}
    tifffile.imwrite(path, array, ome=True, metadata=said, **options)


def plain(path: Path, array: np.ndarray, axes: str) -> None:
    tifffile.imwrite(path, array, photometric="minisblack")


def images_of(array: np.ndarray, axes: str, z: str | None = None) -> list[np.ndarray]:
    """The images (C, H, W) that an array of known axes holds."""
    array = np.transpose(array, [axes.index(axis) for axis in "TZCYX" if axis in axes])
    for axis, letter in enumerate("TZC"):
        array = array if letter in axes else np.expand_dims(array, axis)
    planes = array.shape[1]
    chosen = array.max(axis=1) if z == "max" else array[:, planes // 2 if z == "middle" else int(z or 0)]
    return list(chosen)


AXES: list[tuple[str, str | None]] = [("TYX", None), ("CYX", None), ("TCYX", None)]
AXES += list(itertools.product(("ZYX", "TZYX", "TZCYX"), ("max", "middle", "2")))


@pytest.mark.parametrize("write", [imagej, ome])
@pytest.mark.parametrize(("axes", "z"), AXES)
def test_axes_that_a_file_says(tmp_path: Path, write: Any, axes: str, z: str | None) -> None:
    path, array = tmp_path / "movie.tif", values(axes)
    write(path, array, axes)
    (stored,) = kinds.arrays(path, Choices())
    recording = as_recording(stored, Choices(z=z))
    expected = images_of(array, axes, z)
    assert recording.frames == len(expected) and recording.shape == expected[0].shape
    for frame, image in enumerate(expected):
        np.testing.assert_array_equal(recording.read(frame), image, strict=True)
    assert stored.pixel_um == pytest.approx(0.2)
    if write is ome and "C" in axes:
        assert stored.channel_names == ("phase", "GFP")


@pytest.mark.parametrize("axes", ["TYX", "CYX", "YXC", "XYT", "ZYX"])
def test_axes_that_have_to_be_told(tmp_path: Path, axes: str) -> None:
    path, array = tmp_path / "movie.tif", values(axes, C=5)
    plain(path, array, axes)
    (stored,) = kinds.arrays(path, Choices())
    with pytest.raises(UserError, match=r"movie.tif: holds \d+ pages of \d+ × \d+ and does not say what they are; add"):
        as_recording(stored, Choices())
    z = "1" if "Z" in axes else None
    recording = as_recording(stored, Choices(axes, z))
    for frame, image in enumerate(images_of(array, axes, z)):
        np.testing.assert_array_equal(recording.read(frame), image, strict=True)


def test_planes_in_depth_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "movie.tif"
    imagej(path, values("ZYX"), "ZYX")
    (stored,) = kinds.arrays(path, Choices())
    for choices, said in (
        (Choices(), "add --z max, --z middle or --z 0 to 2, or --axes TYX if they are frames"),
        (Choices(z="3"), "--z 3 is not one of 0 to 2"),
    ):
        with pytest.raises(UserError) as caught:
            as_recording(stored, choices)
        assert str(caught.value) == f"{path}: holds 3 planes in depth; {said}"
    assert as_recording(stored, Choices("TYX")).frames == 3


@pytest.mark.parametrize(("axes", "said"), [("TCYX", "does not fit; give a letter for each"), ("YX", "does not fit")])
def test_axes_that_do_not_fit(tmp_path: Path, axes: str, said: str) -> None:
    path = tmp_path / "movie.tif"
    plain(path, values("TYX"), "TYX")
    (stored,) = kinds.arrays(path, Choices())
    with pytest.raises(UserError, match=rf"movie.tif: has 3 axes \(YX 4 × 24 × 31\), which --axes {axes} {said}"):
        as_recording(stored, Choices(axes))


@pytest.mark.parametrize("axes", ["TY", "TTYX", "QYX", ""])
def test_what_is_no_list_of_axes(axes: str) -> None:
    with pytest.raises(UserError, match=rf"^--axes {axes}: is no list of axes; name each once, as TYX"):
        Choices(axes)
    with pytest.raises(UserError, match=r"^--z last: is no plane"):
        Choices(z="last")


FORMS: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "zlib"},
    "deflate with predictor": {"compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 16)},
    "big": {"bigtiff": True},
    "big endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 5},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f4"])
def test_every_kind_of_storage(tmp_path: Path, form: str, dtype: str) -> None:
    path, array = tmp_path / "movie.tif", values("TYX", dtype)
    options = FORMS[form]
    if array.dtype.kind == "f":
        options = {key: value for key, value in options.items() if key != "predictor"}
    tifffile.imwrite(path, array, metadata={"axes": "TYX"}, photometric="minisblack", **options)
    (stored,) = kinds.arrays(path, Choices())
    recording = as_recording(stored, Choices())
    for frame in range(4):
        np.testing.assert_array_equal(recording.read(frame), array[frame][None], strict=True)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_frames_in_colour(tmp_path: Path, planar: str) -> None:
    array = values("TYXC", np.uint8, C=3)
    pages = array if planar == "contig" else np.moveaxis(array, -1, 1)
    axes = "TYXS" if planar == "contig" else "TSYX"
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb", planarconfig=planar, metadata={"axes": axes})
    (stored,) = kinds.arrays(tmp_path / "a.tif", Choices())
    recording = as_recording(stored, Choices())
    for frame in range(4):
        np.testing.assert_array_equal(recording.read(frame), np.moveaxis(array[frame], -1, 0), strict=True)


def test_lzw_of_pages_is_read_without_imagecodecs(tmp_path: Path) -> None:
    array = values("TYX", np.uint8)
    first, *others = map(Image.fromarray, array)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression="tiff_lzw")
    (stored,) = kinds.arrays(tmp_path / "a.tif", Choices())
    recording = as_recording(stored, Choices("TYX"))
    np.testing.assert_array_equal(np.stack([recording.read(frame)[0] for frame in range(4)]), array)


def test_pages_that_imagej_gave_no_tags(tmp_path: Path) -> None:
    """It writes a stack of more than 4 GB as one page, and the others behind it."""
    array = values("TYX")
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset, order = file.pages[0].dataoffsets[0], file.byteorder
        next_page = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[next_page : next_page + 4] = b"\0" * 4
    (tmp_path / "a.tif").write_bytes(content)
    assert np.frombuffer(content, f"{order}u2", 1, offset)[0] == array[0, 0, 0]
    (stored,) = kinds.arrays(tmp_path / "a.tif", Choices())
    recording = as_recording(stored, Choices())
    np.testing.assert_array_equal(np.stack([recording.read(frame)[0] for frame in range(4)]), array)


# Stacks with their labels


def stacks(root: Path, names: Any = ("a", "b"), axes: str = "TCYX", write: Any = ome) -> tuple[list[Path], list[Path]]:
    """Movies of 4 frames and the labels of their cells."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        write(root / "images" / f"{name}.tif", values(axes) + index, axes)
        tifffile.imwrite(root / "labels" / f"{name}_masks.tif", cells(), photometric="minisblack")
    return [root / "images"], [root / "labels"]


def test_frames_are_paired_and_kept_together(tmp_path: Path) -> None:
    done = pack.pack(*stacks(tmp_path), tmp_path / "data.h5", kind="instance")
    assert done.splits == {"train": 4, "val": 4} and done.channels == 2
    reader = Reader(tmp_path / "data.h5")
    contents = reader.contents
    assert contents.splits["val"] == tuple(f"b_t000{index}" for index in range(4))
    assert contents.origin.groups == {f"{name}_t000{index}": name for name in "ab" for index in range(4)}
    assert contents.origin.frames["b_t0003"] == 3
    assert (contents.origin.channel_names, contents.pixel_um) == (("phase", "GFP"), 0.2)
    assert contents.provenance["axes"] == ["TCYX"]
    for index in range(4):
        arrays = reader.read(f"a_t000{index}")
        np.testing.assert_array_equal(arrays["raw"], values("TCYX")[index])
        np.testing.assert_array_equal(arrays["instances"], cells()[index])
    pack.normalize(tmp_path / "data.h5", tmp_path / "normalized.h5")
    assert Reader(tmp_path / "normalized.h5").contents.origin == contents.origin
    data = dataset["hdf5"](path=tmp_path / "data.h5", val=2)
    assert len(data.splits["val"]) == 4  # no group is parted
    assert len(split_into_folds(contents.names, 2, groups=data.groups).folds[0]) == 4
    with pytest.raises(UserError, match=r"^--folds 3: there are 2 groups, and each fold needs one \(--group-by"):
        split_into_folds(contents.names, 3, groups=data.groups)


@pytest.mark.parametrize("mark", ["_mask", ""])
def test_a_file_for_each_frame_of_labels(tmp_path: Path, mark: str) -> None:
    where = stacks(tmp_path)
    for path in list((tmp_path / "labels").iterdir()):
        path.unlink()
    for name, frame in itertools.product("ab", range(4)):
        Image.fromarray(cells()[frame]).save(tmp_path / "labels" / f"{name}_t{frame:04d}{mark}.png")
    pack.pack(*where, tmp_path / "data.h5", kind="instance")
    np.testing.assert_array_equal(Reader(tmp_path / "data.h5").read("b_t0002")["instances"], cells()[2])


def test_one_movie_is_parted_only_if_told(tmp_path: Path) -> None:
    where = stacks(tmp_path, ("a",))
    for options in ({}, {"val": 1}, {"val": ("a_t0003",)}):
        with pytest.raises(UserError, match="--part-groups"):
            pack.pack(*where, tmp_path / "data.h5", kind="instance", **options)
        assert not (tmp_path / "data.h5").exists()
    assert pack.pack(*where, tmp_path / "data.h5", kind="instance", val=1, part_groups=True).splits["val"] == 1


def test_groups_by_name_and_by_folder(tmp_path: Path) -> None:
    for index in range(6):
        for folder, array in (("images", values("YX") + index), ("labels", cells()[0])):
            path = tmp_path / folder / f"plate{index // 3}" / f"p{index // 3}_{index}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, array)
    where = [f"{tmp_path}/images/*"], [f"{tmp_path}/labels/*"]
    for index, group_by in enumerate(("folder", r"^(?P<plate>p\d)", "p.")):
        done = pack.pack(*where, tmp_path / f"{index}.h5", kind="instance", group_by=group_by, val=1)
        assert done.splits == {"train": 3, "val": 3} and len(set(done.origin.groups.values())) == 2
    with pytest.raises(UserError, match="does not match the name 'p0_0'"):
        pack.pack(*where, tmp_path / "no.h5", kind="instance", group_by="movie")


@pytest.mark.parametrize("count", [1, 3, 5])
def test_stacks_of_other_lengths(tmp_path: Path, count: int) -> None:
    images, labels = stacks(tmp_path)
    tifffile.imwrite(tmp_path / "labels" / "b_masks.tif", cells(count).squeeze(), photometric="minisblack")
    with pytest.raises(UserError) as caught:
        pack.pack(images, labels, tmp_path / "data.h5", kind="instance")
    assert str(caught.value) == (
        f"{tmp_path}/images/b.tif and {tmp_path}/labels/b_masks.tif: differ in frames, 4 frames and {count}; "
        "give each image its own label"
    )
    assert not (tmp_path / "data.h5").exists()


@pytest.mark.parametrize("write", [ome, imagej])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_stack_that_is_cut_short_among_good_ones(tmp_path: Path, write: Any, share: float) -> None:
    images, labels = stacks(tmp_path, write=write)
    path = tmp_path / "images" / "b.tif"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"^\S*b.tif: cannot be decoded \((pages|pixels) are missing\)"):
        pack.pack(images, labels, tmp_path / "data.h5", kind="instance")
    assert not (tmp_path / "data.h5").exists()


def test_two_pages_with_one_label_are_channels_and_three_are_asked_about(tmp_path: Path) -> None:
    for count in (2, 3):
        root = tmp_path / str(count)
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True)
        for index in range(2):
            plain(root / "images" / f"{index}.tif", values("CYX", C=count) + index, "CYX")
            tifffile.imwrite(root / "labels" / f"{index}.tif", cells()[index])
    done = pack.pack([tmp_path / "2/images"], [tmp_path / "2/labels"], tmp_path / "data.h5", kind="instance")
    assert done.channels == 2 and any("were taken as channels" in line for line in done.choices)
    with pytest.raises(UserError, match="holds 3 pages of 24 × 31 and does not say what they are"):
        pack.pack([tmp_path / "3/images"], [tmp_path / "3/labels"], tmp_path / "3.h5", kind="instance")


def test_a_dry_run_says_what_each_image_is_and_writes_nothing(tmp_path: Path) -> None:
    images, labels = stacks(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = [*map(str, (*images, *labels)), "-o", str(tmp_path / "data.h5"), "--labels", "instance", "--dry-run"]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    array = values("TCYX")
    assert done.output.splitlines()[1] == (
        f"a_t0001: {tmp_path}/images/a.tif frame 1 (OME-TIFF TCYX 4 × 2 × 24 × 31: 4 frames, 2 channels), "
        f"2 × 24 × 31 uint16, {array[1].min()} to {array[1].max()}; {tmp_path}/labels/a_masks.tif frame 1 (TIFF), "
        "instance, 2 cells"
    )
    assert "read     2 files: OME-TIFF TCYX 4 × 2 × 24 × 31: 4 frames, 2 channels" in done.output
    assert "read     a.tif with a_masks.tif, b.tif with b_masks.tif" in done.output
    assert "channels phase, GFP" in done.output and "pixel    0.2 µm" in done.output
    assert done.output.splitlines()[-1] == "nothing was written (--dry-run)"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_says_what_each_image_is_before_what_is_wrong(tmp_path: Path) -> None:
    images, labels = stacks(tmp_path, names="a")
    arguments = [str(images[0]), str(labels[0]), "--labels", "instance"]
    tried = CliRunner().invoke(command, [*arguments, "--dry-run"])
    assert tried.output.count("instance, 2 cells") == 4 and isinstance(tried.exception, UserError)
    assert "all 4 images are of one group, 'a'" in str(tried.exception)
    done = pack.pack(images, labels, tmp_path / "data.h5", kind="instance", dry_run=True, ignore=77)
    assert len(done.files) == 4 and len(done.faults) == 2 and "--ignore 77: no pixel has this label" in done.faults[1]
    missing = CliRunner().invoke(command, arguments)
    assert missing.exit_code == 2 and "Missing option '-o'" in missing.output


def test_a_dry_run_goes_on_behind_images_that_cannot_be_packed(tmp_path: Path) -> None:
    images, labels = stacks(tmp_path)
    tifffile.imwrite(labels[0] / "a_masks.tif", cells()[:, :-1], photometric="minisblack")
    tried = CliRunner().invoke(command, [str(images[0]), str(labels[0]), "--labels", "instance", "--dry-run"])
    assert [f"{name}.tif frame" in tried.output for name in "ab"] == [False, True]
    assert isinstance(tried.exception, UserError) and len(tried.exception.faults) == 4
    assert all("a_masks.tif: differ in size" in fault for fault in tried.exception.faults)


def test_validation_images_by_name_part_no_movie_unless_told(tmp_path: Path) -> None:
    pack.pack(*stacks(tmp_path), tmp_path / "data.h5", kind="instance")
    fault = r"parts the group 'a' \(1 of its 4 images\); name all of a group, or set 'part_groups = true'"
    with pytest.raises(UserError, match=fault):
        hdf5(tmp_path / "data.h5", val=("a_t0003",))
    assert hdf5(tmp_path / "data.h5", val=("a_*",)).splits["train"] == [f"b_t000{index}" for index in range(4)]
    assert hdf5(tmp_path / "data.h5", val=("a_t0003",), part_groups=True).splits["val"] == ["a_t0003"]


def test_files_of_several_pixel_sizes_and_channels(tmp_path: Path) -> None:
    images, labels = stacks(tmp_path)
    said = {"axes": "TCYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "Channel": {"Name": ["GFP", "phase"]}}
    tifffile.imwrite(tmp_path / "images" / "b.tif", values("TCYX") + 1, ome=True, metadata=said)
    done = pack.pack(images, labels, tmp_path / "data.h5", kind="instance")
    assert (done.pixel_um, done.origin.channel_names) == (None, ())
    assert done.warnings == (
        "the files differ in pixel size in µm (0.2 of 'a', 0.1 of 'b'), so none is kept; --pixel-um says one",
        "the files name channels differently ('a': phase, GFP; 'b': GFP, phase), so no names are kept; is their order "
        "one?",
    )


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    peaks, size = {}, (200, 250)
    for count in (20, 120):
        root = tmp_path / str(count)
        for folder, dtype in (("images", np.uint16), ("labels", np.uint8)):
            root.joinpath(folder).mkdir(parents=True)
            pages = np.random.default_rng(0).integers(0, 2, (count, *size)).astype(dtype)
            pages[:, 0, 0] = np.arange(count)[:, None].squeeze() if folder == "images" else 0
            tifffile.imwrite(root / folder / "a.tif", pages, metadata={"axes": "TYX"}, compression="zlib")
        tracemalloc.start()
        where = [root / "images"], [root / "labels"]
        pack.pack(*where, root / "data.h5", part_groups=True)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[120] - peaks[20] < 8 * size[0] * size[1] * 2
    with h5py.File(tmp_path / "120" / "data.h5") as file:
        assert file["raw"].shape == (120, *size)
