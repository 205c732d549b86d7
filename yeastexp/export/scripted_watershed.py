"""`yeastexp.tasks.watershed.Watershed` in tensor operations that TorchScript compiles, for programs without Python.

It gives the same cells, which `yeastexp.export.instanseg` checks before it writes a file. Tops, passes and ties are
those described there; images come whole, so there are no bands. Types are spelt as TorchScript understands them
(`List`, `Optional`), functions are plain, and loops over tensors are avoided: its interpreter is slow.
"""

import math
from collections.abc import Sequence
from typing import List, Optional, Tuple  # noqa: UP035

import torch
from torch import Tensor, nn

from yeastexp.data.views import Symmetry
from yeastexp.tasks.watershed import Watershed


class ScriptedWatershed(nn.Module):
    """From a hill and the probability of foreground, both (H, W) float32, to the ids of cells (H, W) int64."""

    def __init__(self, rule: Watershed) -> None:
        super().__init__()
        self.least_height = float(rule.least_height)
        self.least_depth = float(rule.least_depth)
        self.least_area = max(int(rule.least_area), 1)
        self.least_foreground = float(rule.least_foreground)
        self.highest_pass = float(rule.least_height if rule.highest_pass is None else rule.highest_pass)
        # A list and not a buffer: a program may move buffers to a device without float64.
        self.weights = gaussian(rule.smoothing_px)

    def forward(self, hill: Tensor, foreground: Tensor) -> Tensor:
        inside = foreground > 0.5
        smooth = torch.where(inside, hill, torch.zeros_like(hill))
        # Divided by the smoothed mask, the mean is one of foreground pixels alone: background does not lower a hill.
        if len(self.weights) > 1:
            share = smoothed(inside.to(torch.float32), self.weights)
            smooth = smoothed(smooth, self.weights) / share.clamp(min=1e-6)
        height = torch.where(inside, smooth, torch.full_like(smooth, -math.inf))
        cells = torch.zeros(height.numel(), dtype=torch.int64, device=height.device)
        pixels = torch.nonzero(inside.flatten()).flatten()
        if len(pixels) == 0:
            return cells.view_as(height)
        target = targets(height)
        # From here on, a top is named by its rank among the flat positions of all tops.
        tops, rank = torch.unique(target[pixels], sorted=True, return_inverse=True)
        names = torch.full_like(cells, -1)
        names[pixels] = rank
        first, second, passes = highest_passes(names.view_as(height), height, len(tops))
        cell = self.merged(height.flatten()[tops], first, second, passes)[rank]
        kept = cell >= 0
        cell, pixels = cell[kept], pixels[kept]
        area = torch.bincount(cell, minlength=len(tops))
        # Rounded to 1/255, the sums below are of whole numbers: they are the same in whatever order pixels are added.
        certainty = torch.round(foreground.flatten()[pixels].to(torch.float64) * 255)
        certain = torch.bincount(cell, certainty, minlength=len(tops))
        chosen = (area >= self.least_area) & (certain >= self.least_foreground * 255 * area)
        # Cells are numbered in the reading order of their first pixels. `pixels` ascend and the sort is stable, so that
        # the first entry of each cell is its first pixel.
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
        """The cell (N,) that each top belongs to, named by one of its tops; -1 for tops that belong to none."""
        # Lists, as a union-find reads and writes single numbers, each of which would be a kernel launch on a tensor.
        # Passes come from the highest to the lowest, so that two tops meet first where a flood would join them.
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
    """From images (B, C, H, W) float32 to label images (B, 1, H, W) float32, through traced parts and a watershed.

    The network's outputs are averaged over the task's symmetries. All but the network runs on the CPU, as not all
    devices have float64. `target`, by which a program may ask for one of two label images, is ignored.
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
        # The task turns a mean over views into logits, and these into likelihoods again; so does this.
        if len(self.symmetries) > 1:
            likelihood = likelihood.clamp(min=self.tiny).log().softmax(dim=1)
        foreground = likelihood[:, 1:].sum(dim=1)
        cells = [self.watershed(hill[index], foreground[index]) for index in range(len(hill))]
        return torch.stack(cells)[:, None].to(torch.float32).to(images.device)


def gaussian(sigma: float) -> List[float]:  # noqa: UP006
    """The weights of a Gaussian from the middle outwards; it ends at 4 sigma as in `scipy.ndimage.gaussian_filter`."""
    weights = [
        math.exp(-0.5 * (distance / sigma) ** 2) if sigma else 1.0 for distance in range(int(4 * sigma + 0.5) + 1)
    ]
    return [weight / (2 * sum(weights) - weights[0]) for weight in weights]


def smoothed(values: Tensor, weights: List[float]) -> Tensor:  # noqa: UP006
    """An image (H, W) float32 smoothed by symmetric weights, and mirrored at its borders."""
    # Summed in float64 from the farthest pair inwards, and rounded after each axis, as SciPy does: a difference in the
    # last bit could decide a tie between two ways up.
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
    """For each pixel (H·W,) the flat index of the top that the steepest way up leads to; of equal ways the first."""
    rows, columns = height.shape[0], height.shape[1]
    wide = torch.full((rows + 2, columns + 2), -math.inf, dtype=height.dtype, device=height.device)
    wide[1 : rows + 1, 1 : columns + 1] = height
    best = torch.full_like(height, -math.inf)
    step = torch.zeros_like(height, dtype=torch.int64)
    # In reading order, the pixel itself in the middle, and only what is strictly higher replaces what came before: of
    # equal heights the first counts as the highest, so that no way leads in circles and a plateau has one top.
    for down in range(-1, 2):
        for right in range(-1, 2):
            there = wide[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
            step = torch.where(there > best, torch.full_like(step, down * columns + right), step)
            best = torch.maximum(best, there)
    step = torch.where(torch.isinf(height), torch.zeros_like(step), step)
    # Pointer doubling: each pass follows twice as many steps, so that long ways take few passes.
    flat = torch.arange(rows * columns, device=height.device) + step.flatten()
    higher = flat[flat]
    while not torch.equal(higher, flat):
        flat = higher
        higher = flat[flat]
    return flat


def highest_passes(names: Tensor, height: Tensor, count: int) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """The highest pass between each two tops that touch, descending: lower name, higher name and height, (E,) each.

    `names` (H, W) has the top of each pixel, -1 outside the foreground; `count` is the number of tops.
    """
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
    # A stable sort by name, then one by descending height: passes of equal height are in the order of names, as in
    # the watershed that this repeats.
    pair, passes = torch.cat(pairs), torch.cat(lower)
    pair, order = torch.sort(pair, stable=True)
    passes, second = torch.sort(-passes[order], stable=True)
    pair = pair[second]
    # Sorted stably by name once more, the first entry of each name is its highest pass; sorting these positions
    # brings back the descending order.
    by_name, order = torch.sort(pair, stable=True)
    first = torch.sort(order[is_new(by_name)])[0]
    pair = pair[first]
    return torch.div(pair, count, rounding_mode="floor"), pair % count, -passes[first]


def slice_of(values: Tensor, begin: int, end: int) -> Tensor:
    """The rows from `begin` to `end`; none if `end` is below `begin`, where a slice would count from the end."""
    return values[begin : max(begin, end)]


def is_new(ordered: Tensor) -> Tensor:
    """Whether each value of a sorted vector differs from the one before; True for the first."""
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return new


def root(parent: List[int], top: int) -> int:  # noqa: UP006
    """The representative of a top's cell in a union-find, with path halving."""
    while parent[top] != top:
        parent[top] = parent[parent[top]]
        top = parent[top]
    return top
