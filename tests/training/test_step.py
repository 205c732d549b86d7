"""The training step: what is raised, which events are fired, where a run begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from yeastexp.contracts import AdditiveLoss
from yeastexp.errors import UserError
from yeastexp.nets.losses import BoundaryCrossEntropy, CrossEntropy, Dice, DiceCrossEntropy, Focal
from yeastexp.nets.optimizers import adamw, sgd
from yeastexp.nets.unet import UNet
from yeastexp.sample import IGNORE
from yeastexp.training.context import start_at
from yeastexp.training.finite import NonFiniteLoss, check_finite
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options, Precision
from yeastexp.training.outputs import checked_outputs
from yeastexp.training.step import TrainingEvents, make_trainer

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
    update = OptimizationStep(model, adamw(model.parameters(), 0.1), Options(), CPU)
    return make_trainer(update, CrossEntropy(2), AccumulationSchedule(1, [2], steps=3), 2)


@pytest.mark.parametrize(
    "value, told",
    [(-2e38, "step 2: the loss is inf; lower"), (float("nan"), "step 2: the patches hold NaN or infinite values; ")],
)
def test_a_loss_that_is_not_finite_leaves_the_weights(value: float, told: str) -> None:
    model = Scale()
    with pytest.raises(NonFiniteLoss, match=told):
        trainer(model).run([batch(), batch(value), batch()])
    after_one = Scale()
    trainer(after_one).run([batch()])
    assert torch.equal(model.weight, after_one.weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_step_is_named(bad: float) -> None:
    with pytest.raises(NonFiniteLoss, match=rf"step 9: the loss is {bad}"):
        check_finite(torch.tensor([0.5, bad, bad]), last_step=10)
    assert check_finite(torch.tensor([0.5, 0.25]), last_step=10) == [0.5, 0.25]


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(UserError, match=r"gives \(2, 3, 4, 4\) for images \(2, 1, 4, 4\), not \(2, 2, 4, 4\)"):
        checked_outputs(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4), channels=2)


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


def fired(engine: Engine) -> list[tuple[TrainingEvents, int]]:
    """The events of updates as they are fired, with the step that fires them."""
    events: list[tuple[TrainingEvents, int]] = []
    for event in (TrainingEvents.GRADIENTS_READY, TrainingEvents.UPDATE_COMPLETED):
        engine.add_event_handler(event, lambda engine, event=event: events.append((event, engine.state.iteration)))
    return events


def test_events_of_an_update_are_fired_once_a_group() -> None:
    """Of batches in pairs, three an epoch: with the second, the third and so on; the gradients come before."""
    model = Scale()
    update = OptimizationStep(model, adamw(model.parameters(), 0.1), Options(), CPU)
    engine = make_trainer(update, CrossEntropy(2), AccumulationSchedule(2, [2, 2, 2], steps=5), 2)
    events, weights = fired(engine), []
    for event in (TrainingEvents.GRADIENTS_READY, TrainingEvents.UPDATE_COMPLETED):
        engine.add_event_handler(event, lambda: weights.append(model.weight.item()))
    engine.run([batch()] * 5)
    ready, completed = TrainingEvents.GRADIENTS_READY, TrainingEvents.UPDATE_COMPLETED
    assert events == [(event, step) for step in (2, 3, 5) for event in (ready, completed)]
    assert engine.state.updates == 3
    assert weights[0] == 1.0 and weights[1] == weights[2] != 1.0 and weights[3] == weights[4] != weights[5]


def test_where_float16_overflows_no_update_is_completed() -> None:
    """1e34 times the first scale of 65536 is beyond float32, times half of it is not."""
    model = Scale()
    optimizer = sgd(model.parameters(), 1e-34, momentum=0, weight_decay=0)
    update = OptimizationStep(model, optimizer, Options("float16"), CPU)
    engine = make_trainer(update, lambda outputs, _: 1e34 * outputs[0, 1, 0, 0], AccumulationSchedule(1, [2], 3), 2)
    events = fired(engine)
    engine.run([batch()] * 3)
    ready, completed = TrainingEvents.GRADIENTS_READY, TrainingEvents.UPDATE_COMPLETED
    assert events == [(ready, 1), (ready, 2), (completed, 2), (ready, 3), (completed, 3)]
    assert engine.state.updates == 2


PRECISIONS: tuple[Precision, Precision] = ("float32", "bfloat16")


def patches(count: int) -> tuple[Tensor, Tensor]:
    """Patches of one channel, 8 × 8, with their labels."""
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, (images[:, 0] > 0.3).long()


def trained(
    sizes: list[int],
    steps: int,
    accumulate: int = 1,
    precision: Precision = "float32",
    loss: Any = None,
    unlabelled: float = 0.0,
) -> OptimizationStep:
    """A U-Net without norm after so many steps on the same ten patches, in batches of these sizes an epoch.

    Of every second patch a share is `unlabelled`, and the third one is so as a whole.
    """
    torch.manual_seed(0)
    model = UNet(1, 2, width=4, levels=2, norm="none")
    update = OptimizationStep(model, sgd(model.parameters(), 0.1), Options(precision), CPU)
    images, labels = patches(sum(sizes))
    labels[1::2, :, : round(8 * unlabelled)] = IGNORE
    labels[2] = IGNORE if unlabelled else labels[2]
    criterion = loss or CrossEntropy(2)
    count = criterion.count if isinstance(criterion, AdditiveLoss) else lambda targets: None
    epoch = list(zip(images.split(sizes), labels.split(sizes), strict=True))
    batches = [epoch[step % len(sizes)] for step in range(steps)]
    make_trainer(update, criterion, AccumulationSchedule(accumulate, sizes, steps), 2, count).run(batches)
    return update


@torch.no_grad()
def apart(one: OptimizationStep, other: OptimizationStep) -> float:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    ("accumulate", "large"), [(2, [8, 2]), (3, [10]), (7, [10])], ids=["pairs", "whole epochs", "more than an epoch"]
)
def test_a_group_of_batches_is_one_large_batch(accumulate: int, large: list[int]) -> None:
    """The smaller batch and the smaller group at the end of an epoch weigh as much as their patches do."""
    grouped = trained([4, 4, 2], 5 * 3, accumulate)
    at_once = trained(large, 5 * len(large))
    assert apart(grouped, at_once) < 1e-6
    assert apart(at_once, trained(large, 4 * len(large))) > 1e-3


ADDITIVE = [
    CrossEntropy(2),
    CrossEntropy(2, (1.0, 20.0)),
    Focal(2),
    BoundaryCrossEntropy(2),
]


@pytest.mark.parametrize("loss", ADDITIVE, ids=repr)
@pytest.mark.parametrize(
    ("accumulate", "small", "large"), [(5, [2] * 5, [10]), (10, [1] * 10, [10]), (2, [4, 4, 2], [8, 2])]
)
def test_every_labelled_pixel_weighs_the_same_in_whichever_batch(
    loss: Any, accumulate: int, small: list[int], large: list[int]
) -> None:
    """Some patches are labelled in a narrow part alone, or not at all."""
    grouped = trained(small, 5 * len(small), accumulate, loss=loss, unlabelled=0.75)
    at_once = trained(large, 5 * len(large), loss=loss, unlabelled=0.75)
    assert apart(grouped, at_once) < 1e-6


def test_a_loss_that_is_no_mean_over_pixels_weighs_batches_by_their_patches() -> None:
    """Dice; and the gradients of a group without a labelled pixel are 0, not NaN."""
    assert not isinstance(Dice(2), AdditiveLoss) and not isinstance(DiceCrossEntropy(2), AdditiveLoss)
    one, other = (trained([2] * 5, 5, 5, loss=Dice(2), unlabelled=share) for share in (0.0, 0.75))
    assert apart(one, other) > 1e-4
    model = Scale()
    update = OptimizationStep(model, sgd(model.parameters(), 0.1, weight_decay=0), Options(), CPU)
    loss = CrossEntropy(2)
    trainer = make_trainer(update, loss, AccumulationSchedule(2, [2, 2], 2), 2, loss.count)
    trainer.run([(batch()[0], torch.full((2, 4, 4), IGNORE))] * 2)
    assert trainer.state.updates == 1 and model.weight.item() == 1.0


def test_the_group_that_the_run_cuts_short_changes_the_weights() -> None:
    grouped = trained([5, 5], 3, accumulate=2)
    update = trained([10], 1)
    assert apart(grouped, update) > 1e-3
    images, labels = patches(10)
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
    update = OptimizationStep(model, adamw(model.parameters()), Options(precision="bfloat16"), CPU)
    state = make_trainer(update, Remembering(2), AccumulationSchedule(1, [2], 1), 2).run([batch()])
    assert seen == [torch.bfloat16, torch.float32]
    assert state.output.dtype == torch.float32
    assert {tensor.dtype for p in model.parameters() for tensor in (p, p.grad)} == {torch.float32}


def test_mixed_precision_stays_near_the_full_one() -> None:
    full, mixed = (trained([4, 4, 2], 9, precision=precision) for precision in PRECISIONS)
    assert 0 < apart(full, mixed) < 0.01
