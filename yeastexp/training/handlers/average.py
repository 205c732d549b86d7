"""Averages of the weights: over updates, `[train] ema_decay`, and with the initial ones, `[train] init_share`."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.training.finite import masks_of
from yeastexp.training.optimization import OptimizationStep
from yeastexp.training.step import TrainingEvents


class Average:
    """An exponential moving average of a model's weights, as a model.

    In update n the average is multiplied by min(decay, (1 + n) / (10 + n)), so that the initial weights soon vanish.
    Running statistics of norm layers are averaged like the weights that they belong to; integer buffers are copied, and
    so are masks of -inf, as of attention, which have no mean.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self.averaged = _with_means(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights of a model to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        # One call for all tensors: a call for each would take longer than the arithmetic.
        mean, present = _named(self.model), _named(model)
        torch._foreach_lerp_(
            [mean[name] for name in self.averaged], [present[name] for name in self.averaged], 1 - decay
        )
        for name in mean.keys() - self.averaged:
            mean[name].copy_(present[name])


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _with_means(model: nn.Module) -> set[str]:
    """The names of parameters and buffers that can be averaged."""
    named = _named(model)
    return {name for name, tensor in named.items() if tensor.is_floating_point()} - masks_of(named)


class AverageWeights:
    """Keeps the `Average` of an optimization's model, which is then validated, saved and predicted with.

    Ignite's `EMAHandler` has a decay that does not depend on the number of updates unless it warms up linearly, and
    takes counts and statistics of norm layers either both or not at all.
    """

    def __init__(self, optimization: OptimizationStep, decay: float) -> None:
        self.model = optimization.model
        self.average = Average(self.model, decay)
        optimization.averaged = self.average.model

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Update the average after each optimizer step."""
        trainer.add_event_handler(TrainingEvents.UPDATE_COMPLETED, lambda: self.average.update(self.model))

    def state_dict(self) -> dict[str, Any]:
        """The weights in training and the number of updates; the average is what the optimization saves.

        If `KeepInitialShare` makes other weights of it, that handler keeps the average.
        """
        return {"model": self.model.state_dict(), "updates": self.average.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`; the averaged weights are restored by the optimization."""
        self.model.load_state_dict(state["model"])
        self.average.updates = state["updates"]


class KeepInitialShare:
    """Keeps the mean (1 - share) · w + share · w₀ of trained and initial weights, which is then measured.

    Fine-tuning on a few images fits them, and forgets what else the initial weights knew; their mean keeps much of both
    (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022). Training itself goes on without it. Running
    statistics of norm layers are averaged like weights. Tensors that are not `fitted`, which began at random, integer
    buffers and masks of -inf are those in training. With a moving average, w is that average.
    """

    def __init__(self, optimization: OptimizationStep, share: float, fitted: Collection[str]) -> None:
        self.source = optimization.measured
        self.share = share
        self.mean = copy.deepcopy(self.source).eval().requires_grad_(False)
        # Kept, as walks through the layers would cost more than the arithmetic; states are loaded in place.
        self.tensors, self.trained = _named(self.mean), list(_named(self.source).values())
        averaged = _with_means(self.mean)
        self.initial = {
            name: tensor.clone() for name, tensor in self.tensors.items() if name in fitted and name in averaged
        }
        optimization.averaged = self.mean

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Take the mean after each optimizer step."""
        trainer.add_event_handler(TrainingEvents.UPDATE_COMPLETED, self.update)

    @torch.no_grad()
    def update(self) -> None:
        """Take the mean of the present weights with the initial ones."""
        torch._foreach_copy_(list(self.tensors.values()), self.trained)
        if self.initial:
            shared = [self.tensors[name] for name in self.initial]
            torch._foreach_lerp_(shared, list(self.initial.values()), self.share)

    def state_dict(self) -> dict[str, Any]:
        """The initial weights, and those that they are averaged with; the mean is the checkpoint's `model`."""
        return {"model": self.source.state_dict(), "initial": self.initial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`; the mean is restored by the optimization."""
        self.source.load_state_dict(state["model"])
        self.initial = {name: tensor.to(self.tensors[name].device) for name, tensor in state["initial"].items()}
