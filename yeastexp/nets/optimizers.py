"""Optimizers over a model's parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from yeastexp.registry import optimizer

LearningRate = Annotated[float, Field(gt=0, le=10)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Fused = Annotated[bool, Field(description="all parameters in one kernel, in a third of the time on a CPU")]


@optimizer("adamw")
def adamw(
    parameters: Iterable[nn.Parameter],
    learning_rate: LearningRate = 1e-3,
    weight_decay: Decay = 1e-4,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    fused: Fused = True,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); biases and norm weights are not decayed."""
    return torch.optim.AdamW(decayed_apart(parameters, weight_decay), lr=learning_rate, betas=betas, fused=fused)


@optimizer("sgd")
def sgd(
    parameters: Iterable[nn.Parameter],
    learning_rate: LearningRate = 1e-2,
    momentum: Decay = 0.9,
    nesterov: bool = True,
    weight_decay: Decay = 1e-4,
    fused: Fused = True,
) -> torch.optim.SGD:
    """Stochastic gradient descent with momentum (Nesterov's by default); biases and norm weights are not decayed."""
    groups = decayed_apart(parameters, weight_decay)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov and momentum > 0, fused=fused)


def decayed_apart(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Return two parameter groups: weights, with decay, and vectors (biases, norm weights), without."""
    listed = list(parameters)
    groups = (
        {"params": [p for p in listed if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in listed if p.ndim <= 1], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


__all__ = ["adamw", "optimizer", "sgd"]
