"""A run under way: the handlers of its trainer, and what they keep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from yeastexp import assemble, baselines, checkpoints, engine, pictures, tracking
from yeastexp.assemble import Assembly
from yeastexp.checkpoints import Best
from yeastexp.engine import Validation
from yeastexp.sample import Sample
from yeastexp.tracking import Summary, Tracker
from yeastexp.updates import Groups, Options, Update

LOG_EVERY = 10
"""Steps between readings of the loss, which make the program wait for a GPU."""

PICTURES = 3
"""Validation images in the picture that TensorBoard shows, spread over the split."""

PICTURE_TIMES = 10
"""Pictures a run writes at most: TensorBoard grows slow with many."""


def options_of(assembly: Assembly) -> Options:
    """How the weights of an experiment change; UserError where its device cannot do so."""
    train = assembly.experiment.train
    return Options(train.accumulate, train.clip_norm, train.ema, train.precision).check(assembly.device)


def groups_of(assembly: Assembly, steps: int) -> Groups:
    """Which batches of a run of so many steps change the weights together."""
    windows, batch = len(assembly.stream.plan.images), assembly.stream.size
    sizes = [min(batch, windows - first) for first in range(0, windows, batch)]
    return Groups(assembly.experiment.train.accumulate, sizes, steps)


def validate(
    assembly: Assembly, model: nn.Module, split: str = "val", look: Callable[[Sample, Tensor], None] | None = None
) -> Validation:
    """A model's scores and losses on the whole images of a split."""
    samples = assembly.samples(split)
    return engine.validate(model, assembly.transforms, assembly.loss, samples, assembly.metrics, assembly.device, look)


def scored_baselines(assembly: Assembly) -> dict[str, Summary]:
    """What answers without learning, fitted on the training images, get on the validation images."""
    fitted = baselines.fit(assembly.samples("train"), assembly.classes)
    return {name: _score_baseline(assembly, answer) for name, answer in fitted.items()}


def _score_baseline(assembly: Assembly, answer: baselines.Answer) -> Summary:
    found = engine.score(
        lambda sample: answer(sample.image), assembly.samples("val"), assembly.metrics, torch.device("cpu")
    )
    return tracking.summarise(found, assembly.classes)


def panel(sample: Sample, prediction: Tensor) -> pictures.Picture:
    """Image, truth, prediction and where they differ, side by side, as (H, W, 3) uint8."""
    return pictures.panel(sample.image.numpy(), sample.labels.numpy(), prediction.cpu().numpy())


@dataclass
class Training:
    """A run under way: the handlers of its trainer, and what they keep."""

    assembly: Assembly
    options: Options
    folder: Path
    baselines: dict[str, Summary] | None
    console: Console
    began: float
    deadline: float = math.inf
    step: int = 0
    stopped_by_budget: bool = False
    stopped_early: bool = False
    pending: list[Tensor] = field(default_factory=list)
    epoch_losses: list[float] = field(default_factory=list)
    last_validation: Validation | None = None
    best_validation: Validation | None = None

    def start(self) -> None:
        """Make what training needs beside the parts, and the first checkpoint."""
        experiment = self.assembly.experiment
        train = experiment.train
        self.epoch_length = self.assembly.stream.steps_per_epoch
        self.steps = self.planned_steps = train.steps or (train.epochs or 0) * self.epoch_length
        self.epochs = -(-self.steps // self.epoch_length)
        self.groups = groups_of(self.assembly, self.steps)
        metric = self.assembly.metrics.get(experiment.monitor)
        self.best = Best(higher_is_better=metric.higher_is_better if metric else False)
        self.tracker = Tracker(self.folder)
        self.tracker.text("experiment", experiment.resolved())
        self.tracker.log(
            f"{self.steps} steps ({self.groups.updates} updates) in {self.epochs} epochs on {self.assembly.device}"
        )
        if train.initial:
            self.tracker.log(checkpoints.start_from(self.assembly.model, train.initial, self.assembly.device))
        self.update = self.first_update()
        shown = list(self.assembly.dataset.splits["val"])
        self.pictured = shown[:: max(1, -(-len(shown) // PICTURES))]
        self.save("last.pt")

    def first_update(self) -> Update:
        """What changes the weights that the model has now."""
        model = self.assembly.model
        optimizer = self.assembly.optimizer(model)
        scheduler = self.assembly.scheduler(optimizer, self.groups.updates)
        return Update(model, optimizer, scheduler, self.options, self.assembly.device)

    def train(self) -> None:
        """Run the trainer to its last step."""
        assembly = self.assembly
        trainer = engine.trainer(self.update, assembly.loss, self.groups, len(assembly.classes))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.after_step)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.after_epoch)
        engine.start_at(trainer, self.step, self.epoch_length, self.epochs)
        assembly.model.train()
        batches = assembly.stream.batches(self.step, self.steps, assembly.experiment.train.workers)
        self.epoch_began = time.monotonic()
        with _progress(self.console) as self.progress:
            self.bar = self.progress.add_task("training", total=self.steps, loss="", score="")
            try:
                trainer.run(batches)
            finally:
                batches.close()  # type: ignore[attr-defined]  # ends the worker processes

    def after_step(self, trainer: Engine) -> None:
        """Count, read the losses at intervals, and end the last epoch where it is a part of one."""
        self.step += 1
        loss: Any = trainer.state.output
        self.pending.append(loss)
        if self.step == 1:
            self.tracker.log(f"first step done {time.monotonic() - self.began:.1f} s after the start of the command")
        if self.step % LOG_EVERY == 0:
            self.read_losses()
        late = time.monotonic() > self.deadline and self.groups.ends(self.step)
        self.stopped_by_budget = late and self.step < self.steps
        if (self.step == self.steps or self.stopped_by_budget) and self.step % self.epoch_length:
            trainer.terminate_epoch()
        if self.stopped_by_budget:
            self.steps = self.step

    def read_losses(self) -> None:
        """Bring the losses, and the norms of the gradients, since the last reading to the host."""
        if not self.pending:
            return
        values = engine.check_finite(torch.stack(self.pending), self.step)
        self.pending.clear()
        self.epoch_losses += values
        loss = math.fsum(values) / len(values)
        self.tracker.training(self.step, loss, self.learning_rate, [float(norm) for norm in self.update.norms])
        self.update.norms.clear()
        self.progress.update(self.bar, completed=self.step, loss=f"loss {loss:.3f}")

    @property
    def learning_rate(self) -> float:
        """That of the next update, in the first group of parameters."""
        rate: float = self.update.optimizer.param_groups[0]["lr"]
        return rate

    def after_epoch(self, trainer: Engine) -> None:
        """Validate when it is time, keep checkpoints, and write the epoch's row."""
        self.read_losses()
        epoch = -(-self.step // self.epoch_length)
        row: dict[str, Any] = {"epoch": epoch, "step": self.step}
        row["train/loss"] = math.fsum(self.epoch_losses) / len(self.epoch_losses)
        row["learning_rate"] = self.learning_rate
        self.epoch_losses.clear()
        if epoch % self.assembly.validate_every == 0 or self.step == self.steps:
            row |= self.validate(epoch)
            self.stop_early()
        self.save("last.pt")
        row["seconds"] = round(time.monotonic() - self.epoch_began, 2)
        self.epoch_began = time.monotonic()
        self.tracker.epoch(row)
        if self.stopped_by_budget or self.stopped_early:
            trainer.terminate()

    def validate(self, epoch: int) -> dict[str, float]:
        """Scores on the whole validation images; the best checkpoint follows the monitored one."""
        every = self.assembly.validate_every
        times = -(-self.epochs // every)
        pictured = (-(-epoch // every)) % max(1, -(-times // PICTURE_TIMES)) == 0 or self.step == self.steps
        panels: dict[str, Any] = {}

        def look(sample: Sample, prediction: Tensor) -> None:
            if pictured and sample.name in self.pictured:
                panels[sample.name] = panel(sample, prediction)

        self.last_validation = validation = validate(self.assembly, self.update.measured, look=look)
        summary = tracking.summarise(validation.scores, self.assembly.classes)
        if self.baselines is None:  # fitted so late that the first step need not wait for it
            self.baselines = scored_baselines(self.assembly)
        self.tracker.validation(self.step, validation.loss, summary, self.baselines)
        if panels:
            self.tracker.picture(self.step, pictures.stacked(list(panels.values())))
        monitor = self.assembly.experiment.monitor
        value = validation.loss if monitor == "loss" else tracking.monitored(summary, monitor)
        if self.best.improves(value, self.step):
            self.best_validation = validation
            self.save("best.pt")
        self.tracker.log(f"step {self.step}: val/loss {validation.loss:.4f}, {monitor} {value:.4f}")
        self.progress.update(self.bar, score=f"{monitor} {value:.4f}")
        return {"val/loss": validation.loss, **tracking.tags(summary)}

    def stop_early(self) -> None:
        """Let this epoch be the last where validations have not improved for long enough."""
        patience, since = self.assembly.experiment.train.early_stopping, self.best.validations_since
        self.stopped_early = patience is not None and since >= patience and self.step < self.steps
        if self.stopped_early:
            self.steps = self.step
            monitor = self.assembly.experiment.monitor
            self.tracker.log(f"stopped early at step {self.step}: {monitor} has not improved in {since} validations")

    def save(self, name: str) -> None:
        """Write a checkpoint of this moment, which lies between two groups of batches: gradients are no state."""
        assert self.groups.ends(self.step), f"step {self.step} is within a group"
        state = {
            **self.update.state_dict(),
            "generators": checkpoints.generators(self.assembly.device),
            "step": self.step,
            "losses": {"epoch": self.epoch_losses, "unread": [loss.clone() for loss in self.pending]},
            "best": vars(self.best),
            "normalization": self.assembly.dataset.normalization,
            "transforms": assemble.figures_of(self.assembly.transforms),
        }
        checkpoints.save(self.folder / "checkpoints" / name, state)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]} {task.fields[score]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
