"""Which images train, validate and test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from yeastexp.data.groups import members
from yeastexp.errors import UserError

Choice = int | float | tuple[str, ...]
"""A number of images from the end, a fraction of all, or names and globs."""


def parse_choice(text: str) -> Choice:
    """What `--val` means: "8" the last eight, "0.3" that fraction from the end, else names and globs between commas.

    An image whose name is a number is named with a comma: "8,".
    """
    word = text.strip()
    if re.fullmatch("[0-9]{1,9}", word):
        return int(word)
    if re.fullmatch(r"\d*\.\d+|\d+\.", word):
        return float(word)
    return tuple(piece.strip() for piece in word.split(",") if piece.strip())


def split(
    names: Sequence[str], val: Choice | None = None, test: Choice | None = None, groups: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Names to train, val and, if asked for, test: counts and fractions (of all) from the end, test last.

    No group is parted: of counts and fractions, as many whole groups as come closest. All may be test images, in a file
    that nothing is trained on.
    """
    groups = groups or {}
    parts: dict[str, tuple[str, ...]] = {}
    rest = tuple(names)
    if test is not None:
        parts["test"] = _chosen("test", rest, test, len(names), groups)
        rest = _without(rest, parts["test"])
        if not rest and val is None:
            return parts
    parts["val"] = _chosen("val", rest, default_validation(len(rest)) if val is None else val, len(names), groups)
    parts["train"] = _without(rest, parts["val"])
    if not parts["train"] and len(members(rest, groups)) == 1 < len(rest):
        raise UserError(
            f"all {len(rest)} images are of one group, '{groups[rest[0]]}', but training and validation need one each; "
            "add images of other groups, or --part-groups (scores are then optimistically biased)"
        )
    if not parts["train"] or not parts["val"]:
        sizes = ", ".join(f"{len(parts[part])} {part}" for part in ("train", "val", "test") if part in parts)
        raise UserError(
            f"of {len(names)} in all {sizes}; training and validation need one image each at least; lower --val or "
            "--test, or add images (pack --test '*' packs all for evaluation alone)"
        )
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}


def _without(names: tuple[str, ...], others: Iterable[str]) -> tuple[str, ...]:
    excluded = set(others)
    return tuple(name for name in names if name not in excluded)


def _chosen(
    part: str, names: tuple[str, ...], choice: Choice, total: int, groups: Mapping[str, str]
) -> tuple[str, ...]:
    try:
        picked = chosen(names, choice, total, groups)
        refuse_parted(names, picked, groups, "add --part-groups")
        return picked
    except UserError as error:
        raise UserError(*(f"--{part}: {fault}" for fault in error.faults)) from None


def refuse_parted(names: Sequence[str], picked: Iterable[str], groups: Mapping[str, str], remedy: str) -> None:
    """Raises UserError if some of a group's images are picked of all `names`, and some are not."""
    taken = set(picked)
    for group in members(names, groups):
        if 0 < (count := len(taken.intersection(group))) < len(group):
            fault = f"parts the group '{groups[group[0]]}' ({count} of its {len(group)} images)"
            raise UserError(f"{fault}; name all of a group, or {remedy}")


def default_validation(count: int) -> int:
    """How many of `count` images validate by default: 8 of 18, and as many in proportion; at least one."""
    return max(1, round(count * 8 / 18))


def plain_splits(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The splits of images of which nothing is said: the last ones validate."""
    end = len(names) - default_validation(len(names))
    return {"train": tuple(names[:end]), "val": tuple(names[end:])}


def chosen(
    names: Sequence[str],
    choice: int | float | Sequence[str],
    total: int | None = None,
    groups: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Those of `names` that a choice takes: a number or fraction (of `total`) from the end, or by name or glob.

    A number is that of whole groups which comes closest to it.
    """
    if isinstance(choice, int | float):
        return _whole(names, _last(names, choice, total or len(names)), groups or {})
    known, picked = set(names), set[str]()
    for pattern in choice:
        matches = {pattern} & known or {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            raise UserError(f"none of the images is called '{pattern}'; {_nearest(pattern, names)}")
        picked |= matches
    if not picked:
        raise UserError("no image is chosen; name at least one")
    return tuple(name for name in names if name in picked)


def _whole(names: Sequence[str], last: tuple[str, ...], groups: Mapping[str, str]) -> tuple[str, ...]:
    """The last groups that hold about as many images as `last`."""
    picked: tuple[str, ...] = ()
    for group in reversed(members(names, groups)):
        if picked and abs(len(picked) + len(group) - len(last)) >= abs(len(picked) - len(last)):
            break
        picked = (*group, *picked)
    taken = set(picked)
    return tuple(name for name in names if name in taken)


def _nearest(name: str, names: Sequence[str]) -> str:
    if near := get_close_matches(name, names, n=1):
        return f"did you mean '{near[0]}'?"
    return f"there are {len(names)}, from '{names[0]}' to '{names[-1]}'" if names else "there is none left"


def _last(names: Sequence[str], choice: int | float, total: int) -> tuple[str, ...]:
    if isinstance(choice, float) and not 0 < choice < 1:
        raise UserError(f"{choice} is not a fraction; give a number between 0 and 1, or a whole number of images")
    count = choice if isinstance(choice, int) else max(1, round(choice * total))
    if not 0 < count <= len(names):
        # One at least is to train.
        remedy = f"give a number from 1 to {len(names) - 1}" if len(names) > 1 else "no image is left"
        raise UserError(f"{count} of {len(names)} images cannot be chosen; {remedy}")
    return tuple(names[-count:])
