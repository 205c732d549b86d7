"""The source of an evaluation's images: the data that a run was trained on, or another file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from yeastexp.config.diff import Rows, phrase
from yeastexp.config.experiment import Experiment
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.normalization import per_channel, rescaled
from yeastexp.data.pieces import refuse_other_order
from yeastexp.errors import UserError
from yeastexp.metrics.pixels import PerImageMetric
from yeastexp.prediction.predictor import Predictor
from yeastexp.sample import Sample
from yeastexp.system import files
from yeastexp.training import build, inputs
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.training_images import checked_labels

Split = Literal["val", "test", "train", "all"]


@dataclass(frozen=True)
class Images:
    """Images of a data set, by name, rescaled to the range of values that a run was trained on."""

    dataset: Any
    place: str
    names: tuple[str, ...]
    predictor: Predictor

    def stored(self, name: str) -> Sample:
        """An image as stored. Raises UserError, naming the data set, if labels are no classes of the run."""
        try:
            return checked_labels(self.dataset.read(name), len(self.predictor.classes))
        except UserError as error:
            raise UserError(*(f"{self.place}: {fault}" for fault in error.faults)) from None

    def rescaled(self, sample: Sample) -> Sample:
        """A stored image with the grey values that training would have given the network."""
        return replace(sample, image=self.predictor.rescaled(sample.image, self.dataset.normalization))

    def __iter__(self) -> Iterator[Sample]:
        return (self.rescaled(self.stored(name)) for name in self.names)


@dataclass(frozen=True)
class Source:
    """A data set with its name, its file and the file's digest if it has one; `own` if the run was trained on it."""

    dataset: Any
    name: str
    path: Path | None
    digest: str | None
    own: bool

    @property
    def place(self) -> str:
        """The data set's name in messages."""
        return str(self.path or self.name)

    def names(self, split: Split) -> tuple[str, ...]:
        """The names of the images of a split, or of all splits. Raises UserError if there are none."""
        splits: Mapping[str, list[str]] = self.dataset.splits
        names = tuple(name for key in splits for name in splits[key] if split in (key, "all"))
        if not names:
            filled = ", ".join(key for key in splits if splits[key])
            raise UserError(f"{self.place}: has no '{split}' images; choose from {filled}, or 'all'")
        return names

    def images(self, split: Split, predictor: Predictor) -> Images:
        """The rescaled images of a split. Raises UserError if their channels are not those of the run's data."""
        names, channels = self.names(split), predictor.experiment.task.channels
        for name in names:
            if (has := self.dataset.shape(name)[0]) != channels:
                raise UserError(f"{self.place}: image '{name}' has {has} channels; the run was trained on {channels}")
        refuse_other_order(self.place, getattr(self.dataset, "channel_names", ()), predictor.channel_names)
        return Images(self.dataset, self.place, names, predictor)


def training_source(run: Path, experiment: Experiment, edits: Rows) -> Source:
    """The data set that a run was trained on. Raises UserError if it is gone or was changed."""
    if reason := missing(run, experiment, edits):
        raise UserError(f"{run}: cannot score the images it was trained on ({reason}); bring them back, or use --data")
    paths = [entry.path for entry in inputs.inputs_of(experiment) if entry.kind == "data"]
    path = paths[0] if len(paths) == 1 and paths[0].is_file() else None
    name = path.stem if path else experiment.dataset.name
    return Source(build.build_dataset(experiment), name, path, files.digest(path) if path else None, own=True)


def missing(run: Path, experiment: Experiment, edits: Rows, kinds: Collection[str] = ("data", "folds")) -> str | None:
    """Why the data that a run was trained on cannot be had (gone, changed, or edited away); None if they can."""
    if other := {key: values for key, values in edits.items() if key.startswith(("dataset.", "validation.fold"))}:
        return f"{RunDirectory(run).experiment} names others: {phrase(other)}"
    changed = inputs.changed(RunDirectory(run).read_environment(), inputs.inputs_of(experiment), kinds)
    return changed[0] if changed else None


def file_source(run: Path, experiment: Experiment, edits: Rows, path: Path) -> Source:
    """The data set in an HDF5 file, recognised by its digest if the run was trained on it, wherever it lies.

    Raises UserError if it is the run's own, but the splits that it was trained with are gone or changed.
    """
    dataset = Hdf5(path)
    digest = files.digest(path)
    # The run's own data are opened with the options and the fold of the experiment, which are the splits that it was
    # trained with: those of the file may hold out images that it was trained on.
    digests = RunDirectory(run).read_environment()["digests"]["data"]
    for key, value in experiment.dataset.options.items():
        if isinstance(value, Path) and digests.get(value.name) == digest:
            if reason := missing(run, experiment, edits, ["folds"]):
                fault = f"cannot tell which images of {path} it was trained on ({reason})"
                raise UserError(f"{run}: {fault}; bring back what it was trained with")
            moved = replace(experiment.dataset, options={**experiment.dataset.options, key: path})
            split = build.build_dataset(replace(experiment, dataset=moved))
            return Source(split, path.stem, path, digest, own=True)
    return Source(dataset, path.stem, path, digest, own=False)


def image_digest(sample: Sample, stored: Mapping[str, Any] | None, other: Mapping[str, Any] | None = None) -> str:
    """The SHA-256 of an image's raw values and of its labels.

    `stored` is the normalisation that the file was packed with, if any. It is undone first, so that raw images of
    integers and their normalised copies have the same digest. Raw images of other values have that of their copies
    under the normalisation `other`, if it is given.
    """
    image = sample.image
    if other and not stored:
        image, stored = rescaled(image.double(), None, other).float(), other
    if stored:
        integers = integers_of(image, stored)
        image = rescaled(image.double(), stored, None).float() if integers is None else integers
    digest = hashlib.sha256(f"{tuple(image.shape)} {tuple(sample.labels.shape)}".encode())
    digest.update(image.contiguous().numpy().tobytes())
    digest.update(sample.labels.to(torch.int16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def integers_of(image: Tensor, stored: Mapping[str, Any]) -> Tensor | None:
    """The raw values of a normalised image (C, H, W) if they were integers, else None."""
    # Normalising in float32 loses the last bits of a value. Integers are had back by rounding, but of fractions nobody
    # knows which of several raw values it was, nor does any coarser grid help: of so many pixels some always lie
    # beside one of its edges. So fractions stay as they are, and only normalising the raw image alike tells that it is
    # the same one. What float32 loses is less than 2**-23 of the value and of its distance from the mean.
    centred = image.double() * per_channel(stored["std"], image.double())
    raw = rescaled(image.double(), stored, None)
    integers = raw.round()
    near = (raw - integers).abs() <= 2**-21 * (raw.abs() + centred.abs())
    return integers.float() + 0.0 if bool(near.all()) else None  # + 0.0 turns -0.0 into 0.0


def map_digests(sample: Sample, metrics: Iterable[PerImageMetric]) -> dict[str, str]:
    """The SHA-256 of those of an image's maps, by name, that metrics ask for."""
    asked = sorted({*sample.maps} & {name for metric in metrics for name in metric.data_maps})
    return {name: hashlib.sha256(sample.maps[name].contiguous().numpy().tobytes()).hexdigest() for name in asked}
