"""What a GPU makes of a run: steps a second with augmentations, how busy it is, and what the program waits for."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import prediction
from benchmarks.measuring import Contender, Tick, machine, measure, table
from benchmarks.training import CONTENDERS, ON_GPU, Setting, yeastexp
from yeastexp.prediction.predictor import load_predictor

HDF5 = Path(__file__).parents[1] / "experiments" / "hdf5.toml"
OTHERS = ("elastic", "poisson_noise", "invert_contrast")
"""The augmentations that `hdf5.toml` has not; those that make scenes are left out."""

FILES = {"yeastexp": "experiment.toml", "nine augmentations": "nine.toml", "all twelve": "twelve.toml"}

COMPARED = (
    *CONTENDERS[:2],
    Contender("nine augmentations", "benchmarks.gpu:nine"),
    Contender("all twelve", "benchmarks.gpu:twelve"),
)
"""A bare loop without augmentations, and runs."""

UNITS = 50
STEPS, WARM_UP = 40, 20
"""What is traced, and before."""

SIDE = 8192


def nine(tick: Tick, setting: Setting) -> None:
    """The augmentations of `hdf5.toml`."""
    yeastexp(tick, setting, FILES["nine augmentations"])


def twelve(tick: Tick, setting: Setting) -> None:
    """Those and the others."""
    yeastexp(tick, setting, FILES["all twelve"])


def write(setting: Setting) -> None:
    """The data, and an experiment for each list of augmentations, in the setting's folder."""
    setting.write()
    text, starter = (path.read_text(encoding="utf-8") for path in (setting.folder / FILES["yeastexp"], HDF5))
    listed = starter[starter.index('[[augment]]\nname = "reflect"') : starter.index("[model]")]
    others = "".join(f'\n[[augment]]\nname = "{name}"\n' for name in OTHERS)
    for name, added in (("nine augmentations", listed), ("all twelve", listed + others)):
        (setting.folder / FILES[name]).write_text(f"{text}\n{added}", encoding="utf-8")


class Enough(Exception):
    """Ends a run."""


@dataclass(frozen=True)
class Trace:
    """What a GPU did in some steps, a step each: `busy` is a share of the time."""

    launches: float
    copies: float
    waits: float
    busy: float
    milliseconds: float
    peak_mb: float

    @classmethod
    def of(cls, events: Sequence[Mapping[str, Any]], steps: int, peak_mb: float = 0.0) -> Trace:
        """From the events of a Chrome trace."""
        timed = [event for event in events if event.get("ph") == "X"]
        on_gpu = [event for event in timed if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
        calls = [event["name"] for event in timed if event.get("cat") in ("cuda_runtime", "cuda_driver")]
        spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in on_gpu)
        whole = max((end for _, end in spans), default=0.0) - min((begin for begin, _ in spans), default=0.0)
        return cls(
            launches=sum(event["cat"] == "kernel" for event in on_gpu) / steps,
            copies=sum(event["cat"] == "gpu_memcpy" for event in on_gpu) / steps,
            waits=sum("Synchronize" in name or name == "cudaMemcpy" for name in calls) / steps,
            busy=_covered(spans) / whole if whole else 0.0,
            milliseconds=whole / 1e3 / steps,
            peak_mb=peak_mb,
        )


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """How long at least one of some spans, in order, lasts."""
    total, reached = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def traced(setting: Setting, file: str, steps: int = STEPS, warm_up: int = WARM_UP) -> Trace:
    """Steps of a run in this process. Only calls to CUDA and what they start are recorded, which costs little."""
    activity = ProfilerActivity.CUDA if setting.device == "cuda" else ProfilerActivity.CPU
    recorder, done, before = profile(activities=[activity]), 0, Path.cwd()
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    class Ticks(Tick):
        def __init__(self) -> None:
            self.settle = lambda: None

        def __call__(self, answer: float | None = None) -> None:
            nonlocal done
            done += 1
            if done in (warm_up, warm_up + steps):
                self.settle()
                recorder.__enter__() if done == warm_up else recorder.__exit__(None, None, None)
            if done == warm_up + steps:
                raise Enough

    with suppress(Enough):
        yeastexp(Ticks(), setting, file)
    os.chdir(before)
    peak = torch.cuda.max_memory_allocated() / 1e6 if setting.device == "cuda" else 0.0
    path = setting.folder / "trace.json"
    recorder.export_chrome_trace(str(path))
    events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return Trace.of(events, steps, peak)


def traces(setting: Setting, steps: int = STEPS, warm_up: int = WARM_UP) -> str:
    """Markdown: a row a list of augmentations."""
    lines = [
        "| a step | kernels | copies | waits | GPU busy | ms | peak memory of the GPU, MB |",
        "| --- |" + " ---: |" * 6,
    ]
    for name, file in FILES.items():
        trace = traced(setting, file, steps, warm_up)
        lines.append(
            f"| {name} | {trace.launches:.0f} | {trace.copies:.1f} | {trace.waits:.2f} | {trace.busy:.0%} | "
            f"{trace.milliseconds:.2f} | {trace.peak_mb:.0f} |"
        )
    return "\n".join(lines)


def predicted(side: int, width: int, rounds: int) -> str:
    """Markdown: megapixels a second of `predict` without files, and from file to file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        predictor = load_predictor(prediction.trained(folder, width))
        image = np.random.default_rng(0).integers(500, 1500, (1, side, side)).astype(np.uint16)
        times = []
        for _ in range(1 + rounds):
            began = time.monotonic()
            predictor.classes_of(image, "noise")
            times.append(time.monotonic() - began)
    best, first = min(times[1:]), times[0]
    rates = (f"{side**2 / 1e6 / seconds:.1f}" for seconds in (best, first))
    return (
        f"`Predictor.classes_of`, {side}² pixels, U-Net of width {width} on {predictor.device}: "
        f"{next(rates)} megapixels/s (best of {rounds}; {next(rates)} the first time)"
    )


def report(
    setting: Setting = ON_GPU,
    contenders: Sequence[Contender] = COMPARED,
    rounds: int = 3,
    side: int = SIDE,
    units: int = UNITS,
    steps: int = STEPS,
) -> Iterator[str]:
    """Markdown, part by part, so that what was measured is kept if the time is over."""
    with tempfile.TemporaryDirectory() as folder:
        set_up = replace(setting, folder=Path(folder))
        write(set_up)
        results = measure(contenders, set_up, rounds=rounds, units=units, warm_up=units + 2)
        yield f"### {setting.title}\n\n{table(results, contenders[0].name, 'steps')}"
        yield traces(set_up, steps, min(WARM_UP, steps))
    yield predicted(side, setting.width, rounds)
    if setting.device == "cuda":
        yield torch.cuda.get_device_name()
    yield machine()
