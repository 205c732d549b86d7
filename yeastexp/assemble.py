"""An experiment made into parts, and its stream of training batches."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from yeastexp import plugins
from yeastexp.errors import UserError
from yeastexp.experiment import Experiment, Train
from yeastexp.folds import Refolded
from yeastexp.metrics import PerImageMetric
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE, Sample
from yeastexp.transforms import chain
from yeastexp.transforms.basic import BasicTransform2D
from yeastexp.transforms.geometry import Pixels
from yeastexp.workers import made

Batch = tuple[Tensor, Tensor]
Transforms = tuple[BasicTransform2D, ...]

DEFAULT_WINDOW = 128
VALIDATION_SHARE = 0.05
"""Of the training's cost; a pixel costs a third in validation, which goes forward alone."""


def fixed_threads(loaded: Experiment) -> Experiment:
    """The experiment with its number of compute threads written down and in force; it changes the last bits."""
    wanted = loaded.train.threads
    threads = wanted if isinstance(wanted, int) else os.cpu_count() or 1
    torch.set_num_threads(threads)
    if loaded.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(loaded.train.deterministic, warn_only=True)
    # Measured: filling takes a quarter of the time of a forward pass, and nothing here reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    return replace(loaded, train=replace(loaded.train, threads=threads))


def compute_device(train: Train) -> torch.device:
    """The device that `[train] device` means here; UserError where it is asked for and absent."""
    available = torch.cuda.is_available()
    if train.device == "cuda" and not available:
        raise UserError("[train] device: 'cuda' is asked for, but PyTorch sees no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if available and train.device != "cpu" else "cpu")


def build_dataset(experiment: Experiment) -> Any:
    """The data set, with the splits of a fold where the experiment names one."""
    train, dataset = experiment.train, experiment.dataset.build()
    return Refolded(dataset, train.folds, train.fold) if train.folds and train.fold else dataset


def build_model(experiment: Experiment) -> nn.Module:
    """The model with the initial weights of the experiment's seed."""
    torch.manual_seed(int(generator(experiment.train.seed, "model").integers(2**63)))
    task = experiment.task
    made = experiment.model.build(task.channels, len(task.classes))
    if not isinstance(made, nn.Module):
        raise UserError(f"{experiment.model.place}: [model] name: '{experiment.model.name}' makes no nn.Module")
    return made


def build_metrics(experiment: Experiment) -> dict[str, PerImageMetric]:
    """The metrics by name."""
    return {part.name: part.build(len(experiment.task.classes)) for part in experiment.metrics}


def fitted_transforms(experiment: Experiment, dataset: Any) -> Transforms:
    """The `[[transform]]` list, fitted on the training images; normalising ones are left out for normalised data."""
    made = [part.build() for part in experiment.transforms]
    kept = [one for one in made if not (one.normalizes and dataset.normalization)]
    return chain.fitted(kept, lambda: (dataset.read(name).image for name in dataset.splits["train"]))


def figures_of(transforms: Sequence[BasicTransform2D]) -> list[dict[str, Any]]:
    """The options of each transform that fits some of them, and nothing of the others: state of a checkpoint."""
    return [dict(vars(transform)) if transform.has("fit") else {} for transform in transforms]


def with_figures(experiment: Experiment, normalized: bool, figures: Sequence[Mapping[str, Any]]) -> Transforms:
    """The `[[transform]]` list with the options that a checkpoint holds."""
    made = [part.build() for part in experiment.transforms]
    kept = [one for one in made if not (one.normalizes and normalized)]
    return tuple(replace(one, **found) if found else one for one, found in zip(kept, figures, strict=True))


def checked_labels(sample: Sample, classes: int) -> Sample:
    """The sample; UserError where its labels are no classes, with the values seen."""
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


def training_pixels(dataset: Any, transforms: Transforms, classes: int) -> Pixels:
    """All training images after the `[[transform]]` list, laid out for windows."""
    samples = [checked_labels(dataset.read(name), classes) for name in dataset.splits["train"]]
    done = [chain.whole(transforms, replace(sample, maps={})) for sample in samples]
    return Pixels.of([one.image for one in done], [one.labels[None].to(torch.int8) for one in done])


@dataclass(frozen=True)
class Plan:
    """The windows of an epoch: the image of each, and their corners where those are fixed (sliding windows)."""

    side: int
    images: np.ndarray
    corners: np.ndarray | None


def window_side(train: Train, smallest: int = DEFAULT_WINDOW) -> int:
    """Pixels of a window's side, for images whose shortest side is `smallest`."""
    return train.window or min(DEFAULT_WINDOW, smallest)


def plan_windows(train: Train, sizes: np.ndarray) -> Plan:
    """How many windows an epoch takes from images of these sizes (N, 2), and where sliding ones lie."""
    side = window_side(train, int(sizes.min()))
    if train.stride:
        lists = [_sliding(size, side, train.stride) for size in sizes]
        images = np.repeat(np.arange(len(sizes)), [len(corners) for corners in lists])
        return Plan(side, images, np.concatenate(lists))
    covering = np.maximum(1, np.rint(sizes.prod(axis=1) / side**2)).astype(np.int64)
    counts = np.full(len(sizes), train.windows_per_image) if train.windows_per_image else covering
    return Plan(side, np.repeat(np.arange(len(sizes)), counts), None)


def _sliding(size: np.ndarray, side: int, stride: int) -> np.ndarray:
    """Corners (N, 2) every `stride` pixels; the last ones overhang inwards, so that the border is covered."""
    axes = []
    for length in size.tolist():
        last = length - side
        starts = list(range(0, last, stride)) if last > 0 else []
        axes.append([*starts, last if last >= 0 else last // 2])
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def _foreground(pixels: Pixels) -> list[np.ndarray]:
    """The flat places of each image's pixels whose label is above 0."""
    ends = pixels.offsets + pixels.sizes.prod(axis=1)
    labels = pixels.labels[0].cpu().numpy()
    return [
        np.flatnonzero(labels[start:end] > 0).astype(np.int32) for start, end in zip(pixels.offsets, ends, strict=True)
    ]


class Stream:
    """Training batches by step: images (B, C, h, w) and labels (B, h, w); any step, in any order, on any process."""

    def __init__(
        self, pixels: Pixels, plan: Plan, batch: int, augmentations: Transforms, seed: int, foreground: float = 0.0
    ) -> None:
        self.pixels = pixels
        self.foreground = foreground
        self.places = _foreground(pixels) if foreground else []
        self.plan = plan
        self.size = batch
        self.augmentations = augmentations
        self.seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; its last batch may be smaller."""
        return -(-len(self.plan.images) // self.size)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = _order(self.seed, epoch, len(self.plan.images))[place * self.size : (place + 1) * self.size]
        images = self.plan.images[chosen]
        if self.plan.corners is None:
            corners = np.stack([self._corner(epoch, index) for index in chosen.tolist()])
        else:
            corners = self.plan.corners[chosen]
        drawn = [self._drawn(epoch, index) for index in chosen.tolist()]
        return chain.windows(self.pixels, images, corners, self.plan.side, self.augmentations, drawn)

    def _corner(self, epoch: int, index: int) -> np.ndarray:
        image = self.plan.images[index]
        room = self.pixels.sizes[image] - self.plan.side
        source = generator(self.seed, "window", epoch, index)
        corner: np.ndarray = source.integers(np.maximum(room, 0) + 1)
        if self.foreground and source.random() < self.foreground and len(self.places[image]):
            place = self.places[image][source.integers(len(self.places[image]))]
            centre = np.array(np.divmod(place, self.pixels.sizes[image][1]))
            corner = np.clip(centre - self.plan.side // 2, 0, np.maximum(room, 0))
        return np.where(room >= 0, corner, room // 2)

    def _drawn(self, epoch: int, index: int) -> list[Any]:
        return [
            augmentation.draw(generator(self.seed, "augment", epoch, index, position))
            for position, augmentation in enumerate(self.augmentations)
        ]

    def batches(self, first: int, last: int, workers: int = 0, context: str | None = None) -> Iterator[Batch]:
        """The batches of the steps from `first` to before `last`, cut by worker processes where there are any."""
        steps = range(first, last)
        if not workers:
            yield from map(self.batch, steps)
        else:
            yield from made(self.batch, steps, workers, context)

    def __getstate__(self) -> dict[str, Any]:
        # A worker has to load the plugins before it can unpickle parts that they define.
        parts = (plugins.active(), pickle.dumps(self.augmentations))
        return {**vars(self), "augmentations": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        files, parts = state["augmentations"]
        plugins.load(files)
        self.__dict__.update({**state, "augmentations": pickle.loads(parts)})


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, windows: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(windows)


@dataclass(frozen=True)
class Assembly:
    """An experiment's parts, ready to train but for the optimizer, which wants to know the number of steps."""

    experiment: Experiment
    device: torch.device
    dataset: Any
    transforms: Transforms
    model: nn.Module
    loss: nn.Module
    metrics: dict[str, PerImageMetric]
    stream: Stream

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    @property
    def validate_every(self) -> int:
        """Epochs between validations: as written, or so many that validation costs a twentieth of the training."""
        if written := self.experiment.train.validate_every:
            return written
        epoch_pixels = len(self.stream.plan.images) * self.stream.plan.side**2
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
    device = compute_device(experiment.train)
    dataset = build_dataset(experiment)
    transforms = fitted_transforms(experiment, dataset)
    classes = len(experiment.task.classes)
    pixels = training_pixels(dataset, transforms, classes)
    train = experiment.train
    stream = Stream(
        pixels if train.workers else pixels.to(device),
        plan_windows(train, pixels.sizes),
        train.batch,
        tuple(part.build() for part in experiment.augmentations),
        train.seed,
        train.foreground,
    )
    loss = experiment.loss.build(classes).to(device)
    model = build_model(experiment).to(device)
    # Measured on CPUs: steps take about a fifth less time.
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub knows no such call
    return Assembly(experiment, device, dataset, transforms, model, loss, build_metrics(experiment), stream)
