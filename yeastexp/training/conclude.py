"""The end of a run: final scores, tables, pictures and `result.json`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from yeastexp.metrics.pixels import MEAN
from yeastexp.metrics.summary import completed, final_table, image_rows, rows_of, summarise
from yeastexp.system.formatting import format_count
from yeastexp.system.terminal import printable
from yeastexp.training import cautions, checkpoints
from yeastexp.training.build import Assembly
from yeastexp.training.context import RunContext
from yeastexp.training.progress import Validation
from yeastexp.training.validation import panel, validate, whole_image_outputs


def conclude(run: RunContext) -> None:
    """Score the best checkpoint on the test split, if there is one, and write tables, pictures and `result.json`.

    `result.json` is written last: with it the run counts as finished, so all other files have to be there.
    """
    assembly, directory, progress = run.assembly, run.directory, run.progress
    last, baselines = progress.last_validation, run.scored_baselines()
    assert last is not None, "the last step always validates"
    best = progress.best_validation or last
    path = directory.checkpoint("best")
    # No best checkpoint exists if the monitored score was never a number; the last weights stand for it then.
    if not (selected := progress.best.value is not None):
        run.save_best()
    kept = checkpoints.load(path)
    checkpoints.load_weights(assembly.model, kept["model"], path)
    if selected and kept["step"] != progress.best.step:
        # A run was killed between saving its best weights and the newest ones, and went on to no better ones.
        best = validate(assembly, assembly.model, "val", run.among)
        summary = summarise(best.scores, assembly.classes)
        progress.best.step, progress.best.value = kept["step"], best.value(assembly.experiment.monitor, summary)
    found = {"best": best.scores, "last": last.scores}
    summaries = {name: summarise(scores, assembly.classes) for name, scores in found.items()}
    baselines = {name: completed(summary, summaries["last"]) for name, summary in baselines.items()}
    rows = [{"split": "val", **row} for row in image_rows(list(best.losses), best.scores, assembly.classes)]
    result: dict[str, Any] = {
        "name": assembly.experiment.name,
        "steps": run.step,
        "planned_steps": run.steps,
        "stopped_by_budget": progress.stopped == "by budget",
        "stopped_early": progress.stopped == "early",
        "monitor": assembly.experiment.monitor,
        "best": {"step": kept["step"], "value": progress.best.value, "loss": best.finite_loss},
        "last": {"step": run.step, "loss": last.finite_loss},
        "val": {"selected_on_these_images": selected, **summaries},
        "baselines": baselines,
        "approximate": list(assembly.approximate),
        "notes": [
            *cautions.of_budget(assembly, run.schedule, progress, run.step),
            *cautions.of_losses(last),
            *cautions.of_baselines(assembly, summaries["best"], baselines),
            *run.cautions,
        ],
    }
    title = f"{format_count(len(best.losses), 'validation image')}; {chosen(kept['step'], selected)}"
    tables = [final_table(title, summaries["best"], summaries["last"], baselines, assembly.approximate)]
    if assembly.dataset.splits.get("test"):
        test = validate(assembly, assembly.model, "test", run.among)
        result["test"] = summarise(test.scores, assembly.classes)
        test_rows = image_rows(list(test.losses), test.scores, assembly.classes)
        rows += [{"split": "test", **row} for row in test_rows]
        title = f"test images ({len(test.losses)}), scored once"
        tables.append(final_table(title, result["test"], None, {}, assembly.approximate))
    directory.write_per_image(rows)
    run.tracker.outcome(assembly.experiment.options(), summaries["best"], run.step)
    if directory.writes:
        _write_pictures(run, best)
    run.tracker.flush()
    directory.write_result(result)
    for table in tables:
        run.console.print(table)
    for note in result["notes"]:
        run.log(f"warning: {note}")
        run.console.print(printable(f"warning: {note}"), markup=False, highlight=False, soft_wrap=True)


def chosen(step: int, selected: bool) -> str:
    """The title's words on the checkpoint that stands as the best one; nothing selected it without any score."""
    if selected:
        return f"best checkpoint (step {step}), selected on these images"
    return f"last checkpoint (step {step}), as no score selects another"


def _write_pictures(run: RunContext, best: Validation) -> None:
    """Draw the worst, the median and the best validation image under the monitored metric."""
    assembly = run.assembly
    ordered = from_worst_to_best(assembly, best)
    assembly.model.eval()
    ranked = {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]} if ordered else {}
    # Of one or two images some ranks are of the same one, which is predicted once: budgets count on that.
    for name in dict.fromkeys(ranked.values()):
        sample = assembly.dataset.read(name)
        outputs = whole_image_outputs(assembly.model, assembly.transforms, assembly.task, sample, assembly.device)
        picture = panel(sample, assembly.task.decode(outputs))
        for rank in (rank for rank, of_rank in ranked.items() if of_rank == name):
            run.directory.write_picture(rank, picture)


def from_worst_to_best(assembly: Assembly, validation: Validation) -> list[str]:
    """Return the images that have a score of the monitored metric, or a finite loss, from the worst to the best."""
    monitor, names = assembly.experiment.monitor, list(validation.losses)
    if monitor == "loss":
        values, sign = validation.losses, -1
    else:
        rows = rows_of(validation.scores[monitor], assembly.classes)
        values = dict(zip(names, rows.get(MEAN, rows.get("all", np.empty(0))).tolist(), strict=True))
        sign = 1 if assembly.metrics[monitor].higher_is_better else -1
    return sorted((name for name in names if not math.isnan(values[name])), key=lambda name: sign * values[name])
