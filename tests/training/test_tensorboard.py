"""TensorBoard and the tables that grow with a run."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
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


def test_files_are_read_in_the_order_of_their_writing_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes, the clock set back before each; names of other machines and processes sort at random."""
    for start, hour, host in ((1, 9, "c"), (4, 7, "b"), (7, 7, "a"), (10, 5, "d")):
        monkeypatch.setattr(time, "time", lambda hour=hour: 1_700_000_000.0 + 3600 * hour)
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        tracker = Tracker(RunDirectory(tmp_path), after_step=start - 1)
        for step in range(start, start + 4):
            tracker.training(step, loss=float(step), learning_rate=0.1)
            tracker.baseline("all background").add_scalar("val/iou", 0.5, step)
        tracker.close()
    for folder, tag in ((tmp_path, "train/loss"), (tmp_path / "baselines/all_background", "val/iou")):
        steps = [event.step for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]
        assert steps == list(range(1, 14)), "a step that was done again is there once"
        assert len(list(folder.glob("events.out.tfevents.*"))) == 4
