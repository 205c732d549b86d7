"""Measuring how long a training step takes, and choosing threads and precision by it, on throwaway copies."""

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
"""The least number of steps that the median is taken of, if there is time for them."""

TRIAL_SECONDS = 1.0
"""How long each number of threads and each precision is measured, approximately."""

ENDLESS = 2**40
"""A number of steps that no measurement reaches."""

WARM_UP = 4
"""A first step, which allocates and chooses kernels, may take this many times as long as a later one."""

SLOWER = 1.5
"""A trial is given up when a step takes this many times as long as with the best value so far."""

NO_FASTER = 0.95
"""More threads are chosen only if a step takes less than this share of the time with fewer, which leave cores free."""

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

WORTH_DIGITS = 0.9
"""bfloat16, which has fewer digits, is chosen only if a step takes less than this share of the time in float32."""

Value = TypeVar("Value", bound=Hashable)


def trial_of(assembly: Assembly) -> tuple[Engine, nn.Module, torch.optim.Optimizer]:
    """Return a trainer with copies of model and optimizer, in which every batch is an update; the run is unaffected."""
    model = _copied(assembly).train()
    optimization = optimization_of(assembly, model)
    return build_trainer(assembly, optimization), model, optimization.optimizer


def _copied(assembly: Assembly) -> torch.nn.Module:
    """Return a copy of the assembly's model. Raises UserError if it is compiled by torch.jit and cannot be copied."""
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
    """Return the time of a training step in seconds: the median over about `seconds` of training a copy of the model.

    The steps run as the run's will, with its worker processes and accumulation groups. The measurement ends after about
    `at_most` seconds, if need be after one step, and in the middle of a step that takes longer than `patience`: then
    the result is infinite. The model and all generators stay as they are.
    """
    device, size = assembly.device, assembly.experiment.train.accumulation_steps
    began = time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = _copied(assembly).train()
        watch = _Impatience(model, patience)
        schedule = AccumulationSchedule(size, [1] * size, sys.maxsize)
        # Each process stops by its own clock, after any number of steps. A real gather would wait forever for those
        # that stopped before.
        among = processes.current()
        rehearsing = processes.Rehearsing(among.rank, among.count, among.on_machine)
        trainer = build_trainer(assembly, optimization_of(assembly, model), schedule, rehearsing)
        source = _endless(assembly, rehearsing)
        times: list[float] = []
        try:
            for _ in range(2):  # not counted: memory is allocated and kernels are chosen
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
    """Yield batches, or this process's shards of them, as the run will."""
    sampler, runtime = assembly.sampler, assembly.experiment.runtime
    source = sampler if runtime.shards == 1 else ShardSampler(sampler, runtime.shards, among)
    yield from source.batches(0, ENDLESS, runtime.workers)


class _TooSlow(Exception):
    """A step takes longer than it may."""


class _Impatience:
    """Ends a step of a throwaway model by _TooSlow, between two layers, when it has taken longer than its patience.

    On cores that are busy with something else, a step on too many threads can take fifty times as long as on one. Hooks
    on the layers look at the clock in the forward and the backward pass, so that such a step need not be waited for.
    """

    def __init__(self, model: nn.Module, patience: float) -> None:
        self.patience = patience
        self.end = math.inf
        if patience < math.inf:
            for layer in model.modules():
                if not list(layer.children()):
                    layer.register_forward_hook(self._watch_backward)

    def begin(self, steps: int) -> float:
        """Start the clock for so many steps, and return the time now."""
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
    """Return the time of a validation in seconds, extrapolated by pixels from the images that take `at_most`."""
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
    """The fastest threads and precision now, the time of a step in seconds if it was measured, and lines to log."""

    threads: int
    precision: Precision
    step: float | None = None
    lines: tuple[str, ...] = ()


def assembled(loaded: Experiment, seconds: float = TRIAL_SECONDS) -> tuple[Assembly, float | None, tuple[str, ...]]:
    """Return the parts of an experiment whose threads and precision, if 'auto', are replaced by the fastest.

    The number of threads is in force from here on. Also returns the time of a step in seconds, if it was measured, and
    lines that say why the values were chosen.
    """
    assembly = assemble(configure_torch(loaded))
    options_of(assembly)  # raises UserError if the device cannot do so, before a directory is claimed
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
    """Whether an experiment leaves threads or precision to be timed ('auto')."""
    return "auto" in (loaded.runtime.threads, loaded.train.precision)


def settled(loaded: Experiment, at_once: int) -> Experiment:
    """Return the experiment with threads and precision fixed, for several runs that are to use the same.

    Runs that go `at_once` get an equal share of the cores each.
    """
    if at_once > 1 and loaded.runtime.threads == "auto":
        threads = max(1, cores.allowed()[0] // at_once)
        loaded = replace(loaded, runtime=replace(loaded.runtime, threads=threads))
    return assembled(loaded)[0].experiment if is_timed(loaded) else loaded


def fastest(assembly: Assembly, loaded: Experiment, seconds: float) -> Fastest:
    """Return the threads and the precision, of those that `loaded` leaves open, with which steps are fastest now.

    Each trial takes about `seconds`. No more threads are tried than the process was given. PyTorch's number of threads,
    the model and all generators are left as they are.
    """
    # The trials are timed without compiling, as each compilation takes half a minute. The time of an eager step says
    # which value is the fastest, but not how long a compiled step takes: it is not returned then.
    runtime = replace(assembly.experiment.runtime, compile=False)
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
    """Return the value that steps are fastest with, the time of a step in seconds, and the times tried, as text.

    A later value has to take less than `gain` times the time of the chosen one, and may fail, which ends the trials.
    With `on_free_cores` they also end as soon as the threads of a trial have to wait for busy cores.
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
        # A later value asks for more cores still, so it would be slower yet.
        if slow:
            break
        if on_free_cores and waiting.share > cores.BUSY:
            shown.append("others keep the cores busy")
            break
    return chosen, times[chosen], ", ".join(shown)
