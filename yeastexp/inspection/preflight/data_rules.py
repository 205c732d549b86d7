"""The rules that check the data without the model, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from yeastexp.inspection.preflight import duplicates, intensity_rules, label_rules
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.inspection.preflight.statistics import Labels, Statistics

Rule = Callable[[Statistics, Sequence[str]], Iterator[Finding]]
"""Takes the statistics of all images, and the names of the classes."""

RULES: tuple[Rule, ...] = (
    label_rules.invalid_labels,
    intensity_rules.constant_images,
    label_rules.missing_classes,
    duplicates.duplicates,
    label_rules.empty_masks,
    label_rules.nearly_full_masks,
    label_rules.unlabelled_pixels,
    duplicates.near_duplicates,
    intensity_rules.value_ranges,
    intensity_rules.saturation,
    intensity_rules.few_levels,
    intensity_rules.mixed_types,
    label_rules.contradicting_maps,
    label_rules.specks,
    label_rules.class_shares,
)


LABEL_RULES = (
    label_rules.missing_classes,
    label_rules.empty_masks,
    label_rules.nearly_full_masks,
    label_rules.unlabelled_pixels,
)
"""The rules that need nothing but the labels."""


def label_findings(images: Labels, classes: Sequence[str]) -> Iterator[Finding]:
    """The findings of the rules on labels alone."""
    for rule in LABEL_RULES:
        yield from rule(images, classes)


def findings(images: Statistics, classes: Sequence[str]) -> Iterator[Finding]:
    """The findings of all rules, in the order of the page."""
    for rule in RULES:
        yield from rule(images, classes)


def single_images(splits: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Findings on splits of a single image."""
    if len(splits.get("val", ())) == 1:
        yield Finding(
            "warning",
            "one validation image",
            "a single image selects the checkpoint and gives the score",
            "The score of one image has no confidence interval",
            "use more ('val' of [dataset]), or cross-validate ('crossval')",
            tuple(splits["val"]),
        )
    if len(splits["train"]) == 1:
        yield Finding(
            "warning",
            "one training image",
            "the model is trained on a single image",
            "It will not generalise to what that image does not show",
            "train on more, of other fields and days",
            tuple(splits["train"]),
        )
