"""Receptive fields measured on pixels, for models with an operator whose dependence no rule tells."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

MAX_ROWS, MIN_ROWS = 32, 4
"""The most and the fewest rows (or columns) in the middle of an image that are changed in turn, to meet each phase."""

REDRAWN = 2
"""How often the parameters are drawn anew, because a trained or an initial weight may be zero."""

MAX_PIXELS = 1 << 19
"""The most pixels of the images that are tried."""

MAX_VALUES = 1 << 26
"""The most values of a tensor in a larger image, 512 MB; a tensor of all pairs of pixels grows 16 times."""

Reach = tuple[int, int] | None
"""The most pixels before and after its own that an output was seen to depend on; None if the whole image."""


def measured_reach(model: nn.Module, channels: int, size: tuple[int, int], stride: int) -> list[Reach]:
    """Return how far NaN and large changes in single rows and columns reach in the output, along height and width.

    `stride` is the number of neighbouring rows after which the model may repeat itself, if known. Raises what the
    model raises if it cannot be run.
    """
    # A change may fail to show (NaN behind a comparison, a perturbation behind a maximum), so the result is a lower
    # bound, and no tiles rely on it. Hence two kinds of changes, and more than one set of weights.
    lines = min(max(stride, MIN_ROWS), MAX_ROWS, min(size))
    generator = torch.Generator().manual_seed(0)
    reach: list[Reach] = [(0, 0), (0, 0)]
    dtype = torch.float64
    with _Largest() as largest:
        try:
            _run(_with_precision(model, dtype), torch.zeros(1, channels, *size, dtype=dtype))
        # Whatever forward raises: a model may join the image with constants that are float32.
        except Exception:
            dtype = torch.float32
    for _ in range(REDRAWN):
        redrawn = _redrawn(_with_precision(model, dtype), generator)
        image = torch.randn(1, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
        for axis in range(2):
            reach[axis] = _union(reach[axis], _axis_reach(redrawn, image, axis, lines, generator))
    # A field as large as this image may be smaller than a larger one, where a tensor of all pairs of pixels would take
    # 16 times the memory.
    larger = (2 * size[0], 2 * size[1])
    if None in reach and prod(larger) <= MAX_PIXELS and 16 * largest.values <= MAX_VALUES:
        try:
            return measured_reach(model, channels, larger, stride)
        # Whatever forward raises: the model does not take an image of that size.
        except Exception:
            return reach
    return reach


class _Largest(TorchDispatchMode):
    """Keeps the number of values of the largest tensor that an operator returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = overload(*args, **(kwargs or {}))
        listed = output if isinstance(output, list | tuple) else (output,)
        self.values = max(self.values, *(value.numel() for value in listed if isinstance(value, Tensor)), 0)
        return output


def _with_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a model on the CPU, in evaluation mode, with parameters of a floating-point type."""
    copied = copy.deepcopy(model).cpu().eval()
    return copied.double() if dtype == torch.float64 else copied.float()


def _redrawn(redrawn: nn.Module, generator: torch.Generator) -> nn.Module:
    """Replace all parameters of a model by random ones, and return it."""
    # Weights are scaled by their inputs, so that no layer drowns a change in rounding; vectors are positive, so that
    # no norm's weight is near zero and biases do not switch ReLUs off.
    for parameter in redrawn.parameters():
        if parameter.is_floating_point():
            values = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.data = values / prod(parameter.shape[1:]) ** 0.5 if parameter.ndim > 1 else values.abs() + 0.5
    return redrawn


def _axis_reach(model: nn.Module, image: Tensor, axis: int, lines: int, generator: torch.Generator) -> Reach:
    """Return how far the output changes along one axis when a row or column in the middle of the image does."""
    pixels = image.shape[2 + axis]
    usual = _run(model, image)
    first = pixels // 2 - lines // 2
    reach: Reach = (0, 0)
    # The first and the last line as well: every output may depend on a corner of the image alone.
    for line in (0, *range(first, first + lines), pixels - 1):
        for changed in _changed(image, 2 + axis, line, generator):
            output = _run(model, changed)
            differs = (output != usual) & ~(output.isnan() & usual.isnan())
            places = differs.movedim(2 + axis, 0).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
            if not places:
                continue
            at_ends = places[0] == 0, places[-1] == output.shape[2 + axis] - 1
            if all(at_ends) or (any(at_ends) and 0 < line < pixels - 1):
                return None
            own = [int(place * Fraction(pixels, output.shape[2 + axis])) for place in (places[0], places[-1])]
            reach = _union(reach, (own[1] - line, line - own[0]))
    return reach


def _changed(image: Tensor, dim: int, line: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the image with NaN in a row or column, and with other, large values there."""
    noise = 10 * torch.randn(image.select(dim, line).shape, generator=generator, dtype=image.dtype)
    for values in (torch.full_like(noise, torch.nan), noise):
        changed = image.clone()
        changed.select(dim, line).copy_(values)
        yield changed


def _run(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(image)
    return output


def _union(first: Reach, second: Reach) -> Reach:
    return first and second and (max(first[0], second[0]), max(first[1], second[1]))
