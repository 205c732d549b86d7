"""What a trained model predicts for an image of any size: its mask, probabilities, overlay and count of regions."""

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
from yeastexp.prediction.predictor import Predictor
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import files
from yeastexp.tasks.semantic import Semantic
from yeastexp.tasks.telling_apart import TellsInstances

Array = npt.NDArray[Any]
Tile = tuple[slice, slice, Tensor]
"""Rows, columns, and the logits (K, h, w) there."""
Arrays = Callable[[], Sequence[Array]]
"""Gives the mask (H, W) and maybe the probabilities ((H, W) or (K, H, W)), to be filled."""
Advance = Callable[[float], None]
"""Called with each share of an image that is predicted."""

LARGE = 1 << 24
"""Pixels from which on an image goes through the transforms in pieces as well, if they allow that, and arrays as large
as it lie in files.
"""

SHOWN = 4096
"""Pixels of the longer side of the largest overlay."""


@dataclass(frozen=True)
class Options:
    """What is written of each image: `tile` is the side in pixels of the pieces that it is cut into.

    `cells` are approximate ones of a task that tells no instances, and another's in any case.
    """

    tta: bool = False
    probabilities: bool = False
    overlay: bool = False
    tile: int | None = None
    cells: bool = False


@dataclass(frozen=True)
class Targets:
    """Where the outputs of an image go, and whether the files grow there, band by band."""

    mask: Path
    probabilities: Path | None = None
    overlay: Path | None = None
    grow: bool = False
    ids: Path | None = None
    """Of approximate cells; those of a task that tells instances are the mask."""

    @property
    def planes(self) -> Path:
        """Where the outputs lie that ids are found in, of an image that is too large for memory, until they are."""
        return self.mask.with_name(f".{self.mask.name}.planes")

    @property
    def cells(self) -> Path:
        """Where the measurements of such an image lie until those of all images are written."""
        return self.mask.with_name(f".{self.mask.name}.cells")

    @property
    def all(self) -> list[Path]:
        """The mask first."""
        return [path for path in (self.mask, self.probabilities, self.overlay, self.ids) if path]


@dataclass(frozen=True)
class MaskSummary:
    """The share of a mask's pixels above class 0, and how many connected regions of those classes there are.

    Of a task that tells instances, how many those are.
    """

    foreground_fraction: float
    cells: int
    seconds: float
    approximate_cells: int | None = None


class Written(NamedTuple):
    """What was written of an image, and the measurements of its instances, if the task tells them."""

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
    """Predict an image into its files; what a killed process wrote of files that grow, the next one continues from."""
    began = time.monotonic()
    forms = _forms(predictor, image, targets)
    if targets.grow:
        with growing(forms, identity, _side(predictor, image, options)) as tiffs:
            began -= tiffs.seconds
            advance(tiffs.rows / image.size[0])
            options = replace(options, tile=tiffs.side)
            for rows in _fill(predictor, image, options, tiffs.arrays, advance, tiffs.rows):
                tiffs.keep(rows, time.monotonic() - began)
            summary, table = _finish(predictor, image, tiffs.arrays, targets, began)
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
        del arrays[1:]  # what lies in memory takes several times that of what is written of the mask
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
    """Predict the rows of an image that are a part's, into files of their own, which `write_joined` puts together.

    What a killed process wrote of them, the next one continues from.
    """
    began, filled = time.monotonic(), _filled(predictor, image, targets)
    if growing_tiff.finished([part.file_of(path) for path in filled], identity, but="rows_of_tiles"):
        return
    _refuse_other_counts(image, [*parts.written(next(iter(filled))), part])
    side = _side(predictor, image, options)
    if side != options.tile:  # what comes out depends on it, and on other machines it may be another one
        raise UserError(f"{image.name}: its tiles blend, so all parts have to take the same; add --tile {side}")
    logits, tile = _tiled(predictor, image, options)
    rows = part.rows(image.size[0], tile[0])
    length = rows.stop - rows.start
    if not length:
        return
    forms = {part.file_of(path): ((*shape[:-2], length, shape[-1]), dtype) for path, (shape, dtype) in filled.items()}
    scale = _scale(len(predictor.classes))
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
    """The outputs of an image of which each row is in the files of a part: those of one process.

    Raises UserError with the parts that are missing.
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
    """The rows of each part, top to bottom, with its seconds. Raises UserError unless they are all of an image's."""
    pieces: list[tuple[slice, Part, float]] = []
    first, *_ = filled
    there = parts.written(first)
    _refuse_other_counts(image, there)
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
    if len(counts := sorted({part.count for part in there})) > 1:
        told = " and ".join(map(str, counts))
        raise UserError(f"{image.name}: there are parts of {told}; take another folder for one of them")


def _filled(predictor: Predictor, image: StoredImage, targets: Targets) -> dict[Path, Form]:
    """What tiles fill; ids are found when all are there."""
    forms = _forms(predictor, image, targets)
    found_later = {targets.ids, targets.mask if isinstance(predictor.task, TellsInstances) else None}
    return {path: form for path, form in forms.items() if path not in found_later}


def _stored(predictor: Predictor, logits: Tensor, scale: np.uint8) -> Iterator[Array]:
    """Of a tile's logits, the mask, unless the task tells instances, and the planes."""
    task = predictor.task
    if not isinstance(task, TellsInstances):
        yield task.decode(logits).labels.to(torch.uint8).cpu().numpy() * scale
    yield task.kept(task.activate(logits.float())).cpu().numpy()


def _room(form: Form, folder: Path, stack: ExitStack) -> Callable[[], Array]:
    """An array of that form, to be asked for again and again.

    A large one lies in a file without a name, as long as the disk has room: bands of it are in memory when they are
    used, and a process that is killed leaves nothing behind.
    """
    shape, dtype = form
    values = math.prod(shape)
    if values > LARGE and hasattr(os, "posix_fallocate"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  # the stack closes it
            os.posix_fallocate(file.fileno(), 0, values * np.dtype(dtype).itemsize)
            return lambda: np.memmap(file, dtype, "r+", shape=shape)
    array = np.empty(shape, dtype)
    return lambda: array


def remove_records(targets: Targets) -> None:
    """What was kept beside the files of an image to go on from, which is no longer needed."""
    targets.cells.unlink(missing_ok=True)
    targets.planes.unlink(missing_ok=True)
    growing_tiff.record_of(targets.mask).unlink(missing_ok=True)
    for target in (*targets.all, targets.planes):
        for part in parts.written(target):
            growing_tiff.record_of(part.file_of(target)).unlink(missing_ok=True)
            part.file_of(target).unlink(missing_ok=True)


def write_table(path: Path, table: Table) -> None:
    """Keep the measurements of an image until those of all are written."""
    with files.appearing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **table)


def read_table(path: Path) -> Table:
    """What `write_table` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _forms(predictor: Predictor, image: StoredImage, targets: Targets) -> dict[Path, Form]:
    """The mask, or ids; then planes, if they are asked for or cells measured in them; then ids of approximate cells."""
    task, size = predictor.task, image.size
    forms: dict[Path, Form] = {targets.mask: (size, np.uint32 if isinstance(task, TellsInstances) else np.uint8)}
    if targets.probabilities or targets.ids or isinstance(task, TellsInstances):
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
    """Fill the mask, and the planes if there is an array for them; yields how many rows are complete."""
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


def refuse_nan_outputs(name: str, logits: Tensor) -> None:
    """Raises UserError if the logits on an image are NaN somewhere, which no mask would show."""
    if bool(logits.isnan().any()):
        raise UserError(f"{name}: the model's outputs for it are NaN; check its values, and train again")


def _finish(predictor: Predictor, image: StoredImage, arrays: Arrays, targets: Targets, began: float) -> Written:
    """Find cells, write an overlay; the share of foreground, how many cells there are, and their measurements."""
    task, classes = predictor.task, len(predictor.classes)
    scale = 1 if isinstance(task, TellsInstances) else int(_scale(classes))
    ids, found = 0 if isinstance(task, TellsInstances) else 2, None

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
    """Class indices, or ids."""
    if isinstance(predictor.task, TellsInstances):
        _write_ids(path, mask, pixel_um)
    else:
        classes = len(predictor.classes)
        _write_pixels(path, mask, pixel_um, pictures.palette(classes) if classes > 2 else None)


def _write_ids(path: Path, ids: Array, pixel_um: float | None) -> None:
    """Ids in as few bits as hold them. Raises UserError if a PNG file cannot hold so many."""
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
    """Logits on all of an image from a row on, top to bottom; its values are as recorded, or stored normalised."""
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
    """Logits, and the tiles to ask for. Raises UserError if a transform needs all of the image."""
    try:
        return _pieces_of_logits(predictor, image, options)
    except tiled_transforms.NeedsWholeImage as error:
        raise UserError(_too_large(image, error)) from None


def _pieces_of_logits(predictor: Predictor, image: StoredImage, options: Options) -> tuple[Pieces, tuple[int, int]]:
    def cut(rows: slice, columns: slice) -> Tensor:
        values = torch.from_numpy(image.read(rows, columns).astype(np.float32)).to(predictor.device)
        return predictor.rescaled(values, image.normalization)

    transformed = tiled_transforms.transformed(predictor.transforms, Pieces(image.size, cut))
    scores, tile = predictor.scores(transformed, side=options.tile, tta=options.tta)
    if predictor.takes_at_once(transformed.size, options.tile):
        # Only what comes before and after the model is tiled: the model is run once, not again for each band.
        scores, tile = Pieces.of(scores.whole), (next(bands(transformed.size)).stop, transformed.size[1])
    logits = pipeline.restore_pieces(predictor.transforms, scores, image.size)
    # A tile of the model's grid covers so many more pixels of the image, so that each is computed for one piece.
    factor = -(-image.size[0] // transformed.size[0])
    return logits, (tile[0] * factor, tile[1] * factor)


def _side(predictor: Predictor, image: StoredImage, options: Options) -> int | None:
    """The side of tiles that blend: it changes what comes out, so a process that goes on must not choose it anew."""
    tiling = predictor.tiling
    if options.tile:
        return options.tile
    if predictor.takes_at_once(image.size):
        return max(image.size) if tiling.inexact or tiling.off_grid else None
    tile = tiling.tile(image.size, predictor.device)
    return tile[0] if tiling.off_grid or tiling.on(image.size, tile).inexact else None


def _scale(classes: int) -> np.uint8:
    """Masks of two classes hold 0 and 255, so that they can be seen."""
    return np.uint8(255 if classes == 2 else 1)


def regions(parts: Iterable[npt.NDArray[np.bool_]]) -> int:
    """The connected regions, touching at a corner or more, of a mask (H, W) that is given in bands of rows.

    Each band is labelled by itself. Only regions at the bands' edges can be parts of one: they are the nodes of a
    graph whose links are contacts across an edge, and each of its components counts once.
    """
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
    """The pairs (n, 2) of regions that meet at two neighbouring rows."""
    padded = np.pad(above, 1)
    pairs = np.concatenate([np.stack([padded[shift : shift + len(below)], below], axis=1) for shift in range(3)])
    return np.unique(pairs[pairs.all(axis=1)], axis=0)


def overlay(
    image: StoredImage, mask: Array, scale: int, *, numbers: bool = False, side: int | None = None
) -> npt.NDArray[np.uint8]:
    """The image (3, h, w), of one above `side` every n-th pixel, with outlines of the classes: mask values by `scale`.

    With `numbers` they are those of cells, with their ids, of an image that is not made smaller.
    """
    height, width = image.size
    step = -(-max(height, width) // (side or SHOWN))
    rows = [slice(row, row + 1) for row in range(0, height, step)] if step > 1 else [slice(0, height)]
    values = np.concatenate([image.read(row, slice(0, width))[:, :, ::step] for row in rows], axis=1)
    labels = (mask[::step, ::step] // scale).astype(np.int64)
    grey = pictures.grey_of(values.astype(np.float32))
    outlined = cells.outlined(grey, labels, numbers=step == 1) if numbers else pictures.outlined(grey, labels)
    return np.ascontiguousarray(np.moveaxis(outlined, -1, 0))
