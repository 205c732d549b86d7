"""Pieces of TIFF and HDF5 files, and TIFF files that grow."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from filelock import FileLock

from yeastexp.data import images, pieces
from yeastexp.errors import UserError

SIZE = (150, 203)
GREY = np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
PIECES = [((0, 150), (0, 203)), ((17, 80), (0, 203)), ((63, 64), (100, 101)), ((100, 150), (33, 203))]

FORMS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "one strip": (GREY, {}),
    "strips": (GREY, {"rowsperstrip": 7}),
    "other end first": (GREY, {"byteorder": ">"}),
    "compressed strips": (GREY, {"rowsperstrip": 16, "compression": "zlib"}),
    "compressed strips, other end first": (GREY, {"rowsperstrip": 16, "compression": "zlib", "byteorder": ">"}),
    "tiles": (GREY, {"tile": (32, 48)}),
    "compressed tiles": (GREY, {"tile": (32, 48), "compression": "zlib"}),
    "predicted": (GREY, {"tile": (32, 48), "compression": "zlib", "predictor": 2}),
    "large offsets": (GREY, {"bigtiff": True}),
    "8 bit": ((GREY >> 8).astype(np.uint8), {"rowsperstrip": 9}),
    "fractions": (GREY / np.float32(7), {"tile": (64, 64)}),
    "colours": (COLOUR, {"photometric": "rgb", "rowsperstrip": 20}),
    "colours in one strip": (COLOUR, {"photometric": "rgb"}),
    "planes": (np.moveaxis(COLOUR, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "planes in tiles": (
        np.moveaxis(COLOUR, -1, 0),
        {"photometric": "rgb", "planarconfig": "separate", "tile": (32, 48), "compression": "zlib"},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_pieces_of_a_tiff_file_are_those_of_the_image_read_at_once(tmp_path: Path, name: str) -> None:
    values, options = FORMS[name]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, **options)
    whole = images.read_image(path)
    found = pieces.tiff(path)
    assert (found.name, found.shape, found.dtype) == (str(path), whole.shape, whole.dtype)
    assert found.size == SIZE and pieces.tiff_values(path) == whole.size
    for rows, columns in PIECES:
        piece = found.read(slice(*rows), slice(*columns))
        np.testing.assert_array_equal(piece, whole[:, slice(*rows), slice(*columns)], strict=True)
    np.testing.assert_array_equal(found.whole, whole, strict=True)


def test_few_decoded_strips_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "HELD", 16 * 203 * 2)
    tifffile.imwrite(tmp_path / "a.tif", GREY, rowsperstrip=16, compression="zlib")
    np.testing.assert_array_equal(pieces.tiff(tmp_path / "a.tif").whole[0], GREY)


def written(values: np.ndarray, **options: Any) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, values, **options)


def cut_short(path: Path) -> None:
    tifffile.imwrite(path, GREY)
    path.write_bytes(path.read_bytes()[:-100])


def spoilt(path: Path) -> None:
    """One compressed strip is overwritten."""
    tifffile.imwrite(path, GREY, compression="zlib", rowsperstrip=50)
    with tifffile.TiffFile(path) as found:
        offset = found.pages[0].dataoffsets[1]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 50)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "pages": (written(np.stack([GREY] * 2), photometric="minisblack"), "has 2 pages; save each as a file of its own"),
    "a palette": (
        written(GREY.astype(np.uint8), photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
        "is stored as PALETTE; save it as grey or RGB",
    ),
    "alpha": (
        written(np.zeros((*SIZE, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"]),
        "holds (150, 203, 4) values; save one grey or RGB picture without alpha channel",
    ),
    "signed": (
        written(GREY.astype(np.int32)),
        "holds int32 values; save it as 8 or 16 bit unsigned integers or float32",
    ),
    "cut short": (cut_short, "cannot be decoded (pixels are missing); the file is damaged"),
    "no TIFF": (lambda path: path.write_bytes(b"hello"), "cannot be decoded (not a TIFF file"),
    "spoilt": (spoilt, "cannot be decoded (Error -3 while decompressing data"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_tiff_file_that_cannot_be_read_in_pieces(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "a.tif"
    make(path)
    with pytest.raises(UserError) as caught:
        pieces.tiff(path).whole  # noqa: B018
    assert str(caught.value).startswith(f"{path}: {message}")


def test_one_compressed_strip_must_not_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGEST_SEGMENT", 1000)
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", rowsperstrip=150)
    with pytest.raises(UserError, match="is compressed in one piece of 60,900 bytes; save it in tiles"):
        pieces.tiff(tmp_path / "a.tif")


def test_a_codec_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", rowsperstrip=16)
    found = pieces._Segments.__new__(pieces._Segments)
    found.compression = tifffile.COMPRESSION.LZW
    assert "is compressed by LZW, which needs the package imagecodecs" in found.why(ValueError("requires imagecodecs"))


def test_a_file_that_is_no_tiff_claims_no_values(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"II*\0", b"II*\0" + b"\xff" * 50):
        (tmp_path / "a.tif").write_bytes(content)
        assert pieces.tiff_values(tmp_path / "a.tif") == 0
    assert pieces.tiff_values(tmp_path) == pieces.tiff_values(tmp_path / "none") == 0


STACK = np.random.default_rng(2).integers(0, 1000, (2, *SIZE)).astype(np.uint16)


def stacked(file: h5py.File) -> None:
    file["raw"] = STACK


def named(file: h5py.File) -> None:
    file["raw"] = STACK[:, None]
    file["names"] = ["b", "a"]
    file.attrs["normalization"] = json.dumps({"mean": 1.0, "std": 2.0})


def grouped(file: h5py.File) -> None:
    file.create_dataset("raw/b", data=STACK[0], chunks=(64, 64), compression="gzip")
    file.create_dataset("raw/a", data=STACK[1][None])


@pytest.mark.parametrize(
    ("make", "names"),
    [(stacked, ["000", "001"]), (named, ["b", "a"]), (grouped, ["a", "b"])],
    ids=["stacked", "named", "grouped"],
)
def test_pieces_of_an_hdf5_file(tmp_path: Path, make: Callable[[h5py.File], None], names: list[str]) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        make(file)
    found = pieces.hdf5(path)
    assert [one.name for one in found] == [f"{path}/{name}" for name in names]
    for picture, values in zip(found, STACK[::-1] if make is grouped else STACK, strict=True):
        assert (picture.shape, picture.dtype) == ((1, *SIZE), np.uint16)
        assert picture.normalization == ({"mean": 1.0, "std": 2.0} if make is named else None)
        for rows, columns in PIECES:
            piece = picture.read(slice(*rows), slice(*columns))
            np.testing.assert_array_equal(piece[0], values[slice(*rows), slice(*columns)], strict=True)


def stored(key: str, values: Any, names: list[str] | None = None, **attributes: Any) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        file[key] = values
        if names:
            file["names"] = names
        file.attrs.update(attributes)

    return make


BAD_HDF5: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "nothing": (lambda file: None, "has no 'raw' (it holds nothing); store images as 'raw'"),
    "other keys": (stored("gt", GREY), "has no 'raw' (it holds gt); store images as 'raw'"),
    "one image": (stored("raw", GREY), "'raw' has shape (150, 203); it must be (N, H, W) or (N, C, H, W)"),
    "words": (stored("raw", np.full((1, 2, 2), b"a")), "'raw' holds |S1 values; store numbers"),
    "no pixels": (
        stored("raw", np.zeros((1, 0, 5))),
        "'raw' of image '000' has shape (0, 5); it must be (H, W) or (C, H, W)",
    ),
    "too few names": (
        stored("raw", STACK, ["a"]),
        "'raw' holds 2 images, but 'names' names 1; make the file again",
    ),
    "a link": (
        lambda file: file.__setitem__("raw", h5py.ExternalLink("/etc/passwd", "raw")),
        "'raw' is a link, which may lead out of the file; copy the data into the file",
    ),
    "a name without array": (stored("raw/a", GREY, ["a", "b"]), "'raw' has no array 'b'; make the file again"),
    "figures of no kind": (
        stored("raw", STACK, normalization='{"mean": 1}'),
        "attribute 'normalization' has no 'mean' and 'std'; make the file again",
    ),
}


@pytest.mark.parametrize("name", BAD_HDF5)
def test_an_hdf5_file_without_images(tmp_path: Path, name: str) -> None:
    make, message = BAD_HDF5[name]
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(UserError) as caught:
        pieces.hdf5(path)
    assert str(caught.value) == f"{path}: {message}"


def test_what_is_no_hdf5_file(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match=r"cannot be opened \(it is no HDF5 file\); name an HDF5 file with images"):
        pieces.hdf5(path)
    with pytest.raises(UserError, match=r"cannot be opened \(No such file or directory\)"):
        pieces.hdf5(tmp_path / "none.h5")


def test_infinite_values_are_refused() -> None:
    with pytest.raises(UserError, match="a: holds NaN or infinite values; mend or remove it"):
        pieces.checked("a", np.array([1.0, np.nan]))
    assert pieces.checked("a", GREY) is GREY


# Files that grow

LABELS = (GREY % 3).astype(np.uint8)
SHARES = np.stack([GREY, GREY // 2]).astype(np.float32)
CELLS = [(rows, columns) for rows in (slice(0, 128), slice(128, 150)) for columns in (slice(0, 192), slice(192, 203))]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of few pixels, so that these images have several."""
    monkeypatch.setattr(pieces, "TILE", 64)


def forms(folder: Path) -> dict[Path, tuple[tuple[int, ...], Any]]:
    return {folder / "m.tif": (SIZE, np.uint8), folder / "p" / "m.tif": ((2, *SIZE), np.float32)}


def write(growing: pieces.Growing, cells: list[tuple[slice, slice]]) -> None:
    mask, shares = growing.forms
    for rows, columns in cells:
        growing.write(mask, rows, columns, LABELS[rows, columns])
        growing.write(shares, rows, columns, SHARES[:, rows, columns])


def test_files_grow_hidden_and_appear_whole(tmp_path: Path) -> None:
    with pieces.growing(forms(tmp_path), {"a": 1}) as growing:
        write(growing, CELLS)
        growing.note(150, 2.5)
        assert not (tmp_path / "m.tif").exists() and not (tmp_path / "p" / "m.tif").exists()
        growing.appear({"cells": 7})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), LABELS, strict=True)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p" / "m.tif"), SHARES, strict=True)
    np.testing.assert_array_equal(pieces.tiff(tmp_path / "m.tif").whole[0], LABELS, strict=True)
    targets = list(forms(tmp_path))
    assert pieces.finished(targets, {"a": 1}) == {"cells": 7}
    assert pieces.finished(targets, {"a": 2}) is None
    pieces.record_of(targets[0]).unlink()
    assert pieces.finished(targets, {"a": 1}) is None
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == ["m.tif", "p", "p/m.tif"]


def test_the_next_process_goes_on_where_one_ended(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), pieces.growing(forms(tmp_path), {"a": 1}) as growing:
        write(growing, CELLS[:2])
        growing.note(128, 2.5)
        growing.write(tmp_path / "m.tif", *CELLS[2], LABELS[CELLS[2]] + 1)  # in the middle of a band
        raise KeyboardInterrupt
    assert not (tmp_path / "m.tif").exists()
    with pieces.growing(forms(tmp_path), {"a": 1}) as growing:
        assert (growing.rows, growing.seconds) == (128, 2.5)
        write(growing, CELLS[2:])
        growing.appear({})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), LABELS)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p" / "m.tif"), SHARES)


@pytest.mark.parametrize("change", ["identity", "lost", "spoilt"])
def test_what_was_left_by_something_else_is_begun_again(tmp_path: Path, change: str) -> None:
    with pieces.growing(forms(tmp_path), {"a": 1}) as growing:
        write(growing, CELLS)
        growing.note(128, 2.5)
    if change == "lost":
        growing.parts[tmp_path / "p" / "m.tif"].unlink()
    if change == "spoilt":
        growing.record.write_text("[]")
    with pieces.growing(forms(tmp_path), {"a": 2 if change == "identity" else 1}) as growing:
        assert (growing.rows, growing.seconds) == (0, 0.0)
        growing.note(0, 0.0)
    assert not pieces.tiff(growing.parts[tmp_path / "m.tif"]).whole.any()


def test_what_two_commands_left_in_turn_is_not_mixed(tmp_path: Path) -> None:
    """The second is killed before its first rows are on disk: its empty files are not those of the first's record."""
    with pieces.growing(forms(tmp_path), {"a": 1}) as growing:
        write(growing, CELLS[:2])
        growing.note(128, 2.5)
    with pieces.growing(forms(tmp_path), {"a": 2}):
        pass
    with pieces.growing(forms(tmp_path), {"a": 1}) as growing:
        assert growing.rows == 0


def test_what_was_seen_in_part_is_not_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two renames, then again behind the next beginning."""
    with pieces.growing(forms(tmp_path), {"a": 1}) as growing:
        write(growing, CELLS)
        growing.note(150, 2.5)
        probabilities = list(growing.parts.values())[1]
        probabilities.replace(tmp_path / "p" / "m.tif")
    for _ in range(2):
        with pieces.growing(forms(tmp_path), {"a": 1}) as growing:
            assert growing.rows == 0


def test_the_side_of_pieces_is_that_of_the_beginning(tmp_path: Path) -> None:
    for side in (512, 256):
        with pieces.growing(forms(tmp_path), {"a": 1}, side) as growing:
            assert growing.side == 512
            growing.note(64, 1.0)
    with pieces.growing(forms(tmp_path), {"a": 2}, 256) as growing:
        assert growing.side == 256


def test_a_file_grows_in_one_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".m.tif.lock"), pytest.raises(UserError, match=r"m\.tif: another process is writing it"):
        pieces.growing(forms(tmp_path), {}).__enter__()
    with pieces.growing(forms(tmp_path), {}):
        pass


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_of_before_anything_is_computed(tmp_path: Path) -> None:
    message = r"m\.tif: cannot be written \(File too large\); make room, and the same command goes on"
    with full_disk(20_000), pytest.raises(UserError, match=message) as caught:
        pieces.growing(forms(tmp_path), {}).__enter__()
    assert caught.value.status == 1
    with full_disk(100), pytest.raises(UserError, match=r"b\.tif: cannot be written \(File too large\); make room"):
        pieces.write_tiff(tmp_path / "b.tif", GREY)


def test_a_tiff_is_written_without_loss(tmp_path: Path) -> None:
    for values in (LABELS, SHARES):
        pieces.write_tiff(tmp_path / "a.tif", values)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), values, strict=True)


def test_bands_make_an_image() -> None:
    assert list(pieces.bands((10, 3), 4)) == [slice(0, 4), slice(4, 8), slice(8, 10)]
