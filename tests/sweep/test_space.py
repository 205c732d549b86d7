"""The space of a sweep: what it may hold, and what is wrong with it by line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import WriteExperiment

from yeastexp.config.loading import load_experiment
from yeastexp.errors import UserError
from yeastexp.evaluation.sweep import space
from yeastexp.evaluation.sweep.space import Choice, Range


def faults(path: Path, text: str, experiment: Path) -> list[str]:
    """What is wrong with a space of this text, without the name of its file."""
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        space.read(path, experiment)
    return [fault.removeprefix(f"{path}:") for fault in raised.value.faults]


def test_ranges_and_choices_are_read_with_quotes_or_without(tmp_path: Path, experiment_file: WriteExperiment) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        '"optimizer.learning_rate" = { low = 1e-4, high = 1e-1, log = true }\n'
        "model.width = { low = 2, high = 4 }\n"
        '"train.max_grad_norm" = { low = 1, high = 4 }\n'
        "[train]\nbatch_size = { low = 2, high = 8, step = 2 }\n"
        '[loss]\nname = { choices = ["cross_entropy", "dice"] }\n'
    )
    assert space.read(path, experiment_file()) == [
        Range("optimizer.learning_rate", 1e-4, 0.1, log=True),
        Range("model.width", 2, 4, integer=True),
        Range("train.max_grad_norm", 1, 4),  # a key of floats, whatever its ends are written as
        Range("train.batch_size", 2, 8, step=2, integer=True),
        Choice("loss.name", ("cross_entropy", "dice")),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: holds no key; add one, as "),
        ("a = 3", "1:1: a: should be a table with low and high, or with choices, got 3"),
        ("model.width = { low = 2, hgh = 4 }", "1:26: model.width hgh: unknown key; did you mean 'high'?"),
        ("model.width = { low = 2 }", "1:1: model.width: has no 'high'; a range has low and high"),
        ("model.width = { low = '2', high = 4 }", "1:17: model.width low: should be a valid"),
        ("model.width = { low = 4, high = 2 }", "1:1: model.width: low = 4 should be less than high = 2"),
        ("model.width = { low = 0, high = 2, log = true }", "1:1: model.width: low = 0 has no logarithm"),
        ("model.width = { low = 2, high = 8, step = 4 }", "1:1: model.width: step = 4 does not lead from 2 to 8"),
        ("model.width = { low = 2, high = 8, step = 0 }", "1:1: model.width: step = 0 should be greater than 0"),
        ("model.width = { low = 1, high = 8, step = 1, log = true }", "1:1: model.width: has log and step"),
        ("model.width = { low = 1, choices = [2] }", "1:1: model.width: has choices and 'low'"),
        ("model.width = { choices = [2, 2] }", "1:1: model.width: a choice stands twice"),
        ("model.width = { choices = [] }", "1:1: model.width: has no choices"),
        ("train.seed = { low = 1, high = 5 }", "1:1: train.seed: is the same in all trials: it is for --repeats"),
        ("dataset.path = { choices = ['a.h5'] }", "1:1: dataset.path: is the same in all trials: it decides which"),
        ("model.wdth = { low = 2, high = 4 }", "1:16: [model] wdth: unknown key; did you mean 'width'?"),
        ("modl.width = { low = 2, high = 4 }", "1:16: modl: unknown table or key; did you mean 'model'?"),
        ("model.width = { low = 2.5, high = 4 }", "1:17: [model] width: should be a valid integer, got 2.5"),
        ("model.width = { low = -2, high = 4 }", "1:17: [model] width: should be greater than or equal to 1, got -2"),
        ("loss.name = { choices = ['dice', 'dcie'] }", "1:15: [loss] name: unknown loss 'dcie'; did you mean 'dice'?"),
        ("model.width = { low = 2 high = 4 }", "1:"),
        (
            "'model.width' = { low = 2, high = 4 }\n[model]\nwidth = { low = 2, high = 4 }",
            "1:1: model.width: stands twice",
        ),
    ],
)
def test_what_is_wrong_is_a_line_with_its_place(
    text: str, fault: str, tmp_path: Path, experiment_file: WriteExperiment
) -> None:
    found = faults(tmp_path / "space.toml", text, experiment_file())
    assert len(found) == 1 and found[0].startswith(fault), found


def test_all_faults_are_told_at_once(tmp_path: Path, experiment_file: WriteExperiment) -> None:
    text = "optimizer.lr = { low = 1.0, high = 2.0 }\nmodel.width = { low = -1, high = 0 }\n"
    found = faults(tmp_path / "space.toml", text, experiment_file())
    assert [fault.partition(": ")[0] for fault in found] == ["1:18", "2:17", "2:27"]


def test_settings_name_parts_before_their_keys(experiment_file: WriteExperiment) -> None:
    values: dict[str, space.Value] = {
        "optimizer.momentum": 0.5,
        "optimizer.name": "sgd",
        "loss.weights": [1, 2.5],
        "loss.name": "cross_entropy",
    }
    settings = space.settings(values)
    assert settings[:2] == ['optimizer.name="sgd"', 'loss.name="cross_entropy"']
    loaded = load_experiment(experiment_file(), settings)
    assert loaded.optimizer.options["momentum"] == 0.5 and loaded.optimizer.name == "sgd"


def test_a_missing_file_is_a_line(tmp_path: Path, experiment_file: WriteExperiment) -> None:
    with pytest.raises(UserError, match=r"none\.toml: no such file; it holds a table of keys"):
        space.read(tmp_path / "none.toml", experiment_file())
