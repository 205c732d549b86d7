"""From an experiment file to a run directory."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from yeastexp import assemble, checkpoints, engine, environment, experiment, files, images, tracking
from yeastexp.assemble import Assembly
from yeastexp.engine import Validation
from yeastexp.errors import UserError
from yeastexp.experiment import Experiment
from yeastexp.training import Training, options_of, panel, scored_baselines, validate
from yeastexp.updates import Options

RESERVE = 0.06
"""Share of a time budget kept for a machine that slows down."""

TIMING = 0.02
"""Share of a time budget that finds out how long a step takes."""

CLOSING = 0.01
CLOSING_SECONDS = 5.0
"""Kept of a time budget, with that share of it, for tables, pictures and files at the end and for leaving Python."""


def run(path: Path, settings: Sequence[str] = (), *, started: float | None = None, console: Console) -> Path:
    """Train the experiment of a file, measure it and return its run directory.

    `started` is the monotonic clock at the start of the command, from which a `budget` counts.
    """
    began = time.monotonic() if started is None else started
    loaded = fixed_threads(experiment.load(path, settings))
    assembly = assemble.assemble(loaded)
    options = options_of(assembly)
    deadline = began + experiment.seconds(loaded.train.budget) if loaded.train.budget else math.inf
    without_learning = scored_baselines(assembly) if loaded.train.budget else None  # they count as well
    counted, last_step_by = counted_steps(assembly, options, deadline)
    assembly = replace(assembly, experiment=counted)
    folder = files.claim_directory(Path("runs") / loaded.name)
    described = _open_directory(folder, assembly)
    training = Training(assembly, options, folder, without_learning, console, began, last_step_by)
    training.start()
    try:
        training.train()
        finish(training)
    except BaseException as error:
        training.tracker.log(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        training.tracker.close()
        written = environment.ended(described, time.monotonic() - began)
        files.write_text(folder / "environment.json", json.dumps(written, indent=1))
    return folder


def fixed_threads(loaded: Experiment) -> Experiment:
    """The experiment with its number of compute threads written down and in force; it changes the last bits."""
    threads = loaded.train.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    if loaded.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(loaded.train.deterministic, warn_only=True)
    # Measured: filling takes a quarter of the time of a forward pass, and nothing here reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    return replace(loaded, train=replace(loaded.train, threads=threads))


def counted_steps(assembly: Assembly, options: Options, deadline: float) -> tuple[Experiment, float]:
    """The experiment with a time budget turned into the number of steps that fits it, and when the last one must end.

    Steps and validations are timed on throwaway copies. A machine that slows down later cuts the run short at that
    moment, for the command keeps its time; the result says so.
    """
    train = assembly.experiment.train
    if not train.budget:
        return assembly.experiment, deadline
    step = engine.seconds_per_step(
        assembly.model,
        assembly.loss,
        assembly.optimizer,
        options,
        assembly.stream.batch,
        assembly.device,
        len(assembly.classes),
        seconds=TIMING * experiment.seconds(train.budget),
    )
    validation = min(_seconds(lambda: validate(assembly, assembly.model)) for _ in range(2))
    deadline -= CLOSING_SECONDS + CLOSING * experiment.seconds(train.budget)
    deadline -= validation * (1 + assembly.pixels("test") / assembly.pixels("val"))
    left = deadline - time.monotonic() - RESERVE * experiment.seconds(train.budget)
    deadline -= (options.accumulate - 1) * step  # a group of batches that is under way then is finished
    steps = int(left / (step + validation / (assembly.validate_every * assembly.stream.steps_per_epoch)))
    if steps < 1:
        raise UserError(
            f"[train] budget: {train.budget} is too short; a step takes {step:.2f} s, a validation {validation:.1f} s"
        )
    return replace(assembly.experiment, train=replace(train, budget=None, steps=steps)), deadline


def _seconds(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def _open_directory(folder: Path, assembly: Assembly) -> dict[str, Any]:
    """The resolved experiment, its plugins and its environment, in place before the first step."""
    loaded = assembly.experiment
    resolved = loaded.resolved()
    files.write_text(folder / "experiment.toml", resolved)
    for plugin in loaded.plugins:
        (folder / "plugins").mkdir(exist_ok=True)
        shutil.copy2(plugin, folder / "plugins" / plugin.name)
    inputs = [value for value in loaded.dataset.options.values() if isinstance(value, Path)]
    described = environment.describe(assembly.device, resolved, inputs, loaded.plugins)
    files.write_text(folder / "environment.json", json.dumps(described, indent=1))
    return described


def finish(training: Training) -> None:
    """Scores of best and last, the test split once, pictures, tables and `result.json`."""
    assembly, folder = training.assembly, training.folder
    last = training.last_validation
    assert last is not None and training.baselines is not None, "the last step always validates"
    best = training.best_validation or last
    if training.best.value is None:
        training.save("best.pt")
    state = checkpoints.load(folder / "checkpoints" / "best.pt", assembly.device)
    assembly.model.load_state_dict(state["model"])
    found = {"best": best.scores, "last": last.scores}
    summaries = {name: tracking.summarise(scores, assembly.classes) for name, scores in found.items()}
    rows = [{"split": "val", **row} for row in tracking.image_rows(list(best.losses), best.scores, assembly.classes)]
    result: dict[str, Any] = {
        "name": assembly.experiment.name,
        "steps": training.step,
        "planned_steps": training.planned_steps,
        "stopped_by_budget": training.stopped_by_budget,
        "stopped_early": training.stopped_early,
        "monitor": assembly.experiment.monitor,
        "best": {"step": training.best.step, "value": training.best.value, "loss": best.loss},
        "last": {"step": training.step, "loss": last.loss},
        "val": {"selected_on_these_images": True, **summaries},
        "baselines": training.baselines,
    }
    chosen = f"best checkpoint (step {training.best.step}), selected on these images"
    title = f"{len(best.losses)} validation images; {chosen}"
    tables = [tracking.final_table(title, summaries["best"], summaries["last"], training.baselines)]
    if assembly.dataset.splits.get("test"):
        test = validate(assembly, assembly.model, "test")
        result["test"] = tracking.summarise(test.scores, assembly.classes)
        test_rows = tracking.image_rows(list(test.losses), test.scores, assembly.classes)
        rows += [{"split": "test", **row} for row in test_rows]
        tables.append(tracking.final_table(f"test images ({len(test.losses)}), scored once", result["test"], None, {}))
    files.write_text(folder / "per_image.csv", tracking.as_csv(rows))
    files.write_text(folder / "result.json", json.dumps(result, indent=1))
    training.tracker.outcome(assembly.experiment.options(), tracking.tags(summaries["best"]), training.step)
    _write_pictures(training, best)
    for table in tables:
        training.console.print(table)


def _write_pictures(training: Training, best: Validation) -> None:
    """The worst, the median and the best validation image under the monitored metric, from the best checkpoint."""
    assembly, monitor = training.assembly, training.assembly.experiment.monitor
    names = list(best.losses)
    if monitor == "loss":
        ordered = sorted(names, key=lambda name: -best.losses[name])
    else:
        rows = tracking.rows_of(best.scores[monitor], assembly.classes)
        values = dict(zip(names, rows.get(tracking.MEAN, rows.get("all", [])), strict=True))
        ordered = sorted((name for name in names if values[name] == values[name]), key=lambda name: values[name])
    assembly.model.eval()
    chosen = {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]} if ordered else {}
    for rank, name in chosen.items():
        sample = assembly.dataset.read(name)
        logits = engine.whole_image_logits(assembly.model, assembly.transforms, sample, assembly.device)
        picture = panel(sample, logits.argmax(dim=0))
        images.write_png(training.folder / "pictures" / f"{rank}.png", picture.transpose(2, 0, 1))
