"""Checkpoint files: written so that a crash at any moment leaves a good one, and checked by a digest when read.

A run keeps its newest checkpoint (`last.pt`), the one before (`previous.pt`) and the best (`best.pt`). A new one is
whole on disk as `next.pt` before the oldest is replaced, so that there are two good ones at any moment.
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
"""Finds the refused class in PyTorch's message, the rest of which advises to allow it."""

Leaf = tuple[str, Any]
"""A dotted path into a state, and the tensor or plain value there."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint with its digest: the old file stays until the new one is whole on disk.

    Equal states give equal files.
    """
    kept = plain(state)
    # Given a path, `torch.save` writes the file's name into the archive, which would make equal states differ, and
    # raises an error of its own that does not say why the file cannot be written.
    buffer = io.BytesIO()
    torch.save({**kept, "format": FORMAT, "digest": digest(kept)}, buffer)
    with files.appearing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def save_next(folder: Path, state: dict[str, Any]) -> None:
    """Write a run's newest checkpoint as `last.pt` of its folder; the former `last.pt` becomes `previous.pt`."""
    save(folder / NEXT, state)
    _rotate(folder)


def _rotate(folder: Path) -> None:
    # After a crash between these two renames there is no last.pt, but a whole next.pt: `newest` looks for that first,
    # and finishes the rotation.
    if (folder / LAST).exists():
        (folder / LAST).replace(folder / PREVIOUS)
    (folder / NEXT).replace(folder / LAST)


def newest(folder: Path, say: Callable[[str], None], model: nn.Module | None = None) -> dict[str, Any] | None:
    """Return the state of the newest good checkpoint of a folder, which becomes `last.pt`; None if there is none.

    Checkpoints that are damaged, or whose weights would make a new `model` NaN or infinite, are reported by `say` and
    renamed: left in place, they would be rotated over the good one that is still there.
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
    """Return the state of the newest good checkpoint of a folder without renaming any file; None if there is none."""
    for name in (NEXT, LAST, PREVIOUS):
        with suppress(UserError):
            return load(folder / name)
    return None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint into main memory. Raises UserError if it is damaged or has more than tensors and plain values.

    `weights_only` refuses pickled objects, whose loading could run code of whoever wrote the file.
    """
    if not path.is_file():
        early = "" if any(path.parent.glob("*.pt")) else "; the run ended before its first one"
        raise UserError(f"{path}: no such checkpoint{early}")
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
    """Return the SHA-256 of a state's values, which does not depend on devices, strides or the file format."""
    sha256 = hashlib.sha256()
    for name, value in leaves(state):
        if isinstance(value, Tensor):
            sha256.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            sha256.update(_bytes(value))
        else:
            sha256.update(f"{name} {value!r}\n".encode())
    return sha256.hexdigest()


def leaves(state: Any, name: str = "") -> Iterator[Leaf]:
    """Iterate over the tensors and plain values of a state in its order; empty containers count as values."""
    if isinstance(state, dict) and state:
        for key, value in state.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple) and state:
        for index, value in enumerate(state):
            yield from leaves(value, f"{name}.{index}")
    else:
        yield name, state


def first_difference(state: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Return a phrase about the first difference between two states; None if they are equal bit by bit."""
    theirs = dict(leaves(other))
    for name, value in leaves(state):
        if name not in theirs:
            return f"{name} is in one of them alone"
        if difference := _difference(value, theirs.pop(name)):
            return f"{name}{difference}"
    return f"{next(iter(theirs))} is in one of them alone" if theirs else None


def _difference(value: Any, other: Any) -> str | None:
    # Neither == would do: NaN differs from itself, and 0.0 equals -0.0 and False. So plain values are compared as they
    # are written, which is exact for floats, and tensors by their bytes.
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return None if repr(value) == repr(other) else f": {value!r} and {other!r}"
    if value.shape != other.shape or value.dtype != other.dtype:
        return f": {tuple(value.shape)} {value.dtype} and {tuple(other.shape)} {other.dtype}"
    if _bytes(value) == _bytes(other):
        return None
    apart = (value.double() - other.double()).abs()
    return f": {int((apart != 0).sum())} of {value.numel()} numbers differ, by up to {float(apart.max()):.3g}"


def _bytes(tensor: Tensor) -> bytes:
    numbers = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # NumPy has no bfloat16
    return numbers.numpy().tobytes()


def plain(value: Any) -> Any:
    """Return a state with its tensors on the CPU and equal strings as one object.

    Pickle writes a string once and refers back to it where the same object appears again. Without interning, the bytes
    of a file would depend on which equal strings happen to be one object.
    """
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(inner) for inner in value)
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return sys.intern(value) if isinstance(value, str) else value


def generators(device: torch.device) -> dict[str, Tensor | None]:
    """Return the states of PyTorch's generators, for dropout; all other randomness is keyed by seed and step."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def set_generators(states: dict[str, Tensor | None], device: torch.device) -> None:
    """Restore what `generators` returned, so that a model draws what it would have drawn next."""
    if (state := states["cpu"]) is not None:
        torch.set_rng_state(state)
    if (state := states["cuda"]) is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state, device)


def load_weights(model: nn.Module, weights: dict[str, Tensor], place: Path) -> None:
    """Load the weights of a checkpoint into a model. Raises UserError with the first name or shape that differs."""
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
    """Raises UserError if weights for a model are NaN or infinite, with which it would predict background or nothing.

    Tensors that have such values in the model as built, such as masks, are exempt.
    """
    if name := non_finite(weights, masks_of(model.state_dict())):
        raise UserError(
            f"{place}: its weights are NaN or infinite ('{name}'); use another checkpoint, or train again with a lower "
            "[optimizer] learning_rate"
        )
