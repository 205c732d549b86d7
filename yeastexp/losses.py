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


@loss("dice_cross_entropy")
class DiceCrossEntropy(nn.Module):
    """Cross-entropy plus the soft Dice loss of the classes but the first: 1 - 2 Σ p·g / (Σ p + Σ g), over the batch.

    Dice: Milletari et al. 2016, arXiv:1606.04797, without squares; `smooth` pixels are added to both sums of a class.
    """

    def __init__(self, classes: int, weights: Weights = None, smooth: Annotated[float, Field(ge=0)] = 1.0) -> None:
        super().__init__()
        self.cross_entropy = CrossEntropy(classes, weights)
        self.smooth = smooth

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = (labels != IGNORE)[:, None]
        probabilities = (logits.softmax(dim=1) * known)[:, 1:]
        truth = torch.stack([labels == label for label in range(1, logits.shape[1])], dim=1)
        both = (probabilities * truth).sum(dim=(0, 2, 3))
        either = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
        dice = 1 - (2 * both + self.smooth) / (either + self.smooth).clamp_min(torch.finfo(logits.dtype).tiny)
        entropy: Tensor = self.cross_entropy(logits, labels)
        return entropy + dice.mean()


__all__ = ["CrossEntropy", "DiceCrossEntropy", "loss"]
