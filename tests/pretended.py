"""A GPU that is pretended: tensors of the CPU that count as tensors of 'cuda', and may not be used as what they are.

Within `Pretended()` PyTorch says that there is a GPU. What is made on it or moved to it is marked, and so is what is
computed from that. These raise `Fault`, as CUDA would, or as it should:

- an operator on tensors of both devices (a number without dimensions may be on the CPU), a generator of the other one;
- NumPy's look at a tensor of the GPU;
- a tensor that another stream wrote and that nothing waited for, and memory that was used there without
  `record_stream` when it is freed;
- pinned memory that changes before its copy has ended: no earlier than the program waits for the GPU.

`launches` counts kernels, without views and allocations; `waits` lists what the program waits for: values that are read
back, shapes that depend on values, and copies between devices unless they are from pinned memory and `non_blocking`.
Inside `no_waits()` such a wait is a fault.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

aten = torch.ops.aten
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
GROUPED = torch._C._group_tensors_by_device_and_dtype

READS = {
    aten._local_scalar_dense,
    aten.equal,
    aten.is_nonzero,
    aten.nonzero,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.histc,
    aten.repeat_interleave,
}
"""Operators that have to know values before the program can go on."""

MASKED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""Those that have to if they are given a mask."""

ALLOCATIONS = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten.resize_}

METHODS = ("to", "cuda", "cpu", "pin_memory", "is_pinned", "numpy", "tolist", "new_tensor")
"""Those of tensors that have to do with devices."""


class Fault(AssertionError):
    """What would fail on a GPU, give wrong values there or keep it waiting."""


class Stream:
    """A stream: how much was launched on it, and how far it has waited for others."""

    def __init__(self, *_: Any) -> None:
        self.launched = 0
        self.waited: dict[Stream, int] = {}

    def wait_stream(self, other: Stream) -> None:
        """What comes after this comes after all that the other has been given."""
        for stream, launched in {**other.waited, other: other.launched}.items():
            self.waited[stream] = max(launched, self.waited.get(stream, 0))

    def saw(self, stream: Stream, launched: int) -> bool:
        """Whether it comes after some work."""
        return stream is self or self.waited.get(stream, 0) >= launched


class _Memory:
    """A piece of the GPU's memory: where it is from, what wrote it last, and who else uses it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = self.writer = stream
        self.written = 0
        self.used: dict[Stream, int] = {}
        self.recorded: set[Stream] = set()


class Pretended(TorchFunctionMode):
    """The GPU, as long as it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.operators: list[str] = []
        self.waits: list[str] = []
        self.faults: list[str] = []
        self.stream = self.main = Stream()
        self.memories: weakref.WeakKeyDictionary[Any, _Memory] = weakref.WeakKeyDictionary()
        self.pinned: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        self.copying: list[tuple[Tensor, Tensor]] = []
        self.forbidden = False
        self.open = contextlib.ExitStack()

    def __enter__(self) -> Pretended:
        for name, value in {
            "is_available": lambda: True,
            "current_stream": lambda device=None: self.stream,
            "stream": self._on,
            "Stream": Stream,
            "synchronize": lambda device=None: self._wait("synchronize"),
            "current_device": lambda: 0,
            "device_count": lambda: 1,
            "get_device_name": lambda device=None: "a pretended GPU",
            "get_rng_state": lambda device=None: torch.get_rng_state(),
            "set_rng_state": lambda state, device=None: None,
            "mem_get_info": lambda device=None: (2**34, 2**34),
        }.items():
            self.open.enter_context(mock.patch.object(torch.cuda, name, value))
        recorded = mock.patch.object(Tensor, "record_stream", lambda tensor, stream: self._recorded(tensor, stream))
        self.open.enter_context(recorded)  # whose own wants a stream of PyTorch's
        self.open.enter_context(mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", self._grouped))
        self.open.enter_context(mock.patch.object(torch, "Generator", _Generator))
        self.open.enter_context(_Operators(self))
        entered: Pretended = super().__enter__()
        return entered

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        self.open.close()
        if kind is None:
            self._arrived()
            if self.faults:
                raise Fault("; ".join(self.faults))

    @contextlib.contextmanager
    def _on(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextlib.contextmanager
    def no_waits(self) -> Iterator[None]:
        """Where a wait is a fault."""
        before, self.forbidden = self.forbidden, True
        try:
            yield
        finally:
            self.forbidden = before

    # Marks

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor counts as one of the GPU."""
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage() in self.memories

    def _mark(self, tensor: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        if storage not in self.memories:
            self.memories[storage] = memory = _Memory(self.stream)
            weakref.finalize(storage, self._freed, memory)
        return tensor

    def _freed(self, memory: _Memory) -> None:
        for stream, launched in memory.used.items():
            if stream not in memory.recorded and not memory.stream.saw(stream, launched):
                self.faults.append("memory was freed that another stream was given, without 'record_stream'")

    def _use(self, tensor: Tensor, operator: str, *, written: bool) -> None:
        with torch._C.DisableTorchFunction():
            memory = self.memories[tensor.untyped_storage()]
        if not self.stream.saw(memory.writer, memory.written):
            raise Fault(f"{operator}: a tensor of another stream that this one did not wait for")
        if self.stream is not memory.stream:
            memory.used[self.stream] = self.stream.launched
        if written:
            memory.writer, memory.written = self.stream, self.stream.launched

    # What the program waits for

    def _wait(self, what: str) -> None:
        if self.forbidden:
            raise Fault(f"{what}: the program waits for the GPU")
        self.waits.append(what)
        self._arrived()

    def _arrived(self) -> None:
        copying, self.copying = self.copying, []
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            for host, sent in copying:
                if host.numpy().tobytes() != sent.numpy().tobytes():
                    raise Fault("pinned memory was changed before its copy had ended")

    def _launch(self, operator: str) -> None:
        self.stream.launched += 1
        self.launches += 1
        self.operators.append(operator)

    # Python's side: devices by name

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        owner = getattr(getattr(func, "__self__", None), "__name__", "")
        if name == "__get__" and owner in ("device", "is_cuda"):
            there = self.has(args[0])
            return there if owner == "is_cuda" else (GPU if there else CPU)
        if name in METHODS and isinstance(args[0], Tensor):
            return getattr(self, f"_{name}")(func, *args, **kwargs)
        if name == "__array__" and self.has(args[0]):
            raise Fault("NumPy cannot look at a tensor of the GPU")
        pinned, device = kwargs.pop("pin_memory", False), kwargs.pop("device", None)
        there = device is not None and torch.device(device).type == "cuda"
        if device is not None and not there:
            kwargs["device"] = device
        if there and isinstance(kwargs.get("generator"), torch._C.Generator):
            self._match(kwargs["generator"], there, name)
        result = func(*args, **kwargs)
        if pinned:
            self.pinned[result.untyped_storage()] = True
        if there:
            self._mark(result)
            if name in ("tensor", "as_tensor"):
                self._wait(f"{name}: a copy to the GPU")
            elif not name.startswith("empty"):
                self._launch(name)
                self._use(result, name, written=True)
        return result

    def _match(self, generator: Any, there: bool, name: str) -> None:
        if getattr(generator, "pretended", CPU).type != ("cuda" if there else "cpu"):
            raise Fault(f"{name}: a generator of the other device")

    def _to(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        target, rest = kwargs.pop("device", None), []
        for given in args:
            if isinstance(given, torch.device | str | int) and not isinstance(given, bool):
                target = given
            elif isinstance(given, Tensor):
                target = GPU if self.has(given) else CPU
                rest.append(given.dtype)
            else:
                rest.append(given)
        flags = [given for given in rest if isinstance(given, bool)]
        kwargs["non_blocking"] = non_blocking = kwargs.get("non_blocking", bool(flags and flags[0]))
        kwargs["copy"] = kwargs.get("copy", len(flags) > 1 and flags[1])
        dtypes = [given for given in rest if isinstance(given, torch.dtype)]
        there, wanted = self.has(tensor), None if target is None else torch.device(target).type == "cuda"
        if wanted is not None and wanted != there:
            tensor = self._moved(tensor, wanted, non_blocking)
        moved: Tensor = func(tensor, *dtypes, **kwargs)
        return moved

    def _moved(self, tensor: Tensor, to_gpu: bool, non_blocking: bool) -> Tensor:
        with torch.utils._python_dispatch._disable_current_modes():
            copied = tensor.detach().clone() if not tensor.requires_grad else tensor.clone()
            storage = tensor.untyped_storage()
        if to_gpu:
            self._mark(copied)
            self._launch("copy to the GPU")
            self._use(copied, "copy", written=True)
            if non_blocking and storage in self.pinned:
                with torch.utils._python_dispatch._disable_current_modes():
                    self.copying.append((tensor.detach(), tensor.detach().clone()))
            else:
                self._wait("copy to the GPU" if not non_blocking else "copy to the GPU of memory that is not pinned")
        else:
            self._use(tensor, "copy", written=False)
            self._launch("copy to the CPU")
            self._wait("copy to the CPU")
        return copied

    def _cuda(self, func: Any, tensor: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
        return self._to(Tensor.to, tensor, GPU, non_blocking=non_blocking)

    def _cpu(self, func: Any, tensor: Tensor) -> Tensor:
        return self._to(Tensor.to, tensor, CPU)

    def _pin_memory(self, func: Any, tensor: Tensor, device: Any = None) -> Tensor:
        if self.has(tensor):
            raise Fault("pin_memory: a tensor of the GPU")
        copied = tensor.clone()
        self.pinned[copied.untyped_storage()] = True
        return copied

    def _is_pinned(self, func: Any, tensor: Tensor, device: Any = None) -> bool:
        return tensor.untyped_storage() in self.pinned

    def _numpy(self, func: Any, tensor: Tensor, **kwargs: Any) -> Any:
        if self.has(tensor):
            raise Fault("NumPy cannot look at a tensor of the GPU")
        return func(tensor, **kwargs)

    def _tolist(self, func: Any, tensor: Tensor) -> Any:
        if self.has(tensor):
            self._wait("tolist")
        return func(tensor)

    def _new_tensor(self, func: Any, tensor: Tensor, data: Any, **kwargs: Any) -> Tensor:
        device = kwargs.pop("device", GPU if self.has(tensor) else CPU)
        made: Tensor = func(tensor, data, **kwargs)
        if torch.device(device).type == "cuda":
            self._mark(made)
            self._wait("new_tensor: a copy to the GPU")
        return made

    def _grouped(
        self, lists: Any, with_indices: bool = False, *, group: Any = torch._C._group_tensors_by_device_and_dtype
    ) -> Any:
        """Tensors of optimizers by their device, which PyTorch looks up in C++."""
        groups = group(lists, with_indices).items()
        first = [next(tensor for tensor in each[0][0] if tensor is not None) for _, each in groups]
        return {
            (GPU if self.has(tensor) else device, dtype): each
            for ((device, dtype), each), tensor in zip(groups, first, strict=True)
        }

    def _recorded(self, tensor: Tensor, stream: Stream) -> None:
        with torch._C.DisableTorchFunction():
            self.memories[tensor.untyped_storage()].recorded.add(stream)


class _Generator(torch._C.Generator):
    """A generator that remembers the device it was made for."""

    def __new__(cls, device: Any = "cpu") -> Any:
        made = super().__new__(cls)
        made.pretended = torch.device(device)
        return made


class _Operators(TorchDispatchMode):
    """PyTorch's side: every operator, forward and back."""

    def __init__(self, gpu: Pretended) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = kwargs or {}, self.gpu
        given = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor | torch._C.Generator)]
        tensors = [part for part in given if isinstance(part, Tensor)]
        there = [tensor for tensor in tensors if gpu.has(tensor)]
        name, packet = str(func), func.overloadpacket
        if not there:
            return func(*args, **kwargs)
        for generator in given:
            if not isinstance(generator, Tensor):
                gpu._match(generator, True, name)
        strangers = [tensor for tensor in tensors if tensor.ndim and not gpu.has(tensor)]
        if packet is aten.copy_ and len(tensors) == 2 and not (gpu.has(tensors[0]) and gpu.has(tensors[1])):
            gpu._wait("copy_ between devices")
        elif strangers:
            raise Fault(f"{name}: tensors of 'cuda' and of 'cpu' {[tuple(one.shape) for one in strangers]}")
        elif packet in READS or (packet in MASKED and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])):
            gpu._wait(name)
        changes = [argument.alias_info for argument in func._schema.returns]
        view = bool(changes) and all(alias is not None and not alias.is_write for alias in changes)
        launched = not view and packet not in ALLOCATIONS
        if launched:
            gpu._launch(name)
        if not view:
            for tensor in there:
                gpu._use(tensor, name, written=False)
        result = func(*args, **kwargs)
        for made in tree_flatten(result)[0]:
            if isinstance(made, Tensor) and packet is not aten.copy_:
                gpu._mark(made)
                if launched:
                    gpu._use(made, name, written=True)
        return result
