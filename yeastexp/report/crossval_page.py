"""The page of a cross-validation: the scores of out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from yeastexp.config import diff
from yeastexp.data import images
from yeastexp.errors import UserError
from yeastexp.evaluation import crossval, out_of_fold
from yeastexp.evaluation.cells import CellSurvey
from yeastexp.evaluation.measure import metric_of
from yeastexp.evaluation.source import Source
from yeastexp.metrics.pixels import MEAN, confusion
from yeastexp.metrics.summary import shown
from yeastexp.report import cells, crossval_folder, gallery, predictions, run_files, sections, tables
from yeastexp.report.cells import SurveyedCells
from yeastexp.report.crossval_folder import CrossvalFiles, FoldRun
from yeastexp.report.curves import curve_chart, series_of
from yeastexp.report.distributions import RANKS, distribution_charts, score_name, score_note
from yeastexp.report.gallery import PredictedImage
from yeastexp.report.html import Block, Charts, Details, Fact, Facts, Page, Paragraph, Section, Table
from yeastexp.system.formatting import format_count, format_interval, format_score


def page(path: Path, written: str, say: predictions.Say = predictions.silent) -> Page:
    """The page of a cross-validation, finished or not, with notes on inputs that have changed since."""
    files = crossval_folder.read(path)
    for damage in files.damage:
        say(f"warning: {damage}")
    # All runs read the same inputs, so that the first one tells what has changed.
    for fold_run in files.fold_runs[:1]:
        for note in fold_run.files.notes:
            say(f"warning: {fold_run.files.path}: {note}")
    source = source_of(files)
    model, inspected = sections.model_section(path)
    repeat = f" --folds {path / out_of_fold.FOLDS} --repeats {len(files.seeds) or 1}"
    all_sections = [
        Section("Parts", [sections.experiment_facts(files.experiment)], "what was run, with its options"),
        Section("Data", list(_data(files, source)), "what it was trained and scored on"),
        Section("Scores", list(_scores(files)), "out-of-fold predictions of all images"),
        Section("Folds", list(_folds(files)), "scores by fold and seed"),
        Section("Training", list(_training(files)), "loss and scores by step"),
        Section("Cells", list(_cells(files, source)), "of out-of-fold predictions"),
        Section("Predictions", list(_gallery(files, source)), "the worst, median and best image"),
        Section("Every image", list(_distribution(files)), "the distribution of scores over images"),
        Section("Confusion", list(_confusion(files, source)), "pixels by true and predicted class"),
        model,
        *_environments(files),
        sections.experiment_section(path, "crossval", repeat),
    ]
    begun = f", begun {files.fold_runs[0].files.environment['started'][:10]}" if files.fold_runs else ""
    return Page(
        f"cross-validation{begun}",
        files.label,
        list(_lead(files)),
        Facts([*_headline(files), *sections.receptive_field_fact(inspected)], large=True),
        [section for section in all_sections if section.blocks],
        written,
    )


def source_of(files: CrossvalFiles) -> Source | str:
    """The data set, or the reason why it or the predictions are unavailable."""
    source = predictions.source_of(files.fold_runs[0].files) if files.fold_runs else "no fold has been started"
    return next(iter(files.lacking), source)


def _data(files: CrossvalFiles, source: Source | str) -> Iterator[Facts]:
    for fold_run in files.fold_runs[:1]:
        counts = f"{format_count(sum(map(len, files.folds.folds)), 'image')} in {len(files.folds.folds)} folds"
        yield sections.data_facts(files.experiment, fold_run.files.environment, source, counts)


def _lead(files: CrossvalFiles) -> Iterator[Paragraph]:
    images, count = format_count(sum(map(len, files.folds.folds)), "image"), format_count(len(files.seeds), "seed")
    yield Paragraph(
        f"A `{files.experiment.model.name}` model, cross-validated on {images} in {len(files.folds.folds)} folds with "
        f"{count}. Scores are those of out-of-fold predictions: each image is predicted with the last weights of the "
        "run that held it out."
    )
    yield from (Paragraph(damage, warning=True) for damage in files.damage)
    if not files.result:
        finished = sum(fold_run.files.result is not None for fold_run in files.fold_runs)
        yield Paragraph(
            f"This cross-validation has no result: {finished} of the {len(files.fold_runs)} runs begun so far have "
            f"finished. The same `crossval` command with -o {files.path} continues it.",
            warning=True,
        )
        return
    yield from (Paragraph(note, warning=True) for note in files.result["notes"])
    if seeds := sorted({fold_run.seed for fold_run in files.later}):
        yield Paragraph(
            f"Not in this page: seed {' and '.join(map(str, seeds))}, begun since. The same `crossval` command with "
            f"-o {files.path} continues it.",
            warning=True,
        )


def _headline(files: CrossvalFiles) -> list[Fact]:
    if not files.result:
        return [Fact("score", "–", "not all folds have finished")]
    metric, name = files.headline_key
    row = files.summary[metric][name]
    images = format_count(row["images"], "image")
    interval = f"95 % interval {format_interval(row['low'], row['high'])}; mean of {images}"
    facts = [Fact(score_name(metric, name, files.approximate), format_score(row["per_image"]), interval)]
    if (threshold := row["baselines"].get("threshold")) is not None:
        facts.append(Fact("threshold baseline", format_score(threshold), "fitted in each fold"))
    deviation = f"standard deviation; {format_score(row['between_images'])} between images"
    return [*facts, Fact("between seeds", format_score(row["between_seeds"]), deviation)]


def _scores(files: CrossvalFiles) -> Iterator[Block]:
    if not files.result:
        yield Paragraph("There are no scores before all folds have finished.")
        return
    yield tables.from_rich(crossval.table(files.result))
    yield Paragraph(
        "“per image” averages each image's score over seeds, then over images, with its 95 % t-interval over images; "
        "“sd of images” and “sd of seeds” are standard deviations of the images' and the seeds' means. No image was "
        "used to train or select the weights that predict it."
    )


def _folds(files: CrossvalFiles) -> Iterator[Block]:
    finished = [fold_run for fold_run in files.fold_runs if fold_run.files.result]
    if finished:
        yield _fold_table(finished)
    for fold_run in files.fold_runs:
        if not fold_run.files.result:
            yield Paragraph(f"The run of {fold_run.name} has not finished.", warning=True)
    rows = [[str(number), f"{len(names)}", ", ".join(names)] for number, names in enumerate(files.folds.folds, start=1)]
    table = Table("folds.json", ["fold", "images", "names"], rows, numeric=frozenset({1}))
    yield Details("the images of each fold", [table])


def _fold_table(finished: Sequence[FoldRun]) -> Table:
    """A table with a row for each run: the means over its held-out images by metric."""
    first, results = finished[0].files, [fold_run.files.result or {} for fold_run in finished]
    keys = [
        (metric, metric_of(first.experiment, metric).headline(by_class, first.classes))
        for metric, by_class in results[0]["val"]["last"].items()
    ]
    rows = []
    for fold_run, result in zip(finished, results, strict=True):
        last = result["val"]["last"]
        scores = [format_score(last[metric][name]["per_image"]) for metric, name in keys]
        count = max(row["images"] for by_class in last.values() for row in by_class.values())
        seconds = fold_run.files.environment.get("seconds") or 0
        loss = format_score(result["last"]["loss"])
        rows.append([str(fold_run.seed), str(fold_run.fold), str(count), *scores, loss, f"{seconds:.0f}"])
    headings = ["seed", "fold", "images", *(score_name(*key, first.approximate) for key in keys), "loss", "seconds"]
    group_ends = {index for index, (a, b) in enumerate(pairwise(finished)) if a.seed != b.seed}
    caption = f"{format_count(len(finished), 'run')}; means over the held-out images, with the last weights"
    return Table(caption, headings, rows, frozenset(range(1, len(headings))), frozenset(group_ends))


def _training(files: CrossvalFiles) -> Iterator[Block]:
    if not any(fold_run.files.epochs for fold_run in files.fold_runs):
        return
    columns = {name for fold_run in files.fold_runs for row in fold_run.files.epochs[-1:] for name in row}
    metric = files.experiment.monitor
    in_words = shown(metric, files.approximate)
    score = next((column for name in (MEAN, "all") if (column := run_files.score_column(metric, name)) in columns), "")
    charts = {
        "train/loss": ("Training loss", files.experiment.loss_name),
        "val/loss": ("Loss on held-out images", files.experiment.loss_name),
        **({score: (f"{in_words} on held-out images", in_words)} if score else {}),
    }
    yield Charts(
        [
            curve_chart(
                f"folds-{index}",
                title,
                [
                    series_of(run.files, column, f"seed {run.seed}", files.seeds.index(run.seed), hint=run.name)
                    for run in files.fold_runs
                ],
                y_label=y_label,
                is_score=column == score,
                note="a line for each fold and seed",
            )
            for index, (column, (title, y_label)) in enumerate(charts.items())
        ]
    )


def _distribution(files: CrossvalFiles) -> Iterator[Block]:
    if not files.scores:
        return
    yield Charts(list(distribution_charts(files.scores, files.summary, files.experiment)))
    key = run_files.ranking_key(files.scores, files.experiment.monitor)
    metric = metric_of(files.experiment, key[0])
    order, first = run_files.worst_first(files.scores[key], metric.higher_is_better), run_files.first_of(metric)
    name = score_name(*key, files.approximate)
    caption = f"{format_count(len(order), 'image')}, the {first} by {name} first; means over seeds"
    table = tables.image_table(caption, order, files.scores, out_of_fold.PER_IMAGE, files.approximate)
    yield Details("all images as a table", [table])


def surveyed_cells(files: CrossvalFiles, source: Source | str) -> SurveyedCells | str:
    """A survey of the cells that were predicted with the first seed; or the reason why there is none."""
    if isinstance(source, str):
        return f"the images are not available ({source})"
    survey, sizes = CellSurvey(cells.MOST_CROPS, cells.ignore_border_of(files.experiment)), set[float | None]()
    for name in (name for fold in files.folds.folds for name in fold):
        path = files.cells(name)
        try:
            ids = images.read_mask(path)
        except (UserError, OSError):
            return f"{path} is missing or damaged; the same `crossval` command with -o {files.path} writes it anew"
        sample = source.dataset.read(name)
        sizes.add(sample.pixel_um)
        survey.add(sample, ids)
    return SurveyedCells(survey, sizes, bool(files.approximate))


def _cells(files: CrossvalFiles, source: Source | str) -> Iterator[Block]:
    """Blocks on cells: numbers are means over seeds, sizes and the worst cells are those of the first seed."""
    if not (counts := cells.stored_counts(files.scores)):
        return
    surveyed = surveyed_cells(files, source)
    if isinstance(surveyed, SurveyedCells):
        several = f" Numbers by image are means over seeds, all else is of seed {files.seeds[0]}."
        yield from cells.blocks(surveyed, counts, several if len(files.seeds) > 1 else "")
        return
    yield from cells.stored_blocks(files.scores, "count" in files.approximate)
    yield Paragraph(f"No sizes and no pictures of cells: {surveyed}.", warning=True)


def _gallery(files: CrossvalFiles, source: Source | str) -> Iterator[Block]:
    if not files.scores:
        return
    if isinstance(source, str):
        yield Paragraph(f"No overlays: the images are not available ({source}).", warning=True)
        return
    key = run_files.ranking_key(files.scores, files.experiment.monitor)
    better = metric_of(files.experiment, key[0]).higher_is_better
    predicted = []
    for rank, name in run_files.representatives(files.scores[key], better).items():
        fold_run = next(fold_run for fold_run in files.fold_runs if name in files.folds.folds[fold_run.fold - 1])
        note = f"{score_note(files.scores, key, name, files.classes, files.approximate)}; prediction: {fold_run.name}"
        mask = images.read_mask(_prediction_path(fold_run, name)).astype(np.int64)
        sample, path = source.dataset.read(name), fold_run.files.directory.cells(name)
        ids = images.read_mask(path).astype(np.int64) if "instances" in sample.maps and path.is_file() else None
        predicted.append(PredictedImage(sample, mask, f"{RANKS[rank]}: {name}", note, ids))
    yield gallery.overlay_gallery(predicted)


def _prediction_path(fold_run: FoldRun, name: str) -> Path:
    return fold_run.files.directory.prediction(name)


def _confusion(files: CrossvalFiles, source: Source | str) -> Iterator[Block]:
    """The confusion matrix, from the masks that the cross-validation wrote."""
    if not files.scores:
        return
    if isinstance(source, str):
        yield Paragraph(f"No confusion matrix: the images are not available ({source}).", warning=True)
        return
    classes = len(files.classes)
    counts = np.zeros((classes, classes), np.int64)
    for fold_run in files.fold_runs:
        for name in files.folds.folds[fold_run.fold - 1]:
            mask = torch.from_numpy(images.read_mask(_prediction_path(fold_run, name)).astype(np.int64))
            counts += confusion(mask, source.dataset.read(name).labels, classes).numpy()
    note = "out-of-fold predictions of all images and seeds; shares are of the row, the pixels of one true class"
    yield sections.confusion_table(counts, files.classes, note)


def _environments(files: CrossvalFiles) -> Iterator[Section]:
    """The environment of the first run, and its differences in other runs."""
    if not files.fold_runs:
        return
    environments = [fold_run.files.environment for fold_run in files.fold_runs]
    differing = diff.of_environments(environments)
    others = f"other runs differ in {', '.join(differing)}" if differing else "the same in all runs"
    yield sections.environment_section(environments[0], f"That of {files.fold_runs[0].name}; {others}.")
