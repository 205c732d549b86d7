"""A run under way: the parts of an experiment, the engines that train and validate, and the handlers beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from rich.console import Console
from torch import Tensor, nn

from yeastexp.config.experiment import LENGTH
from yeastexp.contracts import Handler
from yeastexp.data.folds import Thumbnail
from yeastexp.data.patches import Batch
from yeastexp.data.prefetch import Tensors, prefetch_to_device
from yeastexp.data.shards import Shards, ShardSampler
from yeastexp.errors import UserError
from yeastexp.metrics.summary import Summary
from yeastexp.system import processes
from yeastexp.system.interruption import Interruption
from yeastexp.system.processes import ALONE, Processes
from yeastexp.system.progress import say_to
from yeastexp.training import cautions, checkpoints
from yeastexp.training.budget import Budget
from yeastexp.training.build import Assembly, Preprocessing, build_trainer, optimization_of, schedule_of
from yeastexp.training.finite import check_weights, masks_of
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep
from yeastexp.training.progress import Best, Progress
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.tensorboard import Tracker
from yeastexp.training.timing import trial_of
from yeastexp.training.validation import build_validator, scored_baselines

PLAIN = (str, int, float, bool, type(None), dict, list, tuple)
"""The types of values that a checkpoint can hold beside tensors; containers are leaves if they are empty."""


def start_at(engine: Engine, step: int, steps_per_epoch: int, epochs: int, updates: int = 0) -> None:
    """Let an engine's next run begin after `step` steps and `updates` updates, in the epoch they belong to."""
    engine.load_state_dict({"iteration": step, "epoch_length": steps_per_epoch, "max_epochs": epochs})
    engine.state.updates = updates  # type: ignore[attr-defined]  # registered by `make_trainer`


def never(step: int) -> bool:
    """No step is too late."""
    return False


def as_planned(step: int) -> None:
    """The plan stays."""


@dataclass
class RunContext:
    """A run under way, as its handlers know it (`yeastexp.contracts.Context`).

    It is over when its steps are done, early, or when a step was `late`; or it pauses, after a checkpoint, at step
    `until` or when interrupted.
    """

    assembly: Assembly
    directory: RunDirectory
    console: Console
    began: float
    late: Callable[[int], bool] = never
    earlier: Callable[[int], int | None] = as_planned
    interruption: Interruption = field(default_factory=Interruption)
    until: int | None = None
    baselines: dict[str, Summary] | None = None
    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)
    profiled: int = 0
    budget: Budget | None = None
    observer: Callable[[RunContext], Handler] | None = None
    among: Processes = ALONE
    handlers: dict[str, Handler] = field(default_factory=dict)

    optimization: OptimizationStep = field(init=False)
    trainer: Engine = field(init=False)
    validator: Engine = field(init=False)
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        train, sampler = self.assembly.experiment.train, self.assembly.sampler
        self.steps_per_epoch = sampler.steps_per_epoch
        self.steps = train.steps or (train.epochs or 0) * self.steps_per_epoch
        self.epochs = -(-self.steps // self.steps_per_epoch)
        self.schedule: AccumulationSchedule = schedule_of(self.assembly, self.steps)
        self.monitor = self.assembly.experiment.monitor
        metric = self.assembly.metrics.get(self.monitor)
        self.progress = Progress(Best(higher_is_better=metric.higher_is_better if metric else False))
        self.preprocessing = Preprocessing.of(self.assembly)
        self.say = say_to(self.console)

    def build(self, after_step: int | None = None) -> None:
        """Make what changes the weights that the model has now, and the engines; TensorBoard forgets later steps."""
        self.optimization = optimization_of(self.assembly)
        self.trainer = build_trainer(self.assembly, self.optimization, self.schedule, self.among)
        self.validator = build_validator(self.assembly, self.measured, self.among)
        self.masks = masks_of(self.model.state_dict())
        self.tracker = Tracker(self.directory, after_step, self.assembly.approximate)

    def measured(self) -> nn.Module:
        """The model to score and keep; NonFiniteLoss if its weights, or those in training, are NaN or infinite."""
        for model in dict.fromkeys((self.model, self.optimization.measured)):
            check_weights(model.state_dict(), self.step, self.masks)
        return self.optimization.measured

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.trainer.state.iteration

    @property
    def over(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.steps or self.progress.stopped is not None

    def asked(self, step: int) -> tuple[bool, int | None]:
        """Whether a step was `late` in any process, and where to end `earlier`, as the first process says."""
        late, end = self.late(step), None if self.progress.remade else self.earlier(step)
        if (self.late, self.earlier) == (never, as_planned) or not self.among.any(late or end is not None):
            return False, None
        everywhere = self.among.gather((late, end))
        return any(late for late, _ in everywhere), everywhere[0][1]

    def tell(self, line: str) -> None:
        """A line on the terminal and in the log."""
        self.say(line)
        self.log(line)

    @property
    def end(self) -> int:
        """The step that the run ends with, as far as is known."""
        return self.progress.remade.end if self.progress.remade else self.steps

    def scheduler_steps(self, step: int) -> int:
        """How often the scheduler of the learning rate is stepped after the update that a step ends with."""
        update = self.schedule.updates_until(step)
        before, after = (self.progress.scheduled(self.schedule, number) for number in (update - 1, update))
        return after - before

    @property
    def learning_rate(self) -> float:
        """That of the next update, in the first group of parameters."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def scored_baselines(self) -> dict[str, Summary]:
        """What the baselines get; fitted so late that the first step need not wait for it."""
        if self.baselines is None:
            self.baselines = scored_baselines(self.assembly, self.thumbnails)
        return self.baselines

    @cached_property
    def cautions(self) -> list[str]:
        """What is known from the first validation on, whatever the scores become."""
        self.scored_baselines()
        return [
            *cautions.of_loss(self.assembly),
            *cautions.of_labels(self.assembly),
            *cautions.of_cells(self.assembly),
            *cautions.of_splits(self.assembly, self.thumbnails),
        ]

    # What a user's handler may rely on

    @property
    def model(self) -> nn.Module:
        """The model in training."""
        return self.assembly.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over its parameters."""
        return self.optimization.optimizer

    @property
    def device(self) -> torch.device:
        """Where a step is computed."""
        return self.assembly.device

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.directory.path

    def log(self, line: str) -> None:
        """One line, with the time, in `log.txt`."""
        self.directory.log(line)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of the steps from `first` to before `last`, on the device; worker processes end with them."""
        yield from self._on_device(self.assembly.sampler.batches(first, last, *self._by_workers))

    def rest(self) -> Iterator[Batch | Shards]:
        """What is left to train on in this process: batches, or its shards of them."""
        shards = self.assembly.experiment.runtime.shards
        if shards == 1:
            yield from self.batches(self.step, self.steps)
        else:
            sampler = ShardSampler(self.assembly.sampler, shards, self.among)
            yield from self._on_device(sampler.batches(self.step, self.steps, *self._by_workers))

    @property
    def _by_workers(self) -> tuple[int, bool]:
        """How many processes cut patches, and whether into memory that a GPU copies from beside its work."""
        return self.assembly.experiment.runtime.workers, self.device.type == "cuda"

    def _on_device(self, made: Iterator[Tensors]) -> Iterator[Tensors]:
        try:
            yield from prefetch_to_device(made, self.device)
        finally:
            made.close()  # type: ignore[attr-defined]  # a generator

    @contextmanager
    def trial(self) -> Iterator[tuple[Engine, nn.Module, torch.optim.Optimizer]]:
        """A trainer with copies of model and optimizer, every batch an update; its runs leave no trace in this one."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            yield trial_of(self.assembly)

    # State

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, between two groups of batches: gradients are no state."""
        assert self.schedule.ends(self.step), f"step {self.step} is within a group"
        self.measured()
        return {
            "step": self.step,
            "experiment": self.assembly.experiment.identity(),
            **self.optimization.state_dict(),
            **self.progress.state_dict(),
            **self.preprocessing.state_dict(),
            "generators": checkpoints.generators(self.device),
            "handlers": {name: state for name, handler in self.handlers.items() if (state := _state(name, handler))},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Be where a checkpoint was."""
        self.optimization.load_state_dict(state)
        self.progress.load_state_dict(state)
        if state["values"]:  # images that are read again and again were not all looked at
            self.preprocessing = Preprocessing.from_state(state)
        for name, handler in self.handlers.items():
            if name in state["handlers"] and hasattr(handler, "load_state_dict"):
                handler.load_state_dict(state["handlers"][name])
            elif name.startswith("[[handler]]"):
                self.log(f"{name} has no state in the checkpoint (no 'state_dict'): it starts afresh")
        checkpoints.set_generators(state["generators"], self.device)
        self.start_at(state["step"])

    def start_at(self, step: int) -> None:
        """Let the trainer's next run begin after so many steps."""
        start_at(self.trainer, step, self.steps_per_epoch, self.epochs, self.schedule.updates_until(step))

    def save(self) -> None:
        """Keep a checkpoint of this moment."""
        state = self.state_dict()
        self._refuse_apart(state)
        if self.directory.writes:
            self.directory.refuse_gone()
            checkpoints.save_next(self.directory.checkpoints, state)

    def save_best(self) -> None:
        """Keep a checkpoint of this moment as the best; rows have times in them, which would differ from run to run.

        So would the length of a run that became longer later on.
        """
        state = self.state_dict()
        train = {key: value for key, value in state["experiment"]["train"].items() if key not in LENGTH}
        best = {**state, "rows": [], "experiment": {**state["experiment"], "train": train}}
        if self.directory.writes:
            self.directory.refuse_gone()
            checkpoints.save(self.directory.checkpoint("best"), best)
        self.among.gather(None)  # nobody reads it before it is there

    def _refuse_apart(self, state: dict[str, Any]) -> None:
        """UserError if processes have come to different weights, of which one would be written."""
        if self.among.count > 1:
            digest = checkpoints.digest({key: state[key] for key in ("model", "optimizer", "scaler")})
            processes.refuse_unequal({f"the training state after step {self.step}": digest}, self.among)


def _state(name: str, handler: Handler) -> Any:
    """A handler's state, or None; UserError if a checkpoint cannot hold it."""
    if not hasattr(handler, "state_dict"):
        return None
    state = handler.state_dict()
    for key, value in checkpoints.leaves(state):
        if not isinstance(value, Tensor) and type(value) not in PLAIN:  # NumPy's float64 is a float, but not plain
            raise UserError(
                f"{name}: its state cannot be kept: '{key}' is of type {type(value).__name__}; 'state_dict' gives "
                "tensors and plain values"
            )
    return state
