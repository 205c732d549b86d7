"""What a page is made of: sections of paragraphs, facts, tables, charts, pictures and code, each a plain value.

A template of the same kind's name draws each; nothing here knows HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Cell = str
Row = Sequence[Cell]


@dataclass(frozen=True)
class Paragraph:
    """A sentence or more; `warning` where a reader must not miss it."""

    kind: ClassVar[str] = "paragraph"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Fact:
    """A name, a value, and what there is to say about it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values, a line each; `large` ones are what a reader looks for first."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[Fact]
    large: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as text under headings; `numbers` are the columns that hold numbers, `ends` rows below which a group ends.

    `shares` shades a cell from 0 to 1: a tint beside its text, by row and column.
    """

    kind: ClassVar[str] = "table"
    caption: str
    headings: Row
    rows: Sequence[Row]
    numbers: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()
    shares: dict[tuple[int, int], float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Stroke:
    """Path data, and the class that says how it looks."""

    path: str
    look: str
    hint: str = ""
    """What a pointer that rests on it is told."""


@dataclass(frozen=True)
class Label:
    """Text at a place; `anchor` is start, middle or end, `turned` where it runs upwards."""

    x: float
    y: float
    text: str
    look: str = "tick"
    anchor: str = "start"
    turned: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing with axes, what it shows in a sentence for those who cannot see it, and its numbers as a table."""

    kind: ClassVar[str] = "chart"
    name: str
    """Of its elements' ids: letters, digits and hyphens."""
    title: str
    said: str
    width: float
    height: float
    strokes: Sequence[Stroke]
    labels: Sequence[Label]
    note: str = ""
    data: Table | None = None


@dataclass(frozen=True)
class Overlay:
    """A kind of region over a picture, as path data in its pixels."""

    look: str
    path: str


@dataclass(frozen=True)
class Picture:
    """A picture as a data address, its size in its own pixels, regions over it, and what stands below."""

    address: str
    width: int
    height: int
    said: str
    heading: str
    note: str
    overlays: Sequence[Overlay] = ()


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side; `looks` are the overlays that they have, with what each means."""

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]
    looks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Code:
    """A text that keeps its lines."""

    kind: ClassVar[str] = "code"
    text: str
    name: str


@dataclass(frozen=True)
class Charts:
    """Charts beside each other where there is room."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Details:
    """What is folded away at first."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Block]


Block = Paragraph | Facts | Table | Chart | Charts | Gallery | Code | Details


@dataclass(frozen=True)
class Section:
    """A heading, a line about it, and what stands beside it."""

    heading: str
    blocks: Sequence[Block]
    aside: str = ""

    @property
    def name(self) -> str:
        """The id of its heading."""
        return "-".join("".join(one if one.isalnum() else " " for one in self.heading.lower()).split())


@dataclass(frozen=True)
class Page:
    """A whole page: what kind of report it is, of what, in a sentence or two, and its sections."""

    what: str
    title: str
    lead: Sequence[Paragraph]
    facts: Facts
    sections: Sequence[Section]
    made: str
