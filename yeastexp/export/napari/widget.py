"""The widget "Segment with a run" for napari: from an image layer to label layers, as `yx.load(run).predict` returns.

napari builds the widget from the annotations of `segment`. This module therefore does not postpone the evaluation of
annotations: only those of napari's types are strings, so that napari need not be imported here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt

from yeastexp.errors import UserError
from yeastexp.export.napari.reader import Frames, Layer
from yeastexp.prediction.trained import Result, TrainedModel, load

if TYPE_CHECKING:
    import napari

Array = npt.NDArray[Any]
Index = tuple[int, ...]

RUN = {
    "mode": "d",
    "tooltip": "A run directory, as runs/base/001; or type the name of an exported .onnx file",
}


def segment(
    viewer: "napari.Viewer",
    image: "napari.layers.Image",
    run: Annotated[Path, RUN],
    all_images: Annotated[bool, {"tooltip": "All images of a stack, instead of the one that is shown"}] = False,
    tta: Annotated[bool, {"label": "average views", "tooltip": "Average over the eight flips and rotations"}] = False,
    trust_plugins: Annotated[bool, {"tooltip": "Run Python code that a run brings with it"}] = False,
) -> "napari.qt.threading.FunctionWorker[list[napari.types.LayerDataTuple]]":
    """Segment an image with a trained run. Of a run that takes several channels, select their layers in the list."""
    from napari.qt.threading import create_worker

    selected = [layer for layer in viewer.layers if layer in viewer.layers.selection]
    shown = None if all_images else shown_index(image, viewer.dims.point)

    def work() -> list[Layer]:
        return segmented(load(run, trust_plugins=trust_plugins), image, selected, shown, tta=tta)

    return create_worker(work, _progress={"desc": "segmenting"}, _start_thread=True)


def shown_index(layer: Any, point: Sequence[float]) -> Index:
    """The index of the image of a stack (…, H, W) that is shown at a point of the viewer; empty for a single image."""
    stack = _stack_shape(layer)
    place = layer.world_to_data(point[-layer.ndim :])[: len(stack)]
    return tuple(int(np.clip(round(at), 0, length - 1)) for at, length in zip(place, stack, strict=True))


def segmented(
    model: TrainedModel, layer: Any, selected: Sequence[Any], shown: Index | None, *, tta: bool = False
) -> list[Layer]:
    """The label layers of the image at index `shown` of a layer, or of its whole stack if that is None.

    They are cells if the run predicts instances, else classes and, hidden at first, approximate cells. Raises UserError
    if the layers are not images that the model accepts.
    """
    layers = _of_channels(model, layer, selected)
    pixel_um = _pixel_um(layer)
    stack = _stack_shape(layer)
    indices = [*np.ndindex(stack)] if shown is None else [shown]
    results = [
        model.predict(
            _image(layers, index), pixel_um=pixel_um, normalization=layer.metadata.get("normalization"), tta=tta
        )
        for index in indices
    ]
    exact = results[0].prediction.instances is not None
    planes: dict[str, Sequence[Array]] = {} if exact else {"classes": [each.labels for each in results]}
    if results[0].tells_cells:
        planes["cells" if exact else "approximate cells"] = [each.instances for each in results]
    return [
        (
            _joined(layer, found, shown),
            {
                "name": f"{layer.name} {title}",
                "visible": title != "approximate cells",
                **_placed(layer, shown),
                **({} if len(results) > 1 else {"features": _features(results[0], title)}),
            },
            "labels",
        )
        for title, found in planes.items()
    ]


def _of_channels(model: TrainedModel, layer: Any, selected: Sequence[Any]) -> Sequence[Any]:
    """The layers that hold the model's channels. Raises UserError if the selection does not tell them."""
    if layer.rgb or model.channels == 1:
        return [layer]
    alike = [each for each in selected if type(each) is type(layer) and _data(each).shape == _data(layer).shape]
    if len(alike) != model.channels:
        remedy = f"select the {model.channels} layers of its channels in the list, in their order from below"
        raise UserError(f"the run takes {model.channels} channels; {remedy} (of a stack: right-click, Split Stack)")
    return alike


def _image(layers: Sequence[Any], index: Index) -> Array:
    """An image (C, H, W), or (H, W) of one channel, without the padding of stacks of several sizes."""
    found = [_data(layer) for layer in layers]
    planes = [each.frame(index[0]) if isinstance(each, Frames) else np.asarray(each[index]) for each in found]
    if layers[0].rgb:
        return np.moveaxis(planes[0][..., :3], -1, 0)
    return planes[0] if len(planes) == 1 else np.stack(planes)


def _data(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _stack_shape(layer: Any) -> Index:
    """The lengths of the axes before height and width."""
    return tuple(_data(layer).shape)[: -3 if layer.rgb else -2]


def _size(layer: Any) -> Index:
    shape = tuple(_data(layer).shape)
    return shape[-3:-1] if layer.rgb else shape[-2:]


def _joined(layer: Any, planes: Sequence[Array], shown: Index | None) -> Array:
    """Label images as a stack of the layer's shape, or as a stack of one if a single image is shown."""
    stack = _stack_shape(layer) if shown is None else (1,) * len(shown)
    joined = np.zeros((len(planes), *_size(layer)), np.int32)
    for place, plane in zip(joined, planes, strict=True):
        place[: plane.shape[0], : plane.shape[1]] = plane
    return joined.reshape(*stack, *_size(layer))


def _placed(layer: Any, shown: Index | None) -> dict[str, Any]:
    """The keywords that draw labels over the image that they belong to."""
    translate = np.array(layer.translate, float)
    if shown:
        translate[: len(shown)] += np.array(layer.scale)[: len(shown)] * shown
    kept = ("scale", "rotate", "shear", "affine", "units", "axis_labels")
    return {"translate": translate, **{name: getattr(layer, name) for name in kept}}


def _pixel_um(layer: Any) -> float | None:
    """The side of a pixel in micrometres; None if the layer's unit is another one."""
    return float(layer.scale[-1]) if str(layer.units[-1]) == "micrometer" else None


def _features(result: Result, title: str) -> dict[str, Any]:
    """The features that napari shows for the label at the pointer."""
    if title == "classes":
        return {"index": [*range(len(result.classes))], "class": [*result.classes]}
    table = dict(result.table)
    return {"index": table.pop("label"), **table}
