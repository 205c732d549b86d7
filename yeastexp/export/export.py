"""The export of a run for other programs: traced, compared with PyTorch, then written whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yeastexp.config.experiment import Part
from yeastexp.contracts import Task
from yeastexp.data.hdf5_file import refuse_overwriting
from yeastexp.errors import UserError, did_you_mean
from yeastexp.export import proof
from yeastexp.export.formats import OPSET, Onnx, Program, Run, TorchScript, Traced, example
from yeastexp.export.network import LARGEST, Deployed, normalization_of, output_names, sides
from yeastexp.prediction import exported
from yeastexp.prediction.exported import Description, PlainPart
from yeastexp.prediction.predictor import Predictor, load_predictor
from yeastexp.registry import KINDS
from yeastexp.system import files
from yeastexp.system.environment import installed
from yeastexp.system.formatting import format_count
from yeastexp.training.run_directory import RunDirectory, Which

FORMATS: Mapping[str, type[Onnx] | type[TorchScript] | type[Program]] = {
    "onnx": Onnx,
    "torchscript": TorchScript,
    "torch.export": Program,
}
"""The formats of networks, by the names that `--as` takes."""

SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".pt2": "torch.export", ".zip": "bioimageio"}
"""The formats by the suffixes of files."""

TITLES = {
    "onnx": f"ONNX, opset {OPSET}",
    "torchscript": "TorchScript",
    "torch.export": "torch.export program",
    "bioimageio": "BioImage.IO package",
    "instanseg": "folder for QuPath's InstanSeg",
}


@dataclass(frozen=True)
class Exportable:
    """A predictor on the CPU, and its network in the form in which other programs run it."""

    predictor: Predictor
    deployed: Deployed
    inside: bool
    """Whether the normalisation is part of the exported network."""
    multiple: int
    """The number that height and width of images have to be multiples of."""
    smallest: int
    """The least height and width of an image."""

    @classmethod
    def of(cls, predictor: Predictor, alone: bool = False) -> Exportable:
        """Prepare a predictor for export, its network with the normalisation before it, or `alone`.

        Raises UserError if the network accepts no image size, or does not return outputs of the image's size.
        """
        channels = predictor.experiment.task.channels
        # Undoes [runtime] channels_last, which may have been chosen for another machine.
        network = predictor.model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        multiple, smallest = sides(network, channels, predictor.tiling)
        stored = predictor.normalization
        normalization = None if alone else normalization_of(predictor.transforms, stored, channels)
        deployed = Deployed(nn.Sequential() if normalization is None else normalization, network).eval()
        return cls(predictor, deployed, normalization is not None, multiple, smallest)

    @property
    def task(self) -> Task:
        """The task, which says what the outputs mean."""
        return self.predictor.task

    def traced(self, kind: str) -> Traced:
        """The network traced in a format, by its key in `FORMATS`."""
        return FORMATS[kind](self.deployed, self.example())

    def example(self) -> torch.Tensor:
        """An image (B, C, H, W) of a size that the network can be traced with."""
        grid = math.lcm(self.multiple, self.predictor.tiling.stride)
        return example(self.predictor.experiment.task.channels, grid)

    def images(self) -> list[torch.Tensor]:
        """The images that it is compared with PyTorch on."""
        # In the range that the network is used in: that of recorded values, or about that of normalised ones.
        known = self.predictor.trained_on if self.inside else None
        low, high = (known.low, known.high) if known else (-2.0, 2.0)
        channels = self.predictor.experiment.task.channels
        return [proof.image(channels, size, low, high) for size in proof.sizes(self.multiple, self.smallest)]

    def described(self, run: Path, checkpoint: Path) -> Description:
        """The description that is written beside the weights."""
        # Parts of plugins (`behind`) are Python that the file cannot hold: it names them, but not their state.
        predictor, table, tiling = self.predictor, self.predictor.experiment.task, self.predictor.tiling
        parts, stored = predictor.experiment.transforms, predictor.normalization
        kept = [part for part in parts if not (stored and part.build().normalizes)]
        behind = [each for each in (table.part, *kept) if KINDS[each.kind].find(each.name).foreign]
        known = predictor.trained_on
        return Description(
            format=exported.FORMAT,
            version=installed("yeastexp") or "",
            run="/".join(run.resolve().parts[-2:]),
            checkpoint=files.digest(checkpoint),
            step=predictor.step,
            channels=table.channels,
            classes=table.classes,
            task=PlainPart(table.part.name, table.part.options),
            learnt=self.task.state_dict() if table.part not in behind else {},
            outputs=output_names(self.task, table.classes),
            transforms=tuple(
                PlainPart(part.name, dict(vars(transform)) if part not in behind else {})
                for part, transform in zip(kept, predictor.transforms, strict=True)
            ),
            inside=self.inside,
            normalization=None if predictor.normalization is None else dict(predictor.normalization),
            values=None if known is None else dict(vars(known)),
            stride=tiling.stride,
            margins=tiling.margins,
            bytes_per_pixel=tiling.bytes_per_pixel,
            inexact=tiling.inexact,
            off_grid=tiling.off_grid,
            multiple=self.multiple,
            smallest=self.smallest,
            stays_behind=tuple(map(_label, behind)),
            channel_names=predictor.channel_names,
        )


def _label(part: Part) -> str:
    return f"{part.kind} '{part.name}'"


def kind_of(output: Path, kind: str | None, known: Mapping[str, str] = SUFFIXES) -> str:
    """The format that `--as` or the file's suffix names. Raises UserError if neither does."""
    if kind is not None:
        if kind in TITLES:
            return kind
        raise UserError(f"--as {kind}: unknown format{did_you_mean(kind, TITLES)}")
    if output.suffix.lower() in known:
        return known[output.suffix.lower()]
    names = ", ".join(f"{name} for {suffix}" for suffix, name in known.items())
    raise UserError(f"{output}: its name does not say the format; add --as, or a suffix ({names})")


def export(run: Path, output: Path, *, kind: str, checkpoint: Which = "best", force: bool = False) -> Description:
    """Write a run's network in the format `kind`. Returns its description with the proof.

    Raises UserError, and writes nothing, if the network cannot be traced, or if its outputs deviate from PyTorch's by
    more than `proof.LIMIT`.
    """
    refuse_overwriting(output, force)
    exportable = Exportable.of(load_predictor(run, checkpoint, "cpu"))
    described = exportable.described(run, RunDirectory(run).checkpoint(checkpoint))
    traced = exportable.traced(kind)
    described = proven(exportable, traced, described, TITLES[kind])
    content = traced.content(described)
    with files.appearing(output) as temporary:
        temporary.write_bytes(content)
    return described


def proven(exportable: Exportable, traced: Traced, described: Description, what: str) -> Description:
    """Add the proof to a description. Raises UserError if outputs of the file would deviate from PyTorch's."""
    # The proof is of the very bytes of a file, loaded by the runtime that others will use.
    run = traced.run(traced.content(described))
    # A runtime may refuse small images that PyTorch takes; the description then names the smallest that both take.
    smallest = exportable.smallest
    while smallest < LARGEST and refuses(run, described.channels, smallest):
        smallest *= 2
    exportable, described = replace(exportable, smallest=smallest), replace(described, smallest=smallest)
    cautions = getattr(traced, "cautions", ())
    rows = proof.prove(exportable.deployed, run, exportable.task, exportable.images(), what, cautions)
    return replace(described, proof=tuple(map(asdict, rows)))


def refuses(run: Run, channels: int, side: int) -> bool:
    """Whether a traced network raises an error on a square image of that side, as those of torch.export may."""
    try:
        run(torch.zeros(1, channels, side, side))
    except Exception:  # whatever a runtime raises
        return True
    return False


def told(kind: str, described: Description) -> list[str]:
    """Lines on an exported file for its user: inputs, outputs, normalisation, tiles and proof."""
    any_size = f"any height and width from {described.smallest}"
    if described.multiple > 1:
        any_size += f" that are multiples of {described.multiple}"
    before = " and ".join(each.name for each in described.transforms)
    normalised = "normalisation: none"
    if described.transforms or described.normalization:
        normalised = f"normalisation: in the graph ({before or 'that of the data file'}); give it images as recorded"
    if not described.inside:
        normalised = f"normalisation: not in the graph; apply {before} before it"
    if kind == "bioimageio":
        normalised = f"normalisation: in the package's preprocessing ({before or 'that of the data file'})"
    channels, outputs = described.channels, described.outputs
    lines = [
        f"{TITLES.get(kind, kind)}: images (B, {channels}, H, W) float32 to outputs (B, {len(outputs)}, H, W), "
        f"{any_size}",
        f"outputs: {', '.join(outputs)}{meaning(described)}",
        normalised,
        reach(described),
        proof_line(described.proof),
    ]
    if described.stays_behind:
        lines.append(f"stays behind: {' and '.join(described.stays_behind)}, Python of the run's plugins")
    return lines


def meaning(described: Description) -> str:
    """A clause on what the outputs mean."""
    if any(each.startswith("task ") for each in described.stays_behind):
        return f"; raw, what task '{described.task.name}' decodes of them is not in the file"
    if described.task.name == "semantic":
        return "; logits, the largest is the class of a pixel"
    return f"; logits and the hill, of which `predict` makes cells (task '{described.task.name}')"


def reach(described: Description) -> str:
    """A sentence on how images may be cut into tiles."""
    if described.inexact:
        return f"tiles: none are exact, for {described.inexact}"
    most = max(max(pair) for pair in described.margins)
    line = f"tiles: exact with a margin of {most} pixels that begins at multiples of {described.stride}"
    if described.off_grid:
        line += ", in images whose sides are such multiples"
    if described.inside and any(each.options.get("per") == "image" for each in described.transforms):
        line += "; but each would be normalised by its own statistics: give it whole images, or use predict"
    return line


def proof_line(rows: Any) -> str:
    """A sentence on the largest deviation and on how many labels differ."""
    sizes = ", ".join(f"{row['height']}×{row['width']}" for row in rows)
    worst, pixels = max(row["deviation"] for row in rows), sum(row["pixels"] for row in rows)
    differ, close = (sum(row[name] for row in rows) for name in ("labels_differ", "close"))
    return (
        f"proof on {sizes}: largest deviation {worst:.1e}, {format_count(differ, 'label')} of {pixels:,} differ "
        f"({close:,} where two classes are closer than {proof.LIMIT:g})"
    )


def halo_of(described: Description) -> int:
    """The width in pixels of a tile's border whose outputs depend on pixels beyond it, a multiple of the stride."""
    most = max(max(pair) for pair in described.margins)
    return math.ceil(most / described.stride) * described.stride
