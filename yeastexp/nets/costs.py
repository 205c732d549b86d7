"""What a model costs: its parameters, the memory of a training step, its multiply-adds; worked out without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain as chained
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

from yeastexp.errors import UserError

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Parameters:
    """The parameters that a layer itself holds, each counted once, where it is first used."""

    layer: str
    factors: str
    """How the weights come about: `3×3×16×32` is height × width × inputs × outputs."""
    weights: int
    biases: int
    norm_scales: int
    norm_shifts: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.biases + self.norm_scales + self.norm_shifts


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step in float32 that are held at once, when its backward pass begins."""

    parameters: int
    gradients: int
    optimizer_state: int
    activations: int
    """Saved for the backward pass, every storage once; the batch of images is among them."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.parameters + self.gradients + self.optimizer_state + self.activations


def parameters(model: nn.Module) -> Iterator[Parameters]:
    """What each layer holds; nothing of one without parameters of its own."""
    counted: set[int] = set()
    for name, layer in model.named_modules():
        own = {key: one for key, one in layer.named_parameters(recurse=False) if id(one) not in counted}
        counted |= {id(one) for one in own.values()}
        biases = sum(one.numel() for key, one in own.items() if "bias" in key)
        rest = {key: one for key, one in own.items() if "bias" not in key}
        weights = sum(one.numel() for one in rest.values())
        if own and isinstance(layer, NORMS):
            yield Parameters(name, "", 0, 0, weights, biases)
        elif own:
            factors = " + ".join(_factors(layer, tuple(one.shape)) for one in rest.values())
            yield Parameters(name, factors, weights, biases, 0, 0)


def _factors(layer: nn.Module, shape: tuple[int, ...]) -> str:
    if isinstance(layer, nn.modules.conv._ConvNd) and len(shape) > 2:
        inner, outer = (shape[0], shape[1]) if layer.transposed else (shape[1], shape[0])
        shape = (*shape[2:], inner, outer)
    elif isinstance(layer, nn.Linear):
        shape = shape[::-1]
    return "×".join(map(str, shape))


def stepped(make: Any, model: nn.Module) -> torch.optim.Optimizer | None:
    """An optimizer after its first step, when it has all of its state; the model's own parameters are left alone."""
    parameters = [nn.Parameter(torch.zeros_like(one, device="cpu")) for one in model.parameters()]
    if not parameters:
        return None
    optimizer: torch.optim.Optimizer = make(parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


def _on_meta(model: nn.Module, shape: Sequence[int], training: bool) -> dict[str, Tensor]:
    """Run a model on images without pixels; gives the state that stood for its own."""
    state = {
        name: one.detach().to("meta").requires_grad_(training and isinstance(one, nn.Parameter) and one.requires_grad)
        for name, one in chained(model.named_parameters(), model.named_buffers())
    }
    modes = {layer: layer.training for layer in model.modules()}
    floating = (one.dtype for one in state.values() if one.is_floating_point())
    image = torch.empty(*shape, device="meta", dtype=next(floating, torch.float32))
    try:
        with torch.device("meta"), torch.set_grad_enabled(training):
            torch.func.functional_call(model.train(training), state, (image,))
    except Exception as error:
        # What a model's forward raises is its own fault; in evaluation it was run before.
        given = "×".join(map(str, shape))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"model {type(model).__name__}: cannot be trained on {given} (B×C×H×W): {reason}") from None
    finally:
        for layer, mode in modes.items():
            layer.training = mode
    return state


def multiply_adds(model: nn.Module, image: Sequence[int]) -> tuple[dict[str, int], int]:
    """Of convolutions and matrix products, by layer and in all; other operators have none."""
    with FlopCounterMode(display=False) as counter:
        _on_meta(model, (1, *image), training=False)
    flops = {name: sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}
    prefix = f"{type(model).__name__}."
    own = {name.removeprefix(prefix): count for name, count in flops.items() if name.startswith(prefix)}
    return own, counter.get_total_flops() // 2


def memory(model: nn.Module, images: Sequence[int], optimizer: torch.optim.Optimizer | None) -> Memory:
    """What a training step on images (B, C, H, W) holds, with the state of an optimizer that has been stepped."""
    saved: dict[StorageWeakRef, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[StorageWeakRef(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        state = _on_meta(model, images, training=True)
    own = {StorageWeakRef(one.untyped_storage()) for one in state.values()}
    every = list(model.parameters())
    held = optimizer.state.values() if optimizer else ()
    states = (one for state_of_one in held for one in state_of_one.values() if isinstance(one, Tensor))
    return Memory(
        parameters=sum(one.nbytes for one in every),
        gradients=sum(one.nbytes for one in every if one.requires_grad),
        optimizer_state=sum(one.nbytes for one in states),
        activations=sum(storage.nbytes() for key, storage in saved.items() if key not in own),
    )
