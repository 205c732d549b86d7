"""What a task offers that tells instances apart, beside the contract of every task."""

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
        """Write the ids of all pixels into an array (H, W), by the kept planes of any rows; how many ids there are.

        The array is asked for again for each band of rows, since it may lie in a file. The ids are those of `decode`.
        """
        ...

    def confidence(self, planes: Planes) -> Planes:
        """How sure the task is that pixels belong to an instance, (h, W) in [0, 1], by the kept planes (P, h, W)."""
        ...


def metrics_of(task: Task) -> tuple[str, ...]:
    """The names of the metrics of every validation and evaluation of a task, beside those of the file."""
    return task.metrics or (METRICS if isinstance(task, TellsInstances) else ())


def approximate_in(task: Task, metrics: Mapping[str, PerImageMetric]) -> tuple[str, ...]:
    """The names of the metrics that score cells which the task only approximates."""
    return tuple(name for name, metric in metrics.items() if task.approximates and "instances" in metric.predicted)


def constant_of(task: Task) -> int | None:
    """The class that a baseline predicts everywhere: background, which has no instances, or else the commonest."""
    return 0 if isinstance(task, TellsInstances) else None
