"""Files that appear whole or not at all."""

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
"""What the system says if a disk is full."""

LONGEST_NAME = 200
"""Bytes; file systems take 255, and a hidden file's name is longer than that of the file that it becomes."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    One that a killed process left for the same `path` is written over. An OSError of it names `path`.
    """
    with folder(path.parent), _named(path, path):
        temporary, descriptor = _reserve(path)
        try:
            with _named(temporary, path):
                yield temporary
                if not temporary.stat().st_size:
                    raise FileNotFoundError(errno.ENOENT, "nothing was written", str(path))
                _sync(temporary)
                temporary.replace(path)
                _sync(path.parent)
        finally:
            with suppress(OSError):
                if _is_at(temporary, descriptor):  # another process may have begun one of this name
                    temporary.unlink()
            os.close(descriptor)


def _reserve(path: Path) -> tuple[Path, int]:
    """A hidden file, locked as long as its descriptor is open: one that can be locked has no living writer."""
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
    """The descriptor of a new file, locked where the file system has locks; None if another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # it was taken for what a killed process left
        os.close(descriptor)
        return None
    except OSError:
        return descriptor
    if _is_at(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _locked(path: Path, flags: int) -> int | None:
    """A descriptor with the lock of a file or folder; returns None if another process holds it, or it has none."""
    descriptor = None
    try:
        while descriptor is None:
            descriptor = os.open(path, flags | os.O_NOFOLLOW)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(path, descriptor):  # renamed or removed before it was locked
                os.close(descriptor)
                descriptor = None
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _is_plain(status: os.stat_result) -> bool:
    """Whether a file is one of bytes, and has no other name that it would be overwritten under."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _named(inner: Path, path: Path) -> Iterator[None]:
    """Let an OSError that names no file, or one that will be `path` and lies at `inner` or in it now, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | Path) else inner
            if place.is_relative_to(inner):
                error.filename = str(path / place.relative_to(inner))
        raise


@contextmanager
def folder(directory: Path) -> Iterator[None]:
    """A folder that exists; those that had to be made for it are removed where nothing came into them."""
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
    """A new folder that takes the place of `folder` when the block ends well, and goes when it does not."""
    with _named(folder, folder), staging(folder.parent, f".{folder.name}.") as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        with _named(new, folder):
            yield new
            while not _in_place(new, folder, old):
                pass


@contextmanager
def staging(parent: Path, prefix: str) -> Iterator[Path]:
    """A hidden folder for what is not ready yet; removed at the end, with those of killed processes."""
    parent.mkdir(parents=True, exist_ok=True)
    for path in (path for path in parent.iterdir() if path.name.startswith(prefix) and path.suffix == ".part"):
        if (left := _locked(path, os.O_RDONLY | os.O_DIRECTORY)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(left)
    temporary = parent / f"{prefix}{secrets.token_hex(4)}.part"
    temporary.mkdir()
    descriptor = _locked(temporary, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _in_place(temporary: Path, folder: Path, old: Path) -> bool:
    """Rename a folder over another, which becomes `old`; false if another process put its own there meanwhile."""
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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the new one, never a part."""
    with appearing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def unwritten(path: Path, error: OSError) -> UserError:
    """The error that says why a file cannot be written, and what helps."""
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
