"""How long a training step takes, and trials that leave no trace."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from yeastexp import plugins
from yeastexp.config.experiment import Experiment
from yeastexp.data.patches import Batch
from yeastexp.data.shards import Shards, ShardSampler
from yeastexp.errors import UserError
from yeastexp.system import cores, processes
from yeastexp.system.processes import Processes
from yeastexp.training.build import Assembly, assemble, build_trainer, optimization_of, options_of
from yeastexp.training.device import configure_torch
from yeastexp.training.optimization import AccumulationSchedule
from yeastexp.training.validation import build_validator

TIMED_STEPS = 7
"""Of a step, at least if there is time, for its median time."""

THREADS_SECONDS = 1.0
"""About so long each number of threads is measured."""

ENDLESS = 2**40
"""Steps that no measurement gets to the end of."""

WARM_UP = 4
"""So many times as long as others a first step may take."""

SLOWER = 1.5
"""So many times the time of the best is what a slower number of threads is given for a step."""

NO_FASTER = 0.95
"""Of the time with fewer threads, which leave room for others, is what more threads have to take at most."""


def trial_of(assembly: Assembly) -> tuple[Engine, nn.Module, torch.optim.Optimizer]:
    """A trainer with copies of model and optimizer, every batch an update, to be run without a trace."""
    model = _copied(assembly).train()
    optimization = optimization_of(assembly, model)
    return build_trainer(assembly, optimization), model, optimization.optimizer


def _copied(assembly: Assembly) -> torch.nn.Module:
    """The model, whose weights stay as they are. Raises UserError if it has none that can be copied."""
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in assembly.model.modules()):
        part = assembly.experiment.model
        fault = (
            "is compiled by torch.jit, whose weights cannot be copied to try a step; give the nn.Module it was made of"
        )
        raise UserError(f"{part.place}: [model] name: '{part.name}' {fault}")
    copied = copy.deepcopy(assembly.model)
    plugins.remember(copied, plugins.maker_of(assembly.model))
    return copied


def seconds_per_step(
    assembly: Assembly, seconds: float, *, at_most: float = math.inf, patience: float = math.inf
) -> float:
    """Time of a training step: the median over about so many seconds of groups of steps of a copy.

    It is measured as the run will go, with its worker processes; within about `at_most` seconds, after a single step if
    need be. Infinite if a step takes longer than `patience`, after which it is left as it stands. The model and all
    generators stay as they are.
    """
    device, size = assembly.device, assembly.experiment.train.accumulation_steps
    began = time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = _copied(assembly).train()
        watch = _Impatience(model, patience)
        schedule = AccumulationSchedule(size, [1] * size, sys.maxsize)
        among = processes.current()
        rehearsing = processes.Rehearsing(among.rank, among.count, among.on_machine)
        trainer = build_trainer(assembly, optimization_of(assembly, model), schedule, rehearsing)
        source = _endless(assembly, rehearsing)
        times: list[float] = []
        try:
            for _ in range(2):  # allocations and kernel choices
                start = watch.begin(WARM_UP)
                trainer.run(itertools.islice(source, 1), max_epochs=1, epoch_length=1)
                if time.monotonic() > began + at_most:
                    return time.monotonic() - start
            while len(times) * size < TIMED_STEPS or sum(times) * size < seconds:
                start = watch.begin(size)
                trainer.run(itertools.islice(source, size), max_epochs=1, epoch_length=size)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append((time.monotonic() - start) / size)
                if time.monotonic() > began + at_most:
                    break
        except _TooSlow:
            return math.inf
        finally:
            source.close()  # a generator; ends the worker processes
        return statistics.median(times)


def _endless(assembly: Assembly, among: Processes) -> Generator[Batch | Shards]:
    """Batches, or this process's shards of them, cut as the run will."""
    sampler, runtime = assembly.sampler, assembly.experiment.runtime
    source = sampler if runtime.shards == 1 else ShardSampler(sampler, runtime.shards, among)
    yield from source.batches(0, ENDLESS, runtime.workers)


class _TooSlow(Exception):
    """A step takes longer than it may."""


class _Impatience:
    """Ends a step of a throwaway model between two of its layers, forward or back, when it has taken too long.

    Where cores are busy with something else, a step on too many threads can take fifty times as long as on one.
    """

    def __init__(self, model: nn.Module, patience: float) -> None:
        self.patience = patience
        self.end = math.inf
        if patience < math.inf:
            for layer in model.modules():
                if not list(layer.children()):
                    layer.register_forward_hook(self._watch_backward)

    def begin(self, steps: int) -> float:
        """Give the next steps their time; when they begin."""
        now = time.monotonic()
        self.end = now + self.patience * steps
        return now

    def _watch_backward(self, layer: nn.Module, given: Any, output: Any) -> None:
        self._look()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(self._look)

    def _look(self, gradient: Tensor | None = None) -> None:
        if time.monotonic() > self.end:
            raise _TooSlow


def seconds_of_validation(assembly: Assembly, at_most: float) -> float:
    """Time of a validation: of as many images as take about that long, and by their pixels of the others."""
    validator = build_validator(assembly, assembly.model)
    pixels, began = 0, time.monotonic()
    for sample in assembly.samples("val"):
        validator.run([sample])
        pixels += sample.labels.numel()
        if time.monotonic() > began + at_most:
            break
    return (time.monotonic() - began) * assembly.pixels("val") / pixels


def assembled(loaded: Experiment, seconds: float = THREADS_SECONDS) -> tuple[Assembly, float | None, str]:
    """The parts of an experiment with its number of threads written down and in force.

    If it is 'auto', also the time of a step, if it was measured, and a line that says why it is that number.
    """
    assembly = assemble(configure_torch(loaded))
    options_of(assembly)  # refused before a directory is made
    if loaded.runtime.threads != "auto":
        return assembly, None, ""
    threads, step, measured = processes.current().agreed(fastest_threads(assembly, seconds))
    if threads > 1:
        loaded = replace(loaded, runtime=replace(loaded.runtime, threads=threads))
        del assembly  # its images take the room that the next one's need
        assembly = assemble(configure_torch(loaded))  # what is fitted depends on them, in its last bits
    return assembly, step, measured


def fastest_threads(assembly: Assembly, seconds: float) -> tuple[int, float | None, str]:
    """The number of compute threads that steps are fastest with now, the time of a step, and a line about both.

    No more than the process was given; each number that is tried takes about some `seconds`. The number that PyTorch
    takes is left as it is.
    """
    among = processes.current()
    most, why = cores.allowed()
    if among.on_machine > 1:
        most, why = max(1, most // among.on_machine), f"{why}, for {among.on_machine} processes"
    if most == 1:
        return 1, None, f"[runtime] threads = 1: {why}"
    experiment = replace(assembly.experiment, runtime=replace(assembly.experiment.runtime, compile=False))
    eager, before = replace(assembly, experiment=experiment), torch.get_num_threads()
    times: dict[int, float] = {}
    chosen = 1
    try:
        for threads in sorted({*(2**power for power in range(most.bit_length())), most}):
            torch.set_num_threads(threads)
            best = min(times.values(), default=math.inf)
            times[threads] = seconds_per_step(eager, seconds, at_most=3 * seconds, patience=SLOWER * best)
            if times[threads] < NO_FASTER * times[chosen]:
                chosen = threads
            if times[threads] == math.inf:
                break  # still more threads would wait longer yet
    finally:
        torch.set_num_threads(before)
    shown = ", ".join(
        f"{threads}: " + (f"over {1e3 * SLOWER * times[chosen]:.0f} ms" if time == math.inf else f"{1e3 * time:.0f} ms")
        for threads, time in times.items()
    )
    step = None if assembly.experiment.runtime.compile else times[chosen]
    return chosen, step, f"[runtime] threads = {chosen}: a step takes, by threads, {shown} ({most} {why})"
