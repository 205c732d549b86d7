"""The parts of a page as plain values: sections of paragraphs, facts, tables, charts, images and code.

`templates/blocks.html` has a macro for each kind of block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Paragraph:
    """A sentence or more; `warning` if a reader must not miss it."""

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
    """Cells as text under headings, of which some columns are `numeric`; `group_ends` are the last rows of groups.

    `shares` maps row and column of a cell to a value from 0 to 1, shown as a tint behind its text.
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
    """A plot as an SVG element, with a description for screen readers and a note for everybody."""

    kind: ClassVar[str] = "chart"
    title: str
    description: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts beside each other if there is room."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Overlay:
    """The regions of one category over an image, as SVG path data in its pixels; `faint` ones are beside the point."""

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
    """Images side by side; `categories` says what each category of overlays means, `name` is unique on a page.

    `small` ones are crops, of which more stand beside each other.
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
        """The id of its heading."""
        return "-".join("".join(char if char.isalnum() else " " for char in self.heading.lower()).split())


@dataclass(frozen=True)
class Page:
    """A whole page: which kind of report it is, of what, its introduction, and its sections."""

    kind: str
    title: str
    lead: Sequence[Paragraph]
    facts: Facts
    sections: Sequence[Section]
    written: str
    """When, and by which version."""
