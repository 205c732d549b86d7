"""A moving average of weights, and the handler that keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from yeastexp.contracts import Handler
from yeastexp.nets.optimizers import sgd
from yeastexp.training.handlers.average import Average, AverageWeights, KeepInitialShare
from yeastexp.training.optimization import OptimizationStep, Options
from yeastexp.training.step import TrainingEvents


def kept(decay: float, updates: int) -> list[float]:
    """How much of itself the average keeps at each update."""
    return [min(decay, (1 + n) / (10 + n)) for n in range(1, updates + 1)]


def test_the_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 100.0)
    average = Average(model, decay=0.25)
    expected = 100.0
    for value, share in zip([1.0, -2.0, 4.0, 0.5], kept(0.25, 4), strict=True):
        nn.init.constant_(model.weight, value)
        average.update(model)
        expected = share * expected + (1 - share) * value
        assert average.model.weight.item() == pytest.approx(expected, rel=1e-14)
        assert model.weight.item() == value
    assert kept(0.25, 4) == [2 / 11, 0.25, 0.25, 0.25]


def test_the_initial_weights_are_soon_forgotten() -> None:
    """However high the decay, ten updates leave less than a ten-thousandth of them."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    average = Average(model, decay=0.9999)
    nn.init.zeros_(model.weight)
    for _ in range(10):
        average.update(model)
    left = average.model.weight.item()
    assert left == pytest.approx(math.prod(kept(0.9999, 10))) and left < 1e-4


def test_statistics_are_averaged_and_counts_copied() -> None:
    model = nn.BatchNorm2d(1)
    average = Average(model, decay=0.5)
    model(torch.full((1, 1, 2, 2), 10.0))
    average.update(model)
    assert float(model.running_mean) == 1.0
    assert float(average.model.running_mean) == pytest.approx(1 - 2 / 11)
    assert int(average.model.num_batches_tracked) == 1


def test_a_shared_weight_is_averaged_once() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[1].weight = model[0].weight
    nn.init.zeros_(model[0].weight)
    average = Average(model, decay=0.5)
    nn.init.constant_(model[0].weight, 11.0)
    average.update(model)
    assert average.model[0].weight is average.model[1].weight
    assert average.model[0].weight.item() == pytest.approx(9.0)


def test_an_average_is_a_model_to_look_through() -> None:
    average = Average(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)).train(), decay=0.5)
    assert not average.model.training and not average.model(torch.ones(1, 1)).requires_grad


def test_the_average_takes_updates_in_and_is_what_is_measured(trainer: Engine, validator: Engine) -> None:
    model = nn.Linear(1, 1, bias=False)
    optimization = OptimizationStep(model, sgd(model.parameters(), 0.1), Options(), torch.device("cpu"))
    assert optimization.measured is model
    handler = AverageWeights(optimization, decay=0.5)
    handler.attach(trainer, validator)
    assert optimization.measured is handler.average.model
    trainer.run([0.0] * 3, epoch_length=3)
    assert handler.average.updates == 0, "no step changed the weights"
    nn.init.constant_(handler.average.model.weight, 0.0)
    nn.init.constant_(model.weight, 11.0)
    trainer.fire_event(TrainingEvents.UPDATE_COMPLETED)
    assert handler.average.updates == 1 and handler.average.model.weight.item() == pytest.approx(9.0)


def test_the_state_of_the_average_is_the_weights_in_training(trainer: Engine, validator: Engine) -> None:
    """The averaged ones are the checkpoint's own, under `model`."""
    steps = []
    for value in (1.0, 2.0):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, value)
        steps.append(OptimizationStep(model, sgd(model.parameters(), 0.1), Options(), torch.device("cpu")))
    one, other = (AverageWeights(step, decay=0.5) for step in steps)
    one.average.update(one.model)
    other.load_state_dict(one.state_dict())
    assert other.average.updates == 1 and steps[1].model.weight.item() == 1.0
    assert other.average.model.weight.item() == 2.0


def test_the_mean_with_initial_weights_by_hand(trainer: Engine, validator: Engine) -> None:
    """Statistics as well, but no counts, and no tensor that began at random; nothing adds up over updates."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    nn.init.constant_(model[0].weight, 8.0)
    nn.init.constant_(model[0].bias, 8.0)
    optimization = OptimizationStep(model, sgd(model.parameters(), 0.1), Options(), torch.device("cpu"))
    handler = KeepInitialShare(optimization, 0.25, {"0.weight", "1.running_mean", "1.num_batches_tracked"})
    handler.attach(trainer, validator)
    assert optimization.measured is handler.mean and not handler.mean.training
    for value in (4.0, 0.0):
        for tensor in (*model[0].parameters(), model[1].running_mean):
            nn.init.constant_(tensor, value)
        model[1].num_batches_tracked += 1
        trainer.fire_event(TrainingEvents.UPDATE_COMPLETED)
        assert handler.mean[0].weight.item() == 0.75 * value + 2.0
        assert handler.mean[0].bias.item() == value
        assert handler.mean[1].running_mean.item() == 0.75 * value
    assert int(handler.mean[1].num_batches_tracked) == 2
    assert not any(weight.requires_grad for weight in handler.mean.parameters())


@pytest.mark.parametrize(
    "averaged", [lambda of: AverageWeights(of, 0.5), lambda of: KeepInitialShare(of, 0.25, {"mask"})]
)
def test_a_mask_of_infinite_values_is_no_mean(
    trainer: Engine, validator: Engine, averaged: Callable[[OptimizationStep], Handler]
) -> None:
    model = nn.Linear(1, 1)
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    optimization = OptimizationStep(model, sgd(model.parameters(), 0.1), Options(), torch.device("cpu"))
    averaged(optimization).attach(trainer, validator)
    trainer.fire_event(TrainingEvents.UPDATE_COMPLETED)
    assert optimization.measured is not model
    assert optimization.measured.get_buffer("mask").tolist() == [0.0, -math.inf]
