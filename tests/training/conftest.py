"""Epochs of a tiny run, a few milliseconds each, are saved as those of a real one are, which take seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from yeastexp.training.handlers import checkpoints


@pytest.fixture(autouse=True, scope="session")
def epochs_as_if_they_were_long() -> Iterator[None]:
    """Save after each epoch, however large a share of its time that takes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "SHARE", 1e9)
        yield
