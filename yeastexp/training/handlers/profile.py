"""Profiling of training steps, `--profile`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity

from yeastexp.system import files
from yeastexp.training.profiling import BATCH, PARTS, part

WARM_UP = 3
"""Steps that are not profiled: they allocate memory and choose kernels."""

OPERATIONS = 8
"""The number of most expensive operations in the table."""


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the total length of the union of spans (start, end)."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _settle() -> None:
    """Wait for the GPU, so that the clock includes all work that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Profile:
    """Profiles `steps` steps of a run as they train it, and gives `profile.json` for a trace viewer and a table."""

    def __init__(self, steps: int, path: Path, console: Console) -> None:
        self.steps = steps
        self.path = path
        self.console = console
        on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU, *on_gpu])
        self.steps_seen = 0

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Count the steps, and trace the wait for each batch."""
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._wait)
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, self._go_on)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        trainer.add_event_handler(Events.COMPLETED, self._end)

    def _wait(self) -> None:
        if self.steps_seen == WARM_UP:
            _settle()
            self.profiler.start()
            self.began = time.monotonic()
        self.waiting = part(BATCH)
        self.waiting.__enter__()

    def _go_on(self) -> None:
        self.waiting.__exit__(None, None, None)

    def _count(self) -> None:
        self.steps_seen += 1
        if self.steps_seen == WARM_UP + self.steps:
            self._tell()

    def _end(self) -> None:
        """Report on fewer steps if training ended early."""
        if self.steps_seen >= WARM_UP + self.steps:
            return
        if self.steps_seen <= WARM_UP:
            self.console.print(
                f"--profile: training was over after {self.steps_seen} steps; the first {WARM_UP} do not count"
            )
            return
        self.steps = self.steps_seen - WARM_UP
        self._tell()

    def _tell(self) -> None:
        _settle()
        seconds = time.monotonic() - self.began
        self.profiler.stop()
        with files.appearing(self.path) as temporary:
            self.profiler.export_chrome_trace(str(temporary))
        self.console.print(self.table(seconds))

    def table(self, seconds: float) -> Table:
        """Return a table with the milliseconds of a step by its parts and by the most expensive operations.

        The row 'between steps' has validations, checkpoints and logs.
        """
        averages = [event for event in self.profiler.key_averages() if event.device_type.name == "CPU"]
        spent = {
            name: sum(event.cpu_time_total for event in averages if event.key == f"step: {name}") / 1e3 / self.steps
            for name in PARTS
        }
        whole = 1e3 * seconds / self.steps
        spent["between steps"] = max(0.0, whole - sum(spent.values()))
        table = Table(title=f"{self.steps} steps, {whole:.1f} ms each; {self.path}", title_justify="left")
        table.add_column("of a step")
        table.add_column("ms", justify="right")
        table.add_column("share", justify="right")
        for name, milliseconds in spent.items():
            table.add_row(name, f"{milliseconds:.1f}", f"{milliseconds / whole:.0%}")
        kernels = [
            event
            for event in self.profiler.events()
            if event.device_type.name == "CUDA" and not event.is_user_annotation
        ]
        # Kernels on several streams overlap, so the GPU's time is the union of their spans and not their sum.
        if on_gpu := [event.time_range for event in kernels]:
            milliseconds = covered([(event.start, event.end) for event in on_gpu]) / 1e3 / self.steps
            table.add_row("the GPU at work", f"{milliseconds:.1f}", f"{milliseconds / whole:.0%}")
        table.add_section()
        operations = [event for event in averages if not event.key.startswith(("step: ", "ProfilerStep"))]
        for event in sorted(operations, key=lambda event: -event.self_cpu_time_total)[:OPERATIONS]:
            milliseconds = event.self_cpu_time_total / 1e3 / self.steps
            table.add_row(event.key[:40], f"{milliseconds:.1f}", f"{milliseconds / whole:.0%}")
        return table
