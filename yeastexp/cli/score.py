"""Commands that use trained models: `evaluate`, `compare`, `predict`, `report`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from yeastexp.cli.options import ANY, CHECKPOINT, DATA, DEVICE, FILE, JSON, POSITIVE, RUN, SPLIT, TRUST
from yeastexp.cli.output import image_progress, progress
from yeastexp.cli.together import joined
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_count
from yeastexp.system.terminal import echo

if TYPE_CHECKING:
    from yeastexp.evaluation.source import Split
    from yeastexp.training.run_directory import Which


@click.command(short_help="Score a run's checkpoint on whole images.")
@RUN
@DATA
@SPLIT
@CHECKPOINT
@click.option(
    "--boundary-tolerance",
    type=click.FloatRange(0, 100),
    metavar="PX",
    help="Tolerance of boundary F1 in pixels; default the experiment's, or 2.",
)
@click.option(
    "--ignore-border",
    type=click.IntRange(0, 1000),
    metavar="PX",
    help="Leave out cells within so many pixels of the border; default as the experiment says.",
)
@DEVICE
@JSON
@TRUST
def evaluate(
    run_directory: Path,
    data: Path | None,
    split: Split | None,
    checkpoint: Which,
    boundary_tolerance: float | None,
    ignore_border: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Score a run's checkpoint on whole images, beside baselines; write RUN/evaluations/….

    On the validation images, or on all images of another FILE. per_image.csv has a row per image and class: pixels
    found, missed and false, accuracy, IoU, Dice, boundary F1, and the connected regions in ground truth and prediction
    (of any size; cells that touch are one). Where the task tells cells apart, instead of the last three: average
    precision, panoptic quality, SEG, and the cells that are true, found, split, merged, missed and false; then
    --ignore-border makes a folder of its own.

    Example: python -m yeastexp evaluate runs/base/001 --split val
    """
    from yeastexp.evaluation import record
    from yeastexp.evaluation.evaluate import evaluate
    from yeastexp.system.console import console

    with joined() as among:
        folder, evaluation = evaluate(
            run_directory,
            data,
            split=split,
            checkpoint=checkpoint,
            tolerance_px=boundary_tolerance,
            ignore_border=ignore_border,
            device=device,
            progress=progress,
        )
        if not among.writes:
            return
        for note in evaluation.notes:
            echo(f"warning: {note}", err=True)
        if as_json:
            echo(*(folder / record.EVALUATION).read_text(encoding="utf-8").splitlines())
            return
        output = console()
        for table in record.tables(evaluation):
            output.print(table)
        echo(*record.sentences(evaluation), folder)


@click.command(short_help="Show what differs between runs, paired by image.")
@click.argument("run_directories", metavar="RUN RUN...", nargs=-1, required=True, type=ANY)
@click.option("--metric", help="A metric of the evaluation, or of all these runs; default iou, or that of the task.")
@click.option("--class", "class_name", metavar="NAME", help="Or a part, as AP50; default the foreground or the mean.")
@CHECKPOINT
@DATA
@SPLIT
@DEVICE
@JSON
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Plot both scores of each image, as .png or .svg.")
@TRUST
def compare(
    run_directories: tuple[Path, ...],
    metric: str | None,
    class_name: str | None,
    checkpoint: Which,
    data: Path | None,
    split: Split | None,
    device: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Show what differs between runs, and whether their scores on the same images differ from the first run's.

    Differences are paired by image, with a 95 % interval and the p-value of the sign-flip test. A run that has no
    scores yet is evaluated. Runs that were scored on different images are refused. Folders of 'crossval' can be
    compared as well, among themselves and on the same folds: each image then has the mean over seeds of its
    out-of-fold scores.

    Example: python -m yeastexp compare runs/base/001 runs/base/002 -o pairs.png
    """
    from yeastexp.evaluation import compare
    from yeastexp.system.console import console

    comparison = compare.compare(
        run_directories,
        metric=metric,
        class_name=class_name,
        checkpoint=checkpoint,
        data=data,
        split=split,
        device=device,
        output=output,
        progress=progress,
    )
    if as_json:
        echo(*json.dumps(compare.as_json(comparison), indent=1, allow_nan=False).splitlines())
    else:
        terminal = console()
        for table in compare.tables(comparison):
            terminal.print(table)
        echo(*compare.findings(comparison))
    for path in compare.draw(comparison, output) if output else []:
        echo(path, err=as_json)


@click.command(short_help="Segment images of any size into masks or cells.")
@RUN
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", type=ANY, required=True, help="Folder for the masks, or for label images of cells.")
@click.option("--tta", is_flag=True, help="Test-time augmentation: average over the eight flips and rotations.")
@click.option("--probabilities", is_flag=True, help="Also write OUTPUT/probabilities/…, float32 TIFF.")
@click.option("--overlay", is_flag=True, help="Also write OUTPUT/overlays/…, images with outlines.")
@click.option("--cells", is_flag=True, help="Also cut masks into approximate cells: OUTPUT/cells/… and cells.csv.")
@CHECKPOINT
@click.option("--tile", type=POSITIVE, metavar="PIXELS", help="Side of the tiles of large images; default by memory.")
@click.option("--format", "form", type=click.Choice(["png", "tif"]), help="Default png; tif if too large for png.")
@click.option(
    "--as", "kinds", multiple=True, metavar="KIND", help="Also write cells: roi, geojson, coco, ctc, tif, zarr."
)
@click.option("--axes", metavar="LETTERS", help="Axes of stacks that do not say them, as TYX, CYX or TCYX.")
@click.option("--z", metavar="PLANE", help="Of stacks in depth: max, middle or a number from 0 on.")
@click.option("--part", metavar="I/N", help="Predict the I-th of N parts of the images alone.")
@click.option("--join", is_flag=True, help="Put the results of all parts together.")
@click.option("--dask", metavar="ADDRESS", help="Predict all parts on a Dask cluster and join them; or local:N.")
@DEVICE
@TRUST
def predict(
    run_directory: Path,
    images: tuple[str, ...],
    output: Path,
    tta: bool,
    probabilities: bool,
    overlay: bool,
    cells: bool,
    checkpoint: Which,
    tile: int | None,
    form: Literal["png", "tif"] | None,
    kinds: tuple[str, ...],
    axes: str | None,
    z: str | None,
    part: str | None,
    join: bool,
    dask: str | None,
    device: str,
) -> None:
    """Segment images of any size (files, folders, globs, an HDF5 file) into masks of the same names, and a table.

    Masks hold 0 and 255 for two classes, else class indices (in a PNG with a palette of colours); predictions.csv has
    size, foreground fraction, seconds and connected_regions of each image: groups of pixels that touch, be it at a
    corner, of any size, so that specks count, and cells that touch are one.

    Runs of the task 'instances' write label images instead: 0 is background, cells count from 1 in reading order, in 16
    bits (above 65,535 cells 32, with --format tif). cells.csv has a row a cell (size, shape, position, intensities,
    neighbours), predictions.csv the number and density of cells. With --cells, runs of 'semantic' write such label
    images into OUTPUT/cells, and cells.csv, beside their masks; these cells are approximate (watershed of the mask),
    fitted on the training labels where they have ids of cells.

    Stacks (TIFF of several pages, OME-Zarr) give one image a frame: stack_t0000, stack_t0001, … --as, once a KIND,
    writes the cells for other programs as well, with the names of the images, the frames of a stack together: roi
    (regions for Fiji's ROI manager, roi/NAME.zip), geojson (detections with measurements for QuPath,
    geojson/NAME.geojson), coco (coco.json, run lengths), ctc (Cell Tracking Challenge, ctc/01_RES/mask000.tif, no
    tracks), tif (label images for ImageJ with the size of a pixel, tif/NAME.tif), zarr (OME-Zarr with labels,
    zarr/NAME.zarr). docs/formats.md says what each keeps.

    In place of RUN, 'yeast' stands for pretrained weights that come with the package, for images that nobody annotated.

    Images that do not fit into memory are cut into tiles that overlap by the model's receptive field, which does not
    change the result. If interrupted, the same command continues.

    --part 1/4, 2/4, … share the work among processes that need not talk to each other, as the jobs of a cluster: each
    predicts some of the images, and some rows of those too large for memory; run again, it does what is missing. When
    all parts are done, the same command with --join in place of --part writes the tables and joins cells across rows.
    --dask does all of that on the workers of a Dask cluster, named by the address of its scheduler, or on N of its own.

    Example: python -m yeastexp predict runs/base/001 my_images/ -o masks
    """
    from yeastexp.config import pretrained
    from yeastexp.data.recordings.recording import Choices
    from yeastexp.prediction.exports import told
    from yeastexp.prediction.parts import Part
    from yeastexp.prediction.predict import outcome, predict

    if part is not None and join:
        raise UserError("--part, --join: join when all parts are done; give one of them")
    own = None if part is None else Part.of(part)
    options: dict[str, Any] = {
        "checkpoint": checkpoint, "tta": tta, "probabilities": probabilities, "overlay": overlay, "cells": cells,
        "tile": tile, "form": form, "kinds": kinds, "choices": Choices(axes, z), "device": device,
    }  # fmt: skip
    if dask is not None:
        if own or join:
            raise UserError("--dask: predicts all parts and joins them; omit --part and --join")
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise UserError("--dask: needs other packages; pip install dask distributed") from None
        from yeastexp.prediction.cluster.client import predict_parts

        predict_parts(dask, run_directory, images, output, options)
    count = predict(
        run_directory, images, output, **options, part=own, join=join or bool(dask), progress=image_progress
    )
    if own:
        number = format_count(count, "image")
        echo(f"part {own}: {number} in {output}; when all {own.count} parts are done, --join in place of --part")
    else:
        # A run of that name may lie in runs/, which is not what was taken.
        weights = ["with the pretrained weights of the package"] * (pretrained.located(run_directory) != run_directory)
        echo(outcome(output, count), *told(kinds, output), *weights)


@click.command(short_help="Write one HTML page about a run.")
@click.argument("run_directories", metavar="RUN [RUN...]", nargs=-1, required=True, type=ANY)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Default RUN/report.html; of several ./report.html.")
@click.option("--metric", help="For several runs: the metric to compare, as in compare.")
@click.option("--class", "class_name", metavar="NAME", help="For several runs: the class, as in compare.")
@DEVICE
@TRUST
def report(
    run_directories: tuple[Path, ...], output: Path | None, metric: str | None, class_name: str | None, device: str
) -> None:
    """Write one self-contained HTML page about a RUN, a cross-validation or a sweep.

    Experiment, learning curves, scores beside baselines, the worst, median and best image with their errors outlined,
    all images, the confusion matrix, the model's size beside that of the cells, and the environment. Of an unfinished
    run, what exists so far. Of several runs, their comparison. An older report is overwritten.

    Example: python -m yeastexp report runs/base/001
    """
    from yeastexp.report import report

    path = report(
        run_directories,
        output=output,
        metric=metric,
        class_name=class_name,
        device=device,
        progress=progress,
        say=partial(echo, err=True),
    )
    echo(path)
