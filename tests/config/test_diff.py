"""What differs between experiments, key by key, and between environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import EXPERIMENT, write_experiment

from yeastexp.config import diff
from yeastexp.config.loading import load_experiment


def of(folder: Path, *changes: dict[str, str]) -> diff.Rows:
    """What differs between tiny experiments with these changes."""
    loaded = []
    for index, change in enumerate(changes):
        text = EXPERIMENT
        for old, new in change.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / str(index)).mkdir()
        loaded.append(load_experiment(write_experiment(folder / str(index), text), data=False))
    found = diff.of_experiments(loaded)
    path = found.pop("dataset.path")
    assert path == [str(folder / str(index) / "data.h5") for index in range(len(changes))]
    return found


REFLECT = '[[augment]]\nname = "reflect"\n'
ROTATE = '[[augment]]\nname = "rotate90"\n'
GAMMA = '[[augment]]\nname = "gamma"\nmax_gamma = {}\n'


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [
        ({}, {}, {}),
        ({}, {"epochs = 2": "epochs = 3"}, {"train.epochs": [2, 3]}),
        ({}, {"epochs = 2": "steps = 8"}, {"train.epochs": [2, None], "train.steps": [None, 8]}),
        (
            {},
            {'name = "unet"\nwidth = 2\nlevels = 2': 'name = "fcn"\nwidth = 2'},
            {"model.name": ["unet", "fcn"]},
        ),
        ({}, {'[scheduler]\nname = "one_cycle"\n': ""}, {"scheduler.name": ["one_cycle", None]}),
        ({}, {REFLECT: ""}, {"augment.reflect": ["x = 0.5, y = 0.5", None]}),
        (
            {},
            {REFLECT: "", ROTATE: ""},
            {"augment.reflect": ["x = 0.5, y = 0.5", None], "augment.rotate90": ["p = 1.0", None]},
        ),
        ({}, {REFLECT: GAMMA.format(2.0) + REFLECT}, {"augment.gamma": [None, ...]}),
        ({}, {REFLECT: REFLECT + "x = 0.2\n"}, {"augment.reflect.x": [0.5, 0.2]}),
        ({}, {REFLECT + ROTATE: ROTATE + REFLECT}, {"augment (order)": ["reflect, rotate90", "rotate90, reflect"]}),
        (
            {REFLECT: GAMMA.format(1.5) + GAMMA.format(2.0)},
            {REFLECT: GAMMA.format(1.5) + GAMMA.format(2.5)},
            {"augment.gamma#2.max_gamma": [2.0, 2.5]},
        ),
        ({}, {'[[metric]]\nname = "accuracy"\n': ""}, {"metric.accuracy": ["yes", None]}),
    ],
)
def test_keys_that_differ(tmp_path: Path, one: dict[str, str], other: dict[str, str], rows: dict[str, Any]) -> None:
    found = of(tmp_path, one, other)
    shown = {key: values for key, values in found.items() if key.partition(".")[0] not in ("model", "scheduler")}
    shown |= {key: values for key, values in found.items() if key.endswith(".name")}
    assert list(shown) == list(rows)
    for key, values in rows.items():
        assert all(wanted is ... or value == wanted for value, wanted in zip(found[key], values, strict=True)), key


def test_the_name_of_an_experiment_is_no_difference_and_three_have_a_value_each(tmp_path: Path) -> None:
    named = {"[task]": 'name = "other"\n[task]'}
    found = of(tmp_path, {}, named, {"batch_size = 4": "batch_size = 8"})
    assert found == {"train.batch_size": [4, 4, 8]}


def test_environments() -> None:
    first = {
        "versions": {"torch": "2.1", "numpy": "2.0"},
        "device": "cpu",
        "threads": 2,
        "git": None,
        "digests": {"experiment": "a", "data": {"data.h5": "b"}},
        "seconds": 3.0,
    }
    other = {**first, "threads": 4, "digests": {"experiment": "c", "data": {"data.h5": "d"}}, "seconds": 9.0}
    third = {**first, "versions": {"torch": "2.2", "numpy": "2.0"}}
    assert diff.of_environments([first, first]) == {}
    assert diff.of_environments([first, other, third]) == {
        "threads": [2, 4, 2],
        "digests.data.data.h5": ["b", "d", "b"],
        "versions.torch": ["2.1", "2.1", "2.2"],
    }
