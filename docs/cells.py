"""Runs the commands of `cells.md` and replaces the outputs and the pictures shown there: `python -m docs.cells`.

It trains a model for some two minutes. The tests rerun all blocks that are not marked `recorded`, and compare.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from docs import exercise
from yeastexp.drawing import pictures

DOCUMENT = exercise.HERE / "cells.md"
PICTURES = exercise.HERE / "cells"

EXPERIMENT = "mine.toml"
OVERLAY = Path("predicted/overlays/yeast_010.png")
"""Of a validation image."""

ENLARGED, GAP = 2, 4


def write_pair(image: Path, overlay: Path, output: Path) -> None:
    """Write an image beside its overlay, both enlarged."""
    grey = np.asarray(Image.open(image), np.float32)
    shown = [Image.fromarray(pictures.grey_of(grey[None])), Image.open(overlay)]
    width, height = (side * ENLARGED for side in shown[0].size)
    pair = Image.new("RGB", (2 * width + GAP, height), "white")
    for place, picture in enumerate(shown):
        pair.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (place * (width + GAP), 0))
    pair.save(output)


def main() -> None:
    """Update the page and its picture."""
    os.environ |= exercise.TERMINAL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        text = exercise.rerun(DOCUMENT.read_text(encoding="utf-8"), folder, recorded=True)
        PICTURES.mkdir(exist_ok=True)
        write_pair(folder / "images" / OVERLAY.name, folder / OVERLAY, folder / "overlay.png")
        exercise.write_small(folder / "overlay.png", PICTURES / "overlay.jpg")
        DOCUMENT.write_text(exercise.stamped(text, folder, EXPERIMENT), encoding="utf-8")


if __name__ == "__main__":
    main()
