"""The page on counting cells: what it shows is what its commands print now, and the commands it recorded run."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from docs import cells, exercise
from yeastexp.cli import commands

pytestmark = pytest.mark.usefixtures("few_scenes")

PAGE = cells.DOCUMENT.read_text(encoding="utf-8")
BLOCKS = list(exercise.BLOCK.finditer(PAGE))
RECORDED = [
    line[2:] for block in BLOCKS if block["recorded"] for line in block["content"].splitlines() if line[:2] == "$ "
]
SHORT = ["--set", "train.steps=2", "--set", "runtime.threads=1", "--set", "model.width=2"]

LARGEST_PICTURE = 200_000
"""Bytes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands have been run."""
    return tmp_path_factory.mktemp("cells").resolve()


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """The page with what its commands print now, without those that are recorded."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in exercise.TERMINAL.items():
            patch.setenv(name, value)
        return exercise.rerun(PAGE, folder, recorded=False)


def test_every_output_is_what_the_command_prints_now(page: str, folder: Path) -> None:
    assert page == PAGE
    assert exercise.stamped(PAGE, folder, cells.EXPERIMENT) == PAGE, "its options changed; run python -m docs.cells"


def test_the_recorded_commands_run(page: str, folder: Path) -> None:
    names = []
    with contextlib.chdir(folder):
        for line in RECORDED:
            words = shlex.split(line)
            if words[0] == "head":
                assert Path(words[-1]).is_file()
                continue
            names.append(words[3])
            more = {"run": SHORT, "check": ["--set", "train.steps=2"]}.get(words[3], [])
            words = [word for word in words if word not in ("--set", "train.steps=1500", "--data")]
            commands(words[3:] + more, standalone_mode=False)
        assert (folder / cells.OVERLAY).is_file() and (folder / "runs/mine/001/report.html").is_file()
    assert names == ["check", "run", "predict", "evaluate", "report"]


def test_what_it_shows_is_small_and_there() -> None:
    pictures = re.findall(r"!\[[^]]*\]\((cells/[^)]+)\)", PAGE)
    assert [f"cells/{path.name}" for path in sorted(cells.PICTURES.iterdir())] == sorted(pictures)
    assert all((exercise.HERE / name).stat().st_size <= LARGEST_PICTURE for name in pictures)
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", exercise.BLOCK.sub("", PAGE)):
        assert (exercise.HERE / link).exists(), link
