"""CONTRIBUTING names files, definitions and layers that exist, and counts lines as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_layers import LAYERS

import yeastexp

HOME = Path(__file__).parent.parent
PAGE = (HOME / "CONTRIBUTING.md").read_text(encoding="utf-8")
PLACES = re.findall(r"^\d\. `([\w/]+\.py)`: `([\w.]+)`", PAGE, re.MULTILINE)
READING = [
    (path, int(lines)) for path, lines in re.findall(r"^\| `(yeastexp/[\w/]+\.py)` \| (\d+) \|", PAGE, re.MULTILINE)
]
TOTAL = int(re.findall(r"^\| all \| (\d+) \|", PAGE, re.MULTILINE)[0])

MOST_LINES = 1000
"""That a newcomer has to read to understand one training step."""

TOLERANCE = 0.1
"""Relative, so that not every change of a module is a change of the page."""


def test_every_file_named_exists() -> None:
    named = re.findall(r"`((?:yeastexp|tests|docs|experiments)/[\w/.]*)`", PAGE)
    assert [path for path in named if not (HOME / path).exists()] == []


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_every_place_is_defined(path: str, name: str) -> None:
    body = ast.parse((HOME / path).read_text(encoding="utf-8")).body
    for part in name.split("."):
        definitions = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert part in definitions, f"{path} defines no {name}"
        body = definitions[part].body


def test_a_sample_passes_eight_places() -> None:
    assert len(PLACES) == 8


@pytest.mark.parametrize(("path", "lines"), READING)
def test_lines_are_counted_as_they_are(path: str, lines: int) -> None:
    assert lines == pytest.approx(len((HOME / path).read_text(encoding="utf-8").splitlines()), rel=TOLERANCE)


def test_a_step_can_be_understood_from_a_thousand_lines() -> None:
    assert READING
    assert sum(lines for _, lines in READING) == TOTAL
    assert sum(len((HOME / path).read_text(encoding="utf-8").splitlines()) for path, _ in READING) <= MOST_LINES


def test_the_layers_are_those_of_the_test() -> None:
    (line,) = re.findall(r"^cli > .*$", PAGE, re.MULTILINE)
    assert line == " > ".join(names.replace(" ", ", ") for names in LAYERS)


def test_every_package_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    packages = {path.parent.name for path in Path(yeastexp.__file__).parent.glob("*/__init__.py")}
    assert sorted(rows) == sorted(packages)
