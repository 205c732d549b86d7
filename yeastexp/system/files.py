"""Files and folders that appear whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yeastexp.errors import RUN_FAILED, UserError

FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "the quota is used up", errno.EFBIG: "no file may grow so large"}
"""The error numbers of a full disk, and how messages call them."""

LONGEST_NAME = 200
"""Bytes; file systems take 255, and a hidden file's name is longer than that of the file that it becomes."""


@contextmanager
def appearing(path: Path, *, unless_there: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to it if the block succeeds and removed if it raises.

    With `unless_there` a file that another process, on whichever machine, put at `path` meanwhile stays. A temporary
    file that a killed process left for the same `path` is overwritten. OSErrors name `path`.
    """
    with folder(path.parent), _named(path, path):
        temporary, descriptor = _reserve(path)
        try:
            with _named(temporary, path):
                yield temporary
                if not temporary.stat().st_size:
                    raise FileNotFoundError(errno.ENOENT, "nothing was written", str(path))
                # Contents first: a power failure after the rename must not leave the name with an empty file. Syncing
                # the folder makes the rename itself last.
                _sync(temporary)
                if unless_there:
                    _first(temporary, path)
                else:
                    temporary.replace(path)
                _sync(path.parent)
        finally:
            # After the rename another process may have begun a temporary file of this name, which is its own.
            with suppress(OSError):
                if _is_at(temporary, descriptor):
                    temporary.unlink()
            os.close(descriptor)


def _first(temporary: Path, path: Path) -> None:
    """Link a file to `path` unless that exists."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            temporary.replace(path)


def _reserve(path: Path) -> tuple[Path, int]:
    """Return an empty hidden file beside `path` and its descriptor, which holds a lock on it while it is open.

    The name is fixed, so that what a killed process left is overwritten and not left lying about. The lock tells such a
    file from that of a living writer, beside which a random name is used.
    """
    encoded = os.fsencode(path.name)
    name = path.name if len(encoded) <= LONGEST_NAME else hashlib.sha256(encoded).hexdigest()
    temporary = path.with_name(f".{name}.part")
    descriptor = _locked(temporary, os.O_RDWR)
    if descriptor is not None and not _is_plain(os.fstat(descriptor)):
        os.close(descriptor)
        descriptor = None
    if descriptor is None:
        descriptor = _created(temporary)
    if descriptor is None:
        temporary = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    os.ftruncate(descriptor, 0)
    return temporary, descriptor


def _created(path: Path) -> int | None:
    """Make a file, lock it if the file system has locks, and return its descriptor; None if another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # before it was locked, another process took it for a killed writer's and locked it
        os.close(descriptor)
        return None
    except OSError:
        return descriptor
    if _is_at(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _locked(path: Path, flags: int) -> int | None:
    """Return a descriptor that holds the lock of a file or folder; None if another process has it or there is none."""
    descriptor = None
    try:
        while descriptor is None:
            descriptor = os.open(path, flags | os.O_NOFOLLOW)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its writer may have finished and renamed it between the two calls: then the lock is that of the finished
            # file, which must not be written into.
            if not _is_at(path, descriptor):
                os.close(descriptor)
                descriptor = None
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _is_plain(status: os.stat_result) -> bool:
    """Whether a file is regular and has no second name (hard link), whose contents would be overwritten too."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _named(inner: Path, path: Path) -> Iterator[None]:
    """Let OSErrors about `inner`, a hidden file beside `path` or no file name `path`, the final place, instead."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | Path) else inner
            if place.is_relative_to(inner):
                error.filename = str(path / place.relative_to(inner))
            elif place.parent == path.parent and place.name.startswith(".") and place.suffix == ".part":
                error.filename = str(path)
        raise


@contextmanager
def folder(directory: Path) -> Iterator[None]:
    """Make a folder and its parents while the context is entered; those it made are removed again if left empty."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in missing:
                path.rmdir()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `folder` if the block succeeds, and is removed if it raises."""
    with _named(folder, folder), staging(folder.parent, f".{folder.name}.") as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        with _named(new, folder):
            yield new
            while not _in_place(new, folder, old):
                pass


@contextmanager
def staging(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a hidden folder for unfinished files. It is removed at the end; those of killed processes are, at once."""
    parent.mkdir(parents=True, exist_ok=True)
    for path in (path for path in parent.iterdir() if path.name.startswith(prefix) and path.suffix == ".part"):
        if (left := _locked(path, os.O_RDONLY | os.O_DIRECTORY)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(left)
    temporary = parent / f"{prefix}{secrets.token_hex(4)}.part"
    with _named(temporary, parent):
        temporary.mkdir()
    descriptor = _locked(temporary, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _in_place(temporary: Path, folder: Path, old: Path) -> bool:
    """Replace a folder by another, moving it to `old`. Returns False if another process put its own there meanwhile.

    A folder that is not empty cannot be renamed over in one step, so there is a moment without one.
    """
    with suppress(FileNotFoundError):
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    try:
        temporary.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def write_text(path: Path, text: str, *, unless_there: bool = False) -> None:
    """Write a UTF-8 text file at once: a reader sees the old file or the new one, never a part."""
    with appearing(path, unless_there=unless_there) as temporary:
        temporary.write_text(text, encoding="utf-8")


def unwritten(path: Path, error: OSError) -> UserError:
    """Return the error that says why a file cannot be written, and the remedy."""
    remedy = "make room or name another place"
    if error.errno == errno.ENAMETOOLONG:
        remedy = "give it a shorter name"
    return UserError(f"{path}: cannot be written ({error.strerror}); {remedy}", status=RUN_FAILED)


def claim_directory(parent: Path) -> Path:
    """Make and return the first free `parent/001`, `parent/002`, …; two processes never get the same one."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(entry.name) for entry in parent.iterdir() if entry.name.isdecimal()), default=0)
    while True:
        claimed = parent / f"{number:03d}"
        # `mkdir` fails if the directory exists, so it decides between processes that count the same entries.
        try:
            claimed.mkdir()
        except FileExistsError:
            number += 1
        else:
            return claimed


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state(path: Path) -> str:
    """Return a text that changes with the size and the time of a file, or with those of any file in a folder."""
    # The time of a folder does not change when a file in it is written into.
    if not path.is_dir():
        return _size_and_time(path)
    sha256 = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            sha256.update(b"\0" + os.fsencode(file.relative_to(path)) + b"\0")
            with suppress(OSError):  # a link to nothing
                sha256.update(_size_and_time(file).encode())
    return sha256.hexdigest()


def _size_and_time(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} bytes at {status.st_mtime_ns}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
