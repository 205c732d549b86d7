"""Training on several processes with the numbers of one: batches in shards, added up in their order.

A batch is cut into `[runtime] shards` shards of consecutive patches, whatever the number of processes. Each shard goes
forward and back by itself, with batch statistics of its own. Floating-point sums depend on their order: gradients are
not reduced on the way, as by DistributedDataParallel, but gathered, and added shard after shard in every process, so
that all come to the same bits. EasyScale (Li et al., SC'23) keeps its accuracy so when workers come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yeastexp.data.patches import Batch
from yeastexp.data.prefetch import moved
from yeastexp.data.shards import Shards, cut_up
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.system.processes import Processes
from yeastexp.training.finite import check_finite
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep
from yeastexp.training.outputs import NAMED, checked_outputs
from yeastexp.training.profiling import BACKWARD, FORWARD, LOSS, part
from yeastexp.training.step import Count, Loss, engine_of, update


def make_sharded_trainer(
    optimization: OptimizationStep,
    loss: Loss,
    schedule: AccumulationSchedule,
    outputs: int,
    count: Count,
    shards: int,
    seed: int,
    among: Processes,
    named: str = NAMED,
) -> Engine:
    """An engine like that of `make_trainer`, whose step takes the shards of a process: every `among.count`-th.

    It takes whole batches as well, of which it is all the processes. Parameters that no loss depends on have gradients
    of 0.
    """
    step = _ShardedStep(optimization, loss, outputs, count, seed, among, named)

    def whole(engine: Engine, batch: Batch | Shards) -> Tensor:
        number = engine.state.iteration
        cut = cut_up(batch, shards)
        if schedule.ends(number - 1):
            step.begin()
        value = step(number, cut)
        if schedule.ends(number):
            step.hand_over()
            update(engine, optimization, number)
        return value

    return engine_of(whole)


class _ShardedStep:
    """Forward and back over a process's shards of a batch.

    What a shard leaves is one row of numbers: its gradients, the batch statistics of normalising layers, its loss, the
    weight of it, and whether it has any patches. The rows of one shard of each process are gathered while the next
    shard is computed.
    """

    def __init__(
        self,
        optimization: OptimizationStep,
        loss: Loss,
        outputs: int,
        count: Count,
        seed: int,
        among: Processes,
        named: str,
    ) -> None:
        self.optimization = optimization
        self.loss = loss
        self.outputs, self.named = outputs, named
        self.count = count
        self.seed = seed
        self.among = among
        self.parameters = [weight for weight in optimization.model.parameters() if weight.requires_grad]
        self.statistics = BatchStatistics(optimization.model)
        self.dtype = reduce(torch.promote_types, (weight.dtype for weight in self.parameters), torch.float32)
        self.parts = (sum(weight.numel() for weight in self.parameters), sum(self.statistics.sizes), 3)

    def begin(self) -> None:
        """Begin a group of batches."""
        self.gradients = torch.zeros(self.parts[0], dtype=self.dtype, device=self.optimization.device)
        self.weight = torch.zeros((), dtype=self.dtype, device=self.optimization.device)

    def __call__(self, number: int, shards: Shards) -> Tensor:
        """Add the gradients of the shards of all processes; gives the loss of the batch."""
        self.losses: list[Tensor] = []
        waiting: Callable[[], Tensor] | None = None
        for turn, shard in enumerate(shards):
            row = self._row(number, turn * self.among.count + self.among.rank, shard)
            began = self.among.gather_rows(row)
            if waiting is not None:
                self._add(waiting())
            waiting = began
        assert waiting is not None, "every process has a shard of each batch, if only an empty one"
        self._add(waiting())
        torch.manual_seed(_seed(self.seed, number, -1))  # no process has drawn more than another
        losses, weights = torch.stack(self.losses).unbind(1)
        if self.optimization.device.type == "cpu":
            check_finite(losses.sum()[None], number)
        self.weight += weights.sum()
        return ((losses * weights).sum() / weights.sum().clamp_min(torch.finfo(self.dtype).tiny)).float()

    def hand_over(self) -> None:
        """Give the sums of a group to the parameters, as backpropagation would have."""
        pieces = self.gradients.split([weight.numel() for weight in self.parameters])
        for weight, piece in zip(self.parameters, pieces, strict=True):
            weight.grad = torch.empty_like(weight).copy_(piece.view(weight.shape))
        self.optimization.weight = self.weight

    def _row(self, number: int, shard: int, batch: Batch | None) -> Tensor:
        """What a shard leaves, (n)."""
        optimization = self.optimization
        if batch is None:
            return torch.zeros(sum(self.parts), dtype=self.dtype, device=optimization.device)
        torch.manual_seed(_seed(self.seed, number, shard))
        images, targets = moved(batch, optimization.device)
        optimization.begin()
        with self.statistics.of_one_shard():
            with part(FORWARD), optimization.options.autocast(optimization.device):
                predicted = checked_outputs(optimization.forward(images), images, self.outputs, self.named)
            with part(LOSS):
                value = self.loss(predicted.float(), targets)
            with part(BACKWARD):
                counted = self.count(targets)
                pixels = images.shape[0] * images.shape[-2] * images.shape[-1]
                fraction = torch.ones_like(value.detach()) if counted is None else counted.detach() / pixels
                optimization.add(value, images.shape[0], fraction)
        share = optimization.weight
        assert share is not None, "a fraction was given"
        gradients = [
            (torch.zeros_like(weight) if weight.grad is None else weight.grad).reshape(-1).to(self.dtype)
            for weight in self.parameters
        ]
        told = torch.stack([value.detach(), share, torch.ones_like(share)]).to(self.dtype)
        return torch.cat([*gradients, *(values.to(self.dtype) for values in self.statistics.taken), told])

    def _add(self, rows: Tensor) -> None:
        """Add the rows (count, n) of one shard of each process, in the order of the shards."""
        for row in rows:
            gradients, statistics, told = row.split(self.parts)
            self.gradients += gradients
            self.statistics.update(statistics, told[2])
            self.losses.append(told[:2])


class BatchStatistics:
    """The running statistics of a model's normalising layers, updated shard after shard.

    Layers are let to take each shard's statistics as they are, and the running ones are updated by what all of them
    took, in the order of the shards, whichever process had them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [
            layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        ]
        self.sizes = [2 * layer.num_features for layer in self.layers]
        self.taken: list[Tensor] = []
        """What the layers took, (2 C) each; of one that was called twice, the second time."""
        statistics = {id(buffer) for layer in self.layers for buffer in layer.buffers()}
        self.others = {name: buffer for name, buffer in model.named_buffers() if id(buffer) not in statistics}

    @contextmanager
    def of_one_shard(self) -> Iterator[None]:
        """During a forward and its backward pass layers in training take its statistics alone."""
        kept = [[buffer.clone() for buffer in layer.buffers()] for layer in self.layers]
        momenta = [layer.momentum for layer in self.layers]
        versions = {name: buffer._version for name, buffer in self.others.items()}
        for layer in self.layers:
            layer.momentum = 1.0  # the running statistics become those of the pass
        try:
            yield
            self.taken = [torch.cat(_running(layer)) for layer in self.layers]
        finally:
            for layer, momentum, before in zip(self.layers, momenta, kept, strict=True):
                layer.momentum = momentum
                for buffer, value in zip(layer.buffers(), before, strict=True):
                    buffer.copy_(value)
        for name, buffer in self.others.items():
            if buffer._version != versions[name]:
                fault = f"the model changes its buffer '{name}' as it goes forward, which has no order among processes"
                raise UserError(f"[runtime] shards: {fault}; set shards = 1")

    @torch.no_grad()
    def update(self, row: Tensor, weight: Tensor) -> None:
        """Update the running statistics by those of a shard; by none if its `weight` is 0."""
        for layer, values in zip(self.layers, row.split(self.sizes), strict=True):
            if not layer.training:
                continue
            count = layer.num_batches_tracked
            assert count is not None, "it has running statistics"
            count += weight.to(count.dtype)
            share = weight / count.clamp_min(1) if layer.momentum is None else weight * layer.momentum
            for running, value in zip(_running(layer), values.chunk(2), strict=True):
                running.copy_(running * (1 - share) + value * share)


def _running(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None and layer.running_var is not None
    return layer.running_mean, layer.running_var


def _seed(seed: int, step: int, shard: int) -> int:
    """What a model draws from in a shard: the same on whichever process."""
    return int(generator(seed, "shard", step, shard + 1).integers(2**63))
