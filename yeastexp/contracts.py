"""The contract of each kind of part: who calls it, when, and with which shapes.

Axes: B batch, C channels, H height, W width, K classes, O output channels of the model. A part is made by calling its
factory with what the experiment file cannot hold, by position, then with the keys of its table by name:

========== ================================== ================================================================
kind       called as                          returns
========== ================================== ================================================================
dataset    ``f(**table)``                     `Dataset`
transform  ``f(**table)``                     `yeastexp.BasicTransform2D`
task       ``f(channels, classes, **table)``  `Task`
model      ``f(channels, outputs, **table)``  ``nn.Module`` from (B, C, H, W) to (B, O, H, W)
loss       ``f(classes, **table)``            `Loss`
optimizer  ``f(parameters, **table)``         ``torch.optim.Optimizer``
scheduler  ``f(optimizer, steps, **table)``   a learning-rate scheduler, stepped once an update
metric     ``f(classes, **table)``            `yeastexp.PerImageMetric`, an ``ignite.metrics.Metric``
handler    ``f(context, **table)``            `Handler`
========== ================================== ================================================================

The signature is the schema of the table: hints and defaults say which values are valid. A factory refuses a value by
``UserError(..., key=...)``. The contracts of transforms and metrics are the docstrings of their base classes; those of
kinds that PyTorch has a class for:

- A model is called with (B, C, H, W) float32 of any H and W, patches as well as whole images, and returns one tensor of
  logits. Its weights are drawn from PyTorch's generator, which is seeded before. A model for `inspect` alone that takes
  images of one size only has their side as ``size``.
- An optimizer is given an iterable of the parameters; its state is part of every checkpoint.
- A scheduler is given the steps of the whole run, also where the file has a budget, and is stepped once an update.

`docs/your-own-part.md` has a complete example of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp.sample import Sample


class Dataset(Protocol):
    """Images with their labels. It is pickled into loader workers, so it opens files when it reads, not before.

    Optional are `dtype(name) -> str`, the type in which an image is stored, for `check --data`, `groups` (name to
    group), the images that `crossval` must not separate, and `channel_names`, which `predict` compares with a file's.
    """

    @property
    def splits(self) -> Mapping[str, Sequence[str]]:
        """The names of the images of each split: `train`, `val` and maybe `test`."""
        ...

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the further label maps that every sample has, such as `instances`."""
        ...

    @property
    def normalization(self) -> Mapping[str, Any] | None:
        """`mean` and `std` if the stored values are normalised, so that no transform normalises them again."""
        ...

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of an image, without reading it: all are asked for at the start."""
        ...

    def read(self, name: str) -> Sample:
        """Return an image (C, H, W) float32 with labels (H, W) int64, the same each time and in every process."""
        ...


@runtime_checkable
class Loss(Protocol):
    """Called once a step with the model's outputs in float32, and once for each validation image.

    Its factory is given the number of classes K. An `nn.Module` is moved to the device of the model.
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a scalar from outputs (B, O, H, W) and, for `semantic`, labels (B, H, W) int64, without IGNORE."""
        ...


@runtime_checkable
class AdditiveLoss(Loss, Protocol):
    """A loss that is a sum over pixels divided by their count, which it can tell.

    Batches whose gradients add up to one update (`accumulation_steps`) then weigh by their counts, as in one large
    batch. A loss without `count`, such as `dice`, is no such mean: its batches weigh by their patches.
    """

    def count(self, targets: Tensor) -> Tensor:
        """Return the scalar that the sum is divided by: for `semantic` the labelled pixels, each with its weight."""
        ...


@dataclass(frozen=True)
class Prediction:
    """The decoded outputs of a model for one image: class indices, instance ids if the task has them, further maps."""

    labels: Tensor
    """(H, W) int64, a class for each pixel."""

    instances: Tensor | None = None
    """(H, W) int64, 0 for background, else the id of an object. A metric asks for it by `predicted_instances`."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    """Further maps (H, W) by name. A metric asks for one by a keyword-only parameter `predicted_<name>`."""

    approximate: Callable[[], Tensor] | None = None
    """Computes instances (H, W) if the task learns none; called only if a metric asks for them."""

    @property
    def maps(self) -> dict[str, Tensor]:
        """The maps beside the classes that need not be computed first."""
        return {**self.values} if self.instances is None else {**self.values, "instances": self.instances}

    def asked(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return the further maps, with approximate instances if `names` has instances and there are no others."""
        if self.instances is None and self.approximate is not None and "instances" in names:
            return {**self.values, "instances": self.approximate()}
        return self.maps


Interpolation = Literal["nearest", "bilinear"]


class Task:
    """What the network learns from the labels, and what its outputs mean; no other module knows either.

    Its factory is given the channels C of the images and the number of classes K. The base class is a regression of
    the planes that `targets` returns; a task overrides what differs.
    """

    outputs: int = 1
    """Channels O that the model must give."""

    maps: tuple[str, ...] = ()
    """The names of the label maps that `targets` needs from the data set."""

    planes: tuple[Interpolation, ...] = ("bilinear",)
    """How each plane of `targets` is interpolated under augmentation.

    Empty: the only plane is the labels, which augmentation moves anyway, and `targets` returns `sample.labels[None]`.
    """

    quantized: bool = False
    """Whether `targets` are int16, are cached and copied so, and reach `loss` so: integers in nearest planes, and in
    bilinear ones shares from 0 to 1 as `yeastexp.tasks.shares` quantizes them, with values below 0 for NaN.
    """

    values: tuple[str, ...] = ()
    """The names of the further maps of a `Prediction`."""

    approximates: bool = False
    """Whether the only instances of a `Prediction` are `approximate` ones."""

    metrics: tuple[str, ...] = ()
    """Metrics of every validation and evaluation beside the file's; without any, evaluations add pixel metrics."""

    needs_loss: bool = True
    """Whether the experiment file has to name a `[loss]`; a task without one computes its own."""

    views: int = 1
    """The number of flips and rotations (`yeastexp.data.views.SYMMETRIES`) whose outputs are averaged and decoded."""

    reach_px: int | None = 0
    """How far `decode` of a pixel depends on others, for large images decoded in pieces; None: on the whole image."""

    def fit(self, samples: Iterable[Sample]) -> None:
        """Estimate from the training images, read with all their maps, what `decode` needs to know."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `fit` estimated, as plain values; it is part of every checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""

    def targets(self, sample: Sample) -> Tensor:
        """Return planes (T, H, W), once for each whole image after the `[[transform]]` list, in validation too.

        In patches, unlabelled pixels (labels IGNORE, or outside the image) are IGNORE in nearest planes and NaN in
        bilinear ones.
        """
        raise NotImplementedError(f"{type(self).__name__} has to say what is learnt")

    def loss(self, outputs: Tensor, targets: Tensor, criterion: Loss | None) -> Tensor:
        """Return a scalar from outputs (B, O, H, W) float32 and targets (B, T, H, W); `criterion` is `[loss]`."""
        assert criterion is not None, "the file names a loss"
        return criterion(outputs, targets)

    def count(self, targets: Tensor, criterion: Loss | None) -> Tensor | None:
        """Return the scalar that `loss` divides by, as `AdditiveLoss.count`; None if it is no mean over pixels."""
        return criterion.count(targets) if isinstance(criterion, AdditiveLoss) else None

    def activate(self, outputs: Tensor) -> Tensor:
        """Return outputs (…, O, H, W) as values that can be averaged over views, and which `predict` stores."""
        return outputs

    def deactivate(self, activated: Tensor) -> Tensor:
        """Invert `activate`, up to differences that `decode` does not depend on."""
        return activated

    def decode(self, outputs: Tensor) -> Prediction:
        """Return the `Prediction` of the outputs (O, H, W) of one image."""
        raise NotImplementedError(f"{type(self).__name__} has to say what its outputs mean")

    def kept(self, activated: Tensor) -> Tensor:
        """Return the planes (P, h, w) of activated outputs (O, h, w) that `predict --probabilities` writes."""
        return activated

    def of_classes(self, labels: Tensor) -> Prediction:
        """Return the `Prediction` of an image of which only the classes (H, W) are known, as from a baseline."""
        return Prediction(labels)

    def certain(self, targets: Tensor) -> Iterator[Tensor]:
        """Yield outputs (B, O, H, W) that decode to these targets, with growing confidence; none if unknown."""
        return iter(())

    def constant(self, targets: Tensor) -> Iterator[Tensor]:
        """Yield outputs (B, O, H, W) that are the same at all pixels and fit the targets best; none if unknown."""
        return iter(())


@runtime_checkable
class Handler(Protocol):
    """An addition to the training step. It is attached to both engines before the run begins.

    Its factory is given the `Context` of the run.

    One that has state also has `state_dict() -> dict` (tensors and plain values) and `load_state_dict(state)`: it is
    then part of every checkpoint, and a resumed run continues to the bit. STARTED and EPOCH_STARTED fire again when a
    run is resumed, and COMPLETED fires also when one is interrupted. `close()`, if there is one, is called when
    training ends, however it does.
    """

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Add event handlers to the engines.

        `trainer.state.output` is the loss of a step, on the device; `TrainingEvents.UPDATE_COMPLETED` fires once an
        optimizer step. `validator.state.metrics` has the scores of a validation by tag (`iou/cell`, `loss`) when the
        validator fires COMPLETED; its `state.batch` is a sample and `state.prediction` its `Prediction`.
        """
        ...


class Context(Protocol):
    """The argument of a handler's factory: the parts of a run, and the folder that it may write into."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    folder: Path
    """The run directory."""
    steps: int
    steps_per_epoch: int
    trainer: Engine
    validator: Engine

    def log(self, line: str) -> None:
        """Append a line, with the time, to the run's `log.txt`."""
        ...

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the training batches of steps `first` to `last` - 1, from 0, on the device: images and targets."""
        ...

    def trial(self) -> AbstractContextManager[tuple[Engine, nn.Module, torch.optim.Optimizer]]:
        """Yield a trainer with copies of model and optimizer, whose runs do not affect this one."""
        ...
