"""Commands that several processes do together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from yeastexp.system import processes
from yeastexp.system.processes import ALONE, Processes


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun or srun started, until all of them are done; this one if it was started alone.

    If one fails, all of them end: the first with its own error, the others with EndedElsewhere.
    """
    if processes.launched() == 1:
        yield ALONE
        return
    from yeastexp.system import process_group

    with process_group.joined() as group:
        yield group
