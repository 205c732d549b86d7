"""What a trained model makes of an image of any size: its mask, probabilities, overlay and count of cells."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage, sparse
from torch import Tensor

from yeastexp.data import images, pieces
from yeastexp.data.pieces import Growing, Picture, Pieces, Size
from yeastexp.data.transforms import pipeline
from yeastexp.drawing import pictures
from yeastexp.errors import UserError
from yeastexp.metrics.pixels import most_likely
from yeastexp.prediction import tiled_transforms, tiling
from yeastexp.prediction.predictor import Trained
from yeastexp.sample import IGNORE, Sample

Array = npt.NDArray[Any]
Piece = tuple[slice, slice, Tensor]
"""Rows, columns, and the logits (K, h, w) there."""
Advance = Callable[[float], None]
"""Told of each share of an image that is done."""

LARGE = 1 << 24
"""Pixels from which on an image goes through the transforms in pieces as well, if they allow that."""

SHOWN = 4096
"""Pixels of the longer side of the largest overlay."""

COUNTED = 1 << 22
"""Pixels in which cells are counted at once."""


@dataclass(frozen=True)
class Options:
    """What is made of each image: `tile` is the side in pixels of the pieces that it is cut into."""

    tta: bool = False
    probabilities: bool = False
    overlay: bool = False
    tile: int | None = None


@dataclass(frozen=True)
class Targets:
    """Where what is made of an image goes, and whether the files grow there, band by band."""

    mask: Path
    probabilities: Path | None = None
    overlay: Path | None = None
    grow: bool = False

    @property
    def all(self) -> list[Path]:
        """The mask first."""
        return [one for one in (self.mask, self.probabilities, self.overlay) if one]


@dataclass(frozen=True)
class Made:
    """What a mask holds: the share of pixels above class 0, and the connected regions of those classes."""

    foreground_fraction: float
    cells: int
    seconds: float


def make(
    predictor: Trained,
    picture: Picture,
    targets: Targets,
    options: Options,
    identity: Mapping[str, Any],
    advance: Advance,
) -> Made:
    """Predict an image into its files; what one killed process wrote of files that grow, the next one goes on from."""
    if targets.grow:
        return _grown(predictor, picture, targets, options, identity, advance)
    began = time.monotonic()
    classes = len(predictor.classes)
    mask = np.empty(picture.size, np.uint8)
    shares = np.empty((_planes(classes), *picture.size), np.float32) if targets.probabilities else None
    for rows, columns, logits in answers(predictor, picture, options):
        mask[rows, columns] = _labels(logits)
        if shares is not None:
            shares[:, rows, columns] = _shares(logits)
        advance(_area(rows, columns) / math.prod(picture.size))
    counted = _count(mask.shape, lambda rows, columns: mask[rows, columns], classes)
    if targets.overlay:
        images.write_png(targets.overlay, overlay(picture, lambda rows, columns: mask[rows, columns]))
    if targets.probabilities:
        assert shares is not None, "made above"
        pieces.write_tiff(targets.probabilities, shares[0] if len(shares) == 1 else shares)
    write = images.write_png if targets.mask.suffix == ".png" else pieces.write_tiff
    write(targets.mask, mask * _scale(classes))
    return Made(*counted, time.monotonic() - began)


def answers(predictor: Trained, picture: Picture, options: Options, first: int = 0) -> Iterator[Piece]:
    """Logits on all pieces of an image from a row on, whose values are as recorded or stored with some figures."""
    if math.prod(picture.size) > LARGE:
        try:
            yield from _piecewise(predictor, picture, options, first)
            return
        except tiled_transforms.NeedsWholeImage as error:
            if math.prod(picture.shape) > images.LARGEST:
                raise UserError(
                    f"{picture.name}: is too large for memory, and transform {error} depends on the whole image; "
                    "give it a 'statistics' hook, or cut the image into pieces"
                ) from None
    values = predictor.rescaled(torch.from_numpy(picture.whole.astype(np.float32)), picture.normalization)
    sample = Sample(values, torch.full(picture.size, IGNORE), picture.name)
    logits = predictor.logits(sample, side=options.tile, tta=options.tta)
    yield slice(0, picture.size[0]), slice(0, picture.size[1]), logits


def _piecewise(predictor: Trained, picture: Picture, options: Options, first: int) -> Iterator[Piece]:
    def cut(rows: slice, columns: slice) -> Tensor:
        values = torch.from_numpy(picture.read(rows, columns).astype(np.float32)).to(predictor.device)
        return predictor.rescaled(values, picture.normalization)

    seen = tiled_transforms.transformed(predictor.transforms, Pieces(picture.size, cut))
    coarser = -(-picture.size[0] // seen.size[0])
    multiple = pieces.TILE // math.gcd(pieces.TILE, coarser)
    scores, tile = predictor.scores(seen, side=options.tile, tta=options.tta, multiple=multiple)
    if predictor.takes_at_once(seen.size, options.tile):
        whole = scores.whole
        scores, tile = (
            Pieces(seen.size, lambda rows, columns: whole[:, rows, columns]),
            (pieces.TILE, seen.size[1]),
        )
    logits = pipeline.restore_pieces(predictor.transforms, scores, picture.size)
    wide = (
        -(-tile[0] * coarser // pieces.TILE) * pieces.TILE,
        -(-tile[1] * coarser // pieces.TILE) * pieces.TILE,
    )
    for rows, columns in tiling.cells(picture.size, wide, first):
        yield rows, columns, logits.cut(rows, columns)


def _grown(
    predictor: Trained,
    picture: Picture,
    targets: Targets,
    options: Options,
    identity: Mapping[str, Any],
    advance: Advance,
) -> Made:
    began = time.monotonic()
    classes = len(predictor.classes)
    forms: dict[Path, tuple[tuple[int, ...], Any]] = {targets.mask: (picture.size, np.uint8)}
    if targets.probabilities:
        planes = (_planes(classes),) if classes > 2 else ()
        forms[targets.probabilities] = ((*planes, *picture.size), np.float32)
    with pieces.growing(forms, identity, _side(predictor, picture, options)) as growing:
        options = replace(options, tile=growing.side)
        before = growing.seconds
        advance(growing.rows / picture.size[0])
        for rows, columns, logits in answers(predictor, picture, options, growing.rows):
            growing.write(targets.mask, rows, columns, _labels(logits) * _scale(classes))
            if targets.probabilities:
                growing.write(targets.probabilities, rows, columns, _shares(logits))
            if columns.stop == picture.size[1]:
                growing.note(rows.stop, before + time.monotonic() - began)
            advance(_area(rows, columns) / math.prod(picture.size))
        return _finished(picture, targets, growing, classes, before - began)


def _side(predictor: Trained, picture: Picture, options: Options) -> int | None:
    """Of the pieces of an image, where their size changes what comes out: it must not follow the memory of the day."""
    if options.tile or not predictor.tiling.inexact:
        return options.tile
    if predictor.takes_at_once(picture.size):
        return max(picture.size)
    return predictor.tiling.tile(picture.size, predictor.device)[0]


def _finished(picture: Picture, targets: Targets, growing: Growing, classes: int, since: float) -> Made:
    written = pieces.tiff(growing.parts[targets.mask])

    def labels(rows: slice, columns: slice) -> Array:
        return np.asarray(written.read(rows, columns)[0] // _scale(classes))

    counted = _count(picture.size, labels, classes)
    if targets.overlay:
        images.write_png(targets.overlay, overlay(picture, labels))
    made = Made(*counted, since + time.monotonic())
    growing.appear(vars(made))
    return made


def _area(rows: slice, columns: slice) -> int:
    return int((rows.stop - rows.start) * (columns.stop - columns.start))


def _labels(logits: Tensor) -> npt.NDArray[np.uint8]:
    return np.asarray(most_likely(logits).to(torch.uint8).cpu().numpy())


def _shares(logits: Tensor) -> npt.NDArray[np.float32]:
    """Probabilities (K, h, w); of two classes that of the second, (1, h, w)."""
    found = logits.float().softmax(dim=0)
    return np.asarray((found[1:] if len(found) == 2 else found).cpu().numpy())


def _planes(classes: int) -> int:
    return 1 if classes == 2 else classes


def _scale(classes: int) -> np.uint8:
    """Masks of two classes hold 0 and 255, so that they can be seen."""
    return np.uint8(255 if classes == 2 else 1)


def _count(size: Size, labels: Callable[[slice, slice], Array], classes: int) -> tuple[float, int]:
    """The share of pixels above class 0, and the connected regions of each class above 0."""
    rows = max(1, COUNTED // size[1])

    def parts() -> Iterator[Array]:
        return (labels(band, slice(0, size[1])) for band in pieces.bands(size, rows))

    foreground = sum(int(np.count_nonzero(part)) for part in parts())
    return foreground / math.prod(size), sum(regions(part == label for part in parts()) for label in range(1, classes))


def regions(bands: Iterable[npt.NDArray[np.bool_]]) -> int:
    """The connected regions, touching at a corner or more, of a mask (H, W) that is given in bands of rows."""
    total = 0
    edges = [np.empty((0, 2), np.int64)]
    above: Array | None = None
    for band in bands:
        labels, count = ndimage.label(band, structure=np.ones((3, 3)))
        first, last = (np.where(row, row.astype(np.int64) + total, 0) for row in (labels[0], labels[-1]))
        if above is not None:
            edges.append(_touching(above, first))
        above, total = last, total + int(count)
    regions_there, pairs = np.unique(np.concatenate(edges), return_inverse=True)  # few, however many there are in all
    nodes = len(regions_there)
    links = sparse.coo_array((np.ones(pairs.size // 2, np.int8), pairs.reshape(-1, 2).T), shape=(nodes, nodes))
    joined = sparse.csgraph.connected_components(links, directed=False, return_labels=False) if nodes else 0
    return total - nodes + int(joined)


def _touching(above: Array, below: Array) -> Array:
    """The pairs (n, 2) of regions that meet at two rows."""
    padded = np.pad(above, 1)
    pairs = [np.stack([padded[shift : shift + len(below)], below], axis=1) for shift in range(3)]
    both = np.concatenate([one[one.all(axis=1)] for one in pairs])
    return np.unique(both, axis=0)


def overlay(picture: Picture, labels: Callable[[slice, slice], Array]) -> npt.NDArray[np.uint8]:
    """The image with the outlines of its classes, (3, h, w); of a large one every so manieth pixel."""
    step = -(-max(picture.size) // SHOWN)
    everything = slice(0, picture.size[1])
    rows = [slice(row, row + 1) for row in range(0, picture.size[0], step)] if step > 1 else [slice(0, picture.size[0])]
    image = np.concatenate([picture.read(row, everything)[:, :, ::step] for row in rows], axis=1)
    classes = np.concatenate([labels(row, everything)[:, ::step] for row in rows])
    drawn = pictures.outlined(pictures.grey_of(image.astype(np.float32)), classes.astype(np.int64))
    return np.ascontiguousarray(np.moveaxis(drawn, -1, 0))
