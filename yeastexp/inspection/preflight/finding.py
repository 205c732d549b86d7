"""What a preflight says: one thing that is wrong or worth knowing, which images show it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

NAMED = 3
"""Images that a sentence names."""


@dataclass(frozen=True)
class Finding:
    """`about` says in a few words what it is, the same for scripts in every version; `images` has all it was seen in.

    An error makes training impossible or its scores untrue, a warning often makes them worse, a note is worth knowing.
    """

    severity: Severity
    about: str
    what: str
    why: str
    remedy: str
    images: tuple[str, ...] = ()


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; those of one severity in the order in which they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def named(images: Sequence[str], most: int = NAMED) -> str:
    """Some names, and how many more there are; one more is named as well, which takes no more room."""
    shown = images if len(images) <= most + 1 else images[:most]
    return ", ".join(shown) + (f" and {len(images) - most} more" if len(images) > most + 1 else "")


def counted(count: int, what: str) -> str:
    """As '1 image' or '3 images'."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def share(part: float) -> str:
    """A share in per cent, with as many digits as tell it from none and from all."""
    percent = 100 * part
    if 0 < percent < 0.01:
        return "less than 0.01 %"
    if 99.9 <= percent < 100:
        return "more than 99.9 %"
    return f"{percent:.2f} %" if percent < 1 else f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def number(value: float) -> str:
    """A pixel value, or a figure made of some."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.4g}"
