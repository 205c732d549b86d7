"""The one error that a user should ever meet."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Mapping
from types import MappingProxyType

INPUT_WRONG = 2
RUN_FAILED = 1
INTERRUPTED = 130


class UserError(Exception):
    """Something that the user can fix: a line a fault, each with its place, what is wrong, and the remedy.

    `status` is the exit status of the command line: 2 where the input was wrong, 1 where the run failed, 130 where it
    was interrupted. A part that refuses one of its options names it in `key`, for the line of the file to be shown.
    """

    def __init__(self, *faults: str, status: int = INPUT_WRONG, key: str | None = None) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
        self.status = status
        self.key = key


def did_you_mean(word: str, known: Iterable[str], meant: Mapping[str, str] = MappingProxyType({})) -> str:
    """The end of a message about an unknown word: the nearest known one, where there is one, and all there are.

    `meant` has further words, and the known one that each stands for.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, [*names, *meant], n=1, cutoff=0.6)
    suggested = f"; did you mean '{meant.get(near[0], near[0])}'?" if near else ""
    return f"{suggested} (known: {', '.join(names) or 'none'})"


def in_one_line(error: BaseException) -> str:
    """What an exception is and says, even if its `__str__` raises."""
    if isinstance(error, UserError):
        return " ".join(error.faults)
    text = "".join(traceback.format_exception_only(error)).removeprefix(f"{type(error).__module__}.")
    return " ".join(text.split())
