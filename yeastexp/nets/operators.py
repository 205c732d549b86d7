"""Calls operators on the meta device, where tensors have shapes but no values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

BATCH_NORM = torch.ops.aten.native_batch_norm.default


def call_operator(overload: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Any:
    """Return what an operator returns; on the meta device, a batch norm in evaluation is not decomposed."""
    # PyTorch computes the shapes of a batch norm by a dozen operators in Python, which take most of the time of a
    # network's run without values. Before it comes here, PyTorch has compared the numbers of channels.
    if overload is BATCH_NORM and args[0].is_meta and args[3] is not None and not args[5]:
        return torch.empty_like(args[0]), torch.empty_like(args[3]), torch.empty_like(args[3])
    return overload(*args, **(kwargs or {}))
