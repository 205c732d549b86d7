"""Commands for before training: `new`, `check`, `inspect`, `preview`, `list`, `schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from yeastexp.cli.data import packing_options, say_packed
from yeastexp.cli.options import EXPERIMENT, FILE, FORCE, JSON, PACKING, POSITIVE, SET, TRUST
from yeastexp.cli.output import progress
from yeastexp.config import starters
from yeastexp.errors import INPUT_WRONG, RUN_FAILED
from yeastexp.system.terminal import echo


@click.command(short_help="Write an experiment file for images, packing them first, or for packed data.")
@click.argument("data")
@click.argument("labels", required=False)
@click.option("-o", "--output", type=FILE, required=True, help="The experiment file to write.")
@PACKING
@FORCE
def new(data: str, labels: str | None, output: Path, force: bool, **packing: Any) -> None:
    """Write an experiment file for a packed HDF5 file, with what was measured of its images as comments.

    For IMAGES and LABELS they are packed first, into a file of the same name that ends in .h5, as `pack` does it with
    the same options. What the data decide is a key with its reason; all else is that of the starter which the file
    extends. It is checked before it appears. In place of data it takes a starter, as yeastexp:base: the file is then a
    copy of that, with the plugins that it names beside it.

    Example: python -m yeastexp new images/ labels/ -o mine.toml --val 8
    """
    context, starter = click.get_current_context(), starters.find(data)
    given = [name for name in packing if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given and (labels is None or starter):
        option = next(param.opts[0] for param in context.command.params if param.name == given[0])
        why = "is no data" if starter else "is packed already"
        raise click.UsageError(f"{option} goes with IMAGES and LABELS, which are packed; {data} {why}")
    if starter:
        if labels is not None:
            raise click.UsageError(f"{data} is a starter, which goes without LABELS")
        echo(*starters.copy(starter, output, force=force))
        return
    from yeastexp.inspection.plan import new, new_from_images

    if labels is None:
        new(Path(data), output, force=force, progress=progress)
    else:
        options = packing_options(**packing)
        packed = new_from_images(data, labels, output, options, force=force, progress=progress)
        say_packed(packed, parted=options["part_groups"])
    echo(*output.read_text(encoding="utf-8").splitlines(), output)


@click.command(short_help="Print a page on machine and installation for a bug report.")
def doctor() -> None:
    """Print a page about the machine and the installation, to be pasted into a bug report.

    Versions of packages, cores, memory, GPUs, room on disks, and whether a convolution can be computed; no paths.
    What is broken is reported with its remedy, and the exit status is 1; notes are what may become a problem.

    Example: python -m yeastexp doctor
    """
    from yeastexp.inspection.doctor import findings

    broken = 0
    for finding in findings():
        echo(finding)
        broken += finding.state == "broken"
    if broken:
        sys.exit(RUN_FAILED)


@click.command(short_help="Report every fault of an experiment, and of its data.")
@click.argument("experiment", type=EXPERIMENT)
@SET
@click.option("--data", "with_data", is_flag=True, help="Check all images as well, and overfit one batch.")
@click.option("--steps", type=POSITIVE, metavar="N", help="With --data: most steps on that batch; default 300.")
@JSON
@TRUST
def check(experiment: Path, settings: tuple[str, ...], with_data: bool, steps: int | None, as_json: bool) -> None:
    """Report every fault of an experiment file, try one training step, and score two images; nothing is written.

    Masks that are empty or of one class are listed, too.

    With --data, a list of findings instead, the worst first: image values, masks, splits and patches, whether labels
    stay aligned with their images under each augmentation, whether the model can overfit one batch. The exit status
    is 2 if there are errors, 0 if there is nothing worse than warnings. --json goes with --data.

    Example: python -m yeastexp check experiments/base.toml --data
    """
    if (steps or as_json) and not with_data:
        raise click.UsageError("--steps and --json go with --data")
    if with_data:
        _check_data(experiment, settings, steps, as_json)
    else:
        _check_file(experiment, settings)


def _check_data(experiment: Path, settings: tuple[str, ...], steps: int | None, as_json: bool) -> None:
    from yeastexp.inspection import preflight
    from yeastexp.system.progress import say

    checked = preflight.preflight(experiment, settings, steps=steps or preflight.STEPS, progress=progress, say=say)
    echo(*(_json(preflight.as_json(checked)) if as_json else preflight.lines(checked)))
    if checked.count("error"):
        sys.exit(INPUT_WRONG)


def _check_file(experiment: Path, settings: tuple[str, ...]) -> None:
    from yeastexp.inspection.check import check
    from yeastexp.inspection.preflight import finding_lines
    from yeastexp.system.formatting import format_count
    from yeastexp.system.progress import say

    checked = check(experiment, settings, say)
    labels = "; ".join(f"{label}: {count:,} pixels" for label, count in checked.labels.items())
    echo(f"images       {checked.train_images} for training, {checked.validation_images} for validation")
    echo(f"labels       {labels}")
    echo(f"model        {checked.parameters:,} parameters")
    echo(f"batch        {' × '.join(map(str, checked.batch_shape))} (B × C × H × W), loss {checked.loss:.4f}")
    echo(f"epoch        {checked.steps_per_epoch} steps; validation every {checked.validate_every} epochs")
    threads = format_count(checked.threads, "thread")
    echo(f"step         {checked.seconds:.2f} s with {threads}, as 'run' takes now; memory {checked.peak_memory_mb} MB")
    for finding in checked.findings:
        echo(*finding_lines(finding))
    warnings = sum(finding.severity == "warning" for finding in checked.findings)
    verdict = f"no errors, {format_count(warnings, 'warning')} about the masks" if warnings else "no faults"
    verdict = f"{format_count(checked.errors, 'error')} in the masks" if checked.errors else verdict
    echo(f"{experiment}: {verdict}")
    if checked.errors:
        sys.exit(INPUT_WRONG)


@click.command(short_help="Show a model's layers, receptive field and cost.")
@click.argument("experiment", metavar="[EXPERIMENT|RUN]", required=False, type=EXPERIMENT)
@click.option("--model", metavar="NAME|FILE.py", help="A registered model, or that of a plugin file.")
@SET
@click.option("--input", "image", type=(POSITIVE,) * 3, metavar="C H W", help="Input size; default a training patch.")
@click.option("--classes", type=POSITIVE, help="With --model: number of classes; default 2.")
@click.option("--effective", is_flag=True, help="Of a RUN: measure the effective receptive field of its weights.")
@click.option("-o", "--output", type=FILE, metavar="FILE.png", help="With --effective: draw it.")
@FORCE
@JSON
@TRUST
def inspect(
    experiment: Path | None,
    model: str | None,
    settings: tuple[str, ...],
    image: tuple[int, int, int] | None,
    classes: int | None,
    effective: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show a model's layers with parameters and receptive fields, the memory it needs for training, and its cost.

    Of an EXPERIMENT or a RUN, whose data need not be there, or of a --model, whose options are set as in --set width=8.
    The receptive field is exact (measured where an operator has no rule): how far an output depends to each side, for
    every phase of its grid. --effective adds, for a trained model, how far the gradient of an output spreads.

    Example: python -m yeastexp inspect experiments/base.toml
    """
    from yeastexp.inspection import model as inspection

    if (experiment is None) == (model is None) or (experiment and classes):
        raise click.UsageError("give an EXPERIMENT or a --model, and --classes only with --model")
    if effective and (model or settings or image):
        raise click.UsageError("--effective is of a RUN as it was trained, without --model, --set and --input")
    if output and not effective:
        raise click.UsageError("-o goes with --effective")
    if experiment:
        subject = inspection.of_experiment(experiment, settings, image)
    else:
        subject = inspection.of_model(model or "", settings, image, classes or 2)
    if output:
        inspection.refuse_overwriting(output, force)
    inspected = inspection.inspect(subject)
    if experiment and effective:
        inspected = inspection.with_effective_field(inspected, experiment)
    echo(*(_json(inspection.as_json(inspected)) if as_json else inspection.lines(inspected)))
    if output:
        inspection.write_picture(inspected, output)
        echo(output, err=as_json)


@click.command(short_help="Draw what an experiment does to its images.")
@click.argument("experiment", type=EXPERIMENT)
@click.option("-o", "--output", type=FILE, metavar="FILE.png", help="The picture; default NAME-preview.png.")
@SET
@FORCE
@TRUST
def preview(experiment: Path, output: Path | None, settings: tuple[str, ...], force: bool) -> None:
    """Draw what an experiment does to its training images: one PNG, without training.

    Images before and after each transform and each augmentation, the first training patches, all with their labels
    outlined, and histograms of the values before and after the transforms.

    Example: python -m yeastexp preview experiments/base.toml -o base.png
    """
    from yeastexp.inspection.preview import preview

    echo(preview(experiment, settings, output, force=force))


@click.command("list", short_help="List the parts that an experiment can name.")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--experiment", type=EXPERIMENT, help="Include the plugins of this file.")
@JSON
@click.option("--markdown", is_flag=True, help="Print the reference of all parts as Markdown.")
@TRUST
def list_parts(kind: str | None, name: str | None, experiment: Path | None, as_json: bool, markdown: bool) -> None:
    """List the parts that an experiment can name: all, those of one KIND, or one part with its options.

    Example: python -m yeastexp list model unet
    """
    from yeastexp.config import catalogue

    _load_plugins(experiment)
    parts = catalogue.parts(kind, name)
    if markdown:
        echo(*catalogue.reference().splitlines())
    elif as_json:
        echo(*_json(parts))
    elif kind and name:
        _print_part(parts[0])
    else:
        width = max((len(part["name"]) for part in parts), default=0)
        for part in parts:
            echo(f"{part['kind']:<10} {part['name']:<{width}}  {part['summary']}")


def _print_part(part: Mapping[str, Any]) -> None:
    echo(f"{part['kind']} '{part['name']}'   {part['place']}", "", *part["doc"].splitlines(), "")
    rows = [(option["name"], option["type"], _default(option)) for option in part["options"]]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for option, (name, type_, default) in zip(part["options"], rows, strict=True):
        echo(f"  {name:<{widths[0]}}  {type_:<{widths[1]}}  {default}  {option['description']}".rstrip())


def _default(option: Mapping[str, Any]) -> str:
    if option["required"]:
        return "required"
    if option["default"] is None:
        return "optional"
    return f"= {json.dumps(option['default'], ensure_ascii=False, default=str)}"


@click.command(short_help="Print the JSON Schema of experiment files.")
@click.argument("experiment", required=False, type=EXPERIMENT)
@TRUST
def schema(experiment: Path | None) -> None:
    """Print the JSON Schema of experiment files (with the plugins of EXPERIMENT), for completion in editors.

    Example: python -m yeastexp schema > experiment.schema.json
    """
    from yeastexp.config import catalogue

    _load_plugins(experiment)
    echo(*_json(catalogue.json_schema()))


def _json(value: Any) -> list[str]:
    """A value as lines of JSON."""
    return json.dumps(value, indent=1, default=str).splitlines()


def _load_plugins(experiment: Path | None) -> None:
    from yeastexp.config.loading import load_plugins

    for withheld in load_plugins(experiment) if experiment else ():
        echo(f"warning: {withheld}", err=True)
