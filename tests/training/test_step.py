"""Engines: what is raised, what is scored, where a run begins."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from yeastexp.data.transforms.downscale import Downscale
from yeastexp.errors import UserError
from yeastexp.metrics.pixels import Accuracy, IoU
from yeastexp.nets.losses import CrossEntropy
from yeastexp.nets.optimizers import adamw, sgd
from yeastexp.nets.unet import UNet
from yeastexp.sample import IGNORE, Sample
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options, Precision
from yeastexp.training.step import (
    check_finite,
    checked_logits,
    make_trainer,
    seconds_per_step,
    start_at,
    validate_model,
)

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
    update = OptimizationStep(model, adamw(model.parameters(), 0.1), None, Options(), CPU)
    return make_trainer(update, CrossEntropy(2), AccumulationSchedule(1, [2], steps=3), 2)


@pytest.mark.parametrize(
    "value, told",
    [(-2e38, "step 2: the loss is inf; lower"), (float("nan"), "step 2: the windows hold NaN or infinite values; ")],
)
def test_a_loss_that_is_not_finite_leaves_the_weights(value: float, told: str) -> None:
    model = Scale()
    with pytest.raises(UserError, match=told):
        trainer(model).run([batch(), batch(value), batch()])
    after_one = Scale()
    trainer(after_one).run([batch()])
    assert torch.equal(model.weight, after_one.weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_step_is_named(bad: float) -> None:
    with pytest.raises(UserError, match=rf"step 9: the loss is {bad}"):
        check_finite(torch.tensor([0.5, bad, bad]), last_step=10)
    assert check_finite(torch.tensor([0.5, 0.25]), last_step=10) == [0.5, 0.25]


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(UserError, match=r"gives \(2, 3, 4, 4\) for images \(2, 1, 4, 4\), not \(2, 2, 4, 4\)"):
        checked_logits(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4), classes=2)


@pytest.mark.parametrize(("step", "left", "epochs"), [(0, 12, [4, 8, 12]), (4, 8, [8, 12]), (6, 6, [8, 12])])
def test_a_run_begins_behind_any_step(step: int, left: int, epochs: list[int]) -> None:
    """Epoch boundaries stay where they are when a run begins in the middle of one."""
    seen: list[int] = []
    ends: list[int] = []
    run = Engine(lambda _, data: data)
    run.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output))
    run.add_event_handler(Events.EPOCH_COMPLETED, lambda e: ends.append(e.state.iteration))
    start_at(run, step, steps_per_epoch=4, epochs=3)
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
    found = validate_model(
        Scale(), (Downscale(2),), CrossEntropy(2), [sample], {"iou": IoU(2), "accuracy": Accuracy(2)}, CPU
    )
    assert found.scores["accuracy"].counts.tolist() == [[62, 62]]
    assert found.scores["iou"].pooled.tolist() == [1.0, 1.0]
    assert list(found.losses) == ["half"] and 0 < found.loss < 1


def test_validation_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), Scale()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    validate_model(model, (), CrossEntropy(2), [Sample(torch.rand(1, 4, 4), batch()[1][0], "x")], {"iou": IoU(2)}, CPU)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_timing_touches_nothing() -> None:
    model, state = Scale(), torch.get_rng_state()
    seconds = seconds_per_step(
        model, CrossEntropy(2), lambda m: adamw(m.parameters()), Options(ema=0.9), lambda step: batch(), CPU, 2, 0.01
    )
    assert seconds > 0
    assert torch.equal(model.weight, torch.ones(1)) and torch.equal(torch.get_rng_state(), state)


def test_timing_counts_an_update_for_as_many_batches_as_training_has() -> None:
    """After two batches to warm up come whole groups of three, at least seven steps of them."""
    asked: list[int] = []
    made: list[torch.optim.Optimizer] = []

    def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
        made.append(adamw(model.parameters()))
        return made[-1]

    def batch_of(step: int) -> tuple[Tensor, Tensor]:
        asked.append(step)
        return batch()

    seconds_per_step(Scale(), CrossEntropy(2), optimizer_of, Options(accumulate=3), batch_of, CPU, 2, 0)
    assert asked == [0, 1, *range(9)]
    (state,) = made[0].state.values()
    assert state["step"] == 3


PRECISIONS: tuple[Precision, Precision] = ("float32", "bfloat16")


def windows(count: int) -> tuple[Tensor, Tensor]:
    """Windows of one channel, 8 × 8, with their labels."""
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, (images[:, 0] > 0.3).long()


def trained(sizes: list[int], options: Options, steps: int) -> OptimizationStep:
    """A U-Net without norm after so many steps on the same ten windows, in batches of these sizes an epoch."""
    torch.manual_seed(0)
    model = UNet(1, 2, width=4, levels=2, norm="none")
    update = OptimizationStep(model, sgd(model.parameters(), 0.1), None, options, CPU)
    images, labels = windows(sum(sizes))
    epoch = list(zip(images.split(sizes), labels.split(sizes), strict=True))
    batches = [epoch[step % len(sizes)] for step in range(steps)]
    make_trainer(update, CrossEntropy(2), AccumulationSchedule(options.accumulate, sizes, steps), 2).run(batches)
    return update


@torch.no_grad()
def apart(one: OptimizationStep, other: OptimizationStep) -> float:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    ("accumulate", "large"), [(2, [8, 2]), (3, [10]), (7, [10])], ids=["pairs", "whole epochs", "more than an epoch"]
)
def test_a_group_of_batches_is_one_large_batch(accumulate: int, large: list[int]) -> None:
    """The smaller batch and the smaller group at the end of an epoch weigh as much as their windows do."""
    grouped = trained([4, 4, 2], Options(accumulate=accumulate), steps=5 * 3)
    at_once = trained(large, Options(), steps=5 * len(large))
    assert apart(grouped, at_once) < 1e-6
    assert apart(at_once, trained(large, Options(), steps=4 * len(large))) > 1e-3


def test_the_group_that_the_run_cuts_short_changes_the_weights() -> None:
    grouped = trained([5, 5], Options(accumulate=2), steps=3)
    update = trained([10], Options(), steps=1)
    assert apart(grouped, update) > 1e-3
    images, labels = windows(10)
    make_trainer(update, CrossEntropy(2), AccumulationSchedule(1, [5], 1), 2).run([(images[:5], labels[:5])])
    assert apart(grouped, update) < 1e-6


def test_mixed_precision_is_for_the_forward_pass_alone() -> None:
    """Logits are bfloat16, the loss is float32 of them, and so are gradients and weights."""
    seen: list[torch.dtype] = []

    class Remembering(CrossEntropy):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            seen.append(logits.dtype)
            return super().forward(logits, labels)

    model = nn.Conv2d(1, 2, 1)
    model.register_forward_hook(lambda module, given, logits: seen.append(logits.dtype))
    update = OptimizationStep(model, adamw(model.parameters()), None, Options(precision="bfloat16"), CPU)
    state = make_trainer(update, Remembering(2), AccumulationSchedule(1, [2], 1), 2).run([batch()])
    assert seen == [torch.bfloat16, torch.float32]
    assert state.output.dtype == torch.float32
    assert {tensor.dtype for p in model.parameters() for tensor in (p, p.grad)} == {torch.float32}


def test_mixed_precision_stays_near_the_full_one() -> None:
    full, mixed = (trained([4, 4, 2], Options(precision=precision), steps=9) for precision in PRECISIONS)
    assert 0 < apart(full, mixed) < 0.01
