"""A deadline is answered in the middle of whatever goes on, and by nothing once its context is left."""

from __future__ import annotations

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
