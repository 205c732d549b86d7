"""Items made in worker processes, in their order, and the true cause where one cannot be made."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from yeastexp import plugins
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system.formatting import format_bytes

Item = TypeVar("Item")

SHARED = Path("/dev/shm")
"""What tensors of worker processes travel through."""

LOCKS = 3
"""Of a queue, of which each worker has one."""

PATIENCE = 600.0
"""Seconds without an item after which the workers count as stuck."""


class WithPlugins:
    """What plugin files define parts of: a worker loads them before it unpickles the rest, which it does in order."""

    def __getstate__(self) -> dict[str, Any]:
        return {"plugins": _Plugins(), **vars(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        del state["plugins"]
        self.__dict__.update(state)


class _Plugins:
    """The plugin files of the process that pickles it, loaded where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return plugins.load, (plugins.active(),)


class _Made(Dataset[Any]):
    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, index: Any) -> Any:
        try:
            return _sendable(self.make(index))
        except Exception as error:
            return _portable(error)


@dataclass(frozen=True)
class _Piped:
    """An item whose tensors found no room in shared memory, pickled."""

    item: bytes


def _sendable(item: Any) -> Any:
    """An item with its tensors in shared memory, through which they travel; if that is full, through a pipe.

    PyTorch would move them there in a thread of the worker's, where an error is lost and the item never arrives.
    """
    tensors = [part for part in (item if isinstance(item, tuple) else (item,)) if isinstance(part, torch.Tensor)]
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError:
        return _Piped(pickle.dumps(item))
    return item


def _portable(error: Exception) -> Exception:
    """The error with the worker's traceback, or, where it cannot travel, one that quotes it."""
    error.add_note(f"in a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error


def made(
    make: Callable[[Any], Item], indices: Sequence[Any], workers: int, context: str | None, pinned: bool = False
) -> Iterator[Item]:
    """`make` of each index, made ahead by worker processes, if any; what one of them raises is raised here.

    Nothing is drawn from a global generator. UserError tells how a worker died, or where all are stuck. If shared
    memory is too small, items come through pipes, or are made in this process: a warning says so.
    """
    if not workers:
        yield from map(make, indices)
        return
    with tempfile.TemporaryDirectory() as folder:
        loader = DataLoader(
            _Made(make),
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            pin_memory=pinned,
            multiprocessing_context=context,
            generator=torch.Generator(),
            timeout=PATIENCE,
            worker_init_fn=partial(_begin, folder),
        )
        try:
            _locks(workers)
            items = iter(loader)
        except OSError as error:  # not even the locks of the queues find room
            _warn_of_shared_memory(f"there are none ({error.strerror}), and batches are cut in the training process")
            yield from map(make, indices)
            return
        piped = False
        try:
            for item in items:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, _Piped):
                    if not piped:
                        _warn_of_shared_memory("batches come through pipes, which takes longer")
                    piped, item = True, pickle.loads(item.item)
                yield item
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            cause = _death(items) or _stuck(items, Path(folder))
            raise UserError(f"[runtime] workers: {cause}", status=RUN_FAILED) from error


def _locks(workers: int) -> None:
    """Make as many locks as the queues of workers need; a loader that cannot complains once more when it is deleted."""
    held = [multiprocessing.Lock() for _ in range(LOCKS * (workers + 4))]
    del held


def _warn_of_shared_memory(consequence: str) -> None:
    try:
        room = f" ({format_bytes(shutil.disk_usage(SHARED).total)})"
    except OSError:
        room = ""
    remedy = "make it larger, as 'docker run --shm-size=1g' does, or set 'workers = 0'"
    warnings.warn(f"[runtime] workers: {SHARED}{room} is too small for them: {consequence}; {remedy}", stacklevel=3)


def _begin(folder: str, worker: int) -> None:
    """In a worker: leave Ctrl-C and SIGTERM to the program that started it, and tell where you are when asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.register(signal.SIGUSR1, (Path(folder) / str(worker)).open("w"), all_threads=False)


def _death(items: Any) -> str | None:
    for process in items._workers:
        process.join(timeout=0.2)
        if code := process.exitcode:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            lower = "lower [runtime] workers or [train] batch_size"
            return f"process {process.pid} {how}; often because memory ran out: {lower}"
    return None


def _stuck(items: Any, folder: Path) -> str:
    for process in items._workers:
        os.kill(process.pid, signal.SIGUSR1)
    time.sleep(0.2)
    places = [line.strip() for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()[1:2]]
    where = "; ".join(dict.fromkeys(places)) or "unknown"
    return f"no batch in {PATIENCE:.0f} s; they are stuck in: {where}"
