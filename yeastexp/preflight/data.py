"""What the figures of all images say together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from yeastexp.preflight import duplicates, truth, values
from yeastexp.preflight.every import Every
from yeastexp.preflight.finding import Finding

Rule = Callable[[Every, Sequence[str]], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    truth.odd_labels,
    values.constant_images,
    truth.absent_classes,
    duplicates.copies,
    truth.empty_masks,
    truth.inverted_masks,
    truth.missing_truth,
    duplicates.near_duplicates,
    values.value_ranges,
    values.saturation,
    values.few_levels,
    values.mixed_types,
    truth.maps_astray,
    truth.specks,
    truth.amounts,
)


def findings(every: Every, classes: Sequence[str]) -> Iterator[Finding]:
    """Everything that can be said without the model, the rules in the order of the page."""
    for rule in RULES:
        yield from rule(every, classes)


def single_images(splits: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Splits of one image."""
    if len(splits.get("val", ())) == 1:
        yield Finding(
            "warning",
            "one validation image",
            "one image chooses the checkpoint and gives the score",
            "A score of one image has no interval: what another would give cannot be told",
            "take more ('val' of [dataset]), or let every image be held out in turn ('crossval')",
            tuple(splits["val"]),
        )
    if len(splits["train"]) == 1:
        yield Finding(
            "warning",
            "one training image",
            "all is learnt from one image",
            "What it does not show, the model will not know",
            "train on more, of other fields and days",
            tuple(splits["train"]),
        )
