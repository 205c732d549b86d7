"""The processes that share the work of one command: the rank of this one, and what they exchange.

For a process that was started alone nothing of `torch.distributed` is imported: every exchange returns its own value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

from yeastexp.errors import RUN_FAILED, UserError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """A process alone; `yeastexp.system.process_group` overrides the exchanges for several."""

    rank: int = 0
    count: int = 1
    on_machine: int = 1
    """How many of them share this machine."""

    @property
    def writes(self) -> bool:
        """Whether this is the one that writes files and speaks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[Value]) -> list[Value]:
        """Return this process's share of the items: every `count`-th, but at least one if there are any."""
        return list(items[self.rank :: self.count] or items[:1])

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, by rank. All have to call it, so it is also a barrier."""
        return [value]

    def merged(self, results: Mapping[str, Value]) -> dict[str, Value]:
        """Return the results of all processes, each by the name of an item of its `share`, in the items' order."""
        # Every `count`-th item is one's own, so taking one result of each process in turn gives the items' order.
        turns = zip_longest(*(share.items() for share in self.gather(dict(results))))
        return dict(named for turn in turns for named in turn if named is not None)

    def any(self, told: bool) -> bool:
        """Whether `told` is true in any process. All have to call it."""
        return told

    def agreed(self, value: Value) -> Value:
        """Return the value of the first process. All have to call it."""
        return self.gather(value)[0]

    def gather_rows(self, row: Tensor) -> Callable[[], Tensor]:
        """Start to gather a row (n) of each process. Returns a function that waits for all rows, (count, n)."""
        return lambda: row[None]

    def apart(self, remedy: str) -> AbstractContextManager[None]:
        """Let each process work by itself within the block, whose end waits for all, however long they take.

        If a process ends early, the others are interrupted. Raises UserError with the `remedy` if one vanishes.
        """
        return nullcontext()


@dataclass(frozen=True)
class Rehearsing(Processes):
    """A process that stands for one of several without waiting for the others, to time its part of the work.

    It takes its own rows for those of the others.
    """

    def gather_rows(self, row: Tensor) -> Callable[[], Tensor]:
        """Repeat the row for each process."""
        return lambda: row.expand(self.count, -1)


ALONE = Processes()

_current: list[Processes] = [ALONE]


def current() -> Processes:
    """Return the processes of this command."""
    return _current[-1]


def launched() -> int:
    """Return how many processes a launcher (torchrun, srun) started together; 1 without one."""
    for rank, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank in os.environ and os.environ.get(count, "").isdecimal() and int(os.environ[count]) > 1:
            return int(os.environ[count])
    return 1


def refuse_launched(command: str) -> None:
    """Raises UserError if a launcher started several processes of a command that does not share its work among them."""
    if (count := launched()) > 1:
        fault = f"is not shared by processes, and {count} of them would each do all of it"
        raise UserError(f"{command}: {fault}; start it without torchrun or srun")


class EndedElsewhere(Exception):
    """Ends a process because another has failed, which reports the error."""

    def __init__(self, status: int) -> None:
        super().__init__(f"another process has failed, with exit status {status}")
        self.status = status


@contextmanager
def working_together(processes: Processes) -> Iterator[Processes]:
    """Make these the `current` processes within the block."""
    _current.append(processes)
    try:
        yield processes
    finally:
        _current.pop()


def refuse_unequal(what: dict[str, str], processes: Processes) -> None:
    """Raises UserError, in all processes, if a named value such as a file's digest differs between them."""
    everywhere = processes.gather(what)
    for rank, there in enumerate(everywhere):
        for name in [*everywhere[0], *there]:
            if everywhere[0].get(name) != there.get(name):
                fault = f"{name} differs: {everywhere[0].get(name)} in process 0, {there.get(name)} in {rank}"
                raise UserError(f"{fault}; start all of them with the same files and versions", status=RUN_FAILED)
