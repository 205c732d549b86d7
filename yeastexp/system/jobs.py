"""Running jobs in processes of their own, several at a time, with prefixed output and a common end on failure."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import torch

from yeastexp.errors import INTERRUPTED, RUN_FAILED, UserError
from yeastexp.system.console import WIDTH
from yeastexp.system.interruption import HEEDED, Interruption
from yeastexp.system.processes import Processes, working_together
from yeastexp.system.progress import Say, say

CONTEXT = multiprocessing.get_context("spawn")
"""Processes are spawned: PyTorch's threads do not survive a fork."""

POLL_SECONDS = 0.2
"""The longest time until an interruption is noticed."""

LAST_WORDS_SECONDS = 10.0
"""How long to wait for the output of a process that has ended."""


@dataclass(frozen=True)
class Job:
    """Work for a process of its own.

    `work` must be picklable and is called with the number of columns for its output. `unfinished` is the line that is
    added to the error if the process is killed.
    """

    name: str
    work: Callable[[int], None]
    unfinished: str


def side_by_side(jobs: Sequence[Job], count: int, interrupted: str, say: Say = say) -> None:
    """Run jobs in their order, `count` at a time.

    If one fails, or this process is interrupted, no other starts and those under way are interrupted. Then the error of
    the first that failed is raised, or UserError with the line `interrupted`.
    """
    waiting, running = deque(jobs), dict[int, _Running]()
    errors: list[BaseException] = []
    told, failed = False, ""
    with Interruption(None) as interruption:
        interruption.gently = True
        try:
            while running or (waiting and not told):
                while waiting and len(running) < count and not told:
                    slot = min({*range(count)} - {*running})
                    running[slot] = _Running(waiting.popleft(), slot, count, say)
                # A pipe is ready when it has an outcome, and also when its process has died without one.
                ready = wait([each.result for each in running.values()], POLL_SECONDS)
                for slot, ended in [*running.items()]:
                    if ended.result in ready and (error := running.pop(slot).end()) is not None and not told:
                        errors.append(error)
                        failed = failed or ended.job.name
                if (errors or interruption.wanted) and not told:
                    told = True
                    for other in running.values():
                        other.process.terminate()
                    if errors and running:
                        say(f"{failed}: has failed; what is under way ends after its step")
        except KeyboardInterrupt:
            for each in running.values():
                each.process.terminate()  # once more: at once
            for each in running.values():
                each.end()
            raise
        finally:
            for each in running.values():
                each.process.kill()
    if errors:
        raise errors[0]
    if told:
        raise UserError(interrupted, status=INTERRUPTED)


class _Running:
    """A job under way: its process, the pipe of its outcome, and the thread that passes on its output."""

    def __init__(self, job: Job, slot: int, count: int, say: Say) -> None:
        self.job = job
        prefix = f"[{job.name}] "
        columns = min(WIDTH, shutil.get_terminal_size((2 * WIDTH, 1)).columns - len(prefix))
        self.result, outcome = CONTEXT.Pipe(duplex=False)
        said, speaking = CONTEXT.Pipe(duplex=False)
        arguments = (job.work, columns, slot, count, outcome, speaking)
        self.process = CONTEXT.Process(target=_do, args=arguments, name=job.name)
        self.process.start()
        # With the writing ends open in this process, the pipes would not end when the job's process dies.
        outcome.close()
        speaking.close()
        self.lines = threading.Thread(target=_pass_on, args=(said, prefix, say), daemon=True)
        self.lines.start()

    def end(self) -> BaseException | None:
        """Wait for the process to end, and return the error that it failed with, or None."""
        error: BaseException | None = None
        try:
            error = pickle.loads(self.result.recv_bytes())
        except EOFError:
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            hint = "; the system does so where memory runs out" if code == -signal.SIGKILL else ""
            error = UserError(f"{self.job.name}: its process {how}{hint}", self.job.unfinished, status=RUN_FAILED)
        self.process.join()
        self.lines.join(LAST_WORDS_SECONDS)  # a worker process of a killed one may hold its streams for a while
        return error


def _pass_on(said: Connection, prefix: str, say: Say) -> None:
    with open(said.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines, said:
        for line in lines:
            say(prefix + line.rstrip("\n"))


def _do(
    work: Callable[[int], None], columns: int, slot: int, count: int, outcome: Connection, speaking: Connection
) -> None:
    """Do a job in this process, and send its error, or None, to the process that started it."""
    with suppress(OSError):
        os.setsid()  # Ctrl-C of a terminal reaches the process that started it, which tells this one
    # The descriptors are replaced, and not only `sys.stdout`, so that output of C libraries and worker processes gets
    # the prefix too.
    for stream in (1, 2):
        os.dup2(speaking.fileno(), stream)
    speaking.close()
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _take_gpu(slot)
    for told in HEEDED:
        signal.signal(told, signal.default_int_handler)
    error: BaseException | None = None
    try:
        with working_together(Processes(on_machine=count)):
            work(columns)
    except KeyboardInterrupt:
        error = UserError("interrupted", status=INTERRUPTED)
    except BaseException as raised:
        error = portable(raised)
    sys.stdout.flush()
    outcome.send_bytes(pickle.dumps(error))


def _end_with_parent() -> None:
    """Interrupt this process by SIGTERM if the one that started it is killed; runs in a thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a job has one"
    parent.join()
    # Nobody reads the output any more: writing to the broken pipe would raise instead of saving a checkpoint.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.kill(os.getpid(), signal.SIGTERM)


def _take_gpu(slot: int) -> None:
    """Give jobs that run at the same time a GPU each, in turn."""
    if (gpus := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % gpus]


def portable(error: BaseException) -> BaseException:
    """Return an error, or one that quotes it if it cannot be pickled; bugs get their traceback as a note."""
    trace = ""
    if not isinstance(error, UserError):
        trace = "".join(traceback.format_exception(error))
        error.add_note(f"in a process of its own:\n{trace}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\nin a process of its own:\n{trace}")
    return error
