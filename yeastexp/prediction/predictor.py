"""The trained model of a run, ready to predict."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yeastexp.config import diff
from yeastexp.config.experiment import Experiment
from yeastexp.contracts import Prediction, Task
from yeastexp.data.datasets.drawn import Drawn
from yeastexp.data.normalization import Values, rescaled
from yeastexp.data.pieces import Pieces, Size, StoredImage, one_of_equal_channels, refuse_other_order
from yeastexp.data.transforms import pipeline
from yeastexp.data.views import SYMMETRIES, averaged
from yeastexp.errors import UserError
from yeastexp.prediction import tiling
from yeastexp.prediction.tiling import Tiling
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import nearby
from yeastexp.training import build, checkpoints, inputs
from yeastexp.training.build import Preprocessing
from yeastexp.training.device import compute_device, to_device
from yeastexp.training.run_directory import RunDirectory, Which
from yeastexp.training.training_images import Transforms

AT_ONCE = 512 * 512
"""Images of at most so many pixels are predicted at once, whatever the model and the memory that is free."""

PREDICTING = ("plugins", "task", "model", "transform", "transform (order)")
"""The tables of an experiment that predictions depend on."""

SAMPLED = 4
"""The number of training images whose values stand for those of all, if the checkpoint holds no values."""


@dataclass(frozen=True)
class Predictor:
    """A run's model at one of its checkpoints, with the transforms and normalisation of its inputs."""

    experiment: Experiment
    task: Task
    step: int
    model: torch.nn.Module
    transforms: Transforms
    normalization: Mapping[str, Any] | None
    device: torch.device
    values: Values | None = None
    """The range of the training images' values, if the checkpoint holds it."""
    notes: tuple[str, ...] = ()
    """Warnings about inputs of the run that have changed since, and can change predictions."""
    edits: diff.Rows = field(default_factory=dict)
    """The keys of the experiment's file that were edited since the checkpoint, none of which changes predictions."""
    tiles: Tiling | None = None
    """How the model is run on large images, if it is not a module whose operators can be traced (an exported one)."""
    channel_names: tuple[str, ...] = ()
    """Those of the training images, if their file names them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    @cached_property
    def tiling(self) -> Tiling:
        """How the model is run on images that are too large for it."""
        return self.tiles or Tiling.of(self.model, self.experiment.task.channels, self._bytes_per_pixel)

    def rescaled(self, image: Tensor, stored: Mapping[str, Any] | None) -> Tensor:
        """Return an image (C, H, W), stored with some normalisation or none, with values as in training."""
        return rescaled(image, stored, self.normalization)

    def logits(self, sample: Sample, *, side: int | None = None, tta: bool = False) -> Tensor:
        """Return logits (K, H, W) on the pixels of a sample whose values are as in training.

        If memory does not suffice for the whole image, or if it is larger than `side` pixels, it is cut into tiles.
        Several flips and rotations of the image are averaged as the task wants it; with `tta`, all eight.
        """
        moved = replace(sample, image=sample.image.to(self.device), labels=sample.labels.to(self.device), maps={})
        transformed = pipeline.whole(self.transforms, moved)
        logits, tile = self.scores(Pieces.of(transformed.image), side=side, tta=tta)
        return pipeline.restore(self.transforms, tiling.assemble(logits, tile), sample.size)

    def predict(self, sample: Sample) -> Prediction:
        """Return the prediction for a sample whose values are as in training. Raises UserError if outputs are NaN."""
        logits = self.logits(sample)
        refuse_nan_outputs(sample.name, logits)
        return self.task.decode(logits)

    def scores(self, image: Pieces, *, side: int | None = None, tta: bool = False) -> tuple[Pieces, Size]:
        """Return logits on a transformed image, computed when a piece is read, and the best size of pieces."""
        if self.takes_at_once(image.size, side):
            tile, logits = image.size, partial(tiling.at_once, self.model)
        else:
            tile = self.tiling.tile(image.size, self.device, side)
            if why := self.tiling.on(image.size, tile).inexact:
                warnings.warn(f"images are cut into tiles that overlap and are blended: {why}", stacklevel=2)
            logits = partial(self.tiling.logits, tile=tile)
        return averaged(image, logits, self.task, len(SYMMETRIES) if tta else self.task.views), tile

    def takes_at_once(self, size: Size, side: int | None = None) -> bool:
        """Whether the model is run on a whole image: if no side is above `side` or, without it, if memory suffices."""
        if side:
            return max(size) <= side
        pixels = size[0] * size[1]
        return pixels <= AT_ONCE or self._bytes_per_pixel * pixels <= tiling.activation_bytes(self.device)

    @cached_property
    def _bytes_per_pixel(self) -> float:
        """The bytes of activations that the model holds at once for each pixel."""
        if self.tiles:
            return self.tiles.bytes_per_pixel
        return tiling.bytes_per_pixel(self.model, self.experiment.task.channels)

    @cached_property
    def trained_on(self) -> Values | None:
        """The range of the training images' values: as in the checkpoint, else of some images that are still there."""
        return self.values or _values_of(self.experiment)

    def fitting(self, image: StoredImage, grey: str = "save it as a grey image") -> StoredImage:
        """Return an image with as many channels as the run was trained on; of equal channels one is taken.

        Raises UserError if the image has another number of channels, or the same in another order by their names;
        `grey` is the remedy for a run of grey images.
        """
        channels = self.experiment.task.channels
        image = one_of_equal_channels(image) if channels == 1 else image
        if image.shape[0] != channels:
            remedy = grey if channels == 1 else "give it images with as many"
            raise UserError(f"{image.name}: has {image.shape[0]} channels; the run was trained on {channels}; {remedy}")
        refuse_other_order(image.name, image.channel_names, self.channel_names)
        return image

    def classes_of(self, image: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
        """Return class indices (H, W) of an image (C, H, W) with values as recorded.

        Raises UserError if the image has another number of channels than the run was trained on.
        """
        image = self.fitting(StoredImage.of(name, image)).whole
        values = self.rescaled(torch.from_numpy(image.astype(np.float32)), None)
        prediction = self.predict(Sample(values, torch.full(image.shape[-2:], IGNORE), name))
        return np.asarray(prediction.labels.cpu().numpy().astype(np.uint8))


def refuse_nan_outputs(name: str, logits: Tensor) -> None:
    """Raise UserError if the logits on an image are NaN somewhere, which no mask would show."""
    if bool(logits.isnan().any()):
        raise UserError(f"{name}: the model's outputs for it are NaN; check its values, and train again")


def load_predictor(run: Path, checkpoint: Which = "best", device: str = "auto") -> Predictor:
    """Return the predictor of a checkpoint in a run directory; the data of the run need not be there.

    Raises UserError if there is no such checkpoint, or if it is of another experiment than the run's file.
    """
    directory = RunDirectory.existing(run)
    inner = (
        "" if directory.checkpoints.is_dir() else nearby.run_meant(run, f"{directory.checkpoints.name}/{checkpoint}.pt")
    )
    # The directory of a cross-validation holds an experiment file, but checkpoints only in its runs.
    if inner:
        raise UserError(f"{run}: has no checkpoints of its own, but runs; {inner}")
    loaded = directory.load([f"runtime.device={device}"], data=False)
    place = compute_device(loaded.runtime)
    path = directory.checkpoint(checkpoint)
    try:
        state = checkpoints.load(path)
    except UserError as error:
        other: Which = "last" if checkpoint == "best" else "best"
        try:
            checkpoints.load(directory.checkpoint(other))
        except UserError:
            raise error from None
        raise UserError(f"{error}; --checkpoint {other} takes the other one", status=error.status) from None
    # The experiment's file may have been edited since. Weights may load into the model of another experiment of equal
    # shapes, whose predictions would be wrong without a word.
    edits = diff.edits(state["experiment"], loaded, directory.experiment) if "experiment" in state else {}
    if wrong := {key: values for key, values in edits.items() if key.partition(".")[0] in PREDICTING}:
        raise UserError(f"{directory.experiment}: is not the experiment of {path} ({diff.phrase(wrong)}); put it back")
    model = to_device(build.build_model(loaded), loaded.runtime, place)
    checkpoints.load_weights(model, state["model"], path)
    preprocessing = Preprocessing.from_state(state)
    try:
        transforms = preprocessing.transforms(loaded)
    except (TypeError, ValueError):
        fault = "its [[transform]] list is not that of the experiment file; it is of another experiment"
        raise UserError(f"{path}: {fault}") from None
    normalization, values = preprocessing.normalization, preprocessing.values
    # What a task has fitted on the training labels is part of the checkpoint, so the data need not be there.
    task = build.build_task(loaded)
    task.load_state_dict(preprocessing.task)
    notes = tuple(_changed(directory, loaded))
    return Predictor(
        loaded, task, state["step"], model.eval(), transforms, normalization, place, values, notes, edits,
        channel_names=preprocessing.channel_names,
    )  # fmt: skip


def _changed(run: RunDirectory, loaded: Experiment) -> Iterator[str]:
    """Yield a warning for each plugin or file that has changed since the run, or one that its digests are lost."""
    try:
        recorded = run.read_environment()
    except UserError as error:
        yield f"{error}; it would tell whether plugins are those of the run"
        return
    changed = inputs.changed(recorded, inputs.inputs_of(loaded), ["plugins", "files"])
    yield from (f"{run}: {phrase}" for phrase in changed)


def _values_of(loaded: Experiment) -> Values | None:
    """Return the range of values of some of the training images; None if their data set is gone."""
    try:
        dataset = build.build_dataset(loaded)
        # Weights that come with the package keep no range: they are for images of any scale, and what they were
        # trained on is drawn.
        if isinstance(dataset, Drawn):
            return None
        names = dataset.splits["train"]
        return Values.of(
            (dataset.read(name).image for name in names[:: -(-len(names) // SAMPLED)]), dataset.normalization
        )
    except (UserError, OSError):
        return None
