"""Losses: logits (B, K, H, W) and labels (B, H, W) to a scalar; pixels labelled IGNORE count nothing."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.errors import UserError
from yeastexp.registry import loss
from yeastexp.sample import IGNORE

Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...] | None, Field(description="one for each class")]


@loss("cross_entropy")
class CrossEntropy(nn.Module):
    """-log p(true class), averaged over the pixels with truth, each weighted by its class's weight."""

    def __init__(self, classes: int, weights: Weights = None) -> None:
        super().__init__()
        if weights is not None and (len(weights) != classes or not any(weights)):
            raise UserError(f"needs {classes} weights, not all zero; got {list(weights)}", key="weights")
        self.weights: Tensor | None
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        # Pixel by pixel: the reduced form has no deterministic kernel on CUDA.
        terms = functional.cross_entropy(logits, labels, self.weights, ignore_index=IGNORE, reduction="none")
        known = labels != IGNORE
        counted = known.sum() if self.weights is None else (self.weights[labels.clamp_min(0)] * known).sum()
        return terms.sum() / counted.clamp_min(torch.finfo(logits.dtype).tiny)


__all__ = ["CrossEntropy", "loss"]
