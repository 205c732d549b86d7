"""What a machine ran out of is one line, and a bug is none of it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from yeastexp.errors import UserError
from yeastexp.system.failures import explained

CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB. More advice."

ROOM = "make room, and 'resume /run' continues from its last checkpoint"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "x", "/r/last.pt"), f"/r/last.pt: no space left; {ROOM}"),
        (OSError(errno.EDQUOT, "x"), f"/run: the quota is used up; {ROOM}"),
        (OSError(errno.EFBIG, "x", "/r/a"), f"/r/a: no file may grow so large; {ROOM}"),
        (
            torch.OutOfMemoryError(CUDA),
            "a step: out of GPU memory; Tried to allocate 2.50 GiB; lower [train] batch_size or [patches] size, or the "
            "width of the [model]",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 99 bytes. Error code 12 (Cannot allocate memory)"),
            "a step: out of memory; [enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate 99 bytes; lower [train] batch_size or [patches] size, or the "
            "width of the [model]",
        ),
    ],
)  # fmt: skip
def test_what_ran_out_is_said(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError) as caught, explained(Path("/run"), "a step"):
        raise error
    assert (str(caught.value), caught.value.status) == (line, 1)
    assert caught.value.__cause__ is error


def test_how_much_was_free_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 8 * 2**30))
    message = r"Tried to allocate 2\.50 GiB, 1\.0 of 8\.0 GiB were free; lower"
    with pytest.raises(UserError, match=message), explained(Path("/run"), "a step"):
        raise torch.OutOfMemoryError(CUDA)


def test_real_memory_that_is_not_there(tmp_path: Path) -> None:
    message = r"^a step: out of memory; .*you tried to allocate 8000000000000000 bytes"
    with pytest.raises(UserError, match=message), explained(tmp_path, "a step"):
        torch.empty(10**15, dtype=torch.int64)


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), OSError(errno.EIO, "x"), KeyError("x")])
def test_a_bug_stays_one(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, explained(tmp_path):
        raise error
    assert caught.value is error


def test_a_full_disk_for_real() -> None:
    with pytest.raises(UserError, match="no space left"), explained(Path("/run")):
        descriptor = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)


def test_a_thread_that_finds_the_disk_full_says_nothing_and_one_with_a_bug_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda found: told.append(found.exc_value))

    def fails(error: Exception) -> None:
        raise error

    bug = ValueError("bug")
    with explained(Path("/run")):
        for error in (OSError(errno.ENOSPC, "full"), bug):
            thread = threading.Thread(target=fails, args=(error,))
            thread.start()
            thread.join()
    assert told == [bug]
