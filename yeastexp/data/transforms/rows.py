"""The images of a batch that an augmentation changes, where others are drawn to stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yeastexp.randomness import sent


@dataclass(frozen=True)
class Rows:
    """Some images (N, C, H, W) of a batch (B, C, H, W), and numbers that were sent to its device with their indices.

    The indices are known on the host. A boolean mask on the device would make the host wait for the GPU, to learn how
    many images it selects.
    """

    batch: Tensor
    index: Tensor | None
    """The indices (N,) of the images in the batch; None if they are all of it."""
    order: Tensor | None
    """The index (B,) of each image of the new batch in the old batch with the changed images appended."""
    numbers: list[Tensor]
    """The arrays given to `of`, on the device."""

    @classmethod
    def of(cls, batch: Tensor, rows: np.ndarray, *numbers: np.ndarray) -> Rows:
        """The images with the indices `rows` (N,); `numbers` are sent with the indices in one copy."""
        if len(rows) == len(batch):
            return cls(batch, None, None, sent(batch.device, *numbers))
        order = np.arange(len(batch))
        order[rows] = len(batch) + np.arange(len(rows))
        index, there, *sent_too = sent(batch.device, rows.astype(np.int64), order, *numbers)
        return cls(batch, index, there, sent_too)

    @property
    def images(self) -> Tensor:
        """The images (N, C, H, W); without a copy if they are the whole batch."""
        return self.batch if self.index is None else self.batch.index_select(0, self.index)

    def replaced(self, changed: Tensor) -> Tensor:
        """The batch (B, C, H, W) with `changed` (N, C, H, W) in place of the images; the old batch stays as it is."""
        if self.index is None or self.order is None:
            return changed
        if changed.device.type == "cpu":
            return self.batch.index_copy(0, self.index, changed)
        # A GPU sorts indices before it writes to them, which takes many small kernels; to read by an index takes one.
        return torch.cat([self.batch, changed]).index_select(0, self.order)


def each(numbers: Tensor) -> Tensor:
    """Numbers (N,), one for each image, in a shape that broadcasts with images (N, C, H, W)."""
    return numbers.view(-1, 1, 1, 1)


def float32(numbers: object) -> np.ndarray:
    """Numbers rounded to float32 as PyTorch rounds Python numbers that it computes with float32 images."""
    return np.asarray(numbers, np.float64).astype(np.float32)
