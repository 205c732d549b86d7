"""An evaluation's files: whole, read back, and replaced as one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from test_measure import CLASSES, measured, scene

from yeastexp.evaluation import record
from yeastexp.evaluation.record import Evaluation
from yeastexp.system import files


def written(folder: Path, **changes: Any) -> Evaluation:
    truth, answer = scene()
    found = measured({"a": truth}, {"a": answer})
    plain: dict[str, Any] = dict.fromkeys(Evaluation.__dataclass_fields__)
    plain |= {"checkpoint": "best", "step": 3, "checkpoint_digest": "0", "data": "data", "own_data": True}
    plain |= {
        "classes": list(CLASSES),
        "boundary_tolerance_px": 2.0,
        "summary": found.summary,
        "worst": {},
        "approximate": [],
        "maps": {},
    }
    plain |= {
        "baselines": {"threshold": found.summary},
        "confusion": [[1]],
        "cells": {},
        "notes": [],
        "environment": {},
    }
    plain |= {"images": found.images, "per_image": found.per_image, "split": "val", **changes}
    record.write(folder, Evaluation(**plain), found)
    return Evaluation(**plain)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations" / "a"
    assert record.read(folder) is None
    assert written(folder) == record.read(folder)
    with (folder / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert rows[0]["regions_true"] == "" and rows[1]["regions_true"] == "2"
    (folder / "evaluation.json").write_text('{"another": "version"}')
    assert record.read(folder) is None
    damages: list[dict[str, Any]] = [
        {"summary": {"iou": {"cell": {"per_image": 1}}}},
        {"images": {}},
        {"cells": [3]},
        {"step": "3"},
    ]
    for damage in damages:
        written(folder, **damage)
        assert record.read(folder) is None, damage


def test_an_evaluation_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    written(folder)
    (folder / "from_before.txt").write_text("")
    written(folder, split="test")
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "evaluation.json", "per_image.csv"}
    found = record.read(folder)
    assert found is not None and found.split == "test"


def test_one_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    written(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("yeastexp.system.files.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        written(folder, split="test")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_later_of_two_processes_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process puts its evaluation there between this one's two renames."""
    folder, others = tmp_path / "a", [tmp_path / "other"]
    written(others[0], split="test")
    rename = Path.replace

    def late(path: Path, target: Path) -> Path:
        if path.name == "new" and others:
            rename(others.pop(), folder)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", late)
    with files.replacing(folder) as temporary:
        (temporary / "own.txt").write_text("")
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "own.txt"}
