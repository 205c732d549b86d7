"""The optimizer step: accumulation groups, weighing of batches, and mixed precision."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.training.compilation import Compiled, Forward
from yeastexp.training.finite import check_gradients

Precision = Literal["float32", "bfloat16", "float16"]

SMALLEST_SCALE = 2.0**-10
"""Gradients that overflow float16 even at this loss scale are not finite in any precision."""


@dataclass(frozen=True)
class Options:
    """The precision of a step, and whether the model is compiled."""

    precision: Precision = "float32"
    compile: bool = False

    def check(self, device: torch.device) -> Options:
        """Return the options. Raises UserError if the device does not support them."""
        if self.precision == "float16" and device.type == "cpu":
            raise UserError("[train] precision: 'float16' trains on a GPU alone; use 'bfloat16' or 'float32'")
        return self

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context of a model's forward pass; losses are computed outside of it, in float32."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.precision))


@dataclass(frozen=True)
class AccumulationSchedule:
    """The accumulation groups: `size` batches in a row per update, fewer at the end of an epoch and of the run.

    `patches` has the number of patches in each batch of an epoch, `steps` is the length of the run; steps count from 1.
    """

    size: int
    patches: Sequence[int]
    steps: int

    def ends(self, step: int) -> bool:
        """Whether a step is the last of its group, so that the weights change; True for 0, before the first group."""
        place, group = self._group(step)
        return place == group[-1]

    def share(self, step: int) -> float:
        """Return the fraction of its group's patches that are in the batch of a step."""
        place, group = self._group(step)
        return self.patches[place] / sum(self.patches[other] for other in group)

    @property
    def updates(self) -> int:
        """The number of updates in the whole run."""
        return self.updates_until(self.steps)

    def updates_until(self, step: int) -> int:
        """Return the number of updates up to and including a step that ends a group."""
        epochs, rest = divmod(step, len(self.patches))
        return epochs * -(-len(self.patches) // self.size) + -(-rest // self.size)

    def _group(self, step: int) -> tuple[int, range]:
        """Return the index of a step in its epoch, from 0, and the indices of its group."""
        epoch, place = divmod(step - 1, len(self.patches))
        first = place - place % self.size
        left = self.steps - epoch * len(self.patches)
        return place, range(first, min(first + self.size, len(self.patches), left))


@dataclass
class OptimizationStep:
    """From losses to an update: `begin` an accumulation group, `add` each batch, `unscale` and `apply` the gradients.

    A group of batches is to train as one large batch would, so each weighs by the pixels that its loss is a mean over.
    Their total is known after the last batch only: gradients are added times each batch's share of the patches times
    its labelled fraction, and divided by the sum of these weights at the end. `state_dict` holds no gradients, so it is
    complete between groups only.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    options: Options
    device: torch.device
    averaged: nn.Module | None = None
    """The average of the model over updates, or with its initial weights, if a handler keeps one."""

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type) if self.options.precision == "float16" else None
        self.scale = self.scaler.get_scale() if self.scaler else 1.0
        self.parameters = list(self.model.parameters())  # to walk through the layers takes a percent of a tiny step
        self.forward: Forward = Compiled(self.model) if self.options.compile else self.model

    @property
    def measured(self) -> nn.Module:
        """The model to validate, save and predict with: the averaged one if there is one."""
        return self.averaged or self.model

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of the group so far."""
        return [gradient for weight in self.parameters if (gradient := weight.grad) is not None]

    def begin(self) -> None:
        """Drop the gradients of the previous group."""
        for weight in self.parameters:
            weight.grad = None
        self.weight: Tensor | None = None

    def add(self, loss: Tensor, share: float, fraction: Tensor | None = None) -> None:
        """Add the gradients of a batch that has this share of its group's patches.

        `fraction` () is what the loss divides its sum by, per pixel of the batch; None if the loss is no such mean.
        """
        weight: Tensor | float = share if fraction is None else share * fraction
        if isinstance(weight, Tensor):
            self.weight = weight if self.weight is None else self.weight + weight
        weighted = loss if share == 1 and fraction is None else loss * weight
        (self.scaler.scale(weighted) if self.scaler else weighted).backward()

    def unscale(self) -> None:
        """Divide the gradients of a group by float16's loss scale and by the group's weight, before any clipping."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.weight is not None:  # 0 if no pixel of the group is labelled; its gradients are 0 then, and stay so
            factor = torch.where(self.weight > 0, 1 / self.weight, 0)
            torch._foreach_mul_(self.gradients, factor)

    def apply(self, step: int) -> bool:
        """Change the weights, and return whether they were: after an overflow in float16 the scale is lowered instead.

        On the CPU a gradient that is not finite raises NonFiniteLoss before it changes the weights. On a GPU, where
        looking waits for the device (as float16 has to), the next reading of losses, validation or checkpoint finds it.
        """
        if self.scaler is None:
            if self.device.type == "cpu":
                check_gradients(self.gradients, step)
            self.optimizer.step()
            return True
        self.scaler.step(self.optimizer)
        self.scaler.update()
        before, self.scale = self.scale, self.scaler.get_scale()
        if self.scale < SMALLEST_SCALE:
            raise UserError(
                f"step {step}: the gradients are not finite in float16, however scaled; set [train] precision to "
                "'bfloat16' or 'float32'. The last good checkpoint is kept",
                status=RUN_FAILED,
            )
        return self.scale >= before  # only a skipped step lowers the scale; `step` itself does not tell

    def state_dict(self) -> dict[str, Any]:
        """`model` has the `measured` weights; handlers keep those in training if they are others."""
        return {
            "model": self.measured.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of the same parts and options."""
        self.measured.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
            self.scale = self.scaler.get_scale()
