"""Nothing that is printed steers the terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Call
from rich.color import ColorSystem
from rich.table import Table

from yeastexp.system import terminal
from yeastexp.system.console import console as harmless_console

FORGED = "a\x1b]0;forged\x07b\x1b[2Jc\x9b1mé\n\u202ex"
HARMLESS = r"a\x1b]0;forged\x07b\x1b[2Jc\x9b1mé\n\u202ex"


def test_control_characters_are_escaped_and_letters_of_any_kind_are_not() -> None:
    assert terminal.printable(FORGED) == HARMLESS
    assert terminal.printable("Zellen 95\u202f%, 12\u00a0µm, 細胞 ☃") == "Zellen 95\u202f%, 12\u00a0µm, 細胞 ☃"


def test_a_line_that_is_echoed(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.echo(FORGED, Path("plain"))
    terminal.echo(FORGED, err=True)
    assert capsys.readouterr() == (f"{HARMLESS}\nplain\n", f"{HARMLESS}\n")


def test_cells_titles_and_sentences_of_a_console_are_harmless_and_its_own_colours_stay() -> None:
    console = harmless_console()
    console.file, console._force_terminal, console._color_system = io.StringIO(), True, ColorSystem.STANDARD
    table = Table(FORGED, title=FORGED)
    table.add_row(FORGED, style="red")
    console.print(table, FORGED)
    shown = console.file.getvalue()
    assert "\x07" not in shown and "\x9b" not in shown and "\x1b]" not in shown and "\x1b[2J" not in shown
    assert "\x1b[" in shown and r"\x1b]0;forged" in shown
    widths = {len(line) for line in shown.splitlines() if "│" in line or "━" in line}
    assert len({len(line) for line in shown.splitlines() if line.startswith(("┏", "└"))}) == 1, widths


def test_usage_errors_and_warnings_are_harmless(call: Call, tmp_path: Path) -> None:
    for arguments in (["run", str(tmp_path / FORGED)], ["check", "x", FORGED], [FORGED], ["report", FORGED]):
        _, out, err = call(*arguments)
        assert "\x1b" not in out + err and "\\x1b]0;forged" in err, arguments


def test_no_command_prints_past_it() -> None:
    package = Path(terminal.__file__).parents[1]
    raw = ("click.echo(", "click.secho(", "print(", "sys.stdout.write(", "sys.stderr.write(", "Console(")
    allowed = {"console.print(", "terminal.print(", "output.print(", "_print(", "_HarmlessConsole("}
    for path in sorted(set(package.rglob("*.py")) - {Path(terminal.__file__)}):
        for line in path.read_text(encoding="utf-8").splitlines():
            for call in raw:
                before = line.partition(call)[0] if call in line else None
                if before is not None and not any(word in line for word in allowed) and '"' not in before:
                    raise AssertionError(f"{path}: {line.strip()}: print through yeastexp.system.terminal")


def test_bytes_of_a_path_reach_a_program_as_they_are_and_a_terminal_escaped(tmp_path: Path) -> None:
    program = "from yeastexp.system import terminal; import sys; sys.stdout.reconfigure(errors='surrogateescape')\n"
    program += r"terminal.echo('a\udcff\x1b')"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert piped.stdout == b"a\xff\\x1b\n"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stdout=theirs, check=True)
    os.close(theirs)
    assert os.read(ours, 1000) == b"a\\udcff\\x1b\r\n"
    os.close(ours)


def test_the_traceback_of_a_bug_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    error = ZeroDivisionError("\x1b[2J")
    terminal.echo_traceback(ZeroDivisionError, error, None)
    assert capsys.readouterr().err == "ZeroDivisionError: \\x1b[2J\n"
