"""A run under way: the handlers of its trainer, and its state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from rich import progress as bars
from rich.console import Console
from torch import Tensor

from yeastexp.data import patches
from yeastexp.drawing import pictures
from yeastexp.metrics.summary import Summary, monitored, summarise, tags
from yeastexp.sample import Sample
from yeastexp.system.interruption import Interruption
from yeastexp.training import build, checkpoints, contact_sheet
from yeastexp.training.build import Assembly, Values
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options
from yeastexp.training.profiling import Profile
from yeastexp.training.progress import Best, Progress
from yeastexp.training.step import check_finite, make_trainer, start_at
from yeastexp.training.tensorboard import Tracker
from yeastexp.training.validation import panel, scored_baselines, validate

LOG_EVERY = 10
"""Steps between readings of the loss, which make the program wait for a GPU."""

PICTURES = 3
"""Validation images in the picture that TensorBoard shows, spread over the split."""

PICTURE_TIMES = 10
"""Pictures a run writes at most: TensorBoard grows slow with many."""


def options_of(assembly: Assembly) -> Options:
    """How the weights of an experiment change; UserError where its device cannot do so."""
    train = assembly.experiment.train
    compile = assembly.experiment.runtime.compile
    options = Options(train.accumulation_steps, train.max_grad_norm, train.ema_decay, train.precision, compile)
    return options.check(assembly.device)


def groups_of(assembly: Assembly, steps: int) -> AccumulationSchedule:
    """Which batches of a run of so many steps change the weights together."""
    count, batch = len(assembly.sampler.plan.images), assembly.sampler.size
    sizes = [min(batch, count - first) for first in range(0, count, batch)]
    return AccumulationSchedule(assembly.experiment.train.accumulation_steps, sizes, steps)


def never(step: int) -> bool:
    """No step is too late."""
    return False


@dataclass
class Training:
    """A run under way: the handlers of its trainer, and its state.

    It ends when its steps are done, early, or where a step was `late` (`over`); or it pauses, after a checkpoint, at
    step `until` or when interrupted.
    """

    assembly: Assembly
    folder: Path
    console: Console
    began: float
    late: Callable[[int], bool] = never
    interruption: Interruption = field(default_factory=Interruption)
    until: int | None = None
    baselines: dict[str, Summary] | None = None
    profiled: int = 0
    unread: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        experiment, stream = self.assembly.experiment, self.assembly.sampler
        self.epoch_length = stream.steps_per_epoch
        self.steps = experiment.train.steps or (experiment.train.epochs or 0) * self.epoch_length
        self.epochs = -(-self.steps // self.epoch_length)
        self.groups = groups_of(self.assembly, self.steps)
        metric = self.assembly.metrics.get(experiment.monitor)
        self.progress = Progress(Best(higher_is_better=metric.higher_is_better if metric else False))
        self.options = options_of(self.assembly)
        shown = list(self.assembly.dataset.splits["val"])
        self.values = self.assembly.images.values
        self.pictured = shown[:: max(1, -(-len(shown) // PICTURES))]

    def begin(self) -> None:
        """Make what training needs beside the parts, and the first checkpoint."""
        self.tracker = Tracker(self.folder)
        self.tracker.text("experiment", self.assembly.experiment.resolved())
        updates = f"{self.steps} steps ({self.groups.updates} updates) in {self.epochs} epochs"
        self.tracker.log(f"{updates} on {self.assembly.device}")
        self.tracker.log(self.assembly.images.where)
        if initial := self.assembly.experiment.train.init_from:
            self.tracker.log(checkpoints.start_from(self.assembly.model, initial))
        self.update = self.first_update()
        self.save()

    def go_on(self, state: dict[str, Any], place: Path) -> None:
        """Be where a checkpoint was; UserError names it where it is of another experiment."""
        checkpoints.load_weights(self.assembly.model, state["model"], place)
        self.update = self.first_update()
        self.update.load_state_dict(state)
        self.progress.load_state_dict(state)
        if state["values"]:  # images that are read again and again were not all looked at
            self.values = Values(**state["values"])
        self.unread = [loss.to(self.assembly.device) for loss in state["unread"]]
        checkpoints.set_generators(state["generators"], self.assembly.device)
        self.tracker = Tracker(self.folder, after_step=self.progress.step)
        self.tracker.epochs(self.progress.rows)

    def first_update(self) -> OptimizationStep:
        """What changes the weights that the model has now."""
        model = self.assembly.model
        optimizer = self.assembly.optimizer(model)
        scheduler = self.assembly.scheduler(optimizer, self.groups.updates)
        return OptimizationStep(model, optimizer, scheduler, self.options, self.assembly.device)

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.progress.step

    @property
    def over(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.steps or self.progress.stopped is not None

    @property
    def epoch_ends(self) -> bool:
        """Whether the step that was done was the last of an epoch, or of the run."""
        return self.step % self.epoch_length == 0 or self.over

    def train(self) -> None:
        """Run the trainer until it is over or pauses."""
        if self.over:
            return
        assembly = self.assembly
        trainer = make_trainer(self.update, assembly.loss, self.groups, len(assembly.classes))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.after_step)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.after_epoch)
        if self.profiled:
            Profile(self.profiled, self.folder, self.console).attach(trainer)
        self.tracker.flush()  # so that no worker process is forked while a file is written
        start_at(trainer, self.step, self.epoch_length, self.epochs)
        assembly.model.train()
        pinned = self.update.device.type == "cuda"
        made = assembly.sampler.batches(self.step, self.steps, assembly.experiment.runtime.workers, pinned=pinned)
        self.epoch_began = self.saved = time.monotonic()
        with _bar(self.console) as self.bar:
            self.task = self.bar.add_task("training", total=self.steps, completed=self.step, loss="", score="")
            self.interruption.gently = True
            try:
                trainer.run(patches.prefetch_to_device(made, self.update.device))
            finally:
                self.interruption.gently = False
                made.close()  # type: ignore[attr-defined]  # ends the worker processes

    def after_step(self, trainer: Engine) -> None:
        """Count, read the losses at intervals, and end the last epoch where it is a part of one."""
        self.progress.step += 1
        loss: Any = trainer.state.output
        self.unread.append(loss)
        if self.step == 1:
            self.tracker.log(f"first step done {time.monotonic() - self.began:.1f} s after the start of the command")
        if self.step % LOG_EVERY == 0:
            self.read_losses()
        if not self.groups.ends(self.step):
            return
        if self.late(self.step) and self.step < self.steps:
            self.progress.stopped = "by budget"
        if not self.epoch_ends:
            self.save_within_epoch(trainer)
        elif self.step % self.epoch_length:
            trainer.terminate_epoch()

    def save_within_epoch(self, trainer: Engine) -> None:
        """Keep a checkpoint where the last one is old, or where training pauses."""
        minutes = self.assembly.experiment.runtime.checkpoint_minutes
        if self.pauses or time.monotonic() > self.saved + 60 * minutes:
            if self.unread:  # weights that are no numbers would be what every resumption begins with
                check_finite(torch.stack(self.unread), self.step)
            self.save()
        if self.pauses:
            trainer.terminate()

    @property
    def pauses(self) -> bool:
        """Whether training is to stop here and to be taken up again."""
        return self.interruption.wanted or self.step == self.until

    def read_losses(self) -> None:
        """Bring the losses, and the norms of the gradients, since the last reading to the host."""
        if not self.unread:
            return
        values = check_finite(torch.stack(self.unread), self.step)
        self.unread.clear()
        self.progress.epoch_losses += values
        loss = math.fsum(values) / len(values)
        self.tracker.training(self.step, loss, self.learning_rate, [float(norm) for norm in self.update.norms])
        self.update.norms.clear()
        self.bar.update(self.task, completed=self.step, loss=f"loss {loss:.3f}")

    @property
    def learning_rate(self) -> float:
        """That of the next update, in the first group of parameters."""
        rate: float = self.update.optimizer.param_groups[0]["lr"]
        return rate

    def after_epoch(self, trainer: Engine) -> None:
        """Validate when it is time, write the epoch's row, and keep a checkpoint."""
        self.read_losses()
        epoch = -(-self.step // self.epoch_length)
        row: dict[str, Any] = {"epoch": epoch, "step": self.step}
        row["train/loss"] = math.fsum(self.progress.epoch_losses) / len(self.progress.epoch_losses)
        row["learning_rate"] = self.learning_rate
        self.progress.epoch_losses.clear()
        if epoch % self.assembly.validate_every == 0 or self.over:
            row |= self.validate(epoch)
            self.stop_early()
        row["seconds"] = round(time.monotonic() - self.epoch_began, 2)
        self.epoch_began = time.monotonic()
        self.progress.rows.append(row)
        self.save()
        self.tracker.epochs(self.progress.rows)
        if self.over or self.pauses:
            trainer.terminate()

    def validate(self, epoch: int) -> dict[str, float]:
        """Scores on the whole validation images; the best checkpoint follows the monitored one."""
        every = self.assembly.validate_every
        times = -(-self.epochs // every)
        pictured = (-(-epoch // every)) % max(1, -(-times // PICTURE_TIMES)) == 0 or self.over
        panels: dict[str, Any] = {}

        def look(sample: Sample, prediction: Tensor) -> None:
            if pictured and sample.name in self.pictured:
                panels[sample.name] = panel(sample, prediction)

        if self.progress.last_validation is None:  # so late that the first step need not wait for it
            self.tracker.picture(self.step, contact_sheet.draw_contact_sheet(self.assembly), "train/preview")
        validation = validate(self.assembly, self.update.measured, look=look)
        self.progress.last_validation = validation
        summary = summarise(validation.scores, self.assembly.classes)
        self.tracker.validation(self.step, validation.loss, summary, self.scored_baselines())
        if panels:
            self.tracker.picture(self.step, pictures.stacked(list(panels.values())))
        monitor = self.assembly.experiment.monitor
        value = validation.loss if monitor == "loss" else monitored(summary, monitor)
        if self.progress.best.improves(value, self.step):
            self.progress.best_validation = validation
            self.save_best()
        self.tracker.log(f"step {self.step}: val/loss {validation.loss:.4f}, {monitor} {value:.4f}")
        self.bar.update(self.task, score=f"{monitor} {value:.4f}")
        return {"val/loss": validation.loss, **tags(summary)}

    def scored_baselines(self) -> dict[str, Summary]:
        """What two answers without learning get; fitted so late that the first step need not wait for it."""
        if self.baselines is None:
            self.baselines = scored_baselines(self.assembly)
        return self.baselines

    def stop_early(self) -> None:
        """Let this epoch be the last where validations have not improved for long enough."""
        patience, since = self.assembly.experiment.validation.patience, self.progress.best.validations_since
        if patience is not None and since >= patience and not self.over:
            self.progress.stopped = "early"
            monitor = self.assembly.experiment.monitor
            self.tracker.log(f"stopped early at step {self.step}: {monitor} has not improved in {since} validations")

    def save(self) -> None:
        """Keep a checkpoint of this moment."""
        checkpoints.save_next(self.folder, self.state_dict())
        self.saved = time.monotonic()

    def save_best(self) -> None:
        """Keep a checkpoint of this moment as the best; rows have times in them, which would differ from run to run."""
        checkpoints.save(self.folder / checkpoints.FOLDER / checkpoints.BEST, {**self.state_dict(), "rows": []})

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, between two groups of batches: gradients are no state."""
        assert self.groups.ends(self.step), f"step {self.step} is within a group"
        return {
            **self.update.state_dict(),
            **self.progress.state_dict(),
            "generators": checkpoints.generators(self.assembly.device),
            "unread": list(self.unread),
            "normalization": self.assembly.dataset.normalization,
            "transforms": build.figures_of(self.assembly.transforms),
            "values": asdict(self.values) if self.values else None,
        }


def _bar(console: Console) -> bars.Progress:
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[loss]} {task.fields[score]}"),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
