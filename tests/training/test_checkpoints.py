"""Checkpoints: whole, plain, and honest about what fitted."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from yeastexp.errors import UserError
from yeastexp.training import checkpoints, initial_weights
from yeastexp.training.progress import Best

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
    with pytest.raises(UserError, match=f"{path}: (no such|damaged|holds more than)"):
        checkpoints.load(path)


def test_a_turned_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.randn(50, 3)}, "step": 7, "best": {"value": 0.25}, "rows": [{"loss": 0.5}]}
    path = tmp_path / "a.pt"
    checkpoints.save(path, state)
    whole = path.read_bytes()
    found = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            loaded = checkpoints.load(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            found += 1
        else:
            assert checkpoints.first_difference(loaded, state) is None
    assert found > 100


def test_equal_states_make_equal_bytes(tmp_path: Path) -> None:
    """Whether strings are one object or equal ones, and whether it was loaded before."""
    weight = torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last)
    state = {
        "state": {0: {"exp_avg": weight, "step": 3}, 1: {"exp_avg": weight.clone(), "step": 3}},
        "names": ("a", 1.5),
    }
    checkpoints.save(tmp_path / "one.pt", state)
    checkpoints.save(tmp_path / "two.pt", checkpoints.load(tmp_path / "one.pt"))
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    monkeypatch.setattr(checkpoints, "FORMAT", 9)
    checkpoints.save(path, {"step": 1})
    monkeypatch.undo()
    with pytest.raises(UserError) as caught:
        checkpoints.load(path)
    message = f"{path}: has format 9, of another version of yeastexp; this one reads format 4"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"a": {"b": torch.tensor([1.0, 2.0])}, "c": [1, 2.5]}, None),
        ({"a": {"b": torch.tensor([1.0, 2.25])}, "c": [1, 2.5]}, "a.b: 1 of 2 numbers differ, by up to 0.25"),
        ({"a": {"b": torch.tensor([1.0, 2.0, 3.0])}, "c": [1, 2.5]}, "a.b: (2,) torch.float32 and (3,) torch.float32"),
        ({"a": {"b": torch.tensor([1.0, 2.0])}, "c": [1, 3.0]}, "c.1: 2.5 and 3.0"),
        ({"a": {"b": torch.tensor([1.0, 2.0])}, "c": [1]}, "c.1 is in one of them alone"),
        ({"a": {"b": torch.tensor([1.0, 2.0])}, "c": [1, 2.5], "d": 0}, "d is in one of them alone"),
    ],
)
def test_the_first_difference_is_named(other: dict[str, object], difference: str | None) -> None:
    one = {"a": {"b": torch.tensor([1.0, 2.0])}, "c": [1, 2.5]}
    assert checkpoints.first_difference(one, other) == difference


def test_nan_equals_itself_and_minus_zero_is_not_zero() -> None:
    nan = {"a": torch.tensor([NAN]), "b": NAN}
    assert checkpoints.first_difference(nan, nan) is None
    assert checkpoints.first_difference({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])}) is not None


def test_two_good_checkpoints_are_there_whenever_a_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every rename and every write fail in turn."""
    for step in range(3):
        checkpoints.save_next(tmp_path, {"step": step})
    replace = Path.replace
    for failing in range(3):
        calls = []

        def fails(self: Path, target: Path, failing: int = failing, calls: list[Path] = calls) -> Path:
            calls.append(target)
            if len(calls) == failing + 1:
                raise OSError("no")
            return replace(self, target)

        with monkeypatch.context() as patched, pytest.raises(OSError, match="no"):
            patched.setattr(Path, "replace", fails)
            checkpoints.save_next(tmp_path, {"step": 3 + failing})
        steps = {checkpoints.load(path)["step"] for path in tmp_path.glob("*.pt")}
        assert len(steps) >= 2 and min(steps) >= 1
        found = checkpoints.newest(tmp_path, print)
        assert found is not None and found["step"] == (2 if failing == 0 else 3 + failing)


def test_initial_weights_fit_by_name_and_shape(tmp_path: Path) -> None:
    old = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1))
    checkpoints.save(tmp_path / "checkpoints" / "best.pt", {"model": old.state_dict()})
    new = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 1))
    (line,) = initial_weights.start_from(new, tmp_path / "checkpoints" / "best.pt").told
    assert line == f"initial weights from '{tmp_path}': 2 of 4 tensors; at random: 1.bias, 1.weight"
    assert torch.equal(new[0].weight, old[0].weight)
    old, new = (nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)) for width in (2, 3))
    checkpoints.save(tmp_path / "checkpoints" / "best.pt", {"model": old.state_dict()})
    with pytest.raises(UserError, match="no kernel of"):  # but the counter of the batch norm
        initial_weights.start_from(new, tmp_path / "checkpoints" / "best.pt")
    with pytest.raises(UserError, match=r"no kernel of .* fits this model; name a run of a similar model, or 'random'"):
        initial_weights.start_from(nn.Linear(3, 3), tmp_path / "checkpoints" / "best.pt")
