"""Prediction in parts on the workers of a Dask cluster: sends the parts, waits for them, and collects their faults."""

from __future__ import annotations

import importlib
import logging
import pickle
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import distributed
from distributed.comm.addressing import get_address_host

from yeastexp.config import trust
from yeastexp.errors import RUN_FAILED, UserError, in_one_line
from yeastexp.prediction import parts
from yeastexp.prediction.cluster.process import versions
from yeastexp.prediction.cluster.worker import Ended, Outcome, Request, Task, work
from yeastexp.prediction.parts import Part
from yeastexp.system import cores, files
from yeastexp.system.formatting import format_count
from yeastexp.system.progress import Say, say

CONNECT_SECONDS = 10.0
"""The time to wait for a scheduler, and then for the first worker."""

LOOK_SECONDS = 2.0
"""The time between two checks whether there are still a scheduler and workers."""

RETRIES = 3
"""How often a part is begun again after its process was killed; Dask does so as often after a worker was."""

AGAIN = "the same command does what is missing"
ALIKE = "start workers in the environment that this command runs in"


def predict_parts(
    address: str, run: Path, inputs: Sequence[str], output: Path, options: Mapping[str, Any], say: Say = say
) -> None:
    """Predict all parts, each as `predict` does with a `part` and these options; what remains is to join them.

    Raises UserError with what was wrong with any of them, when all have ended.
    """
    with _connected(address) as client, _marker(output) as marker:
        workers = client.nthreads()
        _refuse_without_package(client, address)
        beside = Counter(map(get_address_host, workers))
        count = parts.count_in(output) or len(workers)
        absolute = tuple(str(Path(each).absolute()) for each in inputs)
        request = pickle.dumps(
            Request(run.absolute(), absolute, output.absolute(), options, trust.is_trusting(), versions())
        )
        # Inputs that do not exist here either are no sign of other folders; `predict` names them.
        seen = tuple(path.absolute() for path in (run, *map(Path, inputs)) if path.exists())
        say(f"{format_count(count, 'part')} on {format_count(len(workers), 'worker')} of {address}")
        futures: dict[distributed.Future[bytes], Part] = {}
        for index in range(count):
            # Workers are given parts in turn, which Dask does not promise by itself; if one dies, another takes over.
            worker = [*workers][index % len(workers)]
            task = Task(request, Part(index + 1, count), beside[get_address_host(worker)], marker, seen)
            key = f"{marker.name}-{task.part}"
            future = client.submit(work, task, key=key, workers=[worker], allow_other_workers=True, retries=RETRIES)
            futures[future] = task.part
        errors = [error for error in _errors(client, address, futures, say) if error is not None]
    faults: dict[str, int] = {}
    for error in errors:
        if not isinstance(error, UserError):
            raise error
        faults |= dict.fromkeys(error.faults, error.status)
    if faults:
        raise UserError(*faults, status=min(faults.values()))


def _errors(
    client: distributed.Client, address: str, waiting: dict[distributed.Future[bytes], Part], say: Say
) -> Iterator[BaseException | None]:
    """Yield for each part, as it ends, its error or None; warnings and finished parts are printed."""
    said: set[str] = set()
    none_left = f"no worker is left; waiting for another one to join {address}"
    while waiting:
        ended: set[distributed.Future[bytes]] = set()
        try:
            with suppress(TimeoutError):
                ended = distributed.wait([*waiting], LOOK_SECONDS, "FIRST_COMPLETED").done
            if not ended and none_left not in said and not client.nthreads():
                say(none_left)
                said.add(none_left)
        except (distributed.CancelledError, OSError):
            fault = f"--dask {address}: the scheduler is gone, or gave up the parts; {AGAIN}"
            raise UserError(fault, status=RUN_FAILED) from None
        for future in ended:
            part = waiting.pop(future)
            outcome = _outcome(future, part)
            for note in outcome.notes:
                if note not in said:
                    say(f"warning: {note}")
                    said.add(note)
            if outcome.error is None:
                say(f"part {part}: {format_count(outcome.count, 'image')}")
            yield outcome.error


def _outcome(future: distributed.Future[bytes], part: Part) -> Outcome:
    """Return the outcome of a finished future, whether the part failed or the cluster did."""
    try:
        outcome: Outcome = pickle.loads(future.result())
        return outcome
    except UserError as error:
        return Outcome(error=error)
    except (Ended, distributed.KilledWorker) as error:
        how = error if isinstance(error, Ended) else f"{RETRIES + 1} workers died that had begun it"
        fault = f"part {part}: {how}; if memory ran out, take fewer workers or --tile 512; {AGAIN}"
    return Outcome(error=UserError(fault, status=RUN_FAILED))


def _refuse_without_package(client: distributed.Client, address: str) -> None:
    """Raise UserError if a worker cannot import this package."""
    # Asked before a task is sent, for a worker that cannot unpickle a task ends, and the next one would as well.
    there = client.run(importlib.import_module, work.__module__, on_error="return")
    for worker, result in there.items():
        if isinstance(result, Exception):
            raise UserError(f"--dask {address}: {worker} cannot import yeastexp ({in_one_line(result)}); {ALIKE}")


@contextmanager
def _connected(address: str) -> Iterator[distributed.Client]:
    """Yield a client of the cluster that `local:N` starts, or whose scheduler has an address.

    Raises UserError if no scheduler answers, or if it has no workers.
    """
    # Dask logs tracebacks of lost connections, which `_errors` reports in a line.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    kind, _, number = address.partition(":")
    if kind == "local":
        if not number.isdecimal() or not int(number):
            raise UserError(f"--dask {address}: is no cluster; give local:2 for two processes here, or an address")
        threads = max(1, cores.allowed()[0] // int(number))
        with (
            distributed.LocalCluster(
                n_workers=int(number), threads_per_worker=threads, processes=True, host="127.0.0.1",
                dashboard_address=None, memory_limit=None, silence_logs=logging.CRITICAL,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):  # fmt: skip
            yield client
        return
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        fault = f"no scheduler answers ({' '.join(str(error).split())})"
        raise UserError(f"--dask {address}: {fault}; give the address that 'dask scheduler' says") from None
    with client:
        try:
            client.wait_for_workers(1, CONNECT_SECONDS)
        except TimeoutError:
            raise UserError(f"--dask {address}: has no workers; start some, as by 'dask worker {address}'") from None
        yield client


@contextmanager
def _marker(output: Path) -> Iterator[Path]:
    """Keep a file in the output folder as long as this command waits for its parts."""
    # Workers see by it that they have the same folder, and that somebody still waits for them: Dask does not stop a
    # task that runs when its client is killed.
    marker = output.absolute() / f".dask-{uuid.uuid4().hex[:8]}"
    try:
        files.write_text(marker, "a command waits for the parts of what is predicted into this folder\n")
    except OSError as error:
        raise files.unwritten(marker, error) from error
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)
