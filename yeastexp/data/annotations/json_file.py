"""Untrusted JSON files: read within limits, with one line of error where a key is absent or of another type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.data.annotations.polygons import FARTHEST
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_bytes
from yeastexp.system.terminal import printable

LARGEST = 1 << 30
"""Bytes of a file that is read."""

TYPES: dict[type | UnionType, str] = {dict: "an object", list: "a list", str: "a text", int | float: "a number"}


def begins_as_json(path: Path) -> bool:
    """Whether a file begins like an object or a list."""
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def load(path: Path) -> Any:
    """The root value of a file. Raises UserError if the file is not JSON, or too large."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(f"{path}: has {format_bytes(size)}, more than is read; cut it into several")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply to be annotations; save it again") from None
    except ValueError as error:  # a JSONDecodeError or UnicodeDecodeError
        why = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "text is not UTF-8"
        raise UserError(f"{path}: is not valid JSON ({why}); it is damaged, or cut short; save it again") from None


@dataclass(frozen=True)
class Node:
    """A value in a file, and the path to it for messages, such as `shapes[3].points`."""

    path: Path
    value: Any
    place: str = ""

    def fault(self, wrong: str, remedy: str = "save the file again") -> UserError:
        """A UserError about this value."""
        said = printable(f"{self.place or 'the file'} {wrong}; {remedy}")  # names in the file may hold line breaks
        return UserError(f"{self.path}: {said}")

    def _of(self, kind: type | UnionType) -> Any:
        if not isinstance(self.value, kind) or isinstance(self.value, bool):
            raise self.fault(f"is not {TYPES[kind]}")
        return self.value

    @property
    def text(self) -> str:
        """The value as text; a number is converted."""
        return str(self.value) if isinstance(self.value, int | float) else str(self._of(str))

    @property
    def number(self) -> float:
        """The value as a number within the range of coordinates and lengths in pixels."""
        value = self._of(int | float)
        if not abs(value) <= FARTHEST:
            raise self.fault(f"is {str(value)[:20]}, which lies outside of any image", "give coordinates in pixels")
        return float(value)

    @property
    def area(self) -> float:
        """The value as an area in pixels, which may be far larger than any length."""
        value = self._of(int | float)
        if not 0 <= value <= 2**53:
            raise self.fault("is no number of pixels")
        return float(value)

    @property
    def count(self) -> int:
        """The value as a whole number of pixels."""
        if not self.area.is_integer():
            raise self.fault("is not a whole number")
        return int(self.area)

    @property
    def whole(self) -> int:
        """The value as a whole number."""
        if not self.number.is_integer():
            raise self.fault("is not a whole number")
        return int(self.number)

    def keys_in_order(self) -> list[str]:
        """The keys of the object."""
        return list(self._of(dict))

    def get_list(self) -> list[Any]:
        """The value as a list, with its entries unchecked."""
        return list(self._of(list))

    def items(self) -> Iterator[Node]:
        """The entries of the list."""
        return (Node(self.path, value, f"{self.place}[{index}]") for index, value in enumerate(self._of(list)))

    def get(self, key: str) -> Node | None:
        """The value of a key of an object, None if it is not there or null."""
        value = self._of(dict).get(key)
        return None if value is None else Node(self.path, value, f"{self.place}.{key}" if self.place else key)

    def __getitem__(self, key: str) -> Node:
        if (node := self.get(key)) is None:
            raise self.fault(f"has no '{key}'")
        return node

    def points(self) -> npt.NDArray[np.float64]:
        """Coordinates (n, 2) of a list of x and y; further values of each are left out."""
        try:
            points = np.array(self._of(list))
        except ValueError:
            points = np.empty(0)
        if points.ndim != 2 or points.shape[1] < 2 or points.dtype.kind not in "iuf" or not _near(points):
            # Slower, but it names the point that is at fault.
            pairs = [list(point.items()) for point in self.items()]
            for point, pair in zip(self.items(), pairs, strict=True):
                if len(pair) < 2:
                    raise point.fault("is not x and y")
            points = np.array([(pair[0].number, pair[1].number) for pair in pairs]).reshape(-1, 2)
        return points[:, :2].astype(np.float64)


def _near(points: npt.NDArray[Any]) -> bool:
    return bool((np.abs(points) <= FARTHEST).all())
