"""The processes of a sweep: telling which are alive, on any machine, and starting further ones on this machine."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout
from optuna import Study

from yeastexp.system import locks

BEAT_SECONDS = 20.0
"""The interval at which a process counts up its counter in the storage."""

SILENT_SECONDS = 120.0
"""A process of another machine whose counter has stood still for so long is lost."""

ENDED = -1
"""The counter of a process that has ended in good order."""


class Worker:
    """This process as others know it: by a name, a locked file, and a counter in the storage.

    The operating system frees the lock of a process however it ends, which tells at once whether a process of the same
    machine is alive. Processes of other machines are judged by their counters alone: each observer measures on its own
    clock how long a counter has stood still, so that the machines' clocks need not agree.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder = folder
        self.study = study
        self.host = socket.gethostname()
        self.name = f"{self.host}-{os.getpid()}-{secrets.token_hex(3)}"
        self.beats = 0
        self._ended = threading.Event()
        self._seen: dict[str, tuple[int, float]] = {}

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Count as alive within the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = locks.locked(self._lock(self.name))
        self._beat()
        thread = threading.Thread(target=self._go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            with suppress(Exception):  # what ends this process is not to be hidden
                self.study.set_user_attr(_beat_of(self.name), ENDED)
            lock.release()
            self._lock(self.name).unlink(missing_ok=True)

    def _go_on(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(Exception):  # a storage that is away for a while; the trial itself will say so
                self._beat()

    def _beat(self) -> None:
        self.beats += 1
        self.study.set_user_attr(_beat_of(self.name), self.beats)

    def is_lost(self, name: str, host: str) -> bool:
        """Whether a process has ended, or its counter has stood still for too long."""
        if name == self.name:
            return False
        # Without a lock file, which a process removes when it ends in good order, its counter has to tell.
        if host == self.host and self._lock(name).exists():
            return self._is_free(self._lock(name))
        beats, now = self.study.user_attrs.get(_beat_of(name), 0), time.monotonic()
        if beats == ENDED:
            return True
        if self._seen.setdefault(name, (beats, now))[0] != beats:
            self._seen[name] = beats, now
        return now - self._seen[name][1] > SILENT_SECONDS

    def _lock(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    @staticmethod
    def _is_free(path: Path) -> bool:
        try:
            lock = locks.locked(path)
        except Timeout:
            return False
        lock.release()
        path.unlink(missing_ok=True)
        return True


def _beat_of(name: str) -> str:
    return f"beats of {name}"


@contextmanager
def further(count: int, arguments: Sequence[str], logs: Path) -> Iterator[None]:
    """Start `count` more processes with the same command, each with its own log, and wait for them after the block.

    If the block fails or is interrupted, they are terminated, and give their trials back.
    """
    # Sessions of their own keep a terminal's Ctrl-C from them: they would get it besides the signal below, and a second
    # signal ends a process at once, without a checkpoint.
    started: list[subprocess.Popen[bytes]] = []
    logs.mkdir(parents=True, exist_ok=True)
    try:
        for number in range(2, count + 2):
            with (logs / f"job_{number}.txt").open("ab") as log:
                command = [sys.executable, "-m", "yeastexp", *arguments]
                streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
                started.append(subprocess.Popen(command, start_new_session=True, **streams))  # type: ignore[call-overload]
        yield
    except BaseException:
        for process in started:
            process.terminate()
        raise
    finally:
        for process in started:
            process.wait()
