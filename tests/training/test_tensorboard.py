"""TensorBoard and the tables that grow with a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from yeastexp.training.tensorboard import Tracker


def test_what_cannot_be_written_is_raised_at_the_next_call(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    (tmp_path / "metrics.csv").mkdir()
    tracker.epochs([{"epoch": 1}])
    with pytest.raises(OSError, match=r"metrics\.csv"):
        tracker.flush()
    tracker.close()
