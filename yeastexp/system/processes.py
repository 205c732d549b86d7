"""The processes that do one command's work together: which of them this is, and what they tell each other.

A process that was started alone is alone: nothing of `torch.distributed` is imported for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from yeastexp.errors import RUN_FAILED, UserError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process alone; what several have to say to each other is in `yeastexp.system.process_group`."""

    rank: int = 0
    count: int = 1
    on_machine: int = 1
    """How many of them share this machine."""

    @property
    def writes(self) -> bool:
        """Whether this is the one that writes files and speaks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[Value]) -> list[Value]:
        """Those of some items that this process takes: every `count`-th. At least one, if there are any."""
        return list(items[self.rank :: self.count] or items[:1])

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in their order."""
        return [value]

    def merged(self, own: Sequence[Value], key: Callable[[Value], str]) -> list[Value]:
        """What all processes made of their share of some items, each once, in the order of the items."""
        shares = self.gather(list(own))
        ordered = [values[place] for place in range(max(map(len, shares))) for values in shares if place < len(values)]
        return list({key(value): value for value in ordered}.values())

    def any(self, told: bool) -> bool:
        """Whether something is so in any process."""
        return told

    def agreed(self, value: Value) -> Value:
        """The value of the first process."""
        return self.gather(value)[0]

    def gather_rows(self, row: Tensor) -> Callable[[], Tensor]:
        """Begin to gather a row (n) of each process; what it gives waits for all of them, (count, n)."""
        return lambda: row[None]


@dataclass(frozen=True)
class Rehearsing(Processes):
    """One of several processes that waits for no other and takes what it has itself for theirs: to time its part."""

    def gather_rows(self, row: Tensor) -> Callable[[], Tensor]:
        """The row, as often as there are processes."""
        return lambda: row.expand(self.count, -1)


ALONE = Processes()

_current: list[Processes] = [ALONE]


def current() -> Processes:
    """The processes of this command."""
    return _current[-1]


def launched() -> tuple[int, int]:
    """The rank of this process and how many a launcher (torchrun, srun) started; (0, 1) without one."""
    for rank, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank in os.environ and os.environ.get(count, "").isdecimal() and int(os.environ[count]) > 1:
            return int(os.environ[rank]), int(os.environ[count])
    return 0, 1


class EndedElsewhere(Exception):
    """Another process has failed first, and says why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"another process has failed, with exit status {status}")
        self.status = status


@contextmanager
def working_together(processes: Processes) -> Iterator[Processes]:
    """Let these be the processes of this command."""
    _current.append(processes)
    try:
        yield processes
    finally:
        _current.pop()


def refuse_unequal(what: dict[str, str], processes: Processes) -> None:
    """Raises UserError if something named is not the same on all processes, such as the digest of a file."""
    everywhere = processes.gather(what)
    for rank, there in enumerate(everywhere):
        for name in [*everywhere[0], *there]:
            if everywhere[0].get(name) != there.get(name):
                fault = f"{name} differs: {everywhere[0].get(name)} in process 0, {there.get(name)} in {rank}"
                raise UserError(f"{fault}; start all of them with the same files and versions", status=RUN_FAILED)
