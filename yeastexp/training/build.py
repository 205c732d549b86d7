"""An experiment made into parts, and its training patches."""

from __future__ import annotations

import copy
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from yeastexp.config.experiment import Experiment
from yeastexp.config.settings import Patches, Runtime
from yeastexp.contracts import Dataset, Loss, Task
from yeastexp.data import patches
from yeastexp.data.folds import FoldDataset
from yeastexp.data.patches import CachedImages, LazyImages, PatchPlan, PatchSampler
from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.errors import UserError
from yeastexp.metrics.pixels import PerImageMetric
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import memory
from yeastexp.system.formatting import format_bytes
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep, Options
from yeastexp.training.step import make_trainer

Transforms = tuple[BasicTransform2D, ...]

DEFAULT_SIDE = 128
TIMED_STEPS = 7
"""Of a step, at least, for its median time."""

VALIDATION_SHARE = 0.05
"""Of the training's cost; a pixel costs a third in validation, which goes forward alone."""

DEVICE_SHARE, MEMORY_SHARE = 0.25, 0.5
"""Of what is free, for the training images at most: the rest is for activations, and for the programs beside."""


def configure_torch(loaded: Experiment) -> Experiment:
    """The experiment with its number of compute threads written down and in force; it changes the last bits."""
    wanted = loaded.runtime.threads
    threads = wanted if isinstance(wanted, int) else os.cpu_count() or 1
    torch.set_num_threads(threads)
    if loaded.runtime.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(loaded.runtime.deterministic, warn_only=True)
    # Measured: filling takes a quarter of the time of a forward pass, and nothing here reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    return replace(loaded, runtime=replace(loaded.runtime, threads=threads))


def compute_device(runtime: Runtime) -> torch.device:
    """The device that `[runtime] device` means here; raises UserError if it is asked for and absent."""
    available = torch.cuda.is_available()
    if runtime.device == "cuda" and not available:
        raise UserError("[runtime] device: 'cuda' is asked for, but PyTorch sees no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if available and runtime.device != "cpu" else "cpu")


def build_dataset(experiment: Experiment) -> Dataset:
    """The data set, with the splits of a fold where the experiment names one."""
    validation = experiment.validation
    dataset: Dataset = experiment.dataset.build()
    return FoldDataset(dataset, validation.folds, validation.fold) if validation.folds and validation.fold else dataset


def build_task(experiment: Experiment) -> Task:
    """What the experiment's model is to learn."""
    made: Task = experiment.task.part.build(experiment.task.channels, len(experiment.task.classes))
    return made


def build_model(experiment: Experiment) -> nn.Module:
    """The model with the initial weights of the experiment's seed."""
    torch.manual_seed(int(generator(experiment.train.seed, "model").integers(2**63)))
    task = experiment.task
    made = experiment.model.build(task.channels, build_task(experiment).outputs)
    if not isinstance(made, nn.Module):
        raise UserError(f"{experiment.model.place}: [model] name: '{experiment.model.name}' makes no nn.Module")
    return made


def to_device(model: nn.Module, runtime: Runtime, device: torch.device) -> nn.Module:
    """The model on a device, its weights laid out there as training wants them."""
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload,no-any-return]  # its stub lacks this


def build_metrics(experiment: Experiment) -> dict[str, PerImageMetric]:
    """The metrics by name."""
    return {part.name: part.build(len(experiment.task.classes)) for part in experiment.metrics}


def fitted_transforms(experiment: Experiment, dataset: Dataset) -> Transforms:
    """The `[[transform]]` list, fitted on the training images; normalising ones are left out for normalised data."""
    made = [part.build() for part in experiment.transforms]
    kept = [one for one in made if not (one.normalizes and dataset.normalization)]
    return pipeline.fitted(kept, lambda: (dataset.read(name).image for name in dataset.splits["train"]))


def checked_labels(sample: Sample, classes: int) -> Sample:
    """The sample; raises UserError if its labels are no classes, with the values seen."""
    low, high = (int(extreme) for extreme in sample.labels.aminmax())
    if low < IGNORE or high >= classes:
        seen = sample.labels.unique().tolist()
        shown = ", ".join(map(str, seen[:8])) + (", …" if len(seen) > 8 else "")
        raise UserError(
            f"image '{sample.name}': its labels hold {shown} where [task] classes has 0 to {classes - 1}; "
            "pack the masks again, or name all classes"
        )
    return sample


def rescaled(image: Tensor, stored: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None) -> Tensor:
    """An image stored with one normalisation (or none), as it would be with another (or none)."""
    if stored == wanted:
        return image
    if stored:
        image = image * stored["std"] + stored["mean"]
    return (image - wanted["mean"]) / wanted["std"] if wanted else image


@dataclass(frozen=True)
class Values:
    """The smallest and the largest value of images as they were recorded."""

    low: float
    high: float

    @classmethod
    def of(cls, images: Iterable[Tensor], normalization: Mapping[str, Any] | None) -> Values:
        """Of images (C, H, W) that are stored with some normalisation, or none."""
        stored = [torch.stack(image.aminmax()) for image in images]
        return cls.between(stored, normalization)

    @classmethod
    def between(cls, extremes: Sequence[Tensor], normalization: Mapping[str, Any] | None) -> Values:
        """From the two ends of each image."""
        ends = torch.stack(torch.stack(list(extremes)).aminmax())
        low, high = rescaled(ends, normalization, None).tolist()
        return cls(low, high)


@dataclass(frozen=True)
class Prepared:
    """The training images as patches are cut from them: after the `[[transform]]` list, their labels checked."""

    dataset: Dataset
    transforms: Transforms
    classes: int
    task: Task

    @property
    def names(self) -> list[str]:
        """Of the images, in order."""
        return list(self.dataset.splits["train"])

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of each image, (N, 2), which no image has to be read for."""
        shapes = (self.dataset.shape(name) for name in self.names)
        return np.array([pipeline.grids(self.transforms, (height, width))[-1] for _, height, width in shapes])

    def __call__(self, index: int) -> Sample:
        """An image by its number."""
        return self.seen(self.stored(index))

    def stored(self, index: int) -> Sample:
        """An image as it is stored."""
        return checked_labels(self.dataset.read(self.names[index]), self.classes)

    def seen(self, stored: Sample) -> Sample:
        """What the list makes of it, with the planes of the task's targets as maps, in their order."""
        task = self.task
        sample = pipeline.whole(self.transforms, replace(stored, maps={name: stored.maps[name] for name in task.maps}))
        planes = task.targets(sample) if task.planes else ()
        maps = {
            f"target {index}": plane.float() if interpolation == "bilinear" else plane.long()
            for index, (plane, interpolation) in enumerate(zip(planes, task.planes, strict=True))
        }
        return replace(sample, maps=maps)


def where_kept(runtime: Runtime, wanted: int, device: torch.device) -> tuple[Literal["device", "memory", "none"], str]:
    """Where training images that take so many bytes are kept, and a line that says so."""
    free = memory.free(torch.device("cpu"))
    shown = f"[runtime] cache: the training images take {format_bytes(wanted)}; "
    if runtime.cache != "auto":
        return runtime.cache, f"{shown}'{runtime.cache}', as the file says"
    if device.type != "cpu" and not runtime.workers:
        there = memory.free(device)
        if wanted <= DEVICE_SHARE * there:
            return "device", f"{shown}kept on the device, where {format_bytes(there)} are free"
        shown += f"of {format_bytes(there)} on the device no more than {DEVICE_SHARE:.0%} is for images; "
    if wanted <= MEMORY_SHARE * free:
        return "memory", f"{shown}kept in memory, where {format_bytes(free)} are free"
    shown += f"read again for every patch, since only {format_bytes(free)} are free"
    return "none", f"{shown}; [runtime] workers read ahead"


@dataclass(frozen=True)
class Images:
    """The training images: what patches are cut from, a line that says where they are, and their values, if known."""

    source: CachedImages | LazyImages
    kept: Literal["device", "memory", "none"]
    where: str
    values: Values | None


def training_images(
    experiment: Experiment, task: Task, dataset: Dataset, transforms: Transforms, device: torch.device
) -> Images:
    """Those of a data set after some transforms, for patches that are cut for a device."""
    read = Prepared(dataset, transforms, len(experiment.task.classes), task)
    planes = 1 + len(task.planes)
    sizes, wants_foreground = read.sizes, experiment.patches.foreground_fraction > 0
    where, said = where_kept(experiment.runtime, patches.bytes_of(sizes, experiment.task.channels, planes), device)
    if where == "none":
        return Images(LazyImages(read, sizes, experiment.task.channels, wants_foreground, planes), where, said, None)
    ends: list[Tensor] = []

    def watched(index: int) -> Sample:
        stored = read.stored(index)
        ends.append(torch.stack(stored.image.aminmax()))
        return read.seen(stored)

    there = device if where == "device" else torch.device("cpu")
    kept = CachedImages.reading(watched, sizes, there, wants_foreground)
    return Images(kept, where, said, Values.between(ends, dataset.normalization))


def patch_side(patches: Patches, smallest: int = DEFAULT_SIDE) -> int:
    """Pixels of a side of a patch, for images whose shortest side is `smallest`."""
    return patches.size or min(DEFAULT_SIDE, smallest)


def plan_patches(patches: Patches, sizes: np.ndarray) -> PatchPlan:
    """How many patches an epoch takes from images of these sizes (N, 2), and where sliding ones lie."""
    side = patch_side(patches, int(sizes.min()))
    if patches.stride:
        lists = [_sliding(size, side, patches.stride) for size in sizes]
        images = np.repeat(np.arange(len(sizes)), [len(corners) for corners in lists])
        return PatchPlan(side, images, np.concatenate(lists))
    covering = np.maximum(1, np.rint(sizes.prod(axis=1) / side**2)).astype(np.int64)
    counts = np.full(len(sizes), patches.per_image) if patches.per_image else covering
    return PatchPlan(side, np.repeat(np.arange(len(sizes)), counts), None)


def _sliding(size: np.ndarray, side: int, stride: int) -> np.ndarray:
    """Corners (N, 2) every `stride` pixels; the last ones overhang inwards, so that the border is covered."""
    axes = []
    for length in size.tolist():
        last = length - side
        starts = list(range(0, last, stride)) if last > 0 else []
        axes.append([*starts, last if last >= 0 else last // 2])
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Assembly:
    """An experiment's parts, ready to train but for the optimizer, which wants to know the number of steps."""

    experiment: Experiment
    device: torch.device
    dataset: Dataset
    transforms: Transforms
    task: Task
    model: nn.Module
    criterion: Loss | None
    metrics: dict[str, PerImageMetric]
    sampler: PatchSampler
    images: Images

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The task's loss, a scalar, of outputs (B, O, H, W) and targets (B, T, H, W)."""
        return self.task.loss(outputs, targets, self.criterion)

    @property
    def validate_every(self) -> int:
        """Epochs between validations: as written, or so many that validation costs a twentieth of the training."""
        if written := self.experiment.validation.every:
            return written
        epoch_pixels = len(self.sampler.plan.images) * self.sampler.plan.side**2
        return max(1, round(self.pixels("val") / 3 / (VALIDATION_SHARE * epoch_pixels)))

    def pixels(self, split: str) -> int:
        """Pixels of all images of a split."""
        return sum(int(np.prod(self.dataset.shape(name)[1:])) for name in self.dataset.splits.get(split, ()))

    def samples(self, split: str) -> Iterator[Sample]:
        """The whole images of a split, one at a time, their labels checked."""
        names = self.dataset.splits.get(split, ())
        return (checked_labels(self.dataset.read(name), len(self.classes)) for name in names)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over a model's parameters."""
        made: torch.optim.Optimizer = self.experiment.optimizer.build(model.parameters())
        return made

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler | None:
        """The scheduler for so many steps, where the experiment has one."""
        part = self.experiment.scheduler
        return part.build(optimizer, steps) if part else None


def assemble(experiment: Experiment) -> Assembly:
    """All parts of an experiment, the data read, the transforms fitted, the model with its first weights."""
    device = compute_device(experiment.runtime)
    dataset = build_dataset(experiment)
    transforms = fitted_transforms(experiment, dataset)
    task = build_task(experiment)
    images = training_images(experiment, task, dataset, transforms, device)
    sampler = PatchSampler(
        images.source,
        plan_patches(experiment.patches, images.source.sizes),
        experiment.train.batch_size,
        tuple(part.build() for part in experiment.augmentations),
        experiment.train.seed,
        experiment.patches.foreground_fraction,
        task.planes,
    )
    criterion = experiment.loss.build(len(experiment.task.classes)) if experiment.loss else None
    criterion = criterion.to(device) if isinstance(criterion, nn.Module) else criterion
    model = to_device(build_model(experiment), experiment.runtime, device)
    metrics = build_metrics(experiment)
    return Assembly(experiment, device, dataset, transforms, task, model, criterion, metrics, sampler, images)


@dataclass(frozen=True)
class Preprocessing:
    """What stands before the model: the one owner of its description in a checkpoint.

    `fitted` has the options of each transform that fits some, and nothing for the others; `values` is the range of the
    training images, if they were all looked at.
    """

    normalization: Mapping[str, Any] | None
    fitted: Sequence[Mapping[str, Any]]
    values: Values | None

    @classmethod
    def of(cls, assembly: Assembly) -> Preprocessing:
        """That of an experiment's parts."""
        fitted = [dict(vars(transform)) if transform.has("fit") else {} for transform in assembly.transforms]
        return cls(assembly.dataset.normalization, fitted, assembly.images.values)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Preprocessing:
        """What `state_dict` gave."""
        values = Values(**state["values"]) if state["values"] else None
        return cls(state["normalization"], state["transforms"], values)

    def state_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        values = vars(self.values) if self.values else None
        return {"normalization": self.normalization, "transforms": list(self.fitted), "values": values}

    def transforms(self, experiment: Experiment) -> Transforms:
        """The `[[transform]]` list of an experiment with these options; ValueError or TypeError if it is another's."""
        made = [part.build() for part in experiment.transforms]
        kept = [one for one in made if not (one.normalizes and self.normalization)]
        return tuple(
            replace(transform, **options) if options else transform
            for transform, options in zip(kept, self.fitted, strict=True)
        )


def options_of(assembly: Assembly) -> Options:
    """How a step of an experiment is computed; UserError if its device cannot do so."""
    experiment = assembly.experiment
    return Options(experiment.train.precision, experiment.runtime.compile).check(assembly.device)


def optimization_of(assembly: Assembly, model: nn.Module | None = None) -> OptimizationStep:
    """What changes the weights of the experiment's model, or of a copy; UserError if the device cannot do so."""
    trained = assembly.model if model is None else model
    return OptimizationStep(trained, assembly.optimizer(trained), options_of(assembly), assembly.device)


def schedule_of(assembly: Assembly, steps: int) -> AccumulationSchedule:
    """Which batches of a run of so many steps change the weights together."""
    count, size = len(assembly.sampler.plan.images), assembly.sampler.size
    sizes = [min(size, count - first) for first in range(0, count, size)]
    return AccumulationSchedule(assembly.experiment.train.accumulation_steps, sizes, steps)


def build_trainer(
    assembly: Assembly,
    optimization: OptimizationStep | None = None,
    schedule: AccumulationSchedule | None = None,
) -> Engine:
    """An Ignite engine that trains on batches of `assembly.sampler`; it fires `TrainingEvents` beside Ignite's own.

    Without `optimization` the experiment's optimizer changes its model; without `schedule` every batch does so.
    `trainer.run(map(assembly.sampler.batch, range(100)), max_epochs=1, epoch_length=100)` takes 100 steps.
    """
    optimization = optimization or optimization_of(assembly)
    schedule = schedule or AccumulationSchedule(1, [1], sys.maxsize)
    return make_trainer(optimization, assembly.loss, schedule, assembly.task.outputs)


def trial_of(assembly: Assembly) -> tuple[Engine, nn.Module, torch.optim.Optimizer]:
    """A trainer with copies of model and optimizer, every batch an update, to be run without a trace."""
    model = copy.deepcopy(assembly.model).train()
    optimization = optimization_of(assembly, model)
    return build_trainer(assembly, optimization), model, optimization.optimizer


def seconds_per_step(assembly: Assembly, seconds: float) -> float:
    """Time of a training step: the median over about so many seconds of groups of steps of a copy.

    The model and all generators stay as they are.
    """
    device, size = assembly.device, assembly.experiment.train.accumulation_steps
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        optimization = optimization_of(assembly, copy.deepcopy(assembly.model).train())
        schedule = AccumulationSchedule(size, [1] * size, sys.maxsize)
        trainer, batch = build_trainer(assembly, optimization, schedule), assembly.sampler.batch
        trainer.run([batch(0), batch(1)], max_epochs=1)  # allocations and kernel choices
        times: list[float] = []
        while len(times) * size < TIMED_STEPS or sum(times) * size < seconds:
            start = time.monotonic()
            first = len(times) * size
            trainer.run(map(batch, range(first, first + size)), max_epochs=1, epoch_length=size)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append((time.monotonic() - start) / size)
        return statistics.median(times)
