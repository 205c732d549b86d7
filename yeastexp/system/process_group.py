"""A group of processes started by torchrun or srun: how they exchange values, and how all end if one does."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store, _set_pg_timeout

from yeastexp.errors import INTERRUPTED, RUN_FAILED, UserError
from yeastexp.system import processes
from yeastexp.system.processes import EndedElsewhere, Processes
from yeastexp.system.terminal import echo

Value = TypeVar("Value")

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others: longer than one of them takes to write a checkpoint or draw pictures."""

MEET, MEET_SECONDS = "YEASTEXP_MEET_SECONDS", 180
"""How long a process waits for others to start, which load libraries meanwhile, and the variable that changes it."""

SAID_SECONDS = 10.0
"""After this time a process says that it waits for others to start."""

LEAVING_SECONDS = 5.0
"""How long the first process, which holds the store that all read, waits for the others to end after a failure."""

LOOKING_SECONDS = 0.5
"""How often a process that works `apart` looks whether others have left."""

FAILED = "yeastexp: the rank of the process that failed first"
LEFT = "yeastexp: how many processes ended"


@dataclass(frozen=True)
class ProcessGroup(Processes):
    """Several processes; values on the host are exchanged by gloo, rows on GPUs by NCCL."""

    nccl: Any = None

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in their order; they are pickled."""
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def any(self, told: bool) -> bool:
        """Whether something is so in any process."""
        flag = torch.tensor(told)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def gather_rows(self, row: Tensor) -> Callable[[], Tensor]:
        """Start to gather a row (n) of each process. Returns a function that waits for all rows, (count, n)."""
        rows = row.new_empty(self.count, len(row))
        group = self.nccl if row.is_cuda else None
        work = dist.all_gather(list(rows.unbind()), row, group=group, async_op=True)

        def gathered() -> Tensor:
            work.wait()
            return rows

        return gathered

    @contextmanager
    def apart(self, remedy: str) -> Iterator[None]:
        """Let each process work by itself within the block, whose end waits for all, however long they take.

        If a process ends early, the others are interrupted. Raises UserError with the `remedy` if one vanishes.
        """
        # A group of its own, since waiting in the default one times out after PATIENCE.
        patient = dist.new_group(backend="gloo", timeout=timedelta(days=365))
        done = threading.Event()
        watch = threading.Thread(target=_heed, args=(_get_default_store(), done), daemon=True)
        watch.start()
        try:
            yield
            work = dist.all_reduce(torch.zeros(()), group=patient, async_op=True)
            # `wait` alone would block in C++, where no signal handler of Python runs.
            while not work.is_completed():
                time.sleep(0.05)
            work.wait()
        except RuntimeError as error:
            if not _is_of_the_group(error):
                raise
            raise UserError(f"another process ended without notice; {remedy}", status=RUN_FAILED) from error
        finally:
            done.set()
            watch.join()


def _heed(store: Any, done: threading.Event) -> None:
    """Interrupt this process by SIGTERM when another has left before all were done; runs in a thread."""
    with suppress(RuntimeError):  # the process that kept the store is gone
        while not done.wait(LOOKING_SECONDS):
            if store.add(LEFT, 0):
                os.kill(os.getpid(), signal.SIGTERM)
                return


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the process group until all processes are done.

    If a process fails, the first to do so raises its error, and the others raise EndedElsewhere with the same status.
    """
    # NCCL takes one process per GPU. With fewer GPUs all processes compute on the CPU. PyTorch reads the variable when
    # it first touches a GPU, which counting them does not do.
    on_machine = _on_machine()
    if 0 < torch.cuda.device_count() < on_machine:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _meet()
    nccl = dist.new_group(backend="nccl", timeout=PATIENCE) if torch.cuda.is_available() else None
    group = ProcessGroup(idist.get_rank(), idist.get_world_size(), on_machine, nccl)
    try:
        with processes.working_together(group), _heard(group):
            yield group
        dist.barrier()
    except BaseException as error:
        store = _get_default_store()
        first = _is_first(group, error, store)
        status = getattr(error, "status", RUN_FAILED)
        if _is_interruption(error):
            status = RUN_FAILED if _has_failed(store) else INTERRUPTED
        _leave(group, store)
        if not first:
            raise EndedElsewhere(status) from None
        if _is_of_the_group(error):
            raise UserError(
                "another process ended without notice, or was not heard of for "
                f"{PATIENCE.total_seconds() / 60:.0f} minutes; 'resume' continues the run from its last checkpoint",
                status=RUN_FAILED,
            ) from error
        raise
    idist.finalize()


def _meet() -> None:
    """Start the process group. Raises UserError if not all processes arrive in time: one may have been killed."""
    count, told = processes.launched(), os.environ.get(MEET, "")
    seconds = int(told) if told.isdecimal() and int(told) else MEET_SECONDS
    waiting = f"waiting for all of {count} processes to start, for {seconds} s at most"
    timer = threading.Timer(SAID_SECONDS, echo, [waiting], {"err": True})
    timer.daemon = True
    timer.start()
    try:
        idist.initialize("gloo", timeout=timedelta(seconds=seconds))
    except dist.DistError as error:
        fault = f"not all of {count} processes started within {seconds} s ({str(error).splitlines()[0].rstrip('.')})"
        remedy = f"end those that are left, and start all of them again; {MEET}={2 * seconds} waits longer"
        raise UserError(f"{fault}; {remedy}", status=RUN_FAILED) from error
    finally:
        timer.cancel()
    # The time allowed for starting is not that for working: it was short, so that a missing process is noticed.
    _set_pg_timeout(PATIENCE)
    _get_default_store().set_timeout(PATIENCE)


@contextmanager
def _heard(group: ProcessGroup) -> Iterator[None]:
    """Silence all processes but the first within the block; errors are raised out of it and can be printed."""
    if group.writes:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _is_first(group: ProcessGroup, error: BaseException, store: Any) -> bool:
    """Whether this process is the first to fail, and so reports; True if the store is gone, which alone could tell.

    An interruption reaches all processes at once: the first rank reports it, unless another process has failed.
    """
    if _is_interruption(error):
        return group.writes and not _has_failed(store)
    # Failures of several processes can be simultaneous: the store sets the key for exactly one of them.
    with suppress(RuntimeError):
        first: bytes = store.compare_set(FAILED, "", str(group.rank))
        return int(first) == group.rank
    return True


def _is_interruption(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt) or getattr(error, "status", None) == INTERRUPTED


def _has_failed(store: Any) -> bool:
    """Whether a process has failed; True if the store is gone, since its process has ended then."""
    with suppress(RuntimeError):
        return bool(store.check([FAILED]))
    return True


def _leave(group: ProcessGroup, store: Any) -> None:
    """Tell the others that this process ends. The first process also keeps the store open until they have read it."""
    with suppress(RuntimeError):
        store.add(LEFT, 1)
        # Closing gloo's connections fails at once what others wait for. NCCL would first wait for it itself.
        if group.nccl is None:
            dist.destroy_process_group()
        until = time.monotonic() + LEAVING_SECONDS
        while group.writes and store.add(LEFT, 0) < group.count and time.monotonic() < until:
            time.sleep(0.02)


def _is_of_the_group(error: BaseException) -> bool:
    """Whether an error is about a lost connection to another process; gloo raises plain RuntimeErrors, told by text."""
    return isinstance(error, RuntimeError) and re.search("gloo|NCCL|peer|Timed out", str(error)) is not None


def _on_machine() -> int:
    """Return the number of processes that the launcher started on this machine."""
    told = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    found = re.match(r"\d+", told)  # srun writes '2(x3)' for two on each of three machines
    return int(found[0]) if found else processes.launched()
