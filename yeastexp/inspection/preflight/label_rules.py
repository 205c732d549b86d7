"""Rules on the labels of all images; each yields its findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from yeastexp.inspection.preflight.finding import Finding, of_images
from yeastexp.inspection.preflight.statistics import SPECK_PX, Labels, Statistics, in_split, names, ratio
from yeastexp.sample import IGNORE
from yeastexp.system.formatting import format_count, format_share

FULL = 0.9
"""The share of foreground above which a mask may be inverted."""

RARE = 0.005
"""The share of pixels below which a class is rare."""

CONTRADICTED = 0.01
"""The share of the pixels of its objects up to which a map may differ from the labels."""

MANY_SPECKS, FEW_COMPONENTS = 0.5, 4
"""The share of specks above which there is a note, and the number of components up to which there is none."""

MAX_FOREGROUND_RATIO = 3.0
"""The ratio of the foreground in two splits up to which they count as alike."""


def invalid_labels(images: Labels, classes: Sequence[str]) -> Iterator[Finding]:
    """Labels without a class."""
    if wrong := [image for image in images if any(not IGNORE <= label < len(classes) for label in image.counts)]:
        values = sorted({label for image in wrong for label in image.counts if not IGNORE <= label < len(classes)})
        shown = ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
        yield of_images(
            "error",
            "invalid labels",
            wrong,
            images,
            f" have the labels {shown}; [task] classes has 0 to {len(classes) - 1}",
            "Training would stop there",
            "pack the masks again (ids of cells: --labels instance), or name all classes"
            + ("; if 255 marks pixels that are not annotated, add --ignore 255 to pack" if 255 in values else ""),
        )


def empty_masks(images: Labels, classes: Sequence[str]) -> Iterator[Finding]:
    """Held-out splits without foreground, and images without."""
    for split in dict.fromkeys(image.split for image in images):
        members = in_split(images, split)
        if split != "train" and all(image.foreground == 0 for image in members):
            yield Finding(
                "warning",
                "no foreground to score",
                f"no {split} image has any foreground",
                "A class that is neither labelled nor predicted has no score",
                "choose other images",
                names(members),
            )
    empty, train = [image for image in images if image.foreground == 0], in_split(images, "train")
    if empty and len(empty) < len(images):
        many = sum(image.foreground == 0 for image in train) > len(train) / 2
        yield of_images(
            "warning" if many else "note",
            "empty masks",
            empty,
            images,
            " have no foreground",
            "Empty fields show what is not a cell, but their IoU counts only if something is predicted",
            "if they contain cells, draw the masks; otherwise this is fine",
        )


def missing_classes(images: Labels, classes: Sequence[str]) -> Iterator[Finding]:
    """Classes that the training images lack."""
    train = in_split(images, "train")
    if not train:
        return  # none could be read, which is another finding
    present = {label for image in train for label in image.counts if label >= 0}
    if len(present & set(range(len(classes)))) < 2:
        only = f"'{classes[min(present)]}'" if present and min(present) < len(classes) else ""
        yield Finding(
            "error",
            "a single class",
            f"all training images have {only} and nothing else" if only else "no training image has a labelled pixel",
            "There is nothing to learn",
            "check that the labels were read: 0 is the background, and cells are 1, 255 or the ids above 0",
            names(train),
        )
        return
    for label, name in enumerate(classes):
        if label not in present:
            others = [image for image in images if image.counts.get(label)]
            elsewhere = f", but {format_count(len(others), 'image')} for validation or test do" if others else ""
            yield Finding(
                "warning",
                "class without training pixels",
                f"no training image has the class '{name}' (label {label}){elsewhere}",
                "A model does not predict a class without examples",
                "choose training images that have it, or drop it from [task] classes",
                names(others),
            )


def nearly_full_masks(images: Labels, classes: Sequence[str]) -> Iterator[Finding]:
    """Masks that are nearly all foreground."""
    if full := [image for image in images if image.foreground is not None and image.foreground > FULL]:
        yield of_images(
            "warning",
            "nearly full masks",
            full,
            images,
            f" are more than {format_share(FULL)} foreground, up to "
            f"{format_share(max(image.foreground or 0 for image in full))}",
            f"Masks with black cells on white have that: label 0 is '{classes[0]}'",
            "if cells are black in the mask files, invert those and pack again; otherwise this is fine",
        )


def unlabelled_pixels(images: Labels, classes: Sequence[str]) -> Iterator[Finding]:
    """Pixels labelled IGNORE."""
    if blank := [image for image in images if not image.labelled]:
        what, why = " have no labelled pixel", "They take time, teach nothing, and have no score"
        yield of_images("warning", "unlabelled images", blank, images, what, why, "leave them out")
    if partly := [image for image in images if image.labelled and image.unlabelled_share]:
        share = sum(image.pixels - image.labelled for image in partly) / sum(image.pixels for image in partly)
        what = f" have pixels of label {IGNORE}, {format_share(share)} of theirs"
        why, remedy = "Losses and scores ignore them", "this is fine if they are intended"
        yield of_images("note", "unlabelled pixels", partly, images, what, why, remedy)


def contradicting_maps(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Instances and dead cells that the labels contradict."""
    consequences = {
        "instances": ("are cells in the map 'instances' but background in the labels", "Counts of cells"),
        "dead": ("are dead cells in the map 'dead' but foreground in the labels", "The scores of dead cells"),
    }
    for name, (what, affected) in consequences.items():
        if wrong := [image for image in images if image.contradicted.get(name, 0.0) > CONTRADICTED]:
            most = max(image.contradicted[name] for image in wrong)
            yield of_images(
                "warning",
                f"{name} contradict labels",
                wrong,
                images,
                f": up to {format_share(most)} of the pixels that {what}",
                f"{affected} are then inconsistent with the labels",
                "make both from one source, and pack again",
            )


def specks(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Masks whose components mostly have a few pixels."""
    counted = [image for image in images if image.components > FEW_COMPONENTS]
    if noisy := [image for image in counted if image.specks > MANY_SPECKS * image.components]:
        most = max(noisy, key=lambda image: image.specks / image.components)
        yield of_images(
            "note",
            "specks in masks",
            noisy,
            images,
            f": most connected components have fewer than {SPECK_PX} px, as {most.specks:,} of {most.components:,} in "
            f"{most.name}",
            "Thresholding noise does that, and so do masks saved as JPEG or resized",
            "inspect them with 'preview', and clean them",
        )


def class_shares(images: Labels, classes: Sequence[str]) -> Iterator[Finding]:
    """Rare classes, and splits with different shares of foreground."""
    train = in_split(images, "train")
    labelled = sum(image.labelled for image in train)
    for label, name in enumerate(classes):
        share = sum(image.counts.get(label, 0) for image in train) / labelled if labelled else 0.0
        if 0 < share < RARE:
            yield Finding(
                "note",
                "rare class",
                f"'{name}' is {format_share(share)} of the training pixels",
                "Accuracy hardly reflects it, and most patches have none of it",
                "set [patches] foreground_fraction = 0.5, use a dice loss, and judge by IoU",
            )
    medians = {}
    for split in ("train", "val", "test"):
        if shares := [image.foreground for image in in_split(images, split) if image.foreground]:
            medians[split] = float(np.median(shares))
    for split, median in medians.items():
        if "train" in medians and ratio([medians["train"], median]) > MAX_FOREGROUND_RATIO:
            by_split = f"{format_share(medians['train'])} in train, {format_share(median)} in {split}"
            yield Finding(
                "note",
                "splits differ",
                f"the median foreground is {by_split}",
                "Scores then measure generalisation to other fields",
                "this is fine if intended; otherwise split the images again ('crossval' does)",
            )
