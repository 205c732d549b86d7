"""Images read from PNG, TIFF, BMP and JPEG files in the values they were recorded with, and written as PNG."""

from __future__ import annotations

import glob
import os
import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile

from yeastexp.data import tiff_file
from yeastexp.data.pieces import decoding, refuse_nan
from yeastexp.data.tiff_file import Stored
from yeastexp.errors import UserError
from yeastexp.system import files
from yeastexp.system.formatting import format_count

Array = npt.NDArray[Any]

LOSSY = (".jpg", ".jpeg")
SUFFIXES = (".png", ".tif", ".tiff", ".bmp", *LOSSY, ".zarr", ".nd2", ".lif")
HOLDERS = (".h5", ".hdf5", ".hdf")
"""HDF5 files, which are taken of a folder that holds nothing else, for there they may be results."""

OTHER_FORMATS = (".czi", ".oif", ".oib", ".vsi", ".ims", ".dv", ".npy", ".npz", ".gif", ".webp")
"""Kinds of files that hold images and are not read."""

UNCOLOUR = "save it as grey, or say what its colours mean, as --colours cell=#ff0000"
CONVERT = "convert them to OME-TIFF with Fiji (Bio-Formats > Exporter) or with bftools' bfconvert"

LARGEST = 1 << 27
"""Values in the largest image that is read; a header that claims more is taken for a decompression bomb."""

LARGEST_ID = 2**53
"""Above it, neighbouring floating point numbers differ by more than one."""

PNG, JPEG, BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
"""What files of these kinds begin with."""


def read_image(path: Path) -> Array:
    """The image (C, H, W) in the type it is stored in, one of `TYPES`. Raises UserError if it is none.

    It lies as it is displayed, by the orientation that the file says. Where a TIFF file says that 0 is white, values
    are turned round, so that bright pixels are high in all files.
    """
    return as_image(path, _read(path))


def read_mask(path: Path) -> Array:
    """The labels (H, W) of a mask, as integers: of a palette the indices, of equal channels one.

    They are ids, not brightness, so they are taken as stored even where a TIFF file says that 0 is white.
    """
    stored = _read(path)
    if stored.lossy:
        raise UserError(f"{path}: is JPEG, which changes values, so labels are lost; save them as PNG or TIFF")
    return as_labels(path, stored)


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image. Raises UserError if it is none."""
    with suppress(OSError, Image.DecompressionBombError, UserError), path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if file.read(8).startswith((PNG, JPEG, BMP)):
            with Image.open(path, formats=["PNG", "JPEG", "BMP"]) as image:
                height, width = image.height, image.width
                # Of a PNG the orientation may follow the pixels, which are decoded only where it matters.
                if height != width and _orientation(image) in tiff_file.TRANSPOSED:
                    height, width = width, height
                return height, width
    height, width = read_image(path).shape[1:]
    return height, width


def read_labels(path: Path) -> Array:
    """The labels of a mask like an image of one channel (1, H, W)."""
    return read_mask(path)[None]


def as_image(place: str | Path, stored: Stored) -> Array:
    """What a file holds as an image (C, H, W). Raises UserError with its `place` if it is none."""
    image, alpha = stored.values, stored.alpha
    if stored.palette is not None:
        if image.max() >= len(stored.palette):
            raise UserError(f"{place}: cannot be decoded (a value lies outside the palette); the file is damaged")
        image, alpha = np.moveaxis(stored.palette[image[0]], -1, 0), stored.palette.shape[1] == 4
    image = tiff_file.brightened(place, _without_alpha(place, image) if alpha else image, stored.white)
    tiff_file.refuse_type(place, image.dtype)
    refuse_nan(place, image)
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))  # PyTorch knows no other order of bytes


def as_labels(place: str | Path, stored: Stored) -> Array:
    """What a file holds as labels (H, W). Raises UserError if it cannot be that."""
    mask = as_integers(place, _without_alpha(place, stored.values) if stored.alpha else stored.values)
    if any((channel != mask[0]).any() for channel in mask[1:]):
        raise UserError(f"{place}: is coloured, so it does not say which label a pixel has; {UNCOLOUR}")
    return np.ascontiguousarray(mask[0])


def as_integers(place: str | Path, labels: Array) -> Array:
    """Labels as integers. Raises UserError if they have fractions."""
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels % 1).any() or np.abs(labels).max(initial=0) > LARGEST_ID:
            raise UserError(
                f"{place}: holds {labels.dtype} values with fractions, but labels are integers; "
                "save it as 8 or 16 bit grey"
            )
        labels = labels.astype(np.int64)
    labels = labels.astype(np.uint8) if labels.dtype == bool else labels
    if labels.dtype.kind not in "ui":
        raise UserError(f"{place}: holds {labels.dtype} values, but labels are integers; save it as 8 or 16 bit grey")
    return labels


def is_zarr(path: Path) -> bool:
    """Whether a folder is one of Zarr."""
    return os.path.isdir(path) and any((path / mark).is_file() for mark in ("zarr.json", ".zattrs", ".zgroup"))  # noqa: PTH112


def image_files(paths: Sequence[str | Path], suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The images that folders, globs and paths lead to, sorted naturally by name, hidden ones left out.

    Of folders and globs, those files are taken that have one of the `suffixes`.
    """
    expanded = dict.fromkeys(file for path in paths for file in _expand(path, suffixes))
    expanded = expanded or dict.fromkeys(file for path in paths for file in _expand(path, HOLDERS))
    if not expanded:
        given = ", ".join(map(str, paths)) or "nothing given"
        raise UserError(f"{given}: {_held(Path(paths[0])) if paths else 'name a folder of images'}")
    return sorted(expanded, key=lambda file: (natural(file.stem), str(file)))


def natural(name: str) -> tuple[tuple[str | int, ...], str]:
    """A key that sorts `a2` before `a10`."""
    pieces = re.split(r"(\d+)", name)
    return tuple(int(piece) if index % 2 else piece for index, piece in enumerate(pieces)), name


def write_png(path: Path, array: Array, palette: Array | None = None) -> None:
    """Write (H, W) of 8 or 16 bit, or RGB (3, H, W) of 8 bit; or indices (H, W) displayed in a palette (n, 3)."""
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    if not grey and not (array.ndim == 3 and array.shape[0] == 3 and array.dtype == np.uint8):
        raise ValueError(f"(H, W) of uint8 or uint16 or (3, H, W) of uint8 is wanted, got {array.shape} {array.dtype}")
    pixels = array if grey else np.moveaxis(array, 0, -1)
    try:
        with files.appearing(path) as temporary:
            image = Image.fromarray(np.ascontiguousarray(pixels))
            if palette is not None:
                image.putpalette(palette.tobytes())
            image.save(temporary, format="PNG")
    except OSError as error:
        raise files.unwritten(path, error) from error


def _held(folder: Path) -> str:
    """What a folder (or a glob) holds in place of images, and what to do."""
    is_folder = os.path.isdir(folder)  # noqa: PTH112
    there = folder.iterdir() if is_folder else map(Path, glob.glob(str(folder), recursive=True))  # noqa: PTH207
    inside = sorted(path for path in there if not path.name.startswith("."))
    folders = [path for path in inside if path.is_dir()]
    if within := {path: files for path in folders if (files := _pictures_in(path))}:
        count, first = sum(map(len, within.values())), next(iter(within))
        names = ", ".join(f"'{path.name}'" for path in list(within)[:3]) + (", …" if len(within) > 3 else "")
        pattern = first.parent / "*" / f"*{within[first][0].suffix}"
        remedy = f"name one of them, as {first}, or all by a quoted glob, as '{pattern}'"
        return f"no PNG or TIFF file there, but {count} in folders ({names}); {remedy}"
    kinds = Counter(path.suffix.lower() for path in inside if path.is_file())
    if other := [kind for kind, _ in kinds.most_common() if kind in OTHER_FORMATS]:
        return f"no PNG or TIFF file there, but {kinds[other[0]]} of '{other[0]}'; {CONVERT}"
    if folders:
        return f"no PNG or TIFF file there, but {format_count(len(folders), 'folder')}; name the one that holds images"
    if kinds:
        most, count = kinds.most_common(1)[0]
        named = f"of '{most}'" if most else "without an ending"
        return f"no PNG or TIFF file there, but {count} {named}; name the folder that holds the images"
    hidden = is_folder and any(folder.iterdir())
    return f"{'holds hidden files alone' if hidden else 'is empty'}; name the folder that holds the images"


def _pictures_in(folder: Path) -> list[Path]:
    try:
        return sorted(_pictures(folder.iterdir()))
    except OSError:  # it may not be looked into
        return []


def _expand(path: str | Path, suffixes: Sequence[str]) -> Iterator[Path]:
    place = Path(path)
    # pathlib raises if a path is too long to be one; glob finds nothing.
    if is_zarr(place):
        yield place
    elif os.path.isdir(place):  # noqa: PTH112
        yield from _pictures(place.iterdir(), suffixes)
    elif os.path.exists(place):  # noqa: PTH110
        yield place
    else:
        # Path.glob takes no absolute pattern.
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        if not matches:
            raise UserError(f"{path}: no such file or folder; name a folder, a file or a glob")
        yield from _pictures(matches, suffixes)
        for folder in matches:
            if folder.is_dir() and not is_zarr(folder):
                yield from _pictures(folder.iterdir(), suffixes)


def _pictures(paths: Iterable[Path], suffixes: Sequence[str] = SUFFIXES) -> Iterator[Path]:
    """Those named as images; that one is none (a broken link, a pipe) is found out when it is read.

    A JPEG file beside another of its name is the preview of that.
    """
    named = [p for p in paths if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    named = [path for path in named if not path.is_dir() or is_zarr(path)]
    return without_previews(named)


def without_previews(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield all but JPEG files beside another of their name, which are the previews of those."""
    others = {path.with_suffix("") for path in paths if path.suffix.lower() not in LOSSY}
    return (path for path in paths if path.suffix.lower() not in LOSSY or path.with_suffix("") not in others)


def _read(path: Path) -> Stored:
    """What a file holds, by its beginning and not by its name."""
    try:
        if path.is_fifo():
            raise UserError(f"{path}: is a pipe; name a PNG or TIFF file")
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}); name a PNG or TIFF file") from None
    if not head:
        raise UserError(f"{path}: is empty; copy or save it again")
    with decoding(path), warnings.catch_warnings():
        # Pillow warns of large images; here the limit is LARGEST.
        warnings.simplefilter("ignore")
        if head.startswith(PNG):
            values, palette = _read_png(path, head)
            return Stored(values, palette, alpha=palette is None and len(values) in (2, 4), white=None)
        if head.startswith(tiff_file.BEGINNINGS):
            _refuse_bomb(path, *tiff_file.claimed_shape(path))
            return tiff_file.read(path)
        if head.startswith((JPEG, BMP)):
            return _read_picture(path, lossy=head.startswith(JPEG))
    raise UserError(f"{path}: is not a PNG or TIFF file; save it as one of them")


def _refuse_bomb(path: Path, samples: int, height: int, width: int) -> None:
    if width * height * samples > LARGEST:
        raise UserError(f"{path}: claims {height} × {width} pixels, more than this program reads; cut it into pieces")


def _read_picture(path: Path, lossy: bool) -> Stored:
    """What a JPEG or BMP file holds."""
    with Image.open(path, formats=["JPEG", "BMP"]) as image:
        _refuse_bomb(path, len(image.getbands()), image.height, image.width)
        if image.mode not in ("1", "L", "P", "RGB"):
            raise UserError(f"{path}: is stored as {image.mode}; save it as grey or RGB")
        values = tiff_file.upright(_channels_first(np.asarray(image).astype(np.uint8)), _orientation(image))
        palette = _palette(image) if image.mode == "P" else None
    return Stored(values, palette, alpha=False, white=None, lossy=lossy)


def _read_png(path: Path, head: bytes) -> tuple[Array, Array | None]:
    """Values (C, H, W) as they are displayed, and the palette (n, 3 or 4) if they are its indices."""
    if len(head) < 29:
        raise UserError(f"{path}: cannot be decoded (the header is cut short); the file is damaged")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    _refuse_bomb(path, {2: 3, 4: 2, 6: 4}.get(colour, 1), height, width)
    with Image.open(path, formats=["PNG"]) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{path}: has {getattr(image, 'n_frames', 1)} pages; save each as a file of its own")
        palette = None
        if depth == 16 and colour in _DEEP:
            return tiff_file.upright(_deep_png(path, colour), _orientation(image)), None
        if image.mode == "P":
            values, palette = np.asarray(image), _palette(image)
        elif "transparency" in image.info and image.mode in ("L", "RGB"):
            values = np.asarray(image.convert("LA" if image.mode == "L" else "RGBA"))
        else:
            values = np.asarray(image)
        # Not before the pixels are decoded, which finds out damage, as the orientation may follow them.
        orientation = _orientation(image)
    if values.dtype.kind not in "bu":  # older versions of pillow give 16 bit grey as int32
        values = values.astype(np.uint16)
    if depth in (1, 2, 4) and values.dtype == np.uint8 and palette is None:
        values = values // (255 // (2**depth - 1))  # pillow stretches these to 0 to 255
    values = _channels_first(values.astype(np.uint8) if values.dtype == bool else values)
    return tiff_file.upright(values, orientation), palette


def _orientation(image: Image.Image) -> int:
    """The Orientation tag in a picture's EXIF data; 1, as stored, if there are none that can be read."""
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # on damaged data pillow raises all kinds of exceptions, and viewers display the picture
        return 1
    return tag if isinstance(tag, int) else 1


# Pillow keeps only one byte of each 16 bit colour value: which one, depends on the raw mode that it is told. So each
# picture is read twice; grey with alpha, of which it knows one order only, passes as RGBA of 8 bit.
_DEEP = {2: ("RGB;16B", "RGB;16L"), 4: ("RGBA",), 6: ("RGBA;16B", "RGBA;16L")}


def _deep_png(path: Path, colour: int) -> Array:
    pieces = [_decode_as(path, raw_mode).astype(np.uint16) for raw_mode in _DEEP[colour]]
    high, low = pieces if len(pieces) == 2 else (pieces[0][..., 0::2], pieces[0][..., 1::2])
    return _channels_first(high << 8 | low)


def _decode_as(path: Path, raw_mode: str) -> Array:
    with Image.open(path, formats=["PNG"]) as image:
        assert isinstance(image, ImageFile.ImageFile)
        codec, extents, offset, _ = image.tile[0]
        image.tile = [(codec, extents, offset, raw_mode)]  # type: ignore[list-item]
        return np.asarray(image)


def _palette(image: Image.Image) -> Array:
    mode = "RGBA" if "transparency" in image.info else "RGB"
    if mode == "RGBA":
        image.apply_transparency()
    return np.array(image.getpalette(mode), np.uint8).reshape(-1, len(mode))


def _channels_first(values: Array) -> Array:
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def _without_alpha(place: str | Path, image: Array) -> Array:
    """An image without its alpha channel, which is the last one."""
    opaque = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1
    if (image[-1] != opaque).any():
        raise UserError(f"{place}: has transparent pixels, whose values are unknown; save it without alpha channel")
    return image[:-1]
