"""Names for the parts of a training step in a profiler's trace."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.autograd import profiler
from torch.profiler import record_function

BATCH, FORWARD, LOSS, BACKWARD, UPDATE = PARTS = ("batch", "forward", "loss", "backward", "update")


def part(name: str) -> AbstractContextManager[Any]:
    """Return a context that names a part of a step in the trace.

    Without a profiler it does nothing: `record_function` would cost a tiny step a percent.
    """
    return record_function(f"step: {name}") if profiler._is_profiler_enabled else nullcontext()
