"""Detection of NaN and infinite values, so that the message names where they appear and no checkpoint holds them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.sample import Sample

KEPT = "The last good checkpoint is kept"


class NonFiniteLoss(UserError):
    """The loss, its gradients, the weights or the images are NaN or infinite."""


def check_finite(losses: Tensor, last_step: int, images: Tensor | None = None) -> list[float]:
    """Return the losses (n) of the n steps up to `last_step` as floats. Raises NonFiniteLoss for the first bad one.

    If the `images` of that step are given and hold such values themselves, the message blames them.
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
    """Raises NonFiniteLoss if a gradient is NaN or infinite, and the weights would become so with it."""
    floating = [gradient for gradient in gradients if gradient.is_floating_point()]
    device = floating[0].device if floating else None
    found, scale = torch.zeros((), device=device), torch.ones((), device=device)
    # The kernel of GradScaler, with a scale of 1 that changes nothing: one call for all gradients, which takes a fifth
    # of the time of summing each.
    torch._amp_foreach_non_finite_check_and_unscale_(floating, found, scale)
    if found:
        raise NonFiniteLoss(
            f"step {step}: the loss is finite and its gradient is not; look for a root, a logarithm or a division at 0 "
            f"in [loss] and [model], or lower [optimizer] learning_rate. {KEPT}",
            status=RUN_FAILED,
        )


def check_weights(weights: Mapping[str, Tensor], step: int, masks: Collection[str] = ()) -> None:
    """Raises NonFiniteLoss if a tensor of a model that is none of the `masks` is NaN or infinite after a step."""
    if name := non_finite(weights, masks):
        raise NonFiniteLoss(
            f"step {step}: the weights are NaN or infinite ('{name}'); lower [optimizer] learning_rate, or set [train] "
            f"max_grad_norm. {KEPT}",
            status=RUN_FAILED,
        )


def check_outputs(outputs: Tensor, sample: Sample, named: str) -> None:
    """Raises NonFiniteLoss, which begins with `named`, if outputs on an image are NaN, which no mask would show.

    It blames the image if that holds NaN or infinite values itself.
    """
    if outputs.isnan().any():
        if not sample.image.isfinite().all():
            raise NonFiniteLoss(
                f"[dataset]: image '{sample.name}' holds NaN or infinite values; give finite ones. {KEPT}",
                status=RUN_FAILED,
            )
        raise NonFiniteLoss(
            f"{named}: gives NaN for the whole image '{sample.name}', though its weights are finite; look for what it "
            f"does only in evaluation, and for a root, a logarithm or a division at 0. {KEPT}",
            status=RUN_FAILED,
        )


def non_finite(weights: Mapping[str, Tensor], masks: Collection[str] = ()) -> str | None:
    """Return the name of the first tensor with NaN or infinite values, or None; `masks` may have some by design."""
    return next((name for name, tensor in weights.items() if name not in masks and not _is_finite(tensor)), None)


def masks_of(weights: Mapping[str, Tensor]) -> set[str]:
    """Return the names of a new model's tensors with NaN or infinite values, such as an attention mask of -inf."""
    return {name for name, tensor in weights.items() if not _is_finite(tensor)}


@torch.no_grad()
def _is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite."""
    # A sum takes a thirtieth of the time of `isfinite` (measured). It can overflow although every value is finite, so
    # only a finite sum decides.
    return not tensor.is_floating_point() or bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
