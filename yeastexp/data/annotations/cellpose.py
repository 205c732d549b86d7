"""Cellpose's `_seg.npy`: a pickled dictionary, of which nothing but arrays and plain values is ever unpickled."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.data.annotations.contract import Annotation, Frames, Labels, of_values
from yeastexp.errors import UserError, in_one_line
from yeastexp.system.formatting import format_bytes

BEGINNING = b"\x93NUMPY"
LARGEST = 1 << 31
"""Bytes of a file that is unpickled."""


class CellposeNpy:
    """The ids under its key `masks`; those of a stack (T, H, W) are of its frames. A plain array of labels as well."""

    name, title, suffixes, names_images = "cellpose_npy", "NumPy", (".npy",), False

    def recognises(self, path: Path) -> bool:
        """Whether it is a NumPy file."""
        with path.open("rb") as file:
            return file.read(6) == BEGINNING or path.name.endswith("_seg.npy")

    def read(self, path: Path, *, frames: Frames) -> Annotation:
        """The labels of the image, or of the frames of the stack, that the file lies beside."""
        masks, is_pickled = _masks(path)
        if masks.ndim == 3 and len(masks) == len(frames):
            planes = dict(zip(frames, masks, strict=True))
        elif len(frames) == 1:
            planes = {next(iter(frames)): masks}
        else:
            raise UserError(
                f"{path}: holds labels of {' × '.join(map(str, masks.shape))} values, but the image has "
                f"{len(frames):,} frames; pair the file with its stack"
            )

        def labels(name: str) -> Labels:
            return of_values(path, planes[name], frames[name], ids=is_pickled)

        return Annotation(self.name, tuple(planes), labels)


def _masks(path: Path) -> tuple[npt.NDArray[Any], bool]:
    """The array of labels, and whether it was pickled by Cellpose, so that it holds ids."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            _, _, dtype = readers[version](file)
            if dtype != np.dtype(object):
                # Mapped, so that a header that claims more than there is costs nothing.
                return np.load(path, mmap_mode="r", allow_pickle=False), False
            if (size := path.stat().st_size) > LARGEST:
                raise _Refused(f"{format_bytes(size)} of pickled values")
            outer = _Unpickler(io.BytesIO(file.read())).load()
        content = outer.state[4][0] if isinstance(outer, _Array) else outer
        masks = content.get("masks") if isinstance(content, dict) else None
        if not isinstance(masks, _Array):
            raise UserError(f"{path}: has no array 'masks', as Cellpose's files have; save the masks again")
        return masks.values(), True
    except _Refused as refused:
        raise UserError(
            f"{path}: holds {refused}, and nothing but arrays and plain values is unpickled; "
            "save the masks of Cellpose as TIFF or PNG"
        ) from None
    except UserError:
        raise
    except Exception as error:  # on damaged pickles all kinds of exceptions are raised
        raise UserError(f"{path}: cannot be read ({in_one_line(error)}); it is damaged; save it again") from None


class _Refused(Exception):
    """Raised for anything in a pickle that is not admitted."""


class _Type:
    """Stands for a NumPy type while a pickle builds it."""

    def __init__(self, name: str, *_: Any) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[biuf]\d{1,2}|O8|[SU]\d+", name):
            raise _Refused(f"values of the type {str(name)[:40]!r}")
        self.name = name
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """It as NumPy has it."""
        return np.dtype(self.name).newbyteorder(self.order)


class _Array:
    """Stands for an array while a pickle builds it: NumPy is not called before everything has been checked."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self) -> npt.NDArray[Any]:
        """It as NumPy has it."""
        _, shape, kind, is_fortran, data = self.state
        if kind.dtype.hasobject or not isinstance(data, bytes):
            raise _Refused("masks that are no numbers")
        return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if is_fortran else "C")


class _Scalar:
    """Stands for a NumPy scalar, whose value is not needed."""

    def __init__(self, *_: Any) -> None:
        pass


def _reconstruct(*_: Any) -> _Array:
    return _Array()


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
}
"""All that a pickle may name, and what is called in its place."""


class _Unpickler(pickle._Unpickler):
    """Written in Python, for the one in C takes as much memory as a damaged pickle claims.

    It knows no instructions that reach other objects or claim memory before there are bytes for it. Keys are plain,
    for to hash tuples in tuples ends the process where there are very many.
    """

    def set_items(self, items: list[Any]) -> None:
        """Put entries into the dictionary on top of the stack."""
        target, keys = self.stack[-1], items[::2]  # type: ignore[attr-defined]
        if not isinstance(target, dict) or not all(isinstance(key, str | int) for key in keys):
            raise _Refused("a dictionary with unusual keys")
        target.update(zip(keys, items[1::2], strict=True))

    def load_setitem(self) -> None:
        """A key and its value."""
        value, key = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        self.set_items([key, value])

    def load_setitems(self) -> None:
        """Keys and values from a mark on."""
        self.set_items(self.pop_mark())  # type: ignore[attr-defined]

    dispatch = {  # noqa: RUF012
        **{
            code: method
            for code, method in pickle._Unpickler.dispatch.items()
            if bytes([code])
            not in (
                *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID),
                *(pickle.BINPERSID, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.DICT),
                *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
            )
        },
        pickle.SETITEM[0]: load_setitem,  # type: ignore[dict-item]
        pickle.SETITEMS[0]: load_setitems,  # type: ignore[dict-item]
    }

    def find_class(self, module: str, name: str) -> Any:
        """Raises _Refused for whatever is not admitted."""
        if (module, name) not in ADMITTED:
            raise _Refused(repr(f"{module}.{name}"[:100]))
        return ADMITTED[module, name]
