"""A model run on an image without pixels, each operator's output followed back to the image."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from yeastexp.errors import UserError
from yeastexp.nets.receptive_field.reach import CannotFollow, Reach
from yeastexp.nets.receptive_field.rules import LAYER_RULES, RULES, Call, Found, pointwise, reduction, written

Shape = tuple[int, ...]
Pair = tuple[Reach | None, Reach | None]
"""Along height and along width."""

UNSEEN: Pair = (None, None)


@dataclass(frozen=True)
class Step:
    """A layer's call, or an operator's outside of layers: the shape (B, C, H, W) it gave, and what that sees."""

    name: str
    """The path of the layer, as in `down.0.1`; of an operator that of the layer around it, which may be empty."""
    kind: str
    shape: Shape
    reaches: Pair

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.name} ({self.kind})" if self.name else self.kind

    @property
    def is_map(self) -> bool:
        """Whether it lies like an image, (B, C, H, W), and no layer has yet seen the whole of that."""
        height, width = self.reaches
        if len(self.shape) != 4 or not height or not width or height.whole or width.whole:
            return False
        return height.sizes[2] > 1 and width.sizes[3] > 1


@dataclass(frozen=True)
class Trace:
    """A model's run on an image of `size` pixels, as far as it came."""

    size: tuple[int, int]
    steps: tuple[Step, ...]
    reaches: tuple[tuple[Reach, Shape], ...]
    """Everything that was seen on the way, operator by operator."""
    last_map: Step | None
    """The last thing that lay like an image before a layer saw the whole of it."""
    output: Step | None
    failure: UserError | None
    """Why the run ended early."""
    replay: Callable[[tuple[int, int]], Trace]
    """The same operators on an image of another size, for models that refuse one."""


@dataclass
class _Tracked:
    """A tensor of the run, what it sees, and the tensor that it is a view of."""

    tensor: Tensor
    reaches: Pair
    parent: _Tracked | None = None
    again: Callable[[], Sequence[Pair]] | None = None
    place: int = 0
    overload: OpOverload | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    views: list[_Tracked] = field(default_factory=list)


@dataclass(frozen=True)
class _Operation:
    """An operator's call, to be repeated on another size."""

    layers: tuple[tuple[str, str], ...]
    opaque: bool
    overload: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]

    def repeat(self, follower: _Follower, made: dict[int, Tensor]) -> None:
        """The call on the tensors that stand for the first ones."""
        follower.opaque = self.opaque
        args, kwargs = tree_map_only(Tensor, lambda one: made.get(id(one), one), (self.args, self.kwargs))
        found = self.overload(*args, **kwargs)
        made.update(zip(map(id, self.outputs), found if isinstance(found, list | tuple) else [found], strict=False))


@dataclass(frozen=True)
class _Passage:
    """The end of a layer whose class has a rule."""

    layers: tuple[tuple[str, str], ...]
    layer: nn.Module
    inputs: tuple[Any, ...]
    output: Tensor

    def repeat(self, follower: _Follower, made: dict[int, Tensor]) -> None:
        """What its output sees on the tensors that stand for the first ones."""
        inputs = tree_map_only(Tensor, lambda one: made.get(id(one), one), self.inputs)
        follower.follow_layer(self.layer, inputs, made[id(self.output)])


@dataclass(frozen=True)
class _Row:
    """A step that was noted."""

    layers: tuple[tuple[str, str], ...]
    kind: str
    output: Tensor

    def repeat(self, follower: _Follower, made: dict[int, Tensor]) -> None:
        """The same step, on the tensor that stands for the first one."""
        follower.note(self.kind, made[id(self.output)])


class _Follower(TorchDispatchMode):
    """Follows what every tensor sees, operator by operator."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = (image.shape[2], image.shape[3])
        self.layers: list[tuple[str, str]] = [("", "model")]
        self.leaf: int | None = None
        """Depth of the layer whose inside is one row."""
        self.opaque = False
        self.steps: list[Step] = []
        self.record: list[_Operation | _Passage | _Row] = []
        self.recording = True
        self.fault: Exception | None = None
        """A bug of this room, which keeps its traceback."""
        self.given_wrong = ""
        """What PyTorch would say less clearly of the layer being run."""
        self.last_map: Step | None = None
        # Tensors are held, so that no other takes their id.
        self.tracked: dict[int, _Tracked] = {}
        height, width = (np.arange(length) for length in self.size)
        self.track(
            image,
            (
                Reach(np.stack([height, -height]).reshape(2, 1, 1, -1, 1)),
                Reach(np.stack([width, -width]).reshape(2, 1, 1, 1, -1)),
            ),
        )

    @property
    def label(self) -> str:
        """The layer being run."""
        name, kind = self.layers[-1]
        return f"{name} ({kind})" if name else kind

    def track(self, tensor: Tensor, reaches: Pair) -> _Tracked:
        """Note what a tensor sees."""
        self.tracked[id(tensor)] = found = _Tracked(tensor, reaches)
        return found

    def reaches(self, tensor: Tensor) -> Pair:
        """What a tensor sees."""
        found = self.tracked.get(id(tensor))
        return found.reaches if found else UNSEEN

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = overload(*args, **kwargs)
        outputs = tuple(one for one in (made if isinstance(made, list | tuple) else [made]) if isinstance(one, Tensor))
        self.record.append(_Operation(tuple(self.layers), self.opaque, overload, args, kwargs, outputs))
        try:
            if not self.opaque:
                self.follow(overload, args, kwargs, outputs)
        except Exception as error:
            self.fault = error
            raise
        return made

    def follow(self, overload: OpOverload, args: Any, kwargs: Any, outputs: tuple[Tensor, ...]) -> None:
        """Note what the outputs of an operator see, and what its writing changed."""
        arguments = _bound(overload, args, kwargs)
        shapes = tuple(tuple(one.shape) for one in outputs)
        found = self.ask(overload, arguments, shapes)
        written_to = {
            id(arguments[one.name])
            for one in overload._schema.arguments
            if one.alias_info is not None and one.alias_info.is_write
        }
        for place, (output, reaches) in enumerate(zip(outputs, found, strict=True)):
            if id(output) in written_to:
                self.write(self.tracked.get(id(output)) or self.track(output, UNSEEN), reaches)
                continue
            tracked = self.track(output, reaches)
            if overload.is_view:
                self.hang(tracked, overload, arguments, shapes, place)
        if outputs and found[0] != UNSEEN:
            self.regard(overload, arguments, outputs[0])

    def ask(self, overload: OpOverload, arguments: dict[str, Any], shapes: tuple[Shape, ...]) -> list[Pair]:
        """What each output of an operator sees, by its rule."""
        pairs = [self.ask_along(axis, overload, arguments, shapes) for axis in range(2)]
        # Where nothing is seen along one axis there is no pixel to be seen along the other.
        return [pair if all(one and one.sees() for one in pair) else UNSEEN for pair in zip(*pairs, strict=True)]

    def ask_along(
        self, axis: int, overload: OpOverload, arguments: dict[str, Any], shapes: tuple[Shape, ...]
    ) -> list[Reach | None]:
        name = overload._schema.name
        if overload._schema.is_mutable:
            name = name.removesuffix("_")
        call = Call(name, self.label, arguments, shapes, self.size[axis], lambda tensor: self.reaches(tensor)[axis])
        if not call.reaches:
            return [None] * len(shapes)
        rule = RULES.get(name)
        if rule is None and torch.Tag.pointwise in overload.tags:
            rule = pointwise
        if rule is None and torch.Tag.reduction in overload.tags:
            rule = reduction
        try:
            if rule is None:
                raise CannotFollow("no rule says what it sees")
            found: Found = rule(call)
        except CannotFollow as error:
            raise self.unknown(name, error) from None
        return [found] * len(shapes) if isinstance(found, Reach) or found is None else list(found)

    def hang(
        self, view: _Tracked, overload: OpOverload, arguments: dict[str, Any], shapes: tuple[Shape, ...], place: int
    ) -> None:
        """Note of what a view is one, so that writing to either changes both."""
        source = next(iter(arguments.values()))
        parent = self.tracked.get(id(source)) or self.track(source, UNSEEN)
        view.parent, view.place, view.overload, view.arguments = parent, place, overload, arguments
        view.again = lambda: self.ask(overload, arguments, shapes)
        parent.views.append(view)

    def write(self, target: _Tracked, reaches: Pair) -> None:
        """Note that a tensor was written to, and with it what it is a view of, and the views of that."""
        target.reaches = reaches
        self.refresh(target)
        while (parent := target.parent) is not None:
            parent.reaches = self.after_writing(target, parent)
            self.refresh(parent, but=target)
            target = parent

    def after_writing(self, view: _Tracked, parent: _Tracked) -> Pair:
        assert view.overload is not None
        name, shape = view.overload._schema.name, tuple(view.tensor.shape)
        made: list[Reach | None] = []
        for axis in range(2):
            base, source = parent.reaches[axis], view.reaches[axis]
            call = Call(name, self.label, view.arguments, (shape,), self.size[axis], lambda _: None)
            try:
                made.append(written(call, base, source) if base or source else None)
            except CannotFollow as error:
                raise self.unknown(name, error) from None
        return made[0], made[1]

    def unknown(self, name: str, error: CannotFollow) -> UserError:
        """An operator that no rule covers."""
        return UserError(
            f"layer {self.label}: its operator {name} cannot be followed, for {error}; "
            "register a rule with yeastexp.nets.receptive_field.rule or layer_rule"
        )

    def refresh(self, tracked: _Tracked, but: _Tracked | None = None) -> None:
        for view in tracked.views:
            if view is not but:
                assert view.again is not None
                view.reaches = view.again()[view.place]
                self.refresh(view)

    def regard(self, overload: OpOverload, arguments: dict[str, Any], output: Tensor) -> None:
        """Keep the last map; note a step where an operator outside of layers changes shape or sight."""
        reaches = self.reaches(output)
        step = Step(*self.layers[-1], tuple(output.shape), reaches)
        if step.is_map:
            self.last_map = step
        source = next((one for one in arguments.values() if isinstance(one, Tensor)), None)
        same = source is not None and source.shape == output.shape and _alike(self.reaches(source), reaches)
        if self.recording and self.leaf is None and not overload.is_view and not same:
            operator = overload._schema.name.partition("::")[2].removesuffix("_with_indices").strip("_")
            self.note(operator, output)

    def note(self, kind: str, output: Tensor) -> None:
        """A step more."""
        self.steps.append(Step(self.layers[-1][0], kind, tuple(output.shape), self.reaches(output)))
        self.record.append(_Row(tuple(self.layers), kind, output))

    def enter(self, name: str, layer: nn.Module, inputs: tuple[Any, ...] = ()) -> None:
        """Note that a layer begins."""
        self.layers.append((name, type(layer).__name__))
        self.given_wrong = _wrong_channels(layer, inputs)
        if self.leaf is None and (_rule_of(layer) or not any(layer.children())):
            self.leaf = len(self.layers)
            self.opaque = _rule_of(layer) is not None

    def leave(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Note that a layer ends: a step, where its inside is none."""
        if self.leaf == len(self.layers):
            self.leaf = None
            if self.opaque:
                self.opaque = False
                self.follow_layer(layer, inputs, output)
            if isinstance(output, Tensor) and self.reaches(output) != UNSEEN:
                self.note(self.layers[-1][1], output)
        self.layers.pop()

    def follow_layer(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """What the output of a layer sees whose class has a rule."""
        seen = [self.reaches(one) for one in inputs if isinstance(one, Tensor)]
        seen = [(height, width) for height, width in seen if height and width]
        rule = _rule_of(layer)
        if not isinstance(output, Tensor) or len(seen) != 1 or rule is None:
            raise UserError(f"layer {self.label}: a layer_rule is for one tensor in that sees the image, and one out")
        height, width = (rule(layer, reach) for reach in seen[0] if reach)
        for reach in (height, width):
            lengths = zip(reach.sizes, output.shape, strict=False)
            if len(reach.sizes) != output.ndim or any(one not in (1, length) for one, length in lengths):
                raise UserError(
                    f"layer {self.label}: its rule gives sizes {reach.sizes} for an output of {tuple(output.shape)}; "
                    "a size is the output's, or 1 where all along it see the same"
                )
        self.track(output, (height, width))
        self.record.append(_Passage(tuple(self.layers), layer, inputs, output))


def trace(model: nn.Module, channels: int, size: tuple[int, int]) -> Trace:
    """Run a model, as in evaluation, on an image (1, channels, *size) that has no pixels.

    What the user did wrong stands in `failure`: a model that cannot be run so, or an operator without a rule.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"{model!r} is no nn.Module; a model is one")
    if any(map(nn.parameter.is_lazy, model.parameters())):
        raise UserError(f"model {type(model).__name__}: has lazy layers; give them their sizes, or run the model once")
    state = {
        name: tensor.detach().to("meta")
        for name, tensor in itertools.chain(
            model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
        )
    }
    floating = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    image = torch.empty(1, channels, *size, device="meta", dtype=next(floating, torch.float32))
    follower = _Follower(image)
    follower.layers = [("", type(model).__name__)]
    output, failure = None, None
    with _in_evaluation(model), _hooked(model, follower), torch.no_grad(), torch.device("meta"), follower:
        try:
            output = torch.func.functional_call(model, state, (image,), tie_weights=False)
        except UserError as error:
            failure = error
        except Exception as error:
            if error is follower.fault:
                raise
            # Whatever else a model's forward raises is its own fault; its layer and message are told.
            shape = "×".join(map(str, (channels, *size)))
            reason = follower.given_wrong or _reason(error)
            failure = UserError(f"layer {follower.label}: cannot be run on an image of {shape} (C×H×W): {reason}")
    if failure is None and not isinstance(output, Tensor):
        failure = UserError(f"model {type(model).__name__} gives a {type(output).__name__}; it should give one tensor")
    return _finished(follower, image, output if isinstance(output, Tensor) else None, failure)


def _reason(error: Exception) -> str:
    """What an exception says, in one line."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "meta" not in said:
        return said
    return f"it asks for the values of pixels ({said}); let it decide by shapes, or with torch.where"


def _finished(follower: _Follower, image: Tensor, output: Tensor | None, failure: UserError | None) -> Trace:
    reaches = {
        id(reach.ends): (reach, tuple(one.tensor.shape))
        for one in follower.tracked.values()
        for reach in one.reaches
        if reach is not None
    }

    def replay(size: tuple[int, int]) -> Trace:
        return _replayed(follower, image, output, size)

    last = output is not None and Step("", "output", tuple(output.shape), follower.reaches(output))
    return Trace(
        follower.size,
        tuple(follower.steps),
        tuple(reaches.values()),
        follower.last_map,
        last or None,
        failure,
        replay,
    )


def _replayed(recorded: _Follower, image: Tensor, output: Tensor | None, size: tuple[int, int]) -> Trace:
    """The operators of a run on an image of another size, up to the first that only fits the size of that run."""
    made = {id(image): torch.empty(1, image.shape[1], *size, device="meta")}
    follower = _Follower(made[id(image)])
    follower.recording = False
    failure: UserError | None = None
    with torch.no_grad(), follower:
        for one in recorded.record:
            follower.layers = list(one.layers)
            try:
                one.repeat(follower, made)
            except Exception as error:
                if error is follower.fault and not isinstance(error, UserError):
                    raise
                failure = UserError(f"layer {follower.label}: takes no image of {size[0]}×{size[1]} pixels")
                break
    return _finished(follower, made[id(image)], made.get(id(output)), failure)


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Deterministic algorithms take some operators apart into others, which see the same and have no rules."""
    training = [layer for layer in model.modules() if layer.training]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    model.eval()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        for layer in training:
            layer.training = True


@contextmanager
def _hooked(model: nn.Module, follower: _Follower) -> Iterator[None]:
    with ExitStack() as stack:
        for name, layer in model.named_modules():
            if layer is not model:

                def enter(one: nn.Module, inputs: Any, name: str = name) -> None:
                    follower.enter(name, one, inputs)

                stack.callback(layer.register_forward_pre_hook(enter).remove)
                stack.callback(layer.register_forward_hook(follower.leave).remove)
        yield


def _wrong_channels(layer: nn.Module, inputs: tuple[Any, ...]) -> str:
    """That a convolution is given another number of channels than its weights are made for."""
    given = inputs[0] if inputs else None
    if not isinstance(layer, nn.modules.conv._ConvNd) or not isinstance(given, Tensor) or given.ndim != 4:
        return ""
    if given.shape[1] == layer.in_channels:
        return ""
    return f"its weights are made for {layer.in_channels} channels and it is given {given.shape[1]}"


def _rule_of(layer: nn.Module) -> Callable[[Any, Reach], Reach] | None:
    return next((LAYER_RULES[kind] for kind in type(layer).__mro__ if kind in LAYER_RULES), None)


def _bound(overload: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name."""
    given = [one.name for one in overload._schema.arguments]
    defaults = {one.name: one.default_value for one in overload._schema.arguments if one.has_default_value()}
    named = {**defaults, **dict(zip(given, args, strict=False)), **kwargs}
    return {name: named[name] for name in given}


def _alike(one: Pair, other: Pair) -> bool:
    return all(
        a is b or (a is not None and b is not None and np.array_equal(a.ends, b.ends))
        for a, b in zip(one, other, strict=True)
    )
