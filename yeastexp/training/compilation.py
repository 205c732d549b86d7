"""Compiling a model's forward pass by torch.compile, and falling back to eager mode if that fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]


class Compiled:
    """Calls the compiled code of a model, (B, C, H, W) to logits, on the model's own weights.

    If compiling fails, a warning says why and the model runs in eager mode from then on. An error of the model itself
    is raised again there, with its own traceback.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward: Forward = torch.compile(model, dynamic=False)

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return self.forward(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self.forward is self.model:
                raise
            found: Tensor = self.model(images)
            cause = " ".join(str(error).split("\n")[:2]) or type(error).__name__
            warnings.warn(
                f"[runtime] compile: could not compile the model ({cause}); falling back to eager mode", stacklevel=2
            )
            self.forward = self.model
            return found
