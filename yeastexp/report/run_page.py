"""The page of a run: what was run, on what, how training went, its scores, and the images it fails on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yeastexp.drawing.plots import Distribution
from yeastexp.evaluation import record
from yeastexp.evaluation.measure import metric_of
from yeastexp.evaluation.source import Source
from yeastexp.metrics.summary import final_table, shown
from yeastexp.report import curves, predictions, run_files, sections, tables
from yeastexp.report.distributions import distribution_chart, distribution_charts, score_name
from yeastexp.report.html import Block, Chart, Charts, Details, Fact, Facts, Page, Paragraph, Section
from yeastexp.report.predictions import Say, silent
from yeastexp.report.run_files import RunFiles
from yeastexp.system.formatting import format_count, format_interval, format_number, format_score
from yeastexp.system.progress import format_seconds
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.training.conclude import chosen


def page(path: Path, written: str, device: str = "auto", progress: ProgressBar[str] = iter, say: Say = silent) -> Page:
    """The page of a run directory, finished or not, with notes on inputs that have changed since.

    Raises UserError if the folder is not a run directory.
    """
    # What cannot be read or predicted any more becomes a note; the page is written with all the rest.
    run = run_files.read(path)
    for note in run.notes:
        say(f"warning: {path}: {note}")
    for damage in run.damage:
        say(f"warning: {damage}")
    source = predictions.source_of(run)
    predicted = predictions.predict_best(run, source, device, progress)
    model, inspected = sections.model_section(path)
    all_sections = [
        Section("Parts", [sections.experiment_facts(run.experiment)], "what was run, with its options"),
        Section("Data", [_data(run, source)], "what it was trained and scored on"),
        Section("Training", list(curves.training_blocks(run)), "loss and scores by step"),
        Section("Scores", list(_scores(run)), "on whole images, beside baselines"),
        Section("Cells", list(predictions.cell_blocks(run, predicted)), "on validation images, by the best checkpoint"),
        Section("Predictions", list(predictions.gallery_blocks(run, predicted)), "the worst, median and best image"),
        Section("Training images", list(predictions.training_blocks(predicted)), "predicted by the same weights"),
        Section("Every image", list(_distribution(run)), "the distribution of scores over images"),
        Section("Confusion", [predictions.confusion_block(predicted)], "pixels by true and predicted class"),
        model,
        Section("Evaluations", list(_evaluations(run)), "written into this run by `evaluate`"),
        sections.environment_section(run.environment),
        sections.experiment_section(path),
    ]
    return Page(
        f"run, begun {run.environment['started'][:16].replace('T', ' ')} UTC",
        run.label,
        list(_lead(run, source)),
        Facts([*_headline(run), _length(run), *sections.receptive_field_fact(inspected)], large=True),
        [section for section in all_sections if section.blocks],
        written,
    )


def _lead(run: RunFiles, source: Source | str) -> Iterator[Paragraph]:
    if run.notes:
        yield Paragraph(f"No longer as the run had it: {'; '.join(run.notes)}.", warning=True)
    yield from (Paragraph(damage, warning=True) for damage in run.damage)
    if run.result:
        cautions = (note[:1].upper() + note[1:] for note in run.result.get("notes", ()))
        yield from (Paragraph(f"{note}.", warning=True) for note in cautions)
        count = _image_count(run, "val")
        trained_on = (
            f" on {format_count(len(source.dataset.splits['train']), 'image')}" if isinstance(source, Source) else ""
        )
        yield Paragraph(
            f"A `{run.experiment.model.name}` model, trained{trained_on}. Its scores are on the "
            f"{format_count(count, 'validation image')} {_selecting(run)}."
        )
        return
    step = int(run.epochs[-1]["step"] or 0) if run.epochs else 0
    yield Paragraph(
        f"This run has no result: it is still training, or was interrupted after step {step}. The page shows its best "
        f"checkpoint so far. `python -m yeastexp resume {run.path}` continues it.",
        warning=True,
    )
    if ends := [line for line in run.log if " ended by " in line][-1:]:
        yield Paragraph(f"Its log ends: {ends[0]}")


def _image_count(run: RunFiles, split: str) -> int:
    return len(next(iter(run.scores.get(split, {}).values()), {}))


def _data(run: RunFiles, source: Source | str) -> Facts:
    splits = {} if isinstance(source, str) else source.dataset.splits
    counts = ", ".join(f"{len(names)} {split}" for split, names in splits.items() if names)
    return sections.data_facts(run.experiment, run.environment, source, counts)


def _is_selected(run: RunFiles) -> bool:
    return run.result is None or bool(run.result["val"]["selected_on_these_images"])


def _selecting(run: RunFiles) -> str:
    """Return what the validation images have to do with the best checkpoint."""
    return "that also selected the checkpoint" if _is_selected(run) else "without a score that selects a checkpoint"


def _headline(run: RunFiles) -> list[Fact]:
    """The headline score, and that of the baselines that are not constant."""
    if not run.summary:
        return [Fact("score", "–", "not validated yet")]
    metric, name = run_files.headline_key(run.summary, run.experiment)
    facts = [
        _score_fact(score_name(metric, name, run.approximate), run.summary[metric][name], _selecting(run)),
        *_cells_fact(run.summary.get("count"), "count" in run.approximate),
    ]
    for baseline, summary in run.baselines.items():
        score = summary[metric][name]["per_image"]
        if score is not None and (not baseline.startswith("all ") or len(run.baselines) == 1):
            facts.append(Fact(f"{baseline} baseline", format_score(score), "without training"))
    return facts


def _cells_fact(counted: Mapping[str, Any] | None, approximate: bool) -> list[Fact]:
    """The numbers of cells in all validation images, if cells are counted."""
    if not counted:
        return []
    found, true = (format_number(counted[name]["pooled"]) for name in ("found", "true"))
    return [
        Fact(
            shown("cells found", {"cells found"} if approximate else ()),
            found,
            f"of {true} true ones in the validation images",
        )
    ]


def _score_fact(name: str, row: dict[str, Any], selecting: str) -> Fact:
    images = f"mean of {format_count(row['images'], 'validation image')} {selecting}"
    note = f"95 % interval {format_interval(row['low'], row['high'])}; {images}"
    return Fact(name, format_score(row["per_image"]), note)


def _length(run: RunFiles) -> Fact:
    environment, result = run.environment, run.result
    steps = result["steps"] if result else int(run.epochs[-1]["step"] or 0) if run.epochs else 0
    place = f"on {environment['device']}, {format_count(environment['threads'], 'thread')}"
    since = " since it was last resumed" if environment.get("resumed") else ""
    seconds = environment.get("seconds")
    note = f"{format_seconds(seconds)}{since} {place}" if seconds else place
    if result and (result["stopped_early"] or result["stopped_by_budget"]):
        by = "early" if result["stopped_early"] else "by its budget"
        note += f"; stopped {by} after {steps} of {result['planned_steps']} planned steps"
    return Fact("steps", str(steps), note)


def _scores(run: RunFiles) -> Iterator[Block]:
    if not run.summary:
        yield Paragraph("This run has not been validated yet, so there are no scores.")
        return
    title = f"{format_count(_image_count(run, 'val'), 'validation image')}; {chosen(run.best_step, _is_selected(run))}"
    last = run.result["val"]["last"] if run.result else None
    yield tables.from_rich(final_table(title, run.summary, last, run.baselines, run.approximate))
    if run.result and "test" in run.result:
        title = f"{format_count(_image_count(run, 'test'), 'test image')}, scored once, at the end"
        yield tables.from_rich(final_table(title, run.result["test"], None, {}, run.approximate))
    yield Charts([_baseline_chart(run)])
    yield Paragraph(sections.AGGREGATION_OF_CELLS if "count" in run.summary else sections.AGGREGATION)
    if not _is_selected(run):
        return
    yield Paragraph(
        "The validation images selected the best checkpoint, so its scores on them are slightly optimistically biased; "
        "the column “last” has those of the last weights."
    )


def _baseline_chart(run: RunFiles) -> Chart:
    metric, name = run_files.headline_key(run.summary, run.experiment)
    summaries = {"best": run.summary}
    if run.result:
        summaries |= {"test images": run.result["test"]} if "test" in run.result else {}
        summaries["last"] = run.result["val"]["last"]
    rows = []
    for label, summary in (summaries | run.baselines).items():
        row = summary[metric][name]
        rows.append(Distribution(label, {}, row["per_image"], row["low"], row["high"]))
    label = score_name(metric, name, run.approximate)
    return distribution_chart("baselines", f"{label} beside baselines", rows, x_label=label)


def _distribution(run: RunFiles) -> Iterator[Block]:
    scores = run.scores.get("val")
    if not scores:
        return
    yield Charts(list(distribution_charts(scores, run.summary, run.experiment)))
    key = run_files.ranking_key(scores, run.experiment.monitor)
    metric = metric_of(run.experiment, key[0])
    for split, split_scores in run.scores.items():
        order, first = run_files.worst_first(split_scores[key], metric.higher_is_better), run_files.first_of(metric)
        caption = (
            f"{format_count(len(order), f'{split} image')}, the {first} by {score_name(*key, run.approximate)} first"
        )
        table = tables.image_table(caption, order, split_scores, "per_image.csv", run.approximate)
        yield Details(f"all {split} images as a table", [table])


def _evaluations(run: RunFiles) -> Iterator[Block]:
    for evaluation in run.evaluations:
        yield tables.from_rich(record.tables(evaluation)[0])
        if evaluation.agreement:
            yield from (
                Paragraph(f"{sentence[:1].upper()}{sentence[1:]}.") for sentence in record.sentences(evaluation)
            )
        yield from (Paragraph(note, warning=True) for note in evaluation.notes)
