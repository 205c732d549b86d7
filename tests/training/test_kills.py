"""Real processes, really ended: the short form of `python tests/kills.py`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import forks
import kills
import pytest

from yeastexp.training import checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the experiment and an undisturbed run of it, 001."""
    made = tmp_path_factory.mktemp("kills")
    kills.prepare(made)
    return made


def test_killed_runs_end_in_the_same_bytes(folder: Path) -> None:
    number = 1 + len(list((folder / "runs" / "tiny").iterdir()))
    ended = kills.disturbed(folder, number, [5, 10], workers=2, by=signal.SIGKILL)
    assert ended == kills.Ended(2, [])


LIMIT = 61_000
"""Bytes of a file, which a few checkpoints need."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 340 kB, where this process may mount one."""
    found = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=340k", "tmpfs", str(tmp_path)], capture_output=True)
    if found.returncode:
        pytest.skip("mounting takes more rights")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def filled(folder: Path, run: Path, limit: int | None) -> str:
    """What a run says that has no room for all of its files; two good checkpoints have to be left."""
    done = forks.run(kills.command("run", "tiny.toml"), cwd=folder, file_size=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    kept = run / "checkpoints"
    steps = {checkpoints.load(kept / name)["step"] for name in ("last.pt", "previous.pt")}
    assert len(steps) == 2 and not list(run.rglob("*.part"))
    return done.stderr.splitlines(keepends=True)[-1]


def test_a_limit_of_file_sizes_costs_nothing_but_time(folder: Path) -> None:
    run = Path("runs") / "tiny" / f"{1 + len(list((folder / 'runs' / 'tiny').iterdir())):03d}"
    said = filled(folder, folder / run, LIMIT)
    assert f"no file may grow so large; make room, and 'resume {run}' continues from its last checkpoint\n" in said
    forks.run(kills.command("resume", str(run)), cwd=folder, check=True)
    assert kills.differences(folder / "runs" / "tiny" / "001", folder / run) == []


def test_a_full_disk_costs_nothing_but_time(folder: Path, small_disk: Path) -> None:
    shutil.copy2(folder / "data.h5", small_disk)
    shutil.copy2(folder / "tiny.toml", small_disk)
    run = Path("runs") / "tiny" / "001"
    said = filled(small_disk, small_disk / run, None)
    assert f"no space left; make room, and 'resume {run}' continues from its last checkpoint\n" in said
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    forks.run(kills.command("resume", str(run)), cwd=small_disk, check=True)
    assert kills.differences(folder / run, small_disk / run) == []


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
    words = [*kills.command("run", "tiny.toml"), "--set", "runtime.workers=2", "--set", "train.epochs=2000"]
    process = forks.Process(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
        f"tiny.toml: reading its images\n{relative}: 8000 steps (8000 updates) in 2000 epochs on cpu\n"
        "stopping after this step; once more to stop at once\n"
        f"{relative}: interrupted after step {step} of 8000; python -m yeastexp resume {relative} "
        "continues from there\n"
    )
    assert len(workers) >= 2
    time.sleep(0.2)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert not (run / "owner.json").exists()
