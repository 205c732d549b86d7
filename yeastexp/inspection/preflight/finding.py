"""A finding of a preflight: one fault or oddity, the images that show it, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from yeastexp.inspection.preflight.statistics import Labels, names
from yeastexp.system.formatting import format_count

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

MAX_NAMED = 3
"""The most images that a sentence names."""


@dataclass(frozen=True)
class Finding:
    """One finding; `about` is its constant name, for scripts, and `images` has all that show it.

    An error makes training impossible or its scores wrong, a warning often makes them worse, a note is worth knowing.
    """

    severity: Severity
    about: str
    what: str
    why: str
    remedy: str
    images: tuple[str, ...] = ()


def of_images(
    severity: Severity, about: str, affected: Labels, images: Labels, what: str, why: str, remedy: str
) -> Finding:
    """A finding on some of all images; `what` continues the sentence '3 of 18 images'."""
    share = f"{len(affected)} of {format_count(len(images), 'image')}"
    return Finding(severity, about, share + what, why, remedy, names(affected))


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity, the worst first; those of one severity keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def named(images: Sequence[str], most: int = MAX_NAMED) -> str:
    """The first names, and how many more there are; 'and 1 more' is never said, as the name is as short."""
    shown = images if len(images) <= most + 1 else images[:most]
    return ", ".join(shown) + (f" and {len(images) - most} more" if len(images) > most + 1 else "")


def listed(texts: Sequence[str]) -> str:
    """The first texts, and how many more there are."""
    return "; ".join(texts[:MAX_NAMED]) + (f"; and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else "")
