"""Images that are in a data set twice, or almost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from yeastexp.data import folds
from yeastexp.inspection.preflight.dataset_rules import Every, names_of, of_split
from yeastexp.inspection.preflight.finding import Finding, named
from yeastexp.inspection.preflight.statistics import Figures
from yeastexp.system.formatting import format_count


def copies(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images that are the same bit for bit, and masks that are."""
    groups = [some for some in _groups(every, "image_digest") if not some[0].constant]
    across = [some for some in groups if len({one.split for one in some}) > 1]
    within = [some for some in groups if len({one.split for one in some}) == 1]
    if across:
        yield Finding(
            "error",
            "images in two splits",
            "; ".join(_same(some) for some in across[:3])
            + (f"; and {len(across) - 3} more" if len(across) > 3 else ""),
            "Scores of images that were trained on, or that chose the weights, are no scores of new ones",
            "keep each image once",
            tuple(one.name for some in across for one in some),
        )
    if within:
        yield Finding(
            "warning",
            "images twice",
            "; ".join(_same(some) for some in within[:3])
            + (f"; and {len(within) - 3} more" if len(within) > 3 else ""),
            "They count twice, and if they were to be different images, one file is wrong",
            "keep each image once",
            tuple(one.name for some in within for one in some),
        )
    masks = [
        some
        for some in _groups([one for one in every if one.foreground and one.foreground < 1], "labels_digest")
        if len({one.image_digest for one in some}) > 1
    ]
    if masks:
        yield Finding(
            "warning",
            "one mask for several images",
            "; ".join(named(names_of(some)) for some in masks[:3])
            + (f"; and {len(masks) - 3} more" if len(masks) > 3 else ""),
            "Different images have the same labels to the pixel",
            "look whether a mask was saved under another's name",
            tuple(one.name for some in masks for one in some),
        )


def _groups(every: Every, key: str) -> list[list[Figures]]:
    found: dict[str, list[Figures]] = defaultdict(list)
    for one in every:
        found[getattr(one, key)].append(one)
    return [some for some in found.values() if len(some) > 1]


def _same(some: Every) -> str:
    return " = ".join(f"{one.name} ({one.split})" for one in some[:3]) + (" = …" if len(some) > 3 else "")


def near_duplicates(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images held out that look like one that is trained on."""
    thumbnails = {one.name: one.thumbnail for one in every}
    digests = {one.name: one.image_digest for one in every}
    train = names_of(of_split(every, "train"))
    for split in ("val", "test"):
        held = names_of(of_split(every, split))
        alike = folds.most_alike(thumbnails, held, train) if held else []
        alike = [pair for pair in alike if digests[pair[0]] != digests[pair[1]]]
        if alike:
            alike.sort(key=lambda pair: -pair[2])
            pairs = [f"{one} like {other} ({r:.3f})" for one, other, r in alike]
            yield Finding(
                "warning",
                "near-duplicates across splits",
                f"{len(alike)} of {format_count(len(held), split + ' image')} look like a training image: "
                f"{named(pairs)}, correlation of thumbnails",
                "Neighbouring frames of a time lapse do, and overlapping fields; new fields will score worse",
                "split by field or day ('val' of [dataset]; crossval --group-by or --blocks), or say so beside scores",
                tuple(one for one, _, _ in alike),
            )
