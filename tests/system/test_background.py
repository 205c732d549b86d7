"""Acts in the background: their order, and their faults."""

from __future__ import annotations

import threading

import pytest

from yeastexp.system.background import Background


def test_acts_are_done_in_order_on_another_thread() -> None:
    background, done = Background(), []
    for number in range(50):
        background.do(lambda number=number: done.append((number, threading.current_thread())))
    background.wait()
    assert [number for number, _ in done] == list(range(50))
    assert {thread for _, thread in done} == {background.thread} != {threading.current_thread()}
    background.close()
    assert not background.thread.is_alive()


def failing() -> None:
    raise OSError(28, "No space left on device")


def test_a_fault_is_raised_once_where_the_next_act_is_given_and_those_behind_it_are_left() -> None:
    background, done = Background(), []
    held = threading.Event()
    background.do(held.wait)
    background.do(failing)
    background.do(lambda: done.append("behind"))
    held.set()
    with pytest.raises(OSError, match="No space left"):
        background.wait()
    assert done == []
    background.do(lambda: done.append("again"))
    background.wait()
    assert done == ["again"]
    background.close()


def test_closing_finishes_what_was_given_and_drops_faults() -> None:
    background, done = Background(), []
    background.do(lambda: done.append(1))
    background.do(failing)
    background.close()
    assert done == [1]
