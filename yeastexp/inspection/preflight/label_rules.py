"""What the labels of all images say together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from yeastexp.inspection.preflight.dataset_rules import Every, names_of, of_split, out_of, spread
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.inspection.preflight.statistics import LEAST_PIECE_PX
from yeastexp.sample import IGNORE
from yeastexp.system.formatting import format_count, format_share

FULL = 0.9
"""Share of foreground from which on a mask looks inverted."""

RARE = 0.005
"""Share of pixels of a class that is worth a note."""

ASTRAY = 0.01
"""Share of the pixels of objects on which a map may differ from the labels."""

MANY_SPECKS = 0.5
"""Share of connected pieces that are specks."""

OTHER_AMOUNT = 3.0
"""The factor between the foreground of two splits that is nothing unusual."""


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
            f"{len(wrong)} of {format_count(len(every), 'image')} hold the labels {shown}, where [task] classes has 0 "
            f"to {len(classes) - 1}",
            "Training would stop there",
            "pack the masks again (ids of cells: --labels instance), or name all classes",
            wrong,
        )


def empty_masks(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Images without foreground: all that train, all that are scored, or some."""
    empty = [one for one in every if one.foreground == 0]
    for split in dict.fromkeys(one.split for one in every):
        some = of_split(every, split)
        if split == "train" or any(one.foreground != 0 for one in some):
            continue
        yield Finding(
            "warning",
            "nothing to be scored",
            f"no {split} image has any foreground",
            "Of a class that is neither there nor predicted there is no score",
            "choose other images",
            names_of(some),
        )
    if empty and len(empty) < len(every):
        train = [one for one in of_split(every, "train") if one.foreground == 0]
        many = len(train) > len(of_split(every, "train")) / 2
        yield Finding(
            "warning" if many else "note",
            "empty masks",
            f"{out_of(empty, every)} have no foreground",
            "Empty fields teach what is no cell, but their IoU counts only where something is predicted",
            "if there are cells in them, draw the masks; else all is well",
            names_of(empty),
        )


def absent_classes(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Classes that cannot be learnt."""
    trained = of_split(every, "train")
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
            names_of(trained),
        )
        return
    for label, name in enumerate(classes):
        if label not in seen:
            others = [one for one in every if one.counts.get(label)]
            elsewhere = f", but {format_count(len(others), 'image')} that validate or test" if others else ""
            yield Finding(
                "warning",
                "class without training pixels",
                f"no training image has the class '{name}' (label {label}){elsewhere}",
                "A model never finds what it was never shown",
                "choose training images that have it, or drop it from [task] classes",
                names_of(others),
            )


def inverted_masks(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Masks that are nearly all foreground."""
    full = [one for one in every if one.foreground is not None and one.foreground > FULL]
    if full:
        yield Finding(
            "warning",
            "masks nearly full",
            f"{out_of(full, every)} are more than {format_share(FULL)} foreground, up to "
            f"{format_share(max(one.foreground or 0 for one in full))}",
            f"Masks that are black on white look so: label 0 is '{classes[0]}'",
            "if cells are black in the mask files, invert those and pack again; else all is well",
            names_of(full),
        )


def missing_truth(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Pixels labelled IGNORE."""
    if blank := [one for one in every if not one.known]:
        yield Finding(
            "warning",
            "images without truth",
            f"{out_of(blank, every)} have no labelled pixel",
            "They take time and teach nothing, and have no score",
            "leave them out",
            names_of(blank),
        )
    if partly := [one for one in every if one.known and one.ignored]:
        total = sum(one.pixels for one in partly)
        missing = sum(one.pixels - one.known for one in partly) / total
        yield Finding(
            "note",
            "pixels without truth",
            f"{out_of(partly, every)} have pixels of label {IGNORE}, {format_share(missing)} of theirs",
            "Losses and scores skip them",
            "all is well if they are meant",
            names_of(partly),
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
                f"{out_of(odd, every)}: up to {format_share(most)} of the pixels that {what}",
                f"{why} then say other things than the labels",
                "make both from one source, and pack again",
                names_of(odd),
            )


def specks(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Masks whose pieces are mostly of a few pixels."""
    odd = [one for one in every if one.pieces > 4 and one.specks > MANY_SPECKS * one.pieces]
    if odd:
        most = max(odd, key=lambda one: one.specks / one.pieces)
        yield Finding(
            "note",
            "specks in masks",
            f"{out_of(odd, every)}: most connected pieces are smaller than {LEAST_PIECE_PX} px, as {most.specks:,} of "
            f"{most.pieces:,} in {most.name}",
            "Noise of a threshold looks so, and so do masks that were saved as JPEG or scaled",
            "look at them in 'preview', and clean them",
            names_of(odd),
        )


def amounts(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Rare classes, and splits of other content."""
    trained = of_split(every, "train")
    known = sum(one.known for one in trained)
    for label, name in enumerate(classes):
        part = sum(one.counts.get(label, 0) for one in trained) / known if known else 0.0
        if 0 < part < RARE:
            yield Finding(
                "note",
                "rare class",
                f"'{name}' is {format_share(part)} of the training pixels",
                "Accuracy hardly notices it, and most windows have none of it",
                "set [patches] foreground_fraction = 0.5, take a dice loss, and look at IoU",
            )
    own = [one.foreground for one in trained if one.foreground]
    for split in ("val", "test"):
        others = [one.foreground for one in of_split(every, split) if one.foreground]
        if own and others and spread([float(np.median(own)), float(np.median(others))]) > OTHER_AMOUNT:
            yield Finding(
                "note",
                "splits unlike each other",
                f"the median foreground is {format_share(float(np.median(own)))} in train and "
                f"{format_share(float(np.median(others)))} in {split}",
                "Scores then tell of other fields than those trained on",
                "all is well if that is the question; else deal the images anew ('crossval' does)",
            )
