"""Predictions over a Dask cluster: the files of one process, also where a worker dies; and what is said otherwise."""

from __future__ import annotations

import os
import pickle
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import psutil
import pytest
from conftest import Call, WriteExperiment
from distributed.comm.core import CommClosedError
from test_parts import contents
from tiny import quiet

from yeastexp.errors import UserError
from yeastexp.prediction import parts
from yeastexp.prediction.cluster import client, process, worker
from yeastexp.prediction.cluster.worker import Ended, Outcome, Task
from yeastexp.prediction.parts import Part
from yeastexp.prediction.predict import predict
from yeastexp.training.run import run

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def kill_a_worker(killed: list[psutil.Process]) -> None:
    """Kill the first worker of this process that has begun a part, when the part's process is there."""
    while not killed:
        for each in psutil.Process().children(recursive=True):
            try:
                if worker.PROCESS in each.cmdline():
                    os.kill(each.ppid(), signal.SIGKILL)
                    killed.append(each)
                    return
            except psutil.Error:
                continue
        time.sleep(0.05)


def test_a_worker_that_dies_is_replaced_and_the_files_are_those_of_one_process(
    experiment_file: WriteExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = run(experiment_file({"epochs = 2": "epochs = 1"}), (), console=quiet())
    Path("runs/mine").mkdir()
    Path("runs/mine/001").symlink_to(trained.absolute())
    Path("images").symlink_to("data.h5")
    (command,) = re.findall(r"^python -m yeastexp (predict .* --dask local:2)$", PAGE.read_text(), re.MULTILINE)
    predict(Path("runs/mine/001"), ["images/"], Path("whole"))
    killed: list[psutil.Process] = []
    killing = threading.Thread(target=kill_a_worker, args=[killed], daemon=True)
    killing.start()
    status, said, told = call(*command.split())
    assert (status, said) == (0, "6 masks in out\n"), told
    assert told.startswith("2 parts on 2 workers of local:2\n")
    assert {"part 1/2: 3 images", "part 2/2: 3 images"} < {*told.splitlines()}
    # Its parent may not have waited for it yet, and psutil calls what is not waited for running.
    assert len(killed) == 1 and (not killed[0].is_running() or killed[0].status() == psutil.STATUS_ZOMBIE)
    assert contents("out") == contents("whole")


class Future:
    """One of Dask that has ended."""

    def __init__(self, result: Outcome | Exception) -> None:
        self.ended = result

    def result(self) -> bytes:
        if isinstance(self.ended, Exception):
            raise self.ended
        return pickle.dumps(self.ended)


DIED = distributed.KilledWorker("key", SimpleNamespace(address="tcp://one:1"), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended", "fault", "status"),
    [
        (Outcome(3, ("note",)), None, 0),
        (Outcome(0, (), UserError("a", "b", status=1)), "a\nb", 1),
        (UserError("the worker does not see it"), "the worker does not see it", 2),
        (DIED, "part 2/4: 4 workers died that had begun it; if memory ran out, take fewer workers or --tile 512; ", 1),
        (Ended("its process ended by SIGKILL"), "part 2/4: its process ended by SIGKILL; if memory ran out, take ", 1),
    ],
)
def test_what_a_part_ended_with(ended: Outcome | Exception, fault: str | None, status: int) -> None:
    outcome = client._outcome(Future(ended), Part(2, 4))  # type: ignore[arg-type]
    if fault is None:
        assert outcome == ended
        return
    assert isinstance(outcome.error, UserError) and outcome.error.status == status
    assert str(outcome.error).startswith(fault)


@pytest.mark.parametrize("error", [distributed.CancelledError("scheduler-connection-lost"), CommClosedError("gone")])
def test_a_scheduler_that_is_gone_is_a_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: object) -> Any:
        raise error

    monkeypatch.setattr(distributed, "wait", gone)
    future: Any = Future(Outcome())
    with pytest.raises(UserError, match=r"^--dask tcp://a:1: the scheduler is gone, or gave up the parts; the same"):
        list(client._errors(None, "tcp://a:1", {future: Part(1, 1)}, print))  # type: ignore[arg-type]


def test_no_worker_left_is_said_once_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    future: Any = Future(Outcome(2, ("note",)))
    answers = [TimeoutError(), TimeoutError(), SimpleNamespace(done={future})]

    def wait(*given: object) -> Any:
        if isinstance(answer := answers.pop(0), TimeoutError):
            raise answer
        return answer

    monkeypatch.setattr(distributed, "wait", wait)
    said: list[str] = []
    cluster: Any = SimpleNamespace(nthreads=dict)
    assert list(client._errors(cluster, "local:1", {future: Part(1, 1)}, said.append)) == [None]
    assert said == ["no worker is left; waiting for another one to join local:1", "warning: note", "part 1/1: 2 images"]


def test_workers_without_the_package_or_with_other_versions_are_refused() -> None:
    missing = ModuleNotFoundError("No module named 'yeastexp'")
    cluster: Any = SimpleNamespace(run=lambda *given, **options: {"tcp://a:1": sys, "tcp://b:1": missing})
    with pytest.raises(UserError, match=r"^--dask tcp://s:1: tcp://b:1 cannot import yeastexp \(ModuleNotFoundError"):
        client._refuse_without_package(cluster, "tcp://s:1")
    here = process.versions()
    process._refuse_other_versions(here)
    with pytest.raises(UserError, match=r"^a worker on \S+ has torch \S+, not 1\.0; start workers in the environment"):
        process._refuse_other_versions({**here, "torch": "1.0"})


@pytest.fixture
def as_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a worker start a shell script in place of Python."""
    there = SimpleNamespace(address="tcp://one:1", state=SimpleNamespace(nthreads=1))
    monkeypatch.setattr(distributed, "get_worker", lambda: there)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)

    def write(line: str) -> None:
        script = tmp_path / "script"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(script))

    return write


def test_a_worker_looks_after_its_process(tmp_path: Path, as_process: Callable[[str], None]) -> None:
    marker = tmp_path / "marker"
    task = Task(b"", Part(1, 1), 1, marker, (tmp_path,))
    with pytest.raises(UserError, match=f"^the worker tcp://one:1 does not see {marker}; workers need the run, the"):
        worker.work(task)
    marker.touch()
    as_process("printf answer")
    assert worker.work(task) == b"answer"
    as_process("kill -9 $$")
    with pytest.raises(Ended, match=r"^its process on tcp://one:1 ended by SIGKILL$"):
        worker.work(task)
    as_process(f"rm {marker}; exec sleep 60")
    with pytest.raises(UserError, match="nobody waits"):
        worker.work(task)


def test_as_many_parts_as_were_begun(tmp_path: Path) -> None:
    assert parts.count_in(tmp_path) is None
    (tmp_path / f".{Part(2, 3).file_of(tmp_path / 'a.tif').name}.progress").touch()
    assert parts.count_in(tmp_path) == 3


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["local:0"], "--dask local:0: is no cluster; give local:2 for two processes here, or an address"),
        (["tcp://127.0.0.1:1"], "--dask tcp://127.0.0.1:1: no scheduler answers ("),
        (
            ["there"],
            "--dask there: no scheduler answers (missing port number in address 'there'); give",
        ),
        (["local:2", "--join"], "--dask: predicts all parts and joins them; omit --part and --join"),
    ],
)
def test_what_is_no_cluster(
    words: list[str], fault: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.2)
    status, _, said = call("predict", tmp_path, "a.png", "-o", tmp_path / "out", "--dask", *words)
    assert status == 2 and said.startswith(fault) and said.count("\n") == 1


def test_without_dask_it_says_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    told = call("predict", "run", "a.png", "-o", "out", "--dask", "local:2")
    assert told == (2, "", "--dask: needs other packages; pip install dask distributed\n")
