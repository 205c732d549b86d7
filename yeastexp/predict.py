"""Whole images through a trained run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from yeastexp import assemble, checkpoints, engine, experiment, images
from yeastexp.errors import UserError
from yeastexp.sample import IGNORE, Sample


@dataclass(frozen=True)
class Predictor:
    """A trained run's model with everything that stood before it in training."""

    classes: int
    channels: int
    model: torch.nn.Module
    transforms: assemble.Transforms
    normalization: dict[str, float] | None
    device: torch.device

    def classes_of(self, image: np.ndarray, name: str) -> np.ndarray:
        """Class indices (H, W) uint8 of an image (C, H, W) with the values it was recorded with."""
        if image.shape[0] != self.channels:
            raise UserError(f"{name}: has {image.shape[0]} channels; the run was trained on {self.channels}")
        values = torch.from_numpy(image.astype(np.float32))
        values = assemble.rescaled(values, None, self.normalization)
        sample = Sample(values, torch.full(image.shape[-2:], IGNORE), name)
        logits = engine.whole_image_logits(self.model, self.transforms, sample, self.device)
        return np.asarray(logits.argmax(dim=0).cpu().numpy().astype(np.uint8))


def load(run: Path, device: str = "auto") -> Predictor:
    """The best checkpoint of a run directory, ready to predict."""
    if not (run / "experiment.toml").is_file():
        raise UserError(f"{run}: no run directory; the last line that 'run' prints is one")
    loaded = experiment.load(run / "experiment.toml", [f"train.device={device}"], data=False)
    place = assemble.compute_device(loaded.train)
    state = checkpoints.load(run / "checkpoints" / "best.pt", place)
    model = assemble.build_model(loaded).to(place)
    model.load_state_dict(state["model"])
    normalization = state["normalization"]
    transforms = assemble.with_figures(loaded, bool(normalization), state["transforms"])
    task = loaded.task
    return Predictor(len(task.classes), task.channels, model.eval(), transforms, normalization, place)


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
    predictor = load(run, device)
    found = images.image_files(inputs)
    targets = {path: output / f"{path.stem}.png" for path in found}
    _refuse_clashes(targets)
    scale = 255 if predictor.classes == 2 else 1
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
