"""Commands as processes of their own that need not import PyTorch first: forked from one that has imported everything.

`Process` is a `subprocess.Popen` and `run` a `subprocess.run` of `python -m MODULE …` or `python -c CODE …`, a child
with a pid, a status, signals and streams of its own; what a program does while it starts is not shown by it, nor what
it reads of its environment then. `on_path` is a folder whose `python` does likewise in a shell.

    python tests/forks.py SOCKET

is what they are forked from: one for each process that tests, from its first such command to its end.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

HOME = Path(__file__).parent.parent
LATER = ["torch._inductor", "tensorboard.plugins.hparams.api_pb2"]
"""What PyTorch imports for what every run asks of it."""

SET_CHILD_SUBREAPER = 36
LARGEST = 1 << 17
"""Bytes of a request."""


# The side that tests


@cache
def server() -> str:
    """The address of what is forked from, which ends with this process: then its stdin is closed."""
    address = f"{tempfile.mkdtemp(prefix='forks')}/socket"
    process = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    atexit.register(process.communicate)
    return address


def ask(address: str, words: Sequence[str], streams: Sequence[int], **more: Any) -> socket.socket:
    """Ask for a command; the answer is its pid."""
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked.connect(address)
    request = json.dumps({"words": list(words), **more}).encode()
    assert len(request) < LARGEST
    socket.send_fds(asked, [request], list(streams))
    return asked


@contextmanager
def adopting() -> Iterator[None]:
    """Let this process be the parent of what is left without one."""
    control = ctypes.CDLL(None, use_errno=True).prctl
    assert control(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        control(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Process(subprocess.Popen[Any]):
    """A child of this process; `file_size` limits the size of its files."""

    def __init__(self, words: Sequence[str], file_size: int | None = None, **options: Any) -> None:
        self.file_size = file_size
        super().__init__(words, **options)

    def _execute_child(self, args: Sequence[Any], *others: Any) -> None:  # type: ignore[override]
        (_, preexec_fn, _, pass_fds, cwd, env, *_, shell) = others[:9]
        p2cread, _, _, c2pwrite, _, errwrite, _, _, _, _, _, new_session, _ = others[9:]
        assert not (preexec_fn or pass_fds or shell) and args[0] == sys.executable
        streams = [given if given >= 0 else usual for usual, given in enumerate((p2cread, c2pwrite, errwrite))]
        with adopting():
            asked = ask(
                server(),
                [os.fsdecode(word) for word in args[1:]],
                streams,
                cwd=os.fspath(cwd or Path.cwd()),
                env=dict(os.environ if env is None else env),
                new_session=new_session,
                file_size=self.file_size,
            )
            with asked:
                self.pid = int(asked.recv(100))
                asked.recv(100)  # nothing, and not before the child has been handed over
        self._child_created = True
        self._close_pipe_fds(*others[9:15])  # type: ignore[attr-defined]


def run(words: Sequence[Any], check: bool = False, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end, with what it says."""
    with Process(words, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}) as process:
        said = process.communicate()
    done = subprocess.CompletedProcess(words, process.returncode, *said)
    if check:
        done.check_returncode()
    return done


def on_path(folder: Path) -> Path:
    """A folder for PATH with a `python` that has its commands forked."""
    program = folder / "python"
    program.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.append({str(HOME / 'tests')!r})\n"
        f"import forks\nforks.stand_in({server()!r})\n"
    )
    program.chmod(0o755)
    return folder


def stand_in(address: str) -> None:
    """Have a command forked and end as it does."""
    words = sys.argv[2:] if sys.argv[1] == "-u" else sys.argv[1:]
    with ask(address, words, (0, 1, 2), cwd=str(Path.cwd()), env=dict(os.environ), kept=True) as asked:
        asked.recv(100)
        status = int(asked.recv(100))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


# The side that is forked from


def serve(address: str) -> dict[str, Any]:
    """Import everything, then fork for each request, until stdin ends; in what was forked, gives the request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which whoever tests is told at the terminal, and ends this one
    import yeastexp

    names = [module.name for module in pkgutil.walk_packages(yeastexp.__path__, "yeastexp.")]
    for name in [name for name in names if not name.endswith("__main__")] + LATER:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads are not forked"
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, sys.stdin], [], [], 1.0)
            if sys.stdin in ready:
                shutil.rmtree(Path(address).parent)
                sys.exit()
            if listening in ready:
                asked, _ = listening.accept()
                with asked:
                    message, streams, _, _ = socket.recv_fds(asked, LARGEST, 3)
                    request = json.loads(message)
                    between = os.fork()
                    if not between:
                        listening.close()
                        between_them(asked, request.get("kept", False))
                        return prepared(request, streams)
                    for stream in streams:
                        os.close(stream)
                    if "kept" not in request:
                        os.waitpid(between, 0)  # what it forked has another parent by now
            with suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)


def between_them(asked: socket.socket, kept: bool) -> None:
    """Fork the command and say its pid; end, or where it is `kept` wait for it and say its status."""
    command = os.fork()
    if not command:
        asked.close()
        return
    asked.send(str(command).encode())
    if kept:
        _, status = os.waitpid(command, 0)
        asked.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def prepared(request: dict[str, Any], streams: list[int]) -> dict[str, Any]:
    """Become what was asked for, before its first line."""
    for usual, stream in enumerate(streams):
        os.dup2(stream, usual)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request.get("new_session"):
        os.setsid()
    if request.get("file_size"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    errors = os.environ.get("PYTHONIOENCODING", "").partition(":")[2] or "strict"
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", errors=errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    return request


def carry_out(kind: str, program: str, *words: str) -> None:
    """What Python does with its command line."""
    if kind == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv = [program, *words]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c"
        sys.path[0] = ""
        sys.argv = [kind, *words]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), sys.modules["__main__"].__dict__)


def end(status: object) -> NoReturn:
    """End as Python does after `sys.exit`, but without taking all modules apart, which takes 0.4 s."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0 if isinstance(status, int | None) else 1)


if __name__ == "__main__":
    sys.path.insert(1, str(HOME))
    try:
        carry_out(*serve(sys.argv[1])["words"])
    except SystemExit as leaving:
        end(leaving.code)
    end(0)
