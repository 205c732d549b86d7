"""Whoever waits for libraries to load is told so; whoever waits for something else is not."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from yeastexp.system import loading


@pytest.mark.parametrize("command", ["run", "export"])
@pytest.mark.parametrize("slow", ["import", "work", "nothing"])
def test_that_libraries_load_is_said_while_they_do(
    slow: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["yeastexp", command])
    (tmp_path / "slow_library.py").write_text("import time\ntime.sleep(0.2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading, "PATIENCE", 0.1)
    with loading.told(time.monotonic()):
        if slow == "import":
            __import__("slow_library")
            del sys.modules["slow_library"]
        elif slow == "work":
            time.sleep(0.2)
    time.sleep(0.15 if slow == "nothing" else 0)
    assert capsys.readouterr().err == ("loading libraries\n" if slow == "import" and command == "run" else "")
