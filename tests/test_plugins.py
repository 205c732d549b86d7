"""A study's own parts: files named in an experiment, and what installed packages offer."""

from __future__ import annotations

import importlib
import importlib.metadata
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import yeastexp
from yeastexp import plugins
from yeastexp.config.loading import PARTS
from yeastexp.errors import UserError

assert PARTS, "registered before any plugin is loaded, as whatever reads an experiment does"

INVERT = Path(__file__).parent.parent / "experiments" / "my_transforms.py"
LOSS = """\
from yeastexp import loss

@loss({name!r})
def made(classes: int, weight: float = {weight}):
    \"\"\"A loss of a test.\"\"\"
    return lambda logits, labels: weight
"""


def write(path: Path, name: str = "mine", weight: float = 1.0) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(LOSS.format(name=name, weight=weight))
    return path


def test_the_eight_lines_of_the_readme() -> None:
    plugins.load([INVERT])
    invert = yeastexp.transform["invert"]()
    assert len(INVERT.read_text().splitlines()) == 8
    assert torch.equal(invert.image(torch.ones(1, 2, 2), None), -torch.ones(1, 2, 2))
    assert yeastexp.transform.find("invert").plugin == INVERT


def test_only_the_parts_of_the_files_that_are_named_are_there(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.py", "one"), write(tmp_path / "two.py", "two")
    plugins.load([one, two])
    assert {"one", "two"} <= set(yeastexp.loss) and plugins.active() == (one, two)
    plugins.load([two])
    assert "one" not in yeastexp.loss and "two" in yeastexp.loss
    plugins.load([one])
    assert "one" in yeastexp.loss and "two" not in yeastexp.loss
    plugins.deactivate()
    assert not {"one", "two"} & set(yeastexp.loss) and plugins.active() == ()


def test_an_edited_plugin_is_loaded_anew_and_the_old_text_comes_back(tmp_path: Path) -> None:
    # The same length within the same second: bytecode kept on disk could not tell them apart.
    for weight in (1.0, 2.0, 1.0):
        plugins.load([write(tmp_path / "mine.py", weight=weight)])
        assert yeastexp.loss["mine"](2)(None, None) == weight


def test_nothing_is_written_beside_a_plugin(tmp_path: Path) -> None:
    plugins.load([write(tmp_path / "mine.py")])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_part_unpickles_from_the_copy_in_a_run(tmp_path: Path) -> None:
    original = tmp_path / INVERT.name
    original.write_text(f"{INVERT.read_text()}# {tmp_path}\n")  # a text that no other test has loaded
    with plugins.preserved():
        plugins.load([original])
        pickled = pickle.dumps(yeastexp.transform["invert"]())
    (tmp_path / "plugins").mkdir()
    plugins.load([Path(shutil.copy(original, tmp_path / "plugins"))])
    assert pickle.loads(pickled) == yeastexp.transform["invert"]()


# Putting back what was loaded


def test_what_was_registered_and_loaded_is_put_back(tmp_path: Path) -> None:
    before, during = write(tmp_path / "before.py", "before"), write(tmp_path / "during.py", "during")
    plugins.load([before])
    modules, known = set(sys.modules), list(yeastexp.loss)
    with pytest.raises(RuntimeError, match="half way"), plugins.preserved():
        plugins.load([during])
        yeastexp.loss("local")(lambda classes: None)
        assert {"during", "local"} <= set(yeastexp.loss) and "before" not in yeastexp.loss
        raise RuntimeError("half way")
    assert list(yeastexp.loss) == known and plugins.active() == (before,)
    assert set(sys.modules) == modules, "the plugin is loaded anew when it is named again"
    plugins.load([during])
    assert "during" in yeastexp.loss


def test_the_parts_of_a_module_that_is_imported_meanwhile_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "imported_by_test_once.py", "once")
    monkeypatch.syspath_prepend(tmp_path)
    with plugins.preserved():
        importlib.import_module("imported_by_test_once")
    assert "once" in yeastexp.loss, "a second import registers nothing"
    with plugins.preserved():
        importlib.import_module("imported_by_test_once")
        yeastexp.loss("more")(sys.modules["imported_by_test_once"].made)
    assert "once" in yeastexp.loss and "more" not in yeastexp.loss
    del sys.modules["imported_by_test_once"]


FAULTS = {
    "def f(:\n  pass\n": "1:7: invalid syntax",
    "x = 1\ny = (\n": "2:5: '(' was never closed",
    "x = 1\nimport no_such_module_at_all\n": "2: ModuleNotFoundError: No module named 'no_such_module_at_all'",
    "def f():\n    return 1 / 0\n\nf()\n": "2: ZeroDivisionError: division by zero",
    "import sys\nsys.exit('no')\n": "2: SystemExit: no",
    "x = 1\nraise MemoryError\n": "2: MemoryError",
    "raise ValueError('one\\n  two')\n": "1: ValueError: one two",
    "raise BaseException('odd')\n": "1: BaseException: odd",
    "raise GeneratorExit\n": "1: GeneratorExit",
    "class Mute(Exception):\n    def __str__(self): raise self\nraise Mute\n": "3: Mute: <exception str() failed>",
    "from yeastexp import loss\nloss(3)\n": "2: TypeError: @loss needs a name, as in @loss('mine')",
    "from yeastexp import loss\n\n@loss\ndef mine(classes): ...\n": "3: @loss needs a name, as in @loss('mine')",
    "from yeastexp import loss\n\n@loss('x')\ndef mine(classes, y: type(loss) = 1): ...\n": (
        "3: loss 'x' has a hint that no TOML value fits: "
        "Unable to generate pydantic-core schema for <class 'yeastexp.registry.Registry'>"
    ),
    "from yeastexp import loss\nfrom typing import *\n@loss('x')\ndef mine(classes, y: Callable = 1): ...\n": (
        "3: loss 'x' has a hint that no TOML value fits: Cannot generate a JsonSchema for core_schema.CallableSchema"
    ),
    "from yeastexp import loss\nloss('x')(lambda classes, **k: None)\n": (
        "2: loss 'x' takes *k; name every option, so that a misspelt one is found"
    ),
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.items())
def test_a_broken_plugin_names_its_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    modules = set(sys.modules)
    with pytest.raises(UserError) as error:
        plugins.load([path])
    assert str(error.value) == f"{path}:{fault}"
    assert plugins.active() == () and not {name for name in set(sys.modules) - modules if "plugin" in name}


SEVERAL = """\
from yeastexp import loss, metric, model

@loss("sound")
def sound(classes: int, weight: float = 1.0): ...

@loss("none_given")
def none_given(): ...

@model("unhinted")
def unhinted(channels, outputs, width=3): ...

@metric
def nameless(classes): ...

@loss("late")
def late(classes): ...
"""


def test_a_fault_in_one_part_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SEVERAL)
    faults = (
        f"{path}:6: loss 'none_given' takes 0 of the 1 arguments that are given by position; "
        "it is called as f(classes, **table)",
        f"{path}:9: model 'unhinted' option 'width' has no type hint; the hint is the schema of the TOML key, and it "
        "is called as f(channels, outputs, **table)",
        f"{path}:12: @metric needs a name, as in @metric('mine')",
    )
    with pytest.raises(UserError) as error:
        plugins.load([path])
    assert error.value.faults == faults and "sound" not in yeastexp.loss
    for _ in range(2):
        plugins.load([])
        assert plugins.add(path) == faults and {"sound", "late"} <= set(yeastexp.loss)
    plugins.load([])
    assert not {"sound", "late"} & set(yeastexp.loss)


def test_a_taken_name_leaves_the_other_parts_of_a_file_that_was_loaded_before(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.py"), write(tmp_path / "two.py", weight=2.0)
    two.write_text(f"{two.read_text()}\n@loss('other')\ndef other(classes): ...\n")
    plugins.load([two])
    plugins.load([one])
    assert plugins.add(two) == (f"{two}:3: loss 'mine' is taken by {one}:3; choose another name",)
    assert {"mine", "other"} <= set(yeastexp.loss) and yeastexp.loss["mine"](2)(None, None) == 1.0


def test_a_plugin_with_null_bytes_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = 1\0")
    with pytest.raises(UserError, match=rf"^{path}:\d+"):
        plugins.load([path])


def test_a_plugin_that_fails_half_way_registers_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py")
    path.write_text(path.read_text() + "\nraise RuntimeError('late')\n")
    with pytest.raises(UserError, match=r"mine\.py:8: RuntimeError: late$"):
        plugins.load([path])
    assert "mine" not in yeastexp.loss


def test_an_interruption_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        plugins.load([path])


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("mine.txt", "not a Python file; a plugin ends in .py"),
        ("folder.py", "cannot be read (Is a directory)"),
        ("none.py", "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_no_plugin(tmp_path: Path, name: str, fault: str) -> None:
    (tmp_path / "mine.txt").write_text("x = 1")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UserError) as error:
        plugins.load([tmp_path / name])
    assert str(error.value) == f"{tmp_path / name}: {fault}"


@pytest.mark.parametrize("loaded_before", [False, True])
def test_a_taken_name_is_found_also_where_both_were_loaded_before(tmp_path: Path, loaded_before: bool) -> None:
    one, two = write(tmp_path / "one.py"), write(tmp_path / "two.py", weight=2.0)
    if loaded_before:
        plugins.load([one])
        plugins.load([two])
    with pytest.raises(UserError) as error:
        plugins.load([one, two])
    assert str(error.value) == f"{two}:3: loss 'mine' is taken by {one}:3; choose another name"
    plugins.load([one])
    assert yeastexp.loss["mine"](2)(None, None) == 1.0


def test_a_name_of_the_package_is_taken(tmp_path: Path) -> None:
    builtin = yeastexp.loss.find("cross_entropy")
    path = write(tmp_path / "mine.py", "cross_entropy")
    with pytest.raises(UserError) as error:
        plugins.load([path])
    assert str(error.value) == f"{path}:3: loss 'cross_entropy' is taken by {builtin.place}; choose another name"
    assert yeastexp.loss.find("cross_entropy") is builtin


# Installed packages


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder of modules that installed packages offer: `good`, `raising`, `absent`, `exiting`, `taking`."""
    for name, text in {
        "good": LOSS.format(name="installed", weight=3.0),
        "raising": "raise RuntimeError('broken')",
        "exiting": "raise SystemExit(3)",
        "taking": LOSS.format(name="cross_entropy", weight=3.0) + LOSS.format(name="beside", weight=4.0),
    }.items():
        (tmp_path / f"offered_by_test_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint(name, f"offered_by_test_{name}", "yeastexp.plugins")
        for name in ("raising", "absent", "exiting", "taking", "good")
    ]

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        return points if group == "yeastexp.plugins" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    plugins.load_installed.cache_clear()
    yield tmp_path
    plugins.load_installed.cache_clear()
    for name in [name for name in sys.modules if name.startswith("offered_by_test_")]:
        del sys.modules[name]


def test_a_broken_installed_plugin_warns_and_blocks_nothing(installed: Path) -> None:
    taken = yeastexp.loss.find("cross_entropy").place
    with pytest.warns(UserWarning) as caught:
        plugins.load_installed()
    assert [str(one.message).split(": ", 1) for one in caught] == [
        ["plugin 'raising' (offered_by_test_raising) was left out", "RuntimeError: broken"],
        [
            "plugin 'absent' (offered_by_test_absent) was left out",
            "ModuleNotFoundError: No module named 'offered_by_test_absent'",
        ],
        ["plugin 'exiting' (offered_by_test_exiting) was left out", "SystemExit: 3"],
        [
            "a part of plugin 'taking' (offered_by_test_taking) was left out",
            f"{installed}/offered_by_test_taking.py:3: loss 'cross_entropy' is taken by {taken}; choose another name",
        ],
    ]
    assert yeastexp.loss["installed"](2)(None, None) == 3.0
    assert yeastexp.loss["beside"](2)(None, None) == 4.0, "only the part that has a fault is left out"


def test_installed_parts_stay_when_plugin_files_change(installed: Path) -> None:
    with pytest.warns(UserWarning):
        plugins.load_installed()
    plugins.load([write(installed / "mine.py")])
    plugins.load([])
    assert "installed" in yeastexp.loss and "mine" not in yeastexp.loss
    plugins.load_installed()  # once a process is enough: it warns no more
