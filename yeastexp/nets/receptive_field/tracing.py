"""A model run on an image without pixels, the extent of every tensor worked out operator by operator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from yeastexp.errors import UserError
from yeastexp.nets import attributes
from yeastexp.nets.operators import call_operator
from yeastexp.nets.receptive_field.extent import Extent, Unsupported, union
from yeastexp.nets.receptive_field.rules import (
    LAYER_RULES,
    RULES,
    UNIFORM,
    Call,
    LayerRule,
    Result,
    Variation,
    listed,
    pointwise,
    reduction,
    variation,
    written,
    written_variation,
)

Shape = tuple[int, ...]
Extents = tuple[Extent | None, Extent | None]
"""The extents of one tensor along height and along width; None if it does not depend on the image."""

MAX_TOTAL = 1 << 26
"""The most values in the tables of all extents of a run: 512 MB."""

CONSTANT: Extents = (None, None)
"""The extents of a tensor that does not depend on the image."""

CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


@dataclass(frozen=True)
class LayerCall:
    """A call of a layer, or of an operator outside of layers: the shape (B, C, H, W) of its output, and its extents."""

    name: str
    """The path of the layer, as in `down.0.1`; of an operator that of the layer around it, which may be empty."""
    kind: str
    shape: Shape
    extents: Extents
    kernel: tuple[int, ...] = ()
    """The kernel (height, width) of a pooling or convolution outside of layers; empty for other calls."""

    @property
    def label(self) -> str:
        """The layer's path and class, as messages name it."""
        return f"{self.name} ({self.kind})" if self.name else self.kind

    @property
    def unknown(self) -> str:
        """The first operator on the way that has no rule, or an empty string."""
        return next((extent.unknown for extent in self.extents if extent and extent.unknown), "")

    @property
    def is_map(self) -> bool:
        """Whether the output is laid out like an image, (B, C, H, W), and no layer made it depend on all of it."""
        height, width = self.extents
        if len(self.shape) != 4 or not height or not width or height.global_layer or width.global_layer:
            return False
        return height.sizes[2] > 1 and width.sizes[3] > 1


@dataclass(frozen=True)
class Trace:
    """A model's run on an image of `size` pixels, as far as it came."""

    size: tuple[int, int]
    calls: tuple[LayerCall, ...]
    extents: tuple[tuple[Extent, Shape], ...]
    """The extents of all tensors on the way that depend on the image, each with the tensor's shape."""
    last_map: LayerCall | None
    """The last output that is laid out like an image, before a layer made it depend on the whole of it."""
    output: LayerCall | None
    failure: UserError | None
    """Why the run ended early; None if it did not."""
    refused: bool
    """Whether forward raised anything but a UserError, as a model does at a size that it does not take."""
    # Two runs that differ in these two depend on the image's size although their extents look alike: a model that
    # multiplies by H, or crops to 600 rows, which only larger images have.
    numbers: tuple[tuple[str, tuple[Any, ...]], ...]
    """For each pointwise operator, and each that makes a constant: its layer, its name and the numbers it was given."""
    beyond: frozenset[tuple[str, int, int]]
    """For each slice that begins or ends beyond its tensor: the layer, the index, and the length of the dimension."""
    replay: Callable[[tuple[int, int]], Trace]
    """Runs the recorded operators on an image of another size (H, W), which the model itself may refuse."""


@dataclass(frozen=True)
class _Operator:
    """An operator as PyTorch dispatches it; the only code that reads its schema, which has no public interface."""

    overload: Any

    @property
    def name(self) -> str:
        """The name as in `aten::add`, which the in-place operator `add_` shares."""
        # Only a mutable schema has the in-place suffix: `__and__` and its like end in underscores of their own.
        schema = self.overload._schema
        name: str = schema.name
        return name.removesuffix("_") if schema.is_mutable else name

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return all arguments of a call by name, defaults filled in, in the order of the schema."""
        schema = self.overload._schema.arguments
        names = [argument.name for argument in schema]
        defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
        given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        return {name: given[name] for name in names}

    def written(self, arguments: Mapping[str, Any]) -> set[int]:
        """Return the ids of the tensors that a call writes to."""
        schema = self.overload._schema.arguments
        return {
            id(arguments[argument.name])
            for argument in schema
            if argument.alias_info is not None and argument.alias_info.is_write
        }

    @property
    def is_pointwise(self) -> bool:
        """Whether the rule is `pointwise`: as registered or, for operators without a rule, by PyTorch's tag."""
        return RULES.get(self.name, pointwise if torch.Tag.pointwise in self.overload.tags else None) is pointwise

    def extents(self, call: Call) -> list[Extent | None]:
        """Return the extent of each output of a call, by the operator's rule; raises Unsupported if it has none."""
        rule = pointwise if self.is_pointwise else RULES.get(self.name)
        if rule is None and torch.Tag.reduction in self.overload.tags:
            rule = reduction
        if rule is None:
            raise Unsupported("it has no rule")
        result: Result = rule(call)
        return [result] * len(call.shapes) if isinstance(result, Extent) or result is None else list(result)


@dataclass
class _Tracked:
    """A tensor of the run with its extents; of a view also the tensor that it is a view of, and how it was made."""

    tensor: Tensor
    extents: Extents
    parent: _Tracked | None = None
    again: Callable[[], Extents] | None = None
    """Works out a view's extents anew from those of its parent."""
    operator: _Operator | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    variation: Variation | None = None
    """The dimensions along which a constant may vary; None stands for all."""
    origin: tuple[str, Mapping[str, Any]] | None = None
    """The name and the arguments of the operator that made the tensor."""
    views: list[_Tracked] = field(default_factory=list)


@dataclass(frozen=True)
class _OperatorRecord:
    """The call of an operator, to be replayed at another size."""

    layers: tuple[tuple[str, str], ...]
    opaque: bool
    overload: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]

    def replay(self, tracer: _Tracer, tensors: dict[int, Tensor]) -> None:
        """Make the call on the tensors that stand for the recorded ones, by their ids, and add its outputs to them."""
        tracer.opaque = self.opaque
        output = self.overload(*_substituted(self.args, tensors), **_substituted(self.kwargs, tensors))
        tensors.update(zip(map(id, self.outputs), _tensors(output), strict=False))


@dataclass(frozen=True)
class _LayerRuleRecord:
    """The end of the forward of a layer whose class has a rule, to be replayed at another size."""

    layers: tuple[tuple[str, str], ...]
    layer: nn.Module
    inputs: tuple[Any, ...]
    output: Tensor

    def replay(self, tracer: _Tracer, tensors: dict[int, Tensor]) -> None:
        """Apply the rule to the tensors that stand for the recorded ones."""
        tracer.apply_layer_rule(self.layer, _substituted(self.inputs, tensors), tensors[id(self.output)])


@dataclass(frozen=True)
class _LayerCallRecord:
    """A call that was added to the trace, to be added again at another size."""

    layers: tuple[tuple[str, str], ...]
    kind: str
    output: Tensor
    kernel: tuple[int, ...]

    def replay(self, tracer: _Tracer, tensors: dict[int, Tensor]) -> None:
        """Add the call, with the tensor that stands for the recorded one."""
        tracer.add_call(self.kind, tensors[id(self.output)], self.kernel)


class _Tracer(TorchDispatchMode):
    """Works out the extents of every tensor that an operator makes while this mode is entered."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = (image.shape[2], image.shape[3])
        self.layers: list[tuple[str, str]] = [("", "model")]
        self.leaf: int | None = None
        """Depth in `layers` of the layer being run whose operators make up one call; None outside of such layers."""
        self.opaque = False
        """Whether the operators inside the leaf are skipped, because a layer rule covers them."""
        self.calls: list[LayerCall] = []
        self.record: list[_OperatorRecord | _LayerRuleRecord | _LayerCallRecord] = []
        self.recording = True
        """Whether calls of operators outside of layers are listed; replays take them from the record instead."""
        self.tables: dict[int, int] = {}
        """Values in the tables of all extents, by the tables' ids: extents of several tensors share tables."""
        self.numbers: list[tuple[str, tuple[Any, ...]]] = []
        self.beyond: set[tuple[str, int, int]] = set()
        self.bug: Exception | None = None
        """An exception of a rule or of this class, to be told from those of the model, which are reported in a line."""
        self.channel_error = ""
        """The fault in the input of the layer being run, which PyTorch's own message states less clearly."""
        self.last_map: LayerCall | None = None
        # Keys are ids, for tensors compare elementwise and hash by identity. Each tensor is kept alive beside its
        # extents, so that Python cannot give its id to a later one.
        self.tracked: dict[int, _Tracked] = {}
        self.track(image, (Extent.of_pixels(self.size[0], 2), Extent.of_pixels(self.size[1], 3)))

    @property
    def label(self) -> str:
        """The layer being run."""
        name, kind = self.layers[-1]
        return f"{name} ({kind})" if name else kind

    def track(self, tensor: Tensor, extents: Extents) -> _Tracked:
        """Set the extents of a tensor, and forget what was known of it before."""
        self.tracked[id(tensor)] = tracked = _Tracked(tensor, extents)
        return tracked

    def extents(self, tensor: Tensor) -> Extents:
        """Return the extents of a tensor; CONSTANT for one that was made outside of the run, such as a weight."""
        tracked = self.tracked.get(id(tensor))
        return tracked.extents if tracked else CONSTANT

    def varies_of(self, tensor: Tensor) -> Variation:
        """Return along which dimensions a constant may vary; all of size > 1 if nothing is known of it."""
        tracked = self.tracked.get(id(tensor))
        return (tracked and tracked.variation) or tuple(length > 1 for length in tensor.shape)

    def call(self, operator: _Operator, arguments: Mapping[str, Any], shapes: tuple[Shape, ...], axis: int) -> Call:
        """Return an operator's call along one axis (0: height, 1: width), as its rule is given it."""

        def extent_of(tensor: Tensor) -> Extent | None:
            return self.extents(tensor)[axis]

        def origin_of(tensor: Tensor) -> tuple[str, Mapping[str, Any]] | None:
            tracked = self.tracked.get(id(tensor))
            return tracked.origin if tracked else None

        return Call(operator.name, self.label, arguments, shapes, self.size[axis], extent_of, self.varies_of, origin_of)

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Composite operators like `conv2d` are decomposed by autograd's dispatch keys, before they come here. A model
        # with `torch.inference_mode` inside skips those keys, so they are decomposed here, unless a rule covers the
        # whole; `with self`, because PyTorch turns the mode off inside of this method.
        if _Operator(overload).name not in RULES:
            with self:
                composed = overload.decompose(*args, **kwargs)
            if composed is not NotImplemented:
                return composed
        given = args
        if torch.Tag.inplace_view in overload.tags:
            # `x.squeeze_(0)` changes the shape of x itself, but its rule needs the shape from before, and earlier views
            # of x need a parent of that shape. So an alias takes over all that was known of x, and x is tracked below
            # as a new view of the alias.
            given = (torch.ops.aten.alias(args[0]), *args[1:])
            self.tracked[id(given[0])] = was = self.tracked.get(id(args[0])) or self.track(args[0], CONSTANT)
            was.tensor = given[0]
        output = call_operator(overload, args, kwargs)
        outputs = _tensors(output)
        self.record.append(_OperatorRecord(tuple(self.layers), self.opaque, overload, args, kwargs, outputs))
        try:
            if not self.opaque:
                self.apply_rule(_Operator(overload), given, kwargs, outputs)
        except Exception as error:
            self.bug = error
            raise
        return output

    def apply_rule(self, operator: _Operator, args: Any, kwargs: Any, outputs: tuple[Tensor, ...]) -> None:
        """Set the extents of an operator's outputs, and of the tensors that it wrote to."""
        arguments = operator.bind(args, kwargs)
        if operator.is_pointwise or operator.name.removeprefix("aten::") in UNIFORM:
            numbers = (value for value in arguments.values() if isinstance(value, int | float))
            self.numbers.append((self.label, (operator.name, *numbers)))
        shapes = tuple(tuple(output.shape) for output in outputs)
        extents = self.output_extents(operator, arguments, shapes)
        written_to = operator.written(arguments)
        variations: Sequence[Variation | None] = [None] * len(outputs)
        if outputs and extents[0] == CONSTANT:
            call = self.call(operator, arguments, shapes, 0)
            variations = variation(call, operator.is_pointwise, operator.overload.is_view)
        for index, output in enumerate(outputs):
            # An in-place operator returns its argument, whose views and parent have to follow, so it is not tracked
            # anew.
            if id(output) in written_to:
                self.write(
                    self.tracked.get(id(output)) or self.track(output, CONSTANT), extents[index], variations[index]
                )
                continue
            tracked = self.track(output, extents[index])
            tracked.variation, tracked.origin = variations[index], (operator.name, arguments)
            if operator.overload.is_view or torch.Tag.inplace_view in operator.overload.tags:
                self.link_view(tracked, operator, arguments, shapes, index)
        if outputs and extents[0] != CONSTANT:
            self.observe(operator, arguments, outputs[0])

    def output_extents(
        self, operator: _Operator, arguments: dict[str, Any], shapes: tuple[Shape, ...]
    ) -> list[Extents]:
        """Return the extents of each output of an operator's call: by its rule, or as a bound if it has none."""
        along = []
        for axis in range(2):
            call = self.call(operator, arguments, shapes, axis)
            try:
                along.append(operator.extents(call) if call.extents else [None] * len(shapes))
                self.count(along[-1])
            except Unsupported as error:
                # A slice, because `count` may refuse the extents after they were appended.
                along[axis:] = [self.bounds(operator, error, call.extents, shapes)]
        # A tensor that depends on no row depends on no pixel, and so on no column either. But if padding was all that
        # it read, it is no constant: a larger image may have pixels there.
        return [pair if _may_depend(pair) else CONSTANT for pair in zip(*along, strict=True)]

    def count(self, extents: Sequence[Extent | None]) -> None:
        """Add new extents to the memory in use; raises Unsupported if all of them together take too much."""
        self.tables.update((id(extent.table), extent.table.size) for extent in extents if extent)
        if sum(self.tables.values()) > MAX_TOTAL:
            raise Unsupported("what its outputs depend on takes too much memory")

    def bounds(
        self, operator: _Operator, reason: Unsupported, extents: Sequence[Extent], shapes: Sequence[Shape]
    ) -> list[Extent | None]:
        """Return extents for the outputs of an operator that no rule covers: each depends on all that any input did."""
        unknown = (
            f"layer {self.label}: operator {operator.name} is not supported: {reason}; "
            "register a rule with yeastexp.nets.receptive_field.rule or layer_rule"
        )
        inputs = union([extent.collapsed(0) for extent in extents], 0)
        marked = replace(inputs, global_layer=inputs.global_layer or self.label, unknown=inputs.unknown or unknown)
        return [marked.collapsed(len(shape)) for shape in shapes]

    # Views share memory: after `x[:, :, ::2] += y`, which is a view of x and a write to it, x depends on y in every
    # second row. So each view knows its parent and how it was made. A write changes the view, then, upwards, each
    # parent in the places that the view covers, and from each of those, downwards, all of its other views.

    def link_view(
        self, view: _Tracked, operator: _Operator, arguments: dict[str, Any], shapes: tuple[Shape, ...], index: int
    ) -> None:
        """Connect a view with the tensor that it is a view of."""
        source = next(iter(arguments.values()))
        view.parent = self.tracked.get(id(source)) or self.track(source, CONSTANT)
        view.operator, view.arguments = operator, arguments
        view.again = lambda: self.output_extents(operator, arguments, shapes)[index]
        view.parent.views.append(view)

    def write(self, target: _Tracked, extents: Extents, variation: Variation | None) -> None:
        """Set the extents of a tensor that was written to, and update all tensors that share its memory."""
        target.extents, target.variation = extents, variation
        self.refresh_views(target)
        while (parent := target.parent) is not None:
            self.write_to_parent(target, parent)
            self.refresh_views(parent, but=target)
            target = parent

    def write_to_parent(self, view: _Tracked, parent: _Tracked) -> None:
        """Update the extents of a tensor after its view was written to."""
        assert view.operator is not None
        operator, shapes = view.operator, (tuple(view.tensor.shape),)
        pair: list[Extent | None] = []
        for axis in range(2):
            call = self.call(operator, view.arguments, shapes, axis)
            try:
                pair.append(written(call, parent.tensor, view.tensor))
            except Unsupported as error:
                inputs = [extent for tensor in (parent, view) if (extent := tensor.extents[axis])]
                bounds = self.bounds(operator, error, inputs, [tuple(parent.tensor.shape)]) if inputs else [None]
                pair.append(bounds[0])
        parent.variation = written_variation(call, parent.tensor, view.tensor)
        parent.extents = pair[0], pair[1]

    def refresh_views(self, tracked: _Tracked, but: _Tracked | None = None) -> None:
        """Work out the extents of a tensor's views anew, and of their views, except `but`."""
        for view in tracked.views:
            if view is not but:
                assert view.again is not None
                # A variation from before the write no longer holds; None says that the view may vary everywhere.
                view.extents, view.variation = view.again(), None
                self.refresh_views(view)

    def observe(self, operator: _Operator, arguments: dict[str, Any], output: Tensor) -> None:
        """Keep the last map; list a call of an operator outside of layers if it changes the shape or the extents."""
        extents = self.extents(output)
        last = LayerCall(*self.layers[-1], tuple(output.shape), extents)
        if last.is_map:
            self.last_map = last
        source = next((value for value in arguments.values() if isinstance(value, Tensor)), None)
        same = source is not None and source.shape == output.shape and _alike(self.extents(source), extents)
        if self.recording and self.leaf is None and not operator.overload.is_view and not same:
            kind = operator.name.partition("::")[2].removesuffix("_with_indices").strip("_")
            self.add_call(kind, output, _kernel(arguments, output.ndim - 2))

    def add_call(self, kind: str, output: Tensor, kernel: tuple[int, ...] = ()) -> None:
        """Add a call in the layer being run to the trace, and to the record for replays."""
        self.calls.append(LayerCall(self.layers[-1][0], kind, tuple(output.shape), self.extents(output), kernel))
        self.record.append(_LayerCallRecord(tuple(self.layers), kind, output, kernel))

    def enter(self, name: str, layer: nn.Module, inputs: tuple[Any, ...] = ()) -> None:
        """Begin a layer; called before its forward."""
        self.layers.append((name, type(layer).__name__))
        self.channel_error = _channel_error(layer, inputs)
        # A layer with a rule is a leaf whatever is inside, and layers inside of a leaf are no calls of their own.
        if self.leaf is None and (_layer_rule(layer) or not any(layer.children())):
            self.leaf = len(self.layers)
            self.opaque = _layer_rule(layer) is not None

    def leave(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """End a layer; called after its forward. It becomes one call, unless layers inside of it have theirs."""
        if self.leaf == len(self.layers):
            self.leaf = None
            if self.opaque:
                self.opaque = False
                self.apply_layer_rule(layer, inputs, output)
            if isinstance(output, Tensor) and self.extents(output) != CONSTANT:
                self.add_call(self.layers[-1][1], output)
        self.layers.pop()

    def apply_layer_rule(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Set the extents of the output of a layer whose class has a rule; raises UserError if they do not fit it."""
        given = [self.extents(value) for value in inputs if isinstance(value, Tensor)]
        given = [(height, width) for height, width in given if height and width]
        rule = _layer_rule(layer)
        if not isinstance(output, Tensor) or len(given) != 1 or rule is None:
            raise UserError(
                f"layer {self.label}: a layer_rule is for one input tensor that depends on the image, and one output"
            )
        height, width = (rule(layer, extent) for extent in given[0] if extent)
        for extent in (height, width):
            lengths = zip(extent.sizes, output.shape, strict=False)
            if len(extent.sizes) != output.ndim or any(size not in (1, length) for size, length in lengths):
                raise UserError(
                    f"layer {self.label}: its rule gives sizes {extent.sizes} for an output of {tuple(output.shape)}; "
                    "a size is that of the output, or 1 if all positions along it are alike"
                )
        self.track(output, (height, width))
        self.record.append(_LayerRuleRecord(tuple(self.layers), layer, inputs, output))

    def finish(self, image: Tensor, output: Tensor | None, failure: UserError | None, refused: bool = False) -> Trace:
        """Return the trace of all that was run; its `replay` keeps the recorded operators alive."""
        # A convolution, its norm and its ReLU share one table, whose period would be searched three times.
        extents = {
            id(extent.table): (extent, tuple(tracked.tensor.shape))
            for tracked in self.tracked.values()
            for extent in tracked.extents
            if extent is not None
        }
        return Trace(
            self.size,
            tuple(self.calls),
            tuple(extents.values()),
            self.last_map,
            None if output is None else LayerCall("", "output", tuple(output.shape), self.extents(output)),
            failure,
            refused,
            tuple(self.numbers),
            frozenset(self.beyond),
            lambda size: _replayed(self, image, output, size),
        )


class _Slices(TorchFunctionMode):
    """Keeps the ends of slices that lie beyond the tensor."""

    # PyTorch dispatches `x[:, :, :600]` of 256 rows as an alias of x, from which a `TorchDispatchMode` cannot tell that
    # the model crops images of more than 600 rows. A `TorchFunctionMode` is given the indexing as it is written.

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Tensor):
            listed = args[1] if isinstance(args[1], tuple) else (args[1],)
            items = [item for item in listed if item is not None]
            dots = next((place for place, item in enumerate(items) if item is Ellipsis), len(items))
            items[dots : dots + 1] = [slice(None)] * (args[0].ndim - len(items) + (dots < len(items)))
            # Not strict: a mask takes several dimensions, and too many indices are an error that PyTorch reports.
            for item, length in zip(items, args[0].shape, strict=False):
                ends = (item.start, item.stop) if isinstance(item, slice) else ()
                beyond = (end for end in ends if isinstance(end, int) and abs(end) > length)
                self.tracer.beyond.update((self.tracer.label, end, length) for end in beyond)
        return function(*args, **(kwargs or {}))


def trace(model: nn.Module, channels: int, size: tuple[int, int]) -> Trace:
    """Run a model in evaluation mode on an image (1, channels, *size) on PyTorch's meta device, which has no pixels.

    A model that cannot be run so, or whose output is no tensor, ends in the `failure` of the trace. Raises UserError if
    it is no `nn.Module`, was compiled by torch.jit, or has lazy layers.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"{model!r} is no nn.Module; a model is one")
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in model.modules()):
        fault = "is compiled by torch.jit, so that its layers cannot be told apart; give the nn.Module it was made of"
        raise UserError(f"model {type(model).__name__}: {fault}")
    if any(map(nn.parameter.is_lazy, model.parameters())):
        raise UserError(f"model {type(model).__name__}: has lazy layers; give them their sizes, or run the model once")
    # Under every name, with `tie_weights=False` below: of a weight that two layers share each gets its own stand-in,
    # which is as good, because a weight of the meta device has no values.
    state = {
        name: tensor.detach().to("meta")
        for name, tensor in itertools.chain(
            model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
        )
    }
    floating = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    image = torch.empty(1, channels, *size, device="meta", dtype=next(floating, torch.float32))
    tracer = _Tracer(image)
    tracer.layers = [("", type(model).__name__)]
    output, failure, refused = None, None, False
    # The device makes the tensors that forward creates, such as `torch.zeros(...)`, meta tensors too.
    with (
        attributes.preserved(model),
        _in_evaluation(model),
        _hooked(model, tracer),
        torch.no_grad(),
        torch.device("meta"),
        _Slices(tracer),
        tracer,
    ):
        try:
            output = torch.func.functional_call(model, state, (image,), tie_weights=False)
        except UserError as error:
            failure = error
        except Exception as error:
            if error is tracer.bug:
                raise
            # Whatever else a model's forward raises is a fault of the model, reported with its layer.
            shape = "×".join(map(str, (channels, *size)))
            reason = tracer.channel_error or _reason(error)
            failure = UserError(f"layer {tracer.label}: cannot be run on an image of {shape} (C×H×W): {reason}")
            refused = True
    if failure is None and not isinstance(output, Tensor):
        failure = UserError(f"model {type(model).__name__} gives a {type(output).__name__}; it should give one tensor")
    return tracer.finish(image, output if isinstance(output, Tensor) else None, failure, refused)


def _replayed(recorded: _Tracer, image: Tensor, output: Tensor | None, size: tuple[int, int]) -> Trace:
    """Run recorded operators on an image of another size, up to the first that only fits the size of the recording."""
    # A classifier flattens its last map into a layer that fits one size; its convolutions take any. Replaying them
    # gives the field of that map far from the borders, which an image of the classifier's own size may not show.
    tensors = {id(image): torch.empty(1, image.shape[1], *size, device="meta")}
    tracer = _Tracer(tensors[id(image)])
    tracer.recording = False
    failure: UserError | None = None
    with torch.no_grad(), tracer:
        for record in recorded.record:
            tracer.layers = list(record.layers)
            try:
                record.replay(tracer, tensors)
            except Exception as error:
                if error is tracer.bug and not isinstance(error, UserError):
                    raise
                failure = UserError(f"layer {tracer.label}: takes no image of {size[0]}×{size[1]} pixels")
                break
    return tracer.finish(tensors[id(image)], tensors.get(id(output)), failure)


def _reason(error: Exception) -> str:
    """Return the reason in an exception's message, in one line; the meta device's own messages are explained."""
    message = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "meta" not in message.lower():
        return message
    if "Meta kernel" in message:
        return (
            f"PyTorch cannot run {message.partition(': ')[0]} on an image without pixels, which tells receptive fields"
        )
    return f"it asks for the values of pixels ({message}); let it decide by shapes, or with torch.where"


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and afterwards each layer back into its own mode."""
    training = [layer for layer in model.modules() if layer.training]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    model.eval()
    # With deterministic algorithms some operators are decomposed into others, for which there are no rules.
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        # Not by `layer.train()`, which would switch layers inside as well that the user has frozen by `eval()`.
        for layer in training:
            layer.training = True


@contextmanager
def _hooked(model: nn.Module, tracer: _Tracer) -> Iterator[None]:
    """Have a tracer told of the begin and the end of the forward of each layer inside of a model."""
    with ExitStack() as stack:
        for name, layer in model.named_modules():
            if layer is not model:

                def enter(hooked: nn.Module, inputs: Any, name: str = name) -> None:
                    tracer.enter(name, hooked, inputs)

                stack.callback(layer.register_forward_pre_hook(enter).remove)
                stack.callback(layer.register_forward_hook(tracer.leave).remove)
        yield


def _channel_error(layer: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Return what is wrong with the number of channels that a convolution is given; empty if nothing is."""
    given = inputs[0] if inputs else None
    if not isinstance(layer, CONVOLUTIONS) or not isinstance(given, Tensor) or given.ndim != 4:
        return ""
    if given.shape[1] == layer.in_channels:
        return ""
    return f"its weights are made for {layer.in_channels} channels and it is given {given.shape[1]}"


def _layer_rule(layer: nn.Module) -> LayerRule | None:
    """Return the rule of a layer's class, or of the nearest base class that has one."""
    return next((LAYER_RULES[kind] for kind in type(layer).__mro__ if kind in LAYER_RULES), None)


def _tensors(output: Any) -> tuple[Tensor, ...]:
    """Return the tensors among an operator's outputs."""
    listed = output if isinstance(output, list | tuple) else [output]
    return tuple(value for value in listed if isinstance(value, Tensor))


def _substituted(value: Any, tensors: Mapping[int, Tensor]) -> Any:
    """Return arguments, nested as they are, with the tensors whose ids are in `tensors` replaced."""
    if isinstance(value, list | tuple):
        items = [_substituted(item, tensors) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: _substituted(item, tensors) for key, item in value.items()}
    return tensors.get(id(value), value) if isinstance(value, Tensor) else value


def _may_depend(pair: Extents) -> bool:
    """Whether a tensor depends on some pixel, or might in a larger image."""
    height, width = pair
    if not height or not width:
        return False
    return not (height.is_empty or width.is_empty) or height.lies_beyond or width.lies_beyond


def _alike(first: Extents, second: Extents) -> bool:
    """Whether two tensors depend on the same pixels along both axes."""
    return all(
        a is b or (a is not None and b is not None and np.array_equal(a.ends, b.ends))
        for a, b in zip(first, second, strict=True)
    )


def _kernel(arguments: dict[str, Any], dims: int) -> tuple[int, ...]:
    """Return the kernel of a pooling or convolution from its arguments; empty for other operators."""
    if (size := arguments.get("kernel_size")) is not None:
        return tuple(listed(size, dims))
    weight = arguments.get("weight")
    return tuple(weight.shape[2:]) if isinstance(weight, Tensor) and weight.ndim == dims + 2 else ()
