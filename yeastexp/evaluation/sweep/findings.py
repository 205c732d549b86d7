"""The findings of a sweep in sentences: counts, the best trial beside its repeats, and differences that matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from scipy import special

from yeastexp.evaluation.sweep.folder import State, SweepRecord, TrialRecord
from yeastexp.metrics.summary import ScoreTable
from yeastexp.system.formatting import ABSENT, format_count, format_number, format_score

FEW_TRIALS = 30
"""The number of complete trials below which the importance of keys changes much from sweep to sweep."""

MOST_ROWS = 20
"""The most trials in the table that is printed."""


@dataclass(frozen=True)
class Spread:
    """The scores of the best trial's values trained with other seeds, and their spread.

    `margin` is t(0.975, n - 1) · s · √2: two trainings that differ in nothing but their seeds have scores farther apart
    than this in one of twenty pairs.
    """

    scores: tuple[float, ...]
    mean: float
    deviation: float
    margin: float


def spread_of(record: SweepRecord) -> Spread | None:
    """The spread between the seeds; None if fewer than two have ended."""
    repeats = record.repeats.trials if record.repeats else []
    scores = [trial.score for trial in repeats if trial.state == "complete" and trial.score is not None]
    if len(scores) < 2:
        return None
    deviation = float(np.std(scores, ddof=1))
    margin = float(special.stdtrit(len(scores) - 1, 0.975)) * deviation * math.sqrt(2)
    return Spread(tuple(scores), math.fsum(scores) / len(scores), deviation, margin)


def findings(record: SweepRecord) -> list[str]:
    """Sentences about a sweep, finished or not."""
    return list(_findings(record))


def counts(record: SweepRecord) -> str:
    """The numbers of trials by state, such as '20 trials: 15 complete, 4 pruned, 1 failed'."""
    states: tuple[State, ...] = ("complete", "pruned", "failed", "running", "waiting")
    told = [f"{len(record.of_state(state))} {state}" for state in states if record.of_state(state)]
    left = record.wanted - len(record.trials)
    return f"{format_count(record.wanted, 'trial')}: {', '.join([*told, *([f'{left} not begun'] if left else [])])}"


def _findings(record: SweepRecord) -> Iterator[str]:
    yield f"{counts(record)}."
    best, complete = record.best_trial, record.of_state("complete")
    if best is None or best.score is None:
        return
    yield (
        f"Trial {best.number} is the best of {len(complete)} complete trials: {record.monitor} "
        f"{format_score(best.score)}, selected on these validation images and therefore optimistically biased."
    )
    yield from _of_repeats(record, best.score, complete)
    if record.importance and len(complete) < FEW_TRIALS:
        yield (
            f"The importance of keys rests on {format_count(len(complete), 'complete trial')}; below {FEW_TRIALS} it "
            "changes much from one sweep to the next."
        )


def _of_repeats(record: SweepRecord, best: float, complete: list[TrialRecord]) -> Iterator[str]:
    repeats = record.repeats.trials if record.repeats else []
    ended = [trial for trial in repeats if trial.state == "complete" and trial.score is not None]
    if not ended:
        yield "It was not trained with other seeds, so that nothing tells how much of its score is chance."
        return
    scores = [format_score(trial.score) for trial in ended]
    mean = math.fsum(trial.score or 0.0 for trial in ended) / len(ended)
    # The best of many trials was partly lucky: how much worse its repeats score estimates the bias of the selection.
    gap = best - mean if record.higher_is_better else mean - best
    compared = f"{format_score(abs(gap))} {'worse' if gap >= 0 else 'better'} than when it was selected"
    yield (
        f"Its values trained with {format_count(len(ended), 'other seed')}: {record.monitor} {format_score(mean)} on "
        f"average ({', '.join(scores)}), {compared}."
    )
    if tests := [trial.test for trial in ended if trial.test is not None]:
        of_tests = format_score(math.fsum(tests) / len(tests))
        yield f"On the test images, which selected nothing: {of_tests} on average over these seeds."
    spread = spread_of(record)
    if spread is None:
        yield "A single other seed tells nothing of the spread between seeds; use --repeats 3."
        return
    near = sum(abs(trial.score - best) <= spread.margin for trial in complete if trial.score is not None) - 1
    verdict = f"Within that of the best: {near} of {format_count(len(complete) - 1, 'other complete trial')}"
    yield (
        f"Seeds alone have a standard deviation of {format_score(spread.deviation)}, so that two single trainings have "
        f"to differ by more than {format_score(spread.margin)} (95 %, from {len(spread.scores)} seeds). {verdict}."
    )


def table(record: SweepRecord, most: int = MOST_ROWS) -> ScoreTable:
    """The table of at most `most` trials, the best first."""
    ordered = record.best_first()
    shown = ordered[:most]
    more = f", the first {most} of them" if len(ordered) > most else ""
    title = f"{counts(record)}{more}; the best score of each, selected on the validation images"
    table = ScoreTable(title, ("trial", "state"), (record.monitor, "epochs", *map(escape, record.ranges), "seconds"))
    for trial in shown:
        values = [escape(shown_value(trial.values.get(key))) for key in record.ranges]
        epochs = str(trial.curve[-1][0]) if trial.curve else ABSENT
        seconds = ABSENT if trial.seconds is None else f"{trial.seconds:.0f}"
        table.add_row(str(trial.number), trial.state, format_score(trial.score), epochs, *values, seconds)
    return table


def shown_value(value: Any) -> str:
    """A value of a trial as a table cell."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return ABSENT if value is None else format_number(value) if number else str(value)
