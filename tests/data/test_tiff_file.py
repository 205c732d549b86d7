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


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}"><Image ID="Image:0" Name="x">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="203" SizeY="150" SizeZ="1" SizeC="1" SizeT="3">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>"""


def test_a_file_of_an_ome_recording_holds_its_own_image(tmp_path: Path) -> None:
    """Its description counts the frames of the whole recording, which lie in files beside it."""
    ids = [f"urn:uuid:0000000{index}-0000-0000-0000-000000000000" for index in range(3)]
    planes = "".join(
        f'<TiffData FirstT="{index}" IFD="0" PlaneCount="1"><UUID FileName="f{index}.ome.tif">{own}</UUID></TiffData>'
        for index, own in enumerate(ids)
    )
    for index, own in enumerate(ids):
        path = tmp_path / f"f{index}.ome.tif"
        description = OME.format(own=own, planes=planes)
        tifffile.imwrite(path, GREY + index, description=description, metadata=None, photometric="minisblack")
    for index in range(3):
        path = tmp_path / f"f{index}.ome.tif"
        assert tiff_file.stack_fault(path) is None
        for values in (images.read_image(path), tiff_file.stored_image(path).whole):
            np.testing.assert_array_equal(values[0], GREY + index)


CHANNELS = np.random.default_rng(2).integers(0, 65536, (4, *SIZE)).astype(np.uint16)
FORMS |= {
    "0 is white": (GREY, {"photometric": "miniswhite", "tile": (32, 48), "compression": "zlib"}),
    "0 is white, in place": ((GREY >> 8).astype(np.uint8), {"photometric": "miniswhite"}),
    "two channels": (np.moveaxis(CHANNELS[:2], 0, -1), {"photometric": "minisblack", "planarconfig": "contig"}),
    "two planes": (CHANNELS[:2], {"photometric": "minisblack", "planarconfig": "separate", "tile": (32, 48)}),
    "four channels": (
        np.moveaxis(CHANNELS, 0, -1),
        {"photometric": "rgb", "planarconfig": "contig", "extrasamples": ["unspecified"]},
    ),
} | {
    f"orientation {tag}, {how}": (values, {**options, "extratags": [(274, "H", 1, tag, True)]})
    for tag in range(2, 9)
    for how, (values, options) in {
        "in place": (GREY, {}),
        "tiles": (COLOUR, {"photometric": "rgb", "tile": (32, 48), "compression": "zlib"}),
    }.items()
}


def turned(image: np.ndarray, tag: int) -> np.ndarray:
    """An image (C, H, W) as a viewer displays it that honours an orientation tag."""
    turns = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
    quarters, mirrored = turns[tag]
    rotated = np.rot90(image, quarters, (1, 2))
    return rotated[:, :, ::-1] if mirrored else rotated


@pytest.mark.parametrize("tag", range(2, 9))
def test_a_picture_lies_as_its_orientation_says(tmp_path: Path, tag: int) -> None:
    """Uncompressed, in LZW (which Pillow reads), and as a mask: all as Pillow displays them."""
    grey = (GREY >> 8).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", grey, extratags=[(274, "H", 1, tag, True)])
    Image.fromarray(grey).save(tmp_path / "lzw.tif", compression="tiff_lzw", tiffinfo={274: tag})
    with Image.open(tmp_path / "lzw.tif") as displayed:
        displayed.load()  # turns it
        expected = np.asarray(displayed)
    np.testing.assert_array_equal(turned(grey[None], tag)[0], expected)
    for name in ("a.tif", "lzw.tif"):
        np.testing.assert_array_equal(images.read_image(tmp_path / name)[0], expected, strict=True)
        np.testing.assert_array_equal(images.read_mask(tmp_path / name), expected, strict=True)


def test_inverted_files_hold_what_others_hold(tmp_path: Path) -> None:
    for values in (GREY, (GREY >> 8).astype(np.uint8)):
        most = np.iinfo(values.dtype).max
        tifffile.imwrite(tmp_path / "a.tif", most - values, photometric="miniswhite")
        np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif")[0], values, strict=True)
        np.testing.assert_array_equal(images.read_mask(tmp_path / "a.tif"), most - values, strict=True)
    for values in (GREY / np.float32(7), GREY.astype(np.uint32)):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        for read in (images.read_image, lambda path: tiff_file.stored_image(path).whole):
            with pytest.raises(UserError, match=f"holds {values.dtype} values of which 0 is white; save it with 0 as"):
                read(tmp_path / "a.tif")


def test_channels_are_no_alpha_unless_their_tag_says_so(tmp_path: Path) -> None:
    pair = np.moveaxis(CHANNELS[:2], 0, -1)
    for kind, said in (("unspecified", None), ("unassalpha", "transparent pixels"), ("assocalpha", "transparent")):
        tifffile.imwrite(tmp_path / "a.tif", pair, photometric="minisblack", planarconfig="contig", extrasamples=[kind])
        if said is None:
            np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif"), CHANNELS[:2], strict=True)
        else:
            with pytest.raises(UserError, match=said):
                images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX", "QYX"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_several_images_in_a_file_are_never_colours(tmp_path: Path, axes: str, count: int) -> None:
    """tifffile writes three or four planes as colours of one page, whatever they are said to be."""
    options: dict[str, Any] = {"metadata": {"axes": axes}}
    colours = {"photometric": "rgb", "planarconfig": "separate"} if count > 2 else {}
    for index, more in enumerate((colours, {"photometric": "minisblack"}, {"imagej": True})):
        if index == 2 and axes == "QYX":
            continue
        path = tmp_path / f"{index}.tif"
        tifffile.imwrite(path, CHANNELS[:count], **options, **more)
        with tifffile.TiffFile(path) as file:
            if axes == "CYX" and len(file.pages) == 1:
                continue
        for read in (images.read_image, tiff_file.stored_image):
            with pytest.raises(UserError, match=r"(has|holds a stack of) \d (pages|images); save each as a file"):
                read(path)


@pytest.mark.parametrize("name", FORMS)
def test_pieces_of_a_tiff_file_are_those_of_the_image_read_at_once(tmp_path: Path, name: str) -> None:
    values, options = FORMS[name]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, **options)
    whole = images.read_image(path)
    found = tiff_file.stored_image(path)
    assert (found.name, found.shape, found.dtype) == (str(path), whole.shape, whole.dtype)
    assert found.size == whole.shape[1:] and tiff_file.claimed_shape(path) == (whole.shape[0], *SIZE)
    for ends in PIECES:
        rows, columns = ends if found.size == SIZE else ends[::-1]
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
    "64 bit": (
        written(GREY.astype(np.int64)),
        "holds int64 values; save it as integers of 8, 16 or 32 bit or as float32",
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
        UserError, match=r"a\.tif: is compressed by LZW, which needs the package imagecodecs; install it \(pip"
    ):
        tiff_file.stored_image(tmp_path / "a.tif").whole  # noqa: B018


def test_zstd_is_read_at_once_and_in_pieces_names_the_codec(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif", compression="zstd")
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif")[0], GREY, strict=True)
    with pytest.raises(UserError, match=r"is compressed by ZSTD, which needs the package imagecodecs; install it"):
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
