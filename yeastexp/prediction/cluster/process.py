"""The process that predicts one part for a worker of a Dask cluster, and ends when the worker does.

Standard input gives the part and stays open as long as the worker lives; standard output takes the `Outcome`.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from yeastexp.config import trust
from yeastexp.errors import UserError
from yeastexp.prediction.cluster.worker import Outcome, Task
from yeastexp.prediction.predict import predict
from yeastexp.system import environment
from yeastexp.system.jobs import portable
from yeastexp.system.processes import Processes, working_together


def versions() -> dict[str, Any]:
    """Return what has to be the same for all parts: versions of packages, and the revision of this one."""
    return {**environment.versions(), "source": environment.source()}


def main() -> None:
    """Predict the part that standard input names."""
    # The pipe of standard output is for the answer alone: anything that Python or a library prints goes to stderr.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task: Task = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    with answer:
        pickle.dump(_outcome(task), answer)


def _outcome(task: Task) -> Outcome:
    """Predict a part and return its count, its warnings and its error, whichever that is."""
    count, error, request = 0, None, pickle.loads(task.request)
    trusting = trust.trusting() if request.trusting else nullcontext()
    with warnings.catch_warnings(record=True) as caught, trusting, working_together(Processes(on_machine=task.beside)):
        warnings.simplefilter("always", UserWarning)
        try:
            _refuse_other_versions(request.versions)
            count = predict(request.run, request.inputs, request.output, part=task.part, **request.options)
        except Exception as raised:
            error = portable(raised)
    notes = (str(note.message) for note in caught if issubclass(note.category, UserWarning))
    return Outcome(count, tuple(dict.fromkeys(notes)), error)


def _refuse_other_versions(asked: Mapping[str, Any]) -> None:
    """Raise UserError if this part would be computed by other versions than the other parts."""
    if wrong := [f"{name} {here}, not {asked.get(name)}" for name, here in versions().items() if asked[name] != here]:
        fault = f"a worker on {os.uname().nodename} has {', '.join(wrong)}"
        raise UserError(f"{fault}; start workers in the environment that this command runs in")


def _end_with_worker() -> None:
    """Exit as soon as standard input ends, which means that the worker has died."""
    # At once, without cleaning up: Dask gives the part to another worker, which must not find this process writing.
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
