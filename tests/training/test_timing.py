"""How long a training step takes, and trials that leave no trace."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from yeastexp.config.loading import load_experiment
from yeastexp.data.patches import PatchSampler
from yeastexp.errors import UserError
from yeastexp.training import timing
from yeastexp.training.build import Assembly, assemble
from yeastexp.training.device import configure_torch
from yeastexp.training.timing import fastest, seconds_of_validation, seconds_per_step, trial_of


@pytest.fixture
def assembly(experiment_file: Callable[..., Path]) -> Assembly:
    """A tiny experiment of four steps an epoch."""
    return assemble(configure_torch(load_experiment(experiment_file())))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_trial_leaves_no_trace(assembly: Assembly) -> None:
    before = weights(assembly.model)
    trainer, model, optimizer = trial_of(assembly)
    trainer.run(map(assembly.sampler.batch, range(3)), max_epochs=1, epoch_length=3)
    assert trainer.state.updates == 3 and model is not assembly.model
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    assert same(before, assembly.model.state_dict()) and not same(before, model.state_dict())


def test_timing_touches_nothing(assembly: Assembly) -> None:
    before, state = weights(assembly.model), torch.get_rng_state()
    assert seconds_per_step(assembly, 0.01) > 0
    assert same(before, assembly.model.state_dict()) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("tried", [trial_of, partial(seconds_per_step, seconds=0)], ids=["trial", "timing"])
def test_a_model_whose_weights_cannot_be_copied_is_told(assembly: Assembly, tried: Callable[..., Any]) -> None:
    scripted = replace(assembly, model=nn.Sequential(torch.jit.script(nn.Conv2d(1, 2, 3))))
    with pytest.raises(UserError, match=r"\[model\] name: 'unet' is compiled by torch.jit, whose weights cannot"):
        tried(scripted)


def test_timing_counts_an_update_for_as_many_batches_as_training_has(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two batches to warm up come whole groups of three, at least seven steps of them."""
    asked: list[int] = []
    made: list[torch.optim.Optimizer] = []
    optimizer, batch = Assembly.optimizer, PatchSampler.batch

    def optimizer_of(self: Assembly, model: nn.Module) -> torch.optim.Optimizer:
        made.append(optimizer(self, model))
        return made[-1]

    def batch_of(self: PatchSampler, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(step)
        return batch(self, step)

    monkeypatch.setattr(Assembly, "optimizer", optimizer_of)
    monkeypatch.setattr(PatchSampler, "batch", batch_of)
    train = replace(assembly.experiment.train, accumulation_steps=3)
    seconds_per_step(replace(assembly, experiment=replace(assembly.experiment, train=train)), 0)
    assert asked == [0, 1, *range(2, 11)]
    assert {float(state["step"]) for state in made[0].state.values()} == {3}


class Slow(nn.Module):
    """A layer that takes a while, forward and back, in which it says so."""

    def __init__(self, layer: nn.Module, seconds: list[float]) -> None:
        super().__init__()
        self.layer, self.seconds, self.calls = layer, seconds, 0
        layer.register_forward_pre_hook(self.wait)

    def wait(self, *anything: object) -> None:
        self.calls += 1
        time.sleep(self.seconds[torch.get_num_threads() - 1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)


@pytest.fixture
def slow(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> Assembly:
    """Twelve layers that take 2 ms each on one thread, and 0.2 s each on two, as beside a busy process."""
    monkeypatch.setattr(timing.cores, "allowed", lambda: (2, "cores of the machine"))
    monkeypatch.setattr(timing.copy, "deepcopy", lambda model: model)
    monkeypatch.setattr(timing.cores.Waiting, "share", 0.0)
    layers = [Slow(nn.Conv2d(2 if index else 1, 2, 1), [0.002, 0.2]) for index in range(12)]
    experiment = replace(assembly.experiment, runtime=replace(assembly.experiment.runtime, threads="auto"))
    return replace(assembly, experiment=experiment, model=nn.Sequential(*layers))


def test_a_number_of_threads_that_is_much_slower_is_given_up_within_a_step(slow: Assembly) -> None:
    """A step on two threads would take 2.4 s; it ends once it has taken four times as long as one on one thread."""
    torch.set_num_threads(1)
    began = time.monotonic()
    chosen = fastest(slow, slow.experiment, 0.1)
    assert chosen.threads == 1 and chosen.step is not None and 0.024 < chosen.step < 0.5
    (line,) = chosen.lines
    assert re.fullmatch(
        r"\[runtime\] threads = 1: a step takes, by threads, 1: \d+ ms, 2: over \d+ ms \(2 cores of the machine\)", line
    )
    assert time.monotonic() - began < 0.1 * 3 + 0.5 * 4 + 2.4
    assert sum(layer.calls for layer in slow.model) < 12 * 12, "no whole step on two threads"
    assert torch.get_num_threads() == 1


def test_more_threads_are_not_tried_where_one_has_to_wait_for_a_core(
    slow: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step on two threads beside busy processes takes long, even if it is given up: 20 s of a budget of 90 s."""
    monkeypatch.setattr(timing.cores.Waiting, "share", 0.6)
    chosen = fastest(slow, slow.experiment, 0.1)
    assert re.search(r"1: \d+ ms, others keep the cores busy \(2 cores of the machine\)$", chosen.lines[0])
    train = replace(slow.experiment.train, precision="auto")
    assert ", bfloat16: " in fastest(slow, replace(slow.experiment, train=train), 0.1).lines[1]


def test_a_step_is_timed_in_the_time_there_is(slow: Assembly) -> None:
    """After one that took too long there is no other."""
    torch.set_num_threads(2)
    assert 2.4 < seconds_per_step(slow, 10.0, at_most=0.5) < 10
    assert [layer.calls for layer in slow.model] == [1] * 12


def test_a_step_is_timed_with_the_workers_of_the_run(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    batches = PatchSampler.batches

    def batches_of(self: PatchSampler, first: int, last: int, workers: int = 0) -> Any:
        asked.append(workers)
        return batches(self, first, last, workers)

    monkeypatch.setattr(PatchSampler, "batches", batches_of)
    runtime = replace(assembly.experiment.runtime, workers=1)
    assert seconds_per_step(replace(assembly, experiment=replace(assembly.experiment, runtime=runtime)), 0) > 0
    assert asked == [1]


def test_a_validation_is_timed_on_as_many_images_as_there_is_time_for(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images of equal size: with no time for a second one it is taken to last as long as the first."""
    read: list[str] = []
    samples = Assembly.samples

    def samples_of(self: Assembly, split: str) -> Any:
        for sample in samples(self, split):
            read.append(sample.name)
            time.sleep(0.05)
            yield sample

    monkeypatch.setattr(Assembly, "samples", samples_of)
    assert seconds_of_validation(assembly, 0.0) > 0.1 and len(read) == 1
    assert seconds_of_validation(assembly, 60.0) > 0.1 and len(read) == 3
