"""Checkpoints: whole, plain, and honest about what fitted."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from yeastexp import checkpoints
from yeastexp.errors import UserError
from yeastexp.progress import Best

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


def test_validations_since_the_best_are_counted_and_travel() -> None:
    best = Best(higher_is_better=True)
    counted = []
    for step, value in enumerate([NAN, 0.5, 0.4, NAN, 0.5, 0.6]):
        best.improves(value, step)
        counted.append(best.validations_since)
        best = Best(**vars(best))
    assert counted == [1, 0, 1, 2, 3, 0]


def test_the_generators_of_the_device_are_state() -> None:
    found = checkpoints.generators(CPU)
    assert found["cpu"] is not None and torch.equal(found["cpu"], torch.get_rng_state()) and found["cuda"] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_generator_of_a_gpu_is_state() -> None:
    found = checkpoints.generators(torch.device("cuda"))["cuda"]
    assert found is not None
    drawn = torch.rand(3, device="cuda")
    torch.cuda.set_rng_state(found)
    assert torch.equal(torch.rand(3, device="cuda"), drawn)


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.arange(3.0)}, "step": 7, "best": {"value": None}, "figures": [{"mean": 0.5}]}
    checkpoints.save(tmp_path / "a.pt", state)
    found = checkpoints.load(tmp_path / "a.pt")
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
        checkpoints.load(path)


def test_initial_weights_fit_by_name_and_shape(tmp_path: Path) -> None:
    old = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1))
    checkpoints.save(tmp_path / "checkpoints" / "best.pt", {"model": old.state_dict()})
    new = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 1))
    line = checkpoints.start_from(new, tmp_path)
    assert line == f"initial weights from {tmp_path}: 2 of 4 tensors; not fitted: 1.bias, 1.weight"
    assert torch.equal(new[0].weight, old[0].weight)
    with pytest.raises(UserError, match="none of its tensors fits"):
        checkpoints.start_from(nn.Linear(3, 3), tmp_path)
