"""The page of a sweep: its trials by score and by value, the best one with other seeds, and what follows from them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yeastexp.drawing import plots
from yeastexp.drawing.plots import Series
from yeastexp.evaluation.sweep.findings import FEW_TRIALS, counts, findings, shown_value, spread_of, table
from yeastexp.evaluation.sweep.folder import SweepFolder, SweepRecord, TrialRecord
from yeastexp.report import sections, tables
from yeastexp.report.curves import curve_chart
from yeastexp.report.html import Block, Chart, Charts, Details, Fact, Facts, Page, Paragraph, Section, Table
from yeastexp.system.formatting import format_count, format_score, format_share

LOOKS = {"pruned": (1, True), "complete": (0, False), "best": (2, False)}
"""The looks of the trials in all plots, from the lowest to the topmost, and whether their markers are outlines."""


def page(path: Path, written: str) -> Page:
    """The page of a sweep's folder, finished or not."""
    folder = SweepFolder(path)
    record, experiment = folder.read(), folder.directory.load(data=False, execute=False)
    all_sections = [
        Section("Trials", list(_trials(record)), counts(record)),
        Section("Values", list(_slices(record)), "the score of each trial by each of its values"),
        Section("Importance", list(_importance(record)), "which keys the good scores depend on"),
        Section("Seeds", list(_seeds(record)), "the best trial, trained with other seeds"),
        Section("Parts", [sections.experiment_facts(experiment)], "what every trial was, where the space says nothing"),
        Section("Space", [_space(record)], "the ranges and choices"),
        sections.experiment_section(path),
    ]
    place = path.resolve()
    return Page(
        "sweep",
        f"{place.parent.name}/{place.name}",
        list(_lead(record, path)),
        Facts(_headline(record), large=True),
        [section for section in all_sections if section.blocks],
        written,
    )


def _lead(record: SweepRecord, path: Path) -> Iterator[Paragraph]:
    if not record.finished:
        told = "This sweep has not finished, or goes on elsewhere."
        yield Paragraph(f"{told} The same `sweep` command with -o {path} joins and continues it.", warning=True)
    first, *others = findings(record)
    yield Paragraph(f"{first} Proposed by the sampler `{record.sampler}`, pruned by `{record.pruner}`.")
    yield from map(Paragraph, others)


def _headline(record: SweepRecord) -> list[Fact]:
    best = record.best_trial
    if best is None:
        return [Fact("best trial", "–", "no trial is complete")]
    facts = [Fact(f"best {record.monitor}", format_score(best.score), f"trial {best.number}, selected on these images")]
    if spread := spread_of(record):
        seeds = format_count(len(spread.scores), "other seed")
        facts.append(Fact("the same values", format_score(spread.mean), f"mean of {seeds}"))
        facts.append(Fact("between seeds", format_score(spread.deviation), "standard deviation"))
    ended = {state: len(record.of_state(state)) for state in ("complete", "pruned", "failed")}
    told = ", ".join(f"{count} {state}" for state, count in ended.items())
    return [*facts, Fact("trials", str(sum(ended.values())), f"{told}; {record.wanted} wanted")]


def _group(record: SweepRecord, trial: TrialRecord) -> str:
    return "best" if trial.number == record.best else trial.state


def _grouped(record: SweepRecord) -> dict[str, list[TrialRecord]]:
    """The trials that have a score by group: the best one, and the others by state."""
    groups = {
        group: [trial for trial in record.trials if _group(record, trial) == group and trial.score is not None]
        for group in LOOKS
    }
    return {group: trials for group, trials in groups.items() if trials}


def _hint(trial: TrialRecord, monitor: str) -> str:
    told = ", ".join(f"{key} {shown_value(value)}" for key, value in trial.values.items())
    return f"trial {trial.number} ({trial.state}): {monitor} {format_score(trial.score)}; {told}"


def _trials(record: SweepRecord) -> Iterator[Block]:
    if grouped := _grouped(record):
        yield Charts([_by_number(record, grouped), *_curves(record)])
    yield tables.from_rich(table(record, tables.MOST_ROWS))
    if failed := record.of_state("failed"):
        rows = [[str(trial.number), trial.why] for trial in failed]
        yield Details("why trials failed", [Table("failed trials", ["trial", "reason"], rows)])


def _by_number(record: SweepRecord, grouped: dict[str, list[TrialRecord]]) -> Chart:
    series = _series(record, grouped, lambda trial: float(trial.number))
    figure = plots.dots(series, x_label="trial", y_label=record.monitor)
    title = f"{record.monitor} of each trial"
    scored = sum(map(len, grouped.values()))
    description = f"{title}, {format_count(scored, 'trial')} with a score: {_span(record, grouped)}."
    return Chart(title, description, plots.inline_svg(figure, "by-number"), "its best validation; pruned: its last")


def _span(record: SweepRecord, grouped: dict[str, list[TrialRecord]]) -> str:
    scores = [trial.score or 0.0 for trial in itertools.chain(*grouped.values())]
    return f"between {format_score(min(scores))} and {format_score(max(scores))}"


def _series(record: SweepRecord, grouped: dict[str, list[TrialRecord]], x: Any) -> list[Series]:
    series = []
    for group, trials in grouped.items():
        look, hollow = LOOKS[group]
        scores = [trial.score if trial.score is not None else math.nan for trial in trials]
        hints = "\n".join(_hint(trial, record.monitor) for trial in trials)
        series.append(Series(group, [x(trial) for trial in trials], scores, look, hollow, hints))
    return series


def _curves(record: SweepRecord) -> Iterator[Chart]:
    """The monitored score by epoch, the best trial above the others."""
    drawn = [trial for group in _grouped(record).values() for trial in group if trial.curve]
    if not drawn:
        return
    series = [
        Series(
            group := _group(record, trial),
            [epoch for epoch, _ in trial.curve],
            [value for _, value in trial.curve],
            LOOKS[group][0],
            hint=_hint(trial, record.monitor),
        )
        for trial in drawn
    ]
    title = f"{record.monitor} by epoch"
    yield curve_chart("trials", title, series, y_label=record.monitor, x_label="epoch", is_score=True)


def _slices(record: SweepRecord) -> Iterator[Block]:
    if grouped := _grouped(record):
        yield Charts([_slice(record, grouped, index, key) for index, key in enumerate(record.ranges)])
        yield Paragraph(
            "Trials of one plot differ in their other values as well, which a sampler does not choose evenly: a slope "
            "may be that of another key."
        )


def _slice(record: SweepRecord, grouped: dict[str, list[TrialRecord]], index: int, key: str) -> Chart:
    span = record.ranges[key]
    choices = [json.dumps(choice) for choice in span.get("choices", ())]
    ticks = [shown_value(choice) for choice in span.get("choices", ())]

    def x(trial: TrialRecord) -> float:
        value = trial.values.get(key)
        return float(choices.index(json.dumps(value)) if choices else value)  # type: ignore[arg-type]

    figure = plots.dots(
        _series(record, grouped, x),
        x_label=key,
        y_label=record.monitor,
        logarithmic=bool(span.get("log")),
        ticks=ticks,
    )
    scored = list(itertools.chain(*grouped.values()))
    best = max if record.higher_is_better else min
    top = best(scored, key=lambda trial: trial.score or 0.0)
    description = (
        f"{record.monitor} by {key}, {format_count(len(scored), 'trial')}: "
        f"{_span(record, grouped)}, the best at {shown_value(top.values.get(key))}."
    )
    return Chart(key, description, plots.inline_svg(figure, f"slice-{index}"))


def _importance(record: SweepRecord) -> Iterator[Block]:
    if not record.importance:
        return
    complete = len(record.of_state("complete"))
    rows = [[key, format_share(share)] for key, share in record.importance.items()]
    shares = {(row, 1): share for row, share in enumerate(record.importance.values())}
    note = (
        f"PED-ANOVA over {format_count(complete, 'complete trial')}: how far the values of good trials are not random"
    )
    yield Table("importance of keys", ["key", "share"], rows, numeric=frozenset({1}), shares=shares, note=note)
    if complete < FEW_TRIALS:
        yield Paragraph(
            f"Of fewer than {FEW_TRIALS} complete trials it changes from one sweep to the next.", warning=True
        )


def _seeds(record: SweepRecord) -> Iterator[Block]:
    if record.repeats is None or not record.repeats.trials or record.best_trial is None:
        return
    best = record.best_trial
    shown: Sequence[tuple[str, TrialRecord]] = [
        (f"{record.train_seed} (trial {best.number}, selected)", best),
        *((str(trial.seed), trial) for trial in record.repeats.trials),
    ]
    rows = [
        [seed, trial.state, *(format_score(score) for score in (trial.score, trial.last, trial.test)), trial.folder]
        for seed, trial in shown
    ]
    headings = ["seed", "state", f"best {record.monitor}", f"last {record.monitor}", f"test {record.monitor}", "run"]
    yield Table("the values of the best trial by seed", headings, rows, numeric=frozenset({2, 3, 4}))


def _space(record: SweepRecord) -> Table:
    rows = []
    for key, span in record.ranges.items():
        if "choices" in span:
            rows.append([key, ", ".join(map(shown_value, span["choices"]))])
            continue
        scale = ", logarithmic" if span["log"] else f", in steps of {shown_value(span['step'])}" if span["step"] else ""
        whole = ", whole numbers" if span["integer"] else ""
        rows.append([key, f"{shown_value(span['low'])} to {shown_value(span['high'])}{scale}{whole}"])
    return Table("space", ["key", "values"], rows, note=f"sampler {record.sampler} with seed {record.seed}")
