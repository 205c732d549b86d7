"""`.ci/weekly` runs every part, though one fails; only what it does without a network is tried here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HOME = Path(__file__).parent.parent
WEEKLY = HOME / ".ci" / "weekly"


def weekly(*names: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([WEEKLY, *names], capture_output=True, text=True, env={**os.environ, "PATH": path})


def test_a_part_that_fails_keeps_no_other_from_running(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\necho no environment can be made >&2\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    ended = weekly("fuzz", "wheel", "instanseg", path=f"{tmp_path}:{os.environ['PATH']}")
    assert ended.returncode == 1
    assert ended.stdout == "== fuzz\n== wheel\n== instanseg\n"
    assert ended.stderr == "no environment can be made\n" * 3 + "failed: fuzz wheel instanseg\n"


def test_a_part_that_is_not_there_is_a_line() -> None:
    ended = weekly("fuzz", "fuz")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "no part 'fuz' (known: fuzz wheel bioimageio instanseg napari)\n"


def test_every_script_for_other_programs_is_run() -> None:
    text = WEEKLY.read_text(encoding="utf-8")
    scripts = [path.relative_to(HOME).as_posix() for path in (HOME / "tests" / "interop").glob("*.py")]
    assert scripts and [script for script in scripts if script not in text] == []
