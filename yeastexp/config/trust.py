"""The decision which plugin files may be executed: a user's own, and copies in run directories that are known here.

A run directory that somebody sent contains Python code. When a user runs an experiment, the digests of its plugins are
stored in the user's state directory, so that the copies in the run directory are recognised wherever it is moved.
"""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from yeastexp.config.settings import SCHEMAS
from yeastexp.system import files

MARKS = ("environment.json", "checkpoints", "log.txt", "result.json", "folds.json", "sweep.json")
"""Names of which at least one is beside `experiment.toml` in the directory of a run, cross-validation or sweep."""

_trusting: ContextVar[bool] = ContextVar("trusting", default=False)

_remembered: set[str] = set()
"""The digests remembered by this process, in case the state directory is not writable."""


@contextmanager
def trusting() -> Iterator[None]:
    """Execute plugins of received run directories within the block, and remember them: `--trust-plugins`."""
    token = _trusting.set(True)
    try:
        yield
    finally:
        _trusting.reset(token)


def is_trusting() -> bool:
    """Whether `trusting` is in force."""
    return _trusting.get()


def refusal(plugin: Path, named_in: Path, received: bool) -> str | None:
    """Return why a plugin that a file in the folder `named_in` names is not executed; None if it may be.

    A plugin is the user's own unless it was `received`, or the folder that names it or holds it belongs to a run.
    """
    # A run keeps its plugins in RUN/plugins/: so their folder and the one above are looked at, in case that an
    # experiment elsewhere names such a copy.
    if not received and not any(map(_is_run, (named_in, *plugin.parents[:2]))):
        return None
    try:
        digest = files.digest(plugin)
    except OSError:
        return None  # the file cannot be read, which loading it will report
    if digest in _remembered or os.path.isfile(folder() / digest):  # noqa: PTH113  # a folder may be closed to us
        return None
    if _trusting.get():
        remember([plugin])
        return None
    return (
        f"{plugin} (sha256 {digest}): Python code in a run directory, which you have not run here; read it, and use "
        "--trust-plugins to have it executed"
    )


def _is_run(folder: Path) -> bool:
    file = folder / "experiment.toml"
    if not os.path.isfile(file):  # noqa: PTH113  # a folder may be closed to us
        return False
    return any(os.path.lexists(folder / mark) for mark in MARKS) or _is_resolved(file)


def _is_resolved(file: Path) -> bool:
    """Whether an experiment file has its name and all tables of settings, as runs write it and people hardly do.

    Otherwise removing the other files of a run would be enough to pass its code off as the user's own.
    """
    try:
        return {"name", *SCHEMAS} <= tomllib.loads(file.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError):
        return False


def remember(plugins: Iterable[Path]) -> None:
    """Remember that the user runs these files. Warns if that cannot be stored."""
    for plugin in plugins:
        digest = files.digest(plugin)
        _remembered.add(digest)
        try:
            if not (folder() / digest).exists():
                files.write_text(folder() / digest, f"{plugin}\n")
        except OSError as error:
            fault = f"cannot be written ({error.strerror}), so that commands on the run will ask for --trust-plugins"
            warnings.warn(f"{folder()}: {fault}", stacklevel=2)


def folder() -> Path:
    """Return the folder with a file for each digest. By the XDG specification relative paths are ignored."""
    named, home = Path(os.environ.get("XDG_STATE_HOME", "")), Path(os.path.expanduser("~"))  # noqa: PTH111  # raises
    if not home.is_absolute():  # a user without a home, as in some containers: nothing can be written there
        home = Path(os.devnull)
    return (named if named.is_absolute() else home / ".local" / "state") / "yeastexp" / "plugins"
