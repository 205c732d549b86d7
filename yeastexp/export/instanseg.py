"""Folders that QuPath's InstanSeg extension opens: a TorchScript that gives label images, and an rdf.yaml.

From the extension's sources: it scales an image by two of its percentiles, gives tiles (1, C, H, W) to `instanseg.pt`,
takes a label image (1, 1, H, W) back, and joins the objects of overlapping tiles. It reads rdf.yaml in format 0.4,
which is therefore written here.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yeastexp.data.transforms.zscore import ZScore
from yeastexp.data.views import SYMMETRIES
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.export.bioimage_io import least_side, mirrored, name_of, npy, sample_to_test, step_of, tested_side, yaml
from yeastexp.export.export import TITLES, Exportable, halo_of, proof_line, proven
from yeastexp.export.formats import quiet
from yeastexp.export.network import acting
from yeastexp.export.scripted_watershed import LabelledCells, ScriptedWatershed
from yeastexp.prediction.exported import Description
from yeastexp.prediction.predictor import Predictor, load_predictor
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import files
from yeastexp.system.formatting import format_count
from yeastexp.tasks.instances import Instances
from yeastexp.training.run_directory import RunDirectory, Which

FORMAT = "0.4.10"
WEIGHTS, RDF = "instanseg.pt", "rdf.yaml"

LOW, HIGH, LEAST, MOST = 0.1, 99.9, -0.5, 1.5
"""The percentiles that QuPath scales to 0 and 1, and the values that it then clips to."""

TOLERATED = 1e-3
"""The share of pixels whose cell may differ from the run's."""


def export(
    run: Path,
    output: Path,
    *,
    licence: str | None = None,
    authors: Sequence[str] = (),
    checkpoint: Which = "best",
    force: bool = False,
) -> tuple[Description, list[str]]:
    """Write a run's model as a folder. Returns its description, and lines of what its user should know.

    Raises UserError, and writes nothing, if the run has another task than 'instances', if it does not normalise each
    image by itself, or if the exported model's cells are not those of the run.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; --as instanseg writes a folder")
    if output.is_dir() and any(output.iterdir()) and not (force and (output / WEIGHTS).exists()):
        remedy = "add --force to replace it, or name another" if (output / WEIGHTS).exists() else "name another folder"
        raise UserError(f"{output}: is a folder with files; {remedy}")
    predictor = load_predictor(run, checkpoint, "cpu")
    refuse_unlike_qupath(predictor)
    exportable = Exportable.of(predictor)
    described = exportable.described(run, RunDirectory(run).checkpoint(checkpoint))
    traced = exportable.traced("torchscript")
    described = proven(exportable, traced, described, TITLES["torchscript"])
    content = scripted(exportable, predictor.task)
    side = tested_side(described, halo_of(described))
    sample, origin = sample_to_test(predictor, side)
    image = mirrored(sample.image, side)[None]
    lines = compared(exportable, content, image)
    given = as_qupath_gives(image)
    with torch.no_grad(), quiet():
        labels = torch.jit.load(io.BytesIO(content))(given)
    unit = f"pixel size: not known, so {RDF} says 1 µm, to which QuPath scales images; write theirs there, under qupath"
    if sample.pixel_um:
        unit = f"pixel size: {sample.pixel_um:g} µm, to which QuPath scales images"
    lines = [
        f"{TITLES['instanseg']}: images of {format_count(described.channels, 'channel')} to label images of cells",
        proof_line(described.proof),
        *lines,
        unit,
        f"tiles: cells depend on {halo_of(described)} pixels around; each tile is normalised by its own statistics, so "
        "take the largest tiles",
    ]
    timestamp = datetime.fromtimestamp(RunDirectory(run).checkpoint(checkpoint).stat().st_mtime, UTC)
    contents = {
        WEIGHTS: content,
        "test_input.npy": npy(image),
        "test_output.npy": npy(labels),
        "README.md": "\n".join([f"# {name_of(described.run)}", "", *(f"- {line}" for line in lines), ""]).encode(),
    }
    rdf = description(described, sample.pixel_um, contents, licence, authors, timestamp.isoformat(timespec="seconds"))
    output.mkdir(parents=True, exist_ok=True)
    for name, each in {**contents, RDF: (yaml(rdf) + "\n").encode()}.items():
        with files.appearing(output / name) as temporary:
            temporary.write_bytes(each)
    return described, [*lines, f"test image: {origin}"]


def refuse_unlike_qupath(predictor: Predictor) -> None:
    """Raises UserError if the model's task is not 'instances', or if QuPath's scaling would change its input."""
    # A zscore of each image undoes any linear scaling of it. With constants of the training images, QuPath's scaled
    # values would be taken for recorded ones.
    task, fault = predictor.task, "--as instanseg: "
    if type(task) is not Instances:
        name = predictor.experiment.task.part.name
        raise UserError(f"{fault}is for runs of the task 'instances', not of '{name}'; see predict --as geojson")
    transforms = acting(predictor.transforms)
    alike = all(type(each) is ZScore and each.per == "image" for each in transforms) and transforms
    if predictor.normalization or not alike:
        fault += "QuPath scales each image by its own percentiles, so a run has to normalise each by itself"
        raise UserError(f'{fault}; train with [[transform]] zscore (per = "image") alone, or see predict --as geojson')


def scripted(exportable: Exportable, task: Any) -> bytes:
    """The TorchScript of normalisation, network, and the watershed with the thresholds that the task has fitted."""
    # The network is traced, for models of plugins need not compile; the watershed is compiled, for its loops depend on
    # the image, and a trace would repeat those of the example.
    network = exportable.deployed.network
    example = exportable.example()
    with quiet(), torch.no_grad():
        normalization, traced = (
            torch.jit.trace(each, example, check_trace=False) for each in (exportable.deployed.normalization, network)
        )
        views = SYMMETRIES[: task.views]
        module = torch.jit.script(LabelledCells(normalization, traced, ScriptedWatershed(task.watershed), views))
        buffer = io.BytesIO()
        torch.jit.save(module.eval(), buffer)
    return buffer.getvalue()


def as_qupath_gives(image: Tensor) -> Tensor:
    """An image (1, C, H, W) scaled as QuPath scales it."""
    flat = image.double().flatten(2)
    low, high = (torch.quantile(flat, share / 100, dim=2)[..., None, None] for share in (LOW, HIGH))
    return ((image - low) / (high - low + 1e-6)).clamp(LEAST, MOST).float()


def compared(exportable: Exportable, content: bytes, image: Tensor) -> list[str]:
    """Sentences on how many pixels are of other cells than the run predicts. Raises UserError if they are too many."""
    with quiet():
        loaded = torch.jit.load(io.BytesIO(content))
    differ = pixels = cells = 0
    for each in (*exportable.images(), image):
        wanted = _cells(exportable.predictor, each)
        with quiet(), torch.no_grad():
            found = loaded(each)[0, 0].long()
        differ, pixels, cells = (
            differ + int((found != wanted).sum()),
            pixels + wanted.numel(),
            cells + int(wanted.max()),
        )
    line = f"cells of {pixels:,} pixels ({format_count(cells, 'cell')}): {differ:,} differ from the run's"
    if differ > TOLERATED * pixels:
        raise UserError(f"--as instanseg: {line}; nothing was written", status=RUN_FAILED)
    with quiet(), torch.no_grad():
        found = loaded(as_qupath_gives(image))[0, 0].long()
    wanted = _cells(exportable.predictor, image)
    scaled = (
        f"{int(wanted.max())} and {int(found.max())} cells, {int(((found > 0) != (wanted > 0)).sum()):,} pixels differ"
    )
    return [line, f"test image as recorded and as QuPath scales it: {scaled} in being cell"]


def _cells(predictor: Predictor, image: Tensor) -> Tensor:
    unlabelled = torch.full(image.shape[-2:], IGNORE)
    cells = predictor.predict(Sample(predictor.rescaled(image[0], None), unlabelled, "")).instances
    assert cells is not None
    return cells.long()


def description(
    described: Description,
    pixel_um: float | None,
    contents: dict[str, bytes],
    licence: str | None,
    authors: Sequence[str],
    timestamp: str,
) -> dict[str, Any]:
    """The content of rdf.yaml in format 0.4."""
    least, step = least_side(described, halo_of(described)), step_of(described)
    scale = {"mode": "per_sample", "axes": "yx", "min_percentile": LOW, "max_percentile": HIGH}
    clip = {"min": LEAST, "max": MOST}
    axes = [{"role": role, "step": float(pixel_um or 1), "unit": "um" if pixel_um else None} for role in "xy"]
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": name_of(described.run),
        "description": "Cells in microscope images, trained with yeastexp, for QuPath's InstanSeg extension",
        "authors": [{"name": author} for author in authors or ("unknown",)],
        "cite": [{"text": "InstanSeg, whose extension for QuPath runs this model", "doi": "10.48550/arXiv.2408.15954"}],
        "documentation": "README.md",
        "license": licence or "not given",
        "tags": ["segmentation", "instance-segmentation", "2d", "pytorch", "yeastexp"],
        "timestamp": timestamp,
        "inputs": [
            {
                "name": "image",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"min": [1, described.channels, least, least], "step": [0, 0, step, step]},
                "preprocessing": [{"name": "scale_range", "kwargs": scale}, {"name": "clip", "kwargs": clip}],
            }
        ],
        "outputs": [
            {
                "name": "cells",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"reference_tensor": "image", "scale": [1.0, 0.0, 1.0, 1.0], "offset": [0.0, 0.5, 0.0, 0.0]},
            }
        ],
        "test_inputs": ["test_input.npy"],
        "test_outputs": ["test_output.npy"],
        "weights": {
            "torchscript": {
                "source": WEIGHTS,
                "sha256": hashlib.sha256(contents[WEIGHTS]).hexdigest(),
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
        "config": {"qupath": {"axes": axes}, "yeastexp": json.loads(described.as_json())},
    }
