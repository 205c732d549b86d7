"""Items made in worker processes, yielded in order, with the true cause where one cannot be made."""

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
"""Where Linux keeps shared memory, through which tensors of worker processes travel."""

LOCKS = 3
"""Locks in one multiprocessing queue; each worker has a queue of its own."""

PATIENCE = 600.0
"""Seconds without an item after which the workers count as stuck."""


class WithPlugins:
    """A base class for objects that hold parts from plugin files, which a worker process has to load first."""

    def __getstate__(self) -> dict[str, Any]:
        # A dictionary is unpickled in its order: the plugin files come before the objects of their classes.
        return {"plugins": _Plugins(), **vars(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        del state["plugins"]
        self.__dict__.update(state)


class _Plugins:
    """The plugin files of the process that pickles it, loaded where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return plugins.load, (plugins.active(),)


class _Made(Dataset[Any]):
    """A data set of `make(index)`, which returns an error as an item.

    The DataLoader would raise another error of the same class made of the traceback's text alone: a UserError would
    lose its place and status.
    """

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
    """An item with its tensors moved to shared memory, or pickled as bytes for a pipe if that is full.

    PyTorch would move them there in a thread of the worker, where an error is lost and the item never arrives.
    """
    tensors = [part for part in (item if isinstance(item, tuple) else (item,)) if isinstance(part, torch.Tensor)]
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError:
        return _Piped(pickle.dumps(item))
    return item


def _portable(error: Exception) -> Exception:
    """The error with the worker's traceback as a note, or a RuntimeError that quotes it if it cannot be pickled."""
    error.add_note(f"in a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error


def made(
    make: Callable[[Any], Item], indices: Sequence[Any], workers: int, context: str | None, pinned: bool = False
) -> Iterator[Item]:
    """Yield `make(index)` for each index, computed ahead by worker processes if there are any.

    An error in a worker is raised here. Raises UserError if a worker died, or if none has made an item in `PATIENCE`
    seconds. If shared memory is too small, items come through pipes or are made in this process, with a warning.
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
            # Without one, the loader would draw a seed from the global generator, and the number of workers would
            # change everything that is drawn after it.
            generator=torch.Generator(),
            timeout=PATIENCE,
            worker_init_fn=partial(_begin, folder),
        )
        try:
            _locks(workers)
            items = iter(loader)
        except OSError as error:  # shared memory has no room even for the locks of the queues
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
            # PyTorch has no class of its own for a worker that died or a timeout, only these words.
            if "DataLoader" not in str(error):
                raise
            cause = _death(items) or _stuck(items, Path(folder))
            raise UserError(f"[runtime] workers: {cause}", status=RUN_FAILED) from error


def _locks(workers: int) -> None:
    """Raises OSError if there is no room for the locks of all queues.

    They are made and dropped before the loader makes its own: a half-made loader prints a traceback when it is deleted.
    """
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
    """Set up a worker's signals; on SIGUSR1 it writes its traceback to a file in `folder`."""
    # A terminal sends Ctrl-C to all processes at once, but the program decides when its workers end. SIGTERM, by which
    # it ends them, must not run the handler that a forked worker inherited.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.register(signal.SIGUSR1, (Path(folder) / str(worker)).open("w"), all_threads=False)


def _death(items: Any) -> str | None:
    """How the first dead worker ended, and a remedy; None if all are alive."""
    for process in items._workers:
        process.join(timeout=0.2)
        if code := process.exitcode:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            lower = "lower [runtime] workers or [train] batch_size"
            return f"process {process.pid} {how}; often because memory ran out: {lower}"
    return None


def _stuck(items: Any, folder: Path) -> str:
    """The lines of code at which the workers are, as faulthandler wrote them: below a heading, the innermost first."""
    for process in items._workers:
        os.kill(process.pid, signal.SIGUSR1)
    time.sleep(0.2)
    places = [line.strip() for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()[1:2]]
    where = "; ".join(dict.fromkeys(places)) or "unknown"
    return f"no batch in {PATIENCE:.0f} s; they are stuck in: {where}"
