"""ONNX files that `export` wrote, ready to predict: ONNX Runtime in place of the model, everything else as in a run.

A file says in its metadata, under `KEY`, what a run directory would say: the task with what it learnt, the transforms,
the range of the training images, and how the model is run in tiles. It is plain JSON, and names parts of this package
alone, so that no file brings Python of its own.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yeastexp.config.experiment import Experiment, Part, Task
from yeastexp.config.settings import Patches, Runtime, Train, Validation
from yeastexp.config.toml_document import Place
from yeastexp.contracts import Task as TaskPart
from yeastexp.data.normalization import Values
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.errors import UserError, in_one_line
from yeastexp.prediction.predictor import Predictor
from yeastexp.prediction.tiling import Tiling
from yeastexp.registry import KINDS

KEY = "yeastexp"
FORMAT = 1
SUFFIX = ".onnx"

IMAGE, NORMALIZED, OUTPUTS = "image", "normalized", "outputs"
"""Names of values in the graph: its input, the input of the network in it, and the network's output."""

REMEDY = "export the run again"


@dataclass(frozen=True)
class PlainPart:
    """A part by name, with options as JSON holds them."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Description:
    """The metadata of an exported model."""

    format: int
    version: str
    run: str
    checkpoint: str
    """The SHA-256 of the checkpoint's file."""
    step: int
    channels: int
    classes: tuple[str, ...]
    task: PlainPart
    learnt: dict[str, Any]
    """The state that the task fitted on the training images."""
    outputs: tuple[str, ...]
    """The names of the output channels."""
    transforms: tuple[PlainPart, ...]
    inside: bool
    """Whether the graph holds the transforms and the data's normalisation; else they are applied before it."""
    normalization: dict[str, Any] | None
    values: dict[str, Any] | None
    stride: int
    margins: tuple[tuple[int, int], tuple[int, int]]
    bytes_per_pixel: float
    inexact: str
    off_grid: str
    multiple: int
    """The number that height and width have to be multiples of."""
    smallest: int
    """The least height and width, in pixels."""
    stays_behind: tuple[str, ...] = ()
    """The parts that are Python code of the run's plugins, which no file holds: `predict` needs the run for them."""
    proof: tuple[dict[str, Any], ...] = ()
    channel_names: tuple[str, ...] = ()

    def as_json(self) -> str:
        """Return the text that files hold."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Description:
        """Return the description that `as_json` wrote; raises ValueError, TypeError or KeyError if it is damaged."""
        stored: dict[str, Any] = json.loads(text)
        if stored["format"] != FORMAT:
            raise ValueError(f"it is of format {stored['format']}, not {FORMAT}")
        stored["task"] = PlainPart(**stored["task"])
        stored["transforms"] = tuple(PlainPart(**each) for each in stored["transforms"])
        stored["margins"] = tuple(map(tuple, stored["margins"]))
        stored |= {name: tuple(stored[name]) for name in ("classes", "outputs", "stays_behind", "proof")}
        stored["channel_names"] = tuple(stored.get("channel_names", ()))
        described = cls(**stored)
        # Sizes alone are checked by type: a float or a string there would fail much later, as the side of a tile.
        wanted = {field.name for field in fields(cls) if field.type == "int"}
        if wrong := [name for name in sorted(wanted) if type(getattr(described, name)) is not int]:
            raise ValueError(f"'{wrong[0]}' is no whole number")
        return described


def onnx_package(name: str, purpose: str) -> Any:
    """Import `onnx` or `onnxruntime`; raises UserError with the command that installs it if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{purpose}: needs the package {name}; pip install onnx onnxruntime onnxscript") from None


class OnnxNetwork(nn.Module):
    """The network of an exported file, run by ONNX Runtime on as many threads as PyTorch has."""

    def __init__(self, content: bytes, given: str, multiple: int, smallest: int) -> None:
        super().__init__()
        runtime = onnx_package("onnxruntime", "ONNX")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.given, self.multiple, self.smallest = given, multiple, smallest

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if min(height, width) < self.smallest or height % self.multiple or width % self.multiple:
            raise UserError(
                f"the exported model takes sides of {self.smallest} pixels and more that are multiples of "
                f"{self.multiple}, not {height}×{width}; crop or pad the image"
            )
        (outputs,) = self.session.run([OUTPUTS], {self.given: images.contiguous().numpy()})
        return torch.from_numpy(outputs)


OTHERS = (".pt", ".pt2", ".zip")
"""The suffixes of other files that `export` writes."""


def is_exported(path: Path) -> bool:
    """Whether a path names an ONNX file in place of a run; raises UserError if it is an export of another kind."""
    if path.suffix.lower() in OTHERS and path.is_file():
        raise UserError(f"{path}: is no run directory; of exported models predict takes ONNX files, as model.onnx")
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def load_exported(path: Path) -> Predictor:
    """Return the predictor of an exported file; raises UserError if the file is none, damaged, or needs its run."""
    onnx = onnx_package("onnx", str(path))
    if not path.is_file():
        raise UserError(f"{path}: no such file; name an ONNX file that export wrote, or a run directory")
    try:
        model = onnx.load(path, load_external_data=False)
        stored = {entry.key: entry.value for entry in model.metadata_props}
    # What protobuf raises on bytes that are no ONNX file is documented nowhere.
    except Exception as error:
        raise UserError(f"{path}: is no ONNX file, or damaged ({in_one_line(error)}); {REMEDY}") from None
    if KEY not in stored:
        raise UserError(f"{path}: says nothing of task and transforms, as files of export do; {REMEDY}")
    try:
        described = Description.of(stored[KEY])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: its metadata are damaged ({in_one_line(error)}); {REMEDY}") from None
    if described.stays_behind:
        raise UserError(
            f"{path}: its {' and '.join(described.stays_behind)} stayed behind as Python of the run; "
            f"predict with the run ({described.run})"
        )
    return _predictor(path, model, described)


def _predictor(path: Path, model: Any, described: Description) -> Predictor:
    """Build a predictor from an ONNX model and its description; raises UserError if its metadata are damaged."""
    place = Place(str(path))
    try:
        task = Part("task", described.task.name, _options("task", described.task), "task", place)
        transforms = [
            Part("transform", each.name, _options("transform", each), "transform", place)
            for each in described.transforms
        ]
        table = Task(described.channels, tuple(described.classes), task)
        built: TaskPart = task.make(described.channels, len(described.classes))
        built.load_state_dict(described.learnt)
        made: list[BasicTransform2D] = [each.make() for each in transforms]
        values = Values(**described.values) if described.values else None
    except (UserError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: its metadata are damaged ({in_one_line(error)}); {REMEDY}") from None
    network = network_of(model, described, path)
    tiles = Tiling(
        network, described.stride, described.margins, described.bytes_per_pixel, described.inexact, described.off_grid,
        described.channels,
    )  # fmt: skip
    nothing = Part("dataset", "exported", {}, "dataset", place)
    experiment = Experiment(
        described.run, table, Patches(), Train(), Validation(), Runtime(device="cpu"), dataset=nothing, model=nothing,
        loss=None, optimizer=nothing, scheduler=None, transforms=tuple(transforms), augmentations=(), metrics=(),
    )  # fmt: skip
    return Predictor(
        experiment, built, described.step, network, tuple(made), described.normalization, torch.device("cpu"), values,
        tiles=tiles, channel_names=described.channel_names,
    )  # fmt: skip


def _options(kind: str, part: PlainPart) -> dict[str, Any]:
    """Return the typed options of a part; raises UserError if it is not of this package, or its options are wrong."""
    # A file from somebody else must not choose code: of the parts that are registered, those of plugins are refused.
    entry = KINDS[kind].find(part.name)
    if entry.foreign:
        raise UserError(f"'{part.name}' is no {kind} of this package")
    # An option that is None is a default that no file writes, and so no schema accepts everywhere.
    options, problems = entry.schema.check({key: value for key, value in part.options.items() if value is not None})
    if problems:
        raise UserError(f"{kind} '{part.name}': {problems[0].keys[0]}: {problems[0].message}")
    return options


def network_of(model: Any, described: Description, place: Path) -> OnnxNetwork:
    """Return the network of a model, without the nodes that normalise images before it.

    Raises UserError if ONNX Runtime cannot run it.
    """
    # Normalisation is left to the transforms, as in a run: a tile must be normalised by the statistics of the whole
    # image, and in PyTorch's arithmetic.
    given = without_normalization(model) if described.inside else IMAGE
    try:
        return OnnxNetwork(model.SerializeToString(), given, described.multiple, described.smallest)
    except UserError:
        raise
    # The exceptions of ONNX Runtime have no common base class.
    except Exception as error:
        raise UserError(f"{place}: cannot be run by ONNX Runtime ({in_one_line(error)[:300]}); {REMEDY}") from None


def without_normalization(model: Any) -> str:
    """Remove the nodes before the value `NORMALIZED` from a model, if there is one; return the name of its input."""
    graph = model.graph
    if not any(NORMALIZED in node.output for node in graph.node):
        return IMAGE
    # From the output back to NORMALIZED: what is not met serves the normalisation alone.
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needed, waiting = set[int](), [OUTPUTS]
    while waiting:
        name = waiting.pop()
        if name != NORMALIZED and name in makers and makers[name] not in needed:
            needed.add(makers[name])
            waiting += graph.node[makers[name]].input
    kept = [node for index, node in enumerate(graph.node) if index in needed]
    used = {name for node in kept for name in node.input}
    constants = [constant for constant in graph.initializer if constant.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
    graph.input[0].name = NORMALIZED
    # Some of the nodes that are kept read the size of the image, which is that of the normalised one.
    for node in graph.node:
        node.input[:] = [NORMALIZED if name == IMAGE else name for name in node.input]
    return NORMALIZED
