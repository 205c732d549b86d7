"""Shards: cut as batches are, added up to what the whole batch gives, with running statistics as PyTorch keeps them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from yeastexp.data.shards import cut_up
from yeastexp.errors import UserError
from yeastexp.nets.losses import CrossEntropy
from yeastexp.nets.optimizers import sgd
from yeastexp.sample import IGNORE
from yeastexp.system.processes import ALONE, Processes, Rehearsing
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options
from yeastexp.training.shards import BatchStatistics, make_sharded_trainer
from yeastexp.training.step import make_trainer

CPU = torch.device("cpu")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 1))


def batch(patches: int = 5) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    images = torch.randn(patches, 1, 8, 8, generator=source)
    labels = torch.randint(0, 2, (patches, 8, 8), generator=source)
    labels[0, :, :4] = IGNORE
    return images, labels


def after(model: nn.Module, shards: int, among: Processes = ALONE) -> tuple[list[Tensor], Tensor]:
    """The weights after a step of gradient descent, and the loss."""
    update = OptimizationStep(model, sgd(model.parameters(), 1.0, momentum=0.0, weight_decay=0.0), Options(), CPU)
    criterion, schedule = CrossEntropy(2), AccumulationSchedule(1, [5], 1)
    if shards == 1:
        trainer = make_trainer(update, criterion, schedule, 2, criterion.count)
    else:
        trainer = make_sharded_trainer(update, criterion, schedule, 2, criterion.count, shards, 0, among)
    state = trainer.run([batch()], max_epochs=1)
    assert isinstance(state.output, Tensor)
    return [weight.detach() for weight in model.parameters()], state.output


@pytest.mark.parametrize("shards", [2, 3, 5, 8])
def test_shards_add_up_to_the_whole_batch(shards: int) -> None:
    whole, loss = after(net(), 1)
    parts, sharded = after(net(), shards)
    torch.testing.assert_close(sharded, loss)
    torch.testing.assert_close(parts, whole)


def test_pieces_are_consecutive_and_may_be_empty() -> None:
    images, labels = batch()
    pieces = cut_up((images, labels), 8)
    assert [None if piece is None else len(piece[0]) for piece in pieces] == [1] * 5 + [None] * 3
    assert torch.equal(torch.cat([piece[0] for piece in pieces if piece]), images)
    assert cut_up(pieces, 8) is pieces


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_those_that_pytorch_keeps(momentum: float | None) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=momentum))
    expected, images = copy.deepcopy(model), batch(6)[0]
    statistics = BatchStatistics(model)
    for piece in images.split(2):
        expected(piece)
        with statistics.of_one_shard():
            model(piece)
        statistics.update(torch.cat(statistics.taken).detach(), torch.ones(()))
        statistics.update(torch.zeros(6), torch.zeros(()))  # of an empty shard
    torch.testing.assert_close(dict(model.state_dict()), dict(expected.state_dict()))


def test_a_model_that_keeps_anything_else_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.inner = net()

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            values: Tensor = self.inner(images)
            return values

    with pytest.raises(UserError, match=r"changes its buffer 'calls' as it goes forward.*; set shards = 1"):
        after(Counting(), 2)


def test_a_rehearsal_waits_for_nobody() -> None:
    model = net()
    among = Rehearsing(1, 2)
    update = OptimizationStep(model, sgd(model.parameters(), 1.0), Options(), CPU)
    trainer = make_sharded_trainer(
        update, CrossEntropy(2), AccumulationSchedule(1, [5], 1), 2, CrossEntropy(2).count, 4, 0, among
    )
    own = cut_up(batch(), 4)[among.rank :: among.count]
    assert trainer.run([own], max_epochs=1, epoch_length=1).iteration == 1


def test_processes_share_items_in_turn() -> None:
    items = list("abcde")
    shares = [Processes(rank, 2).share(items) for rank in range(2)]
    assert shares == [["a", "c", "e"], ["b", "d"]]
    assert [Processes(rank, 3).share(items[:1]) for rank in range(3)] == [["a"]] * 3
    assert Processes(1, 2).share([]) == []

    class Together(Processes):
        def gather(self, value: object) -> list:  # type: ignore[override,type-arg]
            return [dict.fromkeys(share, index) for index, share in enumerate(shares)]

    assert Together(0, 2).merged({}) == {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0}
    assert list(Together(0, 2).merged({})) == items
