"""Those images of a batch that a transform changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yeastexp.randomness import sent


@dataclass(frozen=True)
class Rows:
    """Some images (N, C, H, W) of a batch (B, C, H, W), and numbers that came to the device with their indices."""

    batch: Tensor
    index: Tensor | None
    """Of each image in the batch; None: all of them."""
    order: Tensor | None
    """Where each image of the new batch is in the old one with the changed ones behind it."""
    numbers: list[Tensor]

    @classmethod
    def of(cls, batch: Tensor, rows: np.ndarray, *numbers: np.ndarray) -> Rows:
        """The images `rows` (N,); arrays of numbers are sent as they are, in one copy."""
        if len(rows) == len(batch):
            return cls(batch, None, None, sent(batch.device, *numbers))
        order = np.arange(len(batch))
        order[rows] = len(batch) + np.arange(len(rows))
        index, there, *sent_too = sent(batch.device, rows.astype(np.int64), order, *numbers)
        return cls(batch, index, there, sent_too)

    @property
    def images(self) -> Tensor:
        """They themselves."""
        return self.batch if self.index is None else self.batch.index_select(0, self.index)

    def replaced(self, changed: Tensor) -> Tensor:
        """The batch with others in their place."""
        if self.index is None or self.order is None:
            return changed
        if changed.device.type == "cpu":
            return self.batch.index_copy(0, self.index, changed)
        return torch.cat([self.batch, changed]).index_select(0, self.order)  # writing to an index is sorted first there


def each(numbers: Tensor) -> Tensor:
    """One number (N,) an image, to compute with images."""
    return numbers.view(-1, 1, 1, 1)


def float32(numbers: object) -> np.ndarray:
    """What Python's numbers are to images."""
    return np.asarray(numbers, np.float64).astype(np.float32)
