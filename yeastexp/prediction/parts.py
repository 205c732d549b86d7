"""A prediction in parts, by processes that do not talk to each other: whose an image is, or a row of a huge one."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from yeastexp.errors import UserError

NAMED = re.compile(r"\.part-([1-9]\d*)-of-([1-9]\d*)$", re.ASCII)
COUNTED = re.compile(r"\.part-[1-9]\d*-of-([1-9]\d*)(?:\.part|\.progress)?$", re.ASCII)
"""Also what belongs to a part that is being written."""


@dataclass(frozen=True, order=True)
class Part:
    """One of `count` parts, counted from 1."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Part:
        """The part that `I/N` names. Raises UserError if there is none."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--part {text}: is no part; give I/N with I from 1 to N, as --part 2/4")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, place: int) -> bool:
        """Whether the image in this place of a list, from 0 on, is its own."""
        return place % self.count == self.index - 1

    def rows(self, height: int, of_tile: int) -> slice:
        """Its rows of an image of so many: whole rows of tiles, none if there are too few for all parts."""
        tiles = -(-height // of_tile)
        first, last = (min(tiles * index // self.count * of_tile, height) for index in (self.index - 1, self.index))
        return slice(first, last)

    def file_of(self, target: Path) -> Path:
        """Where its rows of a file lie until all parts are joined."""
        return target.with_name(f".{target.name}.part-{self.index}-of-{self.count}")


def count_in(folder: Path) -> int | None:
    """How many parts there are of what lies in a folder and is not joined yet; None if nothing does."""
    counts = {int(found[1]) for path in folder.glob(".*.part-*-of-*") if (found := COUNTED.search(path.name))}
    return max(counts, default=None)


def written(target: Path) -> list[Part]:
    """The parts that have finished their rows of a file."""
    found = (NAMED.search(path.name) for path in target.parent.glob(f".{glob.escape(target.name)}.part-*-of-*"))
    return sorted(Part(int(match[1]), int(match[2])) for match in found if match)
