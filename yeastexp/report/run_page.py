"""The page of one run: what was run, on what, how it went, what it scores, and on which images it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yeastexp.evaluation import record
from yeastexp.evaluation.evaluate import Source
from yeastexp.metrics.summary import final_table
from yeastexp.report import charts, curves, distributions, predictions, run_files, sections, tables
from yeastexp.report.charts import Bar
from yeastexp.report.distributions import bounds, called, higher_is_better
from yeastexp.report.html import Block, Chart, Charts, Details, Fact, Facts, Page, Paragraph, Section
from yeastexp.report.run_files import Key, Remains
from yeastexp.system.formatting import format_count, format_interval, format_score


def page(path: Path, made: str, device: str = "auto", progress: predictions.Progress = iter) -> Page:
    """The page of a run directory, finished or not; UserError where the folder is none."""
    left = run_files.read(path)
    source = predictions.source_of(left)
    found = predictions.predicted(left, source, device, progress)
    model, inspected = sections.model(path)
    every = [
        Section("What was run", [sections.parts(left.experiment)], "the parts with their options"),
        Section(
            "Data",
            [_data(left, source)],
            "what it was trained and scored on",
        ),
        Section("Training", list(curves.curves(left)), "how it went, step by step"),
        Section("Scores", list(_scores(left)), "whole images, beside answers without learning"),
        Section("Pictures", list(predictions.pictures(left, found)), "the worst, the median and the best image"),
        Section("Every image", list(_distribution(left)), "how scores spread over the images"),
        Section("Confusion", [predictions.confusion(found)], "which class is taken for which"),
        model,
        *_evaluations(left),
        sections.environment(left.environment),
        sections.resolved(path),
    ]
    field = Fact("receptive field", sections.field_of(inspected), sections.cells(inspected)) if inspected else None
    return Page(
        f"run, begun {left.environment['started'][:16].replace('T', ' ')} UTC",
        left.label,
        list(_lead(left, source)),
        Facts([*headline(left), *_length(left), *([field] if field else [])], large=True),
        [section for section in every if section.blocks],
        made,
    )


def _lead(left: Remains, source: Source | str) -> Iterator[Paragraph]:
    scored = len(next(iter(left.scores.get("val", {}).values()), {}))
    trained_on = (
        f" on {format_count(len(source.dataset.splits['train']), 'image')}" if isinstance(source, Source) else ""
    )
    if left.result:
        yield Paragraph(
            f"A model `{left.experiment.model.name}`, trained{trained_on}, scored on {scored} that also "
            "chose its best checkpoint (selected on these images)."
        )
        return
    step = int(left.epochs[-1]["step"] or 0) if left.epochs else 0
    yield Paragraph(
        f"This run has no result: it is still training, or was cut short, after step {step}. What stands here is of "
        f"its best checkpoint so far; python -m yeastexp resume {left.path} goes on.",
        warning=True,
    )
    if ends := [line for line in left.log if " ended by " in line][-1:]:
        yield Paragraph(f"Its log ends: {ends[0]}")


def _data(left: Remains, source: Source | str) -> Facts:
    splits = {} if isinstance(source, str) else source.dataset.splits
    counted = ", ".join(f"{len(names)} {split}" for split, names in splits.items() if names)
    return sections.data(left.experiment, left.environment, source, counted)


def headline(left: Remains) -> list[Fact]:
    """The score that a reader looks for first, and what the better answer without learning gets."""
    if not left.summary:
        return [Fact("score", "–", "nothing was validated yet")]
    metric, name = _first(left)
    row = left.summary[metric][name]
    found = [Fact(called(metric, name), format_score(row["per_image"]), _interval_of(row))]
    for baseline, summary in left.baselines.items():
        if baseline.startswith("all ") and len(left.baselines) > 1:
            continue
        found.append(Fact(f"{baseline} gets", format_score(summary[metric][name]["per_image"]), "without learning"))
    return found


def _first(left: Remains) -> Key:
    metric = left.experiment.monitor if left.experiment.monitor in left.summary else next(iter(left.summary))
    return metric, run_files.row_of(left.summary[metric], left.classes)


def _interval_of(row: dict[str, Any]) -> str:
    images = f"mean of {row['images']} images that chose the checkpoint"
    return f"95 % interval {format_interval(row['low'], row['high'])}; {images}"


def _length(left: Remains) -> Iterator[Fact]:
    environment = left.environment
    where = f"{environment['device']}, {format_count(environment['threads'], 'thread')}"
    steps = str(left.result["steps"]) if left.result else f"{int(left.epochs[-1]['step'] or 0) if left.epochs else 0}"
    seconds = environment.get("seconds")
    since = " since it was last resumed" if environment.get("resumed") else ""
    took = f"{_duration(seconds)}{since} on {where}" if seconds else f"on {where}"
    why = ""
    if left.result and (left.result["stopped_early"] or left.result["stopped_by_budget"]):
        why = f"; stopped {'early' if left.result['stopped_early'] else 'by its budget'}"
    yield Fact("steps", steps, took + why)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _scores(left: Remains) -> Iterator[Block]:
    if not left.summary:
        yield Paragraph("Nothing was validated yet, so there are no scores.")
        return
    images = len(next(iter(left.scores.get("val", {}).values()), {}))
    step = left.result["best"]["step"] if left.result else left.best.step if left.best else 0
    last = left.result["val"]["last"] if left.result else None
    title = f"{images} validation images; best checkpoint (step {step}), selected on these images"
    yield tables.printed(final_table(title, left.summary, last, left.baselines))
    if left.result and "test" in left.result:
        count = len(next(iter(left.scores.get("test", {}).values()), {}))
        title = f"{count} test images, scored once, at the end"
        yield tables.printed(final_table(title, left.result["test"], None, {}))
    yield Charts([_beside(left)])
    yield Paragraph(sections.AGGREGATION)
    yield Paragraph(
        "The validation images chose the best checkpoint, so its scores flatter a little; those of the last weights "
        "stand beside them."
    )


def _beside(left: Remains) -> Chart:
    metric, name = _first(left)
    answers = {
        "best": left.summary,
        **({"last": left.result["val"]["last"]} if left.result else {}),
        **left.baselines,
    }
    if left.result and "test" in left.result:
        answers = {"best": left.summary, "test images": left.result["test"], **answers}
    drawn = []
    for answer, summary in answers.items():
        row = summary[metric][name]
        drawn.append(Bar(answer, {}, row["per_image"], row["low"], row["high"]))
    what, within = called(metric, name), bounds(left.experiment, metric)
    title = f"{what}, beside answers without learning"
    note = "a stroke is the mean over images, a bar its 95 % interval"
    return charts.bars("beside", title, drawn, x_label=what, within=within, note=note)


def _distribution(left: Remains) -> Iterator[Block]:
    scores = left.scores.get("val")
    if not scores:
        return
    yield Charts(list(distributions.distributions(scores, left.summary, left.experiment)))
    key = run_files.ordering(scores, left.experiment.monitor)
    better = higher_is_better(left.experiment)[key[0]]
    for split, found in left.scores.items():
        order = run_files.worst_first(found[key], better)
        caption = f"{len(order)} {split} images, the worst by {called(*key)} first"
        yield Details(f"every {split} image, as a table", [tables.by_image(caption, order, found, "per_image.csv")])


def _evaluations(left: Remains) -> Iterator[Section]:
    """What `evaluate` found, on these images or others."""
    found: list[Block] = []
    for one in left.evaluations:
        found.append(tables.printed(final_table(record.title(one), one.summary, None, one.baselines)))
        found += [Paragraph(note, warning=True) for note in one.notes]
    yield Section("Evaluations", found, "what `evaluate` wrote into this run since")
