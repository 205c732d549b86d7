"""Rules on the size of patches, which has to suit the images, the cells and the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from yeastexp.config.experiment import Experiment
from yeastexp.errors import UserError
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.inspection.preflight.statistics import Statistics
from yeastexp.nets.receptive_field import Axis, receptive_field
from yeastexp.system.formatting import format_count
from yeastexp.training import build
from yeastexp.training.training_images import patch_side

CELLS_ACROSS = 2.0
"""The least width of a patch in diameters of a cell."""

SMALL_CELLS_PX = 6.0
"""The diameter below which an outline that is off by a pixel costs half of the IoU."""


def findings(loaded: Experiment, images: Statistics, model: nn.Module) -> Iterator[Finding]:
    """Findings on sizes that do not go together."""
    # All sizes are those after the transforms, as patches are cut from transformed images.
    train = [(image, image.model_input) for image in images if image.split == "train" and image.model_input]
    if not train:
        return
    shortest = min(min(given.size) for _, given in train)
    side = patch_side(loaded.patches, shortest)
    if small := [image.name for image, given in train if min(given.size) < side]:
        yield Finding(
            "warning",
            "patches larger than images",
            f"patches of {side} px on {format_count(len(small), 'training image')} that are smaller",
            "Images are padded by reflection without labels, which costs time and teaches nothing",
            f"set [patches] size to {shortest} or less",
            tuple(small),
        )
    diameters = [diameter for image, _ in train for diameter in image.diameters]
    yield from _cells(side, diameters)
    largest = max((image for image, _ in train), key=lambda image: image.longest_px)
    cell = f"the largest cell is {largest.longest_px} px long"
    whole = "instances" in build.build_task(loaded).maps
    if whole and (wide := [image.name for image, _ in train if image.longest_px > side]):
        yield Finding(
            "warning",
            "cells larger than patches",
            f"patches of {side} px, {cell} (in {largest.name})",
            "No patch holds such a cell, so that it is never learnt whole",
            f"set [patches] size to {-(-largest.longest_px // 8) * 8} or more, or make images smaller with 'downscale'",
            tuple(wide),
        )
    try:
        field = receptive_field(model, loaded.task.channels)
    except UserError:
        return  # 'inspect' tells why it is not known
    yield from _receptive_field(side, diameters, field.axes)
    sizes = [axis.size for axis in field.axes if not axis.global_layer]
    if whole and sizes and largest.longest_px > min(sizes):
        yield Finding(
            "note",
            "largest cell larger than the receptive field",
            f"{cell}, the receptive field {field.axes[0].size} × {field.axes[1].size} px",
            "No output depends on all of that cell, which may be cut in two",
            "use more [model] levels, larger kernels or smaller images ('downscale')",
            (largest.name,),
        )


def _cells(side: int, diameters: Sequence[float]) -> Iterator[Finding]:
    if not diameters:
        return
    median = float(np.median(diameters))
    cells = f"cells {median:.0f} px across (median of {len(diameters):,})"
    if side < CELLS_ACROSS * median:
        yield Finding(
            "warning",
            "patches smaller than a few cells",
            f"patches of {side} px, {cells}",
            "Most patches cut through all of their cells, so that shape and surroundings are incomplete",
            f"set [patches] size to {8 * round(3 * median / 8)} or more, or make images smaller with 'downscale'",
        )
    if median < SMALL_CELLS_PX:
        yield Finding(
            "note",
            "tiny cells",
            cells,
            "An outline that is off by one pixel costs such a cell half of its IoU",
            "expect low scores, or record at a higher magnification; specks in masks also count as cells",
        )


def _receptive_field(side: int, diameters: Sequence[float], axes: tuple[Axis, Axis]) -> Iterator[Finding]:
    if any(axis.global_layer for axis in axes):
        return
    extent = f"receptive field {axes[0].size} × {axes[1].size} px"
    if diameters and (median := float(np.median(diameters))) > min(axis.size for axis in axes):
        yield Finding(
            "warning",
            "cells larger than the receptive field",
            f"cells {median:.0f} px across (median of {len(diameters):,}), {extent}",
            "No output depends on a whole cell",
            "use more [model] levels, larger kernels or smaller images ('downscale')",
        )
    if side < max(axis.size for axis in axes):
        yield Finding(
            "note",
            "patches smaller than the receptive field",
            f"patches of {side} px, {extent}",
            "In training no output has all the context that it has in a whole image",
            "usually harmless, as the edge of the field contributes little; otherwise set a larger [patches] size",
        )
