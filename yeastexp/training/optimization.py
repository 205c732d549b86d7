"""How gradients become weights: groups of batches, and mixed precision."""

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
"""Gradients that overflow float16 even when scaled so far down are not finite in themselves."""


@dataclass(frozen=True)
class Options:
    """How a step is computed: in which precision, and whether the model is compiled."""

    precision: Precision = "float32"
    compile: bool = False

    def check(self, device: torch.device) -> Options:
        """The options; UserError if a device cannot follow them."""
        if self.precision == "float16" and device.type == "cpu":
            raise UserError("[train] precision: 'float16' trains on a GPU alone; use 'bfloat16' or 'float32'")
        return self

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context of a model's forward pass; losses are computed outside of it, in float32."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.precision))


@dataclass(frozen=True)
class AccumulationSchedule:
    """Which batches change the weights together: `size` in a row, fewer at the end of an epoch and of the run.

    `patches` has the number of patches in each batch of an epoch, `steps` is where the run ends; steps count from 1.
    """

    size: int
    patches: Sequence[int]
    steps: int

    def ends(self, step: int) -> bool:
        """Whether the weights change with a step; it holds of 0, behind which the first group begins."""
        place, group = self._group(step)
        return place == group[-1]

    def share(self, step: int) -> float:
        """The part of its group's patches that a step's batch has."""
        place, group = self._group(step)
        return self.patches[place] / sum(self.patches[other] for other in group)

    @property
    def updates(self) -> int:
        """How often the weights change in the whole run."""
        return self.updates_until(self.steps)

    def updates_until(self, step: int) -> int:
        """How often the weights change up to a step that ends a group."""
        epochs, rest = divmod(step, len(self.patches))
        return epochs * -(-len(self.patches) // self.size) + -(-rest // self.size)

    def _group(self, step: int) -> tuple[int, range]:
        """A step's place in its epoch, and the places of its group."""
        epoch, place = divmod(step - 1, len(self.patches))
        first = place - place % self.size
        left = self.steps - epoch * len(self.patches)
        return place, range(first, min(first + self.size, len(self.patches), left))


@dataclass
class OptimizationStep:
    """What turns losses into new weights: `begin` a group, `add` the losses of its batches, `apply` their gradients.

    Batches weigh by the pixels that their losses are means over, which is known of a whole group at its end alone:
    each is added by its share of the patches times the labelled fraction of it, and the sum is divided by their sum.

    Gradients are no state: what `state_dict` gives is complete between groups alone.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    options: Options
    device: torch.device
    averaged: nn.Module | None = None
    """The moving average of the model, if a handler keeps one."""

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type) if self.options.precision == "float16" else None
        self.scale = self.scaler.get_scale() if self.scaler else 1.0
        self.parameters = list(self.model.parameters())  # to walk through the layers takes a percent of a tiny step
        self.forward: Forward = Compiled(self.model) if self.options.compile else self.model

    @property
    def measured(self) -> nn.Module:
        """The model to validate, keep and predict with: the averaged one if there is one."""
        return self.averaged or self.model

    @property
    def gradients(self) -> list[Tensor]:
        """Those of a group so far."""
        return [gradient for weight in self.parameters if (gradient := weight.grad) is not None]

    def begin(self) -> None:
        """Drop the gradients of the group before."""
        for weight in self.parameters:
            weight.grad = None
        self.weight: Tensor | None = None

    def add(self, loss: Tensor, share: float, fraction: Tensor | None = None) -> None:
        """Add the gradients of a batch that has a share of its group's patches.

        `fraction` says how much of the batch its loss is a mean over, in any unit; None: as much as its share.
        """
        weight: Tensor | float = share if fraction is None else share * fraction
        if isinstance(weight, Tensor):
            self.weight = weight if self.weight is None else self.weight + weight
        weighted = loss if share == 1 and fraction is None else loss * weight
        (self.scaler.scale(weighted) if self.scaler else weighted).backward()

    def unscale(self) -> None:
        """Bring the gradients of a group to the scale of its losses, before anybody looks at them."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.weight is not None:  # 0 if nothing is labelled: so are the gradients
            factor = torch.where(self.weight > 0, 1 / self.weight, 0)
            torch._foreach_mul_(self.gradients, factor)

    def apply(self, step: int) -> bool:
        """Change the weights; whether they did, for where float16 overflowed, its scale is lowered instead.

        Only a scaler has to wait for the device to know. On the CPU, where looking costs nothing, NonFiniteLoss ends
        the run before a gradient that is not finite changes the weights; elsewhere the next loss, validation or
        checkpoint tells.
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
        return self.scale >= before

    def state_dict(self) -> dict[str, Any]:
        """`model` has the weights to use; those in training, if others, belong to the handler that averages them."""
        return {
            "model": self.measured.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another one of the same parts and options was."""
        self.measured.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
            self.scale = self.scaler.get_scale()
