"""Steps of the optimizers, against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from yeastexp.nets.optimizers import adamw, decayed_apart, sgd


def stepped(optimizer: torch.optim.Optimizer, weight: nn.Parameter, steps: int = 1, gradient: float = 2.0) -> float:
    for _ in range(steps):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return float(weight.detach().flatten()[0])


def test_every_parameter_lies_in_one_group() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1, bias=False))
    matrices, vectors = decayed_apart(model.parameters(), 0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert [p.shape for p in matrices["params"]] == [(2, 1, 3, 3), (2, 2, 1, 1)]  # type: ignore[attr-defined]
    assert [p.shape for p in vectors["params"]] == [(2,), (2,), (2,)]  # type: ignore[attr-defined]


def test_a_generator_of_parameters_is_read_once() -> None:
    model = nn.Linear(3, 2)
    assert sum(len(group["params"]) for group in adamw(model.parameters()).param_groups) == 2
    assert len(adamw([nn.Parameter(torch.zeros(2, 2))]).param_groups) == 1
    assert len(sgd([nn.Parameter(torch.zeros(2))]).param_groups) == 1


def test_adamw_takes_a_first_step_of_the_learning_rate() -> None:
    """Whatever the gradient's size: the first step is its sign; decay is apart from it."""
    for gradient in (1e-3, 2.0, 1e3):
        weight = nn.Parameter(torch.ones(1, 1))
        found = stepped(adamw([weight], learning_rate=0.01, weight_decay=0.0), weight, gradient=gradient)
        assert found == pytest.approx(0.99, abs=1e-5)
    weight = nn.Parameter(torch.ones(1, 1))
    decayed = stepped(adamw([weight], learning_rate=0.01, weight_decay=0.5), weight)
    assert decayed == pytest.approx(1 - 0.01 * 0.5 - 0.01, abs=1e-5)


def test_sgd_without_momentum_is_the_gradient() -> None:
    weight = nn.Parameter(torch.ones(1, 1))
    assert stepped(sgd([weight], learning_rate=0.1, momentum=0.0, weight_decay=0.0), weight) == pytest.approx(0.8)


@pytest.mark.parametrize(("nesterov", "wanted"), [(False, [1.0, 1.5]), (True, [1.5, 1.75])])
def test_sgd_with_momentum_by_hand(nesterov: bool, wanted: list[float]) -> None:
    """Gradient 1, momentum 1/2: velocities 1 and 3/2; Nesterov's step looks one velocity ahead."""
    weight = nn.Parameter(torch.zeros(1, 1))
    optimizer = sgd([weight], learning_rate=1.0, momentum=0.5, nesterov=nesterov, weight_decay=0.0)
    first = stepped(optimizer, weight, gradient=1.0)
    second = stepped(optimizer, weight, gradient=1.0)
    assert [-first, first - second] == pytest.approx(wanted)
