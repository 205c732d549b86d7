"""What people look at while and after a run: TensorBoard, tables, rows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from yeastexp import files
from yeastexp.background import Background
from yeastexp.metrics import Scores
from yeastexp.statistics import Interval, interval

MEAN = "mean"
"""The row of a metric that averages its classes."""

Summary = dict[str, dict[str, dict[str, Any]]]
"""By metric and class: the per-image mean with its interval, and the pooled score."""


def rows_of(scores: Scores, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """A metric's score in each image (NaN where it has none), by class, and averaged over the classes it has."""
    rows = scores.rows.numpy()
    if rows.shape[1] != len(classes):
        return {"all": rows[:, 0]}
    by_class = {name: rows[:, index] for index, name in enumerate(classes)}
    return {**by_class, MEAN: np.array([_mean(row) for row in rows])}


def pooled_of(scores: Scores, classes: Sequence[str]) -> dict[str, float]:
    """A metric's score over all pixels of all images, by class and averaged over classes."""
    pooled = scores.pooled.tolist()
    if len(pooled) != len(classes):
        return {"all": pooled[0]}
    return {**dict(zip(classes, pooled, strict=True)), MEAN: _mean(pooled)}


def _mean(values: Sequence[float] | np.ndarray) -> float:
    kept = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan


def summarise(scores: Mapping[str, Scores], classes: Sequence[str]) -> Summary:
    """Means with intervals beside pooled scores, as numbers that JSON can hold (nothing for NaN)."""
    summary: Summary = {}
    for metric, found in scores.items():
        pooled = pooled_of(found, classes)
        summary[metric] = {
            name: _entry(interval(values.tolist(), found.bounds), pooled[name])
            for name, values in rows_of(found, classes).items()
        }
    return summary


def _entry(per_image: Interval, pooled: float) -> dict[str, Any]:
    numbers = {"per_image": per_image.mean, "low": per_image.low, "high": per_image.high, "pooled": pooled}
    return {**{key: None if math.isnan(n) else n for key, n in numbers.items()}, "images": per_image.images}


def monitored(summary: Summary, metric: str) -> float:
    """The figure that picks the best checkpoint: per image, averaged over classes; NaN where there is none."""
    by_class = summary[metric]
    return _number(by_class.get(MEAN, by_class.get("all", {}))["per_image"])


def tags(summary: Summary) -> dict[str, float]:
    """The summary as TensorBoard tags: `val/<metric>/<class>`, or `val/<metric>` where it has one score."""
    return {
        f"val/{metric}" + ("" if name == "all" else f"/{name}"): _number(row["per_image"])
        for metric, by_class in summary.items()
        for name, row in by_class.items()
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


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


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under all keys that any of them has; floats in full, NaN empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value != value else value for key, value in row.items()})
    return out.getvalue()


def image_rows(names: Sequence[str], scores: Mapping[str, Scores], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each image, metric and class."""
    return [
        {"image": image, "metric": metric, "class": name, "score": float(values[index])}
        for index, image in enumerate(names)
        for metric, found in scores.items()
        for name, values in rows_of(found, classes).items()
    ]


def final_table(title: str, summary: Summary, last: Summary | None, baselines: Mapping[str, Summary]) -> Table:
    """Per image with interval beside pooled, the last checkpoint beside the best, and the baselines."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("metric", "class"):
        table.add_column(heading)
    others = {"last": last} if last is not None else {}
    for heading in ("per image", "95 % interval", "pooled", *others, *baselines):
        table.add_column(heading, justify="right")
    for metric, by_class in summary.items():
        for name, row in by_class.items():
            beside = [shown(other[metric][name]["per_image"]) for other in (*others.values(), *baselines.values())]
            spread = f"{shown(row['low'])} – {shown(row['high'])}"
            table.add_row(metric, name, shown(row["per_image"]), spread, shown(row["pooled"]), *beside)
        table.add_section()
    return table


def shown(value: float | None) -> str:
    """A score as tables show it."""
    return "–" if value is None else f"{value:.4f}"
