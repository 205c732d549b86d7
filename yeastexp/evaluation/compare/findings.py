"""What a comparison says, in sentences, and what it cannot say."""

from __future__ import annotations

import math
from collections.abc import Iterator

from yeastexp.evaluation import out_of_fold
from yeastexp.evaluation.compare.result import Comparison
from yeastexp.system.formatting import (
    format_count,
    format_difference,
    format_difference_interval,
    format_p,
    format_score,
)

LEVEL = 0.05
"""Of the tests of all pairs together."""


def findings(done: Comparison) -> list[str]:
    """What the pairs say, in a sentence each, and what they cannot say."""
    said = [_finding(done, index) for index in range(len(done.pairs))]
    if not done.out_of_fold:
        return [*said, "Each is one run: that another seed would give other scores, these images cannot show."]
    return [*said, *_of_seeds(done), *_of_notes(done)]


def _of_seeds(done: Comparison) -> Iterator[str]:
    """What seeds have to do with it."""
    counts = sorted({len(one.seeds) for one in done.spreads})
    seeds = " or ".join(map(str, counts))
    yield (
        f"Every image counts once, scored by weights that never saw it: {'the mean of' if counts[-1] > 1 else 'of'} "
        f"{seeds} seed{'s' if counts[-1] > 1 else ''}. Images of one fold share a model, so that they are less "
        "independent than the test takes them for."
    )
    told = [
        f"{format_score(spread.between_seeds)} from seed to seed and {format_score(spread.between_images)} from image "
        f"to image in {run.label}"
        for run, spread in zip(done.runs, done.spreads, strict=True)
        if not math.isnan(spread.between_seeds)
    ]
    if told:
        yield f"Scores scatter (standard deviations of means) by {', by '.join(told)}."
    if counts[0] < 2:
        yield "Of one seed alone it cannot be told how much another would change; 'crossval --repeats 3' would show it."


def _of_notes(done: Comparison) -> Iterator[str]:
    if done.notes:
        more = f" ({len(done.notes) - 1} more in {out_of_fold.RESULT})" if len(done.notes) > 1 else ""
        yield f"Noted when they were trained: {done.notes[0]}{more}."


def _finding(done: Comparison, index: int) -> str:
    first, other, pair = done.runs[0].label, done.runs[index + 1].label, done.pairs[index]
    found, count = pair.difference, pair.difference.images
    if not count:
        return f"{other} against {first}: no image has a score in both."
    difference = format_difference(found.mean, found.low, found.high)
    what = f"{other} against {first}: {difference} {done.wanted.metric} on {format_count(count, 'image')}"
    if count > 1:
        several = f" (Holm, {len(done.pairs)} pairs)" if len(done.pairs) > 1 else ""
        what += f", 95 % interval {format_difference_interval(found.low, found.high)}"
        what += f", p = {format_p(done.adjusted[index])}{several}"
    return f"{what}. {_verdict(done, index)}"


def _verdict(done: Comparison, index: int) -> str:
    first, other, pair = done.runs[0].label, done.runs[index + 1].label, done.pairs[index]
    if done.adjusted[index] < LEVEL:
        better = other if (pair.difference.mean > 0) == done.higher_is_better else first
        return f"On these images {better} is better{_but(done, index)}."
    if pair.difference.low == pair.difference.high == 0:
        return "The scores are the same on every image."
    least = min(1.0, pair.smallest_p * len(done.pairs))
    if least >= LEVEL:
        beyond = pair.difference.low > 0 or pair.difference.high < 0
        though = "; the interval, which takes the differences as normal, leaves 0 out" if beyond else ""
        return f"The data cannot tell the two apart: so few images never give a p below {format_p(least)}{though}."
    return "The data cannot tell the two apart."


def _but(done: Comparison, index: int) -> str:
    """Whether other seeds could have given a difference of that size where there is none."""
    if not done.out_of_fold:
        return ""
    by_seeds = math.hypot(done.spreads[0].of_mean, done.spreads[index + 1].of_mean)
    if abs(done.pairs[index].difference.mean) < 2 * by_seeds:
        return (
            f", but other seeds alone change the difference by ± {2 * by_seeds:.4f}, so that it may go away with them"
        )
    return ""
