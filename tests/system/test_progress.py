"""How far something has come, said from time to time."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from yeastexp.system import progress
from yeastexp.system.console import console
from yeastexp.system.progress import Pace, counted, counting, format_seconds, say_to, shows_bars


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_at_growing_intervals(clock: list[float]) -> None:
    pace, said = Pace(), []
    for second in range(300):
        clock[0] = 100.0 + second
        if pace.due():
            said.append(second)
    assert said == [5, 15, 35, 75, 135, 195, 255]


def test_items_are_counted(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is over in five seconds says nothing."""
    assert list(counted("abc")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
    for _ in counted(range(8)):
        clock[0] += 3
    assert capsys.readouterr() == ("", "2 of 8 (25 %, about 18 s left)\n6 of 8 (75 %, about 6 s left)\n")


def test_shares_of_an_item_are_counted(clock: list[float]) -> None:
    said: list[str] = []
    with counting(2, said.append) as advance:
        for _ in range(4):
            clock[0] += 5
            advance(0.5)
    assert said == ["0.5 of 2 (25 %, about 15 s left)", "1.5 of 2 (75 %, about 5 s left)"]


def test_lines_stay_apart_from_what_a_script_reads(capsys: pytest.CaptureFixture[str]) -> None:
    say_to(console())("to\x1bthe error")
    assert capsys.readouterr() == ("", "to\\x1bthe error\n")
    file = io.StringIO()
    say_to(Console(file=file, width=10))("one [line] that is long\n")
    assert file.getvalue() == "one [line] that is long\\n\n"


def test_a_notebook_has_a_bar_if_it_has_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else lines, in its output."""
    notebook = Console(file=sys.stdout, force_jupyter=True)
    for spec, moves in ((object(), True), (None, False)):
        monkeypatch.setattr(progress, "find_spec", lambda name, spec=spec: spec)
        assert shows_bars(notebook) is moves
        assert shows_bars(Console(file=io.StringIO())) is False
    assert say_to(notebook) is not progress.say


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (119, "119 s"), (125, "2 min"), (11100, "3 h 5 min")])
def test_seconds(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown
