"""How gradients become weights: groups of batches, mixed precision, clipping, and an average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.training.compilation import Compiled, Forward

Precision = Literal["float32", "bfloat16", "float16"]

SMALLEST_SCALE = 2.0**-10
"""Gradients that overflow float16 even when scaled so far down are not finite in themselves."""


@dataclass(frozen=True)
class Options:
    """How the weights change, beside optimizer and scheduler; by default every batch is an update, in float32."""

    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    precision: Precision = "float32"
    compile: bool = False

    def check(self, device: torch.device) -> Options:
        """The options; UserError where they cannot be followed on a device."""
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

    `windows` has the number of windows in each batch of an epoch, `steps` is where the run ends; steps count from 1.
    """

    size: int
    windows: Sequence[int]
    steps: int

    def ends(self, step: int) -> bool:
        """Whether the weights change with a step; it holds of 0, behind which the first group begins."""
        place, group = self._group(step)
        return place == group[-1]

    def share(self, step: int) -> float:
        """The part of its group's windows that a step's batch has."""
        place, group = self._group(step)
        return self.windows[place] / sum(self.windows[other] for other in group)

    @property
    def updates(self) -> int:
        """How often the weights change in the whole run."""
        epochs, rest = divmod(self.steps, len(self.windows))
        return epochs * -(-len(self.windows) // self.size) + -(-rest // self.size)

    def _group(self, step: int) -> tuple[int, range]:
        """A step's place in its epoch, and the places of its group."""
        epoch, place = divmod(step - 1, len(self.windows))
        first = place - place % self.size
        left = self.steps - epoch * len(self.windows)
        return place, range(first, min(first + self.size, len(self.windows), left))


class Average:
    """An exponential moving average of a model's weights, itself a model.

    After update n it keeps min(decay, (1 + n) / (10 + n)) of itself, so that the initial weights are soon forgotten.
    Statistics of norm layers are averaged like the weights that they belong to; counts are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights of a model in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        smooth = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in smooth], [new for _, new in smooth], 1 - decay)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@dataclass
class OptimizationStep:
    """Everything that changes when weights do: `add` the losses of a group, then `apply` their gradients.

    Gradients are no state: what `state_dict` gives is whole between groups alone.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    options: Options
    device: torch.device
    norms: list[Tensor] = field(default_factory=list)
    """Of all gradients together, before they were clipped, since somebody last emptied the list."""

    def __post_init__(self) -> None:
        self.average = Average(self.model, self.options.ema) if self.options.ema is not None else None
        self.scaler = torch.amp.GradScaler(self.device.type) if self.options.precision == "float16" else None
        self.scale = self.scaler.get_scale() if self.scaler else 1.0
        self.forward: Forward = Compiled(self.model) if self.options.compile else self.model

    @property
    def measured(self) -> nn.Module:
        """The model to validate, keep and predict with: the averaged one where there is one."""
        return self.average.model if self.average else self.model

    def begin(self) -> None:
        """Drop the gradients of the group before."""
        self.optimizer.zero_grad(set_to_none=True)

    def add(self, loss: Tensor, share: float) -> None:
        """Add the gradients of a batch that has a share of its group's windows."""
        weighted = loss if share == 1 else loss * share
        scaled = self.scaler.scale(weighted) if self.scaler else weighted
        scaled.backward()

    def apply(self, step: int) -> None:
        """Change the weights, and what follows them; where float16 overflowed, lower its scale instead."""
        if self.options.clip_norm is not None:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            self.norms.append(nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm))
        if not self._optimize(step):
            return
        if self.scheduler is not None:
            self.scheduler.step()
        if self.average is not None:
            self.average.update(self.model)

    def _optimize(self, step: int) -> bool:
        """Whether the weights changed. Only a scaler has to wait for the device to know."""
        if self.scaler is None:
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
        """All that has to survive; `model` has the weights to use, `unaveraged` those in training, if others."""
        return {
            "model": self.measured.state_dict(),
            "unaveraged": self.model.state_dict() if self.average else None,
            "averaged": self.average.updates if self.average else 0,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "norms": [norm.clone() for norm in self.norms],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another update of the same parts and options was."""
        self.measured.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.model.load_state_dict(state["unaveraged"])
            self.average.updates = state["averaged"]
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
            self.scale = self.scaler.get_scale()
        self.norms[:] = [norm.to(self.device) for norm in state["norms"]]
