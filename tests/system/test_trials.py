"""A crash of a trial is one line, and nothing else of it is seen."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from yeastexp.errors import UserError
from yeastexp.system import trials


def test_what_crashes_is_refused() -> None:
    with pytest.raises(UserError, match=r"^a\.h5: cannot be read \(its library crashed on it\); it is damaged"):
        trials.refuse_if_fatal(Path("a.h5"), lambda: ctypes.string_at(0))


def test_what_raises_or_works_is_not() -> None:
    trials.refuse_if_fatal(Path("a.h5"), lambda: 1 / 0)
    trials.refuse_if_fatal(Path("a.h5"), list)
