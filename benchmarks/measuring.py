"""Contenders measured in turn: a process each, their rounds interleaved, so that a busy neighbour slows all alike."""

from __future__ import annotations

import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

PACKAGES = (
    "torch",
    "pytorch-ignite",
    "numpy",
    "monai",
    "pytorch-lightning",
    "torchmetrics",
    "kornia",
    "albumentations",
    "opencv-python-headless",
)


@dataclass(frozen=True)
class Contender:
    """A name, and where the function is that does one unit of work after the other: `module:function`.

    It is called in a process of its own as `function(tick, setting)`, imports and all, calls `tick()` after every unit,
    and need not end by itself.
    """

    name: str
    place: str


@dataclass(frozen=True)
class Measured:
    """Seconds a unit in each round, the largest memory of the process, and the last answer that the work gave."""

    seconds: list[float]
    peak_mb: float
    answer: float | None = None

    @property
    def median(self) -> float:
        """Seconds a unit."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Skipped:
    """Why a contender did not take part."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """What a contender died of."""

    reason: str


Result = Measured | Skipped


class Tick:
    """Called after every unit of work; between two rounds it waits until the contender's turn comes again.

    `settle` waits for work that was only started, as on a GPU.
    """

    def __init__(self, connection: Connection, units: int, warm_up: int) -> None:
        self.connection = connection
        self.units, self.warm_up = units, warm_up
        self.settle: Callable[[], None] = lambda: None
        self.done = 0
        self.began = 0.0

    def __call__(self, answer: float | None = None) -> None:
        self.done += 1
        after = self.done - self.warm_up
        if after < 0 or after % self.units:
            return
        self.settle()
        self.connection.send((time.perf_counter() - self.began) / self.units if after else None)
        if self.connection.recv() == "end":
            self._end(answer)
        self.began = time.perf_counter()

    def _end(self, answer: float | None) -> NoReturn:
        self.connection.send((peak_mb(), answer))
        os._exit(0)  # an exception would be caught, logged and cleaned up after by the frameworks


def peak_mb() -> float:
    """The largest memory that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def serve(connection: Connection, place: str, setting: Any, units: int, warm_up: int) -> None:
    """The process of a contender."""
    module, _, name = place.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        connection.send(Skipped(f"{error.name} is not installed; pip install -e '.[bench]'"))
        return
    try:
        function(Tick(connection, units, warm_up), setting)
        connection.send(Failed("ended before its rounds did"))
    except Exception:
        connection.send(Failed(traceback.format_exc()))


def measure(
    contenders: Sequence[Contender], setting: Any, *, rounds: int, units: int, warm_up: int
) -> dict[str, Result]:
    """Each contender's result; who goes first changes from round to round."""
    context = multiprocessing.get_context("spawn")
    results: dict[str, Result] = {}
    lines: dict[str, Connection] = {}
    with ExitStack() as stack:
        for contender in contenders:
            here, there = context.Pipe()
            process = context.Process(
                target=serve, args=(there, contender.place, setting, units, warm_up), name=contender.name, daemon=True
            )
            process.start()
            there.close()
            stack.callback(process.join)
            stack.enter_context(here)
            ready = _heard(contender.name, here)
            if isinstance(ready, Skipped):
                results[contender.name] = ready
            else:
                lines[contender.name] = here
        seconds = _rounds(lines, rounds)
        for name, line in lines.items():
            line.send("end")
            peak, answer = _heard(name, line)
            results[name] = Measured(seconds[name], peak, answer)
    return {contender.name: results[contender.name] for contender in contenders}


def _rounds(lines: Mapping[str, Connection], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    names = list(lines)
    for number in range(rounds):
        start = number % max(1, len(names))
        for name in names[start:] + names[:start]:
            lines[name].send("go")
            seconds[name].append(_heard(name, lines[name]))
    return seconds


def _heard(name: str, line: Connection) -> Any:
    said = line.recv()
    if isinstance(said, Failed):
        raise RuntimeError(f"{name} {said.reason}")
    return said


def table(results: Mapping[str, Result], against: str, unit: str, per_unit: float = 1, answer: str = "") -> str:
    """Markdown: a row a contender, its rate (how many of `unit` a second) and its ratio to that of `against`.

    The ratio is the median over rounds, of contenders that had their turns beside each other.
    """
    heads = ["", f"{unit}/s (median)", "range", f"× {against}", "peak memory, MB", *([answer] if answer else [])]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    beside = results[against]
    assert isinstance(beside, Measured)
    for name, found in results.items():
        if isinstance(found, Skipped):
            lines.append(f"| {name} | skipped: {found.reason} |" + " |" * (len(heads) - 2))
            continue
        ratio = statistics.median(theirs / own for own, theirs in zip(found.seconds, beside.seconds, strict=True))
        rates = [per_unit / seconds for seconds in (found.median, max(found.seconds), min(found.seconds))]
        middle, low, high = (_shown(rate) for rate in rates)
        cells = [name, middle, f"{low} – {high}", _shown(ratio), f"{found.peak_mb:.0f}"]
        if answer:
            cells.append("–" if found.answer is None else f"{found.answer:.9f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(number: float) -> str:
    """Three digits."""
    decimals = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{decimals}f}"


def machine() -> str:
    """The machine, what is installed, and how busy it is, in two lines."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; {platform.system()} {platform.machine()}; "
        f"load {load} at the end\nPython {platform.python_version()}, {', '.join(versions)}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "a processor of unknown name"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
