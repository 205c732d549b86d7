"""What a cross-validation leaves: scores read back as they were, and what is not finished or damaged refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from yeastexp.errors import UserError
from yeastexp.evaluation import out_of_fold

RESULT = {"images": ["a", "b"], "seeds": [3, 4], "notes": ["leaks"], "scores": {}}
HEADER = "image,seed,metric,class,score\n"


def write(folder: Path) -> Path:
    folds = {"folds": [["a"], ["b"]], "group_by": None, "seed": 0}
    (folder / "folds.json").write_text(json.dumps(folds))
    (folder / "crossval.json").write_text(json.dumps(RESULT))
    rows = ["image,seed,metric,class,score", "a,3,iou,cell,0.25", "a,4,iou,cell,", "b,3,iou,cell,", "b,4,iou,cell,0.75"]
    (folder / "per_image.csv").write_text("\n".join(rows))
    return folder


def test_scores_are_read_by_seed_and_image(tmp_path: Path) -> None:
    assert not out_of_fold.is_crossval(tmp_path)
    found = out_of_fold.read(write(tmp_path))
    assert out_of_fold.is_crossval(tmp_path)
    assert (found.names, found.seeds, found.notes, found.folds.folds) == (
        ["a", "b"],
        [3, 4],
        ["leaks"],
        (("a",), ("b",)),
    )
    np.testing.assert_array_equal(found.scores["iou", "cell"], [[0.25, math.nan], [math.nan, 0.75]])
    assert out_of_fold.means(found.scores["iou", "cell"], 0) == [0.25, 0.75]
    assert out_of_fold.deviation([0.25, 0.75, math.nan]) == pytest.approx(0.5 / math.sqrt(2))


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("crossval.json", "{", "crossval.json: is damaged (no JSON: "),
        ("crossval.json", "[]", "crossval.json: is damaged (Input should be a valid dictionary); the same 'crossval'"),
        ("per_image.csv", "image,seed\na,3", "per_image.csv: is damaged (no column 'metric'); the same 'crossval'"),
        ("per_image.csv", f"{HEADER}a,3,iou,cell,much", "per_image.csv: is damaged ('much' is no number)"),
        ("per_image.csv", f"{HEADER}x,3,iou,cell,1", "(image 'x' with seed 3 is not of this cross-validation)"),
        (
            "per_image.csv",
            f"{HEADER}a,3,iou,cell,1\nb,4,iou,cell,",
            "(lacks 2 rows of 'iou', 'cell'); the same 'crossval'",
        ),
        ("folds.json", "{}", "no folds as 'crossval' writes them"),
    ],
)
def test_damage_is_said(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (write(tmp_path) / name).write_text(text)
    with pytest.raises(UserError) as caught:
        out_of_fold.read(tmp_path)
    assert fault in str(caught.value)
