"""Steps of one run on several processes, beside DistributedDataParallel with the same network and patches."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.measuring import machine
from yeastexp.config.loading import load_experiment
from yeastexp.data.shards import ShardSampler
from yeastexp.system import process_group
from yeastexp.system.processes import ALONE, Processes
from yeastexp.training.build import Assembly, assemble, build_trainer
from yeastexp.training.device import configure_torch

SHARDS, STEPS, WARM_UP = 4, 12, 3
EXPERIMENT = Path(__file__).parents[1] / "experiments" / "base.toml"
SETTINGS = ("runtime.threads=1", f"runtime.shards={SHARDS}", "train.batch_size=16", 'runtime.device="cpu"')
LINKS = {"NVLink, 8 GPUs": 300e9, "10 Gbit/s, 8 machines": 1.25e9}
"""Bytes a second that one process can take in."""


def sharded(parts: Assembly, among: Processes) -> Iterator[None]:
    """Our own steps: the shards' gradients are gathered, and added in their order."""
    batches = ShardSampler(parts.sampler, SHARDS, among).batches(0, STEPS + WARM_UP)
    trainer = build_trainer(parts, among=among)
    for batch in batches:
        trainer.run([batch], max_epochs=1, epoch_length=1)
        yield


def averaged(parts: Assembly, among: Processes) -> Iterator[None]:
    """Bare steps whose gradients DistributedDataParallel averages; one forward pass for the patches of a process."""
    model: nn.Module = parts.model if among is ALONE else DistributedDataParallel(parts.model)
    optimizer = parts.optimizer(model)
    for step in range(STEPS + WARM_UP):
        images, targets = parts.sampler.batch(step, among.rank, among.count)
        optimizer.zero_grad(set_to_none=True)
        parts.loss(model(images), targets).backward()
        optimizer.step()
        yield


KINDS: dict[str, Callable[[Assembly, Processes], Iterator[None]]] = {"shards": sharded, "ddp": averaged}


def timed(kind: str, among: Processes) -> float:
    """Seconds a step."""
    parts = assemble(configure_torch(load_experiment(EXPERIMENT, SETTINGS)))
    times = []
    for _ in KINDS[kind](parts, among):
        times.append(time.monotonic())
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(times[WARM_UP - 1 :]))


def worker(kind: str) -> None:
    """What one process does; the first prints its figure."""
    if "RANK" not in os.environ:
        print(json.dumps(timed(kind, ALONE)))
        return
    with process_group.joined() as among:
        seconds = timed(kind, among)
        if among.writes:
            print(json.dumps(seconds), flush=True)


def _measured(kind: str, count: int) -> float:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count > 1 else []
    words = [sys.executable, *launcher, "-m", "benchmarks.scaling", kind]
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(EXPERIMENT.parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def report(counts: Sequence[int] = (1, 2, 4), rounds: int = 3) -> str:
    """Markdown: steps a second by the number of processes, and what is sent for it."""
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in counts:
            for kind in KINDS:
                seconds.setdefault((kind, count), []).append(_measured(kind, count))
    median = {key: statistics.median(values) for key, values in seconds.items()}
    parts = assemble(configure_torch(load_experiment(EXPERIMENT, SETTINGS)))
    parameters = sum(weight.numel() for weight in parts.model.parameters())
    rows = [
        f"| {count} | {1 / median['shards', count]:.2f} | {1 / median['ddp', count]:.2f} | "
        f"{median['ddp', count] / median['shards', count]:.2f} | {median['shards', 1] / median['shards', count]:.2f} | "
        f"{(count > 1) * 4e-6 * parameters * SHARDS * (count - 1) / count:.2f} |"
        for count in counts
    ]
    network = f"{SHARDS} shards, {parameters:,} parameters"
    head = f"A batch of 16 patches of 128² in {network}, one thread a process, gloo on one machine."
    columns = [
        "| processes | steps/s | steps/s, DDP | ratio | times one process | MB taken in a step |",
        "| ---: " * 6 + "|",
    ]
    return "\n".join([head, "", *columns, *rows, "", *calculated(), "", machine()])


def calculated(shards: int = 8, step: float = 0.05) -> list[str]:
    """How long 8 processes wait for gradients beside a step of so many seconds, by the size of the network."""
    lines = [f"| parameters | {' | '.join(LINKS)} |", "| ---: " * (1 + len(LINKS)) + "|"]
    for parameters in (0.5e6, 5e6, 50e6):
        waits = [4 * parameters * shards * 7 / 8 / rate for rate in LINKS.values()]
        shown = " | ".join(f"{1e3 * wait:.2f} ms: {8 * step / (step + wait):.1f} times" for wait in waits)
        lines.append(f"| {parameters / 1e6:g} million | {shown} |")
    title = f"Calculated for 8 processes with a shard each, a step of {1e3 * step:.0f} ms, and no overlap:"
    return [title, "", *lines]


if __name__ == "__main__":
    worker(sys.argv[1])
