"""Pictures of images and labels: tiles with outlines, captions, legends and histograms, and their arrangement."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from yeastexp.sample import IGNORE
from yeastexp.system.formatting import format_number

Picture = npt.NDArray[np.uint8]
"""An RGB image (H, W, 3), as TensorBoard and Pillow take it."""
Labels = npt.NDArray[np.int64]
Limits = Sequence[tuple[float, float]]
"""The values of each channel that are displayed as black and as white. Each channel has its own: with those of all
together, a dim channel would be black."""
Colour = tuple[int, int, int]

GAP = 6
CAPTION = 18
"""The height of a line of text in pixels."""
TEXT_SIZE, HEADING_SIZE = 11, 15
NARROWEST = 160
"""The least width of a captioned picture in pixels, enough for the longest caption."""
LARGEST_SIDE = 512
"""The largest side of a tile in pixels; larger images are downscaled."""

INK, FAINT = (0, 0, 0), (110, 119, 129)

OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""The palette of Okabe and Ito (2008), whose colours colour-blind readers can tell apart."""

OUTLINES = (OKABE_ITO[5], OKABE_ITO[1], OKABE_ITO[3], OKABE_ITO[2], OKABE_ITO[6])
"""The colours of the classes above 0, repeated if there are more."""
FRAME = OKABE_ITO[3]

LABEL_COLOURS = np.array([(0, 0, 0), (255, 255, 255), *OKABE_ITO[:5]], np.uint8)
"""Black for background, white for the first foreground class, then colours."""

IGNORED_COLOUR = np.array([128, 128, 128], np.uint8)
MISSED = np.array([86, 180, 233], np.uint8)
FALSE_ALARM = np.array([230, 97, 0], np.uint8)
CAPTIONS = ("image", "ground truth", "prediction", "blue: missed, orange: false")

HATCHING = 8
"""The distance in pixels between hatching lines over unlabelled regions."""
BINS = 80
LINE_WIDTH = 2
JPEG_QUALITY = 88
"""Preserves the look of camera noise."""


def panel(image: npt.NDArray[np.float32], truth: Labels, prediction: Labels) -> Picture:
    """Image (C, H, W), ground truth and prediction (H, W), and their differences, captioned, in a row."""
    grey = grey_of(image)
    pictures = [grey, coloured(truth), coloured(prediction), differing(grey, truth, prediction)]
    return in_a_row([captioned(shrunk(picture), text) for picture, text in zip(pictures, CAPTIONS, strict=True)])


def limits_of(*images: npt.NDArray[np.float32]) -> Limits:
    """The 0.5th and 99.5th percentile of each channel over all pixels of images (C, H, W)."""
    values = np.concatenate([image.reshape(len(image), -1) for image in images], axis=1)
    return [(low, high) for low, high in np.percentile(values, [0.5, 99.5], axis=1).T.tolist()]


def grey_of(image: npt.NDArray[np.float32], limits: Limits | None = None) -> Picture:
    """An image (C, H, W) with each channel scaled to its limits: three channels as colours, others as their mean.

    The default limits are those of the image itself.
    """
    limits = limits or limits_of(image)
    low, high = np.array(limits).T[:, :, None, None]
    width = np.maximum(high - low, 1e-12)
    shown = np.clip((image - low.astype(image.dtype)) / width.astype(image.dtype), 0, 1)
    # Channels of one value are left out of the mean, which they would only make paler.
    if len(shown) != 3:
        varied = (high > low).ravel()
        shown = shown[varied if varied.any() else ~varied].mean(axis=0, keepdims=True)
    grey = np.rint(shown * 255).astype(np.uint8)
    return np.asarray(np.broadcast_to(grey, (3, *grey.shape[1:])).transpose(1, 2, 0))


def palette(classes: int) -> npt.NDArray[np.uint8]:
    """The colours (K, 3) in which a mask of class indices is displayed."""
    return coloured(np.arange(classes, dtype=np.int64))


def coloured(labels: Labels) -> Picture:
    """Labels (H, W) in colours, unlabelled pixels grey."""
    colours = LABEL_COLOURS[np.where(labels < len(LABEL_COLOURS), labels, 2 + labels % (len(LABEL_COLOURS) - 2))]
    colours[labels == IGNORE] = IGNORED_COLOUR
    return np.asarray(colours)


def differing(grey: Picture, truth: Labels, prediction: Labels) -> Picture:
    """The darkened image with missed pixels and false alarms; pixels of a wrong class count as false alarms."""
    marked = grey // 2
    wrong = (truth != prediction) & (truth != IGNORE)
    marked[wrong & (prediction == 0)] = MISSED
    marked[wrong & (prediction != 0)] = FALSE_ALARM
    return np.asarray(marked)


def outline_colour(label: int) -> Colour:
    """The colour of a class above 0."""
    return OUTLINES[(label - 1) % len(OUTLINES)]


def outlined(grey: Picture, labels: Labels, colour_of: Callable[[int], Colour] = outline_colour) -> Picture:
    """Outline each label above 0 in its colour, just inside its edge, and hatch unlabelled regions."""
    drawn = np.array(grey)
    near = ndimage.binary_dilation(edges(labels))  # two pixels thick
    for label in np.unique(labels[near]).tolist():
        if label > 0:
            drawn[near & (labels == label)] = colour_of(label)
    lines = np.add.outer(np.arange(labels.shape[0]), np.arange(labels.shape[1])) % HATCHING < 2
    drawn[(labels == IGNORE) & lines] = IGNORED_COLOUR
    return drawn


def edges(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels of a class above 0 that touch another class; the image border and unlabelled pixels are no edges."""
    around = np.pad(labels, 1, mode="edge")
    beside = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    touching = np.logical_or.reduce([(other != labels) & (other != IGNORE) for other in beside])
    return np.asarray(touching & (labels > 0))


def tile(image: npt.NDArray[np.float32], labels: Labels | None, side: int, limits: Limits | None = None) -> Picture:
    """An image (C, H, W) resized to a longer side of `side` pixels, with outlines of a fixed width."""
    shown = fitted(grey_of(image, limits), side)
    return shown if labels is None else outlined(shown, sampled(labels, shown))


def sampled(labels: Labels, shown: Picture) -> Labels:
    """Labels (H, W) resampled (nearest neighbour) to the size of a picture of the same image."""
    rows, columns = (
        (2 * np.arange(n) + 1) * before // (2 * n) for n, before in zip(shown.shape, labels.shape, strict=False)
    )
    return np.asarray(labels[np.ix_(rows, columns)])


def fitted(picture: Picture, side: int) -> Picture:
    """A picture resized to a longer side of `side` pixels."""
    height, width = (max(1, round(n * side / max(picture.shape[:2]))) for n in picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return picture
    how = Image.Resampling.BOX if side < max(picture.shape[:2]) else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), how))


def shrunk(picture: Picture) -> Picture:
    return fitted(picture, LARGEST_SIDE) if max(picture.shape[:2]) > LARGEST_SIDE else picture


def jpeg(picture: Picture) -> bytes:
    """A picture as a JPEG file, with one channel if it is grey."""
    out = io.BytesIO()
    grey = bool((picture[..., :1] == picture).all())
    drawn = Image.fromarray(np.ascontiguousarray(picture[..., 0] if grey else picture))
    drawn.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return out.getvalue()


def framed(picture: Picture, box: tuple[float, float, float, float], colour: Colour) -> Picture:
    """Draw a rectangle (top, left, bottom, right; the last two exclusive) into a picture."""
    canvas, draw = _canvas(picture)
    top, left, bottom, right = box
    draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=LINE_WIDTH)
    return np.asarray(canvas)


def circled(picture: Picture, centre: tuple[float, float], diameter: float, colour: Colour) -> Picture:
    """Draw a circle around (y, x) into a picture; all in pixels."""
    canvas, draw = _canvas(picture)
    draw.circle(centre[::-1], diameter / 2, outline=colour, width=LINE_WIDTH)
    return np.asarray(canvas)


def _canvas(picture: Picture) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.fromarray(np.ascontiguousarray(picture))
    return canvas, ImageDraw.Draw(canvas)


def captioned(picture: Picture, *lines: str) -> Picture:
    """A picture below lines of text, truncated to its width."""
    height, width = picture.shape[:2]
    top = CAPTION * len(lines)
    canvas = Image.new("RGB", (max(width, NARROWEST), height + top), "white")
    canvas.paste(Image.fromarray(np.ascontiguousarray(picture)), (0, top))
    draw = ImageDraw.Draw(canvas)
    for index, line in enumerate(lines):
        colour = INK if index == 0 else FAINT
        draw.text((2, 2 + index * CAPTION), truncated(line, canvas.width - 4), fill=colour, font=typeface(TEXT_SIZE))
    return np.asarray(canvas)


def text_block(*lines: str, colours: Sequence[Colour] = (), size: int = TEXT_SIZE) -> Picture:
    """Lines of text, each in its own colour if colours are given."""
    font = typeface(size)
    step = size + CAPTION - TEXT_SIZE
    width = max(int(font.getlength(line)) for line in lines) + 5
    canvas = Image.new("RGB", (width, step * len(lines)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        draw.text((2, 2 + row * step), line, fill=colours[row] if colours else INK, font=font)
    return np.asarray(canvas)


def legend(entries: Sequence[tuple[Colour, str]]) -> Picture:
    """Lines of text, each after a swatch of its colour."""
    texts = text_block(*(text for _, text in entries))
    patches = np.full((texts.shape[0], CAPTION + GAP, 3), 255, np.uint8)
    for row, (colour, _) in enumerate(entries):
        patches[row * CAPTION + GAP : (row + 1) * CAPTION - GAP // 2, GAP // 2 : CAPTION] = colour
    return np.concatenate([patches, texts], axis=1)


def truncated(line: str, width: int, size: int = TEXT_SIZE) -> str:
    """A line of text that fits `width` pixels, shortened with an ellipsis if need be."""
    font = typeface(size)
    if font.getlength(line) <= width:
        return line
    kept = next((n for n in range(len(line), 0, -1) if font.getlength(f"{line[:n]}…") <= width), 0)
    return f"{line[:kept].rstrip()}…"


@lru_cache(maxsize=4)
def typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib and has glyphs that Pillow's own font lacks."""
    spec = find_spec("matplotlib")  # importing it would take longer than all drawing here
    path = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if spec and spec.origin else None
    return ImageFont.truetype(str(path), size) if path and path.is_file() else ImageFont.load_default(size=size)


def histogram(values: Sequence[npt.NDArray[np.float32]], size: tuple[int, int]) -> Picture:
    """Draw histograms, a coloured line for each array, between the 0.1th and the 99.9th percentile of all values."""
    height, width = size
    exact = [array.astype(np.float64).ravel() for array in values]  # float32 has too few values between large ones
    low, high = (float(end) for end in np.percentile(np.concatenate(exact), [0.1, 99.9]))
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    counted = [np.histogram(array, BINS, (low, high))[0] / array.size for array in exact]
    bottom = height - CAPTION
    most = max(float(shares.max()) for shares in counted)
    for shares, colour in zip(counted, line_colours(len(values)), strict=True):
        y = np.repeat(bottom - shares / most * (bottom - 2), 2)
        x = np.linspace(0, width - 1, BINS + 1).repeat(2)[1:-1]
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=LINE_WIDTH)
    draw.line((0, bottom, width, bottom), fill=FAINT)
    font = typeface(TEXT_SIZE)
    for share, anchor in ((0, "la"), (0.5, "ma"), (1, "ra")):
        place = (share * (width - 1), bottom + 2)
        draw.text(place, format_number(low + share * (high - low), 3, high - low), fill=FAINT, font=font, anchor=anchor)
    return np.asarray(canvas)


def line_colours(count: int) -> tuple[Colour, ...]:
    """Colours of lines and text on white that colour-blind readers can tell apart."""
    dark = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (0, 0, 0))
    return tuple(dark[index % len(dark)] for index in range(count))


def squared(picture: Picture, side: int) -> Picture:
    """A picture in the corner of a white square."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, side - height), (0, side - width), (0, 0)), constant_values=255)


def in_a_row(pictures: Sequence[Picture], gap: int = GAP) -> Picture:
    """Pictures of any height, side by side."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, gap), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded, axis=1)


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures of any width, one below the other."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, GAP), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded)


def bordered(picture: Picture) -> Picture:
    """A picture with a white margin."""
    return np.pad(picture, ((2 * GAP, 2 * GAP), (2 * GAP, 2 * GAP), (0, 0)), constant_values=255)
