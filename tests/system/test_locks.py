"""One process to a run directory, and no lock outlives its owner."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from yeastexp.errors import UserError
from yeastexp.system import locks

HOLD = """
import sys, pathlib
from yeastexp.system import locks
with locks.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the directory."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_of_the_first(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(UserError) as caught, locks.held(tmp_path):
        pass
    owner = f"process {holder.pid} on {socket.gethostname()}"
    assert str(caught.value) == f"{tmp_path}: {owner} is training into it; wait for it, or end it"
    holder.communicate()
    with locks.held(tmp_path) as stale:
        assert stale is None


def test_the_lock_of_a_killed_process_is_stale(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()
    with locks.held(tmp_path) as stale:
        owner = f"process {holder.pid} on {socket.gethostname()}"
        assert stale == f"{owner} ended without notice; its lock is taken over"
        assert json.loads((tmp_path / locks.OWNER).read_text())["pid"] == os.getpid()
    with locks.held(tmp_path) as stale:
        assert stale is None


def test_another_machine_is_believed(tmp_path: Path) -> None:
    (tmp_path / locks.OWNER).write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
    with pytest.raises(UserError) as caught, locks.held(tmp_path):
        pass
    assert str(caught.value) == (
        f"{tmp_path}: process 7 on elsewhere is training into it, or ended without notice; if it is gone, "
        f"remove {tmp_path / 'owner.json'}"
    )
    (tmp_path / locks.OWNER).unlink()
    with locks.held(tmp_path):
        pass


def test_it_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), locks.held(tmp_path):
        raise ValueError("inside")
    assert not (tmp_path / locks.OWNER).exists()
    with locks.held(tmp_path) as stale:
        assert stale is None


@pytest.mark.parametrize("damage", ["", "[1]", "3", '{"pid": 3}', '{"pid": "x", "host": 3}', "[" * 99_999])
def test_a_damaged_owner_is_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / locks.OWNER).write_text(damage)
    with locks.held(tmp_path) as stale:
        assert stale is None
        assert json.loads((tmp_path / locks.OWNER).read_text())["pid"] == os.getpid()


def test_who_holds_it_is_said_even_if_the_owner_is_damaged(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    (tmp_path / locks.OWNER).write_text("[1]")
    with pytest.raises(UserError, match="another process is training into it"), locks.held(tmp_path):
        pass
    holder.communicate()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_storage_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError) as caught, locks.held(tmp_path):
        pass
    remedy = "use a folder on another file system"
    assert str(caught.value) == f"{tmp_path}: its storage cannot lock files ({os.strerror(code)}); {remedy}"
