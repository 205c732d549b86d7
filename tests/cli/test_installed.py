"""Commands that installed packages add by the entry-point group `yeastexp.commands`."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from conftest import Call

from yeastexp.cli import commands
from yeastexp.cli.installed import GROUP
from yeastexp.errors import INPUT_WRONG, RUN_FAILED

MODULES = {
    "count": """\
import click

@click.command()
@click.argument("words", nargs=-1)
def count(words):
    \"\"\"Count WORDS.\"\"\"
    click.echo(len(words))

def built():
    return count

def number():
    return 3
""",
    "failing": "raise RuntimeError('one\\n  two')\n",
    "exiting": "raise SystemExit(3)\n",
    "refusing": "from yeastexp.errors import UserError\nraise UserError('needs a licence', 'and a key')\n",
    "using": "import click\nfrom yeastexp.errors import UserError\n"
    "@click.command()\ndef count():\n    raise UserError('no such plate')\n",
}

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """`install(count="count:count")` lets a package offer a command; its modules begin with `added_by_test_`."""
    for name, text in MODULES.items():
        (tmp_path / f"added_by_test_{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"added_by_test_{name}", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def offer(*points: tuple[str, str], **more: str) -> None:
        offered = [
            importlib.metadata.EntryPoint(name, f"added_by_test_{value}", GROUP)
            for name, value in (*points, *more.items())
        ]

        def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
            return offered if group == GROUP else []

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)

    return offer


@pytest.mark.parametrize("attribute", ["count", "built"])
def test_a_command_and_a_function_that_returns_one(attribute: str, install: Install, call: Call) -> None:
    install(count=f"count:{attribute}")
    assert call("count", "a", "b") == (0, "2\n", "")
    status, out, err = call("count", "--help")
    assert (status, err) == (0, "") and "yeastexp count [OPTIONS] [WORDS]...\n\n  Count WORDS.\n" in out


def test_help_lists_a_command_without_importing_it(install: Install, call: Call) -> None:
    install(tally="count:count", broken="failing:count")
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    assert "\n  tally      Added by added_by_test_count.\n" in out and "\n  broken     Added by" in out
    assert "\n  run        Train and evaluate an experiment.\n" in out
    assert not any(name.startswith("added_by_test_") for name in sys.modules)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("failing:count", "RuntimeError: one two"),
        ("exiting:count", "SystemExit: 3"),
        ("refusing:count", "needs a licence and a key"),
        ("absent:count", "ModuleNotFoundError: No module named 'added_by_test_absent'"),
        ("count:nothing", "AttributeError: module 'added_by_test_count' has no attribute 'nothing'"),
        ("count:number", "TypeError: int is not a click command"),
    ],
)
def test_a_broken_command_is_one_line_and_the_others_work(value: str, fault: str, install: Install, call: Call) -> None:
    install(broken=value, tally="count:count")
    message = f"command 'broken' (added_by_test_{value}) cannot be loaded: {fault}\n"
    assert call("broken", "a") == (RUN_FAILED, "", message)
    assert call("tally", "a") == (0, "1\n", "")
    assert call("list", "dataset")[0] == 0


def test_a_taken_name_warns_and_stays_what_it_was(install: Install, call: Call) -> None:
    install(("list", "count:count"), ("tally", "count:count"), ("tally", "failing:count"))
    with pytest.warns(UserWarning, match="is ignored: the name is taken") as caught:
        assert commands.list_commands(click.Context(commands)) == sorted([*commands.commands, "tally"])
    assert [str(warning.message).partition(" is ignored")[0] for warning in caught] == [
        "command 'list' (added_by_test_count:count)",
        "command 'tally' (added_by_test_failing:count)",
    ]
    status, out, _ = call("list", "dataset")
    assert status == 0 and "synthetic_yeast" in out


def test_errors_of_a_command_are_those_of_the_package(install: Install, call: Call) -> None:
    install(plate="using:count")
    assert call("plate") == (INPUT_WRONG, "", "no such plate\n")
    status, _, err = call("plaet")
    assert status == INPUT_WRONG and "No such command 'plaet'; did you mean 'plate'? (known: check, " in err


def test_the_studies_work_from_a_plain_checkout(tmp_path: Path) -> None:
    """Without installed metadata there are no entry points."""
    program = (
        "import importlib.metadata, sys\n"
        "importlib.metadata.entry_points = lambda **_: ()\n"
        "from yeastexp.__main__ import main\n"
        "sys.argv = ['yeastexp', 'study', 'metrics', '--help']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Which of accuracy and mean IoU is more informative?" in done.stdout
