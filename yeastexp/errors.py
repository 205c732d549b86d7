"""The error class for everything that a user can correct, and the texts that messages share."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Mapping
from types import MappingProxyType

INPUT_WRONG = 2
RUN_FAILED = 1
INTERRUPTED = 130


class UserError(Exception):
    """An error that the user can correct: one line per fault, each with its place, what is wrong, and the remedy.

    `status` is the exit status of the command line: 2 if the input was wrong, 1 if the run failed, 130 if it was
    interrupted. A part that refuses one of its options names it in `key`, so that the message shows its line.
    """

    def __init__(self, *faults: str, status: int = INPUT_WRONG, key: str | None = None) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
        self.status = status
        self.key = key


def did_you_mean(word: str, known: Iterable[str], meant: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the end of a message about an unknown word: the most similar known one, if any is similar, and all known.

    `meant` maps further words that users may write to the known ones that they stand for.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, [*names, *meant], n=1, cutoff=0.6)
    suggested = f"; did you mean '{meant.get(near[0], near[0])}'?" if near else ""
    return f"{suggested} (known: {', '.join(names) or 'none'})"


def in_one_line(error: BaseException) -> str:
    """Return type and message of an exception in one line, even if its `__str__` raises."""
    if isinstance(error, UserError):
        return " ".join(error.faults)
    text = "".join(traceback.format_exception_only(error)).removeprefix(f"{type(error).__module__}.")
    return " ".join(text.split())
