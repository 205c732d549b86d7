"""Training options, each by what it changes in a run directory."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import EXPERIMENT, image, quiet, write_data, write_experiment
from torch import Tensor

from yeastexp.config.loading import load_experiment
from yeastexp.data import images
from yeastexp.errors import UserError
from yeastexp.inspection import check
from yeastexp.nets.unet import UNet
from yeastexp.prediction.predict import predict
from yeastexp.prediction.predictor import load_predictor
from yeastexp.training import checkpoints, loop, run
from yeastexp.training.build import assemble
from yeastexp.training.context import RunContext
from yeastexp.training.device import configure_torch
from yeastexp.training.progress import Remade
from yeastexp.training.run_directory import RunDirectory

CPU = torch.device("cpu")
STILL = ["optimizer.learning_rate=1e-12", "model.norm=none"]
"""Weights that move so little that no score does."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(folder: Path, settings: Sequence[str], text: str = EXPERIMENT) -> Path:
    """The run directory of a tiny experiment."""
    if not (folder / "data.h5").exists():
        write_data(folder / "data.h5")
    (folder / "tiny.toml").write_text(text)
    return folder / run.run(folder / "tiny.toml", settings, console=quiet())


def state(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    return checkpoints.load(folder / "checkpoints" / name)


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Accumulation


def test_two_batches_of_four_train_as_one_of_eight(here: Path) -> None:
    """The same twelve windows an epoch: 4 and 4, then 4, or 8, then 4."""
    settings = ["model.norm=none", "patches.per_image=3", "train.epochs=3"]
    text = EXPERIMENT.replace('"adamw"', '"sgd"')
    small = trained(here, [*settings, "train.batch_size=4", "train.accumulation_steps=2"], text)
    large = trained(here, [*settings, "train.batch_size=8"], text)
    assert [int(row["step"]) for row in rows(small)] == [3, 6, 9]
    assert [int(row["step"]) for row in rows(large)] == [2, 4, 6]
    one, other = state(small)["model"], state(large)["model"]
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6
    for small_row, large_row in zip(rows(small), rows(large), strict=True):
        assert small_row["learning_rate"] == large_row["learning_rate"]


def test_the_scheduler_is_told_the_number_of_updates(here: Path) -> None:
    """Of six steps in epochs of four, three: after steps 3, 4 and 6. A row has the rate of its last step."""
    folder = trained(
        here, ["train.steps=6", "train.accumulation_steps=3", "scheduler.name=polynomial", "scheduler.power=1"]
    )
    assert [float(row["learning_rate"]) for row in rows(folder)] == pytest.approx([0.02 / 3, 0.01 / 3])
    assert state(folder)["handlers"]["scheduler"]["last_epoch"] == 3
    assert "6 steps (3 updates) in 2 epochs on " in (folder / "log.txt").read_text()


def test_a_run_out_of_time_finishes_its_group(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "never", lambda step: True)
    folder = trained(here, ["train.accumulation_steps=3"])
    assert (result(folder)["steps"], result(folder)["stopped_by_budget"]) == (3, True)
    assert state(folder)["handlers"]["scheduler"]["last_epoch"] == 1


# Clipping


def test_the_norm_of_gradients_is_logged_with_the_loss(here: Path) -> None:
    folder = trained(here, ["train.max_grad_norm=1e-3", "train.epochs=3"])
    events = EventAccumulator(str(folder)).Reload()
    norms = events.Scalars("train/gradient_norm")
    assert [event.step for event in norms] == [event.step for event in events.Scalars("train/loss")] == [4, 8, 10, 12]
    assert all(event.value > 1e-3 for event in norms), "taken before clipping"
    assert "train/gradient_norm" not in EventAccumulator(str(trained(here, []))).Reload().Tags()["scalars"]


# The average


def test_the_average_is_scored_kept_and_predicted_with_and_leaves_training_alone(here: Path) -> None:
    without, averaged = trained(here, []), trained(here, ["train.ema_decay=0.9"])
    kept = state(averaged)
    assert same(kept["handlers"]["average"]["model"], state(without)["model"]), "training itself is the same"
    assert not same(kept["model"], kept["handlers"]["average"]["model"])
    assert "average" not in state(without)["handlers"]
    assert kept["handlers"]["average"]["updates"] == 8
    assert result(averaged)["last"]["loss"] != result(without)["last"]["loss"]
    best = state(averaged, "best.pt")["model"]
    assert same(load_predictor(averaged, device="cpu").model.state_dict(), best)
    for index in (4, 5):
        images.write_png(here / "in" / f"{index}.png", image(index)["raw"])
    predict(averaged, ["in"], here / "out")
    hits = [((images.read_mask(here / "out" / f"{i}.png") == 255) == (image(i)["gt"] == 1)).mean() for i in (4, 5)]
    assert result(averaged)["val"]["best"]["accuracy"]["all"]["per_image"] == pytest.approx(sum(hits) / 2, abs=1e-12)


def test_another_run_starts_from_the_average(here: Path) -> None:
    first = trained(here, ["train.ema_decay=0.9"])
    second = trained(here, [f"train.init_from='{first}'", "train.ema_decay=0.9", "train.epochs=1", *STILL[:1]])
    kept, start = state(second), state(first, "best.pt")["model"]
    for weights in (kept["model"], kept["handlers"]["average"]["model"]):
        assert max(float((weights[name] - start[name]).abs().max()) for name in start if "weight" in name) < 1e-9


# A share of the initial weights


@pytest.mark.parametrize("average", [[], ["train.ema_decay=0.9"]])
def test_a_share_of_the_initial_weights_is_kept_in_what_is_saved(here: Path, average: list[str]) -> None:
    """What is saved is the mean, by hand, of what training ends with and what it began with; training is the same."""
    start = state(first := trained(here, []), "best.pt")["model"]
    settings = [f"train.init_from='{first}'", *average]
    without, kept = state(trained(here, settings)), state(shared := trained(here, [*settings, "train.init_share=0.25"]))
    end = without["model"]
    assert same(kept["handlers"]["initial share"]["model"], end)
    assert checkpoints.first_difference(kept["optimizer"], without["optimizer"]) is None
    for name, tensor in kept["model"].items():
        expected = 0.75 * end[name] + 0.25 * start[name] if tensor.is_floating_point() else end[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-7)
    assert not same(kept["model"], end)
    assert "the mean of trained and initial weights, the latter at 25 %" in (shared / "log.txt").read_text()
    assert same(load_predictor(shared, device="cpu").model.state_dict(), state(shared, "best.pt")["model"])


def test_weights_that_began_at_random_have_no_share(here: Path) -> None:
    first = trained(here, [])
    text = EXPERIMENT.replace('["background", "cell"]', '["background", "cell", "wall"]')
    for began, mixed in ((f"'{first}'", True), ("random", False)):
        kept = state(trained(here, [f"train.init_from={began}", "train.init_share=0.5"], text))
        assert ("initial share" in kept["handlers"]) == mixed
        if mixed:
            end, mean = kept["handlers"]["initial share"]["model"], kept["model"]
            equal = {name for name in mean if torch.equal(mean[name], end[name])}
            assert {name for name in equal if "tracked" not in name} == {"head.weight", "head.bias"}


# The end of augmentation


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("plain_steps", "remade", "augmented"),
    [(0, None, 20), (3, None, 17), (9, None, 16), (2, Remade(at=10, end=15), 13), (9, Remade(at=14, end=15), 14)],
)
def test_the_last_steps_have_no_augmentations_but_those_that_move_whole_pixels(
    here: Path, workers: int, plain_steps: int, remade: Remade | None, augmented: int
) -> None:
    """Nor those after a change of plan; a run that is resumed makes the same batches."""
    (here / "plain.toml").write_text(EXPERIMENT)
    path = write_experiment(here, EXPERIMENT.replace("[[augment]]", '[[augment]]\nname = "affine"\n[[augment]]', 1))
    settings = ["train.epochs=5", f"train.plain_steps={plain_steps}", f"runtime.workers={workers}"]
    loaded = load_experiment(path, settings)
    context = RunContext(assemble(loaded), RunDirectory(here / "run"), quiet(), 0.0)
    context.build()
    plain = assemble(load_experiment(here / "plain.toml"))
    for begin in (0, 12):
        context.progress.remade = remade if remade and remade.at <= begin else None
        context.start_at(begin)
        for step, (patches, targets) in enumerate(context.rest(), start=begin):
            expected = (context.assembly if step < augmented else plain).sampler.batch(step)
            assert torch.equal(patches, expected[0]) and torch.equal(targets, expected[1]), (begin, step)
            if remade and step + 1 == remade.at:
                context.progress.remade = remade
        assert step == 19
    context.tracker.close()


# Early stopping


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        (["validation.patience=2"], 3),
        (["validation.patience=1"], 2),
        (["validation.patience=2", "validation.monitor=loss", "loss.name=constant"], 2),
        (["validation.patience=2", "validation.every=2"], 6),
    ],
)
def test_a_score_that_does_not_improve_ends_the_run(here: Path, settings: list[str], epochs: int) -> None:
    """The first validation improves on none; that of a loss that is NaN does not."""
    (here / "constant.py").write_text(CONSTANT)
    text = 'plugins = ["constant.py"]\n' + EXPERIMENT
    folder = trained(here, ["train.epochs=9", "validation.every=1", *STILL, *settings], text)
    found = result(folder)
    assert (found["stopped_early"], found["steps"], found["planned_steps"]) == (True, 4 * epochs, 36)
    assert len(rows(folder)) == epochs and rows(folder)[-1]["val/iou/cell"]
    kept = state(folder)
    assert kept["step"] == 4 * epochs and found["stopped_by_budget"] is False
    patience = load_experiment(folder / "experiment.toml").validation.patience
    assert kept["best"]["validations_since"] == patience
    monitor = "loss" if "validation.monitor=loss" in settings else "iou"
    line = f"stopped early at step {4 * epochs}: {monitor} has not improved in {patience} validations"
    assert line in (folder / "log.txt").read_text()


CONSTANT = """
import torch
from yeastexp import loss

@loss("constant")
class Constant(torch.nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()

    def forward(self, logits, labels):
        return logits.sum() * (0.0 if logits.requires_grad else float("nan"))
"""


def test_the_last_step_is_no_early_one(here: Path) -> None:
    found = result(trained(here, ["train.epochs=3", "validation.patience=2", "validation.every=1", *STILL]))
    assert (found["stopped_early"], found["steps"], found["planned_steps"]) == (False, 12, 12)


def test_a_run_that_may_not_stop_early_takes_all_its_steps(here: Path) -> None:
    found = result(trained(here, ["train.epochs=3", "validation.every=1", *STILL]))
    assert (found["stopped_early"], found["steps"], found["planned_steps"]) == (False, 12, 12)


# Precision


def test_training_is_mixed_and_whole_images_are_not(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    forward = UNet.forward

    def remembering(self: UNet, images: Tensor) -> Tensor:
        logits = forward(self, images)
        seen[torch.is_grad_enabled()].add(logits.dtype)
        return logits

    monkeypatch.setattr(UNet, "forward", remembering)
    folder = trained(here, ["train.precision=bfloat16"])
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}}
    assert {tensor.dtype for tensor in state(folder)["model"].values()} == {torch.float32, torch.int64}
    seen[True].clear()
    check.check(here / "tiny.toml", ["train.precision=bfloat16"])
    assert seen[True] == {torch.bfloat16}


def test_float16_without_a_gpu_is_refused_before_anything_is_written(here: Path) -> None:
    path = write_experiment(here)
    settings = ["train.precision=float16", "runtime.device=cpu"]
    for verb in (lambda: check.check(path, settings), lambda: trained(here, settings)):
        with pytest.raises(UserError) as caught:
            verb()
        assert str(caught.value) == "[train] precision: 'float16' trains on a GPU alone; use 'bfloat16' or 'float32'"
    assert not (here / "runs").exists()


# Checkpoints


def test_all_options_at_once_repeat_bit_for_bit(here: Path) -> None:
    settings = [
        "train.ema_decay=0.9",
        "train.max_grad_norm=0.5",
        "train.accumulation_steps=3",
        "train.precision=bfloat16",
    ]
    settings += ["validation.patience=5", "model.dropout=0.2"]
    first = trained(here, settings)
    again = here / run.run(first / "experiment.toml", console=quiet())
    for name in ("last.pt", "best.pt"):
        assert same(state(first, name)["model"], state(again, name)["model"])
        trained_weights = [state(folder, name)["handlers"]["average"]["model"] for folder in (first, again)]
        assert same(*trained_weights)
    assert (first / "result.json").read_bytes() == (again / "result.json").read_bytes()


def test_generators_are_state(here: Path) -> None:
    """What dropout draws next is what the checkpoint would have it draw."""
    found = state(trained(here, ["model.dropout=0.5", "runtime.device=cpu"]))["generators"]
    assert found["cuda"] is None
    expected = torch.rand(3)
    torch.set_rng_state(found["cpu"])
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let training try to save after every step; the steps at which it may."""
    saved: list[int] = []
    attach = loop.attach_handlers

    def then(context: RunContext) -> None:
        def save() -> None:
            with contextlib.suppress(AssertionError):
                checkpoints.save(context.directory.checkpoints / f"{context.step}.pt", context.state_dict())
                saved.append(context.step)

        attach(context)
        context.trainer.add_event_handler(Events.ITERATION_COMPLETED, save)

    monkeypatch.setattr(loop, "attach_handlers", then)
    return saved


def test_no_checkpoint_lies_within_a_group(here: Path, saving: list[int]) -> None:
    trained(here, ["train.accumulation_steps=3", "train.steps=6"])
    assert saving == [3, 4, 6]


def test_a_checkpoint_within_an_epoch_has_all_that_the_rest_of_the_run_depends_on(
    here: Path, saving: list[int]
) -> None:
    settings = [
        "train.ema_decay=0.9",
        "train.max_grad_norm=0.5",
        "train.accumulation_steps=3",
        "train.precision=bfloat16",
    ]
    whole = trained(here, [*settings, "validation.patience=9", "model.dropout=0.2", "runtime.device=cpu"])
    middle = state(whole, "7.pt")
    assembly = assemble(configure_torch(load_experiment(whole / "experiment.toml")))
    rest = RunContext(assembly, RunDirectory(here / "rest"), quiet(), began=0.0)
    loop.continue_from(rest, middle)
    loop.train(rest)
    rest.tracker.close()
    ended, expected = state(rest.folder), state(whole)
    for found in (ended, expected):
        for row in found["rows"]:
            del row["seconds"]
    assert checkpoints.first_difference(ended, expected) is None
