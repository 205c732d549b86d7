"""Whole images through a trained run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from yeastexp import images, trained
from yeastexp.errors import UserError


def predict(
    run: Path,
    inputs: Sequence[str],
    output: Path,
    *,
    device: str = "auto",
    progress: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> int:
    """Write a PNG mask for every image, of the same name, and return how many.

    Masks hold 0 and 255 where there are two classes, else class indices.
    """
    predictor = trained.load(run, device=device)
    found = images.image_files(inputs)
    targets = {path: output / f"{path.stem}.png" for path in found}
    _refuse_clashes(targets)
    scale = 255 if len(predictor.classes) == 2 else 1
    for path in progress(found):
        mask = predictor.classes_of(images.read_image(path), str(path))
        images.write_png(targets[path], mask * np.uint8(scale))
    return len(found)


def _refuse_clashes(targets: dict[Path, Path]) -> None:
    """No two masks of one name, and none in the place of an image."""
    by_target: dict[Path, Path] = {}
    sources = {path.resolve() for path in targets}
    for path, target in targets.items():
        if target in by_target:
            raise UserError(f"{path}: its mask would have the name of that of {by_target[target]}; predict them apart")
        if target.resolve() in sources:
            raise UserError(f"{target}: is one of the images; choose another folder for the masks")
        by_target[target] = path
