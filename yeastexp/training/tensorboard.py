"""What people look at while and after a run: TensorBoard, tables, rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from yeastexp.metrics.summary import Summary, as_csv, tags
from yeastexp.system import files
from yeastexp.system.background import Background


def log(folder: Path, line: str) -> None:
    """One line, with the time, in `log.txt` of a run directory."""
    with (folder / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}\n")


class Tracker:
    """The files of a run directory that grow: TensorBoard events, `metrics.csv`, `log.txt`.

    All but `log.txt` is written in the background: no step waits for a file, and what goes wrong with one is raised at
    the next call. `after_step` has TensorBoard forget what it was told of later steps, which are done again.
    """

    def __init__(self, folder: Path, after_step: int | None = None) -> None:
        self.folder = folder
        self.purge_step = None if after_step is None else after_step + 1
        self.writer = SummaryWriter(str(folder), purge_step=self.purge_step)
        self.baselines: dict[str, SummaryWriter] = {}
        self.background = Background()

    def log(self, line: str) -> None:
        """One line, with the time, in `log.txt`."""
        log(self.folder, line)

    def text(self, tag: str, toml: str) -> None:
        """A TOML text under TensorBoard's TEXT tab."""
        shown = "".join(f"    {line}\n" for line in toml.splitlines())
        self.background.do(lambda: self.writer.add_text(tag, shown))

    def training(self, step: int, loss: float, learning_rate: float, norms: Sequence[float] = ()) -> None:
        """The learning rate, and means since the last ones: of the training loss and of the gradients' norms, if any.

        A norm that is not finite is left out: float16 skips such an update.
        """
        values = {"train/loss": loss, "train/learning_rate": learning_rate}
        if finite := [norm for norm in norms if math.isfinite(norm)]:
            values["train/gradient_norm"] = math.fsum(finite) / len(finite)
        self.background.do(lambda: _add_scalars(self.writer, values, step))

    def validation(self, step: int, loss: float, summary: Summary, baselines: Mapping[str, Summary]) -> None:
        """Validation loss and scores; the baselines draw their constant lines into the same charts."""
        own = {"val/loss": loss, **tags(summary)}
        lines = {name: tags(found) for name, found in baselines.items()}

        def write() -> None:
            _add_scalars(self.writer, own, step)
            for name, values in lines.items():
                _add_scalars(self.baseline(name), values, step)

        self.background.do(write)

    def baseline(self, name: str) -> SummaryWriter:
        """The event file of a baseline, in a folder of its own: TensorBoard draws it as a run of the same tags."""
        if name not in self.baselines:
            folder = self.folder / "baselines" / name.replace(" ", "_")
            self.baselines[name] = SummaryWriter(str(folder), purge_step=self.purge_step)
        return self.baselines[name]

    def picture(self, step: int, picture: np.ndarray, tag: str = "val/pictures") -> None:
        """A picture (H, W, 3) uint8 under a tag."""
        self.background.do(lambda: self.writer.add_image(tag, picture, step, dataformats="HWC"))

    def epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of `metrics.csv`, which is written anew, whole."""
        table = as_csv(rows)
        self.background.do(lambda: files.write_text(self.folder / "metrics.csv", table))
        self.background.do(self._flush)

    def outcome(self, options: Mapping[str, Any], figures: Mapping[str, float], step: int) -> None:
        """The experiment's options beside its final scores, for TensorBoard's HPARAMS tab."""
        final = {tag.replace("val/", "final/"): value for tag, value in figures.items() if not math.isnan(value)}
        chosen = dict(options)

        def write() -> None:
            for summary in hparams(chosen, final):
                self.writer._get_file_writer().add_summary(summary)
            _add_scalars(self.writer, final, step)

        self.background.do(write)

    def flush(self) -> None:
        """Let readers see everything so far."""
        self.background.do(self._flush)
        self.background.wait()

    def close(self) -> None:
        """Close the event files; what went wrong with them since the last call is not told."""
        self.background.close()
        for writer in (self.writer, *self.baselines.values()):
            writer.close()

    def _flush(self) -> None:
        for writer in (self.writer, *self.baselines.values()):
            writer.flush()


def _add_scalars(writer: SummaryWriter, values: Mapping[str, float], step: int) -> None:
    for tag, value in values.items():
        if not math.isnan(value):
            writer.add_scalar(tag, value, step)
