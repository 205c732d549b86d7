"""From an experiment file to a run directory."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from yeastexp import (
    assemble,
    baselines,
    checkpoints,
    engine,
    environment,
    experiment,
    files,
    images,
    pictures,
    tracking,
)
from yeastexp.assemble import Assembly
from yeastexp.checkpoints import Best
from yeastexp.engine import Validation
from yeastexp.errors import UserError
from yeastexp.experiment import Experiment
from yeastexp.sample import Sample
from yeastexp.tracking import Summary, Tracker

LOG_EVERY = 10
"""Steps between readings of the loss, which make the program wait for a GPU."""

PICTURES = 3
"""Validation images in the picture that TensorBoard shows, spread over the split."""

PICTURE_TIMES = 10
"""Pictures a run writes at most: TensorBoard grows slow with many."""

RESERVE = 0.06
"""Share of a time budget kept for a machine that slows down."""

TIMING = 0.02
"""Share of a time budget that finds out how long a step takes."""

CLOSING = 0.01
CLOSING_SECONDS = 5.0
"""Kept of a time budget, with that share of it, for tables, pictures and files at the end and for leaving Python."""


def run(path: Path, settings: Sequence[str] = (), *, started: float | None = None, console: Console) -> Path:
    """Train the experiment of a file, measure it and return its run directory.

    `started` is the monotonic clock at the start of the command, from which a `budget` counts.
    """
    began = time.monotonic() if started is None else started
    loaded = fixed_threads(experiment.load(path, settings))
    assembly = assemble.assemble(loaded)
    deadline = began + experiment.seconds(loaded.train.budget) if loaded.train.budget else math.inf
    without_learning = scored_baselines(assembly) if loaded.train.budget else None  # they count as well
    counted, last_step_by = counted_steps(assembly, deadline)
    assembly = replace(assembly, experiment=counted)
    folder = files.claim_directory(Path("runs") / loaded.name)
    described = _open_directory(folder, assembly)
    training = Training(assembly, folder, without_learning, console, began, last_step_by)
    training.start()
    try:
        training.train()
        finish(training)
    except BaseException as error:
        training.tracker.log(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        training.tracker.close()
        written = environment.ended(described, time.monotonic() - began)
        files.write_text(folder / "environment.json", json.dumps(written, indent=1))
    return folder


def fixed_threads(loaded: Experiment) -> Experiment:
    """The experiment with its number of compute threads written down and in force; it changes the last bits."""
    threads = loaded.train.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    if loaded.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(loaded.train.deterministic, warn_only=True)
    # Measured: filling takes a quarter of the time of a forward pass, and nothing here reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    return replace(loaded, train=replace(loaded.train, threads=threads))


def counted_steps(assembly: Assembly, deadline: float) -> tuple[Experiment, float]:
    """The experiment with a time budget turned into the number of steps that fits it, and when the last one must end.

    Steps and validations are timed on throwaway copies. A machine that slows down later cuts the run short at that
    moment, for the command keeps its time; the result says so.
    """
    train = assembly.experiment.train
    if not train.budget:
        return assembly.experiment, deadline
    step = engine.seconds_per_step(
        assembly.model,
        assembly.loss,
        assembly.optimizer,
        assembly.stream.batch,
        assembly.device,
        len(assembly.classes),
        seconds=TIMING * experiment.seconds(train.budget),
    )
    validation = min(_seconds(lambda: _validate(assembly)) for _ in range(2))
    deadline -= CLOSING_SECONDS + CLOSING * experiment.seconds(train.budget)
    deadline -= validation * (1 + assembly.pixels("test") / assembly.pixels("val"))
    left = deadline - time.monotonic() - RESERVE * experiment.seconds(train.budget)
    steps = int(left / (step + validation / (assembly.validate_every * assembly.stream.steps_per_epoch)))
    if steps < 1:
        raise UserError(
            f"[train] budget: {train.budget} is too short; a step takes {step:.2f} s, a validation {validation:.1f} s"
        )
    return replace(assembly.experiment, train=replace(train, budget=None, steps=steps)), deadline


def _seconds(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def _validate(assembly: Assembly, look: Callable[[Sample, Tensor], None] | None = None) -> Validation:
    return engine.validate(
        assembly.model,
        assembly.transforms,
        assembly.loss,
        assembly.samples("val"),
        assembly.metrics,
        assembly.device,
        look,
    )


def scored_baselines(assembly: Assembly) -> dict[str, Summary]:
    """What answers without learning, fitted on the training images, get on the validation images."""
    fitted = baselines.fit(assembly.samples("train"), assembly.classes)
    return {name: _score_baseline(assembly, answer) for name, answer in fitted.items()}


def _score_baseline(assembly: Assembly, answer: baselines.Answer) -> Summary:
    found = engine.score(
        lambda sample: answer(sample.image), assembly.samples("val"), assembly.metrics, torch.device("cpu")
    )
    return tracking.summarise(found, assembly.classes)


def _open_directory(folder: Path, assembly: Assembly) -> dict[str, Any]:
    """The resolved experiment, its plugins and its environment, in place before the first step."""
    loaded = assembly.experiment
    resolved = loaded.resolved()
    files.write_text(folder / "experiment.toml", resolved)
    for plugin in loaded.plugins:
        (folder / "plugins").mkdir(exist_ok=True)
        shutil.copy2(plugin, folder / "plugins" / plugin.name)
    inputs = [value for value in loaded.dataset.options.values() if isinstance(value, Path)]
    described = environment.describe(assembly.device, resolved, inputs, loaded.plugins)
    files.write_text(folder / "environment.json", json.dumps(described, indent=1))
    return described


@dataclass
class Training:
    """A run under way: the handlers of its trainer, and what they keep."""

    assembly: Assembly
    folder: Path
    baselines: dict[str, Summary] | None
    console: Console
    began: float
    deadline: float = math.inf
    step: int = 0
    stopped: bool = False
    pending: list[Tensor] = field(default_factory=list)
    epoch_losses: list[float] = field(default_factory=list)
    last_validation: Validation | None = None
    best_validation: Validation | None = None

    def start(self) -> None:
        """Make what training needs beside the parts, and the first checkpoint."""
        experiment_ = self.assembly.experiment
        train = experiment_.train
        self.epoch_length = self.assembly.stream.steps_per_epoch
        self.steps = train.steps or (train.epochs or 0) * self.epoch_length
        self.epochs = -(-self.steps // self.epoch_length)
        self.optimizer = self.assembly.optimizer(self.assembly.model)
        self.scheduler = self.assembly.scheduler(self.optimizer, self.steps)
        metric = self.assembly.metrics.get(experiment_.monitor)
        self.best = Best(higher_is_better=metric.higher_is_better if metric else False)
        self.tracker = Tracker(self.folder)
        self.tracker.text("experiment", experiment_.resolved())
        self.tracker.log(f"{self.steps} steps in {self.epochs} epochs on {self.assembly.device}")
        if train.initial:
            self.tracker.log(checkpoints.start_from(self.assembly.model, train.initial, self.assembly.device))
        shown = list(self.assembly.dataset.splits["val"])
        self.pictured = shown[:: max(1, -(-len(shown) // PICTURES))]
        self.save("last.pt")

    def train(self) -> None:
        """Run the trainer to its last step."""
        assembly = self.assembly
        trainer = engine.trainer(
            assembly.model, assembly.loss, self.optimizer, self.scheduler, assembly.device, len(assembly.classes)
        )
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
        self.stopped = self.step < self.steps and time.monotonic() > self.deadline
        if (self.step == self.steps or self.stopped) and self.step % self.epoch_length:
            trainer.terminate_epoch()
        if self.stopped:
            self.steps = self.step

    def read_losses(self) -> None:
        """Bring the losses since the last reading to the host."""
        if not self.pending:
            return
        values = engine.check_finite(torch.stack(self.pending), self.step)
        self.pending.clear()
        self.epoch_losses += values
        loss = math.fsum(values) / len(values)
        self.tracker.training(self.step, loss, self.optimizer.param_groups[0]["lr"])
        self.progress.update(self.bar, completed=self.step, loss=f"loss {loss:.3f}")

    def after_epoch(self, trainer: Engine) -> None:
        """Validate when it is time, keep checkpoints, and write the epoch's row."""
        self.read_losses()
        epoch = -(-self.step // self.epoch_length)
        row: dict[str, Any] = {"epoch": epoch, "step": self.step}
        row["train/loss"] = math.fsum(self.epoch_losses) / len(self.epoch_losses)
        row["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.epoch_losses.clear()
        if epoch % self.assembly.validate_every == 0 or self.step == self.steps:
            row |= self.validate(epoch)
        self.save("last.pt")
        row["seconds"] = round(time.monotonic() - self.epoch_began, 2)
        self.epoch_began = time.monotonic()
        self.tracker.epoch(row)
        if self.stopped:
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

        self.last_validation = validation = _validate(self.assembly, look)
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

    def save(self, name: str) -> None:
        """Write a checkpoint of this moment."""
        state = {
            "model": self.assembly.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "generator": torch.get_rng_state(),
            "step": self.step,
            "best": vars(self.best),
            "normalization": self.assembly.dataset.normalization,
            "transforms": assemble.figures_of(self.assembly.transforms),
        }
        checkpoints.save(self.folder / "checkpoints" / name, state)


def panel(sample: Sample, prediction: Tensor) -> pictures.Picture:
    """Image, truth, prediction and where they differ, side by side, as (H, W, 3) uint8."""
    return pictures.panel(sample.image.numpy(), sample.labels.numpy(), prediction.cpu().numpy())


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


def finish(training: Training) -> None:
    """Scores of best and last, the test split once, pictures, tables and `result.json`."""
    assembly, folder = training.assembly, training.folder
    last = training.last_validation
    assert last is not None and training.baselines is not None, "the last step always validates"
    best = training.best_validation or last
    if training.best.value is None:
        training.save("best.pt")
    state = checkpoints.load(folder / "checkpoints" / "best.pt", assembly.device)
    assembly.model.load_state_dict(state["model"])
    found = {"best": best.scores, "last": last.scores}
    summaries = {name: tracking.summarise(scores, assembly.classes) for name, scores in found.items()}
    rows = [{"split": "val", **row} for row in tracking.image_rows(list(best.losses), best.scores, assembly.classes)]
    result: dict[str, Any] = {
        "name": assembly.experiment.name,
        "steps": training.step,
        "stopped_by_budget": training.stopped,
        "monitor": assembly.experiment.monitor,
        "best": {"step": training.best.step, "value": training.best.value, "loss": best.loss},
        "last": {"step": training.step, "loss": last.loss},
        "val": {"selected_on_these_images": True, **summaries},
        "baselines": training.baselines,
    }
    chosen = f"best checkpoint (step {training.best.step}), selected on these images"
    title = f"{len(best.losses)} validation images; {chosen}"
    tables = [tracking.final_table(title, summaries["best"], summaries["last"], training.baselines)]
    if assembly.dataset.splits.get("test"):
        test = _test(assembly)
        result["test"] = tracking.summarise(test.scores, assembly.classes)
        test_rows = tracking.image_rows(list(test.losses), test.scores, assembly.classes)
        rows += [{"split": "test", **row} for row in test_rows]
        tables.append(tracking.final_table(f"test images ({len(test.losses)}), scored once", result["test"], None, {}))
    files.write_text(folder / "per_image.csv", tracking.as_csv(rows))
    files.write_text(folder / "result.json", json.dumps(result, indent=1))
    training.tracker.outcome(assembly.experiment.options(), tracking.tags(summaries["best"]), training.step)
    _write_pictures(training, best)
    for table in tables:
        training.console.print(table)


def _test(assembly: Assembly) -> Validation:
    return engine.validate(
        assembly.model, assembly.transforms, assembly.loss, assembly.samples("test"), assembly.metrics, assembly.device
    )


def _write_pictures(training: Training, best: Validation) -> None:
    """The worst, the median and the best validation image under the monitored metric, from the best checkpoint."""
    assembly, monitor = training.assembly, training.assembly.experiment.monitor
    names = list(best.losses)
    if monitor == "loss":
        ordered = sorted(names, key=lambda name: -best.losses[name])
    else:
        rows = tracking.rows_of(best.scores[monitor], assembly.classes)
        values = dict(zip(names, rows.get(tracking.MEAN, rows.get("all", [])), strict=True))
        ordered = sorted((name for name in names if values[name] == values[name]), key=lambda name: values[name])
    assembly.model.eval()
    chosen = {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]} if ordered else {}
    for rank, name in chosen.items():
        sample = assembly.dataset.read(name)
        logits = engine.whole_image_logits(assembly.model, assembly.transforms, sample, assembly.device)
        picture = panel(sample, logits.argmax(dim=0))
        images.write_png(training.folder / "pictures" / f"{rank}.png", picture.transpose(2, 0, 1))
