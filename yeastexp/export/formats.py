"""The formats of weights: each traces a network, makes the content of a file, and runs that in its own runtime."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from yeastexp.errors import UserError, in_one_line
from yeastexp.export.network import Deployed, naming_layers
from yeastexp.prediction.exported import (
    IMAGE,
    KEY,
    NORMALIZED,
    OUTPUTS,
    Description,
    OnnxNetwork,
    onnx_package,
    without_normalization,
)

Run = Callable[[Tensor], Tensor]
"""From images (B, C, H, W) to outputs (B, O, H, W)."""

OPSET = 20
"""The opset of ONNX files."""

EXAMPLE = (2, 48, 80)
"""Batch, height and width of the images that networks are traced with, rounded up to multiples. All differ and none is
1, so that a tracer takes neither two of them for one variable, nor one for a constant."""

EXTRA = "yeastexp.json"
"""The file within PyTorch's formats that holds the description."""


class Traced(Protocol):
    """A network in some format."""

    def content(self, described: Description) -> bytes:
        """The content of a file, with its description."""
        ...

    def run(self, content: bytes) -> Run:
        """Load the content of a file into its runtime."""
        ...


def example(channels: int, multiple: int, batch: int = EXAMPLE[0]) -> Tensor:
    """Images to trace a network with."""
    height, width = (-(-side // multiple) * multiple for side in EXAMPLE[1:])
    return torch.linspace(0, 1, batch * channels * height * width).reshape(batch, channels, height, width)


class Onnx:
    """ONNX, by PyTorch's exporter; batch, height and width are free."""

    def __init__(self, deployed: Deployed, images: Tensor) -> None:
        self.onnx = onnx_package("onnx", "ONNX")
        onnx_package("onnxscript", "ONNX")
        onnx_package("onnxruntime", "ONNX")
        normalizes = len(list(deployed.normalization.children())) > 0
        module = Deployed(deployed.normalization, deployed.network, both=normalizes).eval()
        free = torch.export.Dim.AUTO
        with quiet():
            try:
                program = torch.onnx.export(
                    module,
                    (images,),
                    input_names=[IMAGE],
                    output_names=[OUTPUTS, NORMALIZED] if normalizes else [OUTPUTS],
                    dynamic_shapes=({0: free, 2: free, 3: free},),
                    opset_version=OPSET,
                    dynamo=True,
                    verbose=False,
                    external_data=False,
                )
            except Exception as error:  # of many classes
                # ONNX's exporter does not say which layer cannot be traced; if tracing failed, this call fails as well,
                # and names the layer.
                _export(deployed, images)
                raise UserError(f"the model cannot be exported as ONNX: {in_one_line(error)[:300]}") from error
        assert program is not None
        self.model = program.model_proto
        graph = self.model.graph
        # The second output was asked for only to give the network's input a name, by which `bare` finds it.
        del graph.output[1:]
        for value in (*graph.input, *graph.output):
            for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
                value.type.tensor_type.shape.dim[axis].dim_param = name

    def content(self, described: Description) -> bytes:
        """The graph, with its description in the metadata."""
        notes = {
            KEY: described.as_json(),
            "outputs": ", ".join(described.outputs),
            "normalization": "in the graph" if described.inside else "before the graph",
        }
        self.onnx.helper.set_model_props(self.model, notes)
        self.model.doc_string = f"{described.run}, step {described.step}"
        self.onnx.checker.check_model(self.model)
        content: bytes = self.model.SerializeToString()
        return content

    def bare(self) -> bytes:
        """The network alone, without normalisation and description."""
        model = self.onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.metadata_props[:]
        without_normalization(model)
        content: bytes = model.SerializeToString()
        return content

    def run(self, content: bytes) -> Run:
        """Load the content into ONNX Runtime."""
        (given,) = self.onnx.load_from_string(content).graph.input
        return OnnxNetwork(content, given.name, multiple=1, smallest=1)


class TorchScript:
    """TorchScript, traced: LibTorch runs it without Python."""

    def __init__(self, deployed: Deployed, images: Tensor) -> None:
        with quiet() as said, naming_layers(deployed.network, "TorchScript"), torch.no_grad():
            self.traced: Any = torch.jit.trace(deployed, images, check_trace=False)
        self.cautions = [
            " ".join(str(each.message).split()) for each in said if each.category.__name__ == "TracerWarning"
        ]
        """Warnings of decisions that Python took while the model was traced, which are frozen for all image sizes."""

    def content(self, described: Description) -> bytes:
        """The traced network, with its description."""
        return self._saved({EXTRA: described.as_json()})

    def bare(self) -> bytes:
        """The traced network without its description."""
        return self._saved({})

    def _saved(self, extra: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        with quiet():
            torch.jit.save(self.traced, buffer, _extra_files=extra)
        return buffer.getvalue()

    def run(self, content: bytes) -> Run:
        """Load the content into LibTorch's interpreter."""
        with quiet():
            loaded = torch.jit.load(io.BytesIO(content))

        def run(images: Tensor) -> Tensor:
            with quiet(), torch.no_grad():
                outputs: Tensor = loaded(images)
            return outputs

        return run


class Program:
    """An exported program of `torch.export`, the successor of TorchScript."""

    def __init__(self, deployed: Deployed, images: Tensor) -> None:
        self.program = _export(deployed, images)

    def content(self, described: Description) -> bytes:
        """The program, with its description."""
        buffer = io.BytesIO()
        with quiet():
            torch.export.save(self.program, buffer, extra_files={EXTRA: described.as_json()})
        return buffer.getvalue()

    def run(self, content: bytes) -> Run:
        """Load the content into PyTorch."""
        with quiet():
            # Guards hold for sizes that PyTorch can prove itself, multiples of the stride; others are right as well.
            module: Any = torch.export.load(io.BytesIO(content)).module(check_guards=False)

        def run(images: Tensor) -> Tensor:
            with torch.no_grad():
                outputs: Tensor = module(images)
            return outputs

        return run


def _export(deployed: Deployed, images: Tensor) -> Any:
    """A program for any batch, height and width. Raises UserError that names the layer if it cannot be traced."""
    free = torch.export.Dim.AUTO
    with quiet(), naming_layers(deployed.network, "torch.export"), torch.no_grad():
        return torch.export.export(deployed, (images,), dynamic_shapes=({0: free, 2: free, 3: free},), strict=False)


@contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Silence what PyTorch's exporters log for their own developers. Gives the list of the warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield said
    finally:
        logger.setLevel(level)
