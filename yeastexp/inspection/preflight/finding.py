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
