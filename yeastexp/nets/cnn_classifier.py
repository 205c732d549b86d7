"""A small convolutional classifier of whole images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from yeastexp.errors import UserError
from yeastexp.nets.blocks import convolution
from yeastexp.registry import model

Side = Annotated[int, Field(ge=1, le=63)]
Count = Annotated[int, Field(ge=1, le=16)]
Width = Annotated[int, Field(ge=1, le=4096)]


@model("cnn_classifier")
class CNNClassifier(nn.Module):
    """The exercise sheet's network: convolutions, max-pooling, two fully connected layers; (B, K) for `inspect` alone.

    Every stage of `widths` has `convolutions` zero-padded ("same") convolutions with kernels of `kernels` pixels and
    ReLU, then 2×2 max-pooling that drops an odd last row or column; both options are one number, or one for each
    stage. Two fully connected layers follow, the first with `hidden` units and ReLU. They fix the image's `size`. The
    sheet gives 3 channels, 56×56 pixels and 10 classes; its figure with the numbers of channels and the kernels is
    not available, so the defaults of all options but `size` are an assumption.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        size: Annotated[int, Field(ge=2, le=1024, description="pixels of a side")] = 56,
        widths: Annotated[tuple[Width, ...], Field(min_length=1, description="channels of each stage")] = (16, 32, 64),
        kernels: Annotated[Side | tuple[Side, ...], Field(description="odd")] = 3,
        convolutions: Count | tuple[Count, ...] = 1,
        hidden: Annotated[int, Field(ge=1, le=65536, description="units")] = 128,
    ) -> None:
        super().__init__()
        stages = len(widths)
        sides = _each(stages, kernels, "kernels")
        counts = _each(stages, convolutions, "convolutions")
        if even := [side for side in sides if side % 2 == 0]:
            raise UserError(f"{even[0]} is even; a 'same' kernel is centred on its pixel, use odd ones", key="kernels")
        if not size >> stages:
            raise UserError(f"{stages} stages need images of {2**stages} pixels, not {size}; use fewer", key="widths")
        self.size = size
        self.stages = nn.Sequential(
            *(_stage(*numbers) for numbers in zip([channels, *widths], widths, sides, counts, strict=False))
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * (size >> stages) ** 2, hidden),
            nn.ReLU(True),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if (height, width) != (self.size, self.size):
            raise UserError(
                f"[model] size: cnn_classifier is made for images of {self.size}×{self.size} pixels, not "
                f"{height}×{width}; set size. It gives one output (B, K) an image: `inspect` accepts it, `run` does not"
            )
        logits: Tensor = self.head(self.stages(images))
        return logits


def _stage(inner: int, outer: int, side: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in [inner, *[outer] * (count - 1)]:
        layers += [*convolution(channels, outer, side, "none"), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def _each(stages: int, given: int | tuple[int, ...], key: str) -> tuple[int, ...]:
    """Return a number for each stage; raises UserError if a list has another length."""
    numbers = (given,) * stages if isinstance(given, int) else given
    if len(numbers) != stages:
        raise UserError(f"{list(numbers)} has {len(numbers)} numbers for the {stages} stages of 'widths'", key=key)
    return numbers
