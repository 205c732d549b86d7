"""Seconds until a program answers: its help, the import of a library, the first training step of a run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yeastexp
from benchmarks.measuring import machine
from benchmarks.training import SETTINGS

FIRST_STEP = "first step done"
"""What the log of a run says of it."""

SETTING = replace(SETTINGS[0], images=4)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(yeastexp.__file__).parents[1])}
"""Of a process in another working directory: the same yeastexp."""

ONE_STEP = """
import torch
net = torch.nn.Conv2d(1, 2, 3)
optimizer = torch.optim.AdamW(net.parameters())
net(torch.rand(1, 1, 8, 8)).mean().backward()
optimizer.step()
"""
"""What no training does without: PyTorch's optimizers import its compiler."""

IMPORTS = ("torch", "ignite.engine", "monai.engines", "pytorch_lightning")
HELP, TORCH = "python -m yeastexp --help", "import torch"
STEP, RUN = "import torch, one step of a convolution", "python -m yeastexp run, to the first step"


def seconds(command: Sequence[str]) -> float:
    """How long a command of this Python takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - began


def to_first_step(folder: Path) -> float:
    """From the start of a run to its log of the first step; the run is then ended."""
    known = set(folder.glob("runs/*/*/log.txt"))
    began = time.perf_counter()
    command = [sys.executable, "-m", "yeastexp", "run", "experiment.toml"]
    with subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while not any(FIRST_STEP in log.read_text() for log in set(folder.glob("runs/*/*/log.txt")) - known):
            if process.poll() is not None:
                assert process.stderr is not None
                raise RuntimeError(process.stderr.read().decode())
            time.sleep(0.002)
        taken = time.perf_counter() - began
        process.terminate()
    return taken


def measured(acts: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each act's seconds, in turn."""
    found: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            found[name].append(act())
    return found


def installed(module: str) -> bool:
    """Whether a module can be imported; it is then in the file cache as well."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def report(rounds: int = 9, imports: Sequence[str] = IMPORTS) -> str:
    """Markdown: a table, and the machine."""
    acts: dict[str, Callable[[], float]] = {HELP: partial(seconds, ["-m", "yeastexp", "--help"])}
    acts |= {f"import {one}": partial(seconds, ["-c", f"import {one}"]) for one in imports if installed(one)}
    acts[STEP] = partial(seconds, ["-c", ONE_STEP])
    with tempfile.TemporaryDirectory() as folder:
        set_up = replace(SETTING, folder=Path(folder))
        set_up.write()
        acts[RUN] = partial(to_first_step, set_up.folder)
        found = measured(acts, rounds)
    lines = ["|  | seconds (median) | range | beyond import torch |", "| --- | ---: | ---: | ---: |"]
    for name, times in found.items():
        beyond = statistics.median(own - torch for own, torch in zip(times, found[TORCH], strict=True))
        shown = f"{statistics.median(times):.2f} | {min(times):.2f} – {max(times):.2f} | {beyond:+.2f}"
        lines.append(f"| {name} | {shown} |")
    lines += [f"| import {one} | skipped: not installed |  |  |" for one in imports if f"import {one}" not in acts]
    return "\n".join(["### new processes, files in the page cache", "", *lines, "", machine()])
