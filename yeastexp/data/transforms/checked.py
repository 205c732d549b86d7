"""What the hooks of a transform return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from yeastexp.errors import UserError
from yeastexp.registry import described, source_of
from yeastexp.sample import IGNORE


def checked(transform: object, result: Any, like: Tensor, hook: str) -> Tensor:
    """What a hook returned. Raises UserError with its place if it is no tensor of the given shape and type."""
    if isinstance(result, Tensor) and result.shape == like.shape and result.dtype == like.dtype:
        return result
    kind = f"{_kind(result)} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
    raise UserError(
        f"{source_of(type(transform))}: '{hook}' of {type(transform).__name__} gives {kind} for {_kind(like)} "
        f"{tuple(like.shape)}; return one of the same shape and type ('geometry' moves pixels)"
    )


def check_classes(transforms: Sequence[Any], labels: Tensor, classes: int) -> None:
    """Raises UserError, with the places of the transforms that change labels, if these are no classes."""
    if not (changing := [transform for transform in transforms if transform.has("labels") or transform.has("scenes")]):
        return
    low, high = (int(extreme) for extreme in labels.aminmax())
    if low < IGNORE or high >= classes:
        names = " or ".join(
            f"'{'labels' if each.has('labels') else 'scenes'}' of {type(each).__name__}" for each in changing
        )
        places = ", ".join(source_of(type(transform)) for transform in changing)
        raise UserError(
            f"{places}: {names} gives the label {high if high >= classes else low} where [task] classes has 0 to "
            f"{classes - 1}; return class indices, {IGNORE} where a pixel is unlabelled"
        )


def placed(transform: Any, size: tuple[int, int], params: Any) -> tuple[np.ndarray | Tensor, tuple[int, int]]:
    """The `geometry` of a transform. Raises UserError with its place if it is none."""
    result: Any = transform.geometry(size, params)
    if isinstance(result, tuple) and len(result) == 2:
        step, out = result
        if isinstance(step, Tensor):
            sound = step.shape == (2, *size) and tuple(out) == tuple(size)
        else:
            sound = np.shape(step) == (3, 3) and bool(np.isfinite(step).all())
        if sound:
            return step, out
    raise UserError(
        f"{source_of(type(transform))}: 'geometry' of {type(transform).__name__} gives {described(result)} for size "
        f"{tuple(size)}; return a finite NumPy matrix (3, 3), or a tensor of coordinates (2, H, W), and "
        "the size (H, W) of the output, which coordinates keep"
    )


def _kind(tensor: Tensor) -> str:
    return f"a tensor of {str(tensor.dtype).removeprefix('torch.')}"
