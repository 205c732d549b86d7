"""Trained runs on fields unlike the one they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from benchmarks.foreign import FIELDS, SYNTHETIC, View, foreign, synthetic
from yeastexp.data import hdf5_file, images
from yeastexp.data.datasets.hdf5 import Hdf5, hdf5
from yeastexp.drawing import pictures
from yeastexp.metrics import baselines
from yeastexp.prediction.predictor import load_predictor
from yeastexp.sample import Sample

Answer = Callable[[npt.NDArray[np.float32], str], npt.NDArray[np.int64]]
"""From an image (1, H, W) and its name to its classes (H, W)."""

HOME = "in distribution"


def fields(data: Hdf5, of_synthetic_yeast: bool) -> Iterator[tuple[str, list[View]]]:
    """The validation images as they are, then each foreign field: made of them, or of synthetic yeast."""
    samples = [data.read(name) for name in data.splits["val"]]
    grey = [sample.image[0].double().numpy() for sample in samples]
    truth = [_cells(sample) for sample in samples]
    yield HOME, [View(image, cells) for image, cells in zip(grey, truth, strict=True)]
    if of_synthetic_yeast:
        yield from ((name, synthetic(settings)) for name, settings in SYNTHETIC.items())
        return
    for position, (name, change) in enumerate(FIELDS.items()):
        made = [
            foreign(image, cells, change, (0, position, index))
            for index, (image, cells) in enumerate(zip(grey, truth, strict=True))
        ]
        yield name, made


def _cells(sample: Sample) -> npt.NDArray[np.int64]:
    """The ids of a sample's cells (H, W); those of connected regions where it has none."""
    ids = sample.maps["instances"].numpy() if "instances" in sample.maps else ndimage.label(sample.labels > 0)[0]
    return np.asarray(ids, np.int64)


def pack(data: Hdf5, output: Path) -> None:
    """Write the foreign images that are made of `data` as a packed file with ids of cells; see `fields`."""
    views = {
        f"{field.replace(' ', '_').replace('×', 'x')}_{index}": view
        for field, made in fields(data, False)
        if field != HOME
        for index, view in enumerate(made)
    }
    arrays: dict[str, dict[str, npt.NDArray[Any]]] = {
        name: {"raw": view.image.astype(np.float32), "gt": view.labels.astype(np.uint8), "instances": view.cells}
        for name, view in views.items()
    }
    hdf5_file.write(output, {"test": list(arrays)}, arrays.__getitem__, provenance={})


def foreground_iou(predicted: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """Intersection over union of what is above 0; NaN where both are empty."""
    both, either = (predicted > 0) & (truth > 0), (predicted > 0) | (truth > 0)
    return float(both.sum() / either.sum()) if either.any() else float("nan")


def answers(data: Hdf5, runs: Sequence[Path]) -> dict[str, Answer]:
    """The best checkpoint of each run, and the threshold that fits the training images."""
    samples = (data.read(name) for name in data.splits["train"])
    threshold = baselines.fit(samples, ("background", "cell"))["threshold"]
    found: dict[str, Answer] = {"threshold": lambda image, name: threshold(torch.from_numpy(image)).numpy()}
    return found | {str(run): _of_run(run) for run in runs}


def _of_run(run: Path) -> Answer:
    predictor = load_predictor(run)
    return lambda image, name: predictor.classes_of(image, name).astype(np.int64)


def table(path: Path, runs: Sequence[Path], folder: Path | None, of_synthetic_yeast: bool = False) -> str:
    """Markdown: a row per set of images with the mean IoU of each prediction, then the mean out of distribution."""
    data = hdf5(path)
    asked = answers(data, runs)
    scores: dict[str, dict[str, float]] = {}
    for field, views in fields(data, of_synthetic_yeast):
        seen = [(view.image[None].astype(np.float32), view.labels) for view in views]
        found = {name: [answer(image, field) for image, _ in seen] for name, answer in asked.items()}
        scores[field] = {
            name: float(np.nanmean([foreground_iou(one, truth) for one, (_, truth) in zip(masks, seen, strict=True)]))
            for name, masks in found.items()
        }
        if folder:
            last = list(asked)[-1]
            _write(folder / f"{field.replace(' ', '_')}.png", *seen[0], found[last][0])
    scores["mean out of distribution"] = {
        name: float(np.mean([row[name] for field, row in scores.items() if field != HOME])) for name in asked
    }
    return _markdown(scores, list(asked))


def _write(
    path: Path, image: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write_png(path, pictures.panel(image, truth, mask).transpose(2, 0, 1))


def _markdown(scores: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> str:
    lines = ["| field | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for field, row in scores.items():
        lines.append(f"| {field} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |")
    return "\n".join(lines)
