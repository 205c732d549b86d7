"""How gradients become weights, step by step, against what the definitions say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.errors import UserError
from yeastexp.nets.optimizers import adamw, sgd
from yeastexp.nets.schedulers import cosine
from yeastexp.training import checkpoints
from yeastexp.training.handlers.average import AverageWeights
from yeastexp.training.handlers.gradients import ClipGradients, StepScheduler
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options
from yeastexp.training.step import make_trainer

CPU = torch.device("cpu")


# Groups


@pytest.mark.parametrize(
    ("size", "patches", "steps", "ends", "shares"),
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
    size: int, patches: list[int], steps: int, ends: list[int], shares: list[float]
) -> None:
    groups = AccumulationSchedule(size, patches, steps)
    assert [step for step in range(1, steps + 1) if groups.ends(step)] == ends
    assert [groups.share(step) for step in range(1, steps + 1)] == shares
    assert groups.updates == len(ends)
    assert groups.ends(0)


# Updates


class Slope(nn.Module):
    """A loss with a gradient that is said: that of `weight` is `slope`, whatever the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, slope: Tensor) -> Tensor:
        return (self.weight * slope).sum()


def step(update: OptimizationStep, *slopes: Tensor) -> bool:
    """One update by equal shares of these gradients; whether the weights changed."""
    update.begin()
    for slope in slopes:
        update.add(update.model(slope), 1 / len(slopes))
    update.unscale()
    return update.apply(step=7)


def plain(options: Options) -> OptimizationStep:
    """An update that subtracts the gradients."""
    model = Slope()
    return OptimizationStep(model, sgd(model.parameters(), 1.0, momentum=0, weight_decay=0), options, CPU)


def weight(update: OptimizationStep) -> list[float]:
    values: list[float] = update.model.weight.tolist()
    return values


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_gradients_of_a_group_are_those_of_its_losses(precision: Any) -> None:
    """After accumulation and without the scale of float16, before anybody looks at them and in the weights."""
    update = plain(Options(precision))
    update.begin()
    for slope in (torch.tensor([6.0, 0.0]), torch.tensor([0.0, 8.0])):
        update.add(update.model(slope), 0.5)
    update.unscale()
    assert update.model.weight.grad.tolist() == [3.0, 4.0]
    assert update.apply(step=7) and weight(update) == [-3.0, -4.0]
    assert step(update, torch.tensor([-0.125, 0.25])) and weight(update) == [-2.875, -4.25]


def test_without_clipping_large_gradients_stay() -> None:
    update = plain(Options())
    step(update, torch.tensor([6.0, 8.0]))
    assert weight(update) == [-6.0, -8.0]


def test_gradients_that_overflow_change_nothing_but_the_scale() -> None:
    """1e34 times the first scale of 65536 is beyond float32, times half of it is not."""
    update = plain(Options("float16"))
    overflowing = torch.tensor([1e34, 0.0])
    assert not step(update, overflowing)
    assert weight(update) == [0, 0] and update.scale == 32768
    assert step(update, overflowing)
    assert weight(update) == pytest.approx([-1e34, 0]) and update.scale == 32768


def test_gradients_that_overflow_at_every_scale_end_the_run() -> None:
    update = plain(Options("float16"))
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


class Run:
    """Updates of a small network by two batches each, with the handlers that hang on an update."""

    def __init__(self, options: Options, average: bool = False, clip: bool = False) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
        optimizer = adamw(model.parameters(), 0.1)
        self.update = OptimizationStep(model, optimizer, options, CPU)
        self.handlers: dict[str, Any] = {"scheduler": StepScheduler(cosine(optimizer, 8))}
        if clip:
            self.handlers["clipping"] = ClipGradients(model, 0.5, CPU)
        if average:
            self.handlers["average"] = AverageWeights(self.update, 0.9)

    def go_on(self, first: int, last: int) -> None:
        """The updates from one to before another; that of number 3 overflows float16."""

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs.square() * targets).mean()

        trainer = make_trainer(self.update, loss, AccumulationSchedule(2, [5, 5], 2 * last), 1)
        for handler in self.handlers.values():
            handler.attach(trainer, Engine(lambda *_: None))
        if first < last:
            trainer.run(self.batches(first, last), max_epochs=1, epoch_length=2 * (last - first))

    @staticmethod
    def batches(first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(2 * first, 2 * last):
            source = torch.Generator().manual_seed(number)
            yield torch.randn(5, 3, 1, 1, generator=source), torch.full((5, 1, 1, 1), 1e36 if number // 2 == 3 else 1.0)

    def state_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        handlers = {n: handler.state_dict() for n, handler in self.handlers.items()}
        return {**self.update.state_dict(), "handlers": handlers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As a run does it: a handler after what it belongs to."""
        self.update.load_state_dict(state)
        for name, handler in self.handlers.items():
            handler.load_state_dict(state["handlers"][name])


def leaves(state: Any) -> list[str]:
    """All leaves of a state in order."""
    if isinstance(state, dict):
        return [leaf for key, value in state.items() for leaf in (key, *leaves(value))]
    if isinstance(state, list | tuple):
        return [leaf for value in state for leaf in leaves(value)]
    return [repr(state.tolist() if isinstance(state, Tensor) else state)]  # NaN equals NaN


@pytest.mark.parametrize(
    ("options", "handlers"),
    [
        (Options(), {}),
        (Options(), {"average": True}),
        (Options(), {"clip": True}),
        (Options("bfloat16"), {}),
        (Options("float16"), {}),
        (Options("float16"), {"clip": True, "average": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_an_interrupted_run_equals_an_uninterrupted_one(
    options: Options, handlers: dict[str, bool], stop: int, tmp_path: Path
) -> None:
    whole = Run(options, **handlers)
    whole.go_on(0, 8)
    before = Run(options, **handlers)
    before.go_on(0, stop)
    checkpoints.save(tmp_path / "last.pt", before.state_dict())
    nn.init.zeros_(before.update.model[0].weight)
    after = Run(options, **handlers)
    nn.init.zeros_(after.update.model[0].weight)
    after.load_state_dict(checkpoints.load(tmp_path / "last.pt"))
    after.go_on(stop, 8)
    assert leaves(after.state_dict()) == leaves(whole.state_dict())
    assert after.update.scale == whole.update.scale
    if handlers:
        assert leaves(Run(options, **handlers).state_dict()) != leaves(whole.state_dict())


def test_the_weights_to_use_are_under_model() -> None:
    run = Run(Options(), average=True)
    run.go_on(0, 2)
    state, average = run.state_dict(), run.handlers["average"].average
    assert run.update.measured is average.model
    in_training = state["handlers"]["average"]["model"]["0.weight"]
    assert torch.equal(state["model"]["0.weight"], average.model[0].weight)
    assert torch.equal(in_training, run.update.model[0].weight)
    assert not torch.equal(state["model"]["0.weight"], in_training)
    without = Run(Options())
    without.go_on(0, 2)
    assert without.update.measured is without.update.model and "average" not in without.state_dict()["handlers"]
    assert torch.equal(without.update.model[0].weight, run.update.model[0].weight), "averaging leaves training alone"
