"""Findings on images and masks that a data set holds twice, exactly or nearly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from yeastexp.config.experiment import Experiment
from yeastexp.data import folds
from yeastexp.errors import UserError
from yeastexp.inspection.preflight.finding import Finding, listed, named
from yeastexp.inspection.preflight.statistics import ImageStatistics, Statistics, in_split, names
from yeastexp.system.formatting import format_count
from yeastexp.training.initial_weights import known_images


def duplicates(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Findings on images, and on masks, that are equal bit for bit."""
    # Constant images are all alike, and reported as such; so are masks of background alone, or of foreground alone.
    groups = [group for group in _groups(images, "image_digest") if not group[0].constant]
    across = [group for group in groups if len({image.split for image in group}) > 1]
    within = [group for group in groups if len({image.split for image in group}) == 1]
    if across:
        yield Finding(
            "error",
            "images in several splits",
            listed([_equal(group) for group in across]),
            "Scores on images that were trained on, or that selected the weights, are optimistically biased",
            "keep each image once",
            tuple(name for group in across for name in names(group)),
        )
    if within:
        yield Finding(
            "warning",
            "duplicate images",
            listed([_equal(group) for group in within]),
            "They count twice, and if they should differ, a file is wrong",
            "keep each image once",
            tuple(name for group in within for name in names(group)),
        )
    masked = [image for image in images if image.foreground and image.foreground < 1]
    masks = [group for group in _groups(masked, "labels_digest") if len({image.image_digest for image in group}) > 1]
    if masks:
        yield Finding(
            "warning",
            "one mask for several images",
            listed([named(names(group)) for group in masks]),
            "Different images have identical labels",
            "check whether a mask was saved under the name of another",
            tuple(name for group in masks for name in names(group)),
        )


def _groups(images: Statistics, key: str) -> list[list[ImageStatistics]]:
    groups: dict[str, list[ImageStatistics]] = defaultdict(list)
    for image in images:
        groups[getattr(image, key)].append(image)
    return [group for group in groups.values() if len(group) > 1]


def _equal(group: Statistics) -> str:
    return " = ".join(f"{image.name} ({image.split})" for image in group[:3]) + (" = …" if len(group) > 3 else "")


def near_duplicates(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """Findings on held-out images that resemble a training image without being equal to it."""
    thumbnails = {image.name: image.thumbnail for image in images}
    digests = {image.name: image.image_digest for image in images}
    train = names(in_split(images, "train"))
    for split in ("val", "test"):
        held_out = names(in_split(images, split))
        alike = folds.most_similar(thumbnails, held_out, train) if held_out else []
        alike = [pair for pair in alike if digests[pair[0]] != digests[pair[1]]]
        if alike:
            alike.sort(key=lambda pair: -pair[2])
            pairs = [f"{name} like {other} ({r:.3f})" for name, other, r in alike]
            yield Finding(
                "warning",
                "near-duplicates across splits",
                f"{len(alike)} of {format_count(len(held_out), split + ' image')} resemble a training image: "
                f"{named(pairs)}, correlation of thumbnails",
                "So do neighbouring frames and overlapping fields; scores on new fields will be worse",
                "split by field or day ('val' of [dataset]; crossval --group-by or --blocks), or report it",
                tuple(name for name, _, _ in alike),
            )


def known_to_weights(experiment: Experiment, images: Statistics) -> Iterator[Finding]:
    """Findings on held-out images that resemble those that the experiment's initial weights were trained on."""
    held_out = [image for image in images if image.split != "train"]
    thumbnails = {image.name: image.thumbnail for image in held_out}
    why, names_of = "Scores on images that were trained on are optimistically biased", tuple(names(held_out))
    remedy = "hold out others ('val' of [dataset]), or begin without these weights ([train] init_from)"
    try:
        alike = known_images(experiment, thumbnails, list(thumbnails))
    except UserError as error:
        what = f"whether they were held-out ones is not known: {'; '.join(error.faults)}"
        yield Finding("warning", "training images of the initial weights", what, why, remedy, names_of)
        return
    if alike:
        pairs = [f"{name} like {other} ({r:.3f})" for name, other, r in sorted(alike, key=lambda pair: -pair[2])]
        yield Finding(
            "warning",
            "initial weights trained on held-out images",
            f"held-out images resemble images that they were trained on: {len(alike)} of {len(held_out)} "
            f"({named(pairs)}, correlation of thumbnails)",
            why,
            remedy,
            tuple(name for name, _, _ in alike),
        )
