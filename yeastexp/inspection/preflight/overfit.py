"""The check that a model can overfit one small batch: one that cannot will not learn from many images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from yeastexp.data.kept_images import LazyImages
from yeastexp.data.patches import PatchSampler
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.metrics.pixels import confusion
from yeastexp.sample import IGNORE
from yeastexp.system.formatting import format_count
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.training.build import Assembly, build_trainer
from yeastexp.training.finite import NonFiniteLoss, check_finite
from yeastexp.training.training_images import Prepared

PATCHES = 4
"""The most patches of the batch: more take longer to overfit, and show no more."""

STEPS = 300
"""The most steps by default; the experiments of this package were measured to need 8 to 210."""

FITTED = 0.1
"""The share of the loss left (`Overfit.left`) at which a batch counts as fitted: predictions are right but for
outlines."""

FALLING = 0.05
"""The relative decrease of the loss in the last fifth of the steps from which more steps would help."""

DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)


@dataclass(frozen=True)
class Overfit:
    """The result of overfitting a batch: the losses of all steps, and the mean IoU and accuracy after the last one.

    `constant` is the loss of the best prediction that is the same everywhere, `minimum` that of the true labels.
    """

    patches: int
    steps: int
    losses: tuple[float, ...]
    constant: float
    minimum: float
    iou: float
    accuracy: float
    finite: bool = True
    """Whether all losses and gradients were finite."""

    @property
    def left(self) -> float:
        """The last loss on a scale from the minimum (0) to that of the best constant prediction (1)."""
        return left(self.losses[-1], self.constant, self.minimum)

    @property
    def fitted(self) -> bool:
        """Whether the batch was fitted."""
        return self.finite and self.left <= FITTED

    @property
    def falling(self) -> bool:
        """Whether the loss was still decreasing in the last steps."""
        before = self.losses[-min(len(self.losses), max(2, len(self.losses) // 5))]
        return before - self.losses[-1] > FALLING * (before - self.minimum)


def left(loss: float, constant: float, minimum: float) -> float:
    """A loss on a scale from the minimum (0) to the constant prediction's (1); NaN if that is not above the minimum."""
    return (loss - minimum) / (constant - minimum) if constant > minimum else math.nan


def overfit(assembly: Assembly, steps: int, progress: ProgressBar[Any]) -> Overfit | None:
    """Train the experiment's model on one batch of a few patches with cells until it fits, or for `steps` steps.

    Loss and optimizer are those of the experiment, at a constant learning rate, without augmentation and dropout. The
    model's weights change. Returns None if the patches have a single class: there is nothing to learn.
    """
    images, targets, labels = _batch(assembly)
    if len(labels[labels != IGNORE].unique()) < 2:
        return None
    task, losses = assembly.task, list[float]()
    # A loss alone says little, as its scale and its minimum depend on the loss function: it is measured between that of
    # the true labels and that of the best constant prediction.
    minimum = _lowest(assembly.loss(outputs, targets) for outputs in task.certain(targets))
    constant = _lowest(assembly.loss(outputs, targets) for outputs in task.constant(targets))
    for layer in assembly.model.train().modules():
        if isinstance(layer, DROPOUTS):
            layer.eval()
    trainer = build_trainer(assembly)
    finite = True
    try:
        for _ in progress(range(steps)):
            if losses and left(losses[-1], constant, minimum) <= FITTED:
                break
            loss: Any = trainer.run([(images, targets)], max_epochs=1).output
            losses += check_finite(loss[None], len(losses) + 1)
            if math.isnan(constant):  # a task that cannot say what is best: how far the first loss falls
                minimum, constant = 0.0, losses[0]
    except NonFiniteLoss:
        finite = False
    # Still in training mode: the running statistics of batch norm have seen few steps, and would describe another
    # function than the one that was fitted.
    with torch.no_grad():
        predicted = torch.stack([task.decode(outputs).labels for outputs in assembly.model(images)])
        counts = confusion(predicted, labels, len(assembly.classes))
    iou, accuracy = _scores(counts)
    return Overfit(len(images), steps, tuple(losses), constant, minimum, iou, accuracy, finite)


def _batch(assembly: Assembly) -> tuple[Tensor, Tensor, Tensor]:
    """Images, targets and labels of a few patches, not augmented, centred on the foreground if there is any."""
    # Images are read when they are needed: a check of four patches does not wait for the whole training split.
    sampler, train, task = assembly.sampler, assembly.experiment.train, assembly.task
    read = Prepared(assembly.dataset, assembly.transforms, len(assembly.classes), task)
    source = LazyImages(read, sampler.source.sizes, assembly.experiment.task.channels, foreground=True)
    plan, size = replace(sampler.plan, corners=None), min(sampler.size, PATCHES)
    patches = PatchSampler(source, plan, size, (), train.seed, 1.0, task.planes)
    images, targets, labels = (part.to(assembly.device) for part in (*patches.batch(0), patches.labelled(0)[1]))
    return images, targets, labels


def _lowest(losses: Iterable[Tensor]) -> float:
    """The lowest finite loss; NaN without any."""
    return min((float(loss) for loss in losses if loss.isfinite()), default=math.nan)


def _scores(counts: Tensor) -> tuple[float, float]:
    """Mean IoU over the classes that occur, and accuracy, from counts (K, K)."""
    hits, either = counts.diagonal(), counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
    present = either > 0
    return float((hits[present] / either[present]).mean()), float(hits.sum() / counts.sum())


def finding(result: Overfit | None) -> Finding | None:
    """The finding on a batch that was not fitted, with the likely reason; None if it was fitted."""
    if result is None:
        return Finding(
            "note",
            "overfitting not tried",
            "the patches that were drawn have a single class",
            "Whether the model can learn could not be tried",
            "check the masks, or use larger patches",
        )
    if result.fitted:
        return None
    tried = f"a batch of {result.patches}, {format_count(len(result.losses), 'step')}"
    if not result.finite:
        return Finding(
            "error",
            "loss not finite",
            f"{tried}: the loss or its gradient was NaN or infinite in step {len(result.losses) + 1}",
            "Training would end there",
            "lower [optimizer] learning_rate; look for values far from 0, and for a loss that divides by 0",
        )
    if not result.constant > result.minimum:
        return Finding(
            "error",
            "loss does not prefer the ground truth",
            f"the loss of the true labels is {result.minimum:.3g}, that of a constant prediction {result.constant:.3g}",
            "Minimising it does not lead to the ground truth",
            "check [loss]: does it have the wrong sign, or weights that leave a class out?",
        )
    course = (
        f"{tried}: loss {result.losses[0]:.3g} to {result.losses[-1]:.3g}, mean IoU {result.iou:.2f}; "
        f"{100 * result.left:.0f} % of the loss of a constant prediction is left"
    )
    if result.falling:
        return Finding(
            "note" if result.left < 0.5 else "warning",
            "one batch overfitted slowly",
            f"{course}, and still decreasing",
            "Training may take long",
            "try more --steps here, or a higher [optimizer] learning_rate",
        )
    return Finding(
        "warning",
        "one batch not overfitted",
        f"{course}, and no longer decreasing",
        "A model that cannot overfit one batch will not learn from many images",
        "check that masks match their images ('preview'), then [optimizer] learning_rate (10 times lower, 10 times "
        "higher), then a larger model",
    )


__all__ = ["STEPS", "Overfit", "finding", "overfit"]
