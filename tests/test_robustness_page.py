"""The page on out-of-distribution images: its tables and its plot are those of the runs that it keeps."""

from __future__ import annotations

from pathlib import Path

from docs import robustness
from yeastexp.config import loading


def test_the_page_has_the_scores_of_its_runs(tmp_path: Path) -> None:
    page = robustness.DOCUMENT.read_text(encoding="utf-8")
    assert robustness.by_field() in page and robustness.by_settings() in page
    robustness.draw(tmp_path / "price.png")
    assert (tmp_path / "price.png").stat().st_size > 0


def test_the_price_is_of_each_augmentation_of_the_starter(tmp_path: Path) -> None:
    settings = dict(robustness.priced())
    complete = settings.pop(robustness.FULL)
    names = [augmentation["name"] for augmentation in complete["augment"]]
    assert [name.removeprefix(robustness.WITHOUT) for name in settings] == [*names, robustness.TURNS]
    for name, tables in settings.items():
        if name != robustness.TURNS:
            assert len(tables["augment"]) == len(names) - 1
        assert robustness.rows(name, "4") and loading.experiment(
            {"name": "x", **tables, "dataset": {"name": "synthetic_yeast"}}
        )
