"""How an image and its labels look side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from yeastexp.sample import IGNORE

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), as TensorBoard and Pillow take it."""

GAP = 6
CAPTION = 18
NARROWEST = 160
"""Pixels that the longest caption needs."""
LARGEST_SIDE = 512
"""Pixels of one tile; larger images are shown smaller."""

LABEL_COLOURS = np.array(
    [[0, 0, 0], [255, 255, 255], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178]], np.uint8
)
"""Background, foreground, then the colours of Okabe and Ito (2008), told apart by colour-blind readers."""

IGNORED_COLOUR = np.array([128, 128, 128], np.uint8)
MISSED = np.array([86, 180, 233], np.uint8)
FALSE_ALARM = np.array([230, 97, 0], np.uint8)
CAPTIONS = ("image", "truth", "prediction", "blue: missed, orange: false")


def panel(image: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64]) -> Picture:
    """Image (C, H, W), truth and prediction (H, W), and where they differ, captioned, in a row."""
    grey = grey_of(image)
    tiles = [grey, coloured(truth), coloured(prediction), differing(grey, truth, prediction)]
    return _in_a_row([_captioned(_shrunk(tile), text) for tile, text in zip(tiles, CAPTIONS, strict=True)])


def grey_of(image: npt.NDArray[np.float32]) -> Picture:
    """An image of any value range between its 0.5th and 99.5th percentile; three channels stay colours."""
    shown = image if image.shape[0] == 3 else image.mean(axis=0, keepdims=True).repeat(3, axis=0)
    low, high = np.percentile(shown, [0.5, 99.5])
    scaled = np.clip((shown - low) / max(high - low, 1e-12), 0, 1)
    return np.asarray(np.rint(scaled * 255).astype(np.uint8).transpose(1, 2, 0))


def coloured(labels: npt.NDArray[np.int64]) -> Picture:
    """Labels (H, W) in colours, the ignored ones grey."""
    colours = LABEL_COLOURS[np.where(labels < len(LABEL_COLOURS), labels, 2 + labels % (len(LABEL_COLOURS) - 2))]
    colours[labels == IGNORE] = IGNORED_COLOUR
    return np.asarray(colours)


def differing(grey: Picture, truth: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64]) -> Picture:
    """The image, darkened, with pixels that were missed and false ones; a wrong class counts as false."""
    marked = grey // 2
    wrong = (truth != prediction) & (truth != IGNORE)
    marked[wrong & (prediction == 0)] = MISSED
    marked[wrong & (prediction != 0)] = FALSE_ALARM
    return np.asarray(marked)


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures of any width, one below the other."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, GAP), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded)


def _shrunk(tile: Picture) -> Picture:
    side = max(tile.shape[:2])
    if side <= LARGEST_SIDE:
        return tile
    height, width = (max(1, round(n * LARGEST_SIDE / side)) for n in tile.shape[:2])
    return np.asarray(Image.fromarray(tile).resize((width, height), Image.Resampling.BOX))


def _captioned(tile: Picture, text: str) -> Picture:
    height, width = tile.shape[:2]
    canvas = Image.new("RGB", (max(width, NARROWEST), height + CAPTION), "white")
    canvas.paste(Image.fromarray(tile), (0, CAPTION))
    ImageDraw.Draw(canvas).text((2, 2), text, fill="black", font=ImageFont.load_default(size=11))
    return np.asarray(canvas)


def _in_a_row(tiles: Sequence[Picture]) -> Picture:
    height = max(tile.shape[0] for tile in tiles)
    padded = [np.pad(t, ((0, height - t.shape[0]), (0, GAP), (0, 0)), constant_values=255) for t in tiles]
    return np.concatenate(padded, axis=1)
