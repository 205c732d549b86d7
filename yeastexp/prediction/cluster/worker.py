"""What a worker of a Dask cluster does with one part: watch over a process of its own that predicts it.

PyTorch is loaded by that process alone: signals, threads and memory of the worker stay Dask's.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import distributed

from yeastexp.errors import UserError
from yeastexp.prediction.parts import Part

POLL_SECONDS = 1.0
"""How often a worker looks whether the command that it works for is still there."""

PROCESS = "yeastexp.prediction.cluster.process"


class Ended(RuntimeError):
    """The process of a part was ended from outside, as by a system without memory."""


@dataclass(frozen=True)
class Request:
    """What every part is asked for, with absolute paths, by a process with these `versions`."""

    run: Path
    inputs: tuple[str, ...]
    output: Path
    options: Mapping[str, Any]
    trusting: bool
    versions: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """A part, and beside how many others on the same machine; `request` is pickled, as it needs PyTorch.

    `marker` is a file that is there as long as somebody waits; it and what else has to be `seen` show whether a worker
    has the same folders.
    """

    request: bytes
    part: Part
    beside: int
    marker: Path
    seen: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """How many images a part has taken part in, what it warns of, and what it failed with, if it did."""

    count: int = 0
    notes: tuple[str, ...] = ()
    error: BaseException | None = None


def work(task: Task) -> bytes:
    """Predict a part; gives the pickled `Outcome`. Raises Ended if its process was killed."""
    worker = distributed.get_worker()
    if unseen := [path for path in (task.marker, *task.seen) if not path.exists()]:
        fault = f"the worker {worker.address} does not see {unseen[0]}"
        raise UserError(f"{fault}; workers need the run, the images and the output folder under the same paths")
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": str(worker.state.nthreads),  # Dask sets 1 for all that a worker does
    }
    command = [sys.executable, "-m", PROCESS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, 0, stdin=pipe, stdout=pipe, env=surroundings, start_new_session=True) as process:
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        try:
            with suppress(BrokenPipeError):  # it has ended already
                process.stdin.write(pickle.dumps(task))
            while not wait([process.stdout.fileno()], POLL_SECONDS):
                if not task.marker.exists():
                    raise UserError("nobody waits for it")
            if answer := process.stdout.read():
                return answer
            code = process.wait()
        finally:
            process.kill()
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    raise Ended(f"its process on {worker.address} ended by {how}")
