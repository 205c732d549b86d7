"""Commands of several processes, forked from the one that tests: no interpreter has to start."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path


@dataclass
class Ended:
    """How processes ended: their exit statuses and what each of them said on either stream."""

    statuses: list[int | None]
    said: list[str]


def torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in here.items()}}


def torchrun_on_two_machines(rank: int, count: int, port: int) -> dict[str, str]:
    """What two agents of torchrun, each on a machine of its own, tell a process."""
    return {**torchrun(rank, count, port), "LOCAL_RANK": str(rank % (count // 2)), "LOCAL_WORLD_SIZE": str(count // 2)}


def srun(rank: int, count: int, port: int) -> dict[str, str]:
    """What srun tells a process of a step on two machines, both of which are this one."""
    told = {
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank % (count // 2),
        "SLURM_NTASKS": count,
        "SLURM_STEP_NUM_TASKS": count,
        "SLURM_STEP_TASKS_PER_NODE": f"{count // 2}(x2)",
        "SLURM_JOB_ID": port % 10000,
        "SLURM_JOB_NUM_NODES": 2,
        "SLURM_JOB_NODELIST": "localhost,localhost",
    }
    return {name: str(value) for name, value in told.items()}


Launcher = Callable[[int, int, int], Mapping[str, str]]


def start(
    count: int, *words: object, folder: Path, launcher: Launcher = torchrun, told: Mapping[str, str] | None = None
) -> list[ForkProcess]:
    """Start a command in so many processes, in a folder and with what is `told` to all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(count):
        environment = {**(launcher(rank, count, port) if count > 1 else {}), **(told or {})}
        process = multiprocessing.get_context("fork").Process(target=_main, args=(words, environment, folder, rank))
        process.start()
        started.append(process)
    return started


def finish(processes: Sequence[ForkProcess], folder: Path, seconds: float = 60) -> Ended:
    """Wait for processes to end; those that do not are killed, and have no status."""
    statuses: list[int | None] = []
    for process in processes:
        process.join(seconds)
        statuses.append(process.exitcode)
        if process.exitcode is None:
            process.kill()
            process.join()
    return Ended(statuses, [_file(folder, rank).read_text() for rank in range(len(processes))])


def together(
    count: int, *words: object, folder: Path, launcher: Launcher = torchrun, told: Mapping[str, str] | None = None
) -> Ended:
    """Run a command in so many processes to its end."""
    return finish(start(count, *words, folder=folder, launcher=launcher, told=told), folder)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"said_{rank}.txt"


def _main(words: Sequence[object], told: Mapping[str, str], folder: Path, rank: int) -> None:
    from yeastexp.__main__ import main

    os.environ.update(told)
    with _file(folder, rank).open("w", buffering=1) as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout, sys.stderr = said, said
        os.chdir(os.environ.get("ELSEWHERE", folder) if rank else folder)
        sys.argv = ["yeastexp", *map(str, words)]
        status = 1
        try:
            main()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            traceback.print_exc()
        said.flush()
        os._exit(status)
