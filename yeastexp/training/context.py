"""The state of a run under way: an experiment's parts, the engines that train and validate, and their handlers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from rich.console import Console
from torch import Tensor, nn

from yeastexp.config.experiment import LENGTH
from yeastexp.contracts import Handler
from yeastexp.data.folds import Thumbnail
from yeastexp.data.patches import Batch, PatchSampler
from yeastexp.data.prefetch import Tensors, prefetch_to_device
from yeastexp.data.shards import Shards, ShardSampler
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.metrics.summary import Summary, summarise
from yeastexp.system import processes
from yeastexp.system.interruption import Interruption
from yeastexp.system.processes import ALONE, Processes
from yeastexp.system.progress import say_to
from yeastexp.training import cautions, checkpoints
from yeastexp.training.budget import Budget
from yeastexp.training.build import Assembly, Preprocessing, build_trainer, optimization_of, schedule_of
from yeastexp.training.finite import check_weights, masks_of
from yeastexp.training.initial_weights import INITIAL_WEIGHTS
from yeastexp.training.optimization import AccumulationSchedule, OptimizationStep
from yeastexp.training.progress import Best, Progress, augmented_steps
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.tensorboard import Tracker
from yeastexp.training.timing import trial_of
from yeastexp.training.validation import build_validator, scored_baselines

PLAIN = (str, int, float, bool, type(None), dict, list, tuple)
"""The types that a checkpoint can hold beside tensors; the containers among them occur as leaves if empty."""


def start_at(engine: Engine, step: int, steps_per_epoch: int, epochs: int, updates: int = 0) -> None:
    """Set an engine's state so that its next run continues after `step` steps and `updates` updates."""
    engine.load_state_dict({"iteration": step, "epoch_length": steps_per_epoch, "max_epochs": epochs})
    engine.state.updates = updates  # type: ignore[attr-defined]  # registered by `make_trainer`


def never(step: int) -> bool:
    """The `late` of a run without a budget: no step is too late."""
    return False


def as_planned(step: int) -> None:
    """The `earlier` of a run without a budget: it ends as planned."""


@dataclass
class RunContext:
    """A run under way; its handlers are given it as `yeastexp.contracts.Context`.

    A run is `over` when its steps are done, when it is stopped early, or when another step would be too `late`. It
    pauses, after a checkpoint, when it is interrupted or at step `until`.
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
    fitted: frozenset[str] = frozenset()
    """The tensors of the model that begin as initial weights, not at random."""

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
        """Build the optimizer of the model's present weights, the engines and the tracker.

        TensorBoard drops what it was told of steps after `after_step`, which are repeated.
        """
        self.optimization = optimization_of(self.assembly)
        self.trainer = build_trainer(self.assembly, self.optimization, self.schedule, self.among)
        self.validator = build_validator(self.assembly, self.measured, self.among)
        self.masks = masks_of(self.model.state_dict())
        self.tracker = Tracker(self.directory, after_step, self.assembly.approximate)

    def measured(self) -> nn.Module:
        """Return the model to score and save: the average if there is one.

        Raises NonFiniteLoss if its weights, or those in training, which a checkpoint holds as well, are not finite.
        """
        for model in dict.fromkeys((self.model, self.optimization.measured)):
            check_weights(model.state_dict(), self.step, self.masks)
        return self.optimization.measured

    @property
    def step(self) -> int:
        """The number of steps that are done."""
        return self.trainer.state.iteration

    @property
    def over(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.steps or self.progress.stopped is not None

    @property
    def validated(self) -> bool:
        """Whether the last epoch is complete and was validated."""
        rows = self.progress.rows
        return bool(rows) and rows[-1]["step"] == self.step and "val/loss" in rows[-1]

    def end_epoch(self) -> None:
        """Do what follows the last epoch, validation and checkpoint included, as far as it was not done."""
        rows = self.progress.rows
        if not rows or rows[-1]["step"] != self.step:
            self.trainer.state.epoch = -(-self.step // self.steps_per_epoch)
            self.trainer.fire_event(Events.EPOCH_COMPLETED)
            return
        if not self.validated:
            self.validator.run(self.assembly.samples("val", self.among))
        self.save()

    def end_as_handlers_ask(self) -> None:
        """End the run, as one that stopped early, where a handler has called `trainer.terminate()`."""
        if not self.schedule.ends(self.step):
            raise UserError(
                f"{self.directory}: a handler ended the training after step {self.step}, in the middle of a group of "
                f"{self.schedule.size} [train] accumulation_steps; let it do so after one",
                status=RUN_FAILED,
            )
        self.progress.stopped = "early"
        self.log(f"ended at step {self.step} by a handler")
        self.end_epoch()

    def asked(self, step: int) -> tuple[bool, int | None]:
        """Return whether a step was `late` in any process, and the step to end at `earlier`, if any.

        Clocks differ between processes, but all have to end at the same step: one that is late ends all, and the first
        process decides the rest.
        """
        late, end = self.late(step), None if self.progress.remade else self.earlier(step)
        # Asked after each group: without a budget nothing is exchanged, and with one a single flag, until it matters.
        if (self.late, self.earlier) == (never, as_planned) or not self.among.any(late or end is not None):
            return False, None
        everywhere = self.among.gather((late, end))
        return any(late for late, _ in everywhere), everywhere[0][1]

    def tell(self, line: str) -> None:
        """Write a line on the terminal and in the log."""
        self.say(line)
        self.log(line)

    @property
    def end(self) -> int:
        """The last step of the run by the present plan."""
        return self.progress.remade.end if self.progress.remade else self.steps

    @property
    def augmented(self) -> int:
        """The number of steps with all augmentations, by the present plan."""
        if not self.assembly.ends_plain:
            return self.steps
        return augmented_steps(self.assembly.experiment.train, self.steps, self.progress.remade)

    def scheduler_steps(self, step: int) -> int:
        """Return how often to step the learning rate's scheduler after the update at the end of a step."""
        update = self.schedule.updates_until(step)
        before, after = (self.progress.scheduled(self.schedule, number) for number in (update - 1, update))
        return after - before

    def scored_baselines(self) -> dict[str, Summary]:
        """Return the scores of the baselines, which are fitted at the first call, not before the first step.

        The weights that training started from are one more, if they were scored.
        """
        if self.baselines is None:
            self.baselines = scored_baselines(self.assembly, self.thumbnails)
        if (initial := self.progress.initial_validation) is None:
            return self.baselines
        return {**self.baselines, INITIAL_WEIGHTS: summarise(initial.scores, self.assembly.classes)}

    @cached_property
    def cautions(self) -> list[str]:
        """The warnings that do not depend on the scores, one sentence each."""
        self.scored_baselines()
        return [
            *cautions.of_loss(self.assembly),
            *cautions.of_labels(self.assembly),
            *cautions.of_cells(self.assembly),
            *cautions.of_images(self.assembly, self.thumbnails),
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
        """The device of the model and its batches."""
        return self.assembly.device

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.directory.path

    def log(self, line: str) -> None:
        """Append a line, with the time, to `log.txt`."""
        self.directory.log(line)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `last` - 1, on the device; worker processes end with the iterator."""
        yield from self._on_device(self.assembly.sampler.batches(first, last, *self._by_workers))

    def rest(self) -> Iterator[Batch | Shards]:
        """Yield the remaining batches of the run, or this process's shards of them."""
        step = self.step
        while step < self.steps:
            augmented = step < self.augmented
            sampler, last = (self.assembly.sampler, self.augmented) if augmented else (self.assembly.plain, self.steps)
            with closing(self._made(sampler, step, last)) as made:
                for batch in made:
                    yield batch
                    step += 1
                    # A change of plan may end it before `last`; batches that workers have made beyond are dropped.
                    if augmented and step >= self.augmented:
                        break

    def _made(self, sampler: PatchSampler, first: int, last: int) -> Generator[Batch | Shards]:
        """Yield the batches of a sampler, or this process's shards of them, on the device."""
        if (shards := self.assembly.experiment.runtime.shards) == 1:
            yield from self._on_device(sampler.batches(first, last, *self._by_workers))
        else:
            cut = ShardSampler(sampler, shards, self.among)
            yield from self._on_device(cut.batches(first, last, *self._by_workers))

    @property
    def _by_workers(self) -> tuple[int, bool]:
        """The number of worker processes, and whether batches go into pinned memory, which a GPU copies from."""
        return self.assembly.experiment.runtime.workers, self.device.type == "cuda"

    def _on_device(self, made: Iterator[Tensors]) -> Iterator[Tensors]:
        try:
            yield from prefetch_to_device(made, self.device)
        finally:
            made.close()  # type: ignore[attr-defined]  # a generator

    @contextmanager
    def trial(self) -> Iterator[tuple[Engine, nn.Module, torch.optim.Optimizer]]:
        """Yield a trainer with copies of model and optimizer, every batch an update; the run itself is unaffected."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            yield trial_of(self.assembly)

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the run depends on. Only between accumulation groups: it holds no gradients."""
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
        """Restore the state of a checkpoint."""
        self.optimization.load_state_dict(state)
        self.progress.load_state_dict(state)
        # A run that does not cache its images has no range of their values in its checkpoints.
        if state["values"]:
            self.preprocessing = Preprocessing.from_state(state)
        for name, handler in self.handlers.items():
            if name in state["handlers"] and hasattr(handler, "load_state_dict"):
                handler.load_state_dict(state["handlers"][name])
            elif name.startswith("[[handler]]"):
                self.log(f"{name} has no state in the checkpoint (no 'state_dict'): it starts afresh")
        # After the handlers: restoring one of the user's may draw random numbers.
        checkpoints.set_generators(state["generators"], self.device)
        self.start_at(state["step"])

    def start_at(self, step: int) -> None:
        """Let the trainer continue after so many steps."""
        start_at(self.trainer, step, self.steps_per_epoch, self.epochs, self.schedule.updates_until(step))

    def save(self) -> None:
        """Save a checkpoint of the present state as the newest."""
        state = self.state_dict()
        self._refuse_apart(state)
        if self.directory.writes:
            self.directory.refuse_gone()
            checkpoints.save_next(self.directory.checkpoints, state)

    def save_best(self) -> None:
        """Save a checkpoint of the present state as the best.

        Equal runs are to have equal files: the rows of `metrics.csv`, which have times, and the length, which differs
        in a run that is extended later, are left out.
        """
        state = self.state_dict()
        train = {key: value for key, value in state["experiment"]["train"].items() if key not in LENGTH}
        best = {**state, "rows": [], "experiment": {**state["experiment"], "train": train}}
        if self.directory.writes:
            self.directory.refuse_gone()
            checkpoints.save(self.directory.checkpoint("best"), best)
        self.among.gather(None)  # no other process may read the file before it is written

    def _refuse_apart(self, state: dict[str, Any]) -> None:
        """Raises UserError if processes have come to different weights, of which only those of one would be saved."""
        if self.among.count > 1:
            digest = checkpoints.digest({key: state[key] for key in ("model", "optimizer", "scaler")})
            processes.refuse_unequal({f"the training state after step {self.step}": digest}, self.among)


def _state(name: str, handler: Handler) -> Any:
    """Return a handler's state, or None if it has none. Raises UserError if a checkpoint cannot hold it."""
    if not hasattr(handler, "state_dict"):
        return None
    state = handler.state_dict()
    for key, value in checkpoints.leaves(state):
        # The exact type counts: NumPy's float64 is a subclass of float, but pickled as an object of NumPy, which
        # loading would refuse.
        if not isinstance(value, Tensor) and type(value) not in PLAIN:
            raise UserError(
                f"{name}: its state cannot be kept: '{key}' is of type {type(value).__name__}; 'state_dict' gives "
                "tensors and plain values"
            )
    return state
