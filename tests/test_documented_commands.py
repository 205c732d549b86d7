"""Every command on the pages of docs/ is one that there is, with options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from yeastexp.cli import commands
from yeastexp.config.loading import load_experiment

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(?:torchrun .*?-m |python -m )?yeastexp (.*)$", re.MULTILINE)
DOCUMENTED = sorted(
    {
        (path.name, line.split(" | ")[0].split(" > ")[0])
        for path in DOCS.glob("*.md")
        for block in BLOCK.findall(path.read_text(encoding="utf-8"))
        for line in COMMAND.findall(block)
    }
)


def test_commands_are_found() -> None:
    assert len(DOCUMENTED) > 40 and {"export.md", "sweep.md", "scaling.md", "comparing.md"} <= {
        p for p, _ in DOCUMENTED
    }


@pytest.mark.parametrize(("page", "line"), DOCUMENTED)
def test_a_command_parses(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words == ["--version"]:
        return
    with commands.make_context("yeastexp", list(words)) as context:
        _, command, rest = commands.resolve_command(context, words)
        assert isinstance(command, click.Command)
        command.make_context(words[0], rest, parent=context)


def test_the_files_that_are_compared_differ_in_one_thing(tmp_path: Path) -> None:
    for text in re.findall(r"^```toml\n(.*?)^```$", (DOCS / "comparing.md").read_text(), re.MULTILINE | re.DOTALL):
        (tmp_path / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    plain, turned = (load_experiment(tmp_path / f"{name}.toml") for name in ("plain", "turned"))
    assert [part.name for part in turned.augmentations] == ["reflect", "rotate90"] and plain.augmentations == ()
    assert plain.model == turned.model and plain.train == turned.train
