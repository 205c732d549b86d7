"""Jobs in processes of their own: their lines, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from yeastexp.errors import UserError
from yeastexp.system import jobs
from yeastexp.system.jobs import Job, side_by_side


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CONTEXT", multiprocessing.get_context("fork"))


def wait_for(file: Path, *others: Path) -> None:
    """Say that this job is there, and wait for the others."""
    file.touch()
    until = time.monotonic() + 20
    while not all(other.exists() for other in others):
        assert time.monotonic() < until
        time.sleep(0.01)


def speak(columns: int) -> None:
    os.write(1, b"of the system\n")
    print("of Python", file=sys.stderr)


@pytest.mark.parametrize(("terminal", "columns"), [("80", 74), ("1000", 160)])
def test_a_process_starts_afresh_and_its_lines_have_a_prefix(
    monkeypatch: pytest.MonkeyPatch, terminal: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", terminal)
    said: list[str] = []
    side_by_side([Job("one", print, "")], 2, "", said.append)
    assert said == [f"[one] {columns}"]


def test_both_streams_are_passed_on(forked: None) -> None:
    said: list[str] = []
    side_by_side([Job("one", speak, "")], 2, "", said.append)
    assert said == ["[one] of the system", "[one] of Python"]


def test_so_many_are_done_at_a_time(forked: None, tmp_path: Path) -> None:
    """Two wait for each other, so that they have to be under way together; the third begins when one has ended."""
    one, two, three = (tmp_path / name for name in ("1", "2", "3"))
    works = (lambda _: wait_for(one, two), lambda _: wait_for(two, one), lambda _: wait_for(three, one, two))
    side_by_side([Job(str(number), work, "") for number, work in enumerate(works)], 2, "")
    assert three.exists()


def raising(error: Exception) -> Callable[[int], None]:
    def work(columns: int) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    "error, status", [(UserError("place: fault; remedy", status=1), 1), (ValueError("a bug"), None)]
)
def test_one_that_fails_interrupts_the_others(
    forked: None, tmp_path: Path, error: Exception, status: int | None
) -> None:
    begun, ended, third = (tmp_path / name for name in ("begun", "ended", "third"))

    def fails(columns: int) -> None:
        wait_for(tmp_path / "fails", begun)
        raise error

    def goes_on(columns: int) -> None:
        try:
            wait_for(begun, tmp_path / "never")
        except KeyboardInterrupt:
            ended.touch()
            raise

    said: list[str] = []
    works = [Job("a", fails, ""), Job("b", goes_on, ""), Job("c", partial(wait_for, third), "")]
    with pytest.raises(type(error)) as caught:
        side_by_side(works, 2, "", said.append)
    assert str(caught.value) == str(error) and getattr(caught.value, "status", None) == status
    assert said == ["a: has failed; what is under way ends after its step"]
    assert ended.exists() and not third.exists()
    if status is None:
        assert "in fails\n" in caught.value.__notes__[0]


def test_an_interruption_reaches_all_once(forked: None, tmp_path: Path) -> None:
    def interrupts(columns: int) -> None:
        wait_for(tmp_path / "a", tmp_path / "b")
        os.kill(os.getppid(), signal.SIGINT)
        wait_for(tmp_path / "a", tmp_path / "never")

    works = [Job("a", interrupts, ""), Job("b", lambda _: wait_for(tmp_path / "b", tmp_path / "never"), "")]
    with pytest.raises(UserError) as caught:
        side_by_side(works, 2, "what goes on")
    assert (caught.value.faults, caught.value.status) == (("what goes on",), 130)


def test_an_error_that_cannot_be_pickled_is_quoted(forked: None) -> None:
    class Local(Exception):
        pass

    with pytest.raises(RuntimeError, match=r"^Local: told\nin a process of its own:\nTraceback"):
        side_by_side([Job("a", raising(Local("told")), "")], 1, "")


def test_a_job_ends_with_the_process_that_started_it(forked: None, tmp_path: Path) -> None:
    ended = tmp_path / "ended"

    def work(columns: int) -> None:
        try:
            wait_for(tmp_path / "begun", tmp_path / "never")
        except KeyboardInterrupt:
            ended.touch()
            raise

    starter = multiprocessing.get_context("fork").Process(target=side_by_side, args=([Job("a", work, "")], 1, ""))
    starter.start()
    wait_for(tmp_path / "here", tmp_path / "begun")
    starter.kill()
    starter.join()
    wait_for(tmp_path / "here", ended)
