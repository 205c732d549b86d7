"""Batches made on a GPU beside the step before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

Tensors = TypeVar("Tensors", bound="Tensor | tuple[Any, ...] | None")
"""A tensor, or tuples of such, which are lists where a worker process made them."""


def prefetch_to_device(batches: Iterator[Tensors], device: torch.device) -> Iterator[Tensors]:
    """The batches, on a device.

    On a GPU they are made on a stream of their own: what has to wait there waits for nothing but itself, while the step
    before is still computed.
    """
    if device.type != "cuda":
        yield from (moved(batch, device) for batch in batches)
        return
    training, copying = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    copying.wait_stream(training)
    while True:
        with torch.cuda.stream(copying):
            if (batch := next(batches, None)) is None:
                return
            batch = moved(batch, device)
        training.wait_stream(copying)
        for tensor in _tensors(batch):
            tensor.record_stream(training)  # their memory is free when that stream is done with it
        yield batch


def moved(batch: Tensors, device: torch.device) -> Tensors:
    """A batch on a device, to which it is copied beside what is computed there."""
    if isinstance(batch, tuple | list):
        return tuple(moved(part, device) for part in batch)  # type: ignore[return-value]  # a tuple of the same shape
    return batch if batch is None else batch.to(device, non_blocking=True)  # type: ignore[return-value]  # likewise


def _tensors(batch: Tensor | tuple[Any, ...] | None) -> Iterator[Tensor]:
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from _tensors(part)
    elif batch is not None:
        yield batch
