"""The processes that do one command's work together: which of them this is, and what they tell each other.

A process that was started alone is alone: nothing of `torch.distributed` is imported for it.
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

    def merged(self, results: Mapping[str, Value]) -> dict[str, Value]:
        """The results of all processes, each by the name of an item of its `share`, in the order of the items."""
        turns = zip_longest(*(share.items() for share in self.gather(dict(results))))
        return dict(named for turn in turns for named in turn if named is not None)

    def any(self, told: bool) -> bool:
        """Whether something is so in any process."""
        return told

    def agreed(self, value: Value) -> Value:
        """The value of the first process."""
        return self.gather(value)[0]

    def gather_rows(self, row: Tensor) -> Callable[[], Tensor]:
        """Begin to gather a row (n) of each process; what it gives waits for all of them, (count, n)."""
        return lambda: row[None]

    def apart(self, remedy: str) -> AbstractContextManager[None]:
        """Let each process work on something of its own within; the end waits for all, however long they take.

        If one ends before, the others are interrupted. UserError with the `remedy` if it ended without notice.
        """
        return nullcontext()


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


def launched() -> int:
    """How many processes a launcher (torchrun, srun) started together; 1 without one."""
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
