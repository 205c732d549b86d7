"""Convolutions on a GPU as exact as their numbers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def in_full(device: torch.device) -> AbstractContextManager[Any]:
    """Where convolutions of float32 numbers are float32, and tiles equal the whole image.

    By default cuDNN rounds their factors to 10 bits (TF32) on GPUs that are faster so, and sums them in an order that
    depends on the image's size. Training is left to it.
    """
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[Any] = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    return flags
