"""What a model gets on whole images: by a function, and by an engine with its own events."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from tiny import write_experiment
from torch import Tensor, nn

from yeastexp.config.loading import load_experiment
from yeastexp.contracts import Prediction
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.drawing import cells
from yeastexp.metrics.pixels import Accuracy, IoU
from yeastexp.sample import IGNORE, Sample
from yeastexp.training.build import Assembly, assemble
from yeastexp.training.device import configure_torch
from yeastexp.training.validation import build_validator, panel, score, validate

CPU = torch.device("cpu")


class Scale(nn.Module):
    """Two classes, the second where the image is above zero, more surely the larger the one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([-images, images], dim=1) * self.weight


class Images:
    """A data set of given validation images."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = {sample.name: sample for sample in samples}
        self.splits = {"val": list(self.samples)}

    def read(self, name: str) -> Sample:
        return self.samples[name]


@pytest.fixture
def assembly(tmp_path: Path) -> Assembly:
    """A tiny experiment, whose two validation images are read from its file."""
    return assemble(configure_torch(load_experiment(write_experiment(tmp_path))))


def test_pictures_mark_no_error_where_nobody_annotated(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.zeros(8, 8, dtype=torch.int64)
    ids[1:3, 1:7], ids[5:7, 1:7] = 1, 2
    marked: list[dict[str, tuple[int, ...]]] = []
    monkeypatch.setattr(cells, "panel", lambda image, true, predicted, *wrong: marked.append(wrong[0] | wrong[1]))
    for unlabelled in (False, True):
        labels, maps = (ids > 0).long(), {"instances": ids.clone()}
        labels[4:] = IGNORE if unlabelled else 0
        maps["instances"][4:] = 0
        panel(Sample(torch.zeros(1, 8, 8), labels, "", maps=maps), Prediction((ids > 0).long(), ids))
    assert [(errors["missed"], errors["false"]) for errors in marked] == [((), (2,)), ((), ())]


def test_validation_is_of_the_original_pixels(assembly: Assembly) -> None:
    """Through a coarser grid, the outputs come back at the image's own size."""
    image = torch.ones(1, 7, 9)
    image[:, :, :4] = -1
    labels = (image[0] > 0).long()
    labels[0, 0] = IGNORE
    metrics = {"iou": IoU(2), "accuracy": Accuracy(2)}
    half = replace(assembly, dataset=Images(Sample(image, labels, "half")), transforms=(Downscale(2),), metrics=metrics)
    validation = validate(half, Scale())
    assert validation.scores["accuracy"].counts.tolist() == [[62, 62]]
    assert validation.scores["iou"].pooled.tolist() == [1.0, 1.0]
    assert list(validation.losses) == ["half"] and 0 < validation.loss < 1


def test_validation_leaves_the_model_as_it_was(assembly: Assembly) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), Scale()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    validate(assembly, model)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.eval()
    validate(assembly, model)
    assert not model.training


def test_a_validator_tells_its_scores_by_tag(assembly: Assembly) -> None:
    """As floats that are those of `validate`; the model of the assembly, or another, or that of the moment."""
    validator = build_validator(assembly)
    for engine in (
        validator,
        build_validator(assembly, assembly.model),
        build_validator(assembly, lambda: assembly.model),
    ):
        metrics = engine.run(assembly.samples("val")).metrics
        assert set(metrics) == {"iou/background", "iou/cell", "iou/mean", "accuracy", "loss"}
        assert {type(value) for value in metrics.values()} == {float}
        validation = validate(assembly, assembly.model)
        per_image = validation.scores["iou"].per_image.tolist()
        assert [metrics["iou/background"], metrics["iou/cell"]] == per_image
        assert metrics["accuracy"] == validation.scores["accuracy"].per_image.item()
        assert metrics["loss"] == validation.loss
    other = Scale()
    assert (
        build_validator(assembly, other).run(assembly.samples("val")).metrics["loss"] == validate(assembly, other).loss
    )
    with torch.no_grad():
        next(assembly.model.parameters()).mul_(-3)
    again = validator.run(assembly.samples("val")).metrics
    assert again["loss"] == validate(assembly, assembly.model).loss != metrics["loss"]
    assert set(again) == set(metrics)


def test_handlers_of_a_validator_are_shown_each_sample_and_its_prediction(assembly: Assembly) -> None:
    validator, shown = build_validator(assembly), {}

    @validator.on(Events.ITERATION_COMPLETED)
    def look() -> None:
        shown[validator.state.batch.name] = validator.state.prediction

    completed: list[float] = []
    validator.add_event_handler(Events.COMPLETED, lambda: completed.append(validator.state.metrics["iou/mean"]))
    validator.run(assembly.samples("val"))
    assert list(shown) == list(assembly.dataset.splits["val"])
    assert all(isinstance(one, Prediction) and one.labels.shape == (32, 32) for one in shown.values())
    assert len(completed) == 1 and 0 <= completed[0] <= 1


def test_a_score_is_of_what_a_function_predicts() -> None:
    labels = torch.tensor([[0, 1], [1, IGNORE]])
    samples = [Sample(torch.zeros(1, 2, 2), labels, name) for name in ("a", "b")]
    scores = score(
        lambda sample: Prediction(torch.full((2, 2), int(sample.name == "a"))), samples, {"iou": IoU(2)}, CPU
    )
    assert scores["iou"].rows.tolist() == [[0, pytest.approx(2 / 3)], [pytest.approx(1 / 3), 0]]


def test_a_metric_is_given_what_it_asks_for_of_a_prediction() -> None:
    """`predicted_<name>` is a further map of the prediction, and other names are label maps of the sample."""

    class Largest(IoU):
        def counts(self, prediction: Tensor, labels: Tensor, *, depth: Tensor, predicted_depth: Tensor) -> Tensor:
            return torch.stack([depth.max(), predicted_depth.max(), prediction.max(), labels.max()]).long()

        def score(self, counts: Tensor) -> Tensor:
            return counts[1] / counts[0]

    sample = Sample(
        torch.zeros(1, 2, 2), torch.ones(2, 2, dtype=torch.int64), "a", maps={"depth": torch.full((2, 2), 8)}
    )
    prediction = Prediction(torch.zeros(2, 2, dtype=torch.int64), values={"depth": torch.full((2, 2), 2)})
    scores = score(lambda _: prediction, [sample], {"largest": Largest(2)}, CPU)["largest"]
    assert scores.counts.tolist() == [[8, 2, 0, 1]] and scores.pooled.tolist() == [0.25]
    assert not math.isnan(float(scores.per_image))
