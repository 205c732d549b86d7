"""The contract of tasks that tell instances apart, beside that of every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from yeastexp.contracts import Task
from yeastexp.metrics.pixels import PerImageMetric

METRICS = ("average_precision", "panoptic_quality", "seg", "count", "iou")
"""The metrics of every validation and evaluation of such a task, unless it says others."""

Planes = npt.NDArray[np.float32]
"""Kept planes (P, h, W) of some rows of an image."""


@runtime_checkable
class TellsInstances(Protocol):
    """A task whose `decode` gives instances, for images of any size: `predict` writes their ids and measures them."""

    def find_instances(self, planes: Callable[[slice], Planes], labels: Callable[[], npt.NDArray[Any]]) -> int:
        """Write the ids of all pixels into an array (H, W) and return how many there are.

        `planes` gives the kept planes (P, h, W) of any rows. `labels` gives the array, and is called again for each
        band of rows, because the array may lie in a file. The ids are those of `decode`.
        """
        ...

    def confidence(self, planes: Planes) -> Planes:
        """Return the confidence that pixels belong to an instance, (h, W) in [0, 1], from kept planes (P, h, W)."""
        ...


def metrics_of(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics of every validation and evaluation of a task, beside those of the file."""
    return task.metrics or (METRICS if isinstance(task, TellsInstances) else ())


def approximate_in(task: Task, metrics: Mapping[str, PerImageMetric]) -> tuple[str, ...]:
    """Return the names of the metrics that score cells which the task only approximates."""
    return tuple(name for name, metric in metrics.items() if task.approximates and "instances" in metric.predicted)


def constant_of(task: Task) -> int | None:
    """Return the class that a baseline predicts everywhere: background for instances, None for the commonest class."""
    return 0 if isinstance(task, TellsInstances) else None
