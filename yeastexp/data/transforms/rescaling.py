"""Values of images brought to a standard range, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rescaled(values: Tensor, offsets: Sequence[float], widths: Sequence[float]) -> Tensor:
    """(values - offset) / width in float64, with one of each a channel (or for all); constant values become zero."""
    # Tensors on their device: a GPU would multiply by the reciprocal of a plain number, which rounds differently.
    offset, width = (
        values.new_tensor(numbers, dtype=torch.float64).view(-1, 1, 1)
        for numbers in (offsets, [max(width, 1e-12) for width in widths])
    )
    return (values.double() - offset) / width


def constant(spreads: Sequence[float]) -> str:
    """The fault of training images whose channels have these spreads, of which one is nothing."""
    number = [bool(spread) for spread in spreads].index(False) + 1
    which = f"channel {number} of all training images is" if len(spreads) > 1 else "all training images are"
    return f"{which} one constant value; there is"
