"""`export`: a run for other programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yeastexp.cli.options import ANY, CHECKPOINT, FORCE, JSON, RUN, TRUST
from yeastexp.system.terminal import echo

if TYPE_CHECKING:
    from yeastexp.training.run_directory import Which


@click.command(short_help="Write a run's model for other programs: ONNX, BioImage.IO and others.")
@RUN
@click.option("-o", "--output", type=ANY, required=True, help="The file; .onnx, .pt, .pt2, .zip say the format.")
@click.option(
    "--as",
    "kind",
    metavar="FORMAT",
    help="onnx, torchscript, torch.export, bioimageio, instanseg (a folder); default by the file's name.",
)
@click.option("--licence", metavar="SPDX", help="Of a BioImage.IO package: what others may do, as CC-BY-4.0 or MIT.")
@click.option("--author", "authors", metavar="NAME", multiple=True, help="Of a BioImage.IO package; may be repeated.")
@CHECKPOINT
@FORCE
@JSON
@TRUST
def export(
    run_directory: Path,
    output: Path,
    kind: str | None,
    licence: str | None,
    authors: tuple[str, ...],
    checkpoint: Which,
    force: bool,
    as_json: bool,
) -> None:
    """Write a run's model for programs that do not know this one.

    As ONNX, TorchScript, a program of torch.export, or a BioImage.IO package (weights as TorchScript and ONNX, test
    image, cover, scores), which needs a --licence. --as instanseg writes a folder that QuPath's InstanSeg extension
    opens: runs of 'instances', labelling included.

    It takes images (B, C, H, W) float32 of any height and width as they were recorded, where the transforms can be
    part of it, and gives the task's outputs, channel by channel. Before it is written it is loaded again and compared
    with PyTorch on images of three sizes; if an output deviates by more than 0.0001, nothing is written. The file also
    holds what `predict` needs: `predict MODEL.onnx IMAGES` gives masks and cells as the run does, without PyTorch's
    network. docs/export.md says what other programs do with it.

    Example: python -m yeastexp export runs/base/001 -o model.onnx
    """
    from yeastexp.export import bioimage_io, instanseg
    from yeastexp.export.export import export, kind_of, told

    kind, more = kind_of(output, kind), list[str]()
    if kind == "bioimageio":
        described, more = bioimage_io.export(
            run_directory, output, licence=licence, authors=authors, checkpoint=checkpoint, force=force
        )
    elif kind == "instanseg":
        described, more = instanseg.export(
            run_directory, output, licence=licence, authors=authors, checkpoint=checkpoint, force=force
        )
    else:
        described = export(run_directory, output, kind=kind, checkpoint=checkpoint, force=force)
    if as_json:
        echo(*json.dumps(asdict(described), indent=1).splitlines())
    else:
        echo(*([] if kind == "instanseg" else told(kind, described)), *more, output)
