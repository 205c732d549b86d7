"""The parts of a page as plain values: sections of paragraphs, facts, tables, charts, images and code.

`templates/blocks.html` has a macro for each kind of block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Paragraph:
    """One or more sentences; `warning` highlights them."""

    kind: ClassVar[str] = "paragraph"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Fact:
    """A name, a value, and a note on it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values, a line each; `large` ones are the headline of the page."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[Fact]
    large: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text cells; `numeric` columns are aligned to the right, `group_ends` are the last rows of groups.

    `shares` maps (row, column) of a cell to a value from 0 to 1, shown as a tint behind its text.
    """

    kind: ClassVar[str] = "table"
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    group_ends: frozenset[int] = frozenset()
    shares: dict[tuple[int, int], float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A plot as an SVG element, with a description for screen readers and a note that is displayed."""

    kind: ClassVar[str] = "chart"
    title: str
    description: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts side by side if there is room."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Overlay:
    """The regions of one category over an image, as SVG path data in pixels; `faint` if they are of minor interest."""

    category: str
    path: str
    faint: bool = False


@dataclass(frozen=True)
class GalleryImage:
    """An image as a data URL with its size in pixels, its overlays and its texts."""

    url: str
    width: int
    height: int
    description: str
    heading: str
    note: str
    overlays: Sequence[Overlay] = ()


@dataclass(frozen=True)
class Gallery:
    """Images side by side; `categories` explains each category of overlays, `name` is unique on a page.

    Images of a `small` gallery are crops, so that more of them fit into a row.
    """

    kind: ClassVar[str] = "gallery"
    images: Sequence[GalleryImage]
    categories: dict[str, str] = field(default_factory=dict)
    name: str = "val"
    small: bool = False


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    kind: ClassVar[str] = "code"
    text: str
    name: str


@dataclass(frozen=True)
class Details:
    """Blocks that are collapsed at first."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Block]


Block = Paragraph | Facts | Table | Chart | Charts | Gallery | Code | Details


@dataclass(frozen=True)
class Section:
    """A heading, a line about it, and its blocks."""

    heading: str
    blocks: Sequence[Block]
    aside: str = ""

    @property
    def anchor(self) -> str:
        """The id of the heading, for links."""
        return "-".join("".join(char if char.isalnum() else " " for char in self.heading.lower()).split())


@dataclass(frozen=True)
class Page:
    """A whole page: the kind of report, its title, introduction, headline facts, and sections."""

    kind: str
    title: str
    lead: Sequence[Paragraph]
    facts: Facts
    sections: Sequence[Section]
    written: str
    """When the page was written, and by which version."""
