"""One execution of an experiment: its directory, held by one process, from the first step to the result."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from yeastexp.data import images
from yeastexp.errors import INTERRUPTED, UserError
from yeastexp.metrics.pixels import MEAN, most_likely
from yeastexp.metrics.summary import as_csv, final_table, image_rows, rows_of, summarise, tags
from yeastexp.system import environment, failures, files, locks
from yeastexp.system.interruption import Interruption
from yeastexp.training import checkpoints, tensorboard
from yeastexp.training.build import Assembly
from yeastexp.training.loop import Training
from yeastexp.training.progress import Validation
from yeastexp.training.step import whole_image_logits
from yeastexp.training.validation import panel, validate

EXPERIMENT, ENVIRONMENT, RESULT, PER_IMAGE = "experiment.toml", "environment.json", "result.json", "per_image.csv"


def open_directory(folder: Path, assembly: Assembly) -> None:
    """Put the plugins, the environment and the resolved experiment in place; a run that has the last can be resumed."""
    loaded = assembly.experiment
    for plugin in loaded.plugins:
        (folder / "plugins").mkdir(exist_ok=True)
        shutil.copy2(plugin, folder / "plugins" / plugin.name)
    write_environment(folder, described(assembly))
    files.write_text(folder / EXPERIMENT, loaded.resolved())


def described(assembly: Assembly) -> dict[str, Any]:
    """What this process depends on beside the experiment."""
    loaded = assembly.experiment
    inputs = [value for value in loaded.dataset.options.values() if isinstance(value, Path)]
    found = environment.describe(assembly.device, loaded.resolved(), inputs, loaded.plugins)
    return {"seed": loaded.train.seed, **found}


def read_environment(folder: Path) -> dict[str, Any]:
    """What `environment.json` of a run holds."""
    found: dict[str, Any] = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    return found


def write_environment(folder: Path, found: dict[str, Any]) -> None:
    """Write `environment.json` of a run."""
    files.write_text(folder / ENVIRONMENT, json.dumps(found, indent=1))


@contextmanager
def holding(folder: Path) -> Iterator[Interruption]:
    """A run directory for this process alone; Ctrl-C and SIGTERM are heeded between two steps, and
    a full disk is said in a line."""
    with failures.explained(folder), locks.held(folder) as stale, Interruption() as interruption:
        if stale:
            tensorboard.log(folder, stale)
        yield interruption


def carry_out(training: Training) -> None:
    """Train to the end and write the result; UserError with status 130 where it was interrupted.

    Training has begun, or stands at a checkpoint.
    """
    folder = training.folder
    try:
        with failures.explained(folder, _memory_of(training.assembly)):
            training.train()
            training.tracker.flush()
            if training.interruption.wanted or not training.over:
                raise UserError(
                    f"{folder}: interrupted after step {training.step} of {training.steps}; "
                    f"python -m yeastexp resume {folder} goes on from there",
                    status=INTERRUPTED,
                )
            conclude(training)
    except BaseException as error:
        tensorboard.log(folder, f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        training.tracker.close()
        ended = environment.ended(read_environment(folder), time.monotonic() - training.began)
        write_environment(folder, ended)


def _memory_of(assembly: Assembly) -> str:
    side, channels = assembly.sampler.plan.side, assembly.experiment.task.channels
    return f"a step with {assembly.sampler.size} × {channels} × {side} × {side} pixels (B × C × H × W)"


def conclude(training: Training) -> None:
    """Scores of best and last, the test split once, pictures, tables and, when all else is there, `result.json`."""
    assembly, folder, progress = training.assembly, training.folder, training.progress
    last, baselines = progress.last_validation, training.scored_baselines()
    assert last is not None, "the last step always validates"
    best = progress.best_validation or last
    path = folder / checkpoints.FOLDER / checkpoints.BEST
    if progress.best.value is None:
        training.save_best()
    checkpoints.load_weights(assembly.model, checkpoints.load(path)["model"], path)
    found = {"best": best.scores, "last": last.scores}
    summaries = {name: summarise(scores, assembly.classes) for name, scores in found.items()}
    rows = [{"split": "val", **row} for row in image_rows(list(best.losses), best.scores, assembly.classes)]
    result: dict[str, Any] = {
        "name": assembly.experiment.name,
        "steps": training.step,
        "planned_steps": training.steps,
        "stopped_by_budget": progress.stopped == "by budget",
        "stopped_early": progress.stopped == "early",
        "monitor": assembly.experiment.monitor,
        "best": {"step": progress.best.step, "value": progress.best.value, "loss": best.loss},
        "last": {"step": training.step, "loss": last.loss},
        "val": {"selected_on_these_images": True, **summaries},
        "baselines": baselines,
    }
    chosen = f"best checkpoint (step {progress.best.step}), selected on these images"
    title = f"{len(best.losses)} validation images; {chosen}"
    tables = [final_table(title, summaries["best"], summaries["last"], baselines)]
    if assembly.dataset.splits.get("test"):
        test = validate(assembly, assembly.model, "test")
        result["test"] = summarise(test.scores, assembly.classes)
        test_rows = image_rows(list(test.losses), test.scores, assembly.classes)
        rows += [{"split": "test", **row} for row in test_rows]
        tables.append(final_table(f"test images ({len(test.losses)}), scored once", result["test"], None, {}))
    files.write_text(folder / PER_IMAGE, as_csv(rows))
    training.tracker.outcome(assembly.experiment.options(), tags(summaries["best"]), training.step)
    _write_pictures(training, best)
    training.tracker.flush()
    files.write_text(folder / RESULT, json.dumps(result, indent=1))
    for table in tables:
        training.console.print(table)


def _write_pictures(training: Training, best: Validation) -> None:
    """The worst, the median and the best validation image under the monitored metric, from the best checkpoint."""
    assembly = training.assembly
    ordered = from_worst_to_best(assembly, best)
    assembly.model.eval()
    chosen = {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]} if ordered else {}
    for rank, name in chosen.items():
        sample = assembly.dataset.read(name)
        logits = whole_image_logits(assembly.model, assembly.transforms, sample, assembly.device)
        picture = panel(sample, most_likely(logits))
        images.write_png(training.folder / "pictures" / f"{rank}.png", picture.transpose(2, 0, 1))


def from_worst_to_best(assembly: Assembly, validation: Validation) -> list[str]:
    """The images that the monitored metric, or the loss, has a score for."""
    monitor, names = assembly.experiment.monitor, list(validation.losses)
    if monitor == "loss":
        values, sign = validation.losses, -1
    else:
        rows = rows_of(validation.scores[monitor], assembly.classes)
        values = dict(zip(names, rows.get(MEAN, rows.get("all", np.empty(0))).tolist(), strict=True))
        sign = 1 if assembly.metrics[monitor].higher_is_better else -1
    return sorted((name for name in names if not math.isnan(values[name])), key=lambda name: sign * values[name])
