"""What TensorBoard is told of a run."""

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
"""What the name of an event file begins with, before the time."""


class Tracker:
    """TensorBoard's events of a run, and its `metrics.csv`.

    PyTorch's writer has a thread of its own, so that no step waits for a file; what goes wrong there is raised at the
    next call. `after_step` has TensorBoard forget what it was told of later steps, which are done again. `approximate`
    are the metrics of approximate cells.
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
        """A TOML text under TensorBoard's TEXT tab."""
        shown = "".join(f"    {line}\n" for line in toml.splitlines())
        self.writer.add_text(tag, shown)

    def training(self, step: int, loss: float, learning_rate: float, norms: Sequence[float] = ()) -> None:
        """The learning rate, and means since the last ones: of the training loss and of the gradients' norms, if any.

        A norm that is not finite is left out: float16 skips such an update.
        """
        values = {"train/loss": loss, "train/learning_rate": learning_rate}
        if finite := [norm for norm in norms if math.isfinite(norm)]:
            values["train/gradient_norm"] = math.fsum(finite) / len(finite)
        _add_scalars(self.writer, values, step)

    def validation(self, step: int, loss: float, summary: Summary, baselines: Mapping[str, Summary]) -> None:
        """Validation loss and scores; the baselines draw their constant lines into the same charts."""
        _add_scalars(self.writer, {"val/loss": loss, **tags(summary, self.approximate)}, step)
        for name, scores in baselines.items():
            _add_scalars(self.baseline(name), tags(scores, self.approximate), step)

    def baseline(self, name: str) -> SummaryWriter:
        """The event file of a baseline, in a folder of its own: TensorBoard draws it as a run of the same tags."""
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
        """A picture (H, W, 3) uint8 under a tag."""
        self.writer.add_image(tag, picture, step, dataformats="HWC")

    def epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of `metrics.csv`, which is written anew, whole."""
        self.directory.write_metrics(rows)
        self.flush()

    def outcome(self, options: Mapping[str, Any], summary: Summary, step: int) -> None:
        """The experiment's options beside its final scores, for TensorBoard's HPARAMS tab.

        Their tags begin with a word that sorts behind `train` and `val`: each is a single point.
        """
        scores = tags(summary, self.approximate)
        final = {tag.replace("val/", "val_final/"): value for tag, value in scores.items() if not math.isnan(value)}
        for summary in hparams(dict(options), final):
            self.writer._get_file_writer().add_summary(summary)
        _add_scalars(self.writer, final, step)

    def flush(self) -> None:
        """Let readers see everything so far."""
        for writer in (self.writer, *self.baselines.values()):
            writer.flush()

    def close(self) -> None:
        """Close the event files; what went wrong with them since the last call is not told."""
        for writer in (self.writer, *self.baselines.values()):
            with suppress(Exception):
                writer.close()


class _Unheard:
    """What a process that does not write tells its events to."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self


def _writer(folder: Path, purge_step: int | None) -> SummaryWriter:
    """A new event file, which TensorBoard reads after those that are there.

    It reads them in the order of their names, which begin with the time, and drops later steps that it read before.
    Where the clock was set back since, or within a second, the names of those before get earlier times.
    """
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
