"""What the hooks of a transform return."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from yeastexp.errors import UserError
from yeastexp.registry import source_of


def checked(transform: object, result: Any, like: Tensor, hook: str) -> Tensor:
    """What a hook returned. Raises UserError with its place if it is no tensor of the given shape and type."""
    if isinstance(result, Tensor) and result.shape == like.shape and result.dtype == like.dtype:
        return result
    kind = f"{_kind(result)} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
    raise UserError(
        f"{source_of(type(transform))}: '{hook}' of {type(transform).__name__} gives {kind} for {_kind(like)} "
        f"{tuple(like.shape)}; return one of the same shape and type ('geometry' moves pixels)"
    )


def _kind(tensor: Tensor) -> str:
    return f"a tensor of {str(tensor.dtype).removeprefix('torch.')}"
