"""What can be named in an experiment, for people and for editors."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import tiny
from jsonschema import Draft202012Validator
from pydantic import Field

from yeastexp import plugins
from yeastexp.config import catalogue
from yeastexp.config.loading import load_experiment, load_plugins
from yeastexp.errors import UserError
from yeastexp.registry import KINDS, InputFile, Schema, loss

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

TEXT = tiny.changed({"plugins = []": 'name = "x"\nplugins = []', "learning_rate = 0.01": "betas = [0.9, 0.99]"})


def faults(text: str) -> list[str]:
    """What an editor would underline."""
    return [error.message for error in Draft202012Validator(catalogue.json_schema()).iter_errors(tomllib.loads(text))]


def changed(old: str, new: str) -> str:
    return tiny.changed({old: new}, TEXT)


def test_the_schema_is_one_and_json() -> None:
    schema = catalogue.json_schema()
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    assert catalogue.json_schema() == schema, "the same again"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.toml")), ids=lambda path: path.name)
def test_every_experiment_of_the_repository_is_valid(path: Path) -> None:
    load_plugins(path)
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("width = 2", "width = 2"),
        ("plugins = []", 'plugins = ["a.py"]'),
        ("x = 0.25", "x = 1"),
        ("epochs = 2", "steps = 2"),
        ("epochs = 2", 'budget = "1.5h"'),
        ("epochs = 2", 'budget = "5 min"'),
        ("epochs = 2", "budget = 90"),
        ("epochs = 2", "epochs = 2\n[runtime]\nthreads = 1\ndevice = 'cpu'\n[validation]\nmonitor = 'loss'"),
        ('path = "data.h5"', 'path = "data.h5"\nval = 8'),
        ('path = "data.h5"', 'path = "data.h5"\nval = ["a", "b*"]'),
        ('[scheduler]\nname = "one_cycle"', ""),
        ('[[augment]]\nname = "reflect"\nx = 0.25', ""),
        ('name = "x"', "augment2 = []".replace("augment2", "# augment")),
    ],
)
def test_a_right_file_is_valid(old: str, new: str) -> None:
    assert faults(changed(old, new)) == []


WRONG = [
    ("[scheduler]", "[schedular]"),
    ('name = "x"', "nmae = 'x'"),
    ('name = "x"', "name = 3"),
    ("plugins = []", "plugins = 'a.py'"),
    ("width = 2", "widht = 2"),
    ("width = 2", 'width = "8"'),
    ("width = 2", "width = true"),
    ("width = 2", "width = 2.5"),
    ("width = 2", "width = 0"),
    ("width = 2", 'norm = "bach"'),
    ("x = 0.25", "x = 1.5"),
    ("x = 0.25", "factor = 2"),
    ('name = "unet"', 'name = "u-net"'),
    ('name = "unet"', "name = 3"),
    ('name = "unet"', ""),
    ('name = "reflect"', 'name = "iou"'),
    ('name = "reflect"', ""),
    ("betas = [0.9, 0.99]", "betas = [0.9]"),
    ("betas = [0.9, 0.99]", "betas = [0.9, 0.9, 0.9]"),
    ("betas = [0.9, 0.99]", 'betas = [0.9, "x"]'),
    ("betas = [0.9, 0.99]", "weights = [0.9]"),
    ('path = "data.h5"', ""),
    ('path = "data.h5"', 'path = "data.h5"\nval = 0'),
    ("channels = 1", ""),
    ("channels = 1", "channels = 0"),
    ('classes = ["background", "cell"]', 'classes = ["cell"]'),
    ('classes = ["background", "cell"]', 'classes = ["background", "a cell"]'),
    ('[loss]\nname = "cross_entropy"', ""),
    ('[[metric]]\nname = "iou"', ""),
    ('[[metric]]\nname = "iou"', '[metric]\nname = "iou"'),
    ("[train]\nepochs = 2", ""),
    ("epochs = 2", ""),
    ("epochs = 2", "epochs = 2\nsteps = 3"),
    ("epochs = 2", "epochs = 0"),
    ("epochs = 2", "epoch = 2"),
    ("epochs = 2", 'budget = "5 weeks"'),
]


@pytest.mark.parametrize(("old", "new"), WRONG)
def test_a_faulty_file_is_rejected_by_the_editor_and_by_the_loader(
    old: str, new: str, experiment_file: Callable[..., Path]
) -> None:
    text = changed(old, new)
    assert faults(text)
    with pytest.raises(UserError):
        load_experiment(experiment_file(text=text))


CHILD = 'extends = "base.toml"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        'name = "y"',
        "[train]\nbatch_size = 2",
        "[train]\nsteps = 2",
        "[model]\nwidth = 8",
        '[model]\nname = "unet"',
        '[dataset]\nname = "hdf5"',
        "[task]\nchannels = 3",
        "[optimizer]\nlearning_rate = 1e-4",
        "augment = []",
        '[[metric]]\nname = "accuracy"',
    ],
)
def test_a_child_needs_no_tables(text: str) -> None:
    assert faults(CHILD + text) == []


@pytest.mark.parametrize(
    "text",
    [
        "[modle]\nwidth = 8",
        "[model]\nwidht = 8",
        '[model]\nname = "unett"',
        '[model]\nname = "unet"\nwidht = 8',
        '[model]\nname = "unet"\nwidth = "8"',
        "[train]\nepochs = 0",
        "[train]\nepochs = 1\nsteps = 1",
        "[train]\nsteps = 1\nbudget = '1m'",
        "[task]\nchannels = '1'",
        "metric = []",
        "[[augment]]\nx = 0.5",
    ],
)
def test_a_faulty_child_is_rejected(text: str) -> None:
    assert faults(CHILD + text)


def test_plugins_of_a_file_are_in_its_schema(tmp_path: Path) -> None:
    text = changed('[[augment]]\nname = "reflect"\nx = 0.25', '[[augment]]\nname = "invert"')
    assert faults(text)
    (tmp_path / "study.toml").write_text(text.replace("plugins = []", f"plugins = ['{EXPERIMENTS}/my_transforms.py']"))
    load_plugins(tmp_path / "study.toml")
    assert faults(text) == []
    plugins.deactivate()
    assert faults(text)


def test_faulty_plugins_of_a_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("plugins = ['gone.py', 'also_gone.py']\n[what]")
    with pytest.raises(UserError) as error:
        load_plugins(path)
    assert error.value.faults == (
        f"{path}:1:12: plugins: no file '{tmp_path}/gone.py'",
        f"{path}:1:23: plugins: no file '{tmp_path}/also_gone.py'",
    )


# For people


def test_all_parts_are_listed() -> None:
    found = catalogue.parts()
    assert [(part["kind"], part["name"]) for part in found] == [(kind, name) for kind in KINDS for name in KINDS[kind]]
    assert catalogue.parts("loss") == [part for part in found if part["kind"] == "loss"]
    assert all(part["summary"] for part in found)


def test_a_part_in_full() -> None:
    @loss("told")
    def told(
        classes: int,
        path: InputFile,
        power: Annotated[float, Field(gt=0, le=2, description="of p")] = 1.5,
        mode: Literal["a", "b"] | None = None,
    ) -> None:
        """First line.

        Second paragraph.
        """

    (part,) = catalogue.parts("loss", "told")
    place = part.pop("place")
    assert place.startswith(f"{__file__}:")
    assert part == {
        "kind": "loss",
        "name": "told",
        "summary": "First line.",
        "doc": "First line.\n\nSecond paragraph.",
        "given": ["classes"],
        "options": [
            {"name": "path", "type": "path", "required": True, "default": None, "description": ""},
            {"name": "power", "type": "float > 0, ≤ 2", "required": False, "default": 1.5, "description": "of p"},
            {"name": "mode", "type": "'a' | 'b'", "required": False, "default": None, "description": ""},
        ],
    }


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "int"),
        (float, "float"),
        (bool, "true | false"),
        (str, "string"),
        (Path, "path"),
        (InputFile, "path"),
        (Annotated[int, Field(ge=1, lt=8)], "int ≥ 1, < 8"),
        (Annotated[int, Field(ge=1)] | None, "int ≥ 1"),
        (Literal["one"], "'one'"),
        (tuple[float, float], "[float, float]"),
        (tuple[str, ...], "[string, …]"),
        (tuple[str, ...] | Annotated[int, Field(ge=1)] | None, "[string, …] | int ≥ 1"),
    ],
)
def test_types_in_words(hint: Any, words: str) -> None:
    def factory(option) -> None: ...  # type: ignore[no-untyped-def]

    factory.__annotations__["option"] = hint
    schema = Schema(factory).model.model_json_schema()["properties"]["option"]
    assert catalogue.shape(schema) == words


def test_unknown_kinds_and_names() -> None:
    kinds = ", ".join(sorted(KINDS))
    with pytest.raises(UserError, match=rf"^unknown kind 'modle'; did you mean 'model'\? \(known: {kinds}\)$"):
        catalogue.parts("modle")
    with pytest.raises(UserError, match=r"^unknown model 'unett'; did you mean 'unet'\? \(known: "):
        catalogue.parts("model", "unett")


def test_the_reference_is_current() -> None:
    """`python -m yeastexp list --markdown > docs/parts.md` after a change of a part."""
    written = (Path(__file__).parents[2] / "docs" / "parts.md").read_text(encoding="utf-8")
    assert written == catalogue.reference()
