"""TIFF files in pieces are what they are read at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from yeastexp.data import images, tiff_file
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
    found = tiff_file.stored_image(path)
    assert (found.name, found.shape, found.dtype) == (str(path), whole.shape, whole.dtype)
    assert found.size == SIZE and tiff_file.claimed_shape(path) == (whole.shape[0], *SIZE)
    for rows, columns in PIECES:
        piece = found.read(slice(*rows), slice(*columns))
        np.testing.assert_array_equal(piece, whole[:, slice(*rows), slice(*columns)], strict=True)
    np.testing.assert_array_equal(found.whole, whole, strict=True)


def test_few_decoded_strips_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_file, "DECODED", 16 * 203 * 2)
    tifffile.imwrite(tmp_path / "a.tif", GREY, rowsperstrip=16, compression="zlib")
    np.testing.assert_array_equal(tiff_file.stored_image(tmp_path / "a.tif").whole[0], GREY)


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
        tiff_file.stored_image(path).whole  # noqa: B018
    assert str(caught.value).startswith(f"{path}: {message}")


def test_one_compressed_strip_must_not_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_file, "LARGEST_SEGMENT", 1000)
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", rowsperstrip=150)
    with pytest.raises(UserError, match="is compressed in one piece of 60,900 bytes; save it in tiles"):
        tiff_file.stored_image(tmp_path / "a.tif")


def test_a_codec_that_is_not_there_is_named(tmp_path: Path) -> None:
    Image.fromarray((GREY >> 8).astype(np.uint8)).save(tmp_path / "a.tif", compression="tiff_lzw")
    with pytest.raises(
        UserError, match=r"a\.tif: is compressed by LZW, which needs the package imagecodecs; install it"
    ):
        tiff_file.stored_image(tmp_path / "a.tif").whole  # noqa: B018


def test_a_file_that_is_no_tiff_claims_no_values(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"II*\0", b"II*\0" + b"\xff" * 50):
        (tmp_path / "a.tif").write_bytes(content)
        assert tiff_file.claimed_shape(tmp_path / "a.tif") == (0, 0, 0)
    assert tiff_file.claimed_shape(tmp_path) == tiff_file.claimed_shape(tmp_path / "none") == (0, 0, 0)


def test_a_tiff_is_written_without_loss(tmp_path: Path) -> None:
    for values in (GREY, np.stack([GREY, GREY // 2]).astype(np.float32)):
        tiff_file.write(tmp_path / "a.tif", values)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), values, strict=True)
