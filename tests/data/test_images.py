"""Tests of reading and writing pictures."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from yeastexp.data.images import image_files, read_image, read_mask, size_of, write_png
from yeastexp.errors import UserError


def ramp(shape, dtype, seed=0):
    limit = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, limit, shape, dtype, endpoint=True)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values, colour, depth, interlaced=False):
    """A PNG of (H, W, C) values, made by hand: pillow writes no 16 bit colour and no interlacing."""
    height, width = values.shape[:2]
    rows = []
    for y, x, dy, dx in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = values[y::dy, x::dx]
        if part.size:
            data = part.astype(">u2") if depth == 16 else part.astype(np.uint8)
            rows += [b"\0" + _packed(row, depth) for row in data]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def _packed(row, depth):
    if depth >= 8:
        return row.tobytes()
    bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.ravel()).tobytes()


def saved(path, image, **options):
    image.save(path, **options)
    return path


def same(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_written_is_read(tmp_path, shape, dtype):
    values = ramp(shape, dtype)
    path = tmp_path / "deep" / "a.png"
    if shape == (3, 5, 7) and dtype == np.uint16:
        with pytest.raises(ValueError, match=r"got \(3, 5, 7\) uint16"):
            write_png(path, values)
        assert not path.parent.exists()
        return
    write_png(path, values)
    same(read_image(path), values.reshape(-1, 5, 7))
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("shape", [(7,), (2, 5, 7), (1, 5, 7), (5, 7, 3)])
def test_write_png_refuses_other_shapes(tmp_path, shape):
    with pytest.raises(ValueError, match="is wanted"):
        write_png(tmp_path / "a.png", np.zeros(shape, np.uint8))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_of_every_colour_type_and_depth(tmp_path, colour, channels, depth, interlaced):
    dtype = np.uint16 if depth == 16 else np.uint8
    values = ramp((5, 11, channels), dtype)
    if channels in (2, 4):
        values[..., -1] = np.iinfo(dtype).max
    path = tmp_path / "a.png"
    path.write_bytes(png(values, colour, depth, interlaced))
    seen = channels - 1 if channels in (2, 4) else channels
    same(read_image(path), np.moveaxis(values[..., :seen], -1, 0))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_of_grey_are_not_stretched(tmp_path, depth):
    values = ramp((6, 9), np.uint8) % 2**depth
    path = tmp_path / "a.png"
    path.write_bytes(png(values[..., None], 0, depth))
    same(read_image(path), values[None])
    same(read_mask(path), values)


def test_palette_is_colour_for_images_and_index_for_masks(tmp_path):
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    picture = Image.fromarray(indices, "L").convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 10, 20, 30])
    path = saved(tmp_path / "a.png", picture)
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 20, 30]], np.uint8)
    same(read_image(path), np.ascontiguousarray(np.moveaxis(colours[indices], -1, 0)))
    same(read_mask(path), indices)
    see_through = saved(tmp_path / "b.png", picture, transparency=1)
    with pytest.raises(UserError, match="transparent pixels"):
        read_image(see_through)
    same(read_mask(see_through), indices)


@pytest.mark.parametrize("compression", [None, "zlib", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_grey_tiff(tmp_path, dtype, compression, byteorder):
    values = ramp((6, 9), dtype)
    path = tmp_path / "a.tif"
    if compression == "packbits":
        if dtype == np.uint16:
            return
        Image.fromarray(values).save(path, compression="packbits")
    else:
        tifffile.imwrite(path, values, compression=compression, byteorder=byteorder)
    same(read_image(path), values[None])
    same(read_mask(path), values)


def test_tiff_of_other_kinds(tmp_path):
    path = tmp_path / "a.tif"
    float32 = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    tifffile.imwrite(path, float32)
    same(read_image(path), float32[None])
    for dtype in (np.uint8, np.uint16):
        rgb = ramp((3, 5, 7), dtype)
        for planar in ("separate", "contig"):
            values = rgb if planar == "separate" else np.moveaxis(rgb, 0, -1)
            tifffile.imwrite(path, values, photometric="rgb", planarconfig=planar)
            same(read_image(path), rgb)
    rgba = np.concatenate([ramp((3, 5, 7), np.uint8), np.full((1, 5, 7), 255, np.uint8)])
    Image.fromarray(np.moveaxis(rgba, 0, -1).copy()).save(path)
    same(read_image(path), rgba[:3])
    bits = ramp((5, 7), np.uint8) % 2
    tifffile.imwrite(path, bits.astype(bool))
    same(read_image(path), bits[None])
    tifffile.imwrite(path, bits, photometric="miniswhite")
    same(read_image(path), 255 - bits[None])
    same(read_mask(path), bits)
    tifffile.imwrite(path, ramp((40, 50), np.uint16), tile=(16, 16), bigtiff=True)
    same(read_image(path), ramp((40, 50), np.uint16)[None])
    indices = ramp((5, 7), np.uint8)
    tifffile.imwrite(path, indices, photometric="palette", colormap=ramp((3, 256), np.uint8).astype(np.uint16) * 257)
    same(read_image(path), np.ascontiguousarray(ramp((3, 256), np.uint8)[:, indices]))
    same(read_mask(path), indices)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "1", "F", "P"])
def test_lzw_is_read_exactly(tmp_path, mode):
    values = ramp((6, 9), np.uint16 if mode == "I;16" else np.uint8)
    if mode == "F":
        values = values.astype(np.float32) / 7
    if mode in ("RGB", "RGBA"):
        values = ramp((6, 9, len(mode)), np.uint8)
        values[..., 3:] = 255
    if mode == "1":
        values = values % 2
    picture = Image.fromarray(values.astype(bool) if mode == "1" else values)
    if mode == "P":
        picture = picture.convert("P")
    path = saved(tmp_path / "a.tif", picture, compression="tiff_lzw")
    expected = np.moveaxis(values[..., :3], -1, 0) if values.ndim == 3 else values[None]
    if mode == "P":
        same(read_mask(path), values)
        expected = np.repeat(expected, 3, axis=0)
    same(read_image(path), np.ascontiguousarray(expected))


def test_lzw_of_16_bit_colour_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((5, 7, 3), np.uint16), photometric="rgb")
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HHI", 259, 3, 1))
    content[entry + 8 : entry + 10] = struct.pack("<H", 5)
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path}: is compressed by LZW, which needs the package imagecodecs; "
        "install it (pip install imagecodecs), or save the file without compression"
    )


def test_masks(tmp_path):
    grey = ramp((5, 7), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(np.stack([grey] * 3, -1)).save(path)
    same(read_mask(path), grey)
    Image.fromarray(np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)).save(path)
    same(read_mask(path), grey)
    tifffile.imwrite(path, ramp((5, 7), np.int32))
    same(read_mask(path), ramp((5, 7), np.int32))


def write_bytes(content):
    return lambda path: path.write_bytes(content)


def tiff(values, **options):
    return lambda path: tifffile.imwrite(path, values, **options)


def cut(make, keep):
    def write(path):
        make(path)
        path.write_bytes(path.read_bytes()[:keep])

    return write


def pillow(mode, size=(4, 3), form="PNG", **options):
    return lambda path: Image.new(mode, size).save(path, format=form, **options)


def sparse(path):
    tifffile.imwrite(path, ramp((64, 64), np.uint8), rowsperstrip=16)
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages[0].tags["StripByteCounts"]
        tag.overwrite([0, *tag.value[1:]])


def bomb(path):
    content = png(np.zeros((1, 1, 1), np.uint8), 0, 8)
    header = struct.pack(">IIBBBBB", 100_000, 90_000, 8, 0, 0, 0, 0)
    path.write_bytes(content[:8] + chunk(b"IHDR", header) + content[33:])


def tiff_bomb(path):
    tifffile.imwrite(path, ramp((3, 4), np.uint8))
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(60_000)


def jpeg():
    stream = io.BytesIO()
    Image.new("L", (4, 3)).save(stream, "JPEG")
    return stream.getvalue()


MULTI = {"save_all": True, "append_images": [Image.new("L", (4, 3), 9)] * 2}
GREY_16 = png(ramp((64, 64, 1), np.uint16), 0, 16)

BAD = {
    "empty": (write_bytes(b""), "is empty; copy or save it again"),
    "text": (write_bytes(b"hello"), "is not a PNG or TIFF file; save it as one of them"),
    "jpeg cut": (write_bytes(jpeg()[:300]), None),
    "gif": (pillow("L", form="GIF"), "is not a PNG or TIFF file; save it as one of them"),
    "png header cut": (
        write_bytes(GREY_16[:20]),
        "cannot be decoded (the header is cut short); the file is damaged",
    ),
    "png cut": (write_bytes(GREY_16[:3000]), None),
    "png flipped": (write_bytes(GREY_16[:60] + b"\xff\xff\xff" + GREY_16[63:]), None),
    "deep png cut": (write_bytes(png(ramp((64, 64, 3), np.uint16), 2, 16)[:3000]), None),
    "tiff header cut": (cut(tiff(ramp((64, 64), np.uint8)), 6), None),
    "tiff cut": (
        cut(tiff(ramp((64, 64), np.uint8)), 3000),
        "cannot be decoded (pixels are missing); the file is damaged",
    ),
    "tiff cut, compressed": (
        cut(tiff(ramp((64, 64), np.uint8), compression="zlib"), 3000),
        "cannot be decoded (pixels are missing); the file is damaged",
    ),
    "tiff without a strip": (sparse, "cannot be decoded (pixels are missing); the file is damaged"),
    "pages": (tiff(ramp((5, 13, 14), np.uint8)), "has 5 pages; save each as a file of its own"),
    "imagej stack": (tiff(ramp((5, 13, 14), np.uint8), imagej=True), "has 5 pages; save each as a file of its own"),
    "pillow's pages": (pillow("L", form="TIFF", **MULTI), "has 3 pages; save each as a file of its own"),
    "animated png": (pillow("L", **MULTI), "has 3 pages; save each as a file of its own"),
    "int64": (
        tiff(np.zeros((3, 4), np.int64)),
        "holds int64 values; save it as integers of 8, 16 or 32 bit or as float32",
    ),
    "float64": (tiff(np.zeros((3, 4))), "holds float64 values; save it as integers of 8, 16 or 32 bit or as float32"),
    "cmyk": (pillow("CMYK", form="TIFF"), "is stored as CMYK; save it as grey, RGB or palette"),
    "lab": (pillow("LAB", form="TIFF"), "is stored as CIELAB; save it as grey, RGB or palette"),
    "transparent": (
        pillow("RGBA"),
        "has transparent pixels, whose values are unknown; save it without alpha channel",
    ),
    "grey and transparent": (
        pillow("LA"),
        "has transparent pixels, whose values are unknown; save it without alpha channel",
    ),
    "transparent tiff": (
        pillow("RGBA", form="TIFF"),
        "has transparent pixels, whose values are unknown; save it without alpha channel",
    ),
    "volume": (
        tiff(np.zeros((5, 16, 16), np.uint8), volumetric=True, tile=(1, 16, 16)),
        None,
    ),
    "bomb": (bomb, "claims 90000 × 100000 pixels, more than this program reads; cut it into pieces"),
    "tiff bomb": (tiff_bomb, "claims 60000 × 60000 pixels, more than this program reads; cut it into pieces"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_bad_files_are_refused_in_one_line(tmp_path, case, suffix, capfd):
    path = tmp_path / f"bad.{suffix}"
    make, message = BAD[case]
    make(path)
    with pytest.raises(UserError) as caught:
        read_image(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and "; " in line
    if message is not None:
        assert line == f"{path}: {message}"
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, why in ((tmp_path / "no.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError) as caught:
            read_mask(path)
        assert str(caught.value) == f"{path}: cannot be opened ({why}); name a PNG or TIFF file"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            tiff(np.full((3, 4), 0.5, np.float32)),
            "holds float32 values with fractions, but labels are integers; save it as 8 or 16 bit grey",
        ),
        (
            tiff(ramp((3, 4, 3), np.uint8), photometric="rgb"),
            "is coloured, so it does not say which label a pixel has; save it as grey, or say what its colours mean, "
            "as --colours cell=#ff0000",
        ),
        (pillow("RGBA"), "has transparent pixels, whose values are unknown; save it without alpha channel"),
    ],
)
def test_bad_masks_are_refused(tmp_path, make, message):
    path = tmp_path / "mask.png"
    make(path)
    with pytest.raises(UserError) as caught:
        read_mask(path)
    assert str(caught.value) == f"{path}: {message}"


def test_image_files_expands_folders_and_globs_in_natural_order(tmp_path):
    for name in ("b10.png", "b2.TIF", "a1.tiff", ".hidden.png", "notes.txt", "inner/c3.png", "inner/c20.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()

    def names(*paths: str | Path):
        return [file.name for file in image_files(paths)]

    assert names(tmp_path) == ["a1.tiff", "b2.TIF", "b10.png"]
    assert names(str(tmp_path / "b*")) == ["b2.TIF", "b10.png"]
    assert names(f"{tmp_path}/**/c*.png") == ["c3.png", "c20.png"]
    assert names(f"{tmp_path}/in*") == ["c3.png", "c20.png"]
    inner = tmp_path / "inner"
    assert names(inner, inner / "c3.png", tmp_path / "b2.TIF") == ["b2.TIF", "c3.png", "c20.png"]
    assert names(tmp_path / "notes.txt") == ["notes.txt"]


def test_a_name_with_brackets_is_a_name_before_it_is_a_glob(tmp_path):
    (tmp_path / "a[1].png").touch()
    assert image_files([tmp_path / "a[1].png"]) == [tmp_path / "a[1].png"]


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "deep", "JPEG"])
def test_a_picture_lies_as_its_exif_data_say(tmp_path, mode, tag):
    """As Pillow turns it, and as TIFF files are: as an image, as a mask, and in its size."""
    exif = Image.Exif()
    exif[274] = tag
    path = tmp_path / "a.png"
    if mode == "deep":
        values = ramp((5, 7, 3), np.uint16)
        content = png(values, 2, 16)
        end = content.index(b"IDAT") - 4
        path.write_bytes(content[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + content[end:])
        stored = values >> 8
    else:
        values = ramp((5, 7, 3) if mode == "RGB" else (5, 7), np.uint16 if mode == "I;16" else np.uint8)
        image = Image.fromarray(values)
        if mode == "P":
            image.putpalette(bytes(range(256)) * 3)
        image.save(path, format="JPEG" if mode == "JPEG" else "PNG", exif=exif)
        with Image.open(path) as image:
            stored = np.asarray(image)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    if mode == "deep":
        np.testing.assert_array_equal(read_image(path) >> 8, np.moveaxis(expected, -1, 0))
    elif mode == "P":
        np.testing.assert_array_equal(read_mask(path), expected)
    else:
        np.testing.assert_array_equal(read_image(path), np.moveaxis(np.atleast_3d(expected), -1, 0))
    assert size_of(path) == expected.shape[:2] and (tag == 1 or expected.tolist() != stored.tolist())


def test_damaged_exif_data_are_no_orientation(tmp_path):
    """Viewers display the picture as it is stored."""
    values = ramp((5, 7), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png", exif=b"Exif\x00\x00hello")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], values)
    assert size_of(tmp_path / "a.png") == (5, 7)


def test_what_is_there_instead_of_images_is_said(tmp_path):
    def said():
        with pytest.raises(UserError) as caught:
            image_files([tmp_path])
        return str(caught.value).removeprefix(f"{tmp_path}: ")

    assert said() == "is empty; name the folder that holds the images"
    (tmp_path / ".x.png").touch()
    assert said() == "holds hidden files alone; name the folder that holds the images"
    (tmp_path / "notes.txt").touch()
    assert said() == "no PNG or TIFF file there, but 1 of '.txt'; name the folder that holds the images"
    (tmp_path / "movie.czi").write_bytes(b"")
    assert said() == (
        "no PNG or TIFF file there, but 1 of '.czi'; convert them to OME-TIFF with Fiji (Bio-Formats > Exporter) or "
        "with bftools' bfconvert"
    )
    for name in ("week 1/a.png", "week 1/b.png", "week 2/a.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(tmp_path / name, Image.new("L", (3, 3)))
    assert said() == (
        f"no PNG or TIFF file there, but 3 in folders ('week 1', 'week 2'); name one of them, as {tmp_path}/week 1, "
        f"or all by a quoted glob, as '{tmp_path}/*/*.png'"
    )


def test_nothing_found_is_an_error(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError) as caught:
        image_files([tmp_path, f"{tmp_path}/*.txt"])
    assert str(caught.value).startswith(
        f"{tmp_path}, {tmp_path}/*.txt: no PNG or TIFF file there, but 1 of '.txt'; name"
    )
    with pytest.raises(UserError) as caught:
        image_files([tmp_path / "no*.png"])
    assert str(caught.value) == f"{tmp_path}/no*.png: no such file or folder; name a folder, a file or a glob"
