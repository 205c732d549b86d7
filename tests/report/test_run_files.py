"""The files of a run: which images are worst, median and best."""

from __future__ import annotations

import pytest

from yeastexp.evaluation.measure import WithheldMetric
from yeastexp.metrics.pixels import IoU
from yeastexp.report import run_files

SCORES = {"a": 0.5, "b": None, "c": 0.9, "d": 0.7, "e": 0.6}


@pytest.mark.parametrize(
    ("better", "expected"),
    [(True, {"worst": "a", "median": "d", "best": "c"}), (False, {"worst": "c", "median": "e", "best": "a"})],
)
def test_the_worst_is_the_highest_where_lower_is_better(better: bool, expected: dict[str, str]) -> None:
    assert run_files.representatives(SCORES, better) == expected


def test_few_images_are_called_what_they_are() -> None:
    assert run_files.representatives({"a": 0.5, "b": None}) == {"only": "a"}
    assert run_files.representatives({"a": 0.5, "b": 0.4}) == {"worst": "b", "best": "a"}
    assert run_files.representatives({"a": None}) == {}
    assert run_files.worst_first({"a": None, "b": 0.5, "c": 0.4}) == ["c", "b", "a"]


def test_the_first_of_scores_whose_metric_is_withheld_is_not_called_the_worst() -> None:
    assert [run_files.first_of(metric(2)) for metric in (IoU, WithheldMetric)] == ["worst", "lowest"]
