"""Clipping of gradients, and the scheduler of the learning rate."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.nets.optimizers import sgd
from yeastexp.nets.schedulers import cosine
from yeastexp.training.handlers.average import AverageWeights
from yeastexp.training.handlers.gradients import ClipGradients, StepScheduler
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options, Precision
from yeastexp.training.step import make_trainer

CPU = torch.device("cpu")


class Slope(nn.Module):
    """Outputs with a gradient that is said: that of `weight` is the image, whatever the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images


def batches(*slopes: tuple[float, float]) -> list[tuple[Tensor, Tensor]]:
    """One of each slope, (1, 1, 1, 2)."""
    return [(torch.tensor(slope)[None, None, None], torch.zeros(0)) for slope in slopes]


def update_of(precision: Precision = "float32") -> OptimizationStep:
    """One that subtracts the gradients."""
    model = Slope()
    return OptimizationStep(model, sgd(model.parameters(), 1.0, momentum=0, weight_decay=0), Options(precision), CPU)


def trainer_of(update: OptimizationStep, size: int = 1) -> Engine:
    """An update by each `size` batches."""
    return make_trainer(update, lambda outputs, _: outputs.sum(), AccumulationSchedule(size, [1] * size, 99), 1)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipping_bounds_the_norm_of_all_gradients_together(validator: Engine, precision: Precision) -> None:
    """After accumulation and without the scale of float16; what is smaller stays as it is."""
    update = update_of(precision)
    handler, trainer = ClipGradients(update.model, 1.0, CPU), trainer_of(update, 2)
    handler.attach(trainer, validator)
    trainer.run(batches((6.0, 0.0), (0.0, 8.0)))
    assert [float(norm) for norm in handler.norms] == [5.0]
    assert update.model.weight.tolist() == pytest.approx([-0.6, -0.8], rel=1e-6)
    trainer.run(batches((-0.125, 0.25), (-0.125, 0.25)))
    assert update.model.weight.tolist() == pytest.approx([-0.475, -1.05], rel=1e-6)


def test_norms_are_kept_until_they_are_taken_and_survive_a_checkpoint(validator: Engine) -> None:
    update = update_of()
    handler, trainer = ClipGradients(update.model, 1.0, CPU), trainer_of(update)
    handler.attach(trainer, validator)
    trainer.run(batches((3.0, 4.0), (6.0, 8.0)))
    resumed = ClipGradients(Slope(), 1.0, CPU)
    resumed.load_state_dict(handler.state_dict())
    for one in (handler, resumed):
        assert one.take_norms() == [5.0, 10.0] and one.take_norms() == []
    assert handler.state_dict() == {"norms": []}


def test_the_scheduler_follows_updates(validator: Engine) -> None:
    """Not steps: two updates of two batches each are half of four updates."""
    update = update_of()
    handler, trainer = StepScheduler(cosine(update.optimizer, 4)), trainer_of(update, 2)
    handler.attach(trainer, validator)
    trainer.run(batches(*[(1.0, 1.0)] * 4), max_epochs=1, epoch_length=4)
    assert update.optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    again = update_of()
    resumed = StepScheduler(cosine(again.optimizer, 4))
    resumed.load_state_dict(handler.state_dict())
    assert resumed.scheduler.last_epoch == 2 and resumed.scheduler.get_last_lr() == handler.scheduler.get_last_lr()


def test_where_float16_overflows_neither_the_scheduler_nor_the_average_moves(validator: Engine) -> None:
    """1e34 times the first scale of 65536 is beyond float32, times half of it is not."""
    update = update_of("float16")
    scheduler, average = StepScheduler(cosine(update.optimizer, 4)), AverageWeights(update, 0.5)
    trainer = trainer_of(update)
    for handler in (scheduler, average):
        handler.attach(trainer, validator)
    trainer.run(batches((1e34, 0.0)))
    assert update.model.weight.tolist() == [0, 0] and update.scale == 32768
    assert average.average.updates == 0 and update.optimizer.param_groups[0]["lr"] == 1.0
    trainer.run(batches((1e34, 0.0)))
    assert update.model.weight.tolist() == pytest.approx([-1e34, 0]) and update.scale == 32768
    assert average.average.updates == 1 and update.optimizer.param_groups[0]["lr"] < 1.0
