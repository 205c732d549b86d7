"""The contact sheet: training images before and after each transform and augmentation, and as training patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yeastexp.config.experiment import Part
from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.drawing import cells, pictures
from yeastexp.drawing.pictures import Limits, Picture
from yeastexp.metrics.matching import annotated_cells
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE, Sample
from yeastexp.system.formatting import format_count, format_number
from yeastexp.training.build import Assembly
from yeastexp.training.training_images import checked_labels

IMAGES = 3
"""The number of training images shown, spread over the split."""

MIN_SIDE, MAX_SIDE = 176, 256
"""Smallest and largest side of a tile in pixels; patches of a side in between are shown at their own size."""

SHEET_WIDTH = 1300
"""Pixels; columns that do not fit begin a new row."""

DRAWS = 4
"""An augmentation is shown by the strongest of this many draws."""
MAX_DRAWS = 64
"""The number of draws without effect after which the caption says so."""

ROWS = 2
"""Rows of training patches."""
MIN_COLUMNS = 5
"""The least number of training patches in a row."""

MAX_CHANNELS = 4
"""The largest number of channels that have a histogram."""
HISTOGRAM = (130, 420)
"""Height and width of a histogram in pixels."""

MAX_PARAM = 1e5
"""Larger params are not shown: they are keys of generators, which tell nothing."""

ORIGIN = "place in the stored image"
"""The name of a label map with the index of each stored pixel, so that transforms show where pixels come from."""

Array = npt.NDArray[np.float32]
Patches = tuple[Array, pictures.Labels, Tensor]
"""Images (B, C, h, w), labels (B, h, w) and targets (B, T, h, w)."""
Box = tuple[int, int, int, int]
"""First row, first column, last row + 1, last column + 1."""


@dataclass(frozen=True)
class Example:
    """A training image as stored and after each transform, and the corner (2) of its patch that is shown."""

    index: int
    stages: tuple[Sample, ...]
    corner: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """A column of the sheet: a transform or augmentation, with a captioned tile for each example."""

    heading: tuple[str, str, str]
    """The part's table, name and options."""
    tiles: tuple[tuple[str, Picture], ...]


def draw_contact_sheet(assembly: Assembly) -> Picture:
    """Draw the contact sheet (H, W, 3) of an experiment's parts; global random generators are left alone.

    Each augmentation is shown by itself, with params that have an effect. The training patches are exactly those of the
    first steps.
    """
    examples = [_example(assembly, index) for index in _spread(len(assembly.dataset.splits["train"]))]
    patches = _patches(assembly, examples)
    limits = pictures.limits_of(*patches[0])
    side = min(max(assembly.sampler.plan.side, MIN_SIDE), MAX_SIDE)
    images = list(_images(assembly, examples, side, limits))
    blocks = _blocks(images, list(_augmented(assembly, examples, patches, side, limits)), SHEET_WIDTH // side)
    across = max(MIN_COLUMNS, len(blocks[0]))
    trained = _trained(assembly, side, limits, ROWS * across)
    return pictures.bordered(
        pictures.stacked(
            [
                *_head(assembly),
                *(_grid(columns, side) for columns in blocks),
                _heading("As in training: all of this together, with new params for every patch"),
                *(pictures.in_a_row(trained[first : first + across]) for first in range(0, len(trained), across)),
                _heading("Histograms of the training images above"),
                *_histograms(assembly, examples),
            ]
        )
    )


def _spread(count: int) -> list[int]:
    shown = min(IMAGES, count)
    return [index * count // shown for index in range(shown)]


def _blocks(images: Sequence[Column], augmented: Sequence[Column], across: int) -> list[list[Column]]:
    """Divide the columns into rows of `across`; a row that begins with an augmentation repeats the images before it."""
    blocks: list[list[Column]] = [[]]
    for index, column in enumerate([*images, *augmented]):
        if len(blocks[-1]) == across:
            blocks.append([images[-1]] if index >= len(images) else [])
        blocks[-1].append(column)
    return blocks


def _example(assembly: Assembly, index: int) -> Example:
    stored = assembly.dataset.read(assembly.dataset.splits["train"][index])
    sample = checked_labels(stored, len(assembly.classes))
    height, width = sample.size
    told = {name: sample.maps[name] for name in ("instances",) if _has_cells(assembly)}
    # Label maps are moved along with the image by any transform, a user's too. A map with the index of each pixel thus
    # tells where the pixels of a patch were in the stored image, without a hook for the inverse of the geometry.
    marked = replace(sample, maps={**told, ORIGIN: torch.arange(height * width).view(height, width)})
    transforms = assembly.transforms
    stages = tuple(pipeline.whole(transforms[:count], marked) for count in range(len(transforms) + 1))
    return Example(index, stages, _corner(stages[-1].labels, assembly.sampler.plan.side))


def _corner(labels: Tensor, side: int) -> npt.NDArray[np.int64]:
    """Return the corner (2) of the patch with the most outlines; centred along axes shorter than a patch."""
    # A summed-area table: the outlines in a patch are four numbers of it, so that all patches are compared at once.
    above = np.pad(pictures.edges(labels.numpy()), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    height, width = (min(side, length) for length in labels.shape)
    counts = above[height:, width:] - above[:-height, width:] - above[height:, :-width] + above[:-height, :-width]
    room = np.array(labels.shape) - side
    return np.where(room >= 0, np.unravel_index(counts.argmax(), counts.shape), room // 2)


def _patches(
    assembly: Assembly,
    examples: Sequence[Example],
    position: int | None = None,
    params: Sequence[Any] = (),
) -> Patches:
    """Return the patches of the examples, as cut or after the augmentation at `position` with one of `params` each.

    If the augmentation replaces a patch by a composed scene, the patch is the middle of that scene.
    """
    sampler = assembly.sampler
    images, corners = (
        np.array([example.index for example in examples]),
        np.stack([example.corner for example in examples]),
    )
    transforms = () if position is None else (sampler.augmentations[position],)
    each = [[given] for given in params] or [[] for _ in examples]
    side = sampler.plan.side
    for row, given in enumerate(params):
        if position in sampler.scenes and (number := sampler.augmentations[position].scene(given)) is not None:
            # Scenes are numbered behind the training images, so that patches are cut from them like from any image.
            images[row] = sampler.scenes[position] + number
            (block,) = sampler.source.laid(images[row : row + 1])
            corners[row] = (block.pixels.sizes[block.images[0]] - side) // 2
    cut = [
        pipeline.cut(
            part.pixels,
            part.images,
            corners[part.places],
            side,
            transforms,
            [each[at] for at in part.places],
            soft=sampler.soft,
        )
        for part in sampler.source.laid(images)
    ]
    values, labels, soft = (torch.cat(parts) for parts in zip(*cut, strict=True))
    return values.cpu().numpy(), labels[:, 0].long().cpu().numpy(), sampler.targets(labels, soft)


def _has_cells(assembly: Assembly) -> bool:
    """Whether single cells are outlined instead of classes."""
    return "instances" in assembly.task.maps


def _tile(
    assembly: Assembly, image: Array, labels: pictures.Labels, targets: Tensor, side: int, limits: Limits
) -> Picture:
    """Draw a patch with its classes outlined, or its cells as the targets (T, h, w) tell them apart."""
    if not _has_cells(assembly):
        return pictures.tile(image, labels, side, limits)
    # Ids are not augmented, targets are. The outputs that say exactly these targets are decoded, so that the sheet
    # shows which cells the targets can still tell apart. The last ones are the most confident.
    *_, outputs = assembly.task.certain(targets[None])
    ids = assembly.task.decode(outputs[0]).instances
    return cells.tile(image, labels if ids is None else _known(ids.cpu().numpy(), labels), side, limits)


def _known(ids: pictures.Labels, labels: pictures.Labels) -> pictures.Labels:
    """Return the ids of cells with IGNORE where the labels have it."""
    return np.where(labels == IGNORE, IGNORE, ids)


def _images(assembly: Assembly, examples: Sequence[Example], side: int, limits: Limits) -> Iterator[Column]:
    """Yield a column of whole images with a frame around the patch, then its content after each transform."""
    boxes = [_boxes(example, assembly.sampler.plan.side) for example in examples]
    stored = [example.stages[0] for example in examples]
    whole = [_framed(example, box[0], side) for example, box in zip(stored, boxes, strict=True)]
    captions = [f"{example.name}, {example.size[0]}×{example.size[1]}" for example in stored]
    yield Column(("training images", "whole", "stored values"), tuple(zip(captions, whole, strict=True)))
    headings = [("training images", "within the frame", "stored values")]
    headings += [("[[transform]]", name, _options(transform)) for name, transform in _named_transforms(assembly)]
    for stage, heading in enumerate(headings):
        samples = [example.stages[stage] for example in examples]
        inside = [_cut(sample.image.numpy(), box[stage]) for sample, box in zip(samples, boxes, strict=True)]
        # Every stage has its own range of values. The last one shares its limits with the patches, to be comparable.
        shown_limits = limits if stage == len(headings) - 1 else pictures.limits_of(*inside)
        draw = cells.tile if _has_cells(assembly) else pictures.tile
        tiles = [
            draw(image, _cut(_outlines(sample), box[stage]), side, shown_limits)
            for image, sample, box in zip(inside, samples, boxes, strict=True)
        ]
        yield Column(heading, tuple(zip((_statistics(example.image) for example in samples), tiles, strict=True)))


def _outlines(sample: Sample) -> pictures.Labels:
    return (
        annotated_cells(sample.maps["instances"], sample.labels) if "instances" in sample.maps else sample.labels
    ).numpy()


def _named_transforms(assembly: Assembly) -> list[tuple[str, BasicTransform2D]]:
    """Return the transforms that are applied, with their names in the experiment."""
    kept = [part.name for part in assembly.experiment.transforms if not _left_out(assembly, part)]
    return list(zip(kept, assembly.transforms, strict=True))


def _left_out(assembly: Assembly, part: Part) -> bool:
    return bool(assembly.dataset.normalization) and part.build().normalizes


def _framed(sample: Sample, box: Box, side: int) -> Picture:
    scale = side / max(sample.size)
    top, left, bottom, right = (end * scale for end in box)
    picture = pictures.tile(sample.image.numpy(), None, side)
    return pictures.framed(picture, (top, left, bottom, right), pictures.FRAME)


def _boxes(example: Example, side: int) -> list[Box]:
    """Return the bounding box of the patch's pixels in each stage; the whole image if the patch has none of it."""
    origins = [stage.maps[ORIGIN].numpy() for stage in example.stages]
    top, left = np.maximum(example.corner, 0).tolist()
    patch = origins[-1][top : top + side, left : left + side]
    width = example.stages[0].size[1]
    rows, columns = np.divmod(patch[patch >= 0], width)
    if not rows.size:
        return [(0, 0, *stage.size) for stage in example.stages]
    boxes = []
    for origin in origins:
        y, x = np.divmod(origin, width)
        inside = (y >= rows.min()) & (y <= rows.max()) & (x >= columns.min()) & (x <= columns.max()) & (origin >= 0)
        down, right = np.nonzero(inside)
        boxes.append((int(down.min()), int(right.min()), int(down.max()) + 1, int(right.max()) + 1))
    return boxes


def _cut(array: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    top, left, bottom, right = box
    return array[..., top:bottom, left:right]


def _augmented(
    assembly: Assembly, examples: Sequence[Example], patches: Patches, side: int, limits: Limits
) -> Iterator[Column]:
    """Yield a column of patches for each augmentation, applied alone."""
    parts = assembly.experiment.augmentations
    for position, (part, augmentation) in enumerate(zip(parts, assembly.sampler.augmentations, strict=True)):
        tiles = [
            (caption, _tile(assembly, image, labels, targets, side, limits))
            for caption, image, labels, targets in _strongest(assembly, examples, patches, position, augmentation)
        ]
        yield Column(("[[augment]]", part.name, _options(augmentation)), tuple(tiles))


def _strongest(
    assembly: Assembly, examples: Sequence[Example], patches: Patches, position: int, augmentation: BasicTransform2D
) -> list[tuple[str, Array, pictures.Labels, Tensor]]:
    """Return caption, image, labels and targets of each patch after the strongest of a few draws.

    More are drawn as long as a patch has had none with an effect: many augmentations act with some probability only.
    """
    best = [(0.0, "no effect", *pair) for pair in zip(*patches, strict=True)]
    for attempt in range(MAX_DRAWS):
        if attempt >= DRAWS and all(strength for strength, *_ in best):
            break
        sources = [
            generator(assembly.experiment.train.seed, "contact sheet", attempt, example.index, position)
            for example in examples
        ]
        params = [augmentation.draw(source) for source in sources]
        changed = _patches(assembly, examples, position, params)
        for row, (image, labels, targets) in enumerate(zip(*changed, strict=True)):
            strength = float(np.abs(image - patches[0][row]).mean() + (labels != patches[1][row]).mean())
            if strength > best[row][0]:
                best[row] = (strength, _params(params[row]), image, labels, targets)
    return [(caption, image, labels, targets) for _, caption, image, labels, targets in best]


def _trained(assembly: Assembly, side: int, limits: Limits, count: int) -> list[Picture]:
    """Draw the first `count` training patches."""
    tiles: list[Picture] = []
    step = 0
    while len(tiles) < count:
        images, labels = (tensor.cpu().numpy() for tensor in assembly.sampler.labelled(step))
        targets = assembly.sampler.batch(step)[1]
        step += 1
        for number, (image, mask, target) in enumerate(zip(images, labels, targets, strict=True), start=1):
            picture = _tile(assembly, image, mask, target, side, limits)
            tiles.append(pictures.captioned(picture, f"step {step}, patch {number}"))
    return tiles[:count]


def _head(assembly: Assembly) -> Iterator[Picture]:
    """Yield the text above the sheet: what it shows, and what the colours mean."""
    experiment, plan = assembly.experiment, assembly.sampler.plan
    yield _heading(experiment.name)
    plain = experiment.train.plain_steps if assembly.ends_plain else 0
    text = [
        f"{format_count(len(assembly.dataset.splits['train']), 'training image')}; "
        f"patches of {plan.side}×{plan.side} pixels, "
        f"{assembly.sampler.size} a step, {len(plan.images)} an epoch",
        "[[transform]] applies to every image, in this order; [[augment]] to patches in training only"
        f"{f', except in the last {plain} steps' if plain else ''}, each shown alone with params that "
        "have an effect",
        "statistics of a whole image: mean ± standard deviation, minimum to maximum",
    ]
    if _has_cells(assembly):
        text.append("neighbouring cells are outlined in different colours; in patches as their targets tell them apart")
    if (channels := experiment.task.channels) not in (1, 3):
        text.append(f"the mean of {channels} channels is shown")
    if names := [part.name for part in experiment.transforms if _left_out(assembly, part)]:
        text.append(f"the data is stored normalised, so {' and '.join(names)} is left out")
    yield pictures.text_block(*(pictures.truncated(line, SHEET_WIDTH) for line in text))
    sharing: dict[pictures.Colour, list[str]] = {}
    for label, name in enumerate(() if _has_cells(assembly) else assembly.classes[1:], start=1):
        sharing.setdefault(pictures.outline_colour(label), []).append(name)
    outlines = [
        (colour, pictures.truncated(f"outlined: {', '.join(names)}", SHEET_WIDTH)) for colour, names in sharing.items()
    ]
    yield pictures.legend([*outlines, (pictures.FAINT, "hatched: unlabelled pixels")])


def _heading(text: str) -> Picture:
    return pictures.text_block(pictures.truncated(text, SHEET_WIDTH, pictures.HEADING_SIZE), size=pictures.HEADING_SIZE)


def _grid(columns: Sequence[Column], side: int) -> Picture:
    """Draw columns side by side, each tile below its caption."""
    stacks = []
    for column in columns:
        table, name, options = (pictures.truncated(line, side - pictures.GAP) for line in column.heading)
        head = pictures.text_block(table, name, options, colours=[pictures.FAINT, pictures.INK, pictures.FAINT])
        tiles = [pictures.captioned(pictures.squared(tile, side), caption) for caption, tile in column.tiles]
        stacks.append(pictures.stacked([head, *tiles]))
    return pictures.in_a_row(stacks)


def _histograms(assembly: Assembly, examples: Sequence[Example]) -> Iterator[Picture]:
    """Yield histograms of stored and of transformed values, a line per image, with statistics in the same colour."""
    stages = {"stored values": 0}
    if names := [name for name, _ in _named_transforms(assembly)]:
        stages[f"after {', '.join(names)}"] = -1
    colours = pictures.line_colours(len(examples))
    channels = assembly.experiment.task.channels
    for channel in range(min(channels, MAX_CHANNELS)):
        stacks = []
        for caption, stage in stages.items():
            images = [example.stages[stage].image[channel : channel + 1] for example in examples]
            lines = [f"{one.stages[0].name}: {_statistics(image)}" for one, image in zip(examples, images, strict=True)]
            histogram = pictures.histogram([image.numpy() for image in images], HISTOGRAM)
            numbered = f"channel {channel + 1} of {channels}, {caption}" if channels > 1 else caption
            text = pictures.text_block(*(pictures.truncated(line, HISTOGRAM[1]) for line in lines), colours=colours)
            stacks.append(pictures.stacked([pictures.captioned(histogram, numbered), text]))
        yield pictures.in_a_row(stacks, gap=5 * pictures.GAP)


def _statistics(image: Tensor) -> str:
    """Return mean, standard deviation, minimum and maximum of an image as text."""
    deviation, mean = (float(value) for value in torch.std_mean(image.double(), correction=0))
    low, high = (float(end) for end in image.aminmax())
    texts = [format_number(value, 3, high - low) for value in (mean, deviation, low, high)]
    return f"{texts[0]} ± {texts[1]}, {texts[2]} to {texts[3]}"


def _options(transform: BasicTransform2D) -> str:
    """Return the options of a transform as text, fitted ones included."""
    return " ".join(f"{key}={_value(value)}" for key, value in vars(transform).items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value, 3)
    return f"({', '.join(map(_value, value))})" if isinstance(value, tuple | list) else str(value)


def _params(params: Any) -> str:
    """Return the numbers among the params as text, without keys of generators."""
    listed = params if isinstance(params, tuple | list) else [params]
    each = [value for item in listed for value in (item if isinstance(item, tuple | list) else [item])]
    numbers = [value for value in each if isinstance(value, bool | int | float) and abs(value) < MAX_PARAM]
    yes_or_no = {True: "yes", False: "no"}
    texts = [yes_or_no[value] if isinstance(value, bool) else _value(value) for value in numbers]
    return f"params: {', '.join(texts)}" if texts else ""
