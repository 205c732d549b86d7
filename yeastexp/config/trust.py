"""Which plugin files may be executed: a user's own, and those in run directories that this user has run here before.

A run directory that somebody sent holds Python. What is run here by an experiment file of the user's own is remembered
by its digest in the user's state directory, so that the copies in its run directory, wherever it moves, are known.
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
"""What stands beside `experiment.toml` in the directory of a run, of a cross-validation or of a sweep."""

_trusting: ContextVar[bool] = ContextVar("trusting", default=False)

_remembered: set[str] = set()
"""The digests that this process remembered, for the state directory may not be writable."""


@contextmanager
def trusting() -> Iterator[None]:
    """Let plugins of received run directories be executed within, and remember them: `--trust-plugins`."""
    token = _trusting.set(True)
    try:
        yield
    finally:
        _trusting.reset(token)


def is_trusting() -> bool:
    """Whether that was said."""
    return _trusting.get()


def refusal(plugin: Path, named_in: Path, received: bool) -> str | None:
    """Why a plugin that a file in the folder `named_in` names is not executed; None if it may be.

    A plugin is a user's own unless it was `received`, or the folder that names or holds it is a run directory's.
    """
    if not received and not any(map(_is_run, (named_in, *plugin.parents[:2]))):
        return None
    try:
        digest = files.digest(plugin)
    except OSError:
        return None  # which loading it says as well
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
    """Whether an experiment file has its name and all tables of settings, as a run writes it and hardly a person."""
    try:
        return {"name", *SCHEMAS} <= tomllib.loads(file.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError):
        return False


def remember(plugins: Iterable[Path]) -> None:
    """Note that the user runs these files. Warns if that cannot be written."""
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
    """Where a file for each digest lies; as the XDG specification says, a relative path counts as none."""
    named, home = Path(os.environ.get("XDG_STATE_HOME", "")), Path(os.path.expanduser("~"))  # noqa: PTH111  # raises
    if not home.is_absolute():  # a user without a home, as in some containers: nothing can be written there
        home = Path(os.devnull)
    return (named if named.is_absolute() else home / ".local" / "state") / "yeastexp" / "plugins"
