"""Folds: every image in one of them, groups whole, the same whatever the order, and honest about look-alikes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yeastexp.data import folds
from yeastexp.data.folds import FoldDataset, Folds, split_into_folds
from yeastexp.errors import UserError

NAMES = [f"field{index // 3}_t{index % 3}" for index in range(18)]


@given(st.integers(2, 18), st.integers(0, 9), st.permutations(NAMES))
def test_every_image_is_in_one_fold_and_folds_are_even(count: int, seed: int, names: list[str]) -> None:
    assigned = split_into_folds(names, count, seed=seed)
    assert sorted(name for fold in assigned.folds for name in fold) == sorted(NAMES)
    sizes = [len(fold) for fold in assigned.folds]
    assert len(sizes) == count and max(sizes) - min(sizes) <= 1
    assert assigned == split_into_folds(NAMES, count, seed=seed)


@given(st.integers(2, 6))
def test_groups_stay_whole(count: int) -> None:
    assigned = split_into_folds(NAMES, count, r"field(\d+)")
    held = [{name.split("_")[0] for name in fold} for fold in assigned.folds]
    assert sum(len(groups) for groups in held) == 6 == len(set().union(*held))


def test_seeds_deal_differently() -> None:
    assert len({split_into_folds(NAMES, 3, seed=seed).folds for seed in range(5)}) == 5


def test_blocks_hold_what_follows_each_other_by_name() -> None:
    """Numbers count as such: t2 comes before t10."""
    frames = [f"t{number}" for number in (10, 2, 7, 1, 30, 9, 100)]
    assert split_into_folds(frames, 3, blocks=True).folds == (("t1", "t2", "t7"), ("t10", "t9"), ("t100", "t30"))
    assert split_into_folds(NAMES, 4, r"field\d", blocks=True).folds[0] == tuple(NAMES[:6])


def test_a_fold_validates_and_the_others_train() -> None:
    assigned = Folds((("a", "b"), ("c",), ("d", "e")))
    assert assigned.splits(1) == {"train": ["c", "d", "e"], "val": ["a", "b"]}
    assert assigned.splits(2, ["t"]) == {"train": ["a", "b", "d", "e"], "val": ["c"], "test": ["t"]}


@pytest.mark.parametrize(
    ("count", "group_by", "message"),
    [
        (19, None, "--folds 19: there are 18 images, and each fold needs one"),
        (7, r"field\d", "--folds 7: there are 6 groups, and each fold needs one"),
        (2, "[", "--group-by [: not a valid regular expression (unterminated character set at position 0)"),
        (2, "plate", "--group-by plate: does not match the name 'field0_t0'; every image needs a group"),
    ],
)
def test_what_cannot_be_split_is_said(count: int, group_by: str | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        split_into_folds(NAMES, count, group_by)
    assert str(caught.value) == message


def test_a_file_of_folds_comes_back(tmp_path: Path) -> None:
    assigned = split_into_folds(NAMES, 4, r"field(\d+)", seed=3, blocks=True)
    assigned.write(tmp_path / "folds.json")
    assert folds.read(tmp_path / "folds.json") == assigned


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"folds": 3, "group_by": null, "seed": 0}'),
        '{"folds": [["a"], ["b"], []], "group_by": null, "seed": 0}',
        '{"folds": [["a"], ["b", "a"]], "group_by": null, "seed": 0}',
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text)
    with pytest.raises(UserError, match="no folds as 'crossval' writes them"):
        folds.read(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file; give a number of folds, or a file that 'crossval' wrote"):
        folds.read(path)


class Squares:
    maps = ("instances",)
    normalization = None

    def __init__(self) -> None:
        self.splits = {"train": ["a", "b"], "val": ["c"], "test": ["t"]}

    def shape(self, name: str) -> tuple[int, int, int]:
        return (1, 8, 8)

    def read(self, name: str) -> str:
        return f"sample {name}"


def test_a_data_set_takes_the_splits_of_a_fold_and_keeps_its_test_images(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    Folds((("a", "c"), ("b",))).write(path)
    found = FoldDataset(Squares(), path, 1)
    assert found.splits == {"train": ["b"], "val": ["a", "c"], "test": ["t"]}
    assert (found.maps, found.shape("a"), found.read("a")) == (("instances",), (1, 8, 8), "sample a")
    with pytest.raises(UserError) as caught:
        FoldDataset(Squares(), path, 3)
    assert str(caught.value) == f"[validation] fold: is 3, but '{path}' has 2"


def test_folds_of_other_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": [["a"], ["b", "x"]], "group_by": None, "seed": 0}))
    with pytest.raises(UserError) as caught:
        FoldDataset(Squares(), path, 1)
    assert str(caught.value) == f"[validation] folds: '{path}' is of other images: 'c' is in one of the two alone"


def test_a_dim_channel_tells_images_apart_whose_bright_one_is_alike() -> None:
    source = torch.Generator().manual_seed(0)
    haze, *cells = (torch.rand(1, 96, 80, generator=source) for _ in range(3))
    images = {name: torch.cat([20000 + 5000 * haze, channel]) for name, channel in zip(("a", "b"), cells, strict=True)}
    thumbnails = {name: folds.thumbnail(image) for name, image in images.items()}
    assert not folds.near_duplicates(thumbnails, Folds((("a",), ("b",))))


def test_look_alikes_in_different_folds_are_named() -> None:
    source = torch.Generator().manual_seed(0)
    one, other = torch.rand(1, 96, 80, generator=source), torch.rand(1, 96, 80, generator=source)
    images = {
        "one": one,
        "other": other,
        "brighter": 3 * one + 5,
        "noisy": one + 0.005 * torch.rand(1, 96, 80, generator=source),
        "flat": torch.full((1, 96, 80), 7.0),
        "also flat": torch.full((1, 50, 50), 7.0),
    }
    thumbnails = {name: folds.thumbnail(image) for name, image in images.items()}
    found = folds.near_duplicates(thumbnails, Folds((("one", "other", "flat"), ("brighter", "noisy", "also flat"))))
    assert {(a, b) for a, b, _ in found} == {("one", "brighter"), ("one", "noisy")}
    assert all(r > 0.99 for *_, r in found)
    assert not folds.near_duplicates(thumbnails, Folds((("one", "brighter", "noisy"), ("other", "flat", "also flat"))))


def test_the_most_alike_of_others_is_found_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(0)
    others = {f"other_{index}": torch.from_numpy(source.random((1, 40, 50))) for index in range(7)}
    names = {f"one_{index}": others[f"other_{index}"] + 0.01 * index for index in (5, 0, 3)}
    new = {"new": torch.from_numpy(source.random((1, 40, 50)))}
    thumbnails = {name: folds.thumbnail(image) for name, image in {**others, **names, **new}.items()}
    monkeypatch.setattr(folds, "AT_ONCE", 2)
    found = folds.most_similar(thumbnails, [*names, "new"], list(others))
    assert [(one, other) for one, other, _ in found] == [(f"one_{i}", f"other_{i}") for i in (5, 0, 3)]
    assert [r for *_, r in found] == pytest.approx([1, 1, 1])
    assert folds.most_similar(thumbnails, ["new"], []) == []
