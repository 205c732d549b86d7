"""Training on several processes that gives the same bits as on one: each batch in shards, summed in a fixed order.

A batch is cut into `[runtime] shards` shards of consecutive patches, whatever the number of processes. Each shard goes
forward and back by itself, with batch statistics of its own. Floating-point sums depend on their order, so gradients
are not all-reduced during the backward pass, as DistributedDataParallel does: they are gathered, and every process adds
them shard by shard in the same order. EasyScale (Li et al., SC'23) uses this to keep results when workers come and go.
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
    """Return an engine like `make_trainer`'s, whose step takes this process's shards of a batch (`ShardSampler`).

    A single process may also be given whole batches, which are then cut here. Parameters that the loss does not depend
    on get gradients of 0 instead of None.
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
    """Forward and backward pass over a process's shards of a batch, and the sums over the shards of all processes.

    The result of a shard is one row of numbers: its gradients, the batch statistics of normalising layers, its loss,
    the weight of that loss, and 1 if the shard has patches, else 0. In each turn every process computes one shard; the
    rows of a turn are gathered while the next turn is computed.
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
        """Reset the sums at the beginning of an accumulation group."""
        self.gradients = torch.zeros(self.parts[0], dtype=self.dtype, device=self.optimization.device)
        self.weight = torch.zeros((), dtype=self.dtype, device=self.optimization.device)

    def __call__(self, number: int, shards: Shards) -> Tensor:
        """Add the gradients of the shards of all processes to the sums, and return the loss of the batch.

        Sharding is deterministic only if every process adds in the order of the shards. Process r computes shard
        turn * count + r in each turn, so the order is turn by turn and, within a turn, rank by rank.
        """
        self.losses: list[Tensor] = []
        # One gather is in flight while the next shard is computed, which hides the communication. Waiting for a gather
        # before the next but one is started bounds the memory to two turns of rows and keeps the order of the sums.
        waiting: Callable[[], Tensor] | None = None
        for turn, shard in enumerate(shards):
            row = self._row(number, turn * self.among.count + self.among.rank, shard)
            began = self.among.gather_rows(row)
            if waiting is not None:
                self._add(waiting())
            waiting = began
        assert waiting is not None, "every process has a shard of each batch, if only an empty one"
        self._add(waiting())
        # Dropout drew from PyTorch's generator once a shard, and processes have different shards. Its state is written
        # into checkpoints, so it has to be the same in all processes and for any number of them.
        torch.manual_seed(_seed(self.seed, number, -1))
        losses, weights = torch.stack(self.losses).unbind(1)
        if self.optimization.device.type == "cpu":
            check_finite(losses.sum()[None], number)
        self.weight += weights.sum()
        # All weights are 0 if the batch has no labelled pixel: then the loss is 0, not 0 / 0.
        return ((losses * weights).sum() / weights.sum().clamp_min(torch.finfo(self.dtype).tiny)).float()

    def hand_over(self) -> None:
        """Make the sums over an accumulation group the gradients of the parameters, and the weight that of the group.

        The gradients still have to be divided by the weight, which `OptimizationStep.unscale` does.
        """
        pieces = self.gradients.split([weight.numel() for weight in self.parameters])
        for weight, piece in zip(self.parameters, pieces, strict=True):
            # `empty_like` takes over the memory layout of the weight (channels_last), as autograd does. Optimizers
            # update tensors of different strides on a slower path.
            weight.grad = torch.empty_like(weight).copy_(piece.view(weight.shape))
        self.optimization.weight = self.weight

    def _row(self, number: int, shard: int, batch: Batch | None) -> Tensor:
        """Compute a shard and return its row (n)."""
        optimization = self.optimization
        # A process without a shard in this turn has to take part in the gather all the same, or the others would wait
        # for it forever. Adding a row of zeros changes no sum.
        if batch is None:
            return torch.zeros(sum(self.parts), dtype=self.dtype, device=optimization.device)
        torch.manual_seed(_seed(self.seed, number, shard))
        images, targets = moved(batch, optimization.device)
        optimization.begin()  # so that after the backward pass `.grad` holds the gradients of this shard alone
        with self.statistics.of_one_shard():
            with part(FORWARD), optimization.options.autocast(optimization.device):
                predicted = checked_outputs(optimization.forward(images), images, self.outputs, self.named)
            with part(LOSS):
                value = self.loss(predicted.float(), targets)
            with part(BACKWARD):
                # Shards weigh by their patches times the fraction of pixels that the loss is a mean over. These need
                # not add up to 1: `hand_over` passes on their sum, by which the gradients are divided.
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
        """Add the rows (count, n) of a turn to the sums, in the order of the ranks and thus of the shards."""
        for row in rows:
            gradients, statistics, told = row.split(self.parts)
            self.gradients += gradients
            self.statistics.update(statistics, told[2])
            self.losses.append(told[:2])


class BatchStatistics:
    """The running statistics of a model's normalising layers, updated by every shard in turn.

    A layer would update its running statistics in its forward pass, and so only by the shards of its own process.
    Instead each shard's own statistics are read off the layers and gathered with the gradients, and every process
    updates its layers by those of all shards, in the order of the shards.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [
            layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        ]
        self.sizes = [2 * layer.num_features for layer in self.layers]
        self.taken: list[Tensor] = []
        """Mean and variance (2 C) of the last shard in each layer; the last call counts if a layer is called twice."""
        statistics = {id(buffer) for layer in self.layers for buffer in layer.buffers()}
        self.others = {name: buffer for name, buffer in model.named_buffers() if id(buffer) not in statistics}

    @contextmanager
    def of_one_shard(self) -> Iterator[None]:
        """Record the statistics of one shard in `taken`, during its forward and backward pass, and change no layer.

        Raises UserError if the model changes any other buffer, which could not be kept equal among processes.
        """
        kept = [[buffer.clone() for buffer in layer.buffers()] for layer in self.layers]
        momenta = [layer.momentum for layer in self.layers]
        versions = {name: buffer._version for name, buffer in self.others.items()}
        # With a momentum of 1 a layer replaces its running statistics by those of the pass, so that they can be read
        # off. The backward pass is included since gradient checkpointing repeats the forward pass within it.
        for layer in self.layers:
            layer.momentum = 1.0
        try:
            yield
            self.taken = [torch.cat(_running(layer)) for layer in self.layers]
        finally:
            for layer, momentum, before in zip(self.layers, momenta, kept, strict=True):
                layer.momentum = momentum
                for buffer, value in zip(layer.buffers(), before, strict=True):
                    buffer.copy_(value)
        # PyTorch counts the in-place changes of a tensor, so this costs no comparison of values.
        for name, buffer in self.others.items():
            if buffer._version != versions[name]:
                fault = f"the model changes its buffer '{name}' as it goes forward, which has no order among processes"
                raise UserError(f"[runtime] shards: {fault}; set shards = 1")

    @torch.no_grad()
    def update(self, row: Tensor, weight: Tensor) -> None:
        """Update the running statistics by a row of `taken` if `weight` is 1, and leave them as they are if it is 0.

        The weight is multiplied in rather than tested: it lies on the device, and `if` would wait for the GPU.
        """
        for layer, values in zip(self.layers, row.split(self.sizes), strict=True):
            if not layer.training:
                continue
            count = layer.num_batches_tracked
            assert count is not None, "it has running statistics"
            count += weight.to(count.dtype)
            # As in PyTorch, a momentum of None means the plain average over all batches so far.
            share = weight / count.clamp_min(1) if layer.momentum is None else weight * layer.momentum
            for running, value in zip(_running(layer), values.chunk(2), strict=True):
                running.copy_(running * (1 - share) + value * share)


def _running(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None and layer.running_var is not None
    return layer.running_mean, layer.running_var


def _seed(seed: int, step: int, shard: int) -> int:
    """Return the seed of a shard's dropout and the like, whichever process computes it; shard -1 ends the step."""
    return int(generator(seed, "shard", step, shard + 1).integers(2**63))
