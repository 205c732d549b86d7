"""Plugins: files with parts that an experiment names, and parts of installed packages."""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import linecache
import re
import sys
import traceback
import types
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from yeastexp import registry
from yeastexp.errors import UserError, in_one_line
from yeastexp.registry import KINDS, Entry, Registry

_loaded: dict[str, tuple[Path, dict[str, list[Entry]]]] = {}
"""By module name: the file it was loaded from, and the entries that it registered, by kind."""

_active: dict[str, Path] = {}
"""By module name: the files whose parts can be named now."""

_makers: dict[int, tuple[weakref.ref[Any], Entry]] = {}
"""By `id`: the objects that factories from outside this package made, and the factories' entries."""


def load(paths: Sequence[Path]) -> None:
    """Register the parts of these plugin files and remove those of all others. Raises UserError if one has a fault.

    A module's name contains the digest of its text, so that the copy in a run directory is the same module, and parts
    can be unpickled in any process that has loaded the same files.
    """
    deactivate()
    for path in paths:
        if faults := add(path):
            _forget(_active.popitem()[1])
            raise UserError(*faults)


def add(path: Path) -> tuple[str, ...]:
    """Register the parts of one more file that have no fault. Returns the faults of the others."""
    name = f"yeastexp_plugin_{path.stem}_{_digest(path)[:12]}"
    # A sound file is executed once a process. Executed again it would make new classes, of which existing objects are
    # no instances.
    if name in _loaded:
        _active[name] = _loaded[name][0]
        return tuple(fault for kind, entries in _loaded[name][1].items() for fault in KINDS[kind].restore(entries))
    _active[name] = path
    return _load(name, path)


def deactivate() -> None:
    """Remove the parts of all plugin files from the registries."""
    for path in _active.values():
        _forget(path)
    _active.clear()


def _forget(path: Path) -> None:
    for parts in KINDS.values():
        parts.forget([path])


def active() -> tuple[Path, ...]:
    """Return the plugin files whose parts are registered now."""
    return tuple(_active.values())


@contextmanager
def blamed() -> Iterator[None]:
    """Turn exceptions of user code within the block, or the decorated function, into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (fault := fault_of(error)) is None:
            raise
        raise UserError(fault) from error


def fault_of(error: BaseException) -> str | None:
    """Return an exception in one line if user code is to blame for it, else None: a bug, which keeps its traceback.

    User code is to blame if a file of it is in the traceback, or if the call of a part failed, as with arguments that
    the part does not take: then no line of the part was reached.
    """
    foreign = [entry for parts in KINDS.values() for entry in parts.entries() if entry.foreign]
    files = {str(entry.plugin) for entry in foreign} | {entry.place.rpartition(":")[0] for entry in foreign}
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename in files]
    if places:
        return f"{places[-1]}: {in_one_line(error)}"
    called = _called(error)
    return f"{called.place}: {called.kind} '{called.name}': {in_one_line(error)}" if called else None


def remember(instance: object, entry: Entry | None) -> None:
    """Note which entry made an object, so that `fault_of` can blame it; parts of this package are not noted."""
    # A weak reference does not keep a model alive. Its callback removes the entry before `id` can be used again.
    if entry and entry.foreign:
        with suppress(TypeError):  # of objects without weak references, such as numbers, which are no parts
            key = id(instance)
            _makers[key] = weakref.ref(instance, lambda _: _makers.pop(key, None)), entry


def maker_of(instance: object) -> Entry | None:
    """Return the entry, from outside this package, whose factory made an object; None if it is not known."""
    reference, entry = _makers.get(id(instance), (None, None))
    return entry if reference is not None and reference() is instance else None


def _called(error: BaseException) -> Entry | None:
    """Return the entry of the user's part whose call failed; None if there is none.

    It is the innermost one that a source line of the traceback names. If none does, it is a part that is an attribute
    of the innermost object of this package: an error in the backward pass passes no line of the model.
    """
    frames = list(traceback.walk_tb(error.__traceback__))[::-1]
    # A traceback has no objects, only frames. Each dotted name in a line of code is resolved in the frame's variables,
    # by `__dict__` and not `getattr`, which could run a property of the user.
    for frame, number in frames:
        for chain in re.findall(r"[A-Za-z_][\w.]*", linecache.getline(frame.f_code.co_filename, number)):
            value: Any = types.SimpleNamespace(**frame.f_locals)
            for name in chain.split("."):
                value = getattr(value, "__dict__", {}).get(name)
                if entry := maker_of(value):
                    return entry
    package = str(Path(__file__).parent)
    inner = next((frame for frame, _ in frames if frame.f_code.co_filename.startswith(package)), None)
    held = vars(inner.f_locals["self"]) if inner and hasattr(inner.f_locals.get("self"), "__dict__") else {}
    return next((entry for value in held.values() if (entry := maker_of(value))), None)


@contextmanager
def preserved() -> Iterator[None]:
    """Restore the registered parts and the loaded plugins at the end of the block, as tests of a plugin need it:

    >>> @pytest.fixture(autouse=True)
    ... def registries_as_they_were() -> Iterator[None]:
    ...     with plugins.preserved():
    ...         yield
    """
    loaded, active = dict(_loaded), dict(_active)
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
            _active.clear()
            _active.update(active)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the text each time: a cached bytecode file looks current after an edit within the same second."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _load(name: str, path: Path) -> tuple[str, ...]:
    if path.suffix != ".py":
        return (f"{path}: not a Python file; a plugin ends in .py",)
    loader = _Loader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    Registry.loading = path
    try:
        with _collected() as faults:
            loader.exec_module(module)
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except BaseException as error:
        faults += error.faults if isinstance(error, UserError) else [_fault(error, path)]
    finally:
        Registry.loading = None
    if faults:
        del sys.modules[name]
    else:
        _loaded[name] = (path, {kind: [e for e in r.entries() if e.plugin == path] for kind, r in KINDS.items()})
    return tuple(faults)


@contextmanager
def _collected() -> Iterator[list[str]]:
    """Collect the faults of parts that are registered within the block, instead of raising the first."""
    faults: list[str] = []
    Registry.faults = faults
    try:
        yield faults
    finally:
        Registry.faults = None


def _fault(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename or path}:{error.lineno or 1}:{error.offset or 1}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1] if lines else 1}: {in_one_line(error)}"


@functools.cache
def load_installed() -> None:
    """Load the entry points `yeastexp.plugins` of installed packages; a broken one is left out with a warning."""
    for point in importlib.metadata.entry_points(group="yeastexp.plugins"):
        try:
            with _collected() as faults:
                point.load()
        except (Exception, SystemExit) as error:
            warnings.warn(f"plugin '{point.name}' ({point.value}) was left out: {in_one_line(error)}", stacklevel=2)
        for fault in faults:
            warnings.warn(f"a part of plugin '{point.name}' ({point.value}) was left out: {fault}", stacklevel=2)
