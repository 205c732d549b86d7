"""The storage that all processes of a sweep share: a journal file in its folder, or a database."""

from __future__ import annotations

import errno
import os
import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from yeastexp.errors import RUN_FAILED, UserError, in_one_line

LOCK_SUFFIX = ".lock"
"""The suffix that Optuna gives to the lock of a journal file."""

SQLITE_SECONDS = 60
"""How long a process waits for others that write into the same SQLite file."""

TRIES = 5
"""Attempts, a second apart, to open a new database while another process creates its tables."""


@contextmanager
def opened(journal: Path, url: str | None) -> Iterator[BaseStorage]:
    """Open the storage of a sweep: the database at `url` if given, else the journal.

    Raises UserError, also for errors of the storage within the block, if it cannot be locked, reached or read.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = str(journal) if url is None else _without_password(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield _database(url) if url else _journal(journal)
        except SQLAlchemyError as error:
            reason = in_one_line(error).partition(" (Background on this error")[0].partition(" [SQL:")[0]
            raise UserError(f"--storage {place}: {reason}; is the database there?", status=RUN_FAILED) from error
        except OptunaError as error:
            raise UserError(f"{place}: {in_one_line(error)}; name another folder with -o", status=RUN_FAILED) from error


def _database(url: str) -> BaseStorage:
    if "://" not in url:
        raise UserError(
            f"--storage {url}: should be the URL of a database, as postgresql://user@host/sweeps or "
            "sqlite:////shared/sweeps.db; without it the sweep's folder holds a journal file"
        )
    arguments = {"connect_args": {"timeout": SQLITE_SECONDS}} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.get_storage(_with_tables(url, arguments))
    except ImportError as error:
        fault = f"needs the package of its database ({in_one_line(error.__cause__ or error)})"
        raise UserError(f"--storage {_without_password(url)}: {fault}; pip install it") from None
    except ValueError as error:
        raise UserError(f"--storage {_without_password(url)}: {in_one_line(error)}") from None


def _with_tables(url: str, arguments: dict[str, Any]) -> RDBStorage:
    """Open a database and create its tables, which another process may be doing at the same time."""
    # Optuna looks for the tables and then creates them, without a lock: whichever of two processes is second fails in
    # one of several ways, depending on the database and on how far the first has come. Any other error is passed on.
    for _ in range(TRIES):
        try:
            return RDBStorage(url, engine_kwargs=arguments)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if isinstance(error, OperationalError) and "already exists" not in str(error):
                raise
            time.sleep(1)
    return RDBStorage(url, engine_kwargs=arguments)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}{at}{host}"


def _journal(path: Path) -> BaseStorage:
    lock = _Mending(path, _lock_of(path))
    try:
        return JournalStorage(JournalFileBackend(str(path), lock))  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        remedy = "the same command takes the trials from their folders, and trains pruned ones to their end"
        raise UserError(
            f"{path}: is damaged ({in_one_line(error)}); bring it back from a copy, or remove it: {remedy}"
        ) from error


class _Mending:
    """The lock of a journal, which drops a last line that was not written to its end before anything is appended.

    A full disk or the end of a machine leaves such a line. Optuna never reads one, but would write behind it, and the
    journal could not be read any more.
    """

    # Whoever has the lock is the only writer, so that nobody will end the line; and no process has read it, for all
    # leave out a line without its end. One that reads meanwhile reads no further than the file went when it began.
    def __init__(self, journal: Path, lock: JournalFileSymlinkLock | JournalFileOpenLock) -> None:
        self._journal = journal
        self._lock = lock

    def acquire(self) -> bool:
        """Wait for the lock, as Optuna's."""
        acquired = self._lock.acquire()
        try:
            _drop_cut_line(self._journal)
        except BaseException:
            self._lock.release()
            raise
        return acquired

    def release(self) -> None:
        """Release the lock, as Optuna's."""
        self._lock.release()


def _drop_cut_line(journal: Path) -> None:
    with journal.open("r+b") as file:
        if not file.seek(0, os.SEEK_END):
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _lock_of(path: Path) -> JournalFileSymlinkLock | JournalFileOpenLock:
    """A lock of the journal that excludes processes on all machines that share the folder, over NFS as well.

    Raises UserError if the file system allows neither symbolic links nor exclusive creation.
    """
    # Both kinds create the same name, so that machines with different mounts of one folder exclude each other,
    # whichever kind each takes. Which kind works is tried with another name: the lock itself may be held right now.
    lock = path.with_name(path.name + LOCK_SUFFIX)
    if lock.is_dir() and not lock.is_symlink():  # Optuna would wait for ever
        raise UserError(f"{lock}: is a folder, so that {path.name} cannot be locked; remove it")
    probe = lock.with_name(f"{lock.name}.{secrets.token_hex(4)}")
    reason = ""
    for kind, make in ((JournalFileSymlinkLock, _link), (JournalFileOpenLock, _file)):
        try:
            make(probe)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = error.strerror or str(error)
        else:
            return kind(str(path))
        finally:
            with suppress(OSError):
                probe.unlink()
    remedy = "name a folder elsewhere with -o, or a database with --storage"
    raise UserError(f"{path}: cannot be locked there ({reason}); {remedy}")


def _link(path: Path) -> None:
    path.symlink_to(path.name)


def _file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
