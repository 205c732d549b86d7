"""Learning rates over the steps of a run, as factors of the optimizer's learning rate."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from yeastexp.registry import scheduler


@scheduler("constant")
def constant(optimizer: Optimizer, steps: int) -> LambdaLR:
    """The optimizer's learning rate throughout; the only one that a longer run may continue."""
    return LambdaLR(optimizer, lambda step: 1.0)


@scheduler("one_cycle")
def one_cycle(
    optimizer: Optimizer,
    steps: int,
    warmup: Annotated[float, Field(ge=0, lt=1, description="share of the steps")] = 0.1,
    final: Annotated[float, Field(ge=0, le=1, description="factor at the end")] = 0.0,
) -> LambdaLR:
    """Linear warm-up to the optimizer's learning rate, then half a cosine down to `final` of it."""
    rising = max(1, round(warmup * steps)) if warmup else 0

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        through = (step - rising) / (steps - rising) if steps > rising else 1.0
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, through)))

    return LambdaLR(optimizer, factor)


@scheduler("cosine")
def cosine(
    optimizer: Optimizer,
    steps: int,
    final: Annotated[float, Field(ge=0, le=1, description="factor at the end")] = 0.0,
) -> LambdaLR:
    """Half a cosine from the optimizer's learning rate down to `final` of it (Loshchilov and Hutter 2017)."""
    return LambdaLR(
        optimizer, lambda step: final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    )


@scheduler("polynomial")
def polynomial(
    optimizer: Optimizer,
    steps: int,
    power: Annotated[float, Field(gt=0, le=10)] = 0.9,
) -> LambdaLR:
    """(1 - step / steps)^power of the optimizer's learning rate, as in nnU-Net and DeepLab."""
    return LambdaLR(optimizer, lambda step: (1 - min(1.0, step / steps)) ** power)


__all__ = ["constant", "cosine", "one_cycle", "polynomial", "scheduler"]
