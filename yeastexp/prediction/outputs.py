"""The outputs of a trained model for an image of any size: mask, probabilities, overlay, ids and count of cells."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from scipy import ndimage, sparse
from torch import Tensor

from yeastexp.data import images, tiff_file
from yeastexp.data.pieces import Pieces, StoredImage, bands
from yeastexp.data.transforms import pipeline
from yeastexp.drawing import cells, pictures
from yeastexp.errors import UserError
from yeastexp.prediction import growing_tiff, parts, tiled_transforms, tiling
from yeastexp.prediction.cell_table import Table, measure_in_windows
from yeastexp.prediction.growing_tiff import Form, growing
from yeastexp.prediction.parts import Part
from yeastexp.prediction.predictor import Predictor, refuse_nan_outputs
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import files
from yeastexp.tasks.semantic import Semantic
from yeastexp.tasks.telling_apart import TellsInstances

Array = npt.NDArray[Any]
Tile = tuple[slice, slice, Tensor]
"""Rows, columns, and the logits (K, h, w) there."""
# Asked for again for each band, so that a mapped array is let go in between: its pages then count as the file's cache,
# and not as memory of this process.
Arrays = Callable[[], Sequence[Array]]
"""Returns the arrays to be filled, in the order of `_forms`: a mask or ids (H, W), then planes and ids, if any."""
Advance = Callable[[float], None]
"""Called with each share of an image that is predicted."""

LARGE = 1 << 24
"""Pixels of an image above which the transforms are applied in pieces as well, if they allow that, and values of an
array above which it lies in a file.
"""

SHOWN = 4096
"""The longer side of the largest overlay, in pixels."""


@dataclass(frozen=True)
class Options:
    """The outputs that are written of each image, and the side of tiles in pixels, `tile`.

    `cells` asks for the approximate cells of a task that tells no instances; other tasks measure theirs in any case.
    """

    tta: bool = False
    probabilities: bool = False
    overlay: bool = False
    tile: int | None = None
    cells: bool = False


@dataclass(frozen=True)
class Targets:
    """The files that an image's outputs are written to, and whether they grow band by band (`grow`)."""

    mask: Path
    probabilities: Path | None = None
    overlay: Path | None = None
    grow: bool = False
    ids: Path | None = None
    """The ids of approximate cells; the ids of a task that tells instances are the mask."""

    @property
    def planes(self) -> Path:
        """The file with the planes that cells are found in, of an image too large for memory; removed at the end."""
        return self.mask.with_name(f".{self.mask.name}.planes")

    @property
    def cells(self) -> Path:
        """The file with the measurements of such an image, until those of all images are written to one table."""
        return self.mask.with_name(f".{self.mask.name}.cells")

    @property
    def all(self) -> list[Path]:
        """All files that the user asked for, the mask first."""
        return [path for path in (self.mask, self.probabilities, self.overlay, self.ids) if path]


@dataclass(frozen=True)
class MaskSummary:
    """The share of a mask's pixels above class 0, and the number of connected regions of the classes above 0.

    For a task that tells instances `cells` is the number of instances.
    """

    foreground_fraction: float
    cells: int
    seconds: float
    approximate_cells: int | None = None


class Written(NamedTuple):
    """The summary of what was written of an image, and the measurements of its cells, if cells are told apart."""

    summary: MaskSummary
    cells: Table | None


def write_outputs(
    predictor: Predictor,
    image: StoredImage,
    targets: Targets,
    options: Options,
    identity: Mapping[str, Any],
    advance: Advance,
) -> Written:
    """Predict an image and write its files; files that grow are continued from where a killed process left them.

    `identity` says what has to be the same for that. Raises UserError if the outputs are NaN or cannot be written.
    """
    began = time.monotonic()
    forms = _forms(predictor, image, targets)
    if targets.grow:
        with growing(forms, identity, _side(predictor, image, options)) as tiffs:
            began -= tiffs.seconds
            advance(tiffs.rows / image.size[0])
            # The side that the killed process chose, not one by the memory that is free now: blended rows would differ.
            options = replace(options, tile=tiffs.side)
            for rows in _fill(predictor, image, options, tiffs.arrays, advance, tiffs.rows):
                tiffs.keep(rows, time.monotonic() - began)
            summary, table = _finish(predictor, image, tiffs.arrays, targets, began)
            # Before the record says that the image is finished, which its measurements are part of.
            if table is not None:
                write_table(targets.cells, table)
            tiffs.appear(vars(summary))
        return Written(summary, table)
    with ExitStack() as stack:
        arrays = [_room(form, targets.mask.parent, stack) for form in forms.values()]
        for _ in _fill(predictor, image, options, lambda: [each() for each in arrays], advance):
            pass
        written = _finish(predictor, image, lambda: [each() for each in arrays], targets, began)
        if targets.probabilities:
            tiff_file.write(targets.probabilities, arrays[1]())
        if targets.ids:
            _write_ids(targets.ids, arrays[2](), image.pixel_um)
        # Planes and ids take several times the memory of the mask, so they are freed before its file is encoded.
        del arrays[1:]
        _write_mask(predictor, targets.mask, arrays[0](), image.pixel_um)
    return written


def write_part(
    predictor: Predictor,
    image: StoredImage,
    targets: Targets,
    options: Options,
    identity: Mapping[str, Any],
    advance: Advance,
    part: Part,
) -> None:
    """Predict a part's rows of an image and write them to files of their own, which `write_joined` puts together.

    They are continued from where a killed process left them. Raises UserError if the parts would not fit together.
    """
    began, filled = time.monotonic(), _filled(predictor, image, targets)
    if growing_tiff.finished([part.file_of(path) for path in filled], identity, but="rows_of_tiles"):
        return
    _refuse_other_counts(image, [*parts.written(next(iter(filled))), part])
    side = _side(predictor, image, options)
    # Blended outputs depend on the side of the tiles, and by default that follows from the memory that is free, which
    # differs between the machines that the parts run on.
    if side != options.tile:
        raise UserError(f"{image.name}: its tiles blend, so all parts have to take the same; add --tile {side}")
    logits, tile = _tiled(predictor, image, options)
    rows = part.rows(image.size[0], tile[0])
    length = rows.stop - rows.start
    if not length:
        return
    forms = {part.file_of(path): ((*shape[:-2], length, shape[-1]), dtype) for path, (shape, dtype) in filled.items()}
    scale = _scale(len(predictor.classes))
    # A part's rows follow from the height of its tiles, so a file begun with other tiles is not continued.
    with growing(forms, {**identity, "rows_of_tiles": tile[0]}) as tiffs:
        began -= tiffs.seconds
        advance(tiffs.rows / length)
        for within, columns in tiling.tiles((rows.stop, image.size[1]), tile, rows.start + tiffs.rows):
            own = slice(within.start - rows.start, within.stop - rows.start)
            piece = logits.cut(within, columns)
            refuse_nan_outputs(image.name, piece)
            for array, values in zip(tiffs.arrays(), _stored(predictor, piece, scale), strict=False):
                array[..., own, columns] = values
            advance((own.stop - own.start) * (columns.stop - columns.start) / (length * image.size[1]))
            if columns.stop == image.size[1]:
                tiffs.keep(own.stop, time.monotonic() - began)
        tiffs.appear({"first": rows.start, "last": rows.stop, "seconds": time.monotonic() - began})


def write_joined(
    predictor: Predictor,
    image: StoredImage,
    targets: Targets,
    options: Options,
    identity: Mapping[str, Any],
    advance: Advance,
) -> Written:
    """Join the rows that the parts of an image have written into the files that a single process would have written.

    Raises UserError that names the parts that are missing.
    """
    began = time.monotonic()
    forms, filled = _forms(predictor, image, targets), _filled(predictor, image, targets)
    pieces = _pieces(image, filled, identity)
    with growing(forms, identity) as tiffs:
        began -= sum(seconds for *_, seconds in pieces)
        for rows, part, _ in pieces:
            if rows.stop <= tiffs.rows:
                continue
            for band in bands((rows.stop - rows.start, image.size[1])):
                there = slice(rows.start + band.start, rows.start + band.stop)
                for path, array in zip(forms, tiffs.arrays(), strict=True):
                    if path in filled:
                        shape = (*array.shape[:-2], rows.stop - rows.start, image.size[1])
                        stored = tifffile.memmap(part.file_of(path), mode="r").reshape(shape)
                        array[..., there, :] = stored[..., band, :]
            advance((rows.stop - rows.start) / image.size[0])
            tiffs.keep(rows.stop, time.monotonic() - began)
        summary, table = _finish(predictor, image, tiffs.arrays, targets, began)
        if table is not None:
            write_table(targets.cells, table)
        tiffs.appear(vars(summary))
    return Written(summary, table)


def _pieces(
    image: StoredImage, filled: Mapping[Path, Form], identity: Mapping[str, Any]
) -> list[tuple[slice, Part, float]]:
    """Return the rows of each part from top to bottom, with the part and its seconds.

    Raises UserError unless they are exactly the rows of the image.
    """
    pieces: list[tuple[slice, Part, float]] = []
    first, *_ = filled
    there = parts.written(first)
    _refuse_other_counts(image, there)
    # A part without rows, of an image with fewer rows of tiles than parts, has written nothing, and none are missing.
    for part in there:
        at = [part.file_of(path) for path in filled]
        if (kept := growing_tiff.finished(at, identity, but="rows_of_tiles")) is not None:
            pieces.append((slice(kept["first"], kept["last"]), part, kept["seconds"]))
    pieces.sort(key=lambda piece: piece[0].start)
    ends = [0, *(rows.stop for rows, *_ in pieces)]
    if [rows.start for rows, *_ in pieces] == ends[:-1] and ends[-1] == image.size[0]:
        return pieces
    known = {part for _, part, _ in pieces}
    count = there[0].count if there else 0
    missing = [str(part) for index in range(count) if (part := Part(index + 1, count)) not in known]
    if missing:
        raise UserError(f"{image.name}: not all of its rows are predicted; run --part {' and --part '.join(missing)}")
    if there:
        raise UserError(f"{image.name}: the rows of its parts do not meet, as tiles differ; give all the same --tile")
    raise UserError(f"{image.name}: none of its rows are predicted; run all parts, as --part 1/4")


def _refuse_other_counts(image: StoredImage, there: Sequence[Part]) -> None:
    """Raise UserError if parts of an image belong to divisions into different numbers of parts."""
    if len(counts := sorted({part.count for part in there})) > 1:
        told = " and ".join(map(str, counts))
        raise UserError(f"{image.name}: there are parts of {told}; take another folder for one of them")


def _filled(predictor: Predictor, image: StoredImage, targets: Targets) -> dict[Path, Form]:
    """Return the files that are filled tile by tile, by their forms; ids are left out, which need all tiles."""
    forms = _forms(predictor, image, targets)
    found_later = {targets.ids, targets.mask if isinstance(predictor.task, TellsInstances) else None}
    return {path: form for path, form in forms.items() if path not in found_later}


def _stored(predictor: Predictor, logits: Tensor, scale: np.uint8) -> Iterator[Array]:
    """Yield what a tile's logits give: the mask, unless the task tells instances, and the planes (P, h, w)."""
    task = predictor.task
    if not isinstance(task, TellsInstances):
        yield task.decode(logits).labels.to(torch.uint8).cpu().numpy() * scale
    yield task.kept(task.activate(logits.float())).cpu().numpy()


def _room(form: Form, folder: Path, stack: ExitStack) -> Callable[[], Array]:
    """Return a function that gives an array of a form, the same at each call.

    A large array lies in a file without a name if the disk has room: bands of it are in memory while they are used,
    and a killed process leaves nothing behind.
    """
    shape, dtype = form
    values = math.prod(shape)
    # The blocks are allocated now, because writing through mapped memory to a full disk ends in SIGBUS, which kills the
    # process; without room the array lies in memory.
    if values > LARGE and hasattr(os, "posix_fallocate"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  # the stack closes it
            os.posix_fallocate(file.fileno(), 0, values * np.dtype(dtype).itemsize)
            return lambda: np.memmap(file, dtype, "r+", shape=shape)
    array = np.empty(shape, dtype)
    return lambda: array


def remove_records(targets: Targets) -> None:
    """Remove the records, measurements and parts that were kept beside an image's files to go on from."""
    targets.cells.unlink(missing_ok=True)
    targets.planes.unlink(missing_ok=True)
    growing_tiff.record_of(targets.mask).unlink(missing_ok=True)
    for target in (*targets.all, targets.planes):
        for part in parts.written(target):
            growing_tiff.record_of(part.file_of(target)).unlink(missing_ok=True)
            part.file_of(target).unlink(missing_ok=True)


def forget(targets: Targets) -> None:
    """Remove what a part recorded of an image that it wrote at once, before other contents get its files' names."""
    # Faults such as a name that is too long are told with the image's own file.
    with suppress(OSError):
        growing_tiff.record_of(targets.mask).unlink(missing_ok=True)
        targets.cells.unlink(missing_ok=True)


def write_table(path: Path, table: Table) -> None:
    """Keep the measurements of an image in a file until those of all images are written."""
    with files.appearing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **table)


def read_table(path: Path) -> Table:
    """Return the measurements that `write_table` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _forms(predictor: Predictor, image: StoredImage, targets: Targets) -> dict[Path, Form]:
    """Return the files to be filled with the shapes and types of their arrays, in the order that `Arrays` gives them.

    First the mask, or ids if the task tells instances; then planes, if probabilities are asked for or cells found or
    measured in them; then ids of approximate cells.
    """
    task, size = predictor.task, image.size
    forms: dict[Path, Form] = {targets.mask: (size, np.uint32 if isinstance(task, TellsInstances) else np.uint8)}
    if targets.probabilities or targets.ids or isinstance(task, TellsInstances):
        # A task says how many planes it keeps by keeping those of a single pixel.
        count = len(task.kept(torch.zeros(task.outputs, 1, 1)))
        forms[targets.probabilities or targets.planes] = ((count, *size) if count > 1 else size, np.float32)
    if targets.ids:
        forms[targets.ids] = (size, np.uint32)
    return forms


def _fill(
    predictor: Predictor,
    image: StoredImage,
    options: Options,
    arrays: Arrays,
    advance: Advance,
    first_row: int = 0,
) -> Iterator[int]:
    """Fill the mask, and the planes if there is an array for them, from a row on; yield how many rows are complete."""
    task, scale = predictor.task, _scale(len(predictor.classes))
    for rows, columns, logits in logits_in_tiles(predictor, image, options, first_row):
        refuse_nan_outputs(image.name, logits)
        mask, *planes = arrays()
        if not isinstance(task, TellsInstances):
            mask[rows, columns] = task.decode(logits).labels.to(torch.uint8).cpu().numpy() * scale
        if planes:
            planes[0][..., rows, columns] = task.kept(task.activate(logits.float())).cpu().numpy()
        advance((rows.stop - rows.start) * (columns.stop - columns.start) / math.prod(image.size))
        if columns.stop == image.size[1]:
            yield rows.stop


def _finish(predictor: Predictor, image: StoredImage, arrays: Arrays, targets: Targets, began: float) -> Written:
    """Find and measure the cells in filled arrays, write the overlay, and return summary and measurements."""
    task, classes = predictor.task, len(predictor.classes)
    scale = 1 if isinstance(task, TellsInstances) else int(_scale(classes))
    # Ids are the first array of `_forms` or, beside a mask and planes, the third.
    ids, found = 0 if isinstance(task, TellsInstances) else 2, None

    # Bands are copied, so that no view keeps the whole of a mapped array open.
    def parts() -> Iterator[Array]:
        return (np.array(arrays()[0][rows]) for rows in bands(image.size))

    def planes(rows: slice) -> Array:
        stored = np.array(arrays()[1][..., rows, :])
        return stored if stored.ndim == 3 else stored[None]

    if isinstance(task, TellsInstances):
        count = task.find_instances(planes, lambda: arrays()[0])
    else:
        count = sum(regions(part == label * scale for part in parts()) for label in range(1, classes))
        if targets.ids:
            assert isinstance(task, Semantic), "others were refused"
            found = task.mask_cells.fill(lambda rows: np.array(arrays()[0][rows]) > 0, lambda: arrays()[ids])
    table: Table | None = None
    if isinstance(task, TellsInstances) or (targets.ids and isinstance(task, Semantic)):
        table = measure_in_windows(
            image.size,
            lambda rows, columns: np.array(arrays()[ids][rows, columns]),
            image.read,
            lambda rows, columns: task.confidence(planes(rows))[:, columns],
            pixel_um=image.pixel_um,
        )
    foreground = sum(int(np.count_nonzero(part)) for part in parts())
    if targets.overlay:
        shown, unit = (arrays()[0], scale) if table is None else (arrays()[ids], 1)
        images.write_png(targets.overlay, overlay(image, shown, unit, numbers=table is not None))
    share = foreground / math.prod(image.size)
    return Written(MaskSummary(share, count, time.monotonic() - began, found), table)


def _write_mask(predictor: Predictor, path: Path, mask: Array, pixel_um: float | None) -> None:
    """Write a mask of class indices or of ids."""
    if isinstance(predictor.task, TellsInstances):
        _write_ids(path, mask, pixel_um)
    else:
        classes = len(predictor.classes)
        _write_pixels(path, mask, pixel_um, pictures.palette(classes) if classes > 2 else None)


def _write_ids(path: Path, ids: Array, pixel_um: float | None) -> None:
    """Write ids in as few bits as hold them; raises UserError if a PNG file cannot hold so many."""
    count = int(ids.max(initial=0))
    if count >= 1 << 16 and path.suffix == ".png":
        raise UserError(f"{path}: {count} cells are more than the 65535 that a PNG file holds; take --format tif")
    _write_pixels(path, ids if count >= 1 << 16 else ids.astype(np.uint16), pixel_um)


def _write_pixels(path: Path, pixels: Array, pixel_um: float | None, palette: Array | None = None) -> None:
    if path.suffix == ".png":
        images.write_png(path, pixels, palette)
    else:
        tiff_file.write(path, pixels, pixel_um)


def logits_in_tiles(predictor: Predictor, image: StoredImage, options: Options, first_row: int = 0) -> Iterator[Tile]:
    """Yield the logits on all of an image from a row on, from top to bottom.

    The image's values are as recorded, or stored normalised. Raises UserError if it is too large for memory and a
    transform depends on all of it.
    """
    if math.prod(image.size) > LARGE:
        try:
            yield from _through_tiles(predictor, image, options, first_row)
            return
        except tiled_transforms.NeedsWholeImage as error:
            if math.prod(image.shape) > images.LARGEST:
                raise UserError(_too_large(image, error)) from None
    values = predictor.rescaled(torch.from_numpy(image.whole.astype(np.float32)), image.normalization)
    sample = Sample(values, torch.full(image.size, IGNORE), image.name)
    logits = predictor.logits(sample, side=options.tile, tta=options.tta)
    yield slice(0, image.size[0]), slice(0, image.size[1]), logits


def _too_large(image: StoredImage, transform: Exception) -> str:
    return (
        f"{image.name}: is too large for memory, and transform {transform} depends on the whole image; "
        "give it a 'statistics' hook, or cut the image into pieces"
    )


def _through_tiles(predictor: Predictor, image: StoredImage, options: Options, first_row: int) -> Iterator[Tile]:
    logits, tile = _pieces_of_logits(predictor, image, options)
    for rows, columns in tiling.tiles(image.size, tile, first_row):
        yield rows, columns, logits.cut(rows, columns)


def _tiled(predictor: Predictor, image: StoredImage, options: Options) -> tuple[Pieces, tuple[int, int]]:
    """Return what `_pieces_of_logits` does; raises UserError if a transform needs the whole image."""
    try:
        return _pieces_of_logits(predictor, image, options)
    except tiled_transforms.NeedsWholeImage as error:
        raise UserError(_too_large(image, error)) from None


def _pieces_of_logits(predictor: Predictor, image: StoredImage, options: Options) -> tuple[Pieces, tuple[int, int]]:
    """Return the logits on an image, computed when a piece is read, and the size of the tiles to ask for."""

    def cut(rows: slice, columns: slice) -> Tensor:
        values = torch.from_numpy(image.read(rows, columns).astype(np.float32)).to(predictor.device)
        return predictor.rescaled(values, image.normalization)

    transformed = tiled_transforms.transformed(predictor.transforms, Pieces(image.size, cut))
    scores, tile = predictor.scores(transformed, side=options.tile, tta=options.tta)
    # Where the model takes the image at once, it is run here, not again for each band; the transforms before it and the
    # restoring after it still work in pieces.
    if predictor.takes_at_once(transformed.size, options.tile):
        scores, tile = Pieces.of(scores.whole), (next(bands(transformed.size)).stop, transformed.size[1])
    logits = pipeline.restore_pieces(predictor.transforms, scores, image.size)
    # Where a transform made the image smaller, tiles of the image are that much larger than those of the model, or
    # several of them would need the same tile of the model.
    factor = -(-image.size[0] // transformed.size[0])
    return logits, (tile[0] * factor, tile[1] * factor)


def _side(predictor: Predictor, image: StoredImage, options: Options) -> int | None:
    """Return the side that blended outputs depend on, to be kept for processes that go on; None if tiles are exact."""
    tiling = predictor.tiling
    if options.tile:
        return options.tile
    if predictor.takes_at_once(image.size):
        return max(image.size) if tiling.inexact or tiling.off_grid else None
    tile = tiling.tile(image.size, predictor.device)
    return tile[0] if tiling.off_grid or tiling.on(image.size, tile).inexact else None


def _scale(classes: int) -> np.uint8:
    """Return the factor from class indices to mask values: masks of two classes hold 0 and 255, to be visible."""
    return np.uint8(255 if classes == 2 else 1)


def regions(parts: Iterable[npt.NDArray[np.bool_]]) -> int:
    """Count the connected regions (8-connectivity) of a mask (H, W) that is given in bands of rows."""
    # Each band is labelled by itself. Only regions at the bands' edges can be parts of one region: they are the nodes
    # of a graph whose links are contacts across an edge, and each of its components counts once.
    total = 0
    contacts = [np.empty((0, 2), np.int64)]
    above: Array | None = None
    for part in parts:
        labels, count = ndimage.label(part, structure=np.ones((3, 3)))
        first, last = (np.where(row, row.astype(np.int64) + total, 0) for row in (labels[0], labels[-1]))
        if above is not None:
            contacts.append(_touching(above, first))
        above, total = last, total + int(count)
    at_edges, pairs = np.unique(np.concatenate(contacts), return_inverse=True)
    nodes = len(at_edges)
    links = sparse.coo_array((np.ones(pairs.size // 2, np.int8), pairs.reshape(-1, 2).T), shape=(nodes, nodes))
    components = sparse.csgraph.connected_components(links, directed=False, return_labels=False) if nodes else 0
    return total - nodes + int(components)


def _touching(above: Array, below: Array) -> Array:
    """Return the pairs (n, 2) of regions that meet at two neighbouring rows, by sides or corners."""
    padded = np.pad(above, 1)
    pairs = np.concatenate([np.stack([padded[shift : shift + len(below)], below], axis=1) for shift in range(3)])
    return np.unique(pairs[pairs.all(axis=1)], axis=0)


def overlay(
    image: StoredImage, mask: Array, scale: int, *, numbers: bool = False, side: int | None = None
) -> npt.NDArray[np.uint8]:
    """Return the image (3, h, w) with outlines of the classes, which are the mask's values divided by `scale`.

    Of an image whose longer side is above `side` pixels every n-th pixel is shown. With `numbers` the outlines are
    those of cells, with their ids if every pixel is shown.
    """
    height, width = image.size
    step = -(-max(height, width) // (side or SHOWN))
    # Single rows, so that no more of a large image is in memory than is shown.
    rows = [slice(row, row + 1) for row in range(0, height, step)] if step > 1 else [slice(0, height)]
    values = np.concatenate([image.read(row, slice(0, width))[:, :, ::step] for row in rows], axis=1)
    labels = (mask[::step, ::step] // scale).astype(np.int64)
    grey = pictures.grey_of(values.astype(np.float32))
    outlined = cells.outlined(grey, labels, numbers=step == 1) if numbers else pictures.outlined(grey, labels)
    return np.ascontiguousarray(np.moveaxis(outlined, -1, 0))
