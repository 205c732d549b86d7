"""How gradients become weights, step by step, against what the definitions say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yeastexp.errors import UserError
from yeastexp.nets.optimizers import adamw, sgd
from yeastexp.nets.schedulers import cosine
from yeastexp.training import checkpoints
from yeastexp.training.optimization import AccumulationSchedule, Average, OptimizationStep, Options

CPU = torch.device("cpu")


# Groups


@pytest.mark.parametrize(
    ("size", "windows", "steps", "ends", "shares"),
    [
        (1, [4, 4, 2], 4, [1, 2, 3, 4], [1, 1, 1, 1]),
        (2, [4, 4, 2], 6, [2, 3, 5, 6], [0.5, 0.5, 1, 0.5, 0.5, 1]),
        (2, [6, 2], 3, [2, 3], [0.75, 0.25, 1]),
        (3, [4, 4, 2], 5, [3, 5], [0.4, 0.4, 0.2, 0.5, 0.5]),
        (5, [4, 4, 2], 4, [3, 4], [0.4, 0.4, 0.2, 1]),
        (2, [4, 4, 4, 4, 4], 8, [2, 4, 5, 7, 8], [0.5, 0.5, 0.5, 0.5, 1, 0.5, 0.5, 1]),
    ],
)
def test_groups_end_with_epochs_and_with_the_run(
    size: int, windows: list[int], steps: int, ends: list[int], shares: list[float]
) -> None:
    groups = AccumulationSchedule(size, windows, steps)
    assert [step for step in range(1, steps + 1) if groups.ends(step)] == ends
    assert [groups.share(step) for step in range(1, steps + 1)] == shares
    assert groups.updates == len(ends)
    assert groups.ends(0)


# The average


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


# Updates


class Slope(nn.Module):
    """A loss with a gradient that is said: that of `weight` is `slope`, whatever the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, slope: Tensor) -> Tensor:
        return (self.weight * slope).sum()


def step(update: OptimizationStep, *slopes: Tensor) -> None:
    """One update by equal shares of these gradients."""
    update.begin()
    for slope in slopes:
        update.add(update.model(slope), 1 / len(slopes))
    update.apply(step=7)


def plain(options: Options, scheduler: bool = False) -> OptimizationStep:
    """An update that subtracts the gradients."""
    model = Slope()
    optimizer = sgd(model.parameters(), 1.0, momentum=0, weight_decay=0)
    return OptimizationStep(model, optimizer, cosine(optimizer, 4) if scheduler else None, options, CPU)


def weight(update: OptimizationStep) -> list[float]:
    values: list[float] = update.model.weight.tolist()
    return values


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipping_bounds_the_norm_of_all_gradients_together(precision: Any) -> None:
    """After accumulation and without the scale of float16; what is smaller stays as it is."""
    update = plain(Options(clip_norm=1.0, precision=precision))
    step(update, torch.tensor([6.0, 0.0]), torch.tensor([0.0, 8.0]))
    assert [float(norm) for norm in update.norms] == [5.0]
    assert weight(update) == pytest.approx([-0.6, -0.8], rel=1e-6)
    step(update, torch.tensor([-0.125, 0.25]))
    assert weight(update) == pytest.approx([-0.475, -1.05], rel=1e-6)


def test_without_clipping_no_norm_is_taken() -> None:
    update = plain(Options())
    step(update, torch.tensor([6.0, 8.0]))
    assert update.norms == [] and weight(update) == [-6.0, -8.0]


def test_the_scheduler_follows_updates() -> None:
    update = plain(Options(), scheduler=True)
    for _ in range(2):
        step(update, torch.ones(2), torch.ones(2))
    assert update.optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_gradients_that_overflow_change_nothing_but_the_scale() -> None:
    """1e34 times the first scale of 65536 is beyond float32, times half of it is not."""
    update = plain(Options(precision="float16", ema=0.5), scheduler=True)
    assert update.average is not None
    overflowing = torch.tensor([1e34, 0.0])
    step(update, overflowing)
    assert weight(update) == [0, 0] and update.scale == 32768
    assert update.average.updates == 0 and update.optimizer.param_groups[0]["lr"] == 1.0
    step(update, overflowing)
    assert weight(update) == pytest.approx([-1e34, 0]) and update.scale == 32768
    assert update.average.updates == 1 and update.optimizer.param_groups[0]["lr"] < 1.0


def test_gradients_that_overflow_at_every_scale_end_the_run() -> None:
    update = plain(Options(precision="float16"))
    with pytest.raises(UserError) as caught:
        for _ in range(27):
            step(update, torch.tensor([float("inf"), 0.0]))
    assert str(caught.value) == (
        "step 7: the gradients are not finite in float16, however scaled; set [train] precision to 'bfloat16' or "
        "'float32'. The last good checkpoint is kept"
    )
    assert caught.value.status == 1
    assert update.scale == 2.0**-11 and weight(update) == [0, 0]


def test_float16_is_refused_without_a_gpu() -> None:
    with pytest.raises(UserError) as caught:
        Options(precision="float16").check(CPU)
    assert str(caught.value) == "[train] precision: 'float16' trains on a GPU alone; use 'bfloat16' or 'float32'"
    for options in (Options(), Options(precision="bfloat16")):
        assert options.check(CPU) is options
    assert Options(precision="float16").check(torch.device("cuda")).precision == "float16"


# State


def network(options: Options) -> OptimizationStep:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = adamw(model.parameters(), 0.1)
    return OptimizationStep(model, optimizer, cosine(optimizer, 8), options, CPU)


def go_on(update: OptimizationStep, first: int, last: int) -> None:
    """Updates of two batches each; that of number 3 overflows float16."""
    for number in range(first, last):
        update.begin()
        for part in range(2):
            source = torch.Generator().manual_seed(2 * number + part)
            with update.options.autocast(update.device):
                found = update.model(torch.randn(5, 3, generator=source))
            update.add(found.float().square().mean() * (1e36 if number == 3 else 1.0), share=0.5)
        update.apply(number)


def leaves(state: Any) -> list[str]:
    """All leaves of a state in order."""
    if isinstance(state, dict):
        return [leaf for key, value in state.items() for leaf in (key, *leaves(value))]
    if isinstance(state, list | tuple):
        return [leaf for value in state for leaf in leaves(value)]
    return [repr(state.tolist() if isinstance(state, Tensor) else state)]  # NaN equals NaN


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(ema=0.9),
        Options(clip_norm=0.5),
        Options(precision="bfloat16"),
        Options(precision="float16"),
        Options(accumulate=2, clip_norm=0.5, ema=0.9, precision="float16"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_an_interrupted_run_equals_an_uninterrupted_one(options: Options, stop: int, tmp_path: Path) -> None:
    whole = network(options)
    go_on(whole, 0, 8)
    before = network(options)
    go_on(before, 0, stop)
    checkpoints.save(tmp_path / "last.pt", before.state_dict())
    nn.init.zeros_(before.model[0].weight)
    after = network(options)
    nn.init.zeros_(after.model[0].weight)
    after.load_state_dict(checkpoints.load(tmp_path / "last.pt"))
    go_on(after, stop, 8)
    assert leaves(after.state_dict()) == leaves(whole.state_dict())
    assert after.scale == whole.scale


def test_the_weights_to_use_are_under_model() -> None:
    update = network(Options(ema=0.9))
    go_on(update, 0, 2)
    state = update.state_dict()
    assert update.average is not None and update.measured is update.average.model
    assert torch.equal(state["model"]["0.weight"], update.average.model[0].weight)
    assert torch.equal(state["unaveraged"]["0.weight"], update.model[0].weight)
    assert not torch.equal(state["model"]["0.weight"], state["unaveraged"]["0.weight"])
    without = network(Options())
    go_on(without, 0, 2)
    assert without.measured is without.model and without.state_dict()["unaveraged"] is None
    assert torch.equal(without.model[0].weight, update.model[0].weight), "averaging leaves training alone"
