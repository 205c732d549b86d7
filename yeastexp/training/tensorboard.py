"""Writing a run's TensorBoard events, and its `metrics.csv`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from yeastexp.metrics.summary import Summary, tags
from yeastexp.training.run_directory import RunDirectory

EVENTS = "events.out.tfevents."
"""The beginning of an event file's name, before the time."""


class Tracker:
    """Writes TensorBoard's events of a run, and its `metrics.csv`.

    PyTorch's writer has a thread of its own, so that no step waits for a file; errors of the thread are raised by the
    next call. With `after_step`, TensorBoard drops the events of later steps, which are about to be repeated.
    `approximate` are the names of metrics of approximate cells, whose tags say so.
    """

    def __init__(
        self, directory: RunDirectory, after_step: int | None = None, approximate: Collection[str] = ()
    ) -> None:
        self.directory = directory
        self.approximate = approximate
        self.purge_step = None if after_step is None else after_step + 1
        self.writer: SummaryWriter = self._writer(directory.path)
        self.baselines: dict[str, SummaryWriter] = {}

    def text(self, tag: str, toml: str) -> None:
        """Write a TOML text to TensorBoard's TEXT tab."""
        # The tab renders Markdown; indented by four spaces, the text is shown as it is.
        shown = "".join(f"    {line}\n" for line in toml.splitlines())
        self.writer.add_text(tag, shown)

    def training(self, step: int, loss: float, learning_rate: float, norms: Sequence[float] = ()) -> None:
        """Write the learning rate, and the means of the loss and of the gradient norms (if any) since the last call.

        Norms that are not finite are left out: float16 skips such an update.
        """
        values = {"train/loss": loss, "train/learning_rate": learning_rate}
        if finite := [norm for norm in norms if math.isfinite(norm)]:
            values["train/gradient_norm"] = math.fsum(finite) / len(finite)
        _add_scalars(self.writer, values, step)

    def validation(self, step: int, loss: float, summary: Summary, baselines: Mapping[str, Summary]) -> None:
        """Write validation loss and scores, and the constant scores of the baselines for the same charts."""
        _add_scalars(self.writer, {"val/loss": loss, **tags(summary, self.approximate)}, step)
        for name, scores in baselines.items():
            _add_scalars(self.baseline(name), tags(scores, self.approximate), step)

    def baseline(self, name: str) -> SummaryWriter:
        """Return the writer of a baseline, in a folder of its own: TensorBoard draws it as a run with the same tags."""
        if name not in self.baselines and self.directory.writes:
            self.directory.refuse_gone()
        if name not in self.baselines:
            self.baselines[name] = self._writer(self.directory.baseline(name))
        return self.baselines[name]

    def _writer(self, folder: Path) -> SummaryWriter:
        if not self.directory.writes:
            return _Unheard()  # type: ignore[return-value]  # as far as it is used here
        return _writer(folder, self.purge_step)

    def picture(self, step: int, picture: np.ndarray, tag: str = "val/pictures") -> None:
        """Write a picture (H, W, 3) uint8 under a tag."""
        self.writer.add_image(tag, picture, step, dataformats="HWC")

    def epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `metrics.csv` by these rows."""
        self.directory.write_metrics(rows)
        self.flush()

    def outcome(self, options: Mapping[str, Any], summary: Summary, step: int) -> None:
        """Write the experiment's options and final scores for TensorBoard's HPARAMS tab.

        The tags of the scores sort after `train` and `val`, since their charts have a single point.
        """
        # `SummaryWriter.add_hparams` would write them into a new folder, which TensorBoard shows as another run.
        scores = tags(summary, self.approximate)
        final = {tag.replace("val/", "val_final/"): value for tag, value in scores.items() if not math.isnan(value)}
        for summary in hparams(dict(options), final):
            self.writer._get_file_writer().add_summary(summary)
        _add_scalars(self.writer, final, step)

    def flush(self) -> None:
        """Write all events so far to disk; errors of the writer's thread are raised here."""
        for writer in (self.writer, *self.baselines.values()):
            writer.flush()

    def close(self) -> None:
        """Close the event files, ignoring errors of their threads since the last call."""
        for writer in (self.writer, *self.baselines.values()):
            with suppress(Exception):
                writer.close()


class _Unheard:
    """The writer of a process that does not write: it accepts every call and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self


def _writer(folder: Path, purge_step: int | None) -> SummaryWriter:
    """Open a new event file that TensorBoard reads after those that exist in the folder.

    TensorBoard reads files in the order of their names, which begin with the time in seconds, and `purge_step` drops
    the later steps of the files before.
    """
    # If the clock was set back, or a file was begun within this second, the new name would not be the last: the older
    # files get names with earlier times.
    before = sorted(folder.glob(f"{EVENTS}*"))
    now = int(time.time())
    times = [int(found[1]) if (found := re.match(r"(\d+)", path.name.removeprefix(EVENTS))) else 0 for path in before]
    if any(moment >= now for moment in times):
        for moment, path in enumerate(before, now - len(before)):
            rest = path.name.removeprefix(EVENTS).lstrip("0123456789")
            path.replace(folder / f"{EVENTS}{moment:010d}{rest}")
    return SummaryWriter(str(folder), purge_step=purge_step)


def _add_scalars(writer: SummaryWriter, values: Mapping[str, float], step: int) -> None:
    for tag, value in values.items():
        if not math.isnan(value):
            writer.add_scalar(tag, value, step)
