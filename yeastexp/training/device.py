"""The device of a run, and the global settings of PyTorch that it needs."""

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
    """Set PyTorch's threads and determinism, and return the experiment with the number of threads written down.

    The number is part of the experiment since it changes the last bits of results. 'auto' means one thread until steps
    are timed (`timing.assembled`): more can be fifty times slower beside a busy process.
    """
    threads = 1 if loaded.runtime.threads == "auto" else loaded.runtime.threads
    torch.set_num_threads(threads)
    # cuBLAS is deterministic only with a workspace of fixed size, which it takes from the environment at its start.
    if loaded.runtime.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(loaded.runtime.deterministic, warn_only=True)
    # In deterministic mode PyTorch fills new memory with NaN, which takes a quarter of the time of a forward pass
    # (measured). Nothing here reads memory that it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    return replace(loaded, runtime=replace(loaded.runtime, threads=threads))


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Restore PyTorch's threads and determinism after the block, for a notebook that goes on after a run."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns, memory = torch.is_deterministic_algorithms_warn_only_enabled(), torch.utils.deterministic
    fills = memory.fill_uninitialized_memory  # type: ignore[attr-defined]  # a property of the module
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        memory.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def compute_device(runtime: Runtime) -> torch.device:
    """Return the device that `[runtime] device` means on this machine. Raises UserError for 'cuda' without a GPU."""
    available = torch.cuda.is_available()
    if runtime.device == "cuda" and not available:
        raise UserError("[runtime] device: 'cuda' is asked for, but PyTorch sees no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if available and runtime.device != "cpu" else "cpu")


def to_device(model: nn.Module, runtime: Runtime, device: torch.device) -> nn.Module:
    """Move a model to a device, with its weights in the memory layout of `[runtime] channels_last`."""
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload,no-any-return]  # its stub lacks this
