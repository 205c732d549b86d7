"""Checkpoints: whole, plain, and honest about what fitted."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from yeastexp import checkpoints
from yeastexp.checkpoints import Best
from yeastexp.errors import UserError

CPU = torch.device("cpu")
NAN = float("nan")


@pytest.mark.parametrize(
    ("higher", "values", "chosen"),
    [
        (True, [0.1, 0.3, 0.2], 1),
        (False, [0.3, 0.1, 0.2], 1),
        (True, [NAN, 0.1, NAN, 0.2], 3),
        (True, [0.2, 0.2], 0),
        (True, [-1.0, 0.0], 1),
        (True, [NAN, NAN], None),
    ],
)
def test_best_is_the_first_of_the_best_and_never_nan(higher: bool, values: list[float], chosen: int | None) -> None:
    best = Best(higher)
    improved = [step for step, value in enumerate(values) if best.improves(value, step)]
    assert (improved[-1] if improved else None) == chosen
    assert best.value == (None if chosen is None else values[chosen])


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.arange(3.0)}, "step": 7, "best": {"value": None}, "figures": [{"mean": 0.5}]}
    checkpoints.save(tmp_path / "a.pt", state)
    found = checkpoints.load(tmp_path / "a.pt", CPU)
    assert torch.equal(found.pop("model")["weight"], state.pop("model")["weight"])
    assert found == state
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "code", "pickled code"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.pt"
    checkpoints.save(path, {"model": torch.zeros(100)})
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "code":
        torch.save({"model": Harmful()}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Harmful()}))
    with pytest.raises(UserError, match=f"{path}: (no such|damaged)"):
        checkpoints.load(path, CPU)


def test_initial_weights_fit_by_name_and_shape(tmp_path: Path) -> None:
    old = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1))
    checkpoints.save(tmp_path / "checkpoints" / "best.pt", {"model": old.state_dict()})
    new = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 1))
    line = checkpoints.start_from(new, tmp_path, CPU)
    assert line == f"initial weights from {tmp_path}: 2 of 4 tensors; not fitted: 1.bias, 1.weight"
    assert torch.equal(new[0].weight, old[0].weight)
    with pytest.raises(UserError, match="none of its tensors fits"):
        checkpoints.start_from(nn.Linear(3, 3), tmp_path, CPU)
