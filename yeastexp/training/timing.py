"""How long a training step takes, and trials that leave no trace."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

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
from yeastexp.training.optimization import AccumulationSchedule, Precision
from yeastexp.training.validation import build_validator

TIMED_STEPS = 7
"""Of a step, at least if there is time, for its median time."""

TRIAL_SECONDS = 1.0
"""About so long each number of threads and each precision is measured."""

ENDLESS = 2**40
"""Steps that no measurement gets to the end of."""

WARM_UP = 4
"""So many times as long as others a first step may take."""

SLOWER = 1.5
"""So many times the time of the best is what a slower trial is given for a step."""

NO_FASTER = 0.95
"""Of the time with fewer threads, which leave room for others, is what more threads have to take at most."""

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

WORTH_DIGITS = 0.9
"""Of the time in float32 is what bfloat16, which has fewer digits, has to take at most."""

Value = TypeVar("Value", bound=Hashable)


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


@dataclass(frozen=True)
class Fastest:
    """What steps are fastest with now, the time of such a step where it is known, and a line about each choice."""

    threads: int
    precision: Precision
    step: float | None = None
    lines: tuple[str, ...] = ()


def assembled(loaded: Experiment, seconds: float = TRIAL_SECONDS) -> tuple[Assembly, float | None, tuple[str, ...]]:
    """The parts of an experiment with its number of threads, in force, and its precision written down.

    If one of them is 'auto', also the time of a step, if it was measured, and lines that say why it is what it is.
    """
    assembly = assemble(configure_torch(loaded))
    options_of(assembly)  # refused before a directory is made
    if not is_timed(loaded):
        return assembly, None, ()
    chosen = processes.current().agreed(fastest(assembly, loaded, seconds))
    train, runtime = assembly.experiment.train, assembly.experiment.runtime
    loaded = replace(
        assembly.experiment,
        train=replace(train, precision=chosen.precision),
        runtime=replace(runtime, threads=chosen.threads),
    )
    return replace(assembly, experiment=configure_torch(loaded)), chosen.step, chosen.lines


def is_timed(loaded: Experiment) -> bool:
    """Whether an experiment leaves something to the machine."""
    return "auto" in (loaded.runtime.threads, loaded.train.precision)


def settled(loaded: Experiment, at_once: int) -> Experiment:
    """The experiment of runs that are to be alike, so many at a time: each gets its share of the cores."""
    if at_once > 1 and loaded.runtime.threads == "auto":
        threads = max(1, cores.allowed()[0] // at_once)
        loaded = replace(loaded, runtime=replace(loaded.runtime, threads=threads))
    return assembled(loaded)[0].experiment if is_timed(loaded) else loaded


def fastest(assembly: Assembly, loaded: Experiment, seconds: float) -> Fastest:
    """What steps are fastest with now, of what an experiment leaves open; each trial takes about some `seconds`.

    No more threads than the process was given. The number that PyTorch takes, the model and all generators are left as
    they are.
    """
    runtime = replace(assembly.experiment.runtime, compile=False)  # each compilation takes half a minute
    eager, before = replace(assembly, experiment=replace(assembly.experiment, runtime=runtime)), torch.get_num_threads()
    threads, step, lines = before, None, []
    precision = options_of(assembly).precision
    try:
        if loaded.runtime.threads == "auto":
            most, why = _most_threads()
            threads = 1
            if most == 1:
                lines = [f"[runtime] threads = 1: {why}"]
            else:
                numbers = sorted({*(2**power for power in range(most.bit_length())), most})
                threads, step, times = _fastest_of(
                    eager, numbers, _with_threads, seconds, NO_FASTER, on_free_cores=True
                )
                lines = [f"[runtime] threads = {threads}: a step takes, by threads, {times} ({most} {why})"]
        torch.set_num_threads(threads)
        if loaded.train.precision == "auto":
            precision, step, times = _fastest_of(eager, PRECISIONS, _with_precision, seconds, WORTH_DIGITS)
            lines.append(f'[train] precision = "{precision}": a step takes, by precision, {times}')
    finally:
        torch.set_num_threads(before)
    return Fastest(threads, precision, None if loaded.runtime.compile else step, tuple(lines))


def _most_threads() -> tuple[int, str]:
    among = processes.current()
    most, why = cores.allowed()
    if among.on_machine > 1:
        return max(1, most // among.on_machine), f"{why}, for {among.on_machine} processes"
    return most, why


def _with_threads(assembly: Assembly, threads: int) -> Assembly:
    torch.set_num_threads(threads)
    return assembly


def _with_precision(assembly: Assembly, precision: Precision) -> Assembly:
    train = replace(assembly.experiment.train, precision=precision)
    return replace(assembly, experiment=replace(assembly.experiment, train=train))


def _fastest_of(
    assembly: Assembly,
    values: Sequence[Value],
    set_to: Callable[[Assembly, Value], Assembly],
    seconds: float,
    gain: float,
    *,
    on_free_cores: bool = False,
) -> tuple[Value, float, str]:
    """The value that steps are fastest with, their time, and the times of all that were tried.

    One that comes later has to take less than so much (`gain`) of the time, and may fail. Of those that need more cores
    (`on_free_cores`) none is tried where even one thread has to wait for a core.
    """
    chosen, times, shown = values[0], dict[Value, float](), list[str]()
    for value in values:
        best = min(times.values(), default=math.inf)
        patience, waiting = SLOWER * best, cores.Waiting()
        try:
            times[value] = seconds_per_step(set_to(assembly, value), seconds, at_most=3 * seconds, patience=patience)
        except Exception as error:
            if not times:
                raise
            shown.append(f"{value}: fails ({' '.join(f'{type(error).__name__}: {error}'.split())[:100]})")
            break
        slow = times[value] == math.inf
        shown.append(f"{value}: " + (f"over {1e3 * patience:.0f} ms" if slow else f"{1e3 * times[value]:.0f} ms"))
        if times[value] < gain * times[chosen]:
            chosen = value
        if slow:
            break  # still more threads would wait longer yet
        if on_free_cores and waiting.share > cores.BUSY:
            shown.append("others keep the cores busy")
            break
    return chosen, times[chosen], ", ".join(shown)
