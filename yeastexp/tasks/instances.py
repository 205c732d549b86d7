"""Instance segmentation: touching cells told apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.contracts import Loss, Prediction
from yeastexp.errors import UserError
from yeastexp.metrics.matching import f1, overlap
from yeastexp.registry import task
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks.hills import hills
from yeastexp.tasks.mask_cells import MaskCells, middle
from yeastexp.tasks.semantic import Semantic, Views
from yeastexp.tasks.shares import as_floats, in_16_bits
from yeastexp.tasks.telling_apart import Planes
from yeastexp.tasks.watershed import Watershed

Ids = npt.NDArray[np.int64]
Share = Annotated[float, Field(ge=0, le=1)]

INSIDE, OUTSIDE = 1.1, 0.1
"""Weights of the hill's squared error inside and outside of cells; outside, the classes say that there is no cell."""

DEPTHS = (0.1, 0.2, 0.3)
"""Candidates for `least_depth`, of which the training images choose one."""

FITTED, FITTED_PX = 8, 1024
"""The number of training images that choose, and the side of the part of each that is used, in pixels."""

FITTED_MASKS = 3
"""The number of training images that choose how a mask is cut into cells, for baselines."""


@task("instances")
class Instances(Semantic):
    """A class for each pixel, and in each cell a hill that falls to its outline: a watershed of the hills gives cells.

    K logits, which `[loss]` is of, and the hill (`yeastexp.tasks.hills.hills`), whose squared error weighs
    `hill_weight`, more inside of cells than outside. `yeastexp.tasks.watershed.Watershed` says what a cell is. Some of
    its options come from the training labels and stay in the run: `smoothing` is a share of the diameter of a disc of
    their median area, `least_area` a share of that area, and `least_depth` is the one under which the hills of the true
    cells give most of the true cells back.
    """

    maps = ("instances",)
    planes = ("nearest", "bilinear")
    quantized = True
    approximates = False
    reach_px = None
    values = ("instances",)

    def __init__(
        self,
        channels: int,
        classes: int,
        hill_weight: Annotated[float, Field(gt=0)] = 12.0,
        least_height: Annotated[float, Field(gt=0, lt=1)] = 0.7,
        least_depth: Share | None = None,
        least_foreground: Share = 0.7,
        least_area: Share = 0.02,
        smoothing: Share = 0.04,
        views: Views = 8,
    ) -> None:
        super().__init__(channels, classes, views)
        self.outputs = classes + 1
        self.hill_weight = hill_weight
        self.depth = least_depth
        self.area, self.smoothing = least_area, smoothing
        self.watershed = Watershed(
            least_height, DEPTHS[0] if least_depth is None else least_depth, least_foreground=least_foreground
        )

    def fit(self, samples: Iterable[Sample]) -> None:
        """Choose the options that depend on the size and the shape of cells; raises UserError if there are no cells."""
        # Samples are read one after the other, and only the parts that are fitted on are kept.
        areas, fitted_on = [np.zeros(0, np.int64)], list[Ids]()
        for sample in samples:
            ids = sample.maps["instances"].clamp_min(0).numpy()
            areas.append(np.unique(ids[ids > 0], return_counts=True)[1])
            if len(areas[-1]) and len(fitted_on) < FITTED and (part := middle(ids, FITTED_PX)).any():
                fitted_on.append(part)
        if not sum(map(len, areas)):
            raise UserError(
                "[task] instances: the map 'instances' of all training images holds no id above 0, so there are no "
                "cells to learn; train on images with cells, or pack the labels again with --labels instance"
            )
        median = float(np.median(np.concatenate(areas)))
        smoothing_px = self.smoothing * math.sqrt(4 * median / math.pi)
        least_area = max(1, round(self.area * median))
        self.watershed = replace(self.watershed, least_area=least_area, smoothing_px=smoothing_px)
        if self.depth is None and fitted_on:
            self.watershed = replace(self.watershed, least_depth=self._best_depth(fitted_on))
        if fitted_on:
            self.mask_cells = MaskCells.fitted(fitted_on[:FITTED_MASKS])

    def _best_depth(self, images: Sequence[Ids]) -> float:
        """Return the first of `DEPTHS` under which true hills give the best F1 of true cells."""
        known = [(ids, hills(ids), (ids > 0).astype(np.float32)) for ids in images]

        def score(depth: float) -> float:
            rule = replace(self.watershed, least_depth=depth)
            return f1(overlap(ids, rule.cells(hill, foreground)) for ids, hill, foreground in known)

        return max(DEPTHS, key=score)

    def state_dict(self) -> dict[str, Any]:
        return {"watershed": asdict(self.watershed), "mask_cells": asdict(self.mask_cells)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.watershed, self.mask_cells = Watershed(**state["watershed"]), MaskCells(**state["mask_cells"])

    def targets(self, sample: Sample) -> Tensor:
        instances = sample.maps["instances"].cpu().numpy()
        # Where pixels are unlabelled nothing is known of cells either, so the loss skips the hill there as well.
        hill = torch.from_numpy(hills(instances)).to(sample.labels.device)
        hill.masked_fill_(sample.labels == IGNORE, torch.nan)
        return torch.stack([sample.labels.to(torch.int16), in_16_bits(hill)])

    def loss(self, outputs: Tensor, targets: Tensor, criterion: Loss | None) -> Tensor:
        labels, hill = targets[:, 0].long(), as_floats(targets[:, 1])
        known = ~hill.isnan()
        weight = torch.where(labels > 0, INSIDE, OUTSIDE) * known
        error = (weight * (outputs[:, -1] - hill.nan_to_num()) ** 2).sum() / known.sum().clamp_min(1)
        return super().loss(outputs[:, :-1], targets, criterion) + self.hill_weight * error

    def activate(self, outputs: Tensor) -> Tensor:
        return torch.cat([super().activate(outputs[..., :-1, :, :]), outputs[..., -1:, :, :]], dim=-3)

    def deactivate(self, activated: Tensor) -> Tensor:
        return torch.cat([super().deactivate(activated[..., :-1, :, :]), activated[..., -1:, :, :]], dim=-3)

    def kept(self, activated: Tensor) -> Tensor:
        """Return the probabilities of all classes but the first, then the hill (P, H, W)."""
        return activated[1:]

    def find_instances(self, planes: Callable[[slice], Planes], labels: Callable[[], npt.NDArray[Any]]) -> int:
        def hill_and_foreground(rows: slice) -> tuple[Planes, Planes]:
            kept = planes(rows)
            return kept[-1], self.confidence(kept)

        return self.watershed.fill(hill_and_foreground, labels)

    def confidence(self, planes: Planes) -> Planes:
        """Return the probability of all classes but the first (h, W)."""
        return np.asarray(planes[:-1].sum(axis=0, dtype=np.float32))

    def output_names(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the classes, for their logits, then that of the hill."""
        return (*classes, "hill")

    def decode(self, outputs: Tensor) -> Prediction:
        planes = self.kept(self.activate(outputs.float())).cpu().numpy()
        labels = np.zeros(planes.shape[1:], np.int64)
        self.find_instances(lambda rows: planes[:, rows], lambda: labels)
        instances = torch.from_numpy(labels).to(outputs.device)
        return Prediction(self._classes_of(instances, outputs[1:-1]), instances)

    def _classes_of(self, instances: Tensor, logits: Tensor) -> Tensor:
        """Return the class of each pixel (H, W): the most frequent likeliest class in its cell, 0 outside of cells."""
        if len(logits) == 1:
            return (instances > 0).long()
        # Votes are counted in one `bincount` over pairs of cell and class, and padded to whole rows of classes.
        likeliest = logits.max(dim=0).indices
        votes = torch.bincount((instances * len(logits) + likeliest).flatten(), minlength=len(logits))
        votes = torch.cat([votes, votes.new_zeros(-len(votes) % len(logits))]).view(-1, len(logits))
        return torch.where(instances > 0, 1 + votes.max(dim=1).indices[instances], 0)

    def of_classes(self, labels: Tensor) -> Prediction:
        """Return the mask cut into approximate cells by the distance to the background."""
        return Prediction(labels, self.mask_cells.of_labels(labels))

    def certain(self, targets: Tensor) -> Iterator[Tensor]:
        hill = as_floats(targets[:, 1:]).nan_to_num()
        return (torch.cat([logits, hill], dim=1) for logits in super().certain(targets))

    def constant(self, targets: Tensor) -> Iterator[Tensor]:
        hill = as_floats(targets[:, 1:]).nanmean().nan_to_num()
        return (torch.cat([logits, hill.expand(logits[:, :1].shape)], dim=1) for logits in super().constant(targets))
