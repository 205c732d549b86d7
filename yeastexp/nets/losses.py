"""Losses: logits (B, K, H, W) and labels (B, H, W) to a scalar; pixels labelled IGNORE do not count.

`count` is what a mean over pixels divides its sum by; the Dice losses are no such mean, and have none.
"""

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
    """-log p(true class), averaged over the labelled pixels, each weighted by its class's weight."""

    def __init__(self, classes: int, weights: Weights = None) -> None:
        super().__init__()
        if weights is not None and (len(weights) != classes or not any(weights)):
            raise UserError(f"needs {classes} weights, not all zero; got {list(weights)}", key="weights")
        self.weights: Tensor | None
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        # Pixel by pixel: the reduced form has no deterministic kernel on CUDA.
        terms = functional.cross_entropy(logits, labels, self.weights, ignore_index=IGNORE, reduction="none")
        return terms.sum() / self.count(labels).clamp_min(torch.finfo(logits.dtype).tiny)

    def count(self, labels: Tensor) -> Tensor:
        """Return the number of labelled pixels, each weighted by its class's weight."""
        labelled = labels != IGNORE
        if self.weights is None:
            return labelled.count_nonzero()
        return (self.weights[labels.clamp_min(0)] * labelled).sum()


@loss("dice")
class Dice(nn.Module):
    """The soft Dice loss of all classes but the first: 1 - (2 Σ p·g + s) / (Σ p + Σ g + s), sums over the batch.

    Milletari et al. 2016, arXiv:1606.04797, without squares; s = `smooth` pixels keep absent classes harmless. No mean
    over pixels: with `accumulation_steps` the losses of batches are averaged, which is not the loss of a larger batch.
    """

    def __init__(self, classes: int, smooth: Annotated[float, Field(ge=0)] = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        # Unlabelled pixels are zeroed in the probabilities, and equal no label in the target.
        labelled = (labels != IGNORE)[:, None]
        probabilities = (logits.softmax(dim=1) * labelled)[:, 1:]
        target = torch.stack([labels == label for label in range(1, logits.shape[1])], dim=1)
        both = (probabilities * target).sum(dim=(0, 2, 3))
        either = probabilities.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3))
        least = torch.finfo(logits.dtype).tiny
        return (1 - (2 * both + self.smooth) / (either + self.smooth).clamp_min(least)).mean()


@loss("dice_cross_entropy")
class DiceCrossEntropy(nn.Module):
    """Cross-entropy plus the soft Dice loss: smooth gradients early, overlap of rare classes late.

    No mean over pixels, like `dice`.
    """

    def __init__(self, classes: int, weights: Weights = None, smooth: Annotated[float, Field(ge=0)] = 1.0) -> None:
        super().__init__()
        self.cross_entropy = CrossEntropy(classes, weights)
        self.dice = Dice(classes, smooth)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        total: Tensor = self.cross_entropy(logits, labels) + self.dice(logits, labels)
        return total


@loss("focal")
class Focal(nn.Module):
    """-(1 - p)^γ log p of the true class, averaged over the labelled pixels: easy pixels weigh less.

    Lin et al. 2017, arXiv:1708.02002, without class weights; γ = `gamma`, and 0 gives the cross-entropy.
    """

    def __init__(self, classes: int, gamma: Annotated[float, Field(ge=0, le=10)] = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        terms = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        # 1 - p without cancellation for p near 1. It is kept above 0, where the slope of a power below 1 is infinite.
        wrong = -torch.expm1(-terms)
        weighted = wrong.clamp_min(torch.finfo(logits.dtype).tiny).pow(self.gamma) * terms
        return weighted.sum() / self.count(labels).clamp_min(1)

    def count(self, labels: Tensor) -> Tensor:
        """Return the number of labelled pixels."""
        return (labels != IGNORE).count_nonzero()


@loss("boundary_cross_entropy")
class BoundaryCrossEntropy(nn.Module):
    """Cross-entropy in which pixels within `radius_px` of another class (chessboard distance) weigh `weight` times.

    After the weight map of Ronneberger et al. 2015, arXiv:1505.04597, with a box in place of its Gaussian; narrow gaps
    between cells lie within the radius from both sides.
    """

    def __init__(
        self,
        classes: int,
        weight: Annotated[float, Field(ge=1, le=100)] = 4.0,
        radius_px: Annotated[int, Field(ge=1, le=32)] = 2,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.weight = weight
        self.radius_px = radius_px

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        terms = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        weights = self.weights(labels, logits.shape[1]).to(logits.dtype)
        return (terms * weights).sum() / weights.sum().clamp_min(torch.finfo(logits.dtype).tiny)

    def count(self, labels: Tensor) -> Tensor:
        """Return the sum of the weights of all pixels."""
        return self.weights(labels, self.classes).sum()

    def weights(self, labels: Tensor, classes: int) -> Tensor:
        """Return the weight of each pixel (B, H, W): 0 if unlabelled, else 1, or more near another class."""
        # Another class is near if the largest and the smallest label within the radius differ. Unlabelled pixels are
        # below all labels for the one and above all for the other, so that they never count as a class.
        labelled = labels != IGNORE
        side = 2 * self.radius_px + 1
        near = torch.where(labelled, labels, -1).float()[:, None]
        highest = functional.max_pool2d(near, side, 1, self.radius_px)[:, 0]
        near = torch.where(labelled, labels, classes).float()[:, None]
        lowest = -functional.max_pool2d(-near, side, 1, self.radius_px)[:, 0]
        return labelled * torch.where(highest > lowest, self.weight, 1.0)


__all__ = ["BoundaryCrossEntropy", "CrossEntropy", "Dice", "DiceCrossEntropy", "Focal", "loss"]
