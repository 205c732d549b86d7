"""What survives a crash.

Of a run the newest checkpoint and the one before are kept, and the best. A new one is whole on disk, under a name of
its own, before the oldest goes, so that two good ones are there at any moment.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yeastexp.errors import UserError
from yeastexp.system import files
from yeastexp.training.finite import masks_of, non_finite

FORMAT = 4
NEXT, LAST, PREVIOUS = "next.pt", "last.pt", "previous.pt"

NO_PLAIN_VALUE = re.compile(r"Unsupported (?:global: GLOBAL|class) (\S+)")
"""How PyTorch says what it refuses, between advice to accept it."""

Leaf = tuple[str, Any]
"""A dotted path into a state, and the tensor or plain value there."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint with its digest: the old file stays until the new one is whole on disk.

    Equal states make equal bytes.
    """
    kept = plain(state)
    buffer = io.BytesIO()  # torch puts the name of a path into the bytes, and hides why it cannot write
    torch.save({**kept, "format": FORMAT, "digest": digest(kept)}, buffer)
    with files.appearing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def save_next(folder: Path, state: dict[str, Any]) -> None:
    """Write a run's newest checkpoint in its folder as `last.pt`; the one that was is `previous.pt` then."""
    save(folder / NEXT, state)
    _rotate(folder)


def _rotate(folder: Path) -> None:
    if (folder / LAST).exists():
        (folder / LAST).replace(folder / PREVIOUS)
    (folder / NEXT).replace(folder / LAST)


def newest(folder: Path, say: Callable[[str], None], model: nn.Module | None = None) -> dict[str, Any] | None:
    """The state of the newest good checkpoint of a folder, as `last.pt` from now on; None if there is none.

    Damaged ones, and those whose weights for a new `model` are NaN or infinite, are named and put aside, so that they
    count no more as one of two.
    """
    for name in (NEXT, LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = load(path)
            if model is not None:
                refuse_non_finite(model, state["model"], path)
        except UserError as error:
            say(f"{error}; the one before is used")
            path.replace(path.with_suffix(".damaged"))
            continue
        if name == NEXT:
            _rotate(folder)
        return state
    return None


def intact(folder: Path) -> dict[str, Any] | None:
    """The state of the newest good checkpoint of a folder, which stays as it is; None if there is none."""
    for name in (NEXT, LAST, PREVIOUS):
        with suppress(UserError):
            return load(folder / name)
    return None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint into memory; nothing but tensors and plain values is accepted, and only what was written."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; the run ended before its first one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that it goes on to refuse
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        expected, version = state.pop("digest"), state.pop("format")
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: {_fault(error)}") from None
    if version != FORMAT:
        raise UserError(f"{path}: has format {version}, of another version of yeastexp; this one reads format {FORMAT}")
    if expected != digest(state):
        raise UserError(f"{path}: damaged (its contents do not match their digest)")
    return state


def _fault(error: Exception) -> str:
    if named := NO_PLAIN_VALUE.search(str(error)):
        return f"holds more than tensors and plain values ({named[1]}); refused, for loading it could run code"
    return "damaged, or no checkpoint of yeastexp"


def digest(state: dict[str, Any]) -> str:
    """The SHA-256 of a state's contents, wherever and however they are stored."""
    sha256 = hashlib.sha256()
    for name, value in leaves(state):
        if isinstance(value, Tensor):
            sha256.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            sha256.update(_bytes(value))
        else:
            sha256.update(f"{name} {value!r}\n".encode())
    return sha256.hexdigest()


def leaves(state: Any, name: str = "") -> Iterator[Leaf]:
    """The tensors and plain values of a state in its order; empty containers count as values."""
    if isinstance(state, dict) and state:
        for key, value in state.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple) and state:
        for index, value in enumerate(state):
            yield from leaves(value, f"{name}.{index}")
    else:
        yield name, state


def first_difference(state: dict[str, Any], other: dict[str, Any]) -> str | None:
    """What differs first between two states, and by how much; nothing where all bits are equal."""
    theirs = dict(leaves(other))
    for name, value in leaves(state):
        if name not in theirs:
            return f"{name} is in one of them alone"
        if difference := _difference(value, theirs.pop(name)):
            return f"{name}{difference}"
    return f"{next(iter(theirs))} is in one of them alone" if theirs else None


def _difference(value: Any, other: Any) -> str | None:
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return None if repr(value) == repr(other) else f": {value!r} and {other!r}"
    if value.shape != other.shape or value.dtype != other.dtype:
        return f": {tuple(value.shape)} {value.dtype} and {tuple(other.shape)} {other.dtype}"
    if _bytes(value) == _bytes(other):
        return None
    apart = (value.double() - other.double()).abs()
    return f": {int((apart != 0).sum())} of {value.numel()} numbers differ, by up to {float(apart.max()):.3g}"


def _bytes(tensor: Tensor) -> bytes:
    numbers = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # which numpy does not know
    return numbers.numpy().tobytes()


def plain(value: Any) -> Any:
    """A state on the CPU in which equal strings are one object: pickle writes an object's second appearance shorter."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(inner) for inner in value)
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return sys.intern(value) if isinstance(value, str) else value


def generators(device: torch.device) -> dict[str, Tensor | None]:
    """The state of the generators that a model draws from (dropout); all other randomness is keyed by the step."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def set_generators(states: dict[str, Tensor | None], device: torch.device) -> None:
    """Let a model draw what it would have drawn next."""
    if (state := states["cpu"]) is not None:
        torch.set_rng_state(state)
    if (state := states["cuda"]) is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state, device)


def load_weights(model: nn.Module, weights: dict[str, Tensor], place: Path) -> None:
    """Give a model the weights of a checkpoint; UserError names the first that does not fit."""
    current = model.state_dict()
    for name in [*current, *weights]:
        shapes = [tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (weights, current)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{place}: '{name}' is {shapes[0]} there and {shapes[1]} in the experiment's model; "
                "it is of another experiment"
            )
    refuse_non_finite(model, weights, place)
    model.load_state_dict(weights)


def refuse_non_finite(model: nn.Module, weights: dict[str, Tensor], place: Path) -> None:
    """UserError if weights for a model are NaN or infinite: it would predict background, or nothing at all."""
    if name := non_finite(weights, masks_of(model.state_dict())):
        raise UserError(
            f"{place}: its weights are NaN or infinite ('{name}'); use another checkpoint, or train again with a lower "
            "[optimizer] learning_rate"
        )


def start_from(model: nn.Module, checkpoint: Path) -> str:
    """Copy what fits of another run's weights into a model; a line says which tensors did."""
    run, weights = checkpoint.parents[1], load(checkpoint)["model"]
    current = model.state_dict()
    fitting = {
        name: tensor for name, tensor in weights.items() if name in current and current[name].shape == tensor.shape
    }
    if not fitting:
        raise UserError(f"{run}: none of its tensors fits this model; [train] init_from needs a similar one")
    refuse_non_finite(model, fitting, checkpoint)
    model.load_state_dict(fitting, strict=False)
    left = sorted(current.keys() - fitting.keys())
    return f"initial weights from {run}: {len(fitting)} of {len(current)} tensors" + (
        f"; not fitted: {', '.join(left)}" if left else ""
    )
