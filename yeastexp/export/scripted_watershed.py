"""`yeastexp.tasks.watershed.Watershed` in tensor operations that TorchScript takes, for programs that run no Python.

It gives the same cells; `yeastexp.export.instanseg` compares them before it writes them. What is there said of tops,
passes and ties holds here; images come whole, so there are no bands. Types are those that TorchScript knows.
"""

import math
from collections.abc import Sequence
from typing import List, Optional, Tuple  # noqa: UP035

import torch
from torch import Tensor, nn

from yeastexp.data.views import Symmetry
from yeastexp.tasks.watershed import Watershed


class ScriptedWatershed(nn.Module):
    """The cells (H, W) int64 of a hill and the probability of foreground, both (H, W) float32."""

    def __init__(self, rule: Watershed) -> None:
        super().__init__()
        self.least_height = float(rule.least_height)
        self.least_depth = float(rule.least_depth)
        self.least_area = max(int(rule.least_area), 1)
        self.least_foreground = float(rule.least_foreground)
        self.highest_pass = float(rule.least_height if rule.highest_pass is None else rule.highest_pass)
        # No buffer: some devices that a program may move it to know no float64.
        self.weights = gaussian(rule.smoothing_px)

    def forward(self, hill: Tensor, foreground: Tensor) -> Tensor:
        inside = foreground > 0.5
        smooth = torch.where(inside, hill, torch.zeros_like(hill))
        if len(self.weights) > 1:
            share = smoothed(inside.to(torch.float32), self.weights)
            smooth = smoothed(smooth, self.weights) / share.clamp(min=1e-6)
        height = torch.where(inside, smooth, torch.full_like(smooth, -math.inf))
        cells = torch.zeros(height.numel(), dtype=torch.int64, device=height.device)
        pixels = torch.nonzero(inside.flatten()).flatten()
        if len(pixels) == 0:
            return cells.view_as(height)
        target = targets(height)
        tops, rank = torch.unique(target[pixels], sorted=True, return_inverse=True)
        names = torch.full_like(cells, -1)
        names[pixels] = rank
        first, second, passes = highest_passes(names.view_as(height), height, len(tops))
        cell = self.merged(height.flatten()[tops], first, second, passes)[rank]
        kept = cell >= 0
        cell, pixels = cell[kept], pixels[kept]
        area = torch.bincount(cell, minlength=len(tops))
        certainty = torch.round(foreground.flatten()[pixels].to(torch.float64) * 255)
        certain = torch.bincount(cell, certainty, minlength=len(tops))
        chosen = (area >= self.least_area) & (certain >= self.least_foreground * 255 * area)
        # Pixels come in reading order, and so do cells by the first of theirs.
        ordered, place = torch.sort(cell, stable=True)
        beginning = torch.full_like(tops, height.numel())
        is_first = is_new(ordered)
        beginning[ordered[is_first]] = pixels[place[is_first]]
        numbered = torch.nonzero(chosen).flatten()
        numbered = numbered[torch.sort(beginning[numbered], stable=True)[1]]
        number = torch.zeros_like(tops)
        number[numbered] = torch.arange(1, len(numbered) + 1, device=number.device)
        cells[pixels] = number[cell]
        return cells.view_as(height)

    def merged(self, tops: Tensor, firsts: Tensor, seconds: Tensor, passes: Tensor) -> Tensor:
        """The cell (N,) that each top belongs to, named by one of its tops; -1 for those that belong to none."""
        peak: List[float] = tops.to(torch.float64).tolist()  # noqa: UP006
        first: List[int] = firsts.tolist()  # noqa: UP006
        second: List[int] = seconds.tolist()  # noqa: UP006
        height: List[float] = passes.to(torch.float64).tolist()  # noqa: UP006
        parent = [top for top in range(len(peak))]  # noqa: C416
        for edge in range(len(first)):
            a, b = root(parent, first[edge]), root(parent, second[edge])
            lower = min(peak[a], peak[b])
            shallow = lower < self.least_height or lower - height[edge] < self.least_depth
            if a != b and (height[edge] >= self.highest_pass or shallow):
                parent[b] = a
                peak[a] = max(peak[a], peak[b])
        cells = [root(parent, top) for top in range(len(parent))]
        for top in range(len(cells)):
            if peak[cells[top]] < self.least_height:
                cells[top] = -1
        return torch.tensor(cells, dtype=torch.int64, device=tops.device)


class LabelledCells(nn.Module):
    """Images (B, C, H, W) float32 to label images (B, 1, H, W) float32, through traced parts and a watershed.

    What the network says is averaged over the task's symmetries. All but the network is computed on the CPU, for not
    all devices know float64. What else a program may give, as which of two label images it wants, is ignored.
    """

    def __init__(
        self, normalization: nn.Module, network: nn.Module, watershed: ScriptedWatershed, symmetries: Sequence[Symmetry]
    ) -> None:
        super().__init__()
        self.normalization, self.network, self.watershed = normalization, network, watershed
        self.symmetries = list(symmetries)
        self.tiny = torch.finfo(torch.float32).tiny

    def forward(self, images: Tensor, target: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        normalized = self.normalization(images.cpu()).to(images.device)
        likelihood, hill = torch.zeros(1), torch.zeros(1)
        for up, left, exchanged in self.symmetries:
            mirrored: List[int] = []  # noqa: UP006
            if up:
                mirrored.append(2)
            if left:
                mirrored.append(3)
            view = normalized.flip(mirrored)
            outputs = self.network(view.transpose(2, 3).contiguous() if exchanged else view)
            outputs = (outputs.transpose(2, 3) if exchanged else outputs).flip(mirrored).cpu().float()
            likelihood = likelihood + outputs[:, :-1].softmax(dim=1)
            hill = hill + outputs[:, -1]
        hill, likelihood = hill / len(self.symmetries), likelihood / len(self.symmetries)
        if len(self.symmetries) > 1:  # as the task makes logits of the mean, and likelihoods of those
            likelihood = likelihood.clamp(min=self.tiny).log().softmax(dim=1)
        foreground = likelihood[:, 1:].sum(dim=1)
        cells = [self.watershed(hill[index], foreground[index]) for index in range(len(hill))]
        return torch.stack(cells)[:, None].to(torch.float32).to(images.device)


def gaussian(sigma: float) -> List[float]:  # noqa: UP006
    """The weights of a Gaussian from its middle outwards, as `scipy.ndimage.gaussian_filter` takes them."""
    weights = [
        math.exp(-0.5 * (distance / sigma) ** 2) if sigma else 1.0 for distance in range(int(4 * sigma + 0.5) + 1)
    ]
    return [weight / (2 * sum(weights) - weights[0]) for weight in weights]


def smoothed(values: Tensor, weights: List[float]) -> Tensor:  # noqa: UP006
    """A Gaussian of an image (H, W) float32 that is mirrored at its borders, summed as SciPy sums it, in float64."""
    for axis in range(2):
        length, reach = values.shape[axis], len(weights) - 1
        place = torch.arange(-reach, length + reach, device=values.device) % (2 * length)
        place = torch.where(place < length, place, 2 * length - 1 - place)
        wide = values.to(torch.float64).index_select(axis, place)
        total = wide.narrow(axis, reach, length) * weights[0]
        for distance in range(reach, 0, -1):
            pair = wide.narrow(axis, reach - distance, length) + wide.narrow(axis, reach + distance, length)
            total = total + pair * weights[distance]
        values = total.to(torch.float32)
    return values


def targets(height: Tensor) -> Tensor:
    """For each pixel (H·W,) the flat place of the top that the steepest way up leads to; of equals the first."""
    rows, columns = height.shape[0], height.shape[1]
    wide = torch.full((rows + 2, columns + 2), -math.inf, dtype=height.dtype, device=height.device)
    wide[1 : rows + 1, 1 : columns + 1] = height
    best = torch.full_like(height, -math.inf)
    step = torch.zeros_like(height, dtype=torch.int64)
    for down in range(-1, 2):
        for right in range(-1, 2):
            there = wide[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
            step = torch.where(there > best, torch.full_like(step, down * columns + right), step)
            best = torch.maximum(best, there)
    step = torch.where(torch.isinf(height), torch.zeros_like(step), step)
    flat = torch.arange(rows * columns, device=height.device) + step.flatten()
    higher = flat[flat]
    while not torch.equal(higher, flat):
        flat = higher
        higher = flat[flat]
    return flat


def highest_passes(names: Tensor, height: Tensor, count: int) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Of each two tops that touch their names and the highest pass between them, from the highest to the lowest."""
    rows, columns = names.shape[0], names.shape[1]
    pairs: List[Tensor] = []  # noqa: UP006
    lower: List[Tensor] = []  # noqa: UP006
    for down, right in [(0, 1), (1, -1), (1, 0), (1, 1)]:
        top, bottom = slice_of(names, 0, rows - down), slice_of(names, down, rows)
        here = top[:, max(0, -right) : columns - max(0, right)]
        there = bottom[:, max(0, right) : columns - max(0, -right)]
        meet = (here != there) & (here >= 0) & (there >= 0)
        pairs.append((torch.minimum(here, there) * count + torch.maximum(here, there))[meet])
        above = slice_of(height, 0, rows - down)[:, max(0, -right) : columns - max(0, right)]
        below = slice_of(height, down, rows)[:, max(0, right) : columns - max(0, -right)]
        lower.append(torch.minimum(above, below)[meet])
    pair, passes = torch.cat(pairs), torch.cat(lower)
    pair, order = torch.sort(pair, stable=True)
    passes, second = torch.sort(-passes[order], stable=True)
    pair = pair[second]
    # By height and then by name, so the first of a name is its highest pass.
    by_name, order = torch.sort(pair, stable=True)
    first = torch.sort(order[is_new(by_name)])[0]
    pair = pair[first]
    return torch.div(pair, count, rounding_mode="floor"), pair % count, -passes[first]


def slice_of(values: Tensor, begin: int, end: int) -> Tensor:
    """Some rows; none if `end` is below `begin`."""
    return values[begin : max(begin, end)]


def is_new(ordered: Tensor) -> Tensor:
    """Whether each value differs from the one before."""
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return new


def root(parent: List[int], top: int) -> int:  # noqa: UP006
    """The top that stands for a cell."""
    while parent[top] != top:
        parent[top] = parent[parent[top]]
        top = parent[top]
    return top
