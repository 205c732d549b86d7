"""The handlers that `experiments/` shows: one of eight lines, Ignite's learning-rate finder, its MLflow logger."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tiny import quiet

from yeastexp.errors import UserError
from yeastexp.training.run import run

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
SHORT = ["train.epochs=4", "model.width=2", "runtime.threads=1", "dataset.size=64", "patches.size=32"]


def test_a_handler_of_ones_own_takes_eight_lines() -> None:
    assert len((EXPERIMENTS / "my_handlers.py").read_text().splitlines()) <= 8


@pytest.mark.filterwarnings("ignore")  # of what MLflow is made of
def test_the_handlers_shown_write_into_the_run_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_handlers = run(EXPERIMENTS / "handlers.toml", [*SHORT, "handler.1.steps=12"], console=quiet())
    without = run(EXPERIMENTS / "quick.toml", SHORT, console=quiet())
    assert (with_handlers / "per_image.csv").read_bytes() == (without / "per_image.csv").read_bytes()
    assert (with_handlers / "pictures" / "best.png").read_bytes() == (without / "pictures" / "best.png").read_bytes()

    log = (with_handlers / "log.txt").read_text()
    assert "scores: {'iou/background': " in log and "lr_finder: suggested learning rate" in log

    with (with_handlers / "lr_finder.csv").open() as file:
        curve = [(float(row["learning_rate"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert len(curve) == 12 and curve == sorted(curve) and curve[-1][0] == pytest.approx(1.0)

    (scores,) = (with_handlers / "mlruns").glob("0/*/metrics/val iou/cell")
    rows = list(csv.DictReader((with_handlers / "metrics.csv").read_text().splitlines()))
    logged = [line.split() for line in scores.read_text().splitlines()]  # a time, a value and a step each
    assert [(value, step) for _, value, step in logged] == [
        (row["val/iou/cell"], row["step"]) for row in rows if row["val/iou/cell"]
    ]


def test_a_package_that_a_handler_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"handlers.toml:16:1: \[\[handler\]\] name: needs the package mlflow; pip install"
    ):
        run(EXPERIMENTS / "handlers.toml", [*SHORT, "handler.1.steps=12"], console=quiet())
