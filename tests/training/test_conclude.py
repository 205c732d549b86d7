"""The end of a run: what it shows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from yeastexp.metrics.pixels import Scores
from yeastexp.training.conclude import from_worst_to_best
from yeastexp.training.progress import Validation


@pytest.mark.parametrize(
    ("monitor", "higher_is_better", "wanted"),
    [("share", True, ["b", "d", "a"]), ("share", False, ["a", "d", "b"]), ("loss", True, ["d", "c", "b", "a"])],
)
def test_images_are_ordered_by_what_is_monitored(monitor: str, higher_is_better: bool, wanted: list[str]) -> None:
    """An image that the metric has no score for has no place; of a loss, the highest is the worst."""
    rows = torch.tensor([[0.9], [0.1], [torch.nan], [0.5]], dtype=torch.float64)
    scores = {"share": Scores(rows, rows, rows[0], rows[0])}
    validation = Validation(scores, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
    assembly = SimpleNamespace(
        experiment=SimpleNamespace(monitor=monitor),
        classes=("background", "cell"),
        metrics={"share": SimpleNamespace(higher_is_better=higher_is_better)},
    )
    assert from_worst_to_best(assembly, validation) == wanted  # type: ignore[arg-type]
