"""Rules on the ids of the cells of all images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from yeastexp.inspection.preflight.finding import Finding, of_images
from yeastexp.inspection.preflight.statistics import Statistics, in_split, names
from yeastexp.metrics.cells import of_fewer_bits
from yeastexp.system.formatting import format_count, format_share

FAULTS = (
    (
        "distant",
        "ids shared by distant cells",
        "have ids that cells far apart share",
        "They count as one cell, whose shape and centre are wrong",
        "give each cell its id, for instance by numbering connected regions",
    ),
    (
        "in_pieces",
        "ids in several pieces",
        "have ids whose pixels are not connected",
        "Targets and scores take the pieces for one cell",
        "join or number the pieces, if no other cell lies across",
    ),
    (
        "single_pixels",
        "cells of one pixel",
        "have cells of a single pixel",
        "Nobody can find them, and each counts as a missed cell",
        "remove them from the labels",
    ),
)
"""Fields of the statistics with the words of their findings, in the order in which an id is reported only once."""


def findings(images: Statistics, needed: bool) -> Iterator[Finding]:
    """Findings on odd ids, and on training images without cells if the task needs them."""
    told = [(image, image.instances) for image in images if image.instances]
    train = in_split(images, "train")
    if needed and train and not any(image.instances and image.instances.count for image in train):
        yield Finding(
            "error",
            "no cells in training images",
            "the map 'instances' of all training images holds no id above 0",
            "There is nothing to learn",
            "choose training images with cells, or pack the masks again with --labels instance",
            names(train),
        )
    # An id that distant cells share is in several pieces too; it is reported for the graver of its faults alone.
    known = set[tuple[str, int]]()
    for field, about, what, why, remedy in FAULTS:
        shown = {
            image.name: [number for number in getattr(cells, field) if (image.name, number) not in known]
            for image, cells in told
        }
        known |= {(name, number) for name, numbers in shown.items() for number in numbers}
        if wrong := [image for image, _ in told if shown[image.name]]:
            most = max(wrong, key=lambda image: len(shown[image.name]))
            ids = shown[most.name]
            listed = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
            text = f" {what}: {len(ids):,} in {most.name} (ids {listed})"
            if field != "single_pixels" and most.instances:
                remedy += of_fewer_bits(most.instances.largest_id, most.instances.count)
            yield of_images("warning", about, wrong, images, text, why, remedy)


def cells_line(images: Statistics) -> str:
    """A sentence on the cells of images with a map `instances`: their number, their sizes, and how many touch."""
    told = [image.instances for image in images if image.instances]
    counts = [cells.count for cells in told]
    if not (count := sum(counts)):
        return f"none in the map 'instances' of {format_count(len(told), 'image')}"
    diameters = [cells.diameter_px for cells in told if cells.count]
    largest = max(images, key=lambda image: image.instances.longest_px if image.instances else 0)
    return (
        f"{format_count(count, 'cell')} in {format_count(len(told), 'image')}: {min(counts):,} to {max(counts):,} "
        f"an image; median diameter {np.median(diameters):.1f} px ({min(diameters):.1f} to {max(diameters):.1f} by "
        f"image), the longest {largest.instances.longest_px if largest.instances else 0} px ({largest.name}); "
        f"{format_share(sum(cells.touching for cells in told) / count)} touch another, "
        f"{format_share(sum(cells.cut for cells in told) / count)} are cut by borders"
    )
