"""The subject of an inspection: the model of an experiment, a run or a name, and how it would be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yeastexp import plugins
from yeastexp.config import toml_document
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import EXCLUSIVE, load_experiment
from yeastexp.config.settings import Train
from yeastexp.data.transforms import pipeline
from yeastexp.errors import UserError
from yeastexp.metrics.cells import diameters
from yeastexp.nets.costs import stepped
from yeastexp.nets.optimizers import adamw
from yeastexp.registry import model as models
from yeastexp.training import build
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.training_images import DEFAULT_SIDE, patch_side

IMAGE_SIDE = 256
"""The side of an image in pixels if nothing else tells its size."""
CELL_IMAGES = 8
"""The most training images whose cells are measured."""


@dataclass(frozen=True)
class Subject:
    """A model to inspect, and how it would be trained."""

    name: str
    model: nn.Module
    image: tuple[int, int, int]
    """Channels, height and width."""
    batch: int
    patch_size: int | None
    optimizer: torch.optim.Optimizer | None
    """An optimizer over stand-ins for the model's parameters, stepped once so that its state has its size; None if the
    model has no parameters."""
    cell_diameters: tuple[float, ...] = ()
    """Diameters in pixels of the cells of some training images after the transforms; empty without the data."""
    cells_apart: bool = True
    """Whether the data separate cells that touch; otherwise each connected component counts as one cell."""

    @property
    def cell_diameter(self) -> float | None:
        """The median diameter of the cells in pixels; None without the data."""
        return float(np.median(self.cell_diameters)) if self.cell_diameters else None

    @property
    def doubt(self) -> str:
        """A caveat to the cell diameter, to continue a sentence; else empty."""
        return "" if self.cells_apart else "; touching cells were counted as one"


def of_experiment(path: Path, settings: Sequence[str] = (), image: tuple[int, int, int] | None = None) -> Subject:
    """The subject of an experiment file or of a run directory, its model with the initial weights.

    The data need not be there, but without them cells are not measured.
    """
    if path.suffix == ".toml" or path.is_file():
        loaded = load_experiment(path, settings, data=False)
    else:
        loaded = RunDirectory.existing(path).load(settings, data=False)
    if image and image[0] != loaded.task.channels:
        raise UserError(f"--input: has {image[0]} channels, but [task] channels of {path} is {loaded.task.channels}")
    model = build.build_model(loaded)
    measured, apart, shortest = _data(loaded)
    patch_size = patch_side(loaded.patches, shortest)
    return Subject(
        name=f"{path}: {loaded.model.name}",
        model=model,
        image=image or (loaded.task.channels, patch_size, patch_size),
        batch=loaded.train.batch_size,
        patch_size=patch_size,
        optimizer=stepped(loaded.optimizer.build, model),
        cell_diameters=measured,
        cells_apart=apart,
    )


def of_model(
    name: str, settings: Sequence[str] = (), image: tuple[int, int, int] | None = None, classes: int = 2
) -> Subject:
    """The subject of a registered model with options such as `width=8`, trained with AdamW and the default batch.

    `name` may also be a plugin file that registers a model, or `FILE.py:NAME` if it registers several.
    """
    plugins.load_installed()
    name = _registered(name)
    channels = image[0] if image else 1
    try:
        model = models[name](channels, classes, **_options(name, settings))
    except UserError as error:
        where = f" {error.key}" if error.key else ""
        raise UserError(
            *(f"model '{name}'{where}: {fault}" if error.key else fault for fault in error.faults)
        ) from None
    if not isinstance(model, nn.Module):
        raise UserError(f"model '{name}': makes a {type(model).__name__}, which is not an nn.Module")
    side = getattr(model, "size", IMAGE_SIDE)  # a model that is made for one size says so
    return Subject(
        name=name,
        model=model,
        image=image or (channels, side, side),
        batch=Train().batch_size,
        patch_size=None,
        optimizer=stepped(adamw, model),
    )


def _registered(name: str) -> str:
    """The registered name of a model, which may be given as a plugin file; that file is loaded."""
    file, _, chosen = name.partition(":")
    if not file.endswith(".py"):
        return name
    plugins.load([Path(file)])
    names = [entry.name for entry in models.entries() if entry.plugin in plugins.active()]
    if chosen in names or (not chosen and len(names) == 1):
        return chosen or names[0]
    if not names:
        raise UserError(f'{file}: registers no model; a function below @model("name") is one')
    raise UserError(f"--model {name}: name one of its models, as in {file}:{names[0]} (there are {', '.join(names)})")


def _options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """The options of a model from `--set`, checked as those of a file are."""
    schema = models.find(name).schema
    given = toml_document.Document(toml_document.Place(f"--model {name}"), {"model": {}})
    for setting in settings:
        key = setting.partition("=")[0]
        toml_document.override(given, setting if "." in key or key == "extends" else f"model.{setting}", EXCLUSIVE)
        if set(given.values) != {"model"} or "name" in given.values["model"]:
            raise UserError(f"--set {setting}: with --model only the model's options can be set, as in width=8")
    typed, problems = schema.check(given.values["model"])
    if problems:
        raise UserError(
            *(f"--model {name}: {'.'.join(map(str, problem.keys))}: {problem.message}" for problem in problems)
        )
    return typed


def _data(loaded: Experiment) -> tuple[tuple[float, ...], bool, int]:
    """Cell diameters, whether touching cells are separated, and the shortest side of the transformed training images.

    Returns defaults if the data cannot be read.
    """
    try:
        dataset = loaded.dataset.build()
        transforms = build.fitted_transforms(loaded, dataset)
        names = dataset.splits["train"]
        measured: list[float] = []
        for name in names[:CELL_IMAGES]:
            sample = dataset.read(name)
            transformed = pipeline.whole(transforms, sample)
            measured += diameters(transformed.maps.get("instances"), transformed.labels)
            scale = min(transformed.size) / min(sample.size)
        # The transforms' change of scale is that of the last image read: the others would have to be read for theirs.
        shortest = int(scale * min(min(dataset.shape(name)[1:]) for name in names))
        return tuple(measured), "instances" in dataset.maps, shortest
    except (UserError, OSError):
        return (), True, DEFAULT_SIDE
