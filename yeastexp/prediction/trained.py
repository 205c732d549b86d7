"""Prediction from Python code: a trained run takes arrays and gives labels, cells and probabilities, without files."""

from __future__ import annotations

import base64
import html
import importlib
import io
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from yeastexp.config import pretrained, trust
from yeastexp.contracts import Prediction
from yeastexp.data.normalization import GIVEN, refuse_incomplete
from yeastexp.data.pieces import StoredImage
from yeastexp.errors import UserError
from yeastexp.prediction.cell_table import measure
from yeastexp.prediction.exported import is_exported, load_exported
from yeastexp.prediction.outputs import Options, logits_in_tiles, overlay
from yeastexp.prediction.predict import range_warning, refuse_options_of_runs
from yeastexp.prediction.predictor import Predictor, load_predictor, refuse_nan_outputs
from yeastexp.system import cores, memory
from yeastexp.system.formatting import format_count, format_share
from yeastexp.tasks.mask_cells import METHOD
from yeastexp.tasks.semantic import Semantic
from yeastexp.tasks.telling_apart import TellsInstances
from yeastexp.training.run_directory import Which

Array = npt.NDArray[Any]

SHOWN, LEAST_SHOWN = 1024, 256
"""The longer side of a picture in a notebook in pixels, at most and at least."""

_computing = threading.RLock()
"""Held while a model is loaded or run. Reading a model's operators replaces its parameters for a moment, and the
precision of a GPU's convolutions is set for the whole process."""


class CellTable:
    """The columns of `cells.csv` by name, one value for each cell; `Result.cells` if pandas is not installed."""

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self.columns = list(columns)
        self._values = dict(columns)

    def __getitem__(self, name: str) -> Array:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns, as a DataFrame does."""
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._values["label"])

    def __repr__(self) -> str:
        return f"{format_count(len(self), 'cell')}: {', '.join(self.columns)}"


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The prediction for one image; cells are told apart and measured when they are first asked for."""

    labels: npt.NDArray[np.uint8]
    """Class indices (H, W)."""

    probabilities: npt.NDArray[np.float32]
    """Probabilities as `predict --probabilities` writes them.

    Of two classes that of the second (H, W), of more those of all (K, H, W); with the task `instances` those of all
    classes but the first, then the hill (K, H, W).
    """

    classes: tuple[str, ...]
    image: StoredImage
    predictor: Predictor
    prediction: Prediction

    @property
    def approximate(self) -> bool:
        """Whether cells are only approximate: regions of a mask, cut by a watershed."""
        return self.tells_cells and self.prediction.instances is None

    @property
    def tells_cells(self) -> bool:
        """Whether there are `instances`, be they approximate."""
        return self.prediction.instances is not None or self.prediction.approximate is not None

    @cached_property
    def instances(self) -> npt.NDArray[np.int32]:
        """Ids of cells (H, W) from 1, in reading order. Raises UserError if the task tells none apart."""
        prediction = self.prediction
        if prediction.instances is not None:
            ids = prediction.instances
        elif prediction.approximate is not None:
            ids = prediction.approximate()
        else:
            name = self.predictor.experiment.task.part.name
            raise UserError(f"the task '{name}' tells no cells apart; use labels or probabilities")
        return np.asarray(ids.cpu().numpy().astype(np.int32))

    @cached_property
    def cells(self) -> Any:
        """The measurements of the cells, a row for each, with the columns of `cells.csv` except the image.

        A `pandas.DataFrame` if pandas is installed, else a `CellTable`; both give a column by its name and have as
        their length the number of cells. Raises UserError if the task tells none apart.
        """
        table = self.table
        return importlib.import_module("pandas").DataFrame(table) if find_spec("pandas") else CellTable(table)

    @cached_property
    def table(self) -> dict[str, Array]:
        """The columns of `cells` as arrays."""
        task, image = self.predictor.task, self.image
        planes = self.probabilities if self.probabilities.ndim == 3 else self.probabilities[None]
        confidence = task.confidence(planes) if isinstance(task, TellsInstances | Semantic) else None
        table = measure(self.instances, image.whole, confidence=confidence, pixel_um=image.pixel_um)
        return {**table, "method": np.full(len(table["label"]), METHOD)} if self.approximate else table

    @property
    def _said(self) -> str:
        """A line about the result: size, shares of the classes, number of cells."""
        height, width = self.image.size
        shares = (f"{name} {format_share(float((self.labels == i).mean()))}" for i, name in enumerate(self.classes))
        counted = [format_count(int(self.instances.max(initial=0)), "cell")] if self.tells_cells else []
        return "; ".join([f"{height}×{width} pixels", *shares, *counted, *([METHOD] if self.approximate else [])])

    def __repr__(self) -> str:
        return f"Result({self._said})"

    def overlay(self) -> npt.NDArray[np.uint8]:
        """Return the image in grey (h, w, 3), every n-th pixel if it is large, with outlines of cells or classes."""
        shown = self.instances if self.tells_cells else self.labels
        drawn = overlay(self.image, shown, 1, numbers=self.tells_cells, side=SHOWN)
        return np.ascontiguousarray(np.moveaxis(drawn, 0, -1))

    def _repr_html_(self) -> str:
        """The overlay and a line about it, for a notebook."""
        drawn = self.overlay()
        png = io.BytesIO()
        Image.fromarray(drawn).save(png, "PNG")
        enlarged = max(1, LEAST_SHOWN // max(drawn.shape[:2])) * drawn.shape[1]
        return (
            f'<img width="{enlarged}" alt="overlay" src="data:image/png;base64,'
            f'{base64.b64encode(png.getvalue()).decode()}"><br>{html.escape(self._said)}'
        )


class TrainedModel:
    """A run's model with everything that it needs before and after it; `load` returns one.

    Several threads may use it, one of which computes at a time.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of their indices."""
        return self.predictor.classes

    @property
    def channels(self) -> int:
        """The number of channels that images must have."""
        return self.predictor.experiment.task.channels

    def __repr__(self) -> str:
        experiment = self.predictor.experiment
        parts = f"{experiment.model.name} of '{experiment.name}' after {self.predictor.step} steps"
        return f"TrainedModel({parts}, {self.channels} channels to {', '.join(self.classes)})"

    @overload
    def predict(
        self,
        image: Array,
        *,
        pixel_um: float | None = None,
        normalization: Mapping[str, Any] | None = None,
        tta: bool = False,
        tile: int | None = None,
    ) -> Result: ...

    @overload
    def predict(
        self,
        image: Sequence[Array],
        *,
        pixel_um: float | None = None,
        normalization: Mapping[str, Any] | None = None,
        tta: bool = False,
        tile: int | None = None,
    ) -> list[Result]: ...

    def predict(
        self,
        image: Array | Sequence[Array],
        *,
        pixel_um: float | None = None,
        normalization: Mapping[str, Any] | None = None,
        tta: bool = False,
        tile: int | None = None,
    ) -> Result | list[Result]:
        """Return what the command `predict` writes of an image (H, W) or (C, H, W), or of each image in a list.

        Values are those that images were recorded with, of any type of integers or floats; of a data set that is
        stored normalised, `normalization` says how. `pixel_um` is the side of a pixel in micrometres, for areas. With
        `tta` all eight flips and rotations are averaged. An image that is too large for memory, or than `tile` pixels,
        is cut into tiles, which give what the whole image gives. Warns if values are unlike those of the training
        images. Raises UserError if it is no such image, or has another number of channels, or NaN.
        """
        if tile is not None and not (isinstance(tile, int | np.integer) and tile >= 1):
            raise UserError(f"tile: should be a number of pixels from 1 on, got {tile!r}")
        options = Options(tta, tile=tile)
        if pixel_um is not None and not (isinstance(pixel_um, int | float | np.number) and 0 < pixel_um < np.inf):
            raise UserError(f"pixel_um: should be the side of a pixel in micrometres, got {pixel_um!r}")
        if not isinstance(normalization, Mapping | None):
            raise UserError(f"normalization: should be a table with 'mean' and 'std', got {normalization!r}")
        given = (pixel_um, None if normalization is None else dict(normalization))
        if isinstance(image, list | tuple):
            stored = [self._stored(each, f"images[{index}]", *given) for index, each in enumerate(image)]
            return [*map(partial(self._result, options=options), stored)]
        return self._result(self._stored(image, "image", *given), options)

    def _stored(
        self, given: object, name: str, pixel_um: float | None, normalization: dict[str, Any] | None
    ) -> StoredImage:
        """Return an image as `predict` reads it from files; raises UserError if the model cannot take it."""
        # These errors are those of tensors on a GPU, or that need gradients, and of ragged lists.
        try:
            array = np.asarray(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name}: cannot be made an array ({' '.join(str(error).split())})") from None
        if array.dtype.kind not in "uif":
            kind = f"an array of {array.dtype}" if hasattr(given, "dtype") else type(given).__name__
            raise UserError(f"{name}: is {kind}; give an array (H, W) or (C, H, W) of integers or floats")
        if array.ndim not in (2, 3):
            remedy = "give a list of images" if array.ndim == 4 else "give an array (H, W) or (C, H, W)"
            raise UserError(f"{name}: has the shape {array.shape}; {remedy}")
        # A guess that only chooses the message: the first dimension is too long for channels and the last one is not.
        channels_last = array.ndim == 3 and (
            array.shape[-1] == self.channels or array.shape[0] > 4 >= array.shape[-1] > 2
        )
        if channels_last and array.shape[0] != self.channels:
            remedy = "give (C, H, W), as np.moveaxis(image, -1, 0) is"
            raise UserError(f"{name}: has the shape {array.shape}, channels last; {remedy}")
        if not array.size:
            raise UserError(f"{name}: has the shape {array.shape}, and so no pixels")
        # A copy, for cells are measured later, and the caller may read the next image into the same array.
        array = array.astype(array.dtype.newbyteorder("="))
        array = array if array.ndim == 3 else array[None]
        refuse_incomplete(normalization, len(array), GIVEN)
        stored = StoredImage.of(name, array)
        stored = replace(stored, normalization=normalization, pixel_um=pixel_um)
        return self.predictor.fitting(stored, grey="give one, as image[0], or a list of images")

    def _result(self, image: StoredImage, options: Options) -> Result:
        """Predict an image while no other thread computes; warn if its values are unlike the training images'."""
        with _computing:
            if warning := range_warning(self.predictor, image):
                warnings.warn(warning, stacklevel=3)
            try:
                return self._computed(image, options)
            except RuntimeError as error:
                if not memory.is_exhausted(error):
                    raise
                raise UserError(f"{image.name}: memory does not suffice; take smaller tiles, as tile=512") from error

    def _computed(self, image: StoredImage, options: Options) -> Result:
        """Assemble the logits and planes of all tiles of an image, and decode them."""
        task = self.predictor.task
        logits: Any = None
        for rows, columns, part in logits_in_tiles(self.predictor, image, options):
            refuse_nan_outputs(image.name, part)
            kept = task.kept(task.activate(part.float())).cpu().numpy()
            # An image that is predicted in one piece needs no second copy of its logits.
            if logits is None:
                logits = part if part.shape[1:] == image.size else part.new_empty((len(part), *image.size))
                planes = np.empty((len(kept), *image.size), np.float32)
            if logits is not part:
                logits[:, rows, columns] = part
            planes[:, rows, columns] = kept
        prediction = task.decode(logits)
        labels = prediction.labels.cpu().numpy().astype(np.uint8)
        shown = planes if len(planes) > 1 else planes[0]
        return Result(labels, shown, self.classes, image, self.predictor, prediction)


def load(
    run: str | os.PathLike[str],
    checkpoint: Which = "best",
    *,
    device: str = "auto",
    trust_plugins: bool = False,
) -> TrainedModel:
    """Return the model of a run directory, or of an ONNX file that `export` wrote, ready to predict.

    "yeast" stands for the pretrained weights that come with the package.

    `checkpoint` ("best" or "last") and `device` ("cpu", "cuda" or "auto") are for runs. The run's data need not be
    there. Raises UserError if there is no run, or if it brings Python code that was not run here before and
    `trust_plugins` does not allow that.
    """
    if checkpoint not in ("best", "last"):
        raise UserError(f"checkpoint: should be 'best' or 'last', got {checkpoint!r}")
    with _computing, trust.trusting() if trust_plugins else nullcontext():
        cores.keep_to_allowed()
        if is_exported(path := pretrained.located(Path(run))):
            refuse_options_of_runs(path, checkpoint, device, "{}={!r}")
            predictor = load_exported(path)
        else:
            predictor = load_predictor(path, checkpoint, device)
    for note in predictor.notes:
        warnings.warn(note, stacklevel=2)
    return TrainedModel(predictor)
