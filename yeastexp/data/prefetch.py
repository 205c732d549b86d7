"""Batches made on a GPU while the step before is still computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

Tensors = TypeVar("Tensors", bound="Tensor | tuple[Any, ...] | None")
"""A tensor, None, or nested tuples of them, which PyTorch turns into lists if they come from a worker process."""


def prefetch_to_device(batches: Iterator[Tensors], device: torch.device) -> Iterator[Tensors]:
    """Yield the batches, moved to a device.

    On a GPU they are made on a stream of their own, beside the step on the current stream, whose work is queued when
    the next batch is asked for. If the making of a batch has to wait for the GPU, it waits for that stream alone.
    """
    if device.type != "cuda":
        yield from (moved(batch, device) for batch in batches)
        return
    training, copying = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    # Images that are kept on the GPU may still be on their way there.
    copying.wait_stream(training)
    while True:
        with torch.cuda.stream(copying):
            if (batch := next(batches, None)) is None:
                return
            batch = moved(batch, device)
        training.wait_stream(copying)
        for tensor in _tensors(batch):
            # The allocator knows only the stream that a tensor was made on. Without this it would give the memory to
            # the next batch as soon as Python drops this one, while queued kernels of the step still read it.
            tensor.record_stream(training)
        yield batch


def moved(batch: Tensors, device: torch.device) -> Tensors:
    """A batch on a device; a copy from pinned memory runs beside other work, and the host does not wait for it."""
    if isinstance(batch, tuple | list):
        return tuple(moved(part, device) for part in batch)  # type: ignore[return-value]  # a tuple of the same shape
    return batch if batch is None else batch.to(device, non_blocking=True)  # type: ignore[return-value]  # likewise


def _tensors(batch: Tensor | tuple[Any, ...] | None) -> Iterator[Tensor]:
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from _tensors(part)
    elif batch is not None:
        yield batch
