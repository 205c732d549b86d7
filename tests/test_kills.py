"""Real processes, really ended: the short form of `python tests/kills.py`."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kills
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the experiment and an undisturbed run of it, 001."""
    made = tmp_path_factory.mktemp("kills")
    kills.prepare(made)
    return made


def test_killed_runs_end_in_the_same_bytes(folder: Path) -> None:
    number = 1 + len(list((folder / "runs" / "tiny").iterdir()))
    ended = kills.disturbed(folder, number, [3.5, 4.5], workers=2, by=signal.SIGKILL)
    assert ended.differences == []


def children(process: int) -> list[int]:
    """The processes that a process has started and that still run."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(one) for task in tasks for one in task.read_text().split()]


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def stopped(
    folder: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.CompletedProcess[str], list[int], Path]]:
    """A run with workers that was told to stop after its first step: how it ended, its workers, and its directory."""
    run = folder / "runs" / "tiny" / f"{1 + len(list((folder / 'runs' / 'tiny').iterdir())):03d}"
    words = [*kills.command("run", "tiny.toml"), "--set", "train.workers=2", "--set", "train.epochs=2000"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not ((run / "log.txt").exists() and "first step" in (run / "log.txt").read_text()):
        time.sleep(0.05)
    workers = children(process.pid)
    process.send_signal(request.param)
    out, said = process.communicate()
    yield subprocess.CompletedProcess(words, process.returncode, out, said), workers, run


def test_a_signal_ends_it_with_a_checkpoint_a_word_and_no_orphan(
    stopped: tuple[subprocess.CompletedProcess[str], list[int], Path],
) -> None:
    process, workers, run = stopped
    assert process.returncode == 130, process.stderr
    step = (run / "log.txt").read_text().rpartition("after step ")[2].split()[0]
    relative = run.relative_to(run.parents[2])
    assert process.stderr == (
        "stopping after this step; once more to stop at once\n"
        f"{relative}: interrupted after step {step} of 8000; python -m yeastexp resume {relative} goes on from there\n"
    )
    assert len(workers) >= 2
    time.sleep(0.2)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert not (run / "owner.json").exists()
