"""Building the parts of an experiment: data set, task, model, transforms, patch sampler, optimizer and trainer."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from yeastexp.config.experiment import Experiment, Part
from yeastexp.contracts import AdditiveLoss, Dataset, Loss, Task
from yeastexp.data.folds import FoldDataset
from yeastexp.data.normalization import Values
from yeastexp.data.patches import PatchSampler
from yeastexp.data.transforms import pipeline
from yeastexp.errors import UserError
from yeastexp.metrics.pixels import PerImageMetric
from yeastexp.randomness import generator
from yeastexp.registry import KINDS, described
from yeastexp.sample import Sample
from yeastexp.system.cores import OneThread
from yeastexp.system.processes import ALONE, Processes
from yeastexp.tasks import telling_apart
from yeastexp.training.device import compute_device, to_device
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options
from yeastexp.training.shards import make_sharded_trainer
from yeastexp.training.step import make_trainer
from yeastexp.training.training_images import Images, Transforms, checked_labels, plan_patches, training_images

VALIDATION_SHARE = 0.05
"""The share of the training cost that validation may have by default; forward only, a pixel costs a third there."""


def build_dataset(experiment: Experiment) -> Dataset:
    """Return the data set, with the splits of a fold if the experiment names one."""
    validation = experiment.validation
    dataset: Dataset = experiment.dataset.build()
    return FoldDataset(dataset, validation.folds, validation.fold) if validation.folds and validation.fold else dataset


def build_task(experiment: Experiment) -> Task:
    """Return the experiment's task."""
    task: Task = experiment.task.part.build(experiment.task.channels, len(experiment.task.classes))
    return task


def build_model(experiment: Experiment) -> nn.Module:
    """Return the model with initial weights by the experiment's seed. Raises UserError if it cannot be trained."""
    # Seeded by its own purpose: the weights do not depend on what was drawn before, such as by another trial.
    torch.manual_seed(int(generator(experiment.train.seed, "model").integers(2**63)))
    task = experiment.task
    model: Any = experiment.model.build(task.channels, build_task(experiment).outputs)
    fault = ""
    if not isinstance(model, nn.Module):
        fault = "makes no nn.Module"
    elif any(isinstance(weight, nn.UninitializedParameter) for weight in model.parameters()):
        fault = "has lazy layers, whose weights are not there yet; say how many channels they are given"
    elif not any(weight.requires_grad for weight in model.parameters()):
        fault = "has no weights to train"
    if fault:
        raise UserError(f"{experiment.model.place}: [model] name: '{experiment.model.name}' {fault}")
    built: nn.Module = model
    return built


def build_metrics(experiment: Experiment) -> dict[str, PerImageMetric]:
    """Return the experiment's metrics by name."""
    return {part.name: part.build(len(experiment.task.classes)) for part in experiment.metrics}


def with_metrics_of(
    task: Task, metrics: Mapping[str, PerImageMetric], classes: int, maps: Collection[str]
) -> dict[str, PerImageMetric]:
    """Return the metrics, followed by those that the task adds if the data has the maps that they need."""
    wanted = {name: KINDS["metric"][name](classes) for name in telling_apart.metrics_of(task) if name not in metrics}
    return {**metrics, **{name: metric for name, metric in wanted.items() if metric.has_maps(maps)}}


def fitted_transforms(experiment: Experiment, dataset: Dataset) -> Transforms:
    """Return the `[[transform]]` list, fitted on the training images; without normalising ones for normalised data."""
    transforms = [part.build() for part in experiment.transforms]
    kept = [transform for transform in transforms if not (transform.normalizes and dataset.normalization)]
    return pipeline.fitted(kept, lambda: (dataset.read(name).image for name in dataset.splits["train"]))


@dataclass(frozen=True)
class Assembly:
    """An experiment's parts, ready to train; optimizer and scheduler are made by methods, for any copy of the model."""

    experiment: Experiment
    device: torch.device
    dataset: Dataset
    transforms: Transforms
    task: Task
    model: nn.Module
    criterion: Loss | None
    metrics: dict[str, PerImageMetric]
    sampler: PatchSampler
    plain: PatchSampler
    """The sampler of the same patches for the end of the training, with those augmentations that move whole pixels.

    It is `sampler` itself where nothing is left out.
    """
    images: Images

    @property
    def ends_plain(self) -> bool:
        """Whether the last steps leave augmentations out."""
        return self.plain is not self.sampler

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    @property
    def _says_loss(self) -> Part:
        """The part to blame for a wrong loss: `[loss]`, unless there is none, or only the task is user code."""
        task, loss = self.experiment.task.part, self.experiment.loss
        mine = KINDS["task"].find(task.name).foreign
        return task if loss is None or (mine and not KINDS["loss"].find(loss.name).foreign) else loss

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss () of outputs (B, O, H, W) and targets (B, T, H, W).

        Raises UserError if the task returns no scalar, or one without gradient although the outputs have one.
        """
        value: Any = self.task.loss(outputs, targets, self.criterion)
        # In validation the outputs have no gradient, and then the loss needs none.
        if isinstance(value, Tensor) and not value.ndim and value.requires_grad >= outputs.requires_grad:
            return value
        part = self._says_loss
        gives = "a scalar without gradient" if isinstance(value, Tensor) and not value.ndim else described(value)
        fault = f"gives {gives}; return a scalar tensor, computed from the outputs by PyTorch"
        raise UserError(f"{part.place}: {part.label} name: '{part.name}' {fault}")

    def count(self, targets: Tensor) -> Tensor | None:
        """Return the number () that the loss divides by; None if it is no mean over pixels. UserError if no scalar."""
        count: Any = self.task.count(targets, self.criterion)
        if count is None:
            return None
        if isinstance(count, Tensor) and not count.ndim:
            return count
        part = self._says_loss
        fault = f"'count' gives {described(count)}; return a scalar tensor, as sum() does"
        raise UserError(f"{part.place}: {part.label} name: '{part.name}': {fault}")

    @property
    def approximate(self) -> tuple[str, ...]:
        """The names of the metrics of cells that the task only approximates."""
        return telling_apart.approximate_in(self.task, self.metrics)

    @property
    def additive(self) -> bool:
        """Whether the loss can tell what it divides by, so that batches of a group weigh exactly."""
        if self.criterion is None:
            return type(self.task).count is not Task.count
        return isinstance(self.criterion, AdditiveLoss)

    @property
    def validate_every(self) -> int:
        """The number of epochs between validations: as written, or so that they cost a twentieth of the training."""
        if written := self.experiment.validation.every:
            return written
        epoch_pixels = len(self.sampler.plan.images) * self.sampler.plan.side**2
        return max(1, round(self.task.views * self.pixels("val") / 3 / (VALIDATION_SHARE * epoch_pixels)))

    def pixels(self, split: str) -> int:
        """Return the number of pixels in all images of a split."""
        return sum(int(np.prod(self.dataset.shape(name)[1:])) for name in self.dataset.splits.get(split, ()))

    def samples(self, split: str, among: Processes = ALONE) -> Iterator[Sample]:
        """Iterate over the whole images of a split, or this process's share of them, with checked labels."""
        names = among.share(self.dataset.splits.get(split, ()))
        return (checked_labels(self.dataset.read(name), len(self.classes)) for name in names)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a model's parameters. Raises UserError if the part is no PyTorch optimizer."""
        part = self.experiment.optimizer
        optimizer: Any = part.build(model.parameters())
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"{part.place}: {part.label} name: '{part.name}' is no torch.optim.Optimizer")
        return optimizer

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler | None:
        """Return the scheduler for a run of so many steps, None if there is none. UserError if it is not PyTorch's."""
        part = self.experiment.scheduler
        if part is None:
            return None
        scheduler: Any = part.build(optimizer, steps)
        if isinstance(scheduler, LRScheduler):
            return scheduler
        raise UserError(f"{part.place}: {part.label} name: '{part.name}' is no torch.optim.lr_scheduler.LRScheduler")


@OneThread()
def assemble(experiment: Experiment) -> Assembly:
    """Return all parts of an experiment: the data read, the transforms fitted, the model with initial weights.

    Runs on one thread: the last bits of a fitted mean depend on the number of threads, which may still be timed later.
    """
    device = compute_device(experiment.runtime)
    dataset = build_dataset(experiment)
    transforms = fitted_transforms(experiment, dataset)
    task = build_task(experiment)
    if type(task).fit is not Task.fit:
        task.fit(dataset.read(name) for name in dataset.splits["train"])
    augmentations = tuple(part.build() for part in experiment.augmentations)
    images = training_images(experiment, task, dataset, transforms, augmentations, device)
    # Patches are planned on the images of the data set alone. The scenes behind them are taken by augmentations, in
    # place of such a patch.
    plan = plan_patches(experiment.patches, images.source.sizes[: images.count])

    def sampler_of(acting: Transforms, scenes: Mapping[int, int]) -> PatchSampler:
        return PatchSampler(
            images.source,
            plan,
            experiment.train.batch_size,
            acting,
            experiment.train.seed,
            experiment.patches.foreground_fraction,
            task.planes,
            scenes,
            len(experiment.task.classes),
        )

    sampler = sampler_of(augmentations, images.scenes)
    kept = tuple(each for each in augmentations if each.moves_whole_pixels)
    leaves_out = experiment.train.plain_steps and len(kept) < len(augmentations)
    plain = sampler_of(kept, {}) if leaves_out else sampler
    criterion = experiment.loss.build(len(experiment.task.classes)) if experiment.loss else None
    criterion = criterion.to(device) if isinstance(criterion, nn.Module) else criterion
    model = to_device(build_model(experiment), experiment.runtime, device)
    metrics = with_metrics_of(task, build_metrics(experiment), len(experiment.task.classes), dataset.maps)
    return Assembly(experiment, device, dataset, transforms, task, model, criterion, metrics, sampler, plain, images)


@dataclass(frozen=True)
class Preprocessing:
    """All that is applied before the model, as a checkpoint describes it, so that prediction repeats it exactly.

    `fitted` has the options of each transform that is fitted, and an empty dictionary for each other; `values` is the
    range of the training images, None if they are not cached; `task` is the state that the task fitted.
    `channel_names` are those that the data set knows.
    """

    normalization: Mapping[str, Any] | None
    fitted: Sequence[Mapping[str, Any]]
    values: Values | None
    task: Mapping[str, Any]
    channel_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, assembly: Assembly) -> Preprocessing:
        """Return the description of an experiment's parts."""
        fitted = [dict(vars(transform)) if transform.has("fit") else {} for transform in assembly.transforms]
        dataset, task = assembly.dataset, assembly.task.state_dict()
        named = tuple(getattr(dataset, "channel_names", ()))
        return cls(dataset.normalization, fitted, assembly.images.values, task, named)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Preprocessing:
        """Return the description in a `state_dict`."""
        values = Values(**state["values"]) if state["values"] else None
        named = tuple(state.get("channel_names", ()))
        return cls(state["normalization"], state["transforms"], values, state["task"], named)

    def state_dict(self) -> dict[str, Any]:
        """Return the description as plain values."""
        values = {key: value for key, value in vars(self.values).items() if value != ()} if self.values else None
        transforms = list(self.fitted)
        named = {"channel_names": list(self.channel_names)} if self.channel_names else {}
        described = {"normalization": self.normalization, "transforms": transforms, "values": values}
        return {**described, "task": {**self.task}, **named}

    def transforms(self, experiment: Experiment) -> Transforms:
        """Return an experiment's `[[transform]]` list with these options; ValueError or TypeError if they misfit."""
        transforms = [part.build() for part in experiment.transforms]
        kept = [transform for transform in transforms if not (transform.normalizes and self.normalization)]
        return tuple(
            replace(transform, **options) if options else transform
            for transform, options in zip(kept, self.fitted, strict=True)
        )


def options_of(assembly: Assembly) -> Options:
    """Return precision and compilation of a training step. Raises UserError if the device does not support them.

    The precision 'auto' is float32 until steps are timed (`timing.assembled`).
    """
    precision, runtime = assembly.experiment.train.precision, assembly.experiment.runtime
    return Options("float32" if precision == "auto" else precision, runtime.compile).check(assembly.device)


def optimization_of(assembly: Assembly, model: nn.Module | None = None) -> OptimizationStep:
    """Return the `OptimizationStep` of the experiment's model, or of a copy. Raises UserError as `options_of` does."""
    trained = assembly.model if model is None else model
    return OptimizationStep(trained, assembly.optimizer(trained), options_of(assembly), assembly.device)


def schedule_of(assembly: Assembly, steps: int) -> AccumulationSchedule:
    """Return the accumulation groups of a run of so many steps."""
    count, size = len(assembly.sampler.plan.images), assembly.sampler.size
    sizes = [min(size, count - first) for first in range(0, count, size)]
    return AccumulationSchedule(assembly.experiment.train.accumulation_steps, sizes, steps)


def learning_rates(experiment: Experiment, planned: int, updates: int) -> list[list[float]]:
    """Return the learning rate of each parameter group in each of the first `updates` of a run of `planned` updates."""
    # The rates do not depend on the parameters, so a tiny layer stands for the model.
    optimizer = experiment.optimizer.build(nn.Linear(1, 1).parameters())
    scheduler = experiment.scheduler.build(optimizer, planned) if experiment.scheduler else None
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that the scheduler is stepped before the optimizer
        for _ in range(updates):
            rates.append([group["lr"] for group in optimizer.param_groups])
            if scheduler is not None:
                scheduler.step()
    return rates


def is_fitted_to_length(experiment: Experiment, updates: int) -> bool:
    """Return whether a run of twice the `updates` has other learning rates in the first half, as with `one_cycle`."""
    # The lengths are those of real runs: a user's scheduler need not work for fewer updates than its warm-up has.
    return learning_rates(experiment, updates, updates) != learning_rates(experiment, 2 * updates, updates)


def build_trainer(
    assembly: Assembly,
    optimization: OptimizationStep | None = None,
    schedule: AccumulationSchedule | None = None,
    among: Processes = ALONE,
) -> Engine:
    """Return an Ignite engine that trains on batches of `assembly.sampler` and also fires `TrainingEvents`.

    By default the experiment's optimizer changes its model after every batch. Of several processes (`among`) the engine
    takes this one's shards.
    `trainer.run(map(assembly.sampler.batch, range(100)), max_epochs=1, epoch_length=100)` takes 100 steps.
    """
    optimization = optimization or optimization_of(assembly)
    schedule = schedule or AccumulationSchedule(1, [1], sys.maxsize)
    outputs, shards, named = assembly.task.outputs, assembly.experiment.runtime.shards, assembly.experiment.model.named
    if shards == 1:
        return make_trainer(optimization, assembly.loss, schedule, outputs, assembly.count, named)
    seed = assembly.experiment.train.seed
    return make_sharded_trainer(
        optimization, assembly.loss, schedule, outputs, assembly.count, shards, seed, among, named
    )
