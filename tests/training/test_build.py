"""An experiment made into parts, and its engines as a notebook uses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from ignite.engine import Events
from torch import nn

from yeastexp.config.loading import load_experiment
from yeastexp.training import build, checkpoints
from yeastexp.training.build import Assembly, assemble, build_trainer
from yeastexp.training.device import configure_torch
from yeastexp.training.handlers.gradients import StepScheduler
from yeastexp.training.run import run
from yeastexp.training.step import TrainingEvents
from yeastexp.training.validation import build_validator, validate


@pytest.fixture
def assembly(experiment_file: Callable[..., Path]) -> Assembly:
    """A tiny experiment of four steps an epoch."""
    return assemble(configure_torch(load_experiment(experiment_file())))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_trainer_is_an_engine_to_hang_events_on(assembly: Assembly) -> None:
    """As in a notebook: patches of two epochs, and a validation after each."""
    trainer, validator = build_trainer(assembly), build_validator(assembly)
    steps, updates, losses, scores = [], [], [], []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note() -> None:
        steps.append(trainer.state.iteration)
        losses.append(trainer.state.output)

    @trainer.on(TrainingEvents.UPDATE_COMPLETED)
    def count() -> None:
        updates.append(trainer.state.updates)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate_now() -> None:
        assert assembly.model.training
        scores.append(dict(validator.run(assembly.samples("val")).metrics))
        assert assembly.model.training

    before = weights(assembly.model)
    assembly.model.train()
    state = trainer.run(map(assembly.sampler.batch, range(8)), max_epochs=2, epoch_length=4)
    assert (state.iteration, state.epoch, state.updates) == (8, 2, 8)
    assert steps == updates == list(range(1, 9))
    assert all(loss.shape == () and loss.isfinite() and not loss.requires_grad for loss in losses)
    assert not same(before, assembly.model.state_dict())
    assert [set(found) for found in scores] == 2 * [{"iou/background", "iou/cell", "iou/mean", "accuracy", "loss"}]
    found = validate(assembly, assembly.model)
    assert scores[-1]["iou/cell"] == found.scores["iou"].per_image[1].item()
    assert scores[-1]["loss"] == found.loss != scores[0]["loss"]


def test_a_trainer_takes_the_steps_of_a_run(
    assembly: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, with the experiment's scheduler as a handler."""
    monkeypatch.chdir(tmp_path)
    folder = run(tmp_path / "tiny.toml", console=tiny.quiet())
    optimization = build.optimization_of(assembly)
    trainer, validator = build_trainer(assembly, optimization), build_validator(assembly)
    scheduler = assembly.scheduler(optimization.optimizer, 8)
    assert scheduler is not None
    StepScheduler(scheduler).attach(trainer, validator)
    assembly.model.train()
    trainer.run(map(assembly.sampler.batch, range(8)), max_epochs=1, epoch_length=8)
    last = checkpoints.load(folder / "checkpoints" / "last.pt")
    assert same(last["model"], assembly.model.state_dict())
    metrics = validator.run(assembly.samples("val")).metrics
    (row,) = [row for row in last["rows"] if "val/loss" in row]
    assert {tag: row[f"val/{tag}"] for tag in metrics} == metrics


WARM_UP = '''
from torch.optim.lr_scheduler import LambdaLR
from yeastexp.nets.schedulers import scheduler

@scheduler("warm")
def warm(optimizer, steps, warmup_steps: int = 5):
    """A warm-up of fixed length, which the run has to be longer than, and a fall to 0."""
    falling = steps - warmup_steps
    if falling <= 0:
        raise ValueError("the warm-up is longer than the run")
    return LambdaLR(optimizer, lambda step: min(step / warmup_steps, (steps - step) / falling))
'''


@pytest.mark.parametrize(
    ("name", "fitted"),
    [("constant", False), ("one_cycle", True), ("cosine", True), ("polynomial", True), ("warm", True)],
)
def test_a_scheduler_is_asked_only_for_lengths_that_it_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fitted: bool
) -> None:
    """Whether it is fitted to the length of a run; one with a warm-up may refuse runs as short as that."""
    (tmp_path / "warm.py").write_text(WARM_UP)
    text = tiny.EXPERIMENT.replace('"one_cycle"', f'"{name}"')
    path = tiny.write_experiment(tmp_path, f'plugins = ["warm.py"]\n{text}')
    assert build.is_fitted_to_length(load_experiment(path), 8) == fitted
    monkeypatch.chdir(tmp_path)
    assert (run(path, console=tiny.quiet()) / "result.json").exists()
