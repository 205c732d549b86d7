"""Whether windows suit the images, the cells and the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from yeastexp.config.experiment import Experiment
from yeastexp.errors import UserError
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.inspection.preflight.statistics import Figures
from yeastexp.nets.receptive_field import Axis, receptive_field
from yeastexp.system.formatting import format_count
from yeastexp.training import build

CELLS_ACROSS = 2.0
"""Diameters of a cell that a window should be wide."""

SMALL_CELLS_PX = 6.0
"""Diameter below which an outline that is off by a pixel costs half of the IoU."""


def findings(loaded: Experiment, every: Sequence[Figures], model: nn.Module) -> Iterator[Finding]:
    """What clashes; sizes are those that the model sees."""
    trained = [one for one in every if one.split == "train" and one.seen]
    if not trained:
        return
    side = build.patch_side(loaded.patches, min(min(one.seen.size) for one in trained if one.seen))
    if small := [one.name for one in trained if one.seen and min(one.seen.size) < side]:
        yield Finding(
            "warning",
            "windows larger than images",
            f"windows of {side} px on {format_count(len(small), 'training image')} that are smaller",
            "What is beyond an image is its mirror image without labels, which is computed and not learnt from",
            f"set [patches] size to {min(min(one.seen.size) for one in trained if one.seen)} or less",
            tuple(small),
        )
    diameters = [one for image in trained for one in image.diameters]
    yield from _cells(side, diameters)
    try:
        field = receptive_field(model, loaded.task.channels)
    except UserError:
        return  # a model that cannot be followed is told so by 'inspect'
    yield from _field(side, diameters, field.axes)


def _cells(side: int, diameters: Sequence[float]) -> Iterator[Finding]:
    if not diameters:
        return
    median = float(np.median(diameters))
    said = f"{median:.0f} px across (median of {len(diameters):,})"
    if side < CELLS_ACROSS * median:
        yield Finding(
            "warning",
            "windows smaller than a few cells",
            f"windows of {side} px, cells {said}",
            "Most windows cut through every cell they hold, so that its shape and surroundings are not seen whole",
            f"set [patches] size to {8 * round(3 * median / 8)} or more, or make images smaller with 'downscale'",
        )
    if median < SMALL_CELLS_PX:
        yield Finding(
            "note",
            "tiny cells",
            f"cells {said}",
            "An outline that is off by one pixel costs such a cell half of its IoU",
            "expect low scores, or record at a higher magnification; specks in masks also count as cells",
        )


def _field(side: int, diameters: Sequence[float], axes: tuple[Axis, Axis]) -> Iterator[Finding]:
    if any(axis.global_layer for axis in axes):
        return
    extent = f"{axes[0].size} × {axes[1].size} px"
    if diameters and (median := float(np.median(diameters))) > min(axis.size for axis in axes):
        yield Finding(
            "warning",
            "cells larger than the receptive field",
            f"cells {median:.0f} px across (median of {len(diameters):,}), receptive field {extent}",
            "No output sees a whole cell",
            "take more [model] levels, larger kernels or smaller images ('downscale')",
        )
    if side < max(axis.size for axis in axes):
        yield Finding(
            "note",
            "windows smaller than the receptive field",
            f"windows of {side} px, receptive field {extent}",
            "In training no output sees all that it sees in a whole image",
            "harmless as a rule, as the rim of the field counts little; else set a larger [patches] size",
        )
