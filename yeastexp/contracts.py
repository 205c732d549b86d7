"""What a part must offer: who calls it, when, and with which shapes.

Axes: B batch, C channels, H height, W width, K classes, O output channels of the model. A part is made by calling its
factory with what the experiment file cannot hold, by position, then with the keys of its table by name:

========== ================================== ================================================================
kind       called as                          gives
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

The signature is the schema of the table: hints and defaults say which values are right. A factory refuses one by
``UserError(..., key=...)``. The contracts of transforms and metrics are the docstrings of their base classes; those of
kinds that PyTorch has a class for:

- A model is called with (B, C, H, W) float32 of any H and W, patches as well as whole images, and returns one tensor of
  logits. Its weights are drawn from PyTorch's generator, which is seeded before. ``size`` is the side of the images of
  one that takes no others (`inspect` alone).
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

    Its factory is given nothing but the table. `dtype(name) -> str`, if it has it, tells `check --data` in which type
    the values of an image are stored, and `groups` (name to group) tells `crossval` which images belong together.
    """

    @property
    def splits(self) -> Mapping[str, Sequence[str]]:
        """The names of the images of each split: `train`, `val` and maybe `test`."""
        ...

    @property
    def maps(self) -> tuple[str, ...]:
        """The further label maps that every sample has, by name: `instances`, if a task or a metric asks for it."""
        ...

    @property
    def normalization(self) -> Mapping[str, Any] | None:
        """`mean` and `std` if values are stored normalised, so that no transform does it again."""
        ...

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of an image, without reading it: all are asked for at the start."""
        ...

    def read(self, name: str) -> Sample:
        """An image (C, H, W) float32 and its labels (H, W) int64, the same each time, also in other processes."""
        ...


@runtime_checkable
class Loss(Protocol):
    """Called once a step with the model's outputs in float32, and once for each validation image.

    Its factory is given the number of classes K. An `nn.Module` is moved to the device of the model.
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A scalar from outputs (B, O, H, W) and, for `semantic`, labels (B, H, W) int64; IGNORE counts nothing."""
        ...


@runtime_checkable
class AdditiveLoss(Loss, Protocol):
    """A loss that is a sum over pixels divided by a count of them, and says how it adds up.

    Batches whose gradients add up to one update (`accumulation_steps`) then weigh by their counts, as in one large
    batch. A loss without `count`, such as `dice`, is no such mean: its batches weigh by their patches.
    """

    def count(self, targets: Tensor) -> Tensor:
        """What the sum is divided by, a scalar: of `semantic` the labelled pixels, each with its weight."""
        ...


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image, decoded: class indices, instance ids if the task has them, and further maps."""

    labels: Tensor
    """(H, W) int64, a class for each pixel."""

    instances: Tensor | None = None
    """(H, W) int64, 0 for background, else the id of an object. A metric asks for it by `predicted_instances`."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    """Further maps (H, W) by name. A metric asks for one by a keyword-only parameter `predicted_<name>`."""

    approximate: Callable[[], Tensor] | None = None
    """Gives instances (H, W) where the task learns none, and is called only if a metric asks for them."""

    @property
    def maps(self) -> dict[str, Tensor]:
        """All that a metric can ask for beside the classes, and that is there without asking."""
        return {**self.values} if self.instances is None else {**self.values, "instances": self.instances}

    def asked(self, names: Collection[str]) -> dict[str, Tensor]:
        """The further maps, with approximate instances if a metric asks for instances and there are no others."""
        if self.instances is None and self.approximate is not None and "instances" in names:
            return {**self.values, "instances": self.approximate()}
        return self.maps


Interpolation = Literal["nearest", "bilinear"]


class Task:
    """What the network is to learn from the labels, and what its outputs mean; nothing else knows either.

    Its factory is given the channels C of the images and the number of classes K. The base class is a regression of
    whatever `targets` gives; a task overrides what differs.
    """

    outputs: int = 1
    """Channels O that the model must give."""

    maps: tuple[str, ...] = ()
    """Label maps that `targets` needs of the data set."""

    planes: tuple[Interpolation, ...] = ("bilinear",)
    """How each plane of `targets` is interpolated under augmentation.

    Empty: the only plane are the labels, which augmentation moves anyway, and `targets` gives `sample.labels[None]`.
    """

    quantized: bool = False
    """Whether `targets` are int16, are kept and sent so, and come to `loss` so: whole numbers in nearest planes, and in
    bilinear ones what `yeastexp.tasks.shares` makes of shares from 0 to 1, where less than 0 stands for NaN.
    """

    values: tuple[str, ...] = ()
    """The names of the further maps of a `Prediction`."""

    approximates: bool = False
    """Whether a `Prediction` has instances that are no more than `approximate`."""

    metrics: tuple[str, ...] = ()
    """Metrics of every validation and evaluation, beside the file's; of none, evaluations have those of pixels."""

    needs_loss: bool = True
    """Whether the experiment file has to name a `[loss]`; a task without one computes its own."""

    views: int = 1
    """Flips and rotations of an image, of `yeastexp.data.views.SYMMETRIES`, whose mean outputs are decoded."""

    reach_px: int | None = 0
    """How far `decode` looks beyond a pixel, so that large images are decoded in pieces; None: at the whole image."""

    def fit(self, samples: Iterable[Sample]) -> None:
        """Learn from the training images, with the maps that it needs, what `decode` has to know of them."""

    def state_dict(self) -> dict[str, Any]:
        """What `fit` learnt, as plain values; every checkpoint holds it."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    def targets(self, sample: Sample) -> Tensor:
        """Planes (T, H, W), made once of each whole image after the `[[transform]]` list, and of validation images.

        In patches, unlabelled pixels (labels IGNORE, or outside the image) are IGNORE in nearest planes and NaN in
        bilinear ones.
        """
        raise NotImplementedError(f"{type(self).__name__} has to say what is learnt")

    def loss(self, outputs: Tensor, targets: Tensor, criterion: Loss | None) -> Tensor:
        """A scalar from outputs (B, O, H, W) float32 and targets (B, T, H, W); `criterion` is the file's `[loss]`."""
        assert criterion is not None, "the file names a loss"
        return criterion(outputs, targets)

    def count(self, targets: Tensor, criterion: Loss | None) -> Tensor | None:
        """What `loss` is a mean over, as `AdditiveLoss` says it; None if it is no mean over pixels."""
        return criterion.count(targets) if isinstance(criterion, AdditiveLoss) else None

    def activate(self, outputs: Tensor) -> Tensor:
        """Outputs (…, O, H, W) as values whose mean over several views makes sense, and which `predict` stores."""
        return outputs

    def deactivate(self, activated: Tensor) -> Tensor:
        """The inverse of `activate`, up to what `decode` does not depend on."""
        return activated

    def decode(self, outputs: Tensor) -> Prediction:
        """What the outputs (O, H, W) of one image say."""
        raise NotImplementedError(f"{type(self).__name__} has to say what its outputs mean")

    def kept(self, activated: Tensor) -> Tensor:
        """The planes (P, h, w) of activated outputs (O, h, w) that `predict --probabilities` writes."""
        return activated

    def of_classes(self, labels: Tensor) -> Prediction:
        """What can be said of an image of which a baseline knows the classes (H, W) alone."""
        return Prediction(labels)

    def certain(self, targets: Tensor) -> Iterator[Tensor]:
        """Outputs (B, O, H, W) that say exactly these targets, with growing confidence; none if they are unknown."""
        return iter(())

    def constant(self, targets: Tensor) -> Iterator[Tensor]:
        """The best outputs (B, O, H, W) that are the same everywhere; none if they are unknown."""
        return iter(())


@runtime_checkable
class Handler(Protocol):
    """What happens beside the training step. Attached to both engines before the run begins.

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
    """What a handler's factory is given: the parts of a run, and where it may write."""

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
        """One line, with the time, in the run's `log.txt`."""
        ...

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of some steps, counted from 0, on the device: images and targets."""
        ...

    def trial(self) -> AbstractContextManager[tuple[Engine, nn.Module, torch.optim.Optimizer]]:
        """A trainer with copies of model and optimizer, whose runs leave no trace in this one."""
        ...
