"""A task of one's own, `experiments/distance.py`: through every command, from `run` to `report`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import tifffile
import torch
from tiny import quiet

from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.images import read_mask, write_png
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.inspection.check import check
from yeastexp.inspection.preflight import preflight
from yeastexp.prediction.predict import predict
from yeastexp.prediction.predictor import load_predictor
from yeastexp.report import report
from yeastexp.training.resume import resume
from yeastexp.training.run import run
from yeastexp.training.verify import verify

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SHORT = ["train.epochs=30", "runtime.threads=1", "dataset.size=64", "patches.size=48", "model.width=4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run, beside which others are made."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("distance"))
        return run(EXPERIMENTS / "distance.toml", SHORT, console=quiet()).resolve()


def test_the_plugin_is_short() -> None:
    assert len((EXPERIMENTS / "distance.py").read_text().splitlines()) <= 40


def test_the_run_is_scored_by_its_own_metric_and_the_baselines_are_not(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    error = result["val"]["best"]["distance_error"]["all"]
    assert result["monitor"] == "distance_error" and 0 < error["per_image"] < 3
    assert result["baselines"]["threshold"]["distance_error"]["all"]["per_image"] is None
    assert result["baselines"]["threshold"]["iou"]["cell"]["per_image"] > 0


def test_it_repeats_and_has_nothing_left_to_resume(finished: Path) -> None:
    assert verify(finished, console=quiet()).compared > 100
    assert resume(finished, console=quiet()) is False


def test_it_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(EXPERIMENTS / "distance.toml", SHORT).loss > 0
    findings = preflight(EXPERIMENTS / "distance.toml", SHORT, steps=3)
    assert findings.count("error") == 0


def test_it_is_evaluated_compared_and_reported(finished: Path) -> None:
    evaluate(finished, split="val")
    with (finished / "evaluations" / "synthetic_yeast-val-best" / "per_image.csv").open() as file:
        assert {"distance_error", "iou", "regions_predicted"} <= set(next(csv.DictReader(file)))
    page = report([finished])
    assert "distance_error" in page.read_text(encoding="utf-8")


def test_it_predicts_labels_and_distances(finished: Path, tmp_path: Path) -> None:
    data = SyntheticYeast(images=2, size=64, seed=3)
    (name, *_) = data.splits["train"]
    sample = data.read(name)
    write_png(tmp_path / "in" / "a.png", sample.image[0].numpy().astype("uint16"))
    predict(finished, [str(tmp_path / "in")], tmp_path / "out", probabilities=True, tta=True)
    distances = tifffile.imread(tmp_path / "out" / "probabilities" / "a.tif")
    mask = read_mask(tmp_path / "out" / "a.png")
    assert distances.shape == (64, 64) and distances.max() > 1
    assert ((distances > 0.5) == (mask > 0)).all()
    whole = load_predictor(finished).predict(sample)
    assert torch.equal(whole.labels, (whole.values["distance"] > 0.5).long())
