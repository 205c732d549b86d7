"""The command line: help with examples at once, lists and schemas, and the exit status of each ending."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import Call
from jsonschema import Draft202012Validator

from yeastexp.cli import commands
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.inspection import check as check_module
from yeastexp.registry import KINDS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
COMMANDS = sorted(commands.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_ends_in_an_example_that_parses(command: str, call: Call) -> None:
    text = commands.commands[command].help or ""
    last = text.strip().splitlines()[-1].strip()
    assert last.startswith(f"Example: python -m yeastexp {command}")
    words = shlex.split(last.removeprefix("Example: python -m yeastexp ").partition(" > ")[0])
    with commands.make_context("yeastexp", words, resilient_parsing=False) as context:
        name, resolved, rest = commands.resolve_command(context, words)
        assert resolved is not None and name == command
        resolved.make_context(command, rest, parent=context)
    status, out, err = call(command, "--help")
    assert (status, err) == (0, "")
    assert " ".join(last.split()) in " ".join(out.split())


def test_the_help_of_the_program_ends_in_an_example(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call("--help")
    assert status == 0
    assert "Example: python -m yeastexp run experiments/base.toml" in out
    assert (EXPERIMENTS / "base.toml").is_file()
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert "..." not in out.partition("Commands:")[2], "a summary is cut"


def test_every_option_says_what_it_is_for() -> None:
    for name, command in commands.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                plain = parameter.help or isinstance(parameter.type, click.Choice)
                assert plain, f"{name} {parameter.opts[0]} has no help"


def test_help_imports_neither_torch_nor_numpy() -> None:
    program = f"""
import sys
from yeastexp.__main__ import main
for words in [["--help"], ["--version"], []] + [[command, "--help"] for command in {COMMANDS}]:
    sys.argv = ["yeastexp", *words]
    try:
        main()
    except SystemExit:
        pass
print("imported:", sorted({{"torch", "numpy", "pydantic", "rich", "ignite", "h5py"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["trian"], "No such command 'trian'; did you mean 'run'? (known: check, compare, "),
        (["evalute"], "No such command 'evalute'; did you mean 'evaluate'? (known: check, compare, "),
        (["segmnet"], "No such command 'segmnet'; did you mean 'predict'? (known: check, compare, "),
        (["comapre"], "No such command 'comapre'; did you mean 'compare'? (known: check, compare, "),
        (["run"], "Missing argument 'EXPERIMENT'"),
        (["run", "x.toml", "--epochs", "2"], "No such option '--epochs'"),
        (["--quick"], "No such option '--quick'"),
        (["run", str(EXPERIMENTS)], f"{EXPERIMENTS}: no such experiment file; it is a folder; name a file"),
        (["list", "model", "unet", "more"], "Got unexpected extra argument (more)"),
        (["predict", "a", "b", "-o", "c", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["list", "modle"], "unknown kind 'modle'; did you mean 'model'?"),
        (["list", "model", "unett"], "unknown model 'unett'; did you mean 'unet'?"),
        (["list", "--experiment", "none.toml"], "none.toml: no such experiment file"),
        (["schema", "none.toml"], "none.toml: no such experiment file"),
        (["run", "none.toml"], "none.toml: no such experiment file"),
        (["check", "none.toml"], "none.toml: no such experiment file"),
        (["run", str(EXPERIMENTS / "base.toml"), "--set", "x"], "--set x: should be key=value, as in train.epochs=2"),
    ],
)
def test_wrong_input_exits_with_2(call: Call, arguments: list[str], error: str) -> None:
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert error.replace("option '", "option ").rstrip("'") in err.replace("option '", "option ")
    assert "Traceback" not in err


def test_no_command_is_wrong_input_and_shows_the_help(call: Call) -> None:
    status, out, err = call()
    assert (status, out) == (2, "")
    assert "Example: python -m yeastexp run" in err


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (UserError("one", "two"), 2, "one\ntwo\n"),
        (UserError("it failed", status=RUN_FAILED), 1, "it failed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_endings(call: Call, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, message: str) -> None:
    def raising(*arguments: object) -> None:
        raise raised

    monkeypatch.setattr(check_module, "check", raising)
    ended, out, err = call("check", "x.toml")
    assert (ended, out) == (status, "")
    assert err.strip() == message.strip()


def test_a_bug_keeps_its_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(check_module, "check", raising)
    with pytest.raises(ZeroDivisionError):
        call("check", "x.toml")


def test_list(call: Call) -> None:
    status, out, err = call("list")
    assert (status, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [[kind, name] for kind in KINDS for name in KINDS[kind]]
    _, out, _ = call("list", "scheduler", "--json")
    assert [part["name"] for part in json.loads(out)] == list(KINDS["scheduler"])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, registry in KINDS.items() for name in registry])
def test_list_a_part(call: Call, kind: str, name: str) -> None:
    status, out, err = call("list", kind, name, "--json")
    assert (status, err) == (0, "")
    (part,) = json.loads(out)
    assert (part["kind"], part["name"]) == (kind, name)
    status, out, _ = call("list", kind, name)
    assert status == 0
    assert out.startswith(f"{kind} '{name}'   {part['place']}\n\n{part['summary']}")
    shown = {line.split()[0]: line for line in out.splitlines()[-len(part["options"]) :]} if part["options"] else {}
    assert list(shown) == [option["name"] for option in part["options"]]
    for option in part["options"]:
        ending = "required" if option["required"] else "optional" if option["default"] is None else "= "
        assert ending in shown[option["name"]]
        assert "None" not in shown[option["name"]] and "True" not in shown[option["name"]]


def test_list_counts_the_plugins_of_a_file_in(call: Call, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(f"plugins = ['{EXPERIMENTS}/my_transforms.py']")
    assert call("list", "transform", "invert")[0] == 2
    status, out, _ = call("list", "transform", "--experiment", str(tmp_path / "study.toml"))
    assert status == 0 and "transform  invert" in out
    status, out, _ = call("list", "transform", "invert", "--experiment", str(tmp_path / "study.toml"))
    assert status == 0 and out.startswith(f"transform 'invert'   {EXPERIMENTS.resolve()}/my_transforms.py:4\n")


def test_schema(call: Call, tmp_path: Path) -> None:
    status, out, err = call("schema")
    assert (status, err) == (0, "")
    Draft202012Validator.check_schema(json.loads(out))
    assert '"invert"' not in out
    (tmp_path / "study.toml").write_text(f"plugins = ['{EXPERIMENTS}/my_transforms.py']")
    status, out, _ = call("schema", str(tmp_path / "study.toml"))
    assert status == 0 and '"invert"' in out
