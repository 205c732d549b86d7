"""How long a training step takes, and trials that leave no trace."""

from __future__ import annotations

import copy
import statistics
import sys
import time

import torch
from ignite.engine import Engine
from torch import nn

from yeastexp.training.build import Assembly, build_trainer, optimization_of
from yeastexp.training.optimization import AccumulationSchedule

TIMED_STEPS = 7
"""Of a step, at least, for its median time."""


def trial_of(assembly: Assembly) -> tuple[Engine, nn.Module, torch.optim.Optimizer]:
    """A trainer with copies of model and optimizer, every batch an update, to be run without a trace."""
    model = copy.deepcopy(assembly.model).train()
    optimization = optimization_of(assembly, model)
    return build_trainer(assembly, optimization), model, optimization.optimizer


def seconds_per_step(assembly: Assembly, seconds: float) -> float:
    """Time of a training step: the median over about so many seconds of groups of steps of a copy.

    The model and all generators stay as they are.
    """
    device, size = assembly.device, assembly.experiment.train.accumulation_steps
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        optimization = optimization_of(assembly, copy.deepcopy(assembly.model).train())
        schedule = AccumulationSchedule(size, [1] * size, sys.maxsize)
        trainer, batch = build_trainer(assembly, optimization, schedule), assembly.sampler.batch
        trainer.run([batch(0), batch(1)], max_epochs=1)  # allocations and kernel choices
        times: list[float] = []
        while len(times) * size < TIMED_STEPS or sum(times) * size < seconds:
            start = time.monotonic()
            first = len(times) * size
            trainer.run(map(batch, range(first, first + size)), max_epochs=1, epoch_length=size)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append((time.monotonic() - start) / size)
        return statistics.median(times)
