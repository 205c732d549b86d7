"""A model's parameters, the memory of a training step, and its MACs, all worked out without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

from yeastexp.errors import UserError
from yeastexp.nets import attributes

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Parameters:
    """The parameters that a layer itself holds; one that several layers share is counted in the first of them."""

    layer: str
    factors: str
    """The number of weights as a product: `3×3×16×32` is height × width × inputs × outputs."""
    weights: int
    biases: int
    affine_weights: int
    """The factors that a norm applies after it has normalized."""
    affine_biases: int

    @property
    def total(self) -> int:
        """The number of all parameters of the layer."""
        return self.weights + self.biases + self.affine_weights + self.affine_biases


@dataclass(frozen=True)
class Memory:
    """The bytes that a training step in float32 holds when its backward pass begins."""

    parameters: int
    gradients: int
    optimizer_state: int
    activations: int
    """Tensors saved for the backward pass, every storage once; the batch of images is among them."""

    @property
    def total(self) -> int:
        """The bytes of all four."""
        return self.parameters + self.gradients + self.optimizer_state + self.activations


def parameters(model: nn.Module) -> Iterator[Parameters]:
    """Yield the parameters of each layer that has some of its own."""
    counted: set[int] = set()
    for name, layer in model.named_modules():
        held = {key: tensor for key, tensor in layer.named_parameters(recurse=False) if id(tensor) not in counted}
        counted |= {id(tensor) for tensor in held.values()}
        biases = sum(tensor.numel() for key, tensor in held.items() if key.endswith("bias"))
        matrices = [tensor for key, tensor in held.items() if not key.endswith("bias")]
        weights = sum(tensor.numel() for tensor in matrices)
        if held and isinstance(layer, NORMS):
            yield Parameters(name, "", 0, 0, weights, biases)
        elif held:
            factors = " + ".join(_factors(layer, tuple(tensor.shape)) for tensor in matrices)
            yield Parameters(name, factors, weights, biases, 0, 0)


def _factors(layer: nn.Module, shape: tuple[int, ...]) -> str:
    """Return a weight's shape as a product, in the order kernel × inputs × outputs where the layer is known."""
    if isinstance(layer, CONVOLUTIONS) and len(shape) > 2:
        shape = (*shape[2:], shape[1], shape[0])
    elif isinstance(layer, TRANSPOSED) and len(shape) > 2:
        shape = (*shape[2:], *shape[:2])
    elif isinstance(layer, nn.Linear):
        shape = shape[::-1]
    return "×".join(map(str, shape))


def stepped(build: Any, model: nn.Module) -> torch.optim.Optimizer | None:
    """Return an optimizer after its first step, when it has all of its state; None without parameters.

    `build` makes it of a list of parameters. The model's own are left alone.
    """
    parameters = [nn.Parameter(torch.zeros_like(tensor, device="cpu")) for tensor in model.parameters()]
    if not parameters:
        return None
    optimizer: torch.optim.Optimizer = build(parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


def _on_meta(model: nn.Module, shape: Sequence[int], training: bool) -> dict[str, Tensor]:
    """Run a model on the meta device, where images have no pixels, and return its state there, by name.

    Raises UserError if the model cannot be run on images of this shape (B, C, H, W).
    """
    state = {
        name: tensor.detach()
        .to("meta")
        .requires_grad_(training and isinstance(tensor, nn.Parameter) and tensor.requires_grad)
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers())
    }
    modes = {layer: layer.training for layer in model.modules()}
    floating = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    image = torch.empty(*shape, device="meta", dtype=next(floating, torch.float32))
    try:
        with attributes.preserved(model), torch.device("meta"), torch.set_grad_enabled(training):
            torch.func.functional_call(model.train(training), state, (image,))
    except Exception as error:
        # Callers have run the model in evaluation mode before, so this fails in training alone, as a norm of a single
        # value does.
        given = "×".join(map(str, shape))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"model {type(model).__name__}: cannot be trained on {given} (B×C×H×W): {reason}") from None
    finally:
        for layer, mode in modes.items():
            layer.training = mode
    return state


def macs(model: nn.Module, image: Sequence[int]) -> tuple[dict[str, int], int]:
    """Return the multiply-accumulate operations for an image (C, H, W), by layer and in total.

    Convolutions and matrix products count; raises UserError if the model cannot be run on such an image.
    """
    with FlopCounterMode(display=False) as counter:
        _on_meta(model, (1, *image), training=False)
    # PyTorch counts a multiplication and an addition as two operations.
    flops = {name: sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}
    prefix = f"{type(model).__name__}."
    by_layer = {name.removeprefix(prefix): count for name, count in flops.items() if name.startswith(prefix)}
    return by_layer, counter.get_total_flops() // 2


def memory(model: nn.Module, images: Sequence[int], optimizer: torch.optim.Optimizer | None) -> Memory:
    """Return the memory of a training step on images (B, C, H, W), with the state of an optimizer that was stepped."""
    # By storage, so that views of one tensor count once.
    saved: dict[StorageWeakRef, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[StorageWeakRef(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        state = _on_meta(model, images, training=True)
    # Autograd saves weights as well, which are counted as parameters.
    weights = {StorageWeakRef(tensor.untyped_storage()) for tensor in state.values()}
    parameters = list(model.parameters())
    optimizer_state = [value for values in optimizer.state.values() for value in values.values()] if optimizer else []
    return Memory(
        parameters=sum(tensor.nbytes for tensor in parameters),
        gradients=sum(tensor.nbytes for tensor in parameters if tensor.requires_grad),
        optimizer_state=sum(value.nbytes for value in optimizer_state if isinstance(value, Tensor)),
        activations=sum(storage.nbytes() for key, storage in saved.items() if key not in weights),
    )
