"""TensorBoard and the tables that grow with a run."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from yeastexp.errors import UserError
from yeastexp.system.failures import explained
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.tensorboard import Tracker


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    tracker = Tracker(RunDirectory(tmp_path))
    yield tracker
    tracker.close()


def test_a_table_that_cannot_be_written_is_said(tmp_path: Path, tracker: Tracker) -> None:
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(OSError, match=r"metrics\.csv"):
        tracker.epochs([{"epoch": 1}])


def test_events_that_cannot_be_written_are_said_at_the_next_call(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RecordWriter, record: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(UserError, match="no space left"), explained(tracker.directory.path):
        tracker.training(1, 0.5, 0.1)
        tracker.flush()
