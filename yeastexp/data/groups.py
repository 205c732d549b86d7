"""Groups of images that belong together, as the frames of a movie: no split parts them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from yeastexp.errors import UserError


def by_pattern(names: Iterable[str], pattern: str) -> dict[str, str]:
    """The group of each name: what a regular expression matches in it, or the first group of that."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group-by {pattern}: not a valid regular expression ({error})") from None
    groups: dict[str, str] = {}
    for name in names:
        match = compiled.search(name)
        if not match:
            raise UserError(f"--group-by {pattern}: does not match the name '{name}'; every image needs a group")
        groups[name] = (match[1] if compiled.groups else match[0]) or ""
    return groups


def members(names: Sequence[str], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The names of each group, in the order of their first ones; one without a group is a group of its own."""
    by_group: dict[tuple[str, bool], list[str]] = {}
    for name in names:
        by_group.setdefault((groups.get(name, name), name in groups), []).append(name)
    return [tuple(group) for group in by_group.values()]
