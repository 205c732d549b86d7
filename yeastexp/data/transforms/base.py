"""The contract of every transform: one draw a sample, applied to the image and to all its label maps alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp.data.pieces import Pieces
from yeastexp.data.pieces import Size as Size
from yeastexp.data.transforms.checked import checked
from yeastexp.sample import Sample


class BasicTransform2D:
    """A transform: any of the hooks below, each optional, in a frozen dataclass whose fields are the options.

    A geometric transform gives `geometry` alone; an intensity transform gives `image`, and `statistics` if it depends
    on the whole image; one that draws objects gives `image` and `labels` from the same `params`; one that changes the
    grid gives `image` (its filter, applied first), `geometry` and `restore`; one that composes images gives `scenes`
    and `scene`.

    A training patch is read as large as later geometry needs, so its hooks are given more or less of the image around
    the same centre: what they place, they place from the centre, and they take no statistics of what they are given.
    """

    normalizes: bool = False
    """Whether the transform brings values to a standard range: left out for data that is stored normalised."""

    whole_images: bool = False
    """Whether it is refused under [[augment]], as is every transform that has `fit` or `statistics`."""

    moves_whole_pixels: bool = False
    """Whether it does nothing else: such augmentations go on where others end, `[train] plain_steps`."""

    margin_px: int = 0
    """How far away, at most, the pixels are that `image` depends on: patches are read so much larger, then cut back. It
    may be a property of the options. Whole images are not enlarged: there `image` meets the real border."""

    def draw(self, generator: np.random.Generator) -> Any:
        """The random variables of one sample, drawn once and handed to all other hooks as `params`."""
        return None

    def statistics(self, image: Iterable[Tensor]) -> Any:
        """What `image` needs to know of the whole image, handed to it as `params`; such a transform draws nothing.

        The image comes in bands of rows (C, h, W), from top to bottom, as often as it is iterated; one that fits in
        memory comes as a single band. With its statistics known, `image` can be applied to any piece of it.
        """
        return None

    def image(self, image: Tensor, params: Any) -> Tensor:
        """New values of an image (C, H, W) float32; its size stays, and the input is left as it was."""
        return image

    def labels(self, labels: Tensor, params: Any) -> Tensor:
        """New labels (H, W) int64, for a transform that draws objects."""
        return labels

    def geometry(self, size: Size, params: Any) -> tuple[np.ndarray | Tensor, Size]:
        """Where output pixels come from: (3, 3) matrix or (2, H, W) coordinates (y, x), and the output's size.

        The matrix takes (y, x, 1) of an output pixel to the input pixel, both counted from the first pixel's centre.
        Coordinates keep the size, and are best made on PyTorch's default device, which is then that of the image.
        """
        return np.eye(3), size

    def shifts(self, size: Size, params: Sequence[Any], device: torch.device) -> tuple[Tensor, np.ndarray] | None:
        """`geometry` of a batch of coordinates on a GPU, which is not waited for; None: `geometry` is asked.

        How far coordinates (B, 2, H, W) lead away from each pixel's own place, and how far (B, 2) they do at most.
        """
        return None

    def batch(self, images: Tensor, params: Sequence[Any]) -> Tensor:
        """`image` for a batch (B, C, H, W), one `params` each."""
        results = (self.image(image, given) for image, given in zip(images, params, strict=True))
        return torch.stack([checked(self, new, image, "image") for new, image in zip(results, images, strict=True)])

    def batch_with_labels(
        self, images: Tensor, planes: Sequence[Tensor], params: Sequence[Any]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """`batch`, and `labels` for several label planes (B, L, H, W), at once."""
        return self.batch(images, params), [
            torch.stack([self._relabelled(sample, given) for sample, given in zip(batch, params, strict=True)])
            for batch in planes
        ]

    def _relabelled(self, planes: Tensor, params: Any) -> Tensor:
        return torch.stack([checked(self, self.labels(plane, params), plane, "labels") for plane in planes])

    def scenes(self, samples: Sequence[Sample], generator: Callable[[int], np.random.Generator]) -> Iterator[Sample]:
        """Further training images, made once of all training images, which have every map of the data set.

        The generator of a number belongs to that scene, or to whatever else needs one.
        """
        return iter(())

    def scene(self, params: Any) -> int | None:
        """The number of the scene that a patch with these `params` is cut from; None: from its own image."""
        return None

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """Values for the transform's own fields, from one pass over the training images, each (C, H, W)."""
        return {}

    def restore(self, logits: Pieces, size: Size) -> Pieces:
        """Logits (K, H', W') of the transformed image brought back to the original size (K, H, W).

        `Pieces.of(function(logits.whole))` will do for images that fit in memory.
        """
        return logits

    def draws(self) -> bool:
        """Whether `draw` takes numbers from its generator."""
        source = np.random.Philox(0)
        self.draw(np.random.Generator(source))
        return repr(source.state) != repr(np.random.Philox(0).state)

    def acts(self) -> bool:
        """Whether it has a hook that can change anything."""
        return any(self.has(hook) for hook in ("image", "batch", "labels", "geometry", "scenes"))

    def has(self, hook: str) -> bool:
        """Whether the transform has a hook of its own."""
        return getattr(type(self), hook) is not getattr(BasicTransform2D, hook)
