"""A run's network as other programs run it: with the normalisation before it, and the image sizes that it accepts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from yeastexp.contracts import Task
from yeastexp.data.normalization import PerChannel
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.polarity import Polarity
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.errors import UserError, in_one_line
from yeastexp.prediction.tiling import COMMON_MULTIPLE, Tiling
from yeastexp.tasks.semantic import Semantic

LARGEST = 128
"""The largest side in pixels that is tried as the smallest image of a network."""


@runtime_checkable
class NamesOutputs(Protocol):
    """A task that names its outputs; those of other tasks are numbered."""

    def output_names(self, classes: Sequence[str]) -> tuple[str, ...]:
        """A name for each of the O outputs."""
        ...


def output_names(task: Task, classes: Sequence[str]) -> tuple[str, ...]:
    """A name for each output of a task, for programs that know no tasks."""
    if isinstance(task, NamesOutputs):
        return task.output_names(classes)
    if isinstance(task, Semantic):
        return tuple(classes)
    return tuple(f"output_{index}" for index in range(task.outputs))


class FixedScale(nn.Module):
    """(image - offset) / width with constants of the training images, computed in `dtype` as the transform does."""

    offset: Tensor
    width: Tensor

    def __init__(self, offset: PerChannel, width: PerChannel, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        for name, numbers in (("offset", offset), ("width", width)):
            values = torch.as_tensor(numbers, dtype=dtype).flatten().expand(channels).clone()
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return ((images.to(self.offset.dtype) - self.offset) / self.width).float()


class OwnScale(nn.Module):
    """`zscore` with each image's own mean and standard deviation, in float64, over all channels together if `joint`."""

    def __init__(self, joint: bool) -> None:
        super().__init__()
        self.axes = (1, 2, 3) if joint else (2, 3)

    def forward(self, images: Tensor) -> Tensor:
        values = images.double()
        centred = values - values.mean(self.axes, keepdim=True)
        deviation = centred.square().mean(self.axes, keepdim=True).sqrt()
        return (centred / deviation.clamp_min(1e-12)).float()


def acting(transforms: Sequence[BasicTransform2D]) -> list[BasicTransform2D]:
    """The transforms that change images: not `polarity` where the training images agree on no sign."""
    return [each for each in transforms if not (type(each) is Polarity and each.changes_nothing)]


def normalization_of(
    transforms: Sequence[BasicTransform2D], stored: Mapping[str, Any] | None, channels: int
) -> nn.Module | None:
    """The layers that turn recorded values into what the network is given; None if they cannot be traced.

    Not traceable are transforms that move pixels or sort them (`percentile` of each image), and those of plugins.
    """
    # By exact type: a subclass may compute something else.
    layers: list[nn.Module] = []
    if stored:
        layers.append(FixedScale(tuple_of(stored["mean"]), tuple_of(stored["std"]), channels, torch.float32))
    for transform in acting(transforms):
        if type(transform) is ZScore and transform.per == "image":
            layers.append(OwnScale(transform.joint))
        elif type(transform) is ZScore:
            assert transform.mean is not None and transform.std is not None, "fit comes first"
            layers.append(FixedScale(transform.mean, transform.std, channels, torch.float32))
        elif type(transform) is Percentile and transform.at_low is not None and transform.at_high is not None:
            low, high = (torch.as_tensor(ends, dtype=torch.float64) for ends in (transform.at_low, transform.at_high))
            width = (high - low).clamp_min(1e-12).flatten().tolist()
            layers.append(FixedScale(transform.at_low, tuple(width), channels, torch.float64))
        else:
            return None
    return nn.Sequential(*layers)


def tuple_of(numbers: Any) -> PerChannel:
    """Statistics from a file as a tuple with one number for each channel, or as one float for all."""
    return tuple(numbers) if isinstance(numbers, list | tuple) else float(numbers)


class Deployed(nn.Module):
    """From images (B, C, H, W) float32 to outputs (B, O, H, W), normalisation included.

    With `both`, the network's input is returned as well: only outputs have names of their own in an exported graph.
    """

    def __init__(self, normalization: nn.Module, network: nn.Module, both: bool = False) -> None:
        super().__init__()
        self.normalization, self.network, self.both = normalization, network, both

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        normalized = self.normalization(images)
        outputs: Tensor = self.network(normalized)
        return (outputs, normalized) if self.both else outputs


def takes(network: nn.Module, channels: int, height: int, width: int) -> str:
    """The reason why a network takes no image of that size, or gives no outputs of that size; empty if it does."""
    try:
        with torch.no_grad():
            outputs = network(torch.zeros(1, channels, height, width))
    except Exception as error:  # whatever a model's forward raises
        return in_one_line(error)
    if isinstance(outputs, Tensor) and outputs.ndim == 4 and outputs.shape[-2:] == (height, width):
        return ""
    shape = "×".join(map(str, outputs.shape)) if isinstance(outputs, Tensor) else type(outputs).__name__
    return f"gives {shape} for an image of {height}×{width}, no outputs (B, O, H, W) of its size"


def sides(network: nn.Module, channels: int, tiling: Tiling) -> tuple[int, int]:
    """The number that height and width have to be multiples of, and their least value; Raises UserError without any."""
    # Tried on images that are not square, since a network may mix up its axes; from the least demanding multiple on.
    reason = ""
    for multiple in dict.fromkeys((1, tiling.stride, math.lcm(tiling.stride, COMMON_MULTIPLE))):
        large = -(-200 // multiple) * multiple
        reason = takes(network, channels, large + multiple, large)
        if not reason:
            smallest = multiple
            while smallest < LARGEST and takes(network, channels, smallest, smallest):
                smallest *= 2
            return multiple, smallest
    raise UserError(f"the model cannot be exported: it {reason}")


@contextmanager
def naming_layers(network: nn.Module, doing: str) -> Iterator[None]:
    """Turn errors while a network is traced into a UserError that names the layer in which they happened."""
    # A layer is taken off the stack when it returns, not when it raises: the last one left is the innermost at fault.
    entered: list[str] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: entered.append(name)

    with ExitStack() as stack:
        for name, layer in network.named_modules():
            stack.callback(layer.register_forward_pre_hook(enter(name)).remove)
            stack.callback(layer.register_forward_hook(lambda *_: void(entered.pop())).remove)
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # whatever a tracer raises
            layer = f"layer {entered[-1]}" if entered and entered[-1] else "the model"
            raise UserError(f"{layer} cannot be traced for {doing}: {in_one_line(error)[:300]}") from error


def void(value: object) -> None:
    """Return None whatever is given: the return value of a forward hook would replace a layer's output."""
