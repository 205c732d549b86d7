"""A deadline is answered in the middle of whatever goes on, and by nothing once its context is left."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from yeastexp.system import deadline


def over() -> ValueError:
    return ValueError("over")


def test_it_is_answered_once_the_moment_has_come() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="over"), deadline.at(began + 0.05, over):
        time.sleep(20)
    assert time.monotonic() < began + 10


def test_one_that_was_swallowed_is_answered_again() -> None:
    answered = 0
    with deadline.at(time.monotonic() - 1, over):
        for _ in range(2):
            try:
                time.sleep(20)
            except ValueError:
                answered += 1
    assert answered == 2


def test_nothing_comes_when_its_context_is_left_or_an_inner_one() -> None:
    with deadline.at(time.monotonic() + 0.05, over), deadline.at(time.monotonic() + 100, over):
        pass
    time.sleep(0.1)
    with deadline.at(time.monotonic() + 0.2, over):
        with deadline.at(time.monotonic() + 100, over):
            pass
        time.sleep(0.3)


STUCK = """
import ctypes, signal, sys, time
from yeastexp.system import deadline
began = time.monotonic()
try:
    with deadline.at(began + {at}, lambda: ValueError("over")), deadline.loading(began + {at}, "too short"):
        {work}
except ValueError:
    print("told", file=sys.stderr, flush=True)
    {leaving}
"""
HOLDING = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}); ctypes.PyDLL(None).usleep(20_000_000)"
"""Twenty seconds of C that no signal interrupts and that keep the interpreter, as loading a library does."""


@pytest.mark.parametrize(
    ("at", "work", "leaving", "said", "status"),
    [
        (0.3, HOLDING, "pass", "too short\n", 1),
        (0.3, "time.sleep(20)", HOLDING, "told\n", 1),
        (0.3, "time.sleep(20)", "sys.exit(2)", "told\n", 2),
        (10, "pass", "pass", "", 0),
    ],
)
def test_c_code_that_holds_the_interpreter_ends_in_time(
    at: float, work: str, leaving: str, said: str, status: int
) -> None:
    began = time.monotonic()
    words = [sys.executable, "-c", STUCK.format(at=at, work=work, leaving=leaving)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == (said, status)
    assert time.monotonic() < began + 15
