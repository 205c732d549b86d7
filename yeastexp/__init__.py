"""Experiments in microscopy segmentation: one TOML file, one repeatable run.

Names are imported when they are first asked for, so that the command line answers `--help` without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yeastexp.config.loading import experiment as experiment
    from yeastexp.config.loading import load_experiment as load_experiment
    from yeastexp.contracts import Prediction as Prediction
    from yeastexp.contracts import Task as Task
    from yeastexp.data.datasets import dataset as dataset
    from yeastexp.data.packed import open_packed as open_packed
    from yeastexp.data.transforms import BasicTransform2D as BasicTransform2D
    from yeastexp.data.transforms import transform as transform
    from yeastexp.errors import UserError as UserError
    from yeastexp.metrics.pixels import PerImageMetric as PerImageMetric
    from yeastexp.metrics.pixels import metric as metric
    from yeastexp.nets import model as model
    from yeastexp.nets.losses import loss as loss
    from yeastexp.nets.optimizers import optimizer as optimizer
    from yeastexp.nets.schedulers import scheduler as scheduler
    from yeastexp.prediction.trained import load as load
    from yeastexp.registry import InputFile as InputFile
    from yeastexp.registry import handler as handler
    from yeastexp.sample import IGNORE as IGNORE
    from yeastexp.sample import Sample as Sample
    from yeastexp.tasks import task as task
    from yeastexp.training.build import assemble as assemble
    from yeastexp.training.build import build_trainer as build_trainer
    from yeastexp.training.run import train as train
    from yeastexp.training.step import TrainingEvents as TrainingEvents
    from yeastexp.training.validation import build_validator as build_validator

_HOMES = {
    "train": "training.run",
    "load": "prediction.trained",
    "experiment": "config.loading",
    "open_packed": "data.packed",
    "dataset": "data.datasets",
    "transform": "data.transforms",
    "model": "nets",
    "loss": "nets.losses",
    "optimizer": "nets.optimizers",
    "scheduler": "nets.schedulers",
    "metric": "metrics.pixels",
    "task": "tasks",
    "handler": "registry",
    "BasicTransform2D": "data.transforms",
    "PerImageMetric": "metrics.pixels",
    "Task": "contracts",
    "Prediction": "contracts",
    "TrainingEvents": "training.step",
    "load_experiment": "config.loading",
    "assemble": "training.build",
    "build_trainer": "training.build",
    "build_validator": "training.validation",
    "Sample": "sample",
    "IGNORE": "sample",
    "InputFile": "registry",
    "UserError": "errors",
}
__all__ = list(_HOMES)


def __dir__() -> list[str]:
    """The public names among all others, so that editors and notebooks complete them."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yeastexp' has no attribute '{name}'")
    return getattr(importlib.import_module(f"yeastexp.{_HOMES[name]}"), name)
