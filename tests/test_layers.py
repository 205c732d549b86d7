"""The layers: a package imports only from packages to its right, and no module imports inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import yeastexp

LAYERS = (
    "cli",
    "report exercise",
    "evaluation inspection export",
    "prediction",
    "training",
    "config",
    "data",
    "tasks",
    "nets",
    "metrics drawing",
    "system",
)
"""From the top to the bottom; packages of one layer do not know each other. The vocabulary lies below them all."""

VOCABULARY = "sample errors registry plugins randomness contracts"
"""The files at the top of the package; they may know each other."""

ENTRANCES = ("__main__", "__init__")
"""What a person or another program calls: it may know everything, and import late."""

LATE = ("cli", *ENTRANCES)
"""Whose functions may import, so that `--help` answers at once."""


def breaches(package: Path, layers: tuple[str, ...] = LAYERS, vocabulary: str = VOCABULARY) -> list[str]:
    """Every import of a package that its layers do not allow, a line each."""
    height = {name: index for index, names in enumerate(reversed(layers), 1) for name in names.split()}
    height |= dict.fromkeys(vocabulary.split(), 0) | dict.fromkeys(ENTRANCES, len(layers) + 1)
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        member = parts[0].removesuffix(".py")
        where = f"{package.name}/{path.relative_to(package)}"
        if member not in height:
            found.append(f"{where}: no layer of {Path(__file__).name} names '{member}'")
            continue
        for line, target, late in imports(ast.parse(path.read_text(encoding="utf-8")), package.name):
            allowed = target == member or height.get(target, 0) < height[member] or height[member] == 0
            if target.startswith("."):
                found.append(f"{where}:{line}: relative import; write the whole name")
            elif target not in height:
                found.append(f"{where}:{line}: no layer of {Path(__file__).name} names '{target}'")
            elif not allowed or (height[member] == 0 < height[target]):
                found.append(f"{where}:{line}: '{member}' imports from '{target}', which is not to its right")
            if late and member not in LATE:
                found.append(f"{where}:{line}: imports inside a function")
    return found


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str, bool]]:
    """Line, package or file at the top, and whether it is inside a function, of every import of own modules."""
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


def test_every_import_goes_to_the_right() -> None:
    found = breaches(Path(yeastexp.__file__).parent)
    assert not found, "\n".join(found)


def test_the_top_level_is_fifteen_packages_and_eight_files_at_most() -> None:
    top = Path(yeastexp.__file__).parent
    packages = sorted(path.parent.name for path in top.glob("*/__init__.py"))
    assert len(packages) <= 15 and len(list(top.glob("*.py"))) <= 8
    assert set(packages) <= {name for names in LAYERS for name in names.split()}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package that keeps its layers."""
    files = {
        "__init__.py": "",
        "words.py": "import json\nfrom package import errors\n",
        "errors.py": "",
        "low/__init__.py": "from package.words import json\n",
        "high/__init__.py": "from package.high import one, two\n",
        "high/one.py": "from package.low import json\nimport package.errors\n",
        "high/two.py": "from package.high.one import json\nfrom package import low, words\n",
        "beside/__init__.py": "",
        "__main__.py": "def main():\n    from package.high import one\n    import package.low\n",
    }
    for name, text in files.items():
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text(text)
    return tmp_path / "package"


SMALL = ("high beside", "low"), "words errors"


def test_a_package_in_order_has_no_breach(package: Path) -> None:
    assert breaches(package, *SMALL) == []


@pytest.mark.parametrize(
    ("file", "text", "breach"),
    [
        ("low/a.py", "import package.high.one", "low/a.py:1: 'low' imports from 'high', which is not to its right"),
        ("low/a.py", "from package import high", "low/a.py:1: 'low' imports from 'high', which is not to its right"),
        (
            "words.py",
            "\nfrom package.low import x",
            "words.py:2: 'words' imports from 'low', which is not to its right",
        ),
        (
            "high/a.py",
            "import json, package.beside as b",
            "high/a.py:1: 'high' imports from 'beside', which is not to its right",
        ),
        ("low/a.py", "import package", "low/a.py:1: 'low' imports from '__init__', which is not to its right"),
        (
            "low/a.py",
            "if TYPE_CHECKING:\n    from package.high import one",
            "low/a.py:2: 'low' imports from 'high', which is not to its right",
        ),
        ("high/two.py", "from . import one", "high/two.py:1: relative import; write the whole name"),
        ("high/two.py", "from ..low import x", "high/two.py:1: relative import; write the whole name"),
        (
            "high/two.py",
            "class A:\n  def f(self):\n    import package.low",
            "high/two.py:3: imports inside a function",
        ),
        ("high/two.py", "async def f():\n  from package.low import x", "high/two.py:2: imports inside a function"),
        ("high/two.py", "from package import attic", "high/two.py:1: no layer of test_layers.py names 'attic'"),
        ("attic.py", "", "attic.py: no layer of test_layers.py names 'attic'"),
    ],
)
def test_a_breach_is_found(package: Path, file: str, text: str, breach: str) -> None:
    (package / file).write_text(text)
    assert breaches(package, *SMALL) == [f"package/{breach}"]
