"""Prediction in parts by processes that do not communicate: which images, or rows of a huge image, each part takes."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from yeastexp.errors import UserError

NAMED = re.compile(r"\.part-([1-9]\d*)-of-([1-9]\d*)$", re.ASCII)
COUNTED = re.compile(r"\.part-[1-9]\d*-of-([1-9]\d*)(?:\.part|\.progress)?$", re.ASCII)
"""Like NAMED, but also for files and records of a part that is being written."""


@dataclass(frozen=True, order=True)
class Part:
    """One of `count` parts, counted from 1."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Part:
        """Return the part that the text `I/N` names; raises UserError if it names none."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--part {text}: is no part; give I/N with I from 1 to N, as --part 2/4")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, place: int) -> bool:
        """Whether the part takes the image at an index of a list."""
        return place % self.count == self.index - 1

    def rows(self, height: int, of_tile: int) -> slice:
        """Return the part's rows of an image: whole rows of tiles; none if there are fewer of these than parts."""
        # Rounding the borders between parts, not their sizes, covers each row once and spreads the rest evenly.
        tiles = -(-height // of_tile)
        first, last = (min(tiles * index // self.count * of_tile, height) for index in (self.index - 1, self.index))
        return slice(first, last)

    def file_of(self, target: Path) -> Path:
        """Return the path of the part's rows of a file, until all parts are joined."""
        return target.with_name(f".{target.name}.part-{self.index}-of-{self.count}")


def count_in(folder: Path) -> int | None:
    """Return the number of parts that files in a folder belong to which are not joined yet; None without such files."""
    counts = {int(found[1]) for path in folder.glob(".*.part-*-of-*") if (found := COUNTED.search(path.name))}
    return max(counts, default=None)


def written(target: Path) -> list[Part]:
    """Return the parts that have finished their rows of a file, sorted."""
    found = (NAMED.search(path.name) for path in target.parent.glob(f".{glob.escape(target.name)}.part-*-of-*"))
    return sorted(Part(int(match[1]), int(match[2])) for match in found if match)
