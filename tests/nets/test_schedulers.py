"""Learning rates step by step, against what the docstrings say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from yeastexp.nets.schedulers import scheduler


def rates(name: str, steps: int, further: int = 0, **options: Any) -> list[float]:
    """The learning rate of every step, then that after the last, as factors."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    made = scheduler[name](optimizer, steps, **options)
    seen = []
    for _ in range(steps + further):
        seen.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        made.step()
    return [*seen, optimizer.param_groups[0]["lr"] / 0.5]


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 101])
@pytest.mark.parametrize(
    ("name", "options", "end"),
    [
        ("constant", {}, 1.0),
        ("one_cycle", {}, 0.0),
        ("one_cycle", {"final": 0.2}, 0.2),
        ("one_cycle", {"warmup": 0.0}, 0.0),
        ("one_cycle", {"warmup": 0.0, "final": 1.0}, 1.0),
        ("one_cycle", {"warmup": 0.99}, 0.0),
        ("cosine", {}, 0.0),
        ("cosine", {"final": 0.1}, 0.1),
        ("polynomial", {}, 0.0),
        ("polynomial", {"power": 3.0}, 0.0),
    ],
)
def test_every_step_learns_and_the_end_is_as_promised(
    name: str, options: dict[str, Any], end: float, steps: int
) -> None:
    seen = rates(name, steps, **options)
    assert all(0 < rate <= 1 for rate in seen[:-1])
    assert seen[-1] == pytest.approx(end, abs=1e-12)


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "polynomial"])
def test_beyond_the_end_nothing_rises_again(name: str) -> None:
    assert rates(name, 10, further=15)[10:] == pytest.approx([0.0] * 16, abs=1e-12)


def test_cosine_and_polynomial_by_hand() -> None:
    half = math.sqrt(0.5) / 2
    assert rates("cosine", 4) == pytest.approx([1, 0.5 + half, 0.5, 0.5 - half, 0])
    assert rates("cosine", 4, final=0.5) == pytest.approx([1, 0.75 + half / 2, 0.75, 0.75 - half / 2, 0.5])
    assert rates("polynomial", 4, power=2.0) == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16, 0])


def test_one_cycle_by_hand() -> None:
    """Two of eight steps rise towards the whole, which the third has; the rest is half a cosine."""
    falling = [0.5 + 0.5 * math.cos(math.pi * step / 6) for step in range(7)]
    assert rates("one_cycle", 8, warmup=0.25) == pytest.approx([1 / 3, 2 / 3, *falling])


def test_one_cycle_without_warm_up_is_a_cosine() -> None:
    for steps in (1, 2, 7):
        assert rates("one_cycle", steps, warmup=0.0) == pytest.approx(rates("cosine", steps))


@pytest.mark.parametrize("name", list(scheduler))
def test_a_stopped_run_goes_on_where_it_was(name: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    made = scheduler[name](optimizer, 10)
    for _ in range(4):
        optimizer.step()
        made.step()
    other = torch.optim.SGD([weight], lr=0.5)
    resumed = scheduler[name](other, 10)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(made.state_dict())
    for _ in range(6):
        for one, by in ((optimizer, made), (other, resumed)):
            one.step()
            by.step()
        assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_parameter_groups_keep_their_proportions() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    made = scheduler["cosine"](optimizer, 4)
    for _ in range(2):
        optimizer.step()
        made.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])
