"""Convolutions on a GPU in full float32 precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def in_full(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which float32 convolutions are computed in float32, so that tiles equal the whole image.

    By default cuDNN rounds factors to 10 bits (TF32) on GPUs where that is faster, and it sums in an order that depends
    on the image's size, so that tiles would differ visibly. Training keeps the default.
    """
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[Any] = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    return flags
