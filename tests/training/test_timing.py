"""How long a training step takes, and trials that leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from yeastexp.config.loading import load_experiment
from yeastexp.data.patches import PatchSampler
from yeastexp.training.build import Assembly, assemble
from yeastexp.training.device import configure_torch
from yeastexp.training.timing import seconds_per_step, trial_of


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
    assert asked == [0, 1, *range(9)]
    assert {float(state["step"]) for state in made[0].state.values()} == {3}
