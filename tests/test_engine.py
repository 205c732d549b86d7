"""Engines: what is raised, what is scored, where a run begins."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from yeastexp import engine
from yeastexp.errors import UserError
from yeastexp.losses import CrossEntropy
from yeastexp.metrics import Accuracy, IoU
from yeastexp.optimizers import adamw
from yeastexp.sample import IGNORE, Sample
from yeastexp.transforms.downscale import Downscale

CPU = torch.device("cpu")


class Scale(nn.Module):
    """Two classes, the second where the image is above zero, more surely the larger the one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([-images, images], dim=1) * self.weight


def batch(value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((2, 1, 4, 4), value), torch.ones(2, 4, 4, dtype=torch.int64)


def trainer(model: nn.Module) -> Engine:
    return engine.trainer(model, CrossEntropy(2), adamw(model.parameters(), 0.1), None, CPU, 2)


def test_a_loss_that_is_not_finite_leaves_the_weights() -> None:
    model = Scale()
    with pytest.raises(UserError, match="step 2: the loss is nan"):
        trainer(model).run([batch(), batch(float("nan")), batch()])
    after_one = Scale()
    trainer(after_one).run([batch()])
    assert torch.equal(model.weight, after_one.weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_step_is_named(bad: float) -> None:
    with pytest.raises(UserError, match=rf"step 9: the loss is {bad}"):
        engine.check_finite(torch.tensor([0.5, bad, bad]), last_step=10)
    assert engine.check_finite(torch.tensor([0.5, 0.25]), last_step=10) == [0.5, 0.25]


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(UserError, match=r"gives \(2, 3, 4, 4\) for images \(2, 1, 4, 4\), not \(2, 2, 4, 4\)"):
        engine.checked_logits(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4), classes=2)


@pytest.mark.parametrize(("step", "left", "epochs"), [(0, 12, [4, 8, 12]), (4, 8, [8, 12]), (6, 6, [8, 12])])
def test_a_run_begins_behind_any_step(step: int, left: int, epochs: list[int]) -> None:
    """Epoch boundaries stay where they are when a run begins in the middle of one."""
    seen: list[int] = []
    ends: list[int] = []
    run = Engine(lambda _, data: data)
    run.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output))
    run.add_event_handler(Events.EPOCH_COMPLETED, lambda e: ends.append(e.state.iteration))
    engine.start_at(run, step, steps_per_epoch=4, epochs=3)
    run.run(iter(range(step, 12)))
    assert seen == list(range(step, 12)) and len(seen) == left
    assert ends == epochs


def test_validation_sees_the_original_pixels() -> None:
    """Through a coarser grid, the logits come back at the image's own size."""
    image = torch.ones(1, 7, 9)
    image[:, :, :4] = -1
    labels = (image[0] > 0).long()
    labels[0, 0] = IGNORE
    sample = Sample(image, labels, "half")
    found = engine.validate(
        Scale(), (Downscale(2),), CrossEntropy(2), [sample], {"iou": IoU(2), "accuracy": Accuracy(2)}, CPU
    )
    assert found.scores["accuracy"].counts.tolist() == [[62, 62]]
    assert found.scores["iou"].pooled.tolist() == [1.0, 1.0]
    assert list(found.losses) == ["half"] and 0 < found.loss < 1


def test_validation_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), Scale()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine.validate(model, (), CrossEntropy(2), [Sample(torch.rand(1, 4, 4), batch()[1][0], "x")], {"iou": IoU(2)}, CPU)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_timing_touches_nothing() -> None:
    model, state = Scale(), torch.get_rng_state()
    seconds = engine.seconds_per_step(
        model, CrossEntropy(2), lambda m: adamw(m.parameters()), lambda step: batch(), CPU, 2, 0.01
    )
    assert seconds > 0
    assert torch.equal(model.weight, torch.ones(1)) and torch.equal(torch.get_rng_state(), state)
