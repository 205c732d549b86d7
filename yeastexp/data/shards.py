"""Batches cut into shards that are distributed over processes."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from typing import Any

from torch import Tensor

from yeastexp.data.patches import Batch, PatchSampler
from yeastexp.data.workers import made
from yeastexp.system.processes import ALONE, Processes

Shards = tuple[Batch | None, ...]
"""The shards of a batch that one process computes, in order; None for a shard that a short batch has no patch for."""


class ShardSampler:
    """The batches of a sampler, each cut into `shards` runs of consecutive patches.

    Process r of n takes the shards r, r + n, r + 2n and so on. So the i-th shards of all processes follow one another,
    and gradients can be gathered turn by turn and added in the order of the shards, whatever n is.
    """

    def __init__(self, sampler: PatchSampler, shards: int, among: Processes = ALONE) -> None:
        self.sampler = sampler
        self.shards = shards
        self.numbers = range(among.rank, shards, among.count)

    def batches(self, first: int, last: int, workers: int = 0, pinned: bool = False) -> Generator[Shards]:
        """This process's shards of the batches from step `first` to before `last`, as `PatchSampler.batches`."""
        items = made(self.shard, _Pairs(range(first, last), self.numbers), workers, None, pinned)
        try:
            for _ in range(first, last):
                yield tuple(itertools.islice(items, len(self.numbers)))
        finally:
            items.close()  # type: ignore[attr-defined]  # a generator; ends the worker processes

    def shard(self, place: tuple[int, int]) -> Batch | None:
        """A shard of the batch of a step; None if the last batch of an epoch is too short to have it."""
        step, shard = place
        return self.sampler.batch(step, shard, self.shards) if shard < len(self.sampler.patches(step)) else None


class _Pairs(Sequence[tuple[int, int]]):
    """The pairs (step, shard), each computed when asked for: a list of all could be too long for memory."""

    def __init__(self, steps: range, shards: range) -> None:
        self.steps = steps
        self.shards = shards

    def __len__(self) -> int:
        return len(self.steps) * len(self.shards)

    def __getitem__(self, index: Any) -> Any:
        step, shard = divmod(index, len(self.shards))
        return self.steps[step], self.shards[shard]


def cut_up(batch: Batch | Shards, shards: int) -> Shards:
    """The shards of a batch (images and targets); a batch that is cut already is returned as it is.

    `tensor_split` divides as the `array_split` of `PatchSampler.batch` does, so both ways give the same shards.
    """
    images, targets = batch[0], batch[1] if len(batch) > 1 else None
    if not isinstance(images, Tensor) or not isinstance(targets, Tensor):
        return batch  # type: ignore[return-value]  # no pair of tensors
    pieces = zip(images.tensor_split(shards), targets.tensor_split(shards), strict=True)
    return tuple(piece if len(piece[0]) else None for piece in pieces)
