"""docs/scaling.md: its command runs, and what it calculates is what the benchmark calculates."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import forks

from benchmarks import scaling

HOME = Path(__file__).parent.parent
PAGE = (HOME / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_first_command_runs(tmp_path: Path) -> None:
    (command,) = [line for line in PAGE.splitlines() if line.startswith("torchrun ")]
    words = command.split()
    assert words[0] == "torchrun"
    (tmp_path / "experiments").symlink_to(HOME / "experiments")
    environment = {**os.environ, "PYTHON_EXEC": str(forks.on_path(tmp_path) / "python")}
    words = [sys.executable, "-m", "torch.distributed.run", *words[1:], "--set", "train.epochs=1"]
    done = forks.run(words, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "runs/quick/001"


def test_waiting_is_calculated_from_what_is_sent() -> None:
    (line,) = [line for line in scaling.calculated(shards=8, step=0.1) if line.startswith("| 5 million")]
    assert line == "| 5 million | 0.47 ms: 8.0 times | 112.00 ms: 3.8 times |"
    assert all(line in PAGE for line in scaling.calculated() if line)
