"""What the figures of all images say together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from yeastexp.inspection.preflight import duplicates, intensity_rules, label_rules
from yeastexp.inspection.preflight.dataset_rules import Every
from yeastexp.inspection.preflight.finding import Finding

Rule = Callable[[Every, Sequence[str]], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    label_rules.odd_labels,
    intensity_rules.constant_images,
    label_rules.absent_classes,
    duplicates.copies,
    label_rules.empty_masks,
    label_rules.inverted_masks,
    label_rules.missing_truth,
    duplicates.near_duplicates,
    intensity_rules.value_ranges,
    intensity_rules.saturation,
    intensity_rules.few_levels,
    intensity_rules.mixed_types,
    label_rules.maps_astray,
    label_rules.specks,
    label_rules.amounts,
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
