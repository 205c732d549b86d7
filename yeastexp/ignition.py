"""The names of Ignite that the house uses, imported without what only distributed training asks for.

Ignite's checkpoint handler, which every import of Ignite brings along, takes `ZeroRedundancyOptimizer` from
`torch.distributed.optim`; behind that stand DTensor, FSDP and SymPy, in all a second and a half at the start of every
command. All it does with the class is to ask whether an optimizer is one, which the stand-in answers as well.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SLOW = "torch.distributed.optim"


class _AsSoonAsLoaded(type):
    def __instancecheck__(cls, instance: object) -> bool:
        loaded = sys.modules.get(SLOW)  # an object of a class exists where its module is loaded, or nowhere
        return loaded is not None and isinstance(instance, getattr(loaded, cls.__name__))


class ZeroRedundancyOptimizer(metaclass=_AsSoonAsLoaded):
    """Whose instances are those of the class of this name in `torch.distributed.optim`."""


class _StandIn(ModuleType):
    ZeroRedundancyOptimizer = ZeroRedundancyOptimizer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks of every module
            raise AttributeError(name)
        sys.modules.pop(SLOW, None)
        return getattr(importlib.import_module(SLOW), name)


@contextmanager
def _postponed() -> Iterator[None]:
    """While modules are imported that name `torch.distributed.optim`, without a need for what is in it."""
    if SLOW in sys.modules:
        yield
        return
    stand_in = sys.modules[SLOW] = _StandIn(SLOW)
    try:
        yield
    finally:
        if sys.modules.get(SLOW) is stand_in:
            del sys.modules[SLOW]


try:
    with _postponed():
        from ignite.engine import Engine, Events
        from ignite.metrics import Metric
except ImportError:  # of a version that asks for more than the stand-in has
    from ignite.engine import Engine, Events
    from ignite.metrics import Metric

__all__ = ["Engine", "Events", "Metric"]
