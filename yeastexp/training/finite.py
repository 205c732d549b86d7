"""Values that are NaN or infinite: named where they first appear, and never kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from yeastexp.errors import RUN_FAILED, UserError

KEPT = "The last good checkpoint is kept"


class NonFiniteLoss(UserError):
    """A loss, its gradients or the weights are NaN or infinite, or images that make them so."""


def check_finite(losses: Tensor, last_step: int, images: Tensor | None = None) -> list[float]:
    """The losses of the steps up to `last_step` as numbers; NonFiniteLoss names the first that is not.

    With the `images` of that step it also tells whether it was their values.
    """
    values: list[float] = losses.tolist()
    for index, value in enumerate(values):
        if not math.isfinite(value):
            step = last_step - len(values) + 1 + index
            if images is not None and not images.isfinite().all():
                raise NonFiniteLoss(
                    f"step {step}: the patches hold NaN or infinite values; 'check --data' tells which transform gives "
                    f"them. {KEPT}",
                    status=RUN_FAILED,
                )
            raise NonFiniteLoss(
                f"step {step}: the loss is {value}; lower [optimizer] learning_rate, or look for bad values in the "
                f"images. {KEPT}",
                status=RUN_FAILED,
            )
    return values


def check_gradients(gradients: Iterable[Tensor], step: int) -> None:
    """NonFiniteLoss if the weights would become NaN or infinite with these gradients."""
    floating = [gradient for gradient in gradients if gradient.is_floating_point()]
    device = floating[0].device if floating else None
    found, scale = torch.zeros((), device=device), torch.ones((), device=device)
    torch._amp_foreach_non_finite_check_and_unscale_(floating, found, scale)  # a fifth of the time of a sum of each
    if found:
        raise NonFiniteLoss(
            f"step {step}: the loss is finite and its gradient is not; look for a root, a logarithm or a division at 0 "
            f"in [loss] and [model], or lower [optimizer] learning_rate. {KEPT}",
            status=RUN_FAILED,
        )


def check_weights(weights: Mapping[str, Tensor], step: int, masks: Collection[str] = ()) -> None:
    """NonFiniteLoss names a tensor of a model that is NaN or infinite after a step; `masks` are meant to be so."""
    if name := non_finite(weights, masks):
        raise NonFiniteLoss(
            f"step {step}: the weights are NaN or infinite ('{name}'); lower [optimizer] learning_rate, or set [train] "
            f"max_grad_norm. {KEPT}",
            status=RUN_FAILED,
        )


def non_finite(weights: Mapping[str, Tensor], masks: Collection[str] = ()) -> str | None:
    """The first tensor with NaN or infinite values, but for those that a new model has too, such as a mask of -inf."""
    return next((name for name, tensor in weights.items() if name not in masks and not _is_finite(tensor)), None)


def masks_of(weights: Mapping[str, Tensor]) -> set[str]:
    """The tensors of a new model that hold NaN or infinite values."""
    return {name for name, tensor in weights.items() if not _is_finite(tensor)}


@torch.no_grad()
def _is_finite(tensor: Tensor) -> bool:
    """Measured: a sum takes a thirtieth of the time of looking at each value; it may overflow where no value does."""
    return not tensor.is_floating_point() or bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
