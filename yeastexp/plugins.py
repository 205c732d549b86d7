"""A study's own parts: files named in an experiment, and what installed packages offer."""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import traceback
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from yeastexp import registry
from yeastexp.errors import UserError, in_one_line
from yeastexp.registry import KINDS, Entry, Registry

_loaded: dict[str, tuple[Path, dict[str, list[Entry]]]] = {}
"""By module name: the file it was loaded from, and what it registered."""

_active: list[str] = []


def load(paths: Sequence[Path]) -> None:
    """Make the parts of these files, and of no other plugin files, available by name.

    A module's name carries the digest of its text, so that the copy in a run directory is the same module, and parts
    unpickle wherever the same files were loaded before.
    """
    deactivate()
    for path in paths:
        name = f"yeastexp_plugin_{path.stem}_{_digest(path)[:12]}"
        known = name in _loaded
        if not known:
            _load(name, path)
        _active.append(name)
        if known:
            _activate(name)


def deactivate() -> None:
    """Forget the parts of all plugin files."""
    for name in _active:
        for parts in KINDS.values():
            parts.forget([_loaded[name][0]])
    _active.clear()


def active() -> tuple[Path, ...]:
    """The plugin files whose parts are available now."""
    return tuple(_loaded[name][0] for name in _active)


@contextmanager
def preserved() -> Iterator[None]:
    """Put back at the end what is registered now and which plugins are loaded, as tests of a plugin need it:

    >>> @pytest.fixture(autouse=True)
    ... def registries_as_they_were() -> Iterator[None]:
    ...     with plugins.preserved():
    ...         yield
    """
    loaded, active = dict(_loaded), list(_active)
    modules = {name: sys.modules[name] for name in loaded if name in sys.modules}
    with registry.preserved():
        try:
            yield
        finally:
            for name in _loaded.keys() - loaded.keys():
                sys.modules.pop(name, None)
            sys.modules.update(modules)
            _loaded.clear()
            _loaded.update(loaded)
            _active[:] = active


def _activate(name: str) -> None:
    for kind, entries in _loaded[name][1].items():
        KINDS[kind].restore(entries)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the text each time: bytecode kept beside a plugin may be older than an edit of the same second."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _load(name: str, path: Path) -> None:
    if path.suffix != ".py":
        raise UserError(f"{path}: not a Python file; a plugin ends in .py")
    loader = _Loader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    Registry.loading = path
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        for parts in KINDS.values():
            parts.forget([path])
        raise _fault(error, path) from error
    finally:
        Registry.loading = None
    _loaded[name] = (path, {kind: [e for e in r.entries() if e.plugin == path] for kind, r in KINDS.items()})


def _fault(error: BaseException, path: Path) -> BaseException:
    if isinstance(error, UserError | KeyboardInterrupt):
        return error
    if isinstance(error, SyntaxError):
        return UserError(f"{error.filename or path}:{error.lineno or 1}:{error.offset or 1}: {error.msg}")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return UserError(f"{path}:{lines[-1] if lines else 1}: {in_one_line(error)}")


@functools.cache
def load_installed() -> None:
    """Load what installed packages offer under the entry-point group `yeastexp.plugins`; a broken one only warns."""
    for point in importlib.metadata.entry_points(group="yeastexp.plugins"):
        try:
            point.load()
        except (Exception, SystemExit) as error:
            warnings.warn(f"plugin '{point.name}' ({point.value}) was left out: {in_one_line(error)}", stacklevel=2)
