"""Where a run computes, and what it asks of PyTorch for that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from yeastexp.config.experiment import Experiment
from yeastexp.config.settings import Runtime
from yeastexp.errors import UserError


def configure_torch(loaded: Experiment) -> Experiment:
    """The experiment with its number of compute threads written down and in force; it changes the last bits.

    'auto' is one until steps are timed (`timing.assembled`): more can be fifty times slower beside a busy process.
    """
    threads = 1 if loaded.runtime.threads == "auto" else loaded.runtime.threads
    torch.set_num_threads(threads)
    if loaded.runtime.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(loaded.runtime.deterministic, warn_only=True)
    # Measured: filling takes a quarter of the time of a forward pass, and nothing here reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    return replace(loaded, runtime=replace(loaded.runtime, threads=threads))


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Put back afterwards what `configure_torch` changes for the whole process, which goes on in a notebook."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def compute_device(runtime: Runtime) -> torch.device:
    """The device that `[runtime] device` means here; raises UserError if it is asked for and absent."""
    available = torch.cuda.is_available()
    if runtime.device == "cuda" and not available:
        raise UserError("[runtime] device: 'cuda' is asked for, but PyTorch sees no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if available and runtime.device != "cpu" else "cpu")


def to_device(model: nn.Module, runtime: Runtime, device: torch.device) -> nn.Module:
    """The model on a device, its weights laid out there as training wants them."""
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload,no-any-return]  # its stub lacks this
