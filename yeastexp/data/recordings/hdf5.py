"""HDF5 files of others as images: ilastik's, pytorch-3dunet's, and what else holds an array."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from yeastexp.data import images
from yeastexp.data.hdf5_file import LARGEST_CHUNK, opened
from yeastexp.data.recordings.recording import UNKNOWN, Select, StoredArray
from yeastexp.data.tiff_file import Stored, refuse_type
from yeastexp.errors import UserError

RAW = "raw"
"""What the array of images is called by most programs; `dataset` names another one."""


def arrays(path: Path, name: str, dataset: str | None) -> list[StoredArray]:
    """The array of a file, of which `dataset` says which it is if there are several."""
    with opened(path) as file:
        there = _datasets(file)
        if dataset is None and len(there) > 1 and RAW not in there:
            raise UserError(f"holds the arrays {', '.join(map(repr, there))}; say which has the images by --dataset")
        wanted = dataset or (RAW if RAW in there else next(iter(there), None))
        if wanted is None or wanted.strip("/") not in there:
            held = ", ".join(map(repr, there)) or "none"
            raise UserError(f"has no array '{wanted or RAW}' of images (there are {held}); name one by --dataset")
        stored = there[wanted.strip("/")]
        if stored.external or stored.is_virtual:
            raise UserError(f"'{wanted}' is kept in another file; copy the data into this file")
        if math.prod(stored.chunks or ()) * stored.dtype.itemsize > LARGEST_CHUNK:
            raise UserError(f"'{wanted}' is stored in chunks of more than a gigabyte; store it in chunks of one image")
        refuse_type(f"'{wanted}'", stored.dtype)
        read = partial(_opened, path, wanted)
        return [
            StoredArray(path, name, "HDF5", _axes(stored), tuple(stored.shape), stored.dtype.newbyteorder("="), read)
        ]


def _datasets(file: h5py.File) -> dict[str, Any]:
    """Arrays of two axes and more that lie in the file itself; links out of it are not followed."""
    there: dict[str, Any] = {}

    def look(name: str, member: Any) -> None:
        if isinstance(member, h5py.Dataset) and member.ndim >= 2 and member.dtype.kind in "uif":
            there[name] = member

    file.visititems(look)
    return there


def _axes(stored: Any) -> str:
    """The letters of the axes, where ilastik's tags or the labels of the dimensions say them."""
    letters = [str(dimension.label).upper() for dimension in stored.dims]
    try:
        tags = json.loads(stored.attrs["axistags"])
        letters = [str(tag["key"]).upper() for tag in tags["axes"]]
    except (KeyError, TypeError, ValueError):
        pass
    if len(letters) == stored.ndim and all(len(letter) == 1 for letter in letters):
        return "".join(letters)
    return UNKNOWN * int(stored.ndim - 2) + "YX"


@contextmanager
def _opened(path: Path, dataset: str) -> Iterator[Select]:
    """Open an array, to read parts of it."""
    with opened(path) as file:
        stored = file[dataset]

        def select(at: tuple[int | slice, ...]) -> np.ndarray[Any, Any]:
            values = np.asarray(stored[at])
            return images.as_image(path, Stored(values, None, alpha=False, white=None))

        yield select
