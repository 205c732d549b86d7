"""Batches made on a GPU beside the step before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def prefetch_to_device(
    batches: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, on a device.

    On a GPU they are made on a stream of their own: what has to wait there waits for nothing but itself, while the step
    before is still computed.
    """
    if device.type != "cuda":
        yield from ((images.to(device), labels.to(device)) for images, labels in batches)
        return
    training, copying = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    copying.wait_stream(training)
    while True:
        with torch.cuda.stream(copying):
            if (batch := next(batches, None)) is None:
                return
            images, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
        training.wait_stream(copying)
        for tensor in (images, labels):
            tensor.record_stream(training)  # their memory is free when that stream is done with it
        yield images, labels
