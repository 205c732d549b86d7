"""An experiment file written from packed data: what they decide, with what was measured of them as comments."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from yeastexp.config.loading import load_experiment
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.hdf5_file import Reader, refuse_overwriting
from yeastexp.errors import UserError
from yeastexp.inspection.preflight.statistics import count_labels
from yeastexp.metrics import cells
from yeastexp.nets.receptive_field import receptive_field
from yeastexp.sample import IGNORE
from yeastexp.system import files
from yeastexp.system.formatting import format_count, format_share
from yeastexp.system.terminal import printable
from yeastexp.training import build
from yeastexp.training.training_images import DEFAULT_SIDE

Progress = Callable[[Iterable[str]], Iterable[str]]

SMALL_PX = 14
"""Median diameter below which the network works on single pixels, not on blocks of 2 × 2.

On drawn cells of 9 pixels, 800 steps and two seeds, the mean AP was 0.18 and 0.15 with this, 0.07 and 0.08 without.
Images of large cells (67 pixels) are not made smaller: 0.83 and 0.82 as they are, 0.78 and 0.76 at half the size.
"""


@dataclass(frozen=True)
class Measured:
    """What the images of a packed file are, in so far as it decides an experiment."""

    path: Path
    splits: dict[str, int]
    groups: int
    channels: int
    channel_names: tuple[str, ...]
    smallest_side: int
    classes: int
    """Class indices up to the largest."""
    class_names: tuple[str, ...]
    foreground: float
    cells: int
    """In the map `instances`, or connected regions of the foreground where there is none."""
    has_ids: bool
    diameter_px: float
    """Their median; 0 without cells."""
    longest_px: int
    """The longest side of a cell's bounding box; 0 without ids."""
    touching: float
    """Share of the cells that touch another one."""

    @classmethod
    def of(cls, path: Path, progress: Progress = iter) -> Measured:
        """Read all images of a file, one at a time. Raises UserError if their channels differ."""
        dataset, contents = Hdf5(path), Reader(path).contents
        first, *others = contents.names
        shapes = {name: dataset.shape(name) for name in contents.names}
        if odd := [name for name in others if shapes[name][0] != shapes[first][0]]:
            raise UserError(f"{path}: images '{first}' and '{odd[0]}' differ in channels; make two files of them")
        diameters, told, labelled, foreground, largest = list[float](), list[cells.CellStatistics](), 0, 0, 1
        for name in progress(contents.names):
            sample = dataset.read(name)
            instances = sample.maps.get("instances")
            diameters += cells.diameters(instances, sample.labels)
            told += [] if instances is None else [cells.measure(instances)]
            counts = count_labels(sample.labels)
            labelled += sum(count for label, count in counts.items() if label != IGNORE)
            foreground += sum(count for label, count in counts.items() if label > 0)
            largest = max(largest, *counts)
        count = sum(image.count for image in told)
        return cls(
            path=path,
            splits={split: len(names) for split, names in contents.splits.items()},
            groups=len(set(contents.origin.groups.values())),
            channels=shapes[first][0],
            channel_names=contents.origin.channel_names,
            smallest_side=min(min(shape[1:]) for shape in shapes.values()),
            classes=largest + 1,
            class_names=tuple(contents.provenance.get("classes", ())),
            foreground=foreground / max(1, labelled),
            cells=count or len(diameters),
            has_ids=count > 0,
            diameter_px=float(np.median(diameters)) if diameters else 0.0,
            longest_px=max((image.longest_px for image in told), default=0),
            touching=sum(image.touching for image in told) / max(1, count),
        )


@dataclass(frozen=True)
class Line:
    """A line of the file: a table's header, or a key with its value and why it has it."""

    text: str
    reason: str = ""

    @property
    def written(self) -> str:
        """With the reason as a comment, which a line break in a name from the data cannot end."""
        return f"{self.text}  # {printable(self.reason)}" if self.reason else self.text


def new(data: Path, output: Path, *, force: bool = False, progress: Progress = iter) -> Measured:
    """Write an experiment on packed data to `output`, checked as `check` does without training."""
    refuse_overwriting(output, force)
    if output.exists() and data.exists() and output.samefile(data):
        raise UserError(f"{output}: is the file that is read; name another one to write")
    measured = Measured.of(data, progress)
    if missing := [split for split in ("train", "val") if not measured.splits.get(split)]:
        raise UserError(f"{data}: has no image to {missing[0]}; pack it with other --val and --test")
    where = Path(os.path.relpath(data.resolve(), output.resolve().parent)).as_posix()
    title = f"Written from {data.name} by 'yeastexp new'. Change what you know better, then 'check' and 'run' it."
    lines = [f"# {printable(title)}", *(line.written for line in _lines(measured, where))]
    with files.appearing(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            experiment = load_experiment(temporary, [f"name={_string(output.stem)}"])
        except UserError as error:
            raise UserError(*(fault.replace(str(temporary), str(output)) for fault in error.faults)) from None
        field = receptive_field(build.build_model(experiment), measured.channels)
        sides = " × ".join(str(axis.size) for axis in field.axes)
        lines.insert(1, f"# An output of its network depends on {sides} px of the image it is given.")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return measured


def _lines(measured: Measured, path: str) -> Iterator[Line]:
    """What the data decide, by table."""
    across = f"{measured.diameter_px:.0f} px across (median of {measured.cells:,})"
    if measured.has_ids:
        touching = f"{format_share(measured.touching)} of {format_count(measured.cells, 'cell')} touch another one"
        yield Line('extends = "yeastexp:cells"', f"the labels have an id for each cell; {touching}")
    else:
        yield Line('extends = "yeastexp:hdf5"', "the labels are masks, without ids that tell cells apart")
    yield Line("\n[dataset]")
    parts = [f"{count} {split}" for split, count in measured.splits.items()]
    grouped = f", of {format_count(measured.groups, 'group')} that no split parts" if measured.groups > 1 else ""
    yield Line(f"path = {_string(path)}", f"{', '.join(parts)}{grouped}")
    yield Line("\n[task]")
    named = f": {', '.join(measured.channel_names)}" if measured.channel_names else ""
    yield Line(f"channels = {measured.channels}", f"of every image{named}")
    names = ", ".join(map(_string, _class_names(measured)))
    yield Line(f"classes = [{names}]", f"{format_share(measured.foreground)} of the pixels are not the first")
    if 0 < measured.diameter_px < SMALL_PX:
        yield Line("\n[model]")
        yield Line("space_to_depth = 1", f"cells are {across}: outlines need every pixel, and twice the time")
    yield Line("\n[patches]")
    yield from _patches(measured)
    yield Line("\n[train]")
    yield Line('budget = "5m"', "wall-clock time of the whole run; more images and harder ones deserve more")


def _string(value: str) -> str:
    """A string as TOML writes it."""
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip()


def _class_names(measured: Measured) -> list[str]:
    if len(measured.class_names) == measured.classes:
        return list(measured.class_names)
    if measured.classes == 2:
        return ["background", "cell"]
    return ["background", *(f"class_{index}" for index in range(1, measured.classes))]


def _patches(measured: Measured) -> Iterator[Line]:
    """How large patches are, and how many are centred on the foreground."""
    side, longest = measured.smallest_side, measured.longest_px
    wanted = max(DEFAULT_SIDE, -(-2 * longest // 16) * 16)
    size = min(wanted, max(16, side // 16 * 16))
    limit = f"the smallest image has {side} px a side" if size < wanted else f"{DEFAULT_SIDE} px hold several cells"
    if longest and size == wanted > DEFAULT_SIDE:
        limit = f"twice the longest cell ({longest} px)"
    cells_are = f"; cells are {measured.diameter_px:.0f} px across" if measured.cells else ""
    yield Line(f"size = {size}", f"{limit}{cells_are}")
