"""A page about the machine and the installation, for bug reports; it says what is broken and what to do.

Other packages are imported one by one, each within a try block, as finding a broken one is the purpose of the page. No
paths are shown, so that it can be published.
"""

from __future__ import annotations

import configparser
import errno
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from yeastexp.system.formatting import format_bytes

State = Literal["ok", "note", "broken"]

DISTRIBUTION = "yeastexp"
IMPORTED_AS = {
    "pytorch-ignite": "ignite",
    "typing-extensions": "typing_extensions",
    "tomli-w": "tomli_w",
    "pillow": "PIL",
    "tensorboard": "torch.utils.tensorboard",
    "scikit-learn": "sklearn",
    "scikit-image": "skimage",
    "mlflow-skinny": "mlflow",
    "pytorch-lightning": "pytorch_lightning",
}
"""The module of a distribution that is not called like it."""

FOR_DEVELOPERS = ("test", "dev", "bench", "docs")
"""Extras that users do not need; their packages are not listed."""

VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT", "SLURM_CPUS_PER_TASK", "WORLD_SIZE", "SLURM_NTASKS"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_CUDA_ALLOC_CONF"),
)
"""Environment variables that change what a run does."""

SHARED = Path("/dev/shm")
LEAST_SHARED, LEAST_DISK, LEAST_MEMORY = 1 << 28, 1 << 30, 1 << 30
"""The least free bytes of shared memory (through which loader workers send patches), of disk, and of main memory."""

TRIAL = """
import sys, torch
device = torch.device(sys.argv[1])
layer = torch.nn.Conv2d(1, 2, 3).to(device)
layer(torch.ones(1, 1, 8, 8, device=device)).sum().backward()
if device.type == "cuda":
    torch.cuda.synchronize()
"""
"""A program that computes a convolution and its gradient. It runs in a process of its own, since a broken driver may
crash the process that calls it."""

TRIAL_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """A line of the page, with a remedy if something is wrong."""

    topic: str
    said: str
    state: State = "ok"
    remedy: str = ""

    def __str__(self) -> str:
        mark = "" if self.state == "ok" else f"{self.state}: "
        return f"{self.topic + ':':<18} {mark}{self.said}" + (f"; {self.remedy}" if self.remedy else "")


def version() -> str:
    """The version of this package: of the checkout that it is run from, or of the installed distribution."""
    checkout = _checkout()
    return checkout["metadata"]["version"] if checkout else _installed(DISTRIBUTION) or "unknown"


def _checkout() -> configparser.ConfigParser | None:
    """The `setup.cfg` beside this package; None if the package was installed."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    return parser if parser.get("metadata", "name", fallback="") == DISTRIBUTION else None


def requirements() -> dict[str, dict[str, str]]:
    """The distributions that each extra needs, with their least versions; those that are always needed under ''."""
    if checkout := _checkout():
        extras = checkout["options.extras_require"]
        lines = checkout["options"]["install_requires"].split()
        lines += [f'{need}; extra == "{extra}"' for extra in extras for need in extras[extra].split()]
    else:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    found: dict[str, dict[str, str]] = {"": {}}
    for line in lines:
        if match := re.match(r"([\w.-]+)\s*>=\s*([\w.]+)(?:.*extra == ['\"]([\w-]+))?", line):
            found.setdefault(match[3] or "", {})[match[1]] = match[2]
    return found


def findings() -> Iterator[Finding]:
    """The lines of the page in their order."""
    yield Finding(DISTRIBUTION, f"{version()}{_revision()}")
    yield from _python()
    yield from _packages()
    yield from _machine()
    yield from _computing()
    yield from _places()
    yield from _plugins()


def _revision() -> str:
    """The commit of a checkout in brackets, and whether files in it were changed."""
    folder = str(Path(__file__).parent)
    said = []
    for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "."]):
        try:
            done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return " (installed)"
        if done.returncode:
            return " (installed)"
        said.append(done.stdout.strip())
    return f" (commit {said[0]}{', with changes' if said[1] else ''})"


def _python() -> Iterator[Finding]:
    said = f"{platform.python_version()} ({platform.python_implementation()}) on {platform.platform()}"
    kind = "in a virtual environment" if sys.prefix != sys.base_prefix else "not in a virtual environment"
    yield Finding("Python", f"{said}, {kind}")


def _packages() -> Iterator[Finding]:
    for extra, needed in requirements().items():
        if extra in FOR_DEVELOPERS:
            continue
        states = {name: _fault_of(name, least) for name, least in needed.items()}
        good = ", ".join(f"{name} {_installed(name)}" for name, fault in states.items() if not fault)
        bad = [(name, fault) for name, fault in states.items() if fault]
        topic = f"extra '{extra}'" if extra else "packages"
        yield Finding(topic, good or "none installed")
        for name, fault in bad:
            install = f"pip install '{name}>={needed[name]}'"
            missing = extra and _installed(name) is None
            yield Finding(topic, f"{name} {fault}", "note" if missing else "broken", install)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fault_of(name: str, least: str) -> str:
    """Why a distribution cannot be used; empty if it can."""
    there = _installed(name)
    if there is None:
        return "is not installed"
    if _numbers(there) < _numbers(least):
        return f"{there} is older than {least}"
    try:
        importlib.import_module(IMPORTED_AS.get(name, name))
    except (Exception, SystemExit) as error:  # whatever a broken package raises
        return f"{there} cannot be imported ({without_paths(f'{type(error).__name__}: {error}')})"
    return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]


def without_paths(text: str) -> str:
    """A text on one line, each path in it reduced to its last name."""
    return re.sub(r"(?:[A-Za-z]:)?(?:[/\\][^/\\\s'\":;,()]+)+[/\\]([^/\\\s'\":;,()]+)", r"…/\1", " ".join(text.split()))


def _machine() -> Iterator[Finding]:
    try:
        cores: Any = importlib.import_module("yeastexp.system.cores")
        allowed, source = cores.allowed()
        yield Finding("cores", f"{os.cpu_count()}, of which {allowed} may be used ({source})")
        memory: Any = importlib.import_module("yeastexp.system.memory")
        torch: Any = importlib.import_module("torch")
        free = memory.free(torch.device("cpu"))
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except Exception:  # torch is broken, which another line says
        yield Finding("cores", f"{os.cpu_count()}")
        return
    few = free < LEAST_MEMORY
    said = f"{format_bytes(free)} free of {format_bytes(total)}"
    yield Finding("memory", said, "note" if few else "ok", "close other programs" if few else "")
    set_ones = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    yield Finding("threads", f"{torch.get_num_threads()} of PyTorch" + "".join(f", {each}" for each in set_ones))


def _computing() -> Iterator[Finding]:
    try:
        torch: Any = importlib.import_module("torch")
        gpus = range(torch.cuda.device_count())
        names = [torch.cuda.get_device_properties(index) for index in gpus]
    except Exception:
        return
    yield _trial("CPU", "cpu", platform.processor() or platform.machine())
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU build of PyTorch"
    if not names:
        driver = shutil.which("nvidia-smi")
        remedy = "install a build of PyTorch for this GPU's driver (pytorch.org)" if driver else ""
        yield Finding("GPU", f"none that PyTorch can use ({build})", "note" if driver else "ok", remedy)
    for index, gpu in enumerate(names):
        said = f"{gpu.name}, {format_bytes(gpu.total_memory)}, compute capability {gpu.major}.{gpu.minor}, {build}"
        yield _trial(f"GPU {index}", f"cuda:{index}", said)


def _trial(topic: str, device: str, said: str) -> Finding:
    """The line on a device: whether a convolution and its gradient can be computed on it."""
    remedy = (
        "install PyTorch anew (pytorch.org)" if device == "cpu" else "look at the driver, or set runtime.device = cpu"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRIAL, device],
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Finding(topic, f"{said}; a convolution takes more than {TRIAL_SECONDS} s", "broken", remedy)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ends with status {done.returncode}"])[-1]
        return Finding(topic, f"{said}; a convolution fails ({without_paths(last)})", "broken", remedy)
    return Finding(topic, f"{said}, computes")


def _places() -> Iterator[Finding]:
    yield _place("working folder", Path.cwd, "broken", "change to a folder where you may write, as runs/ is made there")
    temporary = "set TMPDIR to a folder where you may write"
    yield _place("temporary files", lambda: Path(tempfile.gettempdir()), "broken", temporary)
    yield _place("state", _state, "note", "set XDG_STATE_HOME, or plugins of runs are asked about each time")
    if SHARED.is_dir():
        room = shutil.disk_usage(SHARED)
        few = room.free < LEAST_SHARED
        remedy = "start the container with --shm-size=1g, or set runtime.workers = 0" if few else ""
        yield Finding("shared memory", f"{format_bytes(room.free)} free", "note" if few else "ok", remedy)


def _state() -> Path:
    """The folder that remembers trusted plugins, or its nearest parent that exists."""
    trust: Any = importlib.import_module("yeastexp.config.trust")
    folder: Path = trust.folder()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _place(topic: str, folder: Callable[[], Path], state: State, remedy: str) -> Finding:
    """The line on a folder: whether files can be written there, and how much room there is."""
    try:
        place = folder()
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0")
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(topic, f"cannot be written ({os.strerror(error.errno or errno.EIO)})", state, remedy)
    if free < LEAST_DISK:
        return Finding(topic, f"writable, {format_bytes(free)} free", "note", "make room: a run takes some hundred MB")
    return Finding(topic, f"writable, {format_bytes(free)} free")


def _plugins() -> Iterator[Finding]:
    for group in ("yeastexp.plugins", "yeastexp.commands"):
        for point in importlib.metadata.entry_points(group=group):
            try:
                point.load()
            except (Exception, SystemExit) as error:
                said = f"{point.name} ({point.value}) cannot be loaded ({without_paths(str(error))})"
                package = point.dist.name if point.dist else point.module.partition(".")[0]
                yield Finding(group, said, "broken", f"update or remove the package {package}")
            else:
                yield Finding(group, f"{point.name} ({point.value})")
