"""The page of a cross-validation: every image as weights saw it that it had no part in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yeastexp.config import diff
from yeastexp.data import images
from yeastexp.evaluation import crossval, out_of_fold
from yeastexp.evaluation.evaluate import Source
from yeastexp.metrics.pixels import confusion
from yeastexp.metrics.summary import MEAN
from yeastexp.report import charts, crossval_folder, distributions, gallery, predictions, run_files, sections, tables
from yeastexp.report.charts import Line
from yeastexp.report.crossval_folder import Folded, Turn
from yeastexp.report.html import Block, Charts, Details, Fact, Facts, Page, Paragraph, Section, Table
from yeastexp.system.formatting import format_count, format_interval, format_score

WITHOUT = "weights that never saw it"

FEW = 4
"""Lines that all have their names beside them."""


def page(path: Path, made: str) -> Page:
    """The page of a cross-validation's directory, finished or not."""
    found = crossval_folder.read(path)
    source = predictions.source_of(found.turns[0].left) if found.turns else "no fold was begun"
    model, inspected = sections.model(path)
    field = [Fact("receptive field", sections.field_of(inspected), sections.cells(inspected))] if inspected else []
    every = [
        Section("What was run", [sections.parts(found.experiment)], "the parts with their options"),
        *_data(found, source),
        Section("Scores", list(_scores(found)), f"every image, scored by {WITHOUT}"),
        Section("Folds", list(_folds(found)), "what each fold got with each seed"),
        Section("Training", list(_training(found)), "how it went in each fold"),
        Section("Pictures", list(_pictures(found, source)), "the worst, the median and the best image"),
        Section("Every image", list(_distribution(found)), "how scores spread over the images"),
        Section("Confusion", list(_confusion(found, source)), "which class is taken for which"),
        model,
        *_environments(found),
        sections.resolved(path, "crossval", f" --folds {path / out_of_fold.FOLDS} --repeats {_repeats(found)}"),
    ]
    kept = [section for section in every if section.blocks]
    begun = f", begun {found.turns[0].left.environment['started'][:10]}" if found.turns else ""
    facts = Facts([*_headline(found), *field], large=True)
    return Page(f"cross-validation{begun}", found.label, list(_lead(found)), facts, kept, made)


def _data(found: Folded, source: Source | str) -> Iterator[Section]:
    for turn in found.turns[:1]:
        count = format_count(sum(map(len, found.dealt.folds)), "image")
        counted = f"{count} in {len(found.dealt.folds)} folds"
        facts = sections.data(found.experiment, turn.left.environment, source, counted)
        yield Section("Data", [facts], "what it was trained and scored on")


def _lead(found: Folded) -> Iterator[Paragraph]:
    count, names = len(found.dealt.folds), [name for some in found.dealt.folds for name in some]
    seeds = sorted({turn.seed for turn in found.turns})
    yield Paragraph(
        f"A model `{found.experiment.model.name}` on {len(names)} images in {count} folds, with "
        f"{format_count(len(seeds), 'seed')}: every image is scored by the last {WITHOUT}."
    )
    if not found.result:
        done = sum(turn.left.result is not None for turn in found.turns)
        yield Paragraph(
            f"This cross-validation has no result: {done} of the {len(found.turns)} runs begun so far are done. "
            f"The same `crossval` command with -o {found.path} goes on.",
            warning=True,
        )
        return
    yield from (Paragraph(note, warning=True) for note in found.result["notes"])


def _headline(found: Folded) -> list[Fact]:
    if not found.result:
        return [Fact("score", "–", "not all folds are done")]
    metric, name = found.first
    row = found.result["scores"][metric][name]
    interval = f"95 % interval {format_interval(row['low'], row['high'])}; mean of {row['images']} images"
    facts = [Fact(distributions.called(metric, name), format_score(row["per_image"]), interval)]
    if (threshold := row["baselines"].get("threshold")) is not None:
        facts.append(Fact("threshold gets", format_score(threshold), "without learning, fitted in each fold"))
    between = f"standard deviation; between images {format_score(row['between_images'])}"
    return [*facts, Fact("between seeds", format_score(row["between_seeds"]), between)]


def _scores(found: Folded) -> Iterator[Block]:
    if not found.result:
        yield Paragraph("There are no scores of all images before all folds are done.")
        return
    yield _final_table(found.result)
    yield Paragraph(
        "“per image” is the mean over images of their mean over seeds, with its 95 % t-interval over images; “sd of "
        "images” and “sd of seeds” are standard deviations of these means and of the seeds' means. No image had a part "
        "in the choice of the weights that score it."
    )


def _final_table(result: Mapping[str, Any]) -> Table:
    """What `crossval` printed, from the file that it wrote."""
    rows, ends = [], set()
    baselines = dict.fromkeys(
        baseline for by_class in result["scores"].values() for row in by_class.values() for baseline in row["baselines"]
    )
    for metric, by_class in result["scores"].items():
        for name, row in by_class.items():
            interval = format_interval(row["low"], row["high"])
            spreads = [format_score(row[key]) for key in ("between_images", "between_seeds")]
            beside = [format_score(row["baselines"].get(baseline)) for baseline in baselines]
            rows.append([metric, name, format_score(row["per_image"]), interval, *spreads, *beside])
        ends.add(len(rows) - 1)
    headings = ["metric", "class", "per image", "95 % interval", "sd of images", "sd of seeds", *baselines]
    seeds = f"{len(result['seeds'])} seed{'s' if len(result['seeds']) > 1 else ''}"
    caption = f"{len(result['images'])} images, each scored by the {result['checkpoint']} {WITHOUT}; {seeds}"
    return Table(caption, headings, rows, frozenset(range(2, len(headings))), frozenset(ends))


def _folds(found: Folded) -> Iterator[Block]:
    done = [turn for turn in found.turns if turn.left.result]
    if done:
        yield _turns_table(done)
    for turn in found.turns:
        if not turn.left.result:
            yield Paragraph(f"{turn.name} is not done.", warning=True)
    rows = [[str(number), f"{len(names)}", ", ".join(names)] for number, names in enumerate(found.dealt.folds, start=1)]
    members = Table("folds.json", ["fold", "images", "names"], rows, numbers=frozenset({1}))
    yield Details("which images are in which fold", [members])


def _turns_table(done: Sequence[Turn]) -> Table:
    """A row a run: the mean over its held-out images under each metric."""
    results = [turn.left.result or {} for turn in done]
    keys = [
        (metric, run_files.row_of(by_class, done[0].left.classes))
        for metric, by_class in results[0]["val"]["last"].items()
    ]
    rows = []
    for turn, result in zip(done, results, strict=True):
        last = result["val"]["last"]
        scores = [format_score(last[metric][name]["per_image"]) for metric, name in keys]
        count = max(row["images"] for by_class in last.values() for row in by_class.values())
        took = turn.left.environment.get("seconds")
        rows.append(
            [str(turn.seed), str(turn.fold), str(count), *scores, f"{result['last']['loss']:.4f}", f"{took or 0:.0f}"]
        )
    headings = ["seed", "fold", "images", *(distributions.called(*key) for key in keys), "loss", "seconds"]
    ends = {index for index in range(len(done) - 1) if done[index].seed != done[index + 1].seed}
    caption = f"{len(done)} runs; means over the images held out, of the last weights"
    return Table(caption, headings, rows, frozenset(range(1, len(headings))), frozenset(ends))


def _repeats(found: Folded) -> int:
    return len({turn.seed for turn in found.turns}) or 1


def _training(found: Folded) -> Iterator[Block]:
    if not any(turn.left.epochs for turn in found.turns):
        return
    metric = found.experiment.monitor
    columns = [name for turn in found.turns for row in turn.left.epochs[-1:] for name in row]
    scored = [f"val/{metric}{ending}" for ending in (f"/{MEAN}", "") if f"val/{metric}{ending}" in columns]
    curves = {
        "train/loss": ("Training loss", found.experiment.loss.name),
        "val/loss": ("Loss on images held out", found.experiment.loss.name),
    }
    curves |= {column: (f"{metric} on images held out", charts.shortened(metric)) for column in scored[:1]}
    seeds = sorted({turn.seed for turn in found.turns})
    note = "a line a fold; the dash tells the seed: " + ", ".join(
        f"{('solid', 'dashed', 'dotted', 'dash-dotted')[index % charts.LOOKS]} {seed}"
        for index, seed in enumerate(seeds)
    )
    yield Charts(
        [
            charts.lines(
                f"turns-{column.replace('/', '-')}",
                title,
                _lines(found, column, seeds),
                x_label="step",
                y_label=label,
                note=note,
            )
            for column, (title, label) in curves.items()
        ]
    )


def _lines(found: Folded, column: str, seeds: Sequence[int]) -> list[Line]:
    """A line a run; those that end lowest and highest are named, and all where they are few."""
    points = {turn.name: turn.left.points(column) for turn in found.turns}
    ends = sorted((some[-1][1], name) for name, some in points.items() if some)
    named = {name for _, name in (ends if len(ends) <= FEW else ends[:1] + ends[-1:])}
    return [
        Line(turn.name, points[turn.name], seeds.index(turn.seed), named=turn.name in named, marked=False)
        for turn in found.turns
    ]


def _distribution(found: Folded) -> Iterator[Block]:
    if not found.scores:
        return
    better = distributions.higher_is_better(found.experiment)
    yield Charts(list(distributions.distributions(found.scores, found.summary, found.experiment)))
    key = run_files.ordering(found.scores, found.experiment.monitor)
    order = run_files.worst_first(found.scores[key], better[key[0]])
    caption = f"{len(order)} images, the worst by {distributions.called(*key)} first; means over seeds"
    rows = tables.by_image(caption, order, found.scores, out_of_fold.PER_IMAGE)
    yield Details("every image, as a table", [rows])


def _pictures(found: Folded, source: Source | str) -> Iterator[Block]:
    if not found.scores:
        return
    if isinstance(source, str):
        yield Paragraph(f"Pictures are absent: the images are gone ({source}).", warning=True)
        return
    key = run_files.ordering(found.scores, found.experiment.monitor)
    better = distributions.higher_is_better(found.experiment)[key[0]]
    shown = []
    for rank, name in run_files.chosen(found.scores[key], better).items():
        turn = next(turn for turn in found.turns if name in found.dealt.folds[turn.fold - 1])
        note = f"{distributions.score_note(found.scores, key, name, found.classes)}; prediction: {turn.name}"
        mask = images.read_mask(_prediction(turn, name)).astype(np.int64)
        shown.append(gallery.Shown(source.dataset.read(name), mask, f"{distributions.RANKS[rank]}: {name}", note))
    yield gallery.drawn(shown)


def _prediction(turn: Turn, name: str) -> Path:
    return turn.left.path / crossval.PREDICTIONS / f"{name}.png"


def _confusion(found: Folded, source: Source | str) -> Iterator[Block]:
    """Pixels by class, of the masks that the cross-validation wrote."""
    if not found.scores:
        return
    if isinstance(source, str):
        yield Paragraph(f"No pixels were counted: the images are gone ({source}).", warning=True)
        return
    classes = len(found.classes)
    counts = np.zeros((classes, classes), np.int64)
    for turn in found.turns:
        for name in found.dealt.folds[turn.fold - 1]:
            mask = torch.from_numpy(images.read_mask(_prediction(turn, name)).astype(np.int64))
            counts += confusion(mask, source.dataset.read(name).labels, classes).numpy()
    note = f"all images and seeds, by {WITHOUT}; the share is of the row: of the pixels that truly are of a class"
    yield sections.confusion(counts, found.classes, note)


def _environments(found: Folded) -> Iterator[Section]:
    """That of the first run, and what is another in others."""
    if not found.turns:
        return
    every = [turn.left.environment for turn in found.turns]
    differing = diff.of_environments(every)
    note = f"of {found.turns[0].name}; " + (
        f"other runs differ in {', '.join(differing)}"
        if differing
        else "all runs had the same versions, machine and data"
    )
    yield sections.environment(every[0], note)
