"""What the figures of all images say together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from yeastexp import folds
from yeastexp.preflight.figures import LEAST_PIECE_PX, Figures
from yeastexp.preflight.finding import Finding, Severity, counted, named, number, share
from yeastexp.sample import IGNORE

SATURATED, CLIPPED = 0.01, 0.001
"""Shares of pixels at the highest value that are worth a warning, and a note."""

PADDED = 0.05
"""Share of pixels at the lowest value that are worth a note."""

FEW_LEVELS = 16
"""Grey values below which outlines are steps."""

FULL = 0.9
"""Share of foreground from which on a mask looks inverted."""

EVEN = 3.0
"""The factor between standard deviations of images that is nothing unusual."""

STANDARD = (0.05, 10.0)
"""Standard deviations of what a model sees between which it learns as it is meant to; means stay below the second."""

RARE = 0.005
"""Share of pixels of a class that is worth a note."""

ASTRAY = 0.01
"""Share of the pixels of objects on which a map may differ from the labels."""

MANY_SPECKS = 0.5
"""Share of connected pieces that are specks."""

OTHER_AMOUNT = 3.0
"""The factor between the foreground of two splits that is nothing unusual."""

Every = Sequence[Figures]
Rule = Callable[[Every, Sequence[str]], Iterator[Finding]]


def findings(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Everything that can be said without the model, the rules in the order of the page."""
    for rule in RULES:
        yield from rule(every, classes)


def _names(some: Every) -> tuple[str, ...]:
    return tuple(one.name for one in some)


def _of(every: Every, split: str) -> list[Figures]:
    return [one for one in every if one.split == split]


def _said(some: Every, every: Every) -> str:
    return f"{len(some)} of {counted(len(every), 'image')}"


def odd_labels(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Labels that no class has."""
    odd = {one.name: [label for label in one.counts if not IGNORE <= label < len(classes)] for one in every}
    wrong = tuple(name for name, labels in odd.items() if labels)
    if wrong:
        values = sorted({label for labels in odd.values() for label in labels})
        shown = ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
        yield Finding(
            "error",
            "labels that are no classes",
            f"{len(wrong)} of {counted(len(every), 'image')} hold the labels {shown}, where [task] classes has 0 to "
            f"{len(classes) - 1}",
            "Training would stop there",
            "pack the masks again (ids of cells: --labels instance), or name all classes",
            wrong,
        )


def constant_images(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images of one value, or with such a channel."""
    if flat := [one for one in every if one.constant]:
        yield Finding(
            "error",
            "constant images",
            f"{_said(flat, every)} hold one value everywhere (in a channel)",
            "There is nothing to be seen in them",
            "export them anew, or leave them out",
            _names(flat),
        )


def empty_masks(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images without foreground: all that train, all that are scored, or some."""
    empty = [one for one in every if one.foreground == 0]
    for split in dict.fromkeys(one.split for one in every):
        some = _of(every, split)
        if split == "train" or any(one.foreground != 0 for one in some):
            continue
        yield Finding(
            "warning",
            "nothing to be scored",
            f"no {split} image has any foreground",
            "Of a class that is neither there nor predicted there is no score",
            "choose other images",
            _names(some),
        )
    if empty and len(empty) < len(every):
        train = [one for one in _of(every, "train") if one.foreground == 0]
        many = len(train) > len(_of(every, "train")) / 2
        yield Finding(
            "warning" if many else "note",
            "empty masks",
            f"{_said(empty, every)} have no foreground",
            "Empty fields teach what is no cell, but their IoU counts only where something is predicted",
            "if there are cells in them, draw the masks; else all is well",
            _names(empty),
        )


def absent_classes(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Classes that cannot be learnt."""
    trained = _of(every, "train")
    if not trained:
        return  # none could be read, which is said
    seen = {label for one in trained for label in one.counts if label >= 0}
    if len(seen & set(range(len(classes)))) < 2:
        only = f"'{classes[min(seen)]}'" if seen and min(seen) < len(classes) else "no truth"
        yield Finding(
            "error",
            "one class alone",
            f"all training images have {only} and nothing else",
            "There is nothing to be learnt",
            "look whether the masks were read: they should be of 0 and 1, or 0 and 255, and not all black",
            _names(trained),
        )
        return
    for label, name in enumerate(classes):
        if label not in seen:
            others = [one for one in every if one.counts.get(label)]
            elsewhere = f", but {counted(len(others), 'image')} that validate or test" if others else ""
            yield Finding(
                "warning",
                "class without training pixels",
                f"no training image has the class '{name}' (label {label}){elsewhere}",
                "A model never finds what it was never shown",
                "choose training images that have it, or drop it from [task] classes",
                _names(others),
            )


def inverted_masks(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Masks that are nearly all foreground."""
    full = [one for one in every if one.foreground is not None and one.foreground > FULL]
    if full:
        yield Finding(
            "warning",
            "masks nearly full",
            f"{_said(full, every)} are more than {share(FULL)} foreground, up to "
            f"{share(max(one.foreground or 0 for one in full))}",
            f"Masks that are black on white look so: label 0 is '{classes[0]}'",
            "if cells are black in the mask files, invert those and pack again; else all is well",
            _names(full),
        )


def missing_truth(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Pixels labelled IGNORE."""
    if blank := [one for one in every if not one.known]:
        yield Finding(
            "warning",
            "images without truth",
            f"{_said(blank, every)} have no labelled pixel",
            "They take time and teach nothing, and have no score",
            "leave them out",
            _names(blank),
        )
    if partly := [one for one in every if one.known and one.ignored]:
        total = sum(one.pixels for one in partly)
        missing = sum(one.pixels - one.known for one in partly) / total
        yield Finding(
            "note",
            "pixels without truth",
            f"{_said(partly, every)} have pixels of label {IGNORE}, {share(missing)} of theirs",
            "Losses and scores skip them",
            "all is well if they are meant",
            _names(partly),
        )


def saturation(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Pixels that pile up at the highest or the lowest value."""
    piled = [one for one in every if one.at_high >= CLIPPED and not one.constant]
    if strong := [one for one in piled if one.at_high >= SATURATED]:
        yield _saturated("warning", strong, every)
    elif piled:
        yield _saturated("note", piled, every)
    if padded := [one for one in every if one.at_low >= PADDED and not one.constant]:
        most = max(padded, key=lambda one: one.at_low)
        yield Finding(
            "note",
            "many pixels at the lowest value",
            f"{_said(padded, every)}: up to {share(most.at_low)} of the pixels are exactly {number(most.low)}",
            "Borders filled with black and clipped shadows look so, and shift what a normalisation measures",
            "cut black borders off ([[transform]] crop, or label them -1); clipped shadows need a new recording",
            _names(padded),
        )


def _saturated(severity: Severity, some: Every, every: Every) -> Finding:
    most = max(some, key=lambda one: one.at_high)
    return Finding(
        severity,
        "saturated pixels",
        f"{_said(some, every)}: up to {share(most.at_high)} of the pixels have the highest value, {number(most.high)}",
        "What is brighter than the camera or the export could hold has lost its structure",
        "expose shorter, or export again without stretching the contrast; a few bright specks do no harm",
        _names(some),
    )


def few_levels(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images of hardly any grey values."""
    coarse = [
        one
        for one in every
        if one.dtype is not None
        and not one.dtype.startswith("float")
        and not one.constant
        and one.high - one.low < FEW_LEVELS
    ]
    if coarse:
        least = min(coarse, key=lambda one: one.high - one.low)
        yield Finding(
            "warning",
            "few grey values",
            f"{_said(coarse, every)}: values from {number(least.low)} to {number(least.high)} at the least",
            f"With fewer than {FEW_LEVELS} steps, faint outlines are gone",
            "convert the raw files again, stretched before they become 8-bit; or are they masks?",
            _names(coarse),
        )


def value_ranges(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images unlike the others in range, before and after the transforms; and what the model then sees."""
    varied = [one for one in every if not one.constant]
    if not varied:
        return
    stored = _spread([one.std for one in varied])
    seen = [(one, one.seen) for one in varied if one.seen]
    kept = _spread([found.std for _, found in seen])
    low, high = min(varied, key=lambda one: one.std), max(varied, key=lambda one: one.std)
    ranges = (
        f"from {number(low.low)} – {number(low.high)} ({low.name}) to {number(high.low)} – {number(high.high)} "
        f"({high.name})"
    )
    if kept > EVEN:
        odd = _unlike([(one.name, found.std) for one, found in seen])
        yield Finding(
            "warning",
            "uneven value ranges",
            f"after all transforms contrast differs by a factor of {kept:.0f}; stored values go {ranges}",
            "A model trained on one range sees nothing in another",
            'normalise each image by itself: [[transform]] zscore with per = "image", or percentile',
            odd,
        )
    elif stored > EVEN and seen:
        yield Finding(
            "note",
            "value ranges evened out",
            f"stored values go {ranges}; after the transforms contrast differs by a factor of {kept:.1f}",
            "The transforms take care of it",
            "look whether images of both kinds are in each split",
        )
    yield from _unscaled([(one, found.mean, found.std) for one, found in seen])


def _spread(deviations: Sequence[float]) -> float:
    kept = [one for one in deviations if one > 0]
    return max(kept) / min(kept) if kept else 1.0


def _unlike(deviations: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """The names of those far from the median."""
    median = float(np.median([one for _, one in deviations]))
    limit = EVEN**0.5
    return tuple(name for name, one in deviations if not median / limit <= one <= median * limit)


def _unscaled(seen: Sequence[tuple[Figures, float, float]]) -> Iterator[Finding]:
    low, high = STANDARD
    odd = [(one, mean, std) for one, mean, std in seen if abs(mean) > high or not low <= std <= high]
    if odd:
        _, mean, std = max(odd, key=lambda entry: abs(entry[1]) + entry[2])
        yield Finding(
            "warning",
            "values far from standard",
            f"the model sees values of {number(round(mean, 3))} ± {number(round(std, 3))} in "
            f"{_said([one for one, _, _ in odd], [one for one, _, _ in seen])}",
            "Models start and learn best on values about 0 ± 1, and augmentations are set for these",
            "add [[transform]] zscore as the first",
            _names([one for one, _, _ in odd]),
        )


def mixed_types(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images stored in several types."""
    by_type: dict[str, list[Figures]] = defaultdict(list)
    for one in every:
        by_type[one.dtype or "unknown"].append(one)
    if len(by_type) > 1:
        rarest = min(by_type.values(), key=len)
        yield Finding(
            "note",
            "mixed types",
            ", ".join(f"{dtype}: {counted(len(some), 'image')}" for dtype, some in sorted(by_type.items())),
            "Some images may have lost grey values on the way, which a model can tell apart",
            "export all in one type, the deepest there is",
            _names(rarest),
        )


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
            "; ".join(named(_names(some)) for some in masks[:3])
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
    train = _names(_of(every, "train"))
    for split in ("val", "test"):
        held = _names(_of(every, split))
        alike = folds.most_alike(thumbnails, held, train) if held else []
        alike = [pair for pair in alike if digests[pair[0]] != digests[pair[1]]]
        if alike:
            alike.sort(key=lambda pair: -pair[2])
            pairs = [f"{one} like {other} ({r:.3f})" for one, other, r in alike]
            yield Finding(
                "warning",
                "near-duplicates across splits",
                f"{len(alike)} of {counted(len(held), split + ' image')} look like a training image: "
                f"{named(pairs)}, correlation of thumbnails",
                "Neighbouring frames of a time lapse do, and overlapping fields; new fields will score worse",
                "split by field or day ('val' of [dataset]; crossval --group-by or --blocks), or say so beside scores",
                tuple(one for one, _, _ in alike),
            )


def maps_astray(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Instances and dead cells that the labels contradict."""
    told = {
        "instances": ("are cells in the map 'instances' but background in the labels", "Counts of cells"),
        "dead": ("are dead cells in the map 'dead' but foreground in the labels", "The share of dead cells found"),
    }
    for name, (what, why) in told.items():
        if odd := [one for one in every if one.astray.get(name, 0.0) > ASTRAY]:
            most = max(one.astray[name] for one in odd)
            yield Finding(
                "warning",
                f"{name} against labels",
                f"{_said(odd, every)}: up to {share(most)} of the pixels that {what}",
                f"{why} then say other things than the labels",
                "make both from one source, and pack again",
                _names(odd),
            )


def specks(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Masks whose pieces are mostly of a few pixels."""
    odd = [one for one in every if one.pieces > 4 and one.specks > MANY_SPECKS * one.pieces]
    if odd:
        most = max(odd, key=lambda one: one.specks / one.pieces)
        yield Finding(
            "note",
            "specks in masks",
            f"{_said(odd, every)}: most connected pieces are smaller than {LEAST_PIECE_PX} px, as {most.specks:,} of "
            f"{most.pieces:,} in {most.name}",
            "Noise of a threshold looks so, and so do masks that were saved as JPEG or scaled",
            "look at them in 'preview', and clean them",
            _names(odd),
        )


def amounts(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Rare classes, and splits of other content."""
    trained = _of(every, "train")
    known = sum(one.known for one in trained)
    for label, name in enumerate(classes):
        part = sum(one.counts.get(label, 0) for one in trained) / known if known else 0.0
        if 0 < part < RARE:
            yield Finding(
                "note",
                "rare class",
                f"'{name}' is {share(part)} of the training pixels",
                "Accuracy hardly notices it, and most windows have none of it",
                "set [train] foreground = 0.5, take a dice loss, and look at IoU",
            )
    own = [one.foreground for one in trained if one.foreground]
    for split in ("val", "test"):
        others = [one.foreground for one in _of(every, split) if one.foreground]
        if own and others and _spread([float(np.median(own)), float(np.median(others))]) > OTHER_AMOUNT:
            yield Finding(
                "note",
                "splits unlike each other",
                f"the median foreground is {share(float(np.median(own)))} in train and "
                f"{share(float(np.median(others)))} in {split}",
                "Scores then tell of other fields than those trained on",
                "all is well if that is the question; else deal the images anew ('crossval' does)",
            )


def single_images(splits: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Splits of one image."""
    if len(splits.get("val", ())) == 1:
        yield Finding(
            "warning",
            "one validation image",
            "one image chooses the checkpoint and gives the score",
            "A score of one image has no interval: what another would give cannot be told",
            "take more ('val' of [dataset]), or let every image be held out in turn ('crossval')",
            tuple(splits["val"]),
        )
    if len(splits["train"]) == 1:
        yield Finding(
            "warning",
            "one training image",
            "all is learnt from one image",
            "What it does not show, the model will not know",
            "train on more, of other fields and days",
            tuple(splits["train"]),
        )


RULES: tuple[Rule, ...] = (
    odd_labels,
    constant_images,
    absent_classes,
    copies,
    empty_masks,
    inverted_masks,
    missing_truth,
    near_duplicates,
    value_ranges,
    saturation,
    few_levels,
    mixed_types,
    maps_astray,
    specks,
    amounts,
)
