"""Training images on one sheet: before and after each transform and each augmentation, and as training sees them."""

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
from yeastexp.drawing import pictures
from yeastexp.drawing.pictures import Limits, Picture
from yeastexp.randomness import generator
from yeastexp.sample import Sample
from yeastexp.system.formatting import format_number
from yeastexp.training.build import Assembly, checked_labels

IMAGES = 3
"""Training images that are shown, spread over the split."""

SMALLEST_SIDE, LARGEST_SIDE = 176, 256
"""Pixels of a tile; windows of a side between are shown pixel by pixel."""

SHEET_WIDTH = 1300
"""Pixels; columns that do not fit begin a new row."""

DRAWS = 4
"""The strongest of so many draws shows what an augmentation does."""
MOST_DRAWS = 64
"""Draws after which an augmentation is said to do nothing."""

ROWS = 2
"""Of windows as training sees them."""
NARROWEST = 5
"""Of them beside each other."""

MOST_CHANNELS = 4
"""Whose values are counted."""
HISTOGRAM = (130, 420)
"""Height and width."""

LARGEST_SHOWN = 1e5
"""Of what was drawn; larger integers are keys, which tell nothing."""

ORIGIN = "place in the stored image"
"""A map that transforms carry along: the number of the stored pixel that a pixel was read from."""

Array = npt.NDArray[np.float32]
Windows = tuple[Array, pictures.Labels]
"""Images (B, C, h, w) and labels (B, h, w)."""
Box = tuple[int, int, int, int]
"""Rows and columns: first, first, behind the last, behind the last."""


@dataclass(frozen=True)
class Shown:
    """A training image, stored and after each transform in turn, and the corner of the window that is shown of it."""

    index: int
    stages: tuple[Sample, ...]
    corner: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """What is said of a step, and how it left each of the training images."""

    heading: tuple[str, str, str]
    """Its table, its name and its options."""
    tiles: tuple[tuple[str, Picture], ...]


def of(assembly: Assembly) -> Picture:
    """The contact sheet of an experiment's parts (H, W, 3); nothing is drawn from a global generator.

    Each augmentation is shown alone, in a draw in which it acts. The windows as training sees them are those of its
    first steps, to the bit.
    """
    stream = assembly.sampler
    shown = [_shown(assembly, index) for index in _spread(len(assembly.dataset.splits["train"]))]
    windows = _windows(assembly, shown)
    limits = pictures.limits_of(*windows[0])
    side = min(max(stream.plan.side, SMALLEST_SIDE), LARGEST_SIDE)
    images = list(_images(assembly, shown, side, limits))
    blocks = _blocks(images, list(_augmented(assembly, shown, windows, side, limits)), SHEET_WIDTH // side)
    across = max(NARROWEST, len(blocks[0]))
    trained = _trained(assembly, side, limits, ROWS * across)
    return pictures.bordered(
        pictures.stacked(
            [
                *_head(assembly),
                *(_grid(columns, side) for columns in blocks),
                _heading("As training sees them: all of this together, drawn anew for every window"),
                *(pictures.in_a_row(trained[first : first + across]) for first in range(0, len(trained), across)),
                _heading("How often values occur in the training images above"),
                *_histograms(assembly, shown),
            ]
        )
    )


def _spread(count: int) -> list[int]:
    shown = min(IMAGES, count)
    return [index * count // shown for index in range(shown)]


def _blocks(images: Sequence[Column], augmented: Sequence[Column], across: int) -> list[list[Column]]:
    """Columns that stand beside each other; augmentations that do not begin with what they begin with."""
    blocks: list[list[Column]] = [[]]
    for index, column in enumerate([*images, *augmented]):
        if len(blocks[-1]) == across:
            blocks.append([images[-1]] if index >= len(images) else [])
        blocks[-1].append(column)
    return blocks


def _shown(assembly: Assembly, index: int) -> Shown:
    stored = assembly.dataset.read(assembly.dataset.splits["train"][index])
    sample = checked_labels(stored, len(assembly.classes))
    height, width = sample.size
    marked = replace(sample, maps={ORIGIN: torch.arange(height * width).view(height, width)})
    transforms = assembly.transforms
    stages = tuple(pipeline.whole(transforms[:count], marked) for count in range(len(transforms) + 1))
    return Shown(index, stages, _corner(stages[-1].labels, assembly.sampler.plan.side))


def _corner(labels: Tensor, side: int) -> npt.NDArray[np.int64]:
    """Of the window with the most outlines in it; about the middle where the image is smaller than a window."""
    above = np.pad(pictures.edges(labels.numpy()), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    height, width = (min(side, length) for length in labels.shape)
    counts = above[height:, width:] - above[:-height, width:] - above[height:, :-width] + above[:-height, :-width]
    room = np.array(labels.shape) - side
    return np.where(room >= 0, np.unravel_index(counts.argmax(), counts.shape), room // 2)


def _windows(
    assembly: Assembly, shown: Sequence[Shown], augmentation: BasicTransform2D | None = None, drawn: Sequence[Any] = ()
) -> Windows:
    """The windows of the training images that are shown, as cut or through one augmentation with what it drew."""
    stream = assembly.sampler
    images, corners = np.array([one.index for one in shown]), np.stack([one.corner for one in shown])
    transforms = () if augmentation is None else (augmentation,)
    each = [[one] for one in drawn] or [[] for _ in shown]
    side = stream.plan.side
    cut = [
        pipeline.windows(one.pixels, one.images, corners[one.places], side, transforms, [each[at] for at in one.places])
        for one in stream.source.laid(images)
    ]
    values, labels = (torch.cat(parts) for parts in zip(*cut, strict=True))
    return values.cpu().numpy(), labels.cpu().numpy()


def _images(assembly: Assembly, shown: Sequence[Shown], side: int, limits: Limits) -> Iterator[Column]:
    """The whole images with a frame about the window, then what lies in it, stored and after each transform."""
    boxes = [_boxes(one, assembly.sampler.plan.side) for one in shown]
    stored = [one.stages[0] for one in shown]
    whole = [_framed(one, box[0], side) for one, box in zip(stored, boxes, strict=True)]
    captions = [f"{one.name}, {one.size[0]}×{one.size[1]}" for one in stored]
    yield Column(("training images", "whole", "stored values"), tuple(zip(captions, whole, strict=True)))
    headings = [("training images", "the frame's inside", "stored values")]
    headings += [("[[transform]]", name, _options(one)) for name, one in _named_transforms(assembly)]
    for stage, heading in enumerate(headings):
        samples = [one.stages[stage] for one in shown]
        inside = [_cut(one.image.numpy(), box[stage]) for one, box in zip(samples, boxes, strict=True)]
        seen = limits if stage == len(headings) - 1 else pictures.limits_of(*inside)
        tiles = [
            pictures.tile(image, _cut(one.labels.numpy(), box[stage]), side, seen)
            for image, one, box in zip(inside, samples, boxes, strict=True)
        ]
        yield Column(heading, tuple(zip((_figures(one.image) for one in samples), tiles, strict=True)))


def _named_transforms(assembly: Assembly) -> list[tuple[str, BasicTransform2D]]:
    """The transforms that are applied, with the names that the experiment calls them by."""
    kept = [part.name for part in assembly.experiment.transforms if not _left_out(assembly, part)]
    return list(zip(kept, assembly.transforms, strict=True))


def _left_out(assembly: Assembly, part: Part) -> bool:
    return bool(assembly.dataset.normalization) and part.build().normalizes


def _framed(sample: Sample, box: Box, side: int) -> Picture:
    scale = side / max(sample.size)
    top, left, bottom, right = (end * scale for end in box)
    picture = pictures.tile(sample.image.numpy(), None, side)
    return pictures.framed(picture, (top, left, bottom, right), pictures.FRAME)


def _boxes(shown: Shown, side: int) -> list[Box]:
    """Where the window's pixels lie at each stage; all of it where the window holds none of the image."""
    origins = [stage.maps[ORIGIN].numpy() for stage in shown.stages]
    top, left = np.maximum(shown.corner, 0).tolist()
    window = origins[-1][top : top + side, left : left + side]
    width = shown.stages[0].size[1]
    rows, columns = np.divmod(window[window >= 0], width)
    if not rows.size:
        return [(0, 0, *stage.size) for stage in shown.stages]
    made = []
    for origin in origins:
        y, x = np.divmod(origin, width)
        inside = (y >= rows.min()) & (y <= rows.max()) & (x >= columns.min()) & (x <= columns.max()) & (origin >= 0)
        down, right = np.nonzero(inside)
        made.append((int(down.min()), int(right.min()), int(down.max()) + 1, int(right.max()) + 1))
    return made


def _cut(array: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    top, left, bottom, right = box
    return array[..., top:bottom, left:right]


def _augmented(
    assembly: Assembly, shown: Sequence[Shown], windows: Windows, side: int, limits: Limits
) -> Iterator[Column]:
    """The windows after each augmentation alone."""
    parts = assembly.experiment.augmentations
    for position, (part, augmentation) in enumerate(zip(parts, assembly.sampler.augmentations, strict=True)):
        tiles = [
            (said, pictures.tile(image, labels, side, limits))
            for said, image, labels in _acting(assembly, shown, windows, position, augmentation)
        ]
        yield Column(("[[augment]]", part.name, _options(augmentation)), tuple(tiles))


def _acting(
    assembly: Assembly, shown: Sequence[Shown], windows: Windows, position: int, augmentation: BasicTransform2D
) -> list[tuple[str, Array, pictures.Labels]]:
    """What was drawn and what became of each window: the strongest of a few draws, of more where none acts."""
    best = [(0.0, "does nothing", *pair) for pair in zip(*windows, strict=True)]
    for attempt in range(MOST_DRAWS):
        if attempt >= DRAWS and all(strength for strength, *_ in best):
            break
        sources = [
            generator(assembly.experiment.train.seed, "contact sheet", attempt, one.index, position) for one in shown
        ]
        drawn = [augmentation.draw(source) for source in sources]
        changed = _windows(assembly, shown, augmentation, drawn)
        for row, (image, labels) in enumerate(zip(*changed, strict=True)):
            strength = float(np.abs(image - windows[0][row]).mean() + (labels != windows[1][row]).mean())
            if strength > best[row][0]:
                best[row] = (strength, _drawn(drawn[row]), image, labels)
    return [(said, image, labels) for _, said, image, labels in best]


def _trained(assembly: Assembly, side: int, limits: Limits, count: int) -> list[Picture]:
    """The windows of the first steps."""
    made: list[Picture] = []
    step = 0
    while len(made) < count:
        images, labels = (one.cpu().numpy() for one in assembly.sampler.batch(step))
        step += 1
        for number, (image, truth) in enumerate(zip(images, labels, strict=True), start=1):
            picture = pictures.tile(image, truth, side, limits)
            made.append(pictures.captioned(picture, f"step {step}, window {number}"))
    return made[:count]


def _head(assembly: Assembly) -> Iterator[Picture]:
    """What is shown, and what the colours mean."""
    experiment, plan = assembly.experiment, assembly.sampler.plan
    yield _heading(experiment.name)
    said = [
        f"{len(assembly.dataset.splits['train'])} training images; windows of {plan.side}×{plan.side} pixels, "
        f"{assembly.sampler.size} a step, {len(plan.images)} an epoch",
        "[[transform]] changes every image, in this order; [[augment]] changes windows in training alone, each shown "
        "by itself in a draw in which it acts",
        "figures of a whole image: mean ± standard deviation, smallest to largest value",
    ]
    if (channels := experiment.task.channels) not in (1, 3):
        said.append(f"shown is the mean of {channels} channels")
    if names := [part.name for part in experiment.transforms if _left_out(assembly, part)]:
        said.append(f"the data is stored normalised, so {' and '.join(names)} is left out")
    yield pictures.text_block(*(pictures.truncated(line, SHEET_WIDTH) for line in said))
    sharing: dict[pictures.Colour, list[str]] = {}
    for label, name in enumerate(assembly.classes[1:], start=1):
        sharing.setdefault(pictures.outline_colour(label), []).append(name)
    outlines = [
        (colour, pictures.truncated(f"outlined: {', '.join(names)}", SHEET_WIDTH)) for colour, names in sharing.items()
    ]
    yield pictures.legend([*outlines, (pictures.FAINT, "hatched: pixels without label")])


def _heading(text: str) -> Picture:
    return pictures.text_block(pictures.truncated(text, SHEET_WIDTH, pictures.HEADING_SIZE), size=pictures.HEADING_SIZE)


def _grid(columns: Sequence[Column], side: int) -> Picture:
    """Columns side by side, each tile below what is said of it."""
    made = []
    for column in columns:
        table, name, options = (pictures.truncated(line, side - pictures.GAP) for line in column.heading)
        head = pictures.text_block(table, name, options, colours=[pictures.FAINT, pictures.INK, pictures.FAINT])
        tiles = [pictures.captioned(pictures.squared(tile, side), said) for said, tile in column.tiles]
        made.append(pictures.stacked([head, *tiles]))
    return pictures.in_a_row(made)


def _histograms(assembly: Assembly, shown: Sequence[Shown]) -> Iterator[Picture]:
    """Values as stored and as the model sees them, a line for each image, its figures below in the same colour."""
    stages = {"stored values": 0}
    if names := [name for name, _ in _named_transforms(assembly)]:
        stages[f"after {', '.join(names)}"] = -1
    colours = pictures.line_colours(len(shown))
    channels = assembly.experiment.task.channels
    for channel in range(min(channels, MOST_CHANNELS)):
        made = []
        for said, stage in stages.items():
            images = [one.stages[stage].image[channel : channel + 1] for one in shown]
            figures = [f"{one.stages[0].name}: {_figures(image)}" for one, image in zip(shown, images, strict=True)]
            drawn = pictures.histogram([image.numpy() for image in images], HISTOGRAM)
            numbered = f"channel {channel + 1} of {channels}, {said}" if channels > 1 else said
            text = pictures.text_block(*(pictures.truncated(line, HISTOGRAM[1]) for line in figures), colours=colours)
            made.append(pictures.stacked([pictures.captioned(drawn, numbered), text]))
        yield pictures.in_a_row(made, gap=5 * pictures.GAP)


def _figures(image: Tensor) -> str:
    """Mean and standard deviation, smallest and largest value."""
    deviation, mean = (float(one) for one in torch.std_mean(image.double(), correction=0))
    low, high = (float(end) for end in image.aminmax())
    shown = [format_number(one, 3, high - low) for one in (mean, deviation, low, high)]
    return f"{shown[0]} ± {shown[1]}, {shown[2]} to {shown[3]}"


def _options(transform: BasicTransform2D) -> str:
    """The options of a transform, those that were fitted among them."""
    return " ".join(f"{key}={_value(value)}" for key, value in vars(transform).items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value, 3)
    return f"({', '.join(map(_value, value))})" if isinstance(value, tuple | list) else str(value)


def _drawn(value: Any) -> str:
    """The numbers that were drawn, but for keys and whatever is no number."""
    listed = value if isinstance(value, tuple | list) else [value]
    numbers = [one for one in listed if isinstance(one, bool | int | float) and abs(one) < LARGEST_SHOWN]
    yes_or_no = {True: "yes", False: "no"}
    said = [yes_or_no[one] if isinstance(one, bool) else _value(one) for one in numbers]
    return f"drawn: {', '.join(said)}" if said else ""
