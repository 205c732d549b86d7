"""Prediction of image files, folders and HDF5 files with a trained run: masks and tables are written."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from yeastexp.config import pretrained
from yeastexp.data import hdf5_file, images, tiff_file
from yeastexp.data.normalization import Values
from yeastexp.data.pieces import StoredImage, bands, refuse_nan
from yeastexp.data.recordings import kinds as recording_kinds
from yeastexp.data.recordings.recording import Choices, Reading, Recording, as_recording
from yeastexp.errors import INPUT_WRONG, RUN_FAILED, UserError
from yeastexp.prediction import cell_table, exports, growing_tiff, outputs
from yeastexp.prediction.cell_table import Table
from yeastexp.prediction.exported import is_exported, load_exported
from yeastexp.prediction.output_folder import ORIGIN, OutputFolder
from yeastexp.prediction.outputs import MaskSummary, Options, Targets, Written
from yeastexp.prediction.parts import Part
from yeastexp.prediction.predictor import Predictor, load_predictor
from yeastexp.system import cores, files, memory
from yeastexp.system.formatting import format_count
from yeastexp.tasks.mask_cells import METHOD
from yeastexp.tasks.semantic import Semantic
from yeastexp.tasks.telling_apart import TellsInstances
from yeastexp.training.run_directory import RunDirectory, Which

Form = Literal["png", "tif"]
ImageProgress = Callable[[int], AbstractContextManager[Callable[[float], None]]]
"""Given the number of images, returns a context with a function to call with each share of an image predicted."""

TABLE, CELLS = "predictions.csv", "cells.csv"
OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR)
"""Errors that keep one image's files from being written, but not those of others."""

AS_SAID = Choices()
"""No choices: the axes of stacks are those that their files state."""

OVERLAYS, PROBABILITIES, IDS = "overlays", "probabilities", "cells"

HDF5 = (".h5", ".hdf5")

LEAST_SPAN, LEAST_SPAN_OF_FRACTIONS = 1 / 2, 1 / 16
"""The least share of the training images' range that values of another type should span."""


@dataclass(frozen=True)
class Source:
    """An image to be predicted: its name in messages and tables, the stem of its files' names, and how it is opened.

    A frame of a stack also has the name of the stack and its index there, and one of several `planes` in depth the
    index of the `plane`, or None if it is their maximum.
    """

    name: str
    stem: str
    path: Path
    values: int
    open: Callable[[], StoredImage]
    stack: str | None = None
    frame: int = 0
    planes: int = 1
    plane: int | None = 0

    @property
    def streams(self) -> bool:
        """Whether the image is too large to be read, or written as PNG, at once."""
        return self.values > images.LARGEST


@dataclass(frozen=True)
class CellsRow:
    """A row of the table of a task that tells instances; `cells_per_mm2` where the size of a pixel is known."""

    file: str
    height: int
    width: int
    foreground_fraction: float
    cells: int
    cells_per_megapixel: float
    cells_per_mm2: float | None
    seconds: float


@dataclass(frozen=True)
class Row:
    """A row of the table.

    `connected_regions` counts the groups of pixels of one class above the first that touch, be it at a corner, of any
    size: specks count, and cells that touch count as one. It is no number of cells.
    """

    file: str
    height: int
    width: int
    foreground_fraction: float
    connected_regions: int
    seconds: float


@dataclass(frozen=True)
class ApproximateRow(Row):
    """A row of the table with the cells that `--cells` cuts the mask into, by a watershed."""

    approximate_cells: int
    approximate_cells_per_megapixel: float
    approximate_cells_per_mm2: float | None


def _row(file: str, image: StoredImage, summary: MaskSummary, tells_instances: bool) -> Row | CellsRow:
    """Return the row of an image in the table, of the type that all images of a call share."""
    pixels, seconds = math.prod(image.size), round(summary.seconds, 3)
    cells = summary.cells if tells_instances else summary.approximate_cells
    if cells is None:
        return Row(file, *image.size, summary.foreground_fraction, summary.cells, seconds)
    density = 1e6 * cells / pixels
    per_mm2 = 1e6 * cells / (pixels * image.pixel_um**2) if image.pixel_um else None
    if tells_instances:
        return CellsRow(file, *image.size, summary.foreground_fraction, cells, density, per_mm2, seconds)
    return ApproximateRow(
        file, *image.size, summary.foreground_fraction, summary.cells, seconds, cells, density, per_mm2
    )


@dataclass
class _Call:
    """A call of `predict`, and its results so far."""

    predictor: Predictor
    folder: OutputFolder
    output: Path
    checkpoint: str
    options: Options
    choices: Choices
    part: Part | None = None
    join: bool = False
    rows: list[Row | CellsRow] = field(default_factory=list)
    cells: dict[str, Table] = field(default_factory=dict)
    """The measurements of the instances of each image, by its name."""
    faults: list[str] = field(default_factory=list)
    labelled: list[exports.Labelled] = field(default_factory=list)
    states: dict[Path, str] = field(default_factory=dict)
    """The states of the files that images are in, several in one perhaps, by `files.state`."""
    other_channels: list[str] = field(default_factory=list)
    """The images whose channels have other names than those of the training images."""
    out_of_range: list[str] = field(default_factory=list)
    """The images whose values are unlike those of the training images."""


@contextmanager
def _silent(count: int) -> Iterator[Callable[[float], None]]:
    """Show no progress."""
    yield lambda share: None


def predict(
    run: Path,
    inputs: Sequence[str],
    output: Path,
    *,
    checkpoint: Which = "best",
    tta: bool = False,
    probabilities: bool = False,
    overlay: bool = False,
    cells: bool = False,
    tile: int | None = None,
    form: Form | None = None,
    kinds: Sequence[str] = (),
    choices: Choices = AS_SAID,
    device: str = "auto",
    part: Part | None = None,
    join: bool = False,
    progress: ImageProgress = _silent,
) -> int:
    """Write a mask for every image, of the same name, and `predictions.csv`; return the number of images.

    Masks hold 0 and 255 if there are two classes, else class indices; those of a task that tells instances hold ids
    from 1, in reading order, in 16 bits or in 32 where there are more, and `cells.csv` measures each cell. With `cells`
    a mask of classes is also cut into approximate cells (see `yeastexp.tasks.mask_cells`), whose ids are written into
    `cells/`. Cells are also written in the `kinds` of files that other programs read; `choices` are for stacks that do
    not say their axes. Images that cannot be predicted are named in a UserError when all others are finished. If a call
    is killed at an image too large for memory, the same call goes on from the rows that are written.

    With a `part`, only its images are predicted, and its rows of images too large for memory, unless they were before;
    the images that it took part in are counted. After all parts a call with `join` writes what needs all of them: cells
    across their rows, the tables, and the `kinds`.
    """
    cores.keep_to_allowed()
    run = pretrained.located(run)
    wanted = exports.chosen(kinds)
    predictor, weights = _load(run, checkpoint, device)
    _refuse_cells_of_others(predictor, run, cells, kinds)
    digest = files.digest(weights)
    folder = OutputFolder(output, run, digest)
    folder.refuse_other_run(output / TABLE)
    options = Options(tta, probabilities, overlay, tile, cells and not isinstance(predictor.task, TellsInstances))
    call = _Call(predictor, folder, output, digest, options, choices, part, join)
    reading = Reading()
    sources = list(sources_of(inputs, call.faults, choices, reading))
    _refuse_other_images(call, sources)
    targets = [_targets(source, output, call.options, form) for source in sources]
    _refuse_clashes(sources, targets)
    planned, exported, present = _planned(call, sources, targets, wanted)
    _refuse_inputs(sources, [*planned, *exported])
    folder.plan(planned, exported, present)
    try:
        with closing(reading), progress(len(sources)) as advance:
            # `all` stops at the first image with a fault that every further image would meet, such as a full disk.
            stopped = not all(_predict(call, *pair, advance) for pair in _own(part, sources, targets))
    finally:
        folder.withdraw()
    # Tables and exports need all images: a part has only its own, and joining is repeated once the faults are gone.
    if part or (join and call.faults):
        return _ended(call, stopped)
    of_images = len(call.faults)
    _write_tables(call)
    # Exports read the images once more, which opens their files again.
    if wanted and call.labelled:
        call.faults += exports.write(wanted, call.labelled, output, sources)
        reading.close()
    # Not before the tables are written: a repeated call finds in the records what it need not predict again.
    written = len(call.faults) == of_images and not stopped
    for its_targets in (each for each in targets if (each.grow or join) and written):
        outputs.remove_records(its_targets)
    with suppress(OSError):
        folder.settle(complete=not call.faults)
    _warn_of_others(call)
    return _ended(call, stopped)


def _load(run: Path, checkpoint: Which, device: str) -> tuple[Predictor, Path]:
    """Return the predictor of a run or of an exported model, whose notes become warnings, and its file of weights."""
    if is_exported(run):
        refuse_options_of_runs(run, checkpoint, device)
        predictor, weights = load_exported(run), run
    else:
        predictor, weights = load_predictor(run, checkpoint, device), RunDirectory(run).checkpoint(checkpoint)
    for note in predictor.notes:
        warnings.warn(note, stacklevel=3)
    return predictor, weights


def _refuse_cells_of_others(predictor: Predictor, run: Path, cells: bool, kinds: Sequence[str]) -> None:
    """Raise UserError if cells are asked for and the task neither tells them apart nor has masks to cut into some."""
    task = predictor.task
    if cells and not isinstance(task, Semantic | TellsInstances):
        name = predictor.experiment.task.part.name
        raise UserError(f"{run}: --cells cuts masks of the task 'semantic' into cells, not those of '{name}'; omit it")
    if kinds and not (cells or isinstance(task, TellsInstances)):
        raise UserError(f"{run}: --as {kinds[0]} writes cells, and the run tells none apart; add --cells (approximate)")


def _own(part: Part | None, sources: Sequence[Source], targets: Sequence[Targets]) -> Iterator[tuple[Source, Targets]]:
    """Yield the images that a part predicts: rows of those too large for memory, and every n-th of the others."""
    # Only images that are predicted whole are counted, so that they spread evenly over the parts.
    place = 0
    for source, its_targets in zip(sources, targets, strict=True):
        if part is None or its_targets.grow or part.has(place):
            yield source, its_targets
        place += not its_targets.grow


def _write_tables(call: _Call) -> None:
    """Write the rows of the images, and of their cells."""
    if call.rows:
        try:
            _write(call.output / TABLE, call.rows)
        except OSError as error:
            call.faults += files.unwritten(call.output / TABLE, error).faults
    if call.cells:
        _write_cells(call, call.output / CELLS)


def _warn_of_others(call: _Call) -> None:
    """Name the images beyond the first of each kind of warning, which names only that."""
    for names, what in ((call.out_of_range, "hold such values"), (call.other_channels, "name other channels")):
        if len(names) > 1:
            others = ", ".join(names[1:6]) + (", …" if len(names) > 6 else "")
            warnings.warn(f"{len(names) - 1} more images {what}: {others}", stacklevel=3)


def _ended(call: _Call, stopped: bool) -> int:
    """Return the number of images; raises UserError with all faults, as failed if something was written before."""
    if call.faults:
        raise UserError(*call.faults, status=RUN_FAILED if call.rows or stopped else INPUT_WRONG)
    return len(call.rows)


def refuse_options_of_runs(path: Path, checkpoint: Which, device: str, option: str = "--{} {}") -> None:
    """Raise UserError, with the `option` as it was given, if an exported model is asked for what only a run has."""
    if checkpoint != "best":
        raise UserError(f"{path}: holds one checkpoint; omit {option.format('checkpoint', checkpoint)}")
    if device == "cuda":
        given = option.format("device", device)
        raise UserError(f"{path}: is run on CPUs; omit {given}, or predict with the run it was exported from")


def outcome(output: Path, count: int) -> str:
    """Return a sentence about what `predict` wrote of so many images, by the table in its output folder."""
    with (output / TABLE).open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    counted = next((name for name in ("cells", "approximate_cells") if name in rows[0]), None)
    if counted is None:
        return f"{format_count(count, 'mask')} in {output}"
    number = format_count(sum(int(row[counted]) for row in rows), "cell")
    if counted == "cells":
        return f"{format_count(count, 'label image')} in {output}; {number}, measured in {output / CELLS}"
    return (
        f"{format_count(count, 'mask')} in {output}; {number}, {METHOD}, in {output / IDS}, "
        f"measured in {output / CELLS}"
    )


def _predict(call: _Call, source: Source, targets: Targets, advance: Callable[[float], None]) -> bool:
    """Predict one image and collect its faults; return whether further images can be written, unlike to a full disk."""
    # However an image ends, it advances the progress by 1 in all, so what it has reported is added up.
    shares = 0.0

    def advance_by(share: float) -> None:
        nonlocal shares
        shares += share
        advance(share)

    try:
        image = source.open()
        identity = _identity(call, source)
        tells_instances = isinstance(call.predictor.task, TellsInstances)
        measured = tells_instances or call.options.cells
        needed = [*targets.all, *([targets.cells] if measured else [])]
        # Only these leave records behind; other images are predicted anew.
        kept = targets.grow or call.part or call.join
        finished = growing_tiff.finished(needed, identity) if kept else None
        if finished:
            summary, cells = MaskSummary(**finished), outputs.read_table(targets.cells) if measured else None
        elif call.join and not targets.grow:
            raise UserError("no part of it is there to be joined; run the one that has it, again if all were joined")
        elif call.part and targets.grow:
            image = call.predictor.fitting(image)
            _claim(call)
            outputs.write_part(call.predictor, image, targets, call.options, identity, advance_by, call.part)
            # A part of an image has no summary; the row counts the image, and only `join` writes a table.
            summary, cells = MaskSummary(math.nan, 0, 0.0), None
        else:
            if not targets.grow:
                outputs.forget(targets)
            summary, cells = _written(call, image, targets, identity, advance_by)
            if call.part:
                if cells is not None:
                    outputs.write_table(targets.cells, cells)
                growing_tiff.remember(targets.mask, identity, vars(summary))
        # With the first result: a call that could write none leaves the folder to other runs.
        _claim(call, result=True)
        call.rows.append(_row(source.name, image, summary, tells_instances))
        if cells is not None:
            call.cells[source.name] = cells
            method = METHOD if call.options.cells else ""
            call.labelled.append(_labelled(source, image, targets, cells, method))
    except UserError as error:
        # A failed write names its file; other faults are those of the image, which they may name already.
        if error.status == RUN_FAILED:
            call.faults += error.faults
            advance(1 - shares)
            return getattr(error.__cause__, "errno", None) in OF_ONE_NAME
        call.faults += [fault if fault.startswith(source.name) else f"{source.name}: {fault}" for fault in error.faults]
    advance(1 - shares)
    return True


def _labelled(source: Source, image: StoredImage, targets: Targets, cells: Table, method: str) -> exports.Labelled:
    """Return an image with its cells as exports take it; its ids are read from their file when they are needed."""
    path = targets.ids or targets.mask

    def labels() -> StoredImage:
        return tiff_file.stored_image(path) if targets.grow else StoredImage.of(str(path), images.read_labels(path))

    return exports.Labelled(
        source.name, source.stem, source.path, image.shape[0], image.size, image.pixel_um, cells, source.open, labels,
        source.stack, source.frame, source.planes, source.plane, method,
    )  # fmt: skip


def _refuse_other_images(call: _Call, sources: Sequence[Source]) -> None:
    """Raise UserError if a folder has results of images that are not predicted now: its tables would lose them.

    A recording that cannot be read any more is among them, so its fault is told as well.
    """
    try:
        with (call.output / TABLE).open(encoding="utf-8", newline="") as file:
            before = [row["file"] for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error):
        return
    now = {os.path.abspath(source.name) for source in sources}  # noqa: PTH100  # names of frames are no paths
    if others := [name for name in before if os.path.abspath(name) not in now]:  # noqa: PTH100
        count = format_count(len(others), "other image")
        raise UserError(
            *call.faults,
            f"{call.output}: holds results of {count} ({others[0]}{', …' if len(others) > 1 else ''}); name another "
            "folder, or predict all of them in one call",
        )


def _claim(call: _Call, *, result: bool = False) -> None:
    """Write into the output folder what is written there and, with a `result`, by which run; a fault is collected."""
    try:
        call.folder.claim(result=result)
    except OSError as error:
        # Without a result the image's own file meets the same fault, or the next call of this function does.
        call.faults += files.unwritten(call.output / ORIGIN, error).faults if result else ()


def _written(
    call: _Call, image: StoredImage, targets: Targets, identity: dict[str, Any], advance: Callable[[float], None]
) -> Written:
    """Write the outputs of a whole image, and warn once if its values or channels are unlike the training images'.

    Raises UserError if the image does not fit the run, or memory does not suffice.
    """
    predictor = call.predictor
    image = predictor.fitting(image)
    if warning := range_warning(predictor, image):
        if not call.out_of_range:
            warnings.warn(warning, stacklevel=2)
        call.out_of_range.append(image.name)
    if warning := channels_warning(predictor, image):
        if not call.other_channels:
            warnings.warn(warning, stacklevel=2)
        call.other_channels.append(image.name)
    _claim(call)
    write = outputs.write_joined if call.join else outputs.write_outputs
    try:
        return write(predictor, image, targets, call.options, identity, advance)
    except RuntimeError as error:
        if not memory.is_exhausted(error):
            raise
        raise UserError(f"{image.name}: memory does not suffice; take smaller tiles, as --tile 512") from error


# What is to be predicted, and where it goes


def sources_of(inputs: Sequence[str], faults: list[str], choices: Choices, reading: Reading) -> Iterator[Source]:
    """Yield every image that paths lead to; the faults of stacks and HDF5 files that cannot be read are collected."""
    paths = images.image_files(inputs)
    hdf5_paths = [path for path in paths if _is_hdf5(path)]
    for path in paths:
        if path in hdf5_paths:
            continue
        if not _is_unicode(str(path)):
            faults.append(f"{str(path)!r}: its name is not UTF-8, as names in tables have to be; rename it")
            continue
        if not recording_kinds.holds_several(path, choices):
            yield Source(str(path), path.stem, path, math.prod(tiff_file.claimed_shape(path)), partial(_open, path))
            continue
        try:
            yield from _frames(path, choices, reading)
        except UserError as error:
            faults += error.faults
    for path in hdf5_paths:
        try:
            stored, origin = hdf5_file.stored_images(path), hdf5_file.origin_of(path)
        except UserError as error:
            faults += error.faults
            continue
        for image in stored:
            stem = image.name.removeprefix(f"{path}/")
            if not hdf5_file.is_plain(stem):
                faults.append(f"{path}: {stem[: hdf5_file.LONGEST_NAME]!r} cannot be the name of an image; rename it")
                continue
            # Groups may be fields as well as stacks; only images with a number of their frame, and names like
            # `GROUP_t…`, are frames of one.
            stack, frame = origin.groups.get(stem), origin.frames.get(stem)
            if frame is None or not (stack and re.fullmatch(rf"{re.escape(stack)}_t\d+", stem)):
                stack, frame = None, 0
            opened = partial(replace, image, channel_names=origin.channel_names)
            yield Source(image.name, stem, path, math.prod(image.shape), opened, stack, frame)


def _frames(path: Path, choices: Choices, reading: Reading) -> Iterator[Source]:
    """Yield the frames of a file with several pages, each as an image."""
    arrays = recording_kinds.arrays(path, choices)
    for recording in [as_recording(array, choices, in_pieces=True) for array in arrays]:
        several = recording.is_stack or len(arrays) > 1
        for frame in range(recording.frames):
            stem = recording.image_name(frame)
            name = f"{path}/{stem}" if several else str(path)
            yield Source(
                name, stem, path, math.prod(recording.shape), partial(_read, name, recording, frame, reading),
                recording.array.name if recording.is_stack else None, frame, recording.length("Z"), recording.plane,
            )  # fmt: skip


def _read(name: str, recording: Recording, frame: int, reading: Reading) -> StoredImage:
    """Return a frame, read at once, or piece by piece if it is too large for that."""
    if math.prod(recording.shape) > images.LARGEST:
        dtype = reading.read(recording, frame, slice(0, 1), slice(0, 1)).dtype
        image = StoredImage(name, recording.shape, dtype, partial(reading.read, recording, frame))
    else:
        image = StoredImage.of(name, reading.read(recording, frame))
    return replace(image, pixel_um=recording.array.pixel_um, channel_names=recording.array.channel_names)


def _is_unicode(text: str) -> bool:
    """Whether text can be encoded; bytes of a file's name that are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5 by its suffix or by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() in HDF5 or file.read(len(hdf5_file.BEGINNING)) == hdf5_file.BEGINNING


def _open(path: Path) -> StoredImage:
    """Return the image in a file, read at once, or piece by piece if it is too large for that."""
    if math.prod(tiff_file.claimed_shape(path)) > images.LARGEST:
        image = tiff_file.stored_image(path)
    else:
        image = StoredImage.of(str(path), images.read_image(path))
    # The pixels have been read, so damaged metadata cost no more than the size of a pixel and names of channels.
    with suppress(UserError):
        array, *_ = recording_kinds.arrays(path, Choices())
        return replace(image, pixel_um=array.pixel_um, channel_names=array.channel_names)
    return image


def _targets(source: Source, output: Path, options: Options, form: Form | None) -> Targets:
    """Return the files that an image's outputs go to; raises UserError if it is too large for the format asked for."""
    if form == "png" and source.streams:
        raise UserError(f"{source.name}: is too large for a PNG file; take --format tif")
    suffix = "tif" if source.streams else form or "png"
    return Targets(
        output / f"{source.stem}.{suffix}",
        output / PROBABILITIES / f"{source.stem}.tif" if options.probabilities else None,
        output / OVERLAYS / f"{source.stem}.png" if options.overlay else None,
        source.streams,
        output / IDS / f"{source.stem}.{suffix}" if options.cells else None,
    )


def _planned(
    call: _Call, sources: Sequence[Source], targets: Sequence[Targets], wanted: Sequence[exports.Kind]
) -> tuple[dict[Path, str], dict[Path, str], set[str]]:
    """Return the files that a call writes and those that it exports, each with its contents, and all present contents.

    Contents are a digest of all that ids in a file come from: of an image it is the same whichever others are predicted
    with it. Those that this call could have, whichever files it writes, are present.
    """
    contents = {source.name: _contents(call, source) for source in sources}
    planned: dict[Path, str] = {}
    for source, its_targets in zip(sources, targets, strict=True):
        planned |= dict.fromkeys(its_targets.all, contents[source.name])
    tells_cells = call.options.cells or isinstance(call.predictor.task, TellsInstances)
    planned |= dict.fromkeys([call.output / TABLE, *([call.output / CELLS] if tells_cells else [])], _digest(contents))

    def exported(kind: exports.Kind) -> dict[Path, str]:
        # The kind is a part: of a single image a file of all images would else have the contents of that image's.
        files_of_kind = kind.targets(sources, call.output).items()
        return {
            path: _digest([kind.name, *(contents[each.name] for each in members)]) for path, members in files_of_kind
        }

    present = {*planned.values()}
    for kind in exports.KINDS.values():
        with suppress(UserError):  # it cannot be written of these images
            present |= {*exported(kind).values()}
    return planned, {path: digest for kind in wanted for path, digest in exported(kind).items()}, present


def _refuse_clashes(sources: Sequence[Source], targets: Sequence[Targets]) -> None:
    """Raise UserError if two images would have one output file."""
    by_target: dict[Path, Source] = {}
    for source, its_targets in zip(sources, targets, strict=True):
        for target in its_targets.all:
            if target in by_target:
                other = by_target[target].name
                raise UserError(f"{source.name}: its mask would have the name of that of {other}; predict them apart")
            by_target[target] = source


def _refuse_inputs(sources: Sequence[Source], planned: Sequence[Path]) -> None:
    """Raise UserError if an output would replace an input, a folder that holds one, or lie within an OME-Zarr input."""
    inputs = {os.path.realpath(source.path): source.path for source in sources}  # Path.resolve raises on loops
    holders = {str(folder): path for real, path in inputs.items() for folder in Path(real).parents}
    for target in planned:
        real = os.path.realpath(target)
        if real in inputs:
            raise UserError(f"{target}: is one of the images; choose another folder for the masks")
        others = (holders.get(real), *(inputs.get(str(folder)) for folder in Path(real).parents))
        if other := next((path for path in others if path), None):
            raise UserError(f"{other}: is one of the images, and {target} would change it; choose another folder")


def _identity(call: _Call, source: Source) -> dict[str, Any]:
    """Return all that has to be the same for files that a killed call left to be continued."""
    # The device as well: rows of one image from a CPU and a GPU would differ in their last bits.
    if source.path not in call.states:
        call.states[source.path] = files.state(source.path)
    return {
        "image": [str(source.path.resolve()), source.stem, call.states[source.path]],
        "checkpoint": call.checkpoint,
        "options": asdict(call.options),
        "choices": asdict(call.choices),
        "device": call.predictor.device.type,
    }


def _contents(call: _Call, source: Source) -> str:
    """Return the digest of all that an image's labels depend on, whichever files they are written into."""
    # The options that only add files.
    plain = replace(call, options=replace(call.options, probabilities=False, overlay=False, cells=False))
    try:
        return _digest(_identity(plain, source))
    except OSError:  # it cannot be opened, which is told with the image
        return _digest(source.name)


def _digest(described: Any) -> str:
    """Return enough of a digest to tell contents apart, as records of thousands of files have one of each."""
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


# Values unlike those of the training images, and the table


def range_warning(predictor: Predictor, image: StoredImage) -> str | None:
    """Return a warning if an image's values are unlike those of the training images; None if they are alike.

    Raises UserError if a value is not finite.
    """
    # The extremes first: they refuse NaN also where nothing is known of the training images.
    ends, known = _extremes(predictor, image), predictor.trained_on
    if known is None:
        return None
    # Ranges of channels are kept neither for images of one channel nor by checkpoints of earlier versions.
    if len(known.channels) != len(ends):
        known, ends = replace(known, channels=((known.low, known.high),)), [(min(ends)[0], max(end for _, end in ends))]
    others = [
        (channel, *end, *trained)
        for channel, (end, trained) in enumerate(zip(ends, known.channels, strict=True), 1)
        if _are_others(*end, image.dtype, Values(*trained), "uint8" if known.high < 256 else "uint16")
    ]
    if not others:
        return None
    channel, low, high, least, most = others[0]
    place = f" in channel {channel}" if len(ends) > 1 else ""
    per_image = any(step.normalizes and getattr(step, "per", "") == "image" for step in predictor.transforms)
    advice = (
        "each image is normalised by its own statistics, but check the masks"
        if per_image
        else "the masks are likely wrong; save the image with the values of the training images"
    )
    return (
        f"{image.name}: holds values from {low:g} to {high:g} ({image.dtype}){place}, the training images from "
        f"{least:g} to {most:g}; {advice}"
    )


def channels_warning(predictor: Predictor, image: StoredImage) -> str | None:
    """Return a warning if an image's channels have other names than those of the training images, as `pack` does."""
    given, trained = image.channel_names, predictor.channel_names
    # Names in another order are refused (`Predictor.fitting`), and three equal channels are one.
    if len(given) != len(trained) or [*map(str.casefold, given)] == [*map(str.casefold, trained)]:
        return None
    return (
        f"{image.name}: names its channels {', '.join(given)}, the training images {', '.join(trained)}; is their "
        "order one?"
    )


def _extremes(predictor: Predictor, image: StoredImage) -> list[tuple[float, float]]:
    """Return the smallest and the largest value of each channel, as recorded; raises UserError if one is not finite."""
    low, high = np.full(image.shape[0], math.inf), np.full(image.shape[0], -math.inf)
    for rows in bands(image.size):
        piece = image.read(rows, slice(0, image.size[1]))
        refuse_nan(image.name, piece)
        low, high = np.minimum(low, piece.min(axis=(1, 2))), np.maximum(high, piece.max(axis=(1, 2)))
    if stored := image.normalization:
        low, high = (ends * np.asarray(stored["std"]) + np.asarray(stored["mean"]) for ends in (low, high))
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _are_others(low: float, high: float, dtype: np.dtype[Any], known: Values, recorded: str = "") -> bool:
    """Whether values exceed the known range by more than its span, or are of another type and a smaller span."""
    # Another type with a smaller span is the sign of rescaling: 12 bits saved as 8, or floats from 0 to 1. `predict`
    # knows the type of the training images only by their largest value.
    span = known.high - known.low
    if high > known.high + span or low < known.low - span:
        return True
    recorded = recorded or ("uint8" if known.high < 256 else "uint16")
    least = LEAST_SPAN_OF_FRACTIONS if dtype.kind == "f" else LEAST_SPAN
    return str(dtype) != recorded and high - low < least * span


def _write(path: Path, rows: Sequence[Row | CellsRow]) -> None:
    """Write the table of images."""
    text = io.StringIO()
    table = csv.DictWriter(text, [column.name for column in fields(rows[0])], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    files.write_text(path, text.getvalue())


def _write_cells(call: _Call, path: Path) -> None:
    """Write the table of the cells of all images; a fault is collected."""
    channels, known = call.predictor.experiment.task.channels, any("area_um2" in each for each in call.cells.values())
    columns = cell_table.columns(channels, pixel_um=known, confidence=True)
    tables: Iterable[tuple[str, Table]] = call.cells.items()
    if call.options.cells:
        columns.append("method")
        tables = (
            (name, {**table, "method": np.broadcast_to(np.array(METHOD), table["label"].shape)})
            for name, table in tables
        )
    try:
        cell_table.write_csv(path, tables, columns)
    except UserError as error:
        call.faults += error.faults
