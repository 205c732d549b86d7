"""Commands that several processes do together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from yeastexp.system import processes
from yeastexp.system.processes import ALONE, Processes


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun or srun started, and leave together; alone without a launcher.

    If one process fails, all end: that one with its own error, the others with EndedElsewhere.
    """
    if processes.launched() == 1:
        yield ALONE
        return
    from yeastexp.system import process_group

    with process_group.joined() as group:
        yield group
