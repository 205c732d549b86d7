"""What is measured, at tiny sizes: each contender works, all give the same answers, each command prints its table."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import augmentation, gpu, measuring, metrics, prediction, startup, training
from benchmarks.__main__ import commands
from benchmarks.measuring import Contender

TRAINING = training.Setting("tiny", batch=2, window=16, width=2, stride=4, images=2, side=32)
AUGMENTATION = augmentation.Setting(batch=2, window=16, images=2, side=48)
METRICS = metrics.Setting(images=2, side=8)


class Enough(Exception):
    """Ends a contender."""


class Ticks:
    """Counts the units of a contender, up to three; keeps its answers."""

    def __init__(self) -> None:
        self.answers: list[float | None] = []

    def __call__(self, answer: float | None = None) -> None:
        self.answers.append(answer)
        if len(self.answers) == 3:
            raise Enough


def answers(contender: Contender, setting: Any) -> list[float | None]:
    """Of three units of work."""
    module, _, name = contender.place.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    ticks = Ticks()
    with pytest.raises(Enough):
        function(ticks, setting)
    return ticks.answers


@pytest.mark.filterwarnings("ignore")  # those of other libraries are theirs
@pytest.mark.parametrize("contender", training.CONTENDERS, ids=lambda one: one.name)
def test_every_trainer_steps(contender: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    set_up = replace(TRAINING, folder=tmp_path)
    set_up.write()
    assert len(answers(contender, set_up)) == 3


@pytest.mark.parametrize("contender", training.GPU_CONTENDERS, ids=lambda one: one.name)
def test_what_is_measured_on_a_gpu_works_on_a_cpu_too(
    contender: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    set_up = replace(training.ON_GPU, device="cpu", batch=2, window=16, width=2, images=2, side=32, folder=tmp_path)
    set_up.write()
    assert len(answers(contender, set_up)) == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("contender", augmentation.CONTENDERS, ids=lambda one: one.name)
def test_every_list_of_augmentations_works(contender: Contender) -> None:
    assert len(answers(contender, AUGMENTATION)) == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("contender", metrics.CONTENDERS, ids=lambda one: one.name)
def test_every_metric_gives_the_same_answer(contender: Contender) -> None:
    wanted = answers(metrics.CONTENDERS[1], METRICS)[0]
    assert wanted is not None and 0 < wanted < 1
    tolerance = 0.05 if contender.name == "MONAI" else 1e-6  # a mean over images, the others over all pixels
    assert answers(contender, METRICS) == pytest.approx([wanted] * 3, abs=tolerance)


def result(contenders: list[Contender], *_: Any, **__: Any) -> dict[str, measuring.Result]:
    """As if all had been measured."""
    return {one.name: measuring.Measured([0.5], 100) for one in contenders}


@pytest.mark.parametrize("command", ["training", "augmentation", "metrics"])
def test_a_command_prints_its_table(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = {"training": training, "augmentation": augmentation, "metrics": metrics}[command]
    monkeypatch.setattr(room, "measure", result)
    first, second = (one.name for one in room.CONTENDERS[:2])
    found = CliRunner().invoke(commands, [command, "--rounds", "1", "--only", second])
    assert found.exit_code == 0, found.output
    assert [line.split(" | ")[0][2:] for line in found.output.splitlines() if " 1.00 " in line][:2] == [first, second]
    assert f"× {first}" in found.output and " cores, " in found.output
    missed = CliRunner().invoke(commands, [command, "--only", "x"])
    assert missed.exit_code == 2 and "Invalid value for --only: x; known: " in missed.output


def test_startup_prints_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "seconds", lambda command: 1.25)
    monkeypatch.setattr(startup, "to_first_step", lambda folder: 2.5)
    monkeypatch.setattr(startup, "installed", lambda module: module != "monai.engines")
    found = CliRunner().invoke(commands, ["startup", "--rounds", "2"])
    assert found.exit_code == 0, found.output
    assert "| import torch | 1.25 | 1.25 – 1.25 | +0.00 |" in found.output
    assert "| python -m yeastexp run, to the first step | 2.50 | 2.50 – 2.50 | +1.25 |" in found.output
    assert "| import monai.engines | skipped: not installed |  |  |" in found.output


def test_a_run_is_timed_to_its_first_step(tmp_path: Path) -> None:
    set_up = replace(TRAINING, folder=tmp_path)
    set_up.write()
    assert 0 < startup.to_first_step(tmp_path) < 60
    assert startup.FIRST_STEP in (tmp_path / "runs" / "experiment" / "001" / "log.txt").read_text()


@pytest.mark.parametrize("command", ["training", "augmentation", "metrics", "startup"])
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: python -m benchmarks {command}" in CliRunner().invoke(commands, [command, "--help"]).output


def test_what_a_gpu_does_is_read_off_a_trace() -> None:
    def event(category: str, name: str, begin: float, lasts: float) -> dict[str, Any]:
        return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": lasts}

    events = [
        {"ph": "M", "name": "process_name"},
        event("kernel", "add", 10, 30),
        event("kernel", "mul", 20, 40),
        event("gpu_memcpy", "Memcpy HtoD", 80, 30),
        event("cuda_runtime", "cudaLaunchKernel", 0, 5),
        event("cuda_runtime", "cudaStreamSynchronize", 5, 100),
        event("cuda_runtime", "cudaMemcpyAsync", 5, 10),
    ]
    assert gpu.Trace.of(events, steps=2, peak_mb=3) == gpu.Trace(1, 0.5, 0.5, 0.8, 0.05, 3)
    assert gpu.Trace.of([], steps=1) == gpu.Trace(0, 0, 0, 0, 0, 0)


def test_parts_of_the_report_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = prediction.EXPERIMENT.replace("size = 128", "size = 64").replace("steps = 40", "steps = 1")
    monkeypatch.setattr(prediction, "EXPERIMENT", small)
    set_up = replace(training.ON_GPU, device="cpu", batch=2, window=16, width=2, images=2, side=32, folder=tmp_path)
    gpu.write(set_up)
    traced = gpu.traces(set_up, steps=1, warm_up=1).splitlines()
    assert [line.split(" | ")[0] for line in traced[2:]] == [f"| {name}" for name in gpu.FILES]
    assert "megapixels/s" in gpu.predicted(64, 2, rounds=1)
