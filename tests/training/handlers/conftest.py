"""Plain engines to attach a handler to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor

from yeastexp.training.step import TrainingEvents


@pytest.fixture
def trainer() -> Engine:
    """Its data are the losses of its steps; it fires no event of an update by itself."""

    def step(engine: Engine, loss: float) -> Tensor:
        return torch.tensor(loss)

    engine = Engine(step)
    engine.register_events(*TrainingEvents, event_to_attr={TrainingEvents.UPDATE_COMPLETED: "updates"})
    return engine


@pytest.fixture
def validator() -> Engine:
    """Its only datum is a dictionary that gives its state: a validation, its summary, the metrics by tag."""

    def step(engine: Engine, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(engine.state, name, value)

    return Engine(step)
