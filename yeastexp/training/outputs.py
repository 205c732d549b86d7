"""The check of a model's outputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from yeastexp.errors import UserError
from yeastexp.registry import described

NAMED = "[model] name"


def checked_outputs(outputs: Any, images: Tensor, channels: int, named: str = NAMED) -> Tensor:
    """Return a model's outputs. Raises UserError, which begins with `named`, if they are not (B, O, H, W) floats."""
    wanted = (images.shape[0], channels, *images.shape[-2:])
    if isinstance(outputs, Tensor) and outputs.shape == wanted and outputs.is_floating_point():
        return outputs
    gives = tuple(outputs.shape) if isinstance(outputs, Tensor) else described(outputs)
    if gives == wanted:
        raise UserError(f"{named}: gives {described(outputs)}; let it return logits as floating-point numbers")
    remedy = "choose a model that segments" if isinstance(outputs, Tensor) else "let it return one tensor"
    raise UserError(f"{named}: gives {gives} for images {tuple(images.shape)}, not {wanted} (B, O, H, W); {remedy}")
