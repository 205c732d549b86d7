"""What a run left behind, ready to be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yeastexp import assemble, checkpoints, engine, experiment
from yeastexp.errors import UserError
from yeastexp.experiment import Experiment
from yeastexp.sample import IGNORE, Sample

Which = Literal["best", "last"]


@dataclass(frozen=True)
class Trained:
    """A run's model at one of its checkpoints, with everything that stood before it in training."""

    experiment: Experiment
    step: int
    model: torch.nn.Module
    transforms: assemble.Transforms
    normalization: dict[str, float] | None
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    def rescaled(self, image: Tensor, stored: dict[str, Any] | None) -> Tensor:
        """An image (C, H, W) that is stored with some normalisation, or none, as training saw its values."""
        return assemble.rescaled(image, stored, self.normalization)

    def logits(self, sample: Sample) -> Tensor:
        """Logits (K, H, W) on the pixels of a sample whose values are as training saw them."""
        return engine.whole_image_logits(self.model, self.transforms, sample, self.device)

    def classes_of(self, image: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
        """Class indices (H, W) of an image (C, H, W) with the values it was recorded with; UserError names it."""
        if image.shape[0] != (channels := self.experiment.task.channels):
            raise UserError(f"{name}: has {image.shape[0]} channels; the run was trained on {channels}")
        values = self.rescaled(torch.from_numpy(image.astype(np.float32)), None)
        logits = self.logits(Sample(values, torch.full(image.shape[-2:], IGNORE), name))
        return np.asarray(logits.argmax(dim=0).cpu().numpy().astype(np.uint8))


def load(run: Path, checkpoint: Which = "best", device: str = "auto") -> Trained:
    """A checkpoint of a run directory; UserError where there is none. Its data need not be there."""
    if not (run / "experiment.toml").is_file():
        raise UserError(f"{run}: no run directory; the last line that 'run' prints is one")
    loaded = experiment.load(run / "experiment.toml", [f"train.device={device}"], data=False)
    place = assemble.compute_device(loaded.train)
    path = run / checkpoints.FOLDER / f"{checkpoint}.pt"
    state = checkpoints.load(path)
    model = assemble.build_model(loaded).to(place)
    checkpoints.load_weights(model, state["model"], path)
    normalization = state["normalization"]
    try:
        transforms = assemble.with_figures(loaded, bool(normalization), state["transforms"])
    except (TypeError, ValueError):
        fault = "its [[transform]] list is not that of the experiment file; it is of another experiment"
        raise UserError(f"{path}: {fault}") from None
    return Trained(loaded, state["step"], model.eval(), transforms, normalization, place)
