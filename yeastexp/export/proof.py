"""The proof of an export: outputs of the exported network compared with PyTorch's on images of three sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from yeastexp.contracts import Prediction, Task
from yeastexp.errors import RUN_FAILED, UserError, in_one_line
from yeastexp.export.formats import Run
from yeastexp.tasks.semantic import Semantic

LIMIT = 1e-4
"""The largest deviation of an output that is accepted, and the margin between two classes below which labels may
differ."""


@dataclass(frozen=True)
class Row:
    """The result for one image: its size, the largest deviation of an output, and numbers of pixels."""

    height: int
    width: int
    deviation: float
    labels_differ: int
    close: int
    """The number of pixels whose two likeliest classes are closer than `LIMIT`."""
    pixels: int


def sizes(multiple: int, smallest: int) -> list[tuple[int, int]]:
    """Three different sizes (H, W): the smallest, one with few common factors, and a larger one."""
    # A trace may have frozen a size, or a rounding that only the example's size allows: different sizes show it.
    uneven = max(smallest, -(-45 // multiple) * multiple), max(smallest, -(-71 // multiple) * multiple)
    large = max(smallest, -(-131 // multiple) * multiple), max(smallest, -(-190 // multiple) * multiple)
    pairs = [(smallest, smallest), uneven, large]
    return [pair if pair not in pairs[:index] else (pair[0] + index * multiple, pair[1]) for index, pair in
            enumerate(pairs)]  # fmt: skip


def image(channels: int, size: tuple[int, int], low: float, high: float) -> Tensor:
    """An image (1, C, H, W) of discs on noise with values from `low` to `high`, the same every time."""
    source = torch.Generator().manual_seed(0)
    values = 0.2 * torch.rand(channels, *size, generator=source) + 0.2
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    for row, column, radius in (torch.rand(12, 3, generator=source) * torch.tensor([*size, 14.0])).tolist():
        values += 0.3 * ((rows - row) ** 2 + (columns - column) ** 2 < (4 + radius) ** 2)
    return (low + (high - low) * values.clamp(0, 1))[None].round(decimals=3)


def prove(
    deployed: nn.Module, run: Run, task: Task, images: Sequence[Tensor], what: str, cautions: Sequence[str] = ()
) -> list[Row]:
    """Compare an exported network with PyTorch, image by image. Raises UserError if outputs deviate by over `LIMIT`."""
    rows = [_row(deployed, run, task, each, what, cautions) for each in images]
    worst = max(rows, key=lambda row: row.deviation)
    # Negated: a comparison with NaN is false.
    if not worst.deviation <= LIMIT:
        raise UserError(
            f"{what} gives outputs that deviate by {worst.deviation:.2g} from PyTorch's on {worst.height}×"
            f"{worst.width} pixels, more than {LIMIT:g}{_because(cautions)}; nothing was written",
            status=RUN_FAILED,
        )
    return rows


def _row(deployed: nn.Module, run: Run, task: Task, image: Tensor, what: str, cautions: Sequence[str]) -> Row:
    height, width = image.shape[-2:]
    with torch.no_grad():
        wanted = deployed(image)
    try:
        given = run(image)
    except Exception as error:  # whatever a runtime raises
        fault = f"{what} cannot be run on {height}×{width} pixels{_because(cautions)} ({in_one_line(error)[:300]})"
        raise UserError(f"{fault}; nothing was written", status=RUN_FAILED) from error
    if given.shape != wanted.shape:
        shapes = ["×".join(map(str, each.shape)) for each in (given, wanted)]
        fault = f"{what} gives {shapes[0]} where PyTorch gives {shapes[1]}{_because(cautions)}"
        raise UserError(f"{fault}; nothing was written", status=RUN_FAILED)
    deviation = float((given - wanted).abs().nan_to_num(torch.inf).max())
    differ = torch.zeros(height, width, dtype=torch.bool)
    for first, other in pairwise([_maps(task.decode(each[0])) for each in (wanted, given)]):
        for one, two in zip(first, other, strict=True):
            differ |= one != two
    return Row(height, width, deviation, int(differ.sum()), close(task, wanted[0]), height * width)


def close(task: Task, outputs: Tensor) -> int:
    """The number of pixels whose two likeliest classes are closer than `LIMIT`; 0 if the outputs are not classes."""
    if not isinstance(task, Semantic):
        return 0
    first, second = outputs[: task.classes].topk(2, dim=0).values
    return int((first - second < LIMIT).sum())


def _maps(prediction: Prediction) -> list[Tensor]:
    return [prediction.labels, *prediction.maps.values()]


def _because(cautions: Sequence[str]) -> str:
    """A caution of the tracer in brackets, as a likely reason; empty without any."""
    return f" ({cautions[0][:300]})" if cautions else ""
