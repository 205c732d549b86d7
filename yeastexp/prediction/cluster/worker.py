"""The task of a worker of a Dask cluster: watch over a process that predicts one part.

PyTorch is loaded by that process alone: signals, threads and memory of the worker stay Dask's, and running out of
memory ends the process, not the worker.
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
"""The time between two checks whether the command that waits for the part still runs."""

PROCESS = "yeastexp.prediction.cluster.process"


class Ended(RuntimeError):
    """Raised if the process of a part was killed, as by a system without memory."""


@dataclass(frozen=True)
class Request:
    """The prediction that all parts belong to, with absolute paths and the `versions` of the process that asks."""

    run: Path
    inputs: tuple[str, ...]
    output: Path
    options: Mapping[str, Any]
    trusting: bool
    versions: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """A part, and the number of workers on the same machine, `beside`; `request` is pickled, because it needs PyTorch.

    `marker` is a file that exists as long as somebody waits for the part. A worker has the same folders if it finds
    that file and all paths of `seen`.
    """

    request: bytes
    part: Part
    beside: int
    marker: Path
    seen: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """The number of images that a part has taken part in, its warnings, and its error, if it failed."""

    count: int = 0
    notes: tuple[str, ...] = ()
    error: BaseException | None = None


def work(task: Task) -> bytes:
    """Predict a part and return the pickled `Outcome`.

    Raises Ended if the process was killed, and UserError if the worker has other folders or nobody waits any more.
    """
    worker = distributed.get_worker()
    if unseen := [path for path in (task.marker, *task.seen) if not path.exists()]:
        fault = f"the worker {worker.address} does not see {unseen[0]}"
        raise UserError(f"{fault}; workers need the run, the images and the output folder under the same paths")
    # Dask sets OMP_NUM_THREADS to 1 in its workers, because it runs one task in each thread; here one takes them all.
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": str(worker.state.nthreads),
    }
    command = [sys.executable, "-m", PROCESS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, 0, stdin=pipe, stdout=pipe, env=surroundings, start_new_session=True) as process:
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        try:
            # If the process has ended already, its exit status says more than the broken pipe.
            with suppress(BrokenPipeError):
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
