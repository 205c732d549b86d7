"""Experiments in microscopy segmentation: one TOML file, one repeatable run.

Names are imported when they are first asked for, so that the command line answers `--help` without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yeastexp.datasets import dataset as dataset
    from yeastexp.errors import UserError as UserError
    from yeastexp.losses import loss as loss
    from yeastexp.metrics import PerImageMetric as PerImageMetric
    from yeastexp.metrics import metric as metric
    from yeastexp.models import model as model
    from yeastexp.optimizers import optimizer as optimizer
    from yeastexp.registry import InputFile as InputFile
    from yeastexp.sample import IGNORE as IGNORE
    from yeastexp.sample import Sample as Sample
    from yeastexp.schedulers import scheduler as scheduler
    from yeastexp.transforms import BasicTransform2D as BasicTransform2D
    from yeastexp.transforms import transform as transform

_HOMES = {
    "dataset": "datasets",
    "transform": "transforms",
    "model": "models",
    "loss": "losses",
    "optimizer": "optimizers",
    "scheduler": "schedulers",
    "metric": "metrics",
    "BasicTransform2D": "transforms",
    "PerImageMetric": "metrics",
    "Sample": "sample",
    "IGNORE": "sample",
    "InputFile": "registry",
    "UserError": "errors",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yeastexp' has no attribute '{name}'")
    return getattr(importlib.import_module(f"yeastexp.{_HOMES[name]}"), name)
