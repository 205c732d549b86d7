"""The house: a module imports only from floors below its own, and rooms on one floor do not know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import yeastexp

FLOORS = (
    {"sample", "errors", "files", "interruption", "memory", "convolutions"},
    {
        "archives",
        "failures",
        "locks",
        "workers",
        "environment",
        "background",
        "compilation",
        "document",
        "ignition",
        "images",
        "large_images",
        "pictures",
        "plots",
        "randomness",
        "receptive_field",
        "costs",
        "registry",
        "cells",
        "statistics",
        "store",
    },
    {"datasets", "transforms", "models", "losses", "optimizers", "schedulers", "metrics", "plugins"},
    {
        "experiment",
        "pack",
        "synth",
        "tiling",
        "windows",
        "piecewise",
        "baselines",
        "updates",
        "download",
        "progress",
        "profiling",
        "folds",
    },
    {"assemble", "engine", "tracking", "checkpoints", "differences", "out_of_fold"},
    {"trained", "contact_sheet", "effective", "scoring"},
    {"training", "evaluation", "masks"},
    {"execution", "preflight"},
    {
        "catalogue",
        "check",
        "evaluate",
        "fetch",
        "inspect",
        "predict",
        "preview",
        "resume",
        "run",
        "study",
        "verify",
    },
    {"compare", "crossval"},
    {"report"},
    {"__main__", "__init__"},
)
LATE = {"__main__", "__init__"}
"""The only rooms that may import inside a function."""


def breaches(package: Path, floors: tuple[set[str], ...] = FLOORS) -> list[str]:
    """Every import of a package that the house does not allow, a line each."""
    floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    found = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        where = f"{package.name}/{path.relative_to(package)}"
        if room not in floor_of:
            found.append(f"{where}: the table of floors does not name '{room}'; put it on its floor in {__name__}")
            continue
        for line, target, late in imports(ast.parse(path.read_text()), package.name):
            if target.startswith("."):
                found.append(f"{where}:{line}: relative import; write the whole name")
            elif target not in floor_of:
                found.append(f"{where}:{line}: the table of floors does not name '{target}'")
            elif target != room and floor_of[target] >= floor_of[room]:
                found.append(
                    f"{where}:{line}: '{room}' (floor {floor_of[room]}) knows '{target}' (floor {floor_of[target]})"
                )
            if late and room not in LATE:
                found.append(f"{where}:{line}: imports inside a function")
    return found


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str, bool]]:
    """Line, room and whether it is late (inside a function), of every import of the package's own modules."""
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = ["." * node.level + (node.module or "")]
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            names = [f"{package}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            head, _, rest = name.partition(".")
            if name.startswith("."):
                yield node.lineno, name, id(node) in late
            elif head == package:
                yield node.lineno, rest.partition(".")[0] or "__init__", id(node) in late


def test_every_import_goes_to_a_lower_floor() -> None:
    found = breaches(Path(yeastexp.__file__).parent)
    assert not found, "\n".join(found)


HOUSE = ({"low", "other"}, {"rooms"}, {"__main__", "__init__"})


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small package that keeps its floors."""
    files = {
        "__init__.py": "",
        "low.py": "import json\nfrom collections import abc\n",
        "other.py": "",
        "rooms/__init__.py": "from house.rooms import one, two\n",
        "rooms/one.py": "from house.low import json\nimport house.other\n",
        "rooms/two.py": "from house.rooms.one import json\nfrom house import low, other\n",
        "__main__.py": "def main():\n    from house.rooms import one\n    import house.low\n",
    }
    for name, text in files.items():
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(text)
    return tmp_path / "house"


def test_a_house_in_order_has_no_breach(house: Path) -> None:
    assert breaches(house, HOUSE) == []


@pytest.mark.parametrize(
    ("file", "text", "breach"),
    [
        ("low.py", "import house.rooms.one", "house/low.py:1: 'low' (floor 0) knows 'rooms' (floor 1)"),
        ("low.py", "from house import rooms", "house/low.py:1: 'low' (floor 0) knows 'rooms' (floor 1)"),
        ("low.py", "\nfrom house.other import x", "house/low.py:2: 'low' (floor 0) knows 'other' (floor 0)"),
        ("low.py", "import house", "house/low.py:1: 'low' (floor 0) knows '__init__' (floor 2)"),
        ("low.py", "import json, house.other as o", "house/low.py:1: 'low' (floor 0) knows 'other' (floor 0)"),
        (
            "low.py",
            "if TYPE_CHECKING:\n    from house.rooms import one",
            "house/low.py:2: 'low' (floor 0) knows 'rooms' (floor 1)",
        ),
        ("rooms/two.py", "from . import one", "house/rooms/two.py:1: relative import; write the whole name"),
        ("rooms/two.py", "from ..low import x", "house/rooms/two.py:1: relative import; write the whole name"),
        (
            "rooms/two.py",
            "class A:\n  def f(self):\n    import house.low",
            "house/rooms/two.py:3: imports inside a function",
        ),
        (
            "rooms/two.py",
            "async def f():\n  from house.rooms import one",
            "house/rooms/two.py:2: imports inside a function",
        ),
        ("rooms/two.py", "from house import attic", "house/rooms/two.py:1: the table of floors does not name 'attic'"),
        (
            "attic.py",
            "",
            f"house/attic.py: the table of floors does not name 'attic'; put it on its floor in {__name__}",
        ),
    ],
)
def test_a_breach_is_found(house: Path, file: str, text: str, breach: str) -> None:
    (house / file).write_text(text)
    assert breaches(house, HOUSE) == [breach]
