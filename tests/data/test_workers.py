"""Worker processes: the same items, and the true cause where there are none."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from typing import Any

import pytest
import torch

from yeastexp.data import workers
from yeastexp.errors import UserError
from yeastexp.system.failures import explained


class Odd(Exception):
    """One that cannot travel, for nobody can pickle a lock."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")
        self.lock = threading.Lock()


def square(index: int) -> torch.Tensor:
    return torch.tensor(index**2)


def refuses(index: int) -> int:
    if index == 3:
        raise UserError("place: fault; remedy", "place: another", status=1, key="x")
    return index


def breaks(index: int) -> int:
    return 1 // (3 - index)


def breaks_oddly(index: int) -> int:
    raise Odd(1, 2)


def dies(index: int) -> int:
    if index == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def sleeps(index: int) -> int:
    time.sleep(60)
    return index


def test_items_come_in_their_order_and_nothing_global_is_drawn() -> None:
    before = torch.get_rng_state()
    assert [int(item) for item in workers.made(square, range(5, 12), 2, None)] == [n**2 for n in range(5, 12)]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_fault_is_raised_as_it_was() -> None:
    with pytest.raises(UserError) as caught:
        list(workers.made(refuses, range(6), 2, None))
    assert (caught.value.faults, caught.value.status, caught.value.key) == (
        ("place: fault; remedy", "place: another"),
        1,
        "x",
    )


def test_a_bug_keeps_its_type_and_the_workers_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(workers.made(breaks, range(6), 2, None))
    assert "return 1 // (3 - index)" in "".join(caught.value.__notes__)


def test_one_that_cannot_travel_is_quoted() -> None:
    with pytest.raises(RuntimeError, match=r"^Odd: 1 and 2\n"):
        list(workers.made(breaks_oddly, range(6), 2, None))


def test_a_killed_worker_is_said_to_be(tmp_path: object) -> None:
    message = r"^\[runtime\] workers: process \d+ was ended by (SIGKILL|Killed); often because memory ran out: lower "
    message += r"\[runtime\] workers or \[train\] batch_size$"
    with pytest.raises(UserError, match=message) as caught, explained(tmp_path, "a step"):  # type: ignore[arg-type]
        list(workers.made(dies, range(6), 1, None))
    assert caught.value.status == 1


def test_stuck_workers_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 1.0)
    with pytest.raises(UserError) as caught:
        list(workers.made(sleeps, range(6), 2, None))
    assert "[runtime] workers: no batch in 1 s; they are stuck in: File " in str(caught.value)
    assert "in sleeps" in str(caught.value) and caught.value.status == 1


def pair(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((64, 64), float(index)), torch.tensor([index])


def full(index: int) -> Any:
    """As on a machine whose shared memory is full from the fourth item on."""
    if index >= 3:
        torch.Tensor.share_memory_ = _no_room  # type: ignore[method-assign]  # in the worker alone
    return pair(index)


def _no_room(tensor: torch.Tensor) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_items_come_through_pipes_where_shared_memory_is_full() -> None:
    with pytest.warns(UserWarning, match=r"^\[runtime\] workers: /dev/shm \(.*\) is too small for them: batches come "):
        items = list(workers.made(full, range(6), 1, None))
    assert len(items) == 6
    for index, (plane, number) in enumerate(items):
        assert torch.equal(plane, pair(index)[0]) and torch.equal(number, pair(index)[1])


def test_without_room_for_a_lock_items_are_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses_all() -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers.multiprocessing, "Lock", refuses_all)
    told = r"there are none \(No space left on device\), and batches are cut in the training process; make it larger"
    with pytest.warns(UserWarning, match=told):
        assert [int(item) for item in workers.made(square, range(3), 2, None)] == [0, 1, 4]
