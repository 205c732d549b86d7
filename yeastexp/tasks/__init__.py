"""What a network learns from the labels, and what its outputs mean."""

from yeastexp.contracts import Prediction, Task
from yeastexp.registry import task
from yeastexp.tasks import instances, semantic

__all__ = ["Prediction", "Task", "instances", "semantic", "task"]
