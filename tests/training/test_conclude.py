"""The end of a run: what it shows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from yeastexp.metrics.pixels import Scores
from yeastexp.sample import Sample
from yeastexp.training import conclude
from yeastexp.training.budget import PICTURES
from yeastexp.training.conclude import from_worst_to_best
from yeastexp.training.progress import Validation
from yeastexp.training.run import run


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


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_image_of_the_pictures_is_predicted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """As budgets plan for; there are three pictures whatever the number of images."""
    monkeypatch.chdir(tmp_path)
    predicted: list[str] = []
    outputs = conclude.whole_image_outputs

    def counted(model: Any, transforms: Any, task: Any, sample: Sample, device: Any) -> Any:
        predicted.append(sample.name)
        return outputs(model, transforms, task, sample, device)

    monkeypatch.setattr(conclude, "whole_image_outputs", counted)
    folder = run(tiny.write_experiment(tmp_path, val=count), console=tiny.quiet())
    assert len(predicted) == len(set(predicted)) == min(count, PICTURES)
    assert len([*(folder / "pictures").iterdir()]) == 3
