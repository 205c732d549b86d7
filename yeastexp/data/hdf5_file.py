"""One HDF5 file of images with their labels: written whole, read image by image or piece by piece.

Layout: `raw`, `gt` and maybe `instances` and `dead`, each one stacked array (N, H, W), or (N, C, H, W) for `raw`, or,
where sizes or types differ, a group with one array per image name; `names` in the order of the stacks; `splits/train`,
`splits/val`, maybe `splits/test`, and maybe `splits/unlabelled` of images that nobody annotated; where images are
frames or have channels that a file names, `groups` and `frames` in the order of `names` and `channel_names`; root
attributes `yeastexp_layout`, `provenance`, maybe `pixel_um` and `normalization`. A plain file with only stacked `raw`
and `gt` is read as well.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from yeastexp.data.normalization import refuse_incomplete
from yeastexp.data.pieces import StoredImage
from yeastexp.data.splits import plain_splits
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files
from yeastexp.system.interruption import Interruption
from yeastexp.system.progress_bar import ProgressBar

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
"""One image: `raw` (H, W) or (C, H, W); `gt` (H, W) class indices; maybe `instances` and `dead` (H, W)."""

Form = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and type of an array."""

BEGINNING = b"\x89HDF\r\n\x1a\n"
"""What an HDF5 file begins with."""

LAYOUT = 1
UNLABELLED = "unlabelled"
"""The split of images without labels, which neither train nor score, but can be predicted."""

SPLITS = ("train", "val", "test", UNLABELLED)
MAPS = ("instances", "dead")

LARGEST = 1 << 27
"""Values in the largest image that is read: a small damaged or hostile file can claim any shape."""

LARGEST_CHUNK = 1 << 30
"""Bytes of the largest chunk that is read: for one value of it, HDF5 decodes all of it into memory."""

LARGEST_LIST = 1 << 24
"""Bytes of the longest list of names that is read."""

MOST_IMAGES = 1 << 20
LONGEST_NAME = 200
"""Bytes; file systems take 255, and names of pictures and temporary files are made of those of images."""

BREAKING = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that break a line, a table or a terminal: controls, lone surrogates, line separators."""

DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""The exceptions that h5py raises on damaged files, depending on which bytes are wrong."""


@dataclass(frozen=True)
class Origin:
    """Where images come from: the group and the frame index of those that have one, by name, and the channel names."""

    groups: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What a file holds besides pixels: names, splits and metadata."""

    names: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    maps: tuple[str, ...]
    pixel_um: float | None
    normalization: dict[str, Any] | None
    provenance: dict[str, Any]
    origin: Origin = Origin()

    @property
    def labelled(self) -> tuple[str, ...]:
        """The names of the images that have labels."""
        others = set(self.splits.get(UNLABELLED, ()))
        return tuple(name for name in self.names if name not in others)


def write(
    output: Path,
    splits: Mapping[str, Sequence[str]],
    read: Callable[[str], Arrays],
    *,
    provenance: Mapping[str, Any],
    pixel_um: float | None = None,
    normalization: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
    force: bool = False,
    progress: ProgressBar[str] = iter,
    forms: Mapping[str, Mapping[str, Form]] | None = None,
) -> None:
    """Write the images of `splits`, one in memory at a time; the same input gives the same bytes.

    `read` is called once for each image if `forms` has the shapes and types of all arrays, otherwise twice: whether the
    images fit one stack has to be known before the first is written. Raises UserError if the file cannot be written.
    """
    refuse_overwriting(output, force)
    splits = {split: tuple(splits[split]) for split in SPLITS if split in splits}
    names = tuple(name for split in splits.values() for name in split)
    _check_names(output, names)
    known = forms or {name: {key: (a.shape, a.dtype) for key, a in read(name).items()} for name in names}
    _check_forms(known)
    try:
        with (
            Interruption("image") as interruption,  # HDF5 crashes on an exception in the middle of a write
            files.appearing(output) as temporary,
            _Disk(temporary) as disk,
            h5py.File(disk, "w") as file,
        ):
            interruption.gently = True
            file.attrs["yeastexp_layout"] = LAYOUT
            _write_json(file, "provenance", provenance)
            if pixel_um is not None:
                file.attrs["pixel_um"] = float(pixel_um)
            if normalization is not None:
                _write_json(file, "normalization", normalization)
            _write_names(file, "names", names)
            for split, members in splits.items():
                _write_names(file, f"splits/{split}", members)
            _write_origin(file, names, origin or Origin())
            places = _create(file, names, known)
            for name in progress(names):
                arrays = read(name)
                if {key: (array.shape, array.dtype) for key, array in arrays.items()} != known[name]:
                    raise UserError(f"{output}: image '{name}' changed while it was being written; start again")
                for key, array in arrays.items():
                    dataset, index = places[key, name]
                    dataset[index] = array
                # Between two images HDF5 is in no write, so that a full disk or Ctrl-C can be raised safely.
                disk.refuse_fault()
                if interruption.wanted:
                    raise KeyboardInterrupt
    except OSError as error:
        fault = f"{output}: cannot be written ({_why(error)}); make room or name another place"
        raise UserError(fault, status=RUN_FAILED) from error


class _Disk(io.FileIO):
    """A new file that hides its write errors from HDF5, which crashes on them, until they are asked for.

    After the first error nothing more is written, and HDF5 is told that all was.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, in several writes if need be: a disk that fills up takes only a part."""
        left = memoryview(data)
        try:
            while left and not self.fault:
                left = left[super().write(left) :]
        except OSError as error:
            self.fault = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, which fails on a full disk as `write` does."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.fault = self.fault or error
            return size or 0

    def refuse_fault(self) -> None:
        """Raise the error of the first write that failed, if one did."""
        if self.fault:
            raise self.fault

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        if raised[0] is None:
            self.refuse_fault()


def _why(error: Exception) -> str:
    """The message of an exception in one line, without HDF5's addresses and times."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return re.sub(r"time = .*error message = '(.*?)'.*", r"\1)", " ".join(str(error).split()))


def is_stacked(forms: Iterable[Mapping[str, Form]]) -> bool:
    """Whether arrays of these forms are stored as one stack, not as a group."""
    first, *others = forms
    return all(other == first for other in others)


def refuse_overwriting(output: Path, force: bool) -> None:
    """Raises UserError if there is a file at `output`, unless `force`."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; name a file")
    if output.exists() and not force:
        raise UserError(f"{output}: exists; add --force to replace it, or name another file")


def _check_names(output: Path, names: tuple[str, ...]) -> None:
    if not names:
        raise ValueError("no image to write")
    if len(set(names)) < len(names):
        raise ValueError("an image is in two splits, or twice in one")
    for name in names:
        if not is_plain(name):
            raise UserError(f"{output}: {name[:LONGEST_NAME]!r} cannot be the name of an image; rename it")


def is_plain(name: str) -> bool:
    """Whether an image can have this name everywhere it is used: in HDF5, file names, tables and terminals."""
    if name in (".", "..") or not 0 < len(name.encode(errors="replace")) <= LONGEST_NAME:
        return False
    return not any(letter == "/" or unicodedata.category(letter) in BREAKING for letter in name)


def _check_forms(known: Mapping[str, Mapping[str, Form]]) -> None:
    keys = {frozenset(forms) for forms in known.values()}
    if len(keys) > 1 or not {"raw", "gt"} <= min(keys) <= {"raw", "gt", *MAPS}:
        raise ValueError(f"every image needs 'raw', 'gt' and the same of {MAPS}, got {sorted(map(sorted, keys))}")
    for name, forms in known.items():
        for key, (shape, _) in forms.items():
            if shape[-2:] != forms["raw"][0][-2:] or len(shape) not in ((2, 3) if key == "raw" else (2,)):
                raise ValueError(f"image '{name}': '{key}' {shape} does not fit 'raw' {forms['raw'][0]}")


def _write_names(file: h5py.File, key: str, names: Sequence[str]) -> None:
    # Strings have a fixed length: variable ones are read from a heap, and HDF5 2.0 hangs where a byte of it is damaged.
    # No times are stored here or below, so that the same input gives the same bytes.
    encoded = [name.encode() for name in names]
    dtype = h5py.string_dtype(length=max(1, *map(len, encoded), 0))
    file.create_dataset(key, data=np.array(encoded, dtype), track_times=False)


def _write_json(file: h5py.File, key: str, value: Mapping[str, Any]) -> None:
    encoded = json.dumps(dict(value), allow_nan=False).encode()
    file.attrs.create(key, encoded, dtype=h5py.string_dtype(length=len(encoded)))


def _write_origin(file: h5py.File, names: Sequence[str], origin: Origin) -> None:
    if origin.groups:
        _write_names(file, "groups", [origin.groups.get(name, "") for name in names])
    if origin.frames:
        frames = np.array([origin.frames.get(name, -1) for name in names], np.int64)
        file.create_dataset("frames", data=frames, track_times=False)
    if origin.channel_names:
        _write_names(file, "channel_names", origin.channel_names)


def _create(
    file: h5py.File, names: Sequence[str], known: Mapping[str, Mapping[str, Form]]
) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Create the empty arrays; returns the HDF5 dataset and the index into it for each array of each image."""
    stacked = is_stacked(known.values())
    places: dict[tuple[str, str], tuple[Any, Any]] = {}
    for key in known[names[0]]:
        if stacked:
            shape, dtype = known[names[0]][key]
            stack = file.create_dataset(key, (len(names), *shape), dtype, track_times=False)
            places |= {(key, name): (stack, index) for index, name in enumerate(names)}
        else:
            group = file.create_group(key)
            for name in names:
                shape, dtype = known[name][key]
                places[key, name] = (group.create_dataset(name, shape, dtype, track_times=False), ...)
    return places


class Reader:
    """Reads images of a file, which it opens for each read: an open one could not be pickled, nor used after a fork."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @cached_property
    def contents(self) -> Contents:
        """What the file holds besides pixels. Raises UserError if something is missing or does not fit."""
        return self._look[0]

    @property
    def forms(self) -> dict[str, dict[str, Form]]:
        """Shape and type of all stored arrays of every image."""
        return self._look[1]

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = (1, *self.forms[name]["raw"][0])[-3:]
        return channels, height, width

    def read(self, name: str) -> dict[str, Array]:
        """The arrays of an image in their stored types: `raw` (C, H, W), the others (H, W)."""
        index = self._index[name]
        with opened(self.path, f"image '{name}' ") as file:
            stored = {key: _array_of(file[key], name, index) for key in ("raw", "gt", *self.contents.maps)}
        return {**stored, "raw": stored["raw"].reshape(self.shape(name))}

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.contents.names)}

    @cached_property
    def _look(self) -> tuple[Contents, dict[str, dict[str, Form]]]:
        with opened(self.path) as file:
            return _look(file)


def stored_images(path: Path) -> list[StoredImage]:
    """The images under `raw`, to be read piece by piece: of a stack (N, H, W) or (N, C, H, W), or a group of arrays.

    Labels are not asked for, as images to be predicted need none. Raises UserError if there is no such image.
    """
    with opened(path) as file:
        there = set(file)
        if "raw" not in there:
            raise UserError(f"has no 'raw' (it holds {', '.join(sorted(there)) or 'nothing'}); store images as 'raw'")
        stored = _stack_or_group(file, "raw")
        if "names" in there:
            names = _strings(file, "names")
        else:
            names = tuple(sorted(stored)) if isinstance(stored, h5py.Group) else _numbers(_length(file, "raw"))
        _refuse_odd_names(names)
        forms = _forms(file, "raw", names)
        normalization, pixel_um = _json(file, "normalization"), _pixel_um(file)
        for name, (shape, _) in forms.items():
            _check_shape(name, shape)
            refuse_incomplete(normalization, (1, *shape)[-3])
    return [
        replace(
            _stored_image(path, name, form, f"raw/{name}" if isinstance(stored, h5py.Group) else index, normalization),
            pixel_um=pixel_um,
        )
        for index, (name, form) in enumerate(forms.items())
    ]


def origin_of(path: Path) -> Origin:
    """Where the images of a file come from; an empty `Origin` if the file does not say so."""
    with opened(path) as file:
        if "names" not in set(file):
            return Origin()
        channels = len(_strings(file, "channel_names")) if "channel_names" in set(file) else 0
        return _origin(file, _strings(file, "names"), channels)


def _stored_image(
    path: Path, name: str, form: Form, place: str | int, normalization: dict[str, Any] | None
) -> StoredImage:
    channels, height, width = (1, *form[0])[-3:]

    def read(rows: slice, columns: slice) -> Array:
        with opened(path, f"image '{name}' ") as file:
            piece = (
                file[place][..., rows, columns] if isinstance(place, str) else file["raw"][place, ..., rows, columns]
            )
        return np.asarray(piece).reshape(channels, *piece.shape[-2:])

    return StoredImage(f"{path}/{name}", (channels, height, width), form[1], read, normalization)


@contextmanager
def opened(path: Path, what: str = "") -> Iterator[h5py.File]:
    """Open a file for reading. Raises UserError with its path if it cannot be, or is damaged in what is read of it.

    `what` names what is being read in the message.
    """
    try:
        if path.is_fifo():
            raise UserError(f"{path}: is a pipe; name an HDF5 file")
        file = h5py.File(path, "r")
    except BlockingIOError:
        raise UserError(f"{path}: is open for writing in another program; close it there, or wait for it") from None
    except OSError as error:
        raise UserError(f"{path}: {_why_closed(path, error)}") from None
    with file:
        try:
            yield file
        except UserError as error:
            raise UserError(*(f"{path}: {fault}" for fault in error.faults)) from None
        except DAMAGED as error:
            raise UserError(f"{path}: {what}cannot be read ({_why(error)}); the file is damaged") from None


def _why_closed(path: Path, error: OSError) -> str:
    """Why a file could not be opened, and the remedy: HDF5's own message is the same for most causes."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as system:
        return f"cannot be opened ({system.strerror}); name an HDF5 file"
    if empty:
        return "is empty; make it again"
    if not h5py.is_hdf5(path):
        return "is not an HDF5 file; 'yeastexp pack' makes one from images"
    if "already open for write" in str(error):
        return "was not closed by the program that wrote it; close it there, or repair it with 'h5clear -s'"
    short = "is cut short" if "truncated" in str(error) else f"cannot be opened ({_why(error)})"
    return f"{short}; copy or make it again"


def _array_of(stored: Any, name: str, index: int) -> Array:
    array = stored[index] if isinstance(stored, h5py.Dataset) else stored[name][()]
    return np.asarray(array)


def _look(file: h5py.File) -> tuple[Contents, dict[str, dict[str, Form]]]:
    layout = _attribute(file, "yeastexp_layout")
    if layout not in (None, LAYOUT):
        raise UserError(f"has layout {layout!r}, this version reads {LAYOUT}; use the version that wrote it")
    # The keys are listed: asking whether one is in the file would follow a link out of it.
    there = set(file)
    for key in ("raw", "gt"):
        if key not in there:
            held = ", ".join(sorted(there)) or "nothing"
            raise UserError(f"has no '{key}' (it holds {held}); store images as 'raw' and their labels as 'gt'")
    maps = tuple(key for key in MAPS if key in there)
    names = _names(file) if layout is not None else _numbered(file)
    by_key = {key: _forms(file, key, names) for key in ("raw", "gt", *maps)}
    forms = {name: {key: by_key[key][name] for key in by_key} for name in names}
    for name in names:
        _check_fit(name, forms[name])
    splits = _splits(file, names) if layout is not None else plain_splits(names)
    provenance = _json(file, "provenance") or {}
    origin = _origin(file, names, min(forms[names[0]]["raw"][0][:-2], default=1)) if layout is not None else Origin()
    return Contents(names, splits, maps, _pixel_um(file), _json(file, "normalization"), provenance, origin), forms


def _own(parent: Any, key: str) -> Any:
    """The member `key` of a group. Raises UserError if it lies in another file.

    A file from somebody else could otherwise have any HDF5 or raw file of this machine read through a link, an external
    dataset or a virtual one.
    """
    if not isinstance(parent.get(key, getlink=True), h5py.HardLink):
        raise UserError(f"'{key}' is a link, which may lead out of the file; copy the data into the file")
    member = parent[key]
    if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
        raise UserError(f"'{key}' is kept in another file; copy the data into this file")
    return member


def _stack_or_group(file: h5py.File, key: str) -> Any:
    member = _own(file, key)
    if not isinstance(member, h5py.Dataset | h5py.Group):
        raise UserError(f"'{key}' is not an array; store a stack of images (N, H, W)")
    return member


def _numbered(file: h5py.File) -> tuple[str, ...]:
    """The names of the images in a plain file: 000, 001, …"""
    for key in ("raw", "gt"):
        if isinstance(_stack_or_group(file, key), h5py.Group):
            raise UserError(f"'{key}' is a group; a file not made by 'pack' needs stacks of images (N, H, W)")
    return _numbers(_length(file, "raw"))


def _numbers(count: int) -> tuple[str, ...]:
    if not count:
        raise UserError("holds no image")
    return tuple(f"{index:0{max(3, len(str(count - 1)))}d}" for index in range(count))


def _length(file: h5py.File, key: str) -> int:
    shape = file[key].shape
    ranks = {3: "(N, H, W)", 4: "(N, C, H, W)"} if key == "raw" else {3: "(N, H, W)"}
    if shape is None or len(shape) not in ranks:
        raise UserError(f"'{key}' has shape {shape}; it must be {' or '.join(ranks.values())}")
    if shape[0] > MOST_IMAGES:
        raise UserError(f"'{key}' holds {shape[0]} images, more than this program reads; make several files of it")
    return int(shape[0])


def _forms(file: h5py.File, key: str, names: tuple[str, ...]) -> dict[str, Form]:
    stored = _stack_or_group(file, key)
    if isinstance(stored, h5py.Dataset):
        count = _length(file, key)
        if count != len(names):
            raise UserError(f"'{key}' holds {count} images, but there are {len(names)} in all; make them the same")
        forms = dict.fromkeys(names, (stored.shape[1:], stored.dtype))
        arrays = [stored]
    else:
        there = set(stored)
        for name in names:
            if name not in there or not isinstance(_own(stored, name), h5py.Dataset):
                raise UserError(f"'{key}' has no array '{name}'; make the file again")
        arrays = [stored[name] for name in names]
        forms = {name: (array.shape, array.dtype) for name, array in zip(names, arrays, strict=True)}
    if any(math.prod(array.chunks or ()) * array.dtype.itemsize > LARGEST_CHUNK for array in arrays):
        raise UserError(f"'{key}' is stored in chunks of more than a gigabyte; store it in chunks of one image")
    for dtype in {dtype for _, dtype in forms.values()}:
        if key == "raw" and dtype.kind not in "uif":
            raise UserError(f"'raw' holds {dtype} values; store numbers")
        if key != "raw" and dtype.kind not in "uib":
            raise UserError(f"'{key}' holds {dtype} values; store integers: labels are class indices or ids")
    return forms


def _check_shape(name: str, raw: tuple[int, ...]) -> None:
    if len(raw) not in (2, 3):
        raise UserError(f"'raw' of image '{name}' has shape {raw}; it must be (H, W) or (C, H, W)")
    if 0 in raw:
        raise UserError(f"image '{name}' of shape {raw} has no pixels")


def _check_fit(name: str, forms: Mapping[str, Form]) -> None:
    raw = forms["raw"][0]
    _check_shape(name, raw)
    if math.prod(raw) > LARGEST:
        raise UserError(f"image '{name}' of shape {raw} is larger than this program reads; cut it into pieces")
    for key, (shape, _) in forms.items():
        if key != "raw" and shape != raw[-2:]:
            raise UserError(f"image '{name}': 'raw' {raw} and '{key}' {shape} differ in size; make them fit")


def _names(file: h5py.File) -> tuple[str, ...]:
    if "names" not in set(file):
        raise UserError("has no 'names'; make the file again")
    names = _strings(file, "names")
    _refuse_odd_names(names)
    if odd := [name for name in names if not is_plain(name)]:
        raise UserError(
            f"'names' holds {odd[0][:LONGEST_NAME]!r}, which cannot be the name of an image; make the file again"
        )
    return names


def _refuse_odd_names(names: Sequence[str]) -> None:
    """Raises UserError if there is no image, or if two have the same name."""
    if not names:
        raise UserError("holds no image")
    if len(set(names)) < len(names):
        raise UserError("'names' names an image twice; make the file again")


def _splits(file: h5py.File, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    if "splits" not in set(file) or not isinstance(_own(file, "splits"), h5py.Group):
        raise UserError("has no 'splits'; make the file again")
    stored = file["splits"]
    splits = {split: _strings(stored, split) for split in SPLITS if split in set(stored)}
    members = [name for split in splits.values() for name in split]
    if unknown := set(members) - set(names):
        raise UserError(f"'splits' names an image '{min(unknown)}' that is not there; make the file again")
    if len(set(members)) < len(members):
        raise UserError("an image is in two splits, or twice in one; make the file again")
    if len(splits.get(UNLABELLED, ())) == len(names):
        raise UserError("no image has labels; make the file again")
    return splits


def _origin(file: h5py.File, names: tuple[str, ...], channels: int) -> Origin:
    there = set(file)
    groups = _strings(file, "groups") if "groups" in there else ("",) * len(names)
    frames = _own(file, "frames") if "frames" in there else None
    channel_names = _strings(file, "channel_names") if "channel_names" in there else ()
    if len(groups) != len(names) or len(channel_names) not in (0, channels):
        raise UserError("'groups' or 'channel_names' are of other images; make the file again")
    if frames is not None and (
        not isinstance(frames, h5py.Dataset) or frames.shape != (len(names),) or frames.dtype.kind != "i"
    ):
        raise UserError("'frames' are of other images; make the file again")
    indices = [-1] * len(names) if frames is None else frames[()].tolist()
    return Origin(
        {name: group for name, group in zip(names, groups, strict=True) if group},
        {name: index for name, index in zip(names, indices, strict=True) if index >= 0},
        channel_names,
    )


def _strings(parent: Any, key: str) -> tuple[str, ...]:
    stored = _own(parent, key)
    if not isinstance(stored, h5py.Dataset) or h5py.check_string_dtype(stored.dtype) is None or stored.ndim != 1:
        raise UserError(f"'{key}' is not a list of names; make the file again")
    if stored.nbytes > LARGEST_LIST:
        raise UserError(f"'{key}' lists {stored.size} names, more than this program reads; make several files of it")
    return tuple(str(name) for name in stored.asstr()[()])


def _json(file: h5py.File, key: str) -> dict[str, Any] | None:
    if key not in file.attrs:
        return None
    try:
        value = json.loads(file.attrs[key])
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"attribute '{key}' is not a JSON object; make the file again")
    return value


def _pixel_um(file: h5py.File) -> float | None:
    value = _attribute(file, "pixel_um")
    if value is None or (isinstance(value, int | float) and 0 < value < math.inf):
        return None if value is None else float(value)
    raise UserError(f"attribute 'pixel_um' should be a number above 0, got {value!r}; make the file again")


def _attribute(file: h5py.File, key: str) -> Any:
    """A root attribute as a value of Python; None if there is none."""
    return np.asarray(file.attrs[key]).tolist() if key in file.attrs else None
