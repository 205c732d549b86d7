"""BioImage.IO packages: weights with an rdf.yaml in the oldest version of format 0.5 that its consumers read (0.5.3).

The YAML is written here and not by a package of BioImage.IO, which would be one more dependency, and would write the
newest version of the format. The weights are those of the network alone, as the format describes normalisation by
standard preprocessing operations.
"""

from __future__ import annotations

import hashlib
import io
import json
import keyword
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yeastexp.data.hdf5_file import refuse_overwriting
from yeastexp.data.normalization import rescaled
from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.drawing import pictures
from yeastexp.errors import UserError
from yeastexp.export import proof
from yeastexp.export.export import TITLES, Exportable, halo_of, meaning, proof_line, proven, reach
from yeastexp.export.formats import OPSET, Onnx, TorchScript
from yeastexp.export.network import acting
from yeastexp.metrics.summary import formatter, shown
from yeastexp.prediction.exported import Description
from yeastexp.prediction.predictor import Predictor, load_predictor
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import files
from yeastexp.system.formatting import format_count, format_interval
from yeastexp.training.build import build_dataset
from yeastexp.training.run_directory import RunDirectory, Which

FORMAT = "0.5.3"
EPSILON = 1e-12
"""The number that is added to divisors, so that constant images stay finite."""

TESTED = 256
"""The least side of the test image in pixels."""

COVER_SIDE = 400
"""The side in pixels of each half of the cover."""

LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
LONGEST_NAME, SHORTEST_NAME = 128, 5
WRITTEN = (1980, 1, 1, 0, 0, 0)
"""The time of all files in a package: equal runs give equal bytes."""

Yaml = Any
"""A value that JSON can hold."""


def export(
    run: Path,
    output: Path,
    *,
    licence: str | None,
    authors: Sequence[str] = (),
    checkpoint: Which = "best",
    force: bool = False,
) -> tuple[Description, list[str]]:
    """Write a run's model as a package. Returns its description, and lines for its user.

    Raises UserError, and writes nothing, without a valid licence, if a transform has no standard operation, or if the
    network cannot be traced or deviates from PyTorch.
    """
    if licence is None:
        raise UserError("--as bioimageio: add --licence with what others may do (SPDX identifier, as CC-BY-4.0 or MIT)")
    if not LICENCE.fullmatch(licence):
        raise UserError(f"--licence {licence}: should be an SPDX identifier, as CC-BY-4.0 or MIT")
    refuse_overwriting(output, force)
    predictor = load_predictor(run, checkpoint, "cpu")
    preprocessing = operations(predictor)
    exportable = Exportable.of(predictor, alone=True)
    directory = RunDirectory(run)
    described = exportable.described(run, directory.checkpoint(checkpoint))
    traced = {"onnx": exportable.traced("onnx"), "torchscript": exportable.traced("torchscript")}
    # One description stands for both formats of weights: that of the larger deviation.
    described = max(
        (proven(exportable, each, described, TITLES[kind]) for kind, each in traced.items()),
        key=lambda each: max(row["deviation"] for row in each.proof),
    )
    sample, origin = sample_to_test(predictor, tested_side(described, halo_of(described)))
    halo = packaged_halo(described, sample.pixel_um)
    image = mirrored(sample.image, tested_side(described, halo))
    with torch.no_grad():
        outputs = predictor.model(normalized(predictor, image)[None])
    contents = {
        "weights.pt": _bare(traced["torchscript"]),
        "weights.onnx": _bare(traced["onnx"]),
        "test_input.npy": npy(image[None]),
        "test_output.npy": npy(outputs),
        "cover.jpg": pictures.jpeg(cover_of(predictor, sample)),
    }
    contents["README.md"] = documentation(described, directory, predictor, licence, origin, halo).encode()
    rdf = description(described, sample.pixel_um, halo, preprocessing, contents, licence, authors)
    package = {"rdf.yaml": (yaml(rdf) + "\n").encode(), **contents}
    with files.appearing(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in package.items():
            entry = zipfile.ZipInfo(name, WRITTEN)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return described, [f"test image and cover: {origin}"]


def _bare(traced: Any) -> bytes:
    assert isinstance(traced, Onnx | TorchScript)
    return traced.bare()


def npy(values: Tensor) -> bytes:
    """The content of a NumPy file."""
    buffer = io.BytesIO()
    np.save(buffer, values.numpy(), allow_pickle=False)
    return buffer.getvalue()


def normalized(predictor: Predictor, image: Tensor) -> Tensor:
    """The network's input (C, H, W) for an image (C, H, W) as recorded."""
    sample = Sample(predictor.rescaled(image, None), torch.full(image.shape[-2:], IGNORE), "test")
    return pipeline.whole(predictor.transforms, sample).image


# Preprocessing


def operations(predictor: Predictor) -> list[Yaml]:
    """The transforms as standard operations of the format. Raises UserError if a transform has no equivalent."""
    found: list[Yaml] = []
    if stored := predictor.normalization:
        found.append(_fixed(stored["mean"], stored["std"]))
    for transform in acting(predictor.transforms):
        axes = ["channel", "y", "x"] if getattr(transform, "joint", False) else ["y", "x"]
        if type(transform) is ZScore and transform.per == "image":
            found.append({"id": "zero_mean_unit_variance", "kwargs": {"axes": axes, "eps": EPSILON}})
        elif type(transform) is ZScore:
            found.append(_fixed(transform.mean, transform.std))
        elif type(transform) is Percentile and transform.per == "image":
            ends = {"min_percentile": transform.low, "max_percentile": transform.high}
            found.append({"id": "scale_range", "kwargs": {"axes": axes, **ends, "eps": EPSILON}})
        elif type(transform) is Percentile:
            low: npt.NDArray[np.float64] = np.atleast_1d(np.asarray(transform.at_low, np.float64))
            high: npt.NDArray[np.float64] = np.atleast_1d(np.asarray(transform.at_high, np.float64))
            gain = 1 / np.maximum(high - low, EPSILON)
            found.append(_numbers("scale_linear", gain=gain.tolist(), offset=(-low * gain).tolist()))
        else:
            name = type(transform).__name__
            fault = f"--as bioimageio: no standard operation does what the transform {name} does"
            raise UserError(f"{fault}; export as onnx, and apply it before")
    return found


def _fixed(mean: Any, std: Any) -> Yaml:
    means, stds = ([*value] if isinstance(value, list | tuple) else [value] for value in (mean, std))
    return _numbers("fixed_zero_mean_unit_variance", mean=means, std=stds)


def _numbers(name: str, **numbers: list[float]) -> Yaml:
    """An operation with a single value of each parameter, or with one for each channel."""
    several = any(len(each) > 1 for each in numbers.values())
    if several:
        return {"id": name, "kwargs": {"axis": "channel", **numbers}}
    return {"id": name, "kwargs": {key: each[0] for key, each in numbers.items()}}


# The test image


def step_of(described: Description) -> int:
    """The number that sides of images should be multiples of, so that tiles are exact."""
    return math.lcm(described.stride, described.multiple)


def packaged_halo(described: Description, pixel_um: float | None) -> int:
    """The halo in pixels that the package states, at least that of the network."""
    # Readers multiply the halo by the size of a pixel, divide it by the same, and refuse a result that is no whole
    # number. For 24 pixels of 0.2 µm, rounding leaves 24.000000000000004: then the next multiple is taken.
    halo = halo_of(described)
    while pixel_um and not (halo * pixel_um / pixel_um).is_integer():
        halo += described.stride
    return halo


def least_side(described: Description, halo: int) -> int:
    """The least side of an image in pixels: at least one pixel is left between the halos."""
    step = step_of(described)
    return -(-max(described.smallest, 2 * halo + 1) // step) * step


def tested_side(described: Description, halo: int) -> int:
    """The side of the test image in pixels."""
    return -(-max(TESTED, least_side(described, halo)) // step_of(described)) * step_of(described)


def sample_to_test(predictor: Predictor, side: int) -> tuple[Sample, str]:
    """The middle of a validation image, or synthetic discs without the data; and a phrase on its origin."""
    try:
        dataset = build_dataset(predictor.experiment)
        name = dataset.splits["val"][0]
        stored = dataset.read(name)
        image, pixel_um = rescaled(stored.image, dataset.normalization, None), stored.pixel_um
        origin = f"'{name}', the first validation image"
    except (UserError, OSError, KeyError, IndexError):
        known = predictor.trained_on
        low, high = (known.low, known.high) if known else (0.0, 255.0)
        image, pixel_um = proof.image(predictor.experiment.task.channels, (side, side), low, high)[0], None
        origin = "made discs, for the run's data are not there"
    top, left = (max(0, length - side) // 2 for length in image.shape[-2:])
    cut = image[:, top : top + side, left : left + side].float()
    return Sample(cut, torch.full(cut.shape[-2:], IGNORE), "test", pixel_um=pixel_um), origin


def mirrored(image: Tensor, side: int) -> Tensor:
    """An image (C, h, w) padded by reflection, to the right and below, to a square (C, side, side)."""
    margins = [(0, side - length) for length in image.shape[-2:]]
    return torch.from_numpy(np.pad(image.numpy(), [(0, 0), *margins], mode="symmetric"))


def cover_of(predictor: Predictor, sample: Sample) -> pictures.Picture:
    """The cover: the test image, and beside it the same with outlines of the run's prediction."""
    prediction = predictor.predict(replace(sample, image=predictor.rescaled(sample.image, None)))
    predicted = prediction.labels if prediction.instances is None else prediction.instances
    image = sample.image.numpy()
    halves = [pictures.tile(image, labels, COVER_SIDE) for labels in (None, predicted.cpu().numpy())]
    return np.concatenate(halves, axis=1)


# rdf.yaml


def description(
    described: Description,
    pixel_um: float | None,
    halo: int,
    preprocessing: list[Yaml],
    contents: Mapping[str, bytes],
    licence: str,
    authors: Sequence[str],
) -> dict[str, Yaml]:
    """The content of rdf.yaml."""
    um = {"scale": pixel_um, "unit": "micrometer"} if pixel_um else {}
    size = {"min": least_side(described, halo), "step": step_of(described)}

    def file(name: str) -> dict[str, Yaml]:
        return {"source": name, "sha256": hashlib.sha256(contents[name]).hexdigest()}

    def channels(names: Sequence[str]) -> Yaml:
        return {"type": "channel", "channel_names": list(identifiers(names))}

    image = [{"type": "space", "id": axis, "size": size, **um} for axis in "yx"]
    given: list[Yaml] = []
    for axis in "yx":
        own: dict[str, Yaml] = {"type": "space", "id": axis, "size": {"tensor_id": "image", "axis_id": axis}}
        given.append({**own, **({"halo": halo} if halo else {}), **um})
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": name_of(described.run),
        "description": f"Segmentation of microscope images (task {described.task.name}), trained with yeastexp",
        **({"authors": [{"name": author} for author in authors]} if authors else {}),
        "license": licence,
        "documentation": "README.md",
        "covers": ["cover.jpg"],
        "tags": ["segmentation", "2d", "pytorch", "yeastexp"],
        "inputs": [
            {
                "id": "image",
                "description": "with the values that were recorded",
                "axes": [{"type": "batch"}, channels([f"channel_{n}" for n in range(described.channels)]), *image],
                "data": {"type": "float32"},
                "test_tensor": file("test_input.npy"),
                "preprocessing": preprocessing,
            }
        ],
        "outputs": [
            {
                "id": "outputs",
                "description": meaning(described).removeprefix("; "),
                "axes": [{"type": "batch"}, channels(described.outputs), *given],
                "data": {"type": "float32"},
                "test_tensor": file("test_output.npy"),
            }
        ],
        "weights": {
            "torchscript": {**file("weights.pt"), "pytorch_version": torch.__version__.partition("+")[0]},
            "onnx": {**file("weights.onnx"), "opset_version": OPSET, "parent": "torchscript"},
        },
        "config": {"yeastexp": json.loads(described.as_json())},
    }


def identifiers(names: Sequence[str]) -> Iterator[str]:
    """Names as the format accepts them: letters, digits and underscores, all different."""
    taken = set[str]()
    for index, name in enumerate(names):
        plain = re.sub(r"\W", "_", name)
        plain = f"_{plain}" if plain[:1].isdigit() or keyword.iskeyword(plain) else plain
        plain = plain if plain not in taken else f"{plain}_{index}"
        taken.add(plain)
        yield plain


def name_of(run: str) -> str:
    """The model's name, of characters and of a length that the format accepts."""
    name = re.sub(r"[^A-Za-z0-9_ ()-]", "-", f"yeastexp {run}")
    return name[:LONGEST_NAME].strip().ljust(SHORTEST_NAME, "-")


def yaml(value: Yaml, indent: int = 0) -> str:
    """Plain values as YAML: tables and lists of tables in block style, all else as JSON, which is valid YAML."""
    pad = "  " * indent
    if not _is_nested(value):
        return f"{pad}{_scalar(value)}"
    if isinstance(value, Mapping):
        return "\n".join(f"{pad}{_key(key)}:{_below(inner, indent)}" for key, inner in value.items())
    return "\n".join(f"{pad}- {yaml(each, indent + 1).lstrip()}" for each in value)


def _key(key: str) -> str:
    """A key, quoted if YAML would not read it as text."""
    plain = re.fullmatch(r"[A-Za-z_]\w+", key) and key.lower() not in (
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
    )
    return key if plain else json.dumps(key)


def _below(value: Yaml, indent: int) -> str:
    return f"\n{yaml(value, indent + 1)}" if _is_nested(value) else f" {_scalar(value)}"


def _is_nested(value: Yaml) -> bool:
    """Whether a value is written in block style, on lines of its own."""
    if isinstance(value, Mapping):
        return len(value) > 0
    return isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)


def _scalar(value: Yaml) -> str:
    """A value as JSON that readers of YAML 1.1 understand as well."""
    # In YAML 1.1 a float with an exponent needs a dot: 1e-12 would be text.
    text = json.dumps(value)
    return re.sub(r"(?<![\w\".])(-?\d+)e([+-]\d+)", r"\1.0e\2", text) if not isinstance(value, str) else text


# README.md


def documentation(
    described: Description, run: RunDirectory, predictor: Predictor, licence: str, origin: str, halo: int
) -> str:
    """The README of a package, for somebody who was sent it."""
    task = described.task.name
    lines = [
        f"# {name_of(described.run)}",
        "",
        f"A network trained with yeastexp {described.version} for the task `{task}`; checkpoint at step "
        f"{described.step:,} (SHA-256 `{described.checkpoint}`). Licence: {licence}.",
        "",
        "## Inputs and outputs",
        "",
        f"- Images of {format_count(described.channels, 'channel')} with the values that were recorded; "
        "the package's preprocessing normalises them.",
        f"- Outputs: {', '.join(described.outputs)}{meaning(described)}.",
        f"- {reach(described)[:1].upper()}{reach(described)[1:]}; the package says a halo of {halo} pixels. "
        "Normalise whole images, not tiles.",
        *([_WHOLE] if halo else []),
        *_decoding(predictor, task),
        f"- Test image and cover: {origin}.",
        "",
        "## Validation",
        "",
        *_scores(run),
        "",
        "## Training data",
        "",
        *_training_data(run, predictor),
        "",
        "## Proof",
        "",
        f"The weights were loaded again by ONNX Runtime and LibTorch; {proof_line(described.proof)}.",
        "",
    ]
    return "\n".join(lines)


_WHOLE = (
    "- bioimageio.core from 0.11 on mirrors an image at its borders by the halo, which changes outputs there; with "
    "`skip_input_padding=True, skip_output_cropping=True`, `predict_sample_without_blocking` gives those of yeastexp."
)


def _decoding(predictor: Predictor, task: str) -> list[str]:
    """Lines on what yeastexp does after the network."""
    views = predictor.task.views
    lines = (
        [f"- yeastexp averages the outputs over {views} flips and rotations before it decodes."] if views > 1 else []
    )
    if task == "instances":
        lines.append(
            "- Cells are made of the outputs by a watershed of the hill, which stays in yeastexp: "
            "`python -m yeastexp export RUN -o model.onnx`, then `predict model.onnx IMAGES`."
        )
    return lines


def _scores(run: RunDirectory) -> list[str]:
    """A table of the validation scores beside the baselines."""
    try:
        result = run.read_result()
    except UserError:
        return ["The run is not finished, so there are none."]
    baselines: Mapping[str, Any] = result["baselines"]
    heading = ["metric", "class", "per image", "95 % interval", "pooled", *baselines]
    rows = [heading, ["---"] * len(heading)]
    for metric, by_class in result["val"]["best"].items():
        for name, row in by_class.items():
            form = formatter(metric, name)
            interval = format_interval(row["low"], row["high"], form)
            beside = [form(baseline[metric][name]["per_image"]) for baseline in baselines.values()]
            rows.append([shown(metric, ()), name, form(row["per_image"]), interval, form(row["pooled"]), *beside])
    said = "On the validation images"
    if result["val"].get("selected_on_these_images"):
        said += ", which also chose the checkpoint, so that the scores are optimistically biased"
    return [f"{said}; the last columns are baselines.", "", *(f"| {' | '.join(row)} |" for row in rows)]


def _training_data(run: RunDirectory, predictor: Predictor) -> list[str]:
    dataset = predictor.experiment.dataset
    try:
        digests = run.read_environment()["digests"]["data"]
    except UserError:
        digests = {}
    lines = [f"- `{name}`: SHA-256 `{digest}`" for name, digest in digests.items()]
    if not lines:
        plain = {key: value for key, value in dataset.options.items() if not isinstance(value, Path)}
        lines = [f"- data set `{dataset.name}`: `{json.dumps(plain, default=str)}`"]
    if known := predictor.trained_on:
        lines.append(f"- values from {known.low:g} to {known.high:g}")
    return lines
