"""The findings of a comparison in sentences, with what it cannot show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple

from yeastexp.evaluation import out_of_fold
from yeastexp.evaluation.compare.result import Comparison
from yeastexp.metrics.intervals import half_width
from yeastexp.system.formatting import (
    format_count,
    format_difference,
    format_difference_interval,
    format_p,
    format_score,
)
from yeastexp.tasks.mask_cells import METHOD

LEVEL = 0.05
"""The significance level of all pairs together."""


def findings(comparison: Comparison) -> list[str]:
    """A sentence on each pair, then on what the scores cannot show."""
    sentences = [_finding(comparison, index) for index in range(len(comparison.pairs))]
    if any(run.approximate for run in comparison.runs):
        sentences.append(f"Cells of runs that are called so are {METHOD}.")
    if not comparison.out_of_fold:
        return [*sentences, "Each is a single run: how much another seed would change, these images cannot show."]
    return [*sentences, *_on_seeds(comparison), *_on_notes(comparison)]


def _on_seeds(comparison: Comparison) -> Iterator[str]:
    counts = sorted({len(spread.seeds) for spread in comparison.spreads})
    seeds = " or ".join(map(str, counts))
    yield (
        f"Each image counts once, by its out-of-fold predictions: {'the mean of' if counts[-1] > 1 else 'of'} "
        f"{seeds} seed{'s' if counts[-1] > 1 else ''}. Images of one fold share a model, so that they are less "
        "independent than the test assumes."
    )
    spreads = [
        f"{format_score(spread.between_seeds)} from seed to seed and {format_score(spread.between_images)} from image "
        f"to image in {run.label}"
        for run, spread in zip(comparison.runs, comparison.spreads, strict=True)
        if not math.isnan(spread.between_seeds)
    ]
    if spreads:
        yield f"Scores vary (standard deviations of means) by {', by '.join(spreads)}."
    if counts[0] < 2:
        yield "A single seed does not show how much another would change; 'crossval --repeats 3' would."


def _on_notes(comparison: Comparison) -> Iterator[str]:
    if comparison.notes:
        more = f" ({len(comparison.notes) - 1} more in {out_of_fold.RESULT})" if len(comparison.notes) > 1 else ""
        yield f"Noted in training: {comparison.notes[0]}{more}."


def _finding(comparison: Comparison, index: int) -> str:
    first, other, pair = comparison.runs[0].label, comparison.runs[index + 1].label, comparison.pairs[index]
    mean, low, high, count = astuple(pair.difference)
    if not count:
        return f"{other} against {first}: no image has a score in both."
    difference = format_difference(mean, low, high)
    what = f"{other} against {first}: {difference} {comparison.selection.metric} on {format_count(count, 'image')}"
    if count > 1:
        several = f" (Holm, {len(comparison.pairs)} pairs)" if len(comparison.pairs) > 1 else ""
        what += f", 95 % interval {format_difference_interval(low, high)}"
        what += f", p = {format_p(comparison.adjusted[index])}{several}"
    ours, others = comparison.means[0], comparison.means[index + 1]
    unpaired = "" if ours.images == others.images == count else _on_unpaired(first, ours.images, other, others.images)
    return f"{what}. {_verdict(comparison, index)}{unpaired}"


def _on_unpaired(first: str, ours: int, other: str, others: int) -> str:
    """A sentence on means of more images than have a score in both."""
    if ours == others:
        return f" The means in the table are of {format_count(ours, 'image')} each, not all of them the same."
    return f" The means in the table are of {ours} and {format_count(others, 'image')} ({first}, {other})."


def _verdict(comparison: Comparison, index: int) -> str:
    first, other, pair = comparison.runs[0].label, comparison.runs[index + 1].label, comparison.pairs[index]
    if comparison.adjusted[index] < LEVEL:
        higher = pair.difference.mean > 0
        better = other if higher == (comparison.higher_is_better is not False) else first
        how = "higher" if comparison.higher_is_better is None else "better"
        return f"On these images {better} is {how}{_but(comparison, index)}."
    if pair.difference.low == pair.difference.high == 0:
        return "The scores are the same on every image."
    # With few images even the clearest difference is not significant. That is said apart from a test that could have
    # shown one and did not.
    least = min(1.0, pair.smallest_p * len(comparison.pairs))
    if least >= LEVEL:
        excludes_0 = pair.difference.low > 0 or pair.difference.high < 0
        though = "; the interval, which assumes normal differences, excludes 0" if excludes_0 else ""
        return f"The data cannot tell the two apart: so few images never give a p below {format_p(least)}{though}."
    return "The data cannot tell the two apart."


def _but(comparison: Comparison, index: int) -> str:
    """A caveat if other seeds alone could have given a difference of that size; else empty."""
    if not comparison.out_of_fold:
        return ""
    # The test treats images as independent, but a seed shifts the scores of all images of a fold together.
    spreads = comparison.spreads[0], comparison.spreads[index + 1]
    half = half_width([spread.of_mean for spread in spreads], [len(spread.seeds) for spread in spreads])
    if abs(comparison.pairs[index].difference.mean) < half:
        return f", but other seeds alone change the difference by ± {half:.4f}, so that it may vanish with them"
    return ""
