"""TIFF files of one image, grey, RGB or of any channels: read whole or piece by piece, and written."""

from __future__ import annotations

import functools
import itertools
import logging
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from yeastexp.data import pieces
from yeastexp.data.pieces import StoredImage, decoding, one_line
from yeastexp.errors import UserError
from yeastexp.system import files

Array = npt.NDArray[Any]

TYPES = tuple(map(np.dtype, ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4")))
"""Types of the values of images."""

BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

INVERTED, GREY, RGB, PALETTE = 0, 1, 2, 3
"""Photometric interpretations; inverted grey says that 0 is white."""

SEPARATE = 2
"""The planar configuration of images whose channels are stored one after the other."""

ALPHA = (1, 2)
"""Kinds of extra samples that are alpha channels, associated or not; one of kind 0 is a channel like others."""

ORIENTATIONS = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
"""By Orientation tag: whether stored rows and columns are transposed, then the directions of rows and columns."""

TRANSPOSED = frozenset(tag for tag, (transposed, *_) in ORIENTATIONS.items() if transposed)

DECODED = 1 << 26
"""Bytes of decoded strips or tiles that are kept, as the next piece often lies in the same ones."""

LARGEST_SEGMENT = 1 << 28
"""Bytes of a strip or tile that is decoded to read a piece of it."""

STRIP = 1 << 18
"""Bytes of a strip that is written."""

# tifffile logs what it also raises; without a handler Python would print that beside the one line that users see.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def claimed_shape(path: Path) -> tuple[int, int, int]:
    """Samples, height and width that a file's header claims; zeros if it is not a TIFF file."""
    if not path.is_file():
        return 0, 0, 0
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            return int(page.samplesperpixel), int(page.imagelength), int(page.imagewidth)
    except Exception:  # on bad files tifffile raises all kinds of exceptions; reading the image says what is wrong
        return 0, 0, 0


def stack_fault(path: Path) -> str | None:
    """The message that a file holds several images, found without reading pixels; None if it does not or is no TIFF."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            if file.read(4) not in BEGINNINGS:
                return None
        with tifffile.TiffFile(path) as tiff:
            return _stack_fault(path, tiff)
    except Exception:  # as in `claimed_shape`
        return None


def may_be_a_stack(path: Path, *, of_any_program: bool = False) -> bool:
    """Whether a file of three planes is tagged RGB by tifffile, as any three are by default; they may be frames.

    With `of_any_program` also if nothing shows that tifffile wrote it, which leaves its mark out on demand.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            known = tiff.is_shaped or of_any_program
            return bool(known and page.photometric == RGB and page.planarconfig == SEPARATE)
    except Exception:  # as in `claimed_shape`
        return False


@dataclass(frozen=True)
class Stored:
    """Values (C, H, W) of a file, in the orientation in which it is displayed, and what its tags say of them.

    `palette` (n, 3) holds colours if the values are indices of them; `alpha` says that the last channel is alpha;
    `white` is the value displayed as black if 0 is white; `lossy` says that compression changed the values.
    """

    values: Array
    palette: Array | None
    alpha: bool
    white: int | None
    lossy: bool = False


def read(path: Path) -> Stored:
    """The whole image of a file. Raises UserError if it cannot be read."""
    with decoding(path), _page(path) as page:
        return stored(path, page)


def stored(path: Path, page: Any, values: Array | None = None) -> Stored:
    """The image of a page; with `values`, as they are stored, that of another page of the same form."""
    values = _decoded(path, page) if values is None else _upright(page, values)
    palette = None
    if page.photometric == PALETTE:
        palette = np.moveaxis(np.asarray(page.colormap) >> 8, 0, -1).astype(np.uint8)
    alpha, white = has_alpha(path, page), _white(page)
    values = values.astype(np.uint8) if values.dtype == bool else values.astype(values.dtype.newbyteorder("="))
    return Stored(values, palette, alpha, white)


def refuse_type(place: str | Path, dtype: Any) -> None:
    """Raises UserError if values of a type, in any order of bytes, are not read as an image."""
    if np.dtype(dtype).newbyteorder("=") not in TYPES:
        raise UserError(f"{place}: holds {dtype} values; save it as integers of 8, 16 or 32 bit or as float32")


def brightened(path: str | Path, values: Array, white: int | None) -> Array:
    """Values inverted where 0 is white (`white` is given), so that bright pixels are high as everywhere else.

    Raises UserError if the type has no defined inverse.
    """
    if white is None:
        return values
    if values.dtype.kind != "u" or values.dtype.itemsize > 2:  # float32, in which images are read, would round them
        raise UserError(f"{path}: holds {values.dtype} values of which 0 is white; save it with 0 as black")
    return np.asarray(values.dtype.type(white) - values)


def stored_image(path: Path) -> StoredImage:
    """The image of a file, to be read piece by piece. Raises UserError if that is not possible."""
    with decoding(path), _page(path) as page:
        if page.photometric == PALETTE:
            raise UserError(f"{path}: is stored as PALETTE; save it as grey or RGB")
        if has_alpha(path, page):
            raise UserError(f"{path}: holds {page.shape} values; save one grey or RGB picture without alpha channel")
        refuse_type(path, page.dtype)
        planes, _, *size, samples = page.shaped
        stored = _in_place(path, page) if page.is_contiguous else _by_segments(path, page)
        transposed, *directions = _orientation(page)
        white = _white(page)
    size = size[::-1] if transposed else size

    def read(rows: slice, columns: slice) -> Array:
        # In a mirrored direction a range of the picture is stored as the range at the same distance from the other end.
        at = [
            part if direction > 0 else slice(length - part.stop, length - part.start)
            for part, length, direction in zip((rows, columns), size, directions, strict=True)
        ]
        piece = stored(at[1], at[0]).swapaxes(1, 2) if transposed else stored(*at)
        return brightened(path, np.ascontiguousarray(piece[:, :: directions[0], :: directions[1]]), white)

    return StoredImage(str(path), (planes * samples, size[0], size[1]), np.dtype(page.dtype), read)


def write(path: Path, values: Array, pixel_um: float | None = None) -> None:
    """Write values (H, W), or (K, H, W) as pages, losslessly compressed, with the pixel size as ImageJ reads it."""
    said: dict[str, Any] = {}
    if pixel_um:
        said = {"resolution": (1 / pixel_um, 1 / pixel_um), "description": "ImageJ=1.11a\nunit=um\n"}
    try:
        with files.appearing(path) as temporary:
            tifffile.imwrite(
                temporary, values, photometric="minisblack", compression="zlib", metadata=None, software=False, **said
            )
    except OSError as error:
        raise files.unwritten(path, error) from error


def write_pages(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], read: Callable[[int, slice], Array], **said: Any
) -> None:
    """Write pages (N, H, W), losslessly compressed, a band of rows in memory at a time.

    `read(page, rows)` returns rows (h, W) of a page.
    """
    pages, height, width = shape
    stored = dtype.newbyteorder("<")  # ImageJ reads both orders
    in_strip = min(height, max(1, STRIP // (width * dtype.itemsize)))
    # A band is whole strips: in TIFF, only the last strip of a page may be shorter than the others.
    in_band = max(in_strip, pieces.BAND // width // in_strip * in_strip)

    def strips() -> Iterator[bytes]:
        for page, first in itertools.product(range(pages), range(0, height, in_band)):
            band = read(page, slice(first, min(first + in_band, height)))
            for row in range(0, len(band), in_strip):
                yield zlib.compress(band[row : row + in_strip].astype(stored).tobytes())

    tifffile.imwrite(
        path, strips(), shape=shape, dtype=stored, byteorder="<", rowsperstrip=in_strip,
        photometric="minisblack", compression="zlib", software=False, **said,
    )  # fmt: skip


@contextmanager
def _page(path: Path) -> Iterator[Any]:
    """The only page of a file. Raises UserError if there are more, or if it is of an unknown kind or cut short."""
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        if fault := _stack_fault(path, tiff):
            raise UserError(fault)
        refuse_page(path, tiff, page)
        yield page


def refuse_page(path: Path, tiff: tifffile.TiffFile, page: Any) -> None:
    """Raises UserError if a page is of an unknown kind, or cut short."""
    if page.photometric not in (INVERTED, GREY, RGB, PALETTE):
        raise UserError(f"{path}: is stored as {_kind(page.photometric)}; save it as grey, RGB or palette")
    if (
        page.imagedepth > 1
        or page.samplesperpixel < _colours(page)
        or (page.photometric == PALETTE and page.samplesperpixel > 1)
    ):
        raise UserError(f"{path}: holds {page.shape} values; save one grey or RGB picture a file")
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > tiff.filehandle.size or 0 in page.databytecounts:
        raise UserError(f"{path}: cannot be decoded (pixels are missing); the file is damaged")


def _stack_fault(path: Path, tiff: tifffile.TiffFile) -> str | None:
    page: Any = tiff.pages[0]
    # A series of OME reaches over the other files of a recording, of which each may hold one image.
    there = 0 if tiff.is_ome else tiff.series[0].size // max(1, page.size)
    pages = max(len(tiff.pages), there)
    if pages > 1:
        return f"{path}: has {pages} pages; save each as a file of its own"
    if page.samplesperpixel > 1 and "S" not in tiff.series[0].axes and set(tiff.series[0].axes) - set("CYX"):
        return f"{path}: holds a stack of {page.samplesperpixel} images; save each as a file of its own"
    return None


def _colours(page: Any) -> int:
    return 3 if page.photometric == RGB else 1


def has_alpha(path: Path, page: Any) -> bool:
    """Whether the last channel is alpha, by its tag, or as the fourth of an RGB picture that has no tag for it.

    Raises UserError if there is alpha among several extra channels.
    """
    extra = page.samplesperpixel - _colours(page)
    kinds = tuple(page.extrasamples) or ((2,) if (page.photometric, extra) == (RGB, 1) else ())
    if any(kind in ALPHA for kind in kinds) and extra > 1:
        raise UserError(f"{path}: holds {page.shape} values, alpha among them; save it without alpha channel")
    return any(kind in ALPHA for kind in kinds)


def _white(page: Any) -> int | None:
    """The value displayed as black if 0 is white, else None; None for single bits, which are masks, not brightness."""
    return 2**page.bitspersample - 1 if page.photometric == INVERTED and page.bitspersample > 1 else None


def _orientation(page: Any) -> tuple[bool, int, int]:
    tag = page.tags.get("Orientation")
    return ORIENTATIONS.get(tag.value if tag else 1, ORIENTATIONS[1])


def _kind(photometric: Any) -> str:
    name = str(getattr(photometric, "name", photometric))
    return {"SEPARATED": "CMYK"}.get(name, name)


# The modes in which pillow keeps all values of a file, by bits a sample, samples a pixel and photometric
# interpretation. It silently reduces others, such as 16 bits a colour, to 8 bits.
_PILLOW_IS_EXACT = {
    (1, 1, GREY): ("1",),
    (8, 1, GREY): ("L",),
    (16, 1, GREY): ("I;16", "I;16B"),
    (32, 1, GREY): ("F",),
    (8, 1, PALETTE): ("P",),
    (8, 3, RGB): ("RGB",),
    (8, 4, RGB): ("RGBA",),
}


def _decoded(path: Path, page: Any) -> Array:
    """The values (C, H, W) of a page in the orientation of the picture.

    Without imagecodecs tifffile cannot decode LZW, so pillow reads the files that it reads exactly. It applies the
    orientation itself.
    """
    try:
        values = page.asarray().reshape(page.shaped)
    except (ValueError, ImportError) as error:
        if not _lacks_codec(error):
            raise
    else:
        return _upright(page, values)
    with Image.open(path, formats=["TIFF"]) as image:
        image.seek(page.index)
        if image.mode in _PILLOW_IS_EXACT.get((page.bitspersample, page.samplesperpixel, page.photometric), ()):
            image.load()
            pixels = np.asarray(image)
            return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    raise _needs_codec(path, page)


def _upright(page: Any, values: Array) -> Array:
    """Values (C, H, W) in the orientation of the picture, from decoded ones (planes, 1, rows, columns, samples)."""
    planes, _, height, width, samples = values.shape
    channels = np.moveaxis(values, -1, 1).reshape(planes * samples, height, width)
    tag = page.tags.get("Orientation")
    return upright(channels, tag.value if tag else 1)


def upright(channels: Array, orientation: int) -> Array:
    """Stored values (C, H, W) as they are displayed, by an Orientation tag."""
    transposed, down, across = ORIENTATIONS.get(orientation, ORIENTATIONS[1])
    return np.asarray((channels.swapaxes(1, 2) if transposed else channels)[:, ::down, ::across])


def is_transposed(page: Any) -> bool:
    """Whether stored rows are columns of the picture."""
    return _orientation(page)[0]


def _lacks_codec(error: Exception) -> bool:
    """Whether tifffile failed because imagecodecs is missing.

    It tries modules of newer Python versions in its place, which raises an ImportError that does not name it.
    """
    return "imagecodecs" in str(error) or isinstance(error, ImportError)


def _needs_codec(path: Path, page: Any) -> UserError:
    return UserError(
        f"{path}: is compressed by {page.compression.name}, which needs the package imagecodecs; "
        "install it (pip install imagecodecs), or save the file without compression"
    )


def _in_place(path: Path, page: Any) -> Callable[[slice, slice], Array]:
    """A function that reads pieces (C, h, w) of an uncompressed page by mapping the file into memory."""
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)

    def read(rows: slice, columns: slice) -> Array:
        # Mapped anew for each piece: what was read through one mapping would count as memory of this process, until the
        # whole file does.
        pixels = np.memmap(path, dtype, "r", page.dataoffsets[0], page.shaped)
        piece = np.moveaxis(pixels[:, 0, rows, columns], -1, 1)
        return np.array(piece.reshape(-1, *piece.shape[2:]), page.dtype)

    return read


def _by_segments(path: Path, page: Any) -> Callable[[slice, slice], Array]:
    """A function that reads pieces (C, h, w) of a page whose strips or tiles have to be decoded."""
    planes, _, height, width, samples = page.shaped
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
    down, across = -(-height // tall), -(-width // wide)
    size = int(tall * wide * samples * page.dtype.itemsize)
    if size > LARGEST_SEGMENT:
        raise UserError(f"{path}: is compressed in one piece of {size:,} bytes; save it in tiles")

    @functools.lru_cache(max(1, DECODED // size))
    def segment(index: int) -> Array:
        with path.open("rb") as file:
            file.seek(page.dataoffsets[index])
            stored = file.read(page.databytecounts[index])
        try:
            return np.asarray(page.decode(stored, index)[0][0])
        except Exception as error:  # decoders raise all kinds of exceptions
            if _lacks_codec(error):
                raise _needs_codec(path, page) from None
            raise UserError(f"{path}: cannot be decoded ({one_line(error)}); the file is damaged") from None

    def read(rows: slice, columns: slice) -> Array:
        piece = np.empty((planes, samples, rows.stop - rows.start, columns.stop - columns.start), page.dtype)
        lines = range(rows.start // tall, -(-rows.stop // tall)), range(columns.start // wide, -(-columns.stop // wide))
        for plane, i, j in itertools.product(range(planes), *lines):
            top, left = i * tall, j * wide
            part = segment((plane * down + i) * across + j)
            part = part[max(rows.start - top, 0) : rows.stop - top, max(columns.start - left, 0) : columns.stop - left]
            y, x = max(top - rows.start, 0), max(left - columns.start, 0)
            piece[plane, :, y : y + part.shape[0], x : x + part.shape[1]] = np.moveaxis(part, -1, 0)
        return piece.reshape(-1, *piece.shape[2:])

    return read
