"""Locks that let one process at a time work in a directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from yeastexp.errors import UserError
from yeastexp.system import files

LOCK, OWNER = ".lock", "owner.json"


def locked(path: Path) -> FileLock:
    """Lock a file without waiting. Raises Timeout if another process has the lock, UserError if storage has none."""
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        if error.filename is not None:  # the file cannot be written
            raise
        fault = f"its storage cannot lock files ({error.strerror})"
        raise UserError(f"{path.parent}: {fault}; use a folder on another file system") from error
    return lock


@contextmanager
def held(folder: Path) -> Iterator[str | None]:
    """Lock a run directory within the block. Raises UserError with the process that has it.

    Yields a line about a process that ended without removing its owner file, or None. The operating system frees the
    lock of a process that ends in any way. It may not see locks of other machines on shared storage, so a directory
    whose owner file names another machine counts as locked.
    """
    try:
        lock = locked(folder / LOCK)
    except Timeout:
        raise UserError(f"{folder}: {_described(_owner(folder))} is training into it; wait for it, or end it") from None
    try:
        stale = _stale(folder, _owner(folder))
        files.write_text(folder / OWNER, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        try:
            yield stale
        finally:
            (folder / OWNER).unlink(missing_ok=True)
    finally:
        lock.release()


def forget(folder: Path) -> None:
    """Remove the owner file of a process that is known to have ended, on whichever machine."""
    (folder / OWNER).unlink(missing_ok=True)


def _owner(folder: Path) -> dict[str, Any] | None:
    """Return the process that holds a directory or held it last; None if there is no readable owner file."""
    try:
        found: Any = json.loads((folder / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    told = isinstance(found, dict) and isinstance(found.get("pid"), int) and isinstance(found.get("host"), str)
    return found if told else None


def _described(owner: dict[str, Any] | None) -> str:
    return f"process {owner['pid']} on {owner['host']}" if owner else "another process"


def _stale(folder: Path, owner: dict[str, Any] | None) -> str | None:
    if owner is None:
        return None
    if owner["host"] != socket.gethostname():
        raise UserError(
            f"{folder}: {_described(owner)} is training into it, or ended without notice; if it is gone, "
            f"remove {folder / OWNER}"
        )
    return f"{_described(owner)} ended without notice; its lock is taken over"
