"""The command line, and nothing else. Verbs are imported when they are called, so that `--help` answers at once."""

from __future__ import annotations

import time

STARTED = time.monotonic()

import io  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable, Iterable, Iterator, Mapping  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar  # noqa: E402

import click  # noqa: E402

from yeastexp.errors import INPUT_WRONG, INTERRUPTED, RUN_FAILED, UserError  # noqa: E402

if TYPE_CHECKING:
    from rich.console import Console

    from yeastexp.evaluation.evaluate import Split
    from yeastexp.prediction.predictor import Which

Item = TypeVar("Item")
FILE = click.Path(path_type=Path, dir_okay=False)
ANY = click.Path(path_type=Path)
POSITIVE = click.IntRange(1)
SET = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one key, as train.epochs=2.")
FORCE = click.option("--force", is_flag=True, help="Overwrite the output file.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print for a script to read.")
DATA = click.option("--data", type=FILE, help="An HDF5 file as packed, in place of the run's own images.")
SPLIT = click.option("--split", type=click.Choice(["val", "test", "train", "all"]), help="Else val; all of a new file.")
CHECKPOINT = click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which weights."
)
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)

SMALLER = "try smaller images, or a smaller [train] window"
"""What helps where memory does not suffice."""

FOLDER = click.option("-o", "--output", type=ANY, metavar="FOLDER", help="Write plots as PNG and SVG, figures as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="yeastexp")
def commands() -> None:
    """Experiments in microscopy segmentation: one TOML file, one repeatable run.

    Example: python -m yeastexp run experiments/base.toml
    """


@commands.command()
@click.argument("experiment", type=FILE)
@SET
@click.option("--budget", metavar="TIME", help="Wall-clock time of the whole command, as 5m; in place of a length.")
@click.option("--profile", type=POSITIVE, metavar="N", help="Trace N steps, and print where their time goes.")
def run(experiment: Path, settings: tuple[str, ...], budget: str | None, profile: int | None) -> None:
    """Train an experiment, measure it, and print its run directory on the last line.

    Example: python -m yeastexp run experiments/base.toml --set train.epochs=2
    """
    from yeastexp.training.run import run as verb

    if budget:
        settings = (*settings, f"train.budget={json.dumps(budget)}")
    click.echo(verb(experiment, settings, started=STARTED, console=_console(), profiled=profile or 0))


@commands.command()
@click.argument("run_directory", metavar="RUN", type=ANY)
@SET
def resume(run_directory: Path, settings: tuple[str, ...]) -> None:
    """Go on with a run that was interrupted, from its newest good checkpoint, to the same bytes as without.

    A finished run is left as it is. --set can change train.workers and train.checkpoint_minutes, and a longer
    train.epochs or train.steps extends a run whose learning rate was not fitted to the old length.

    Example: python -m yeastexp resume runs/base/001
    """
    from yeastexp.training.resume import resume as verb

    if not verb(run_directory, settings, started=STARTED, console=_console()):
        extends = "with a constant learning rate, a longer train.epochs extends it"
        click.echo(f"{run_directory}: finished already; {extends}", err=True)
    click.echo(run_directory)


@commands.command()
@click.argument("run_directory", metavar="RUN", type=ANY)
def verify(run_directory: Path) -> None:
    """Repeat the part of a run between its last two checkpoints; tell whether it ends in the same bits.

    Exit status 1, and what differs first, where it does not. Nothing in the run directory changes.

    Example: python -m yeastexp verify runs/base/001
    """
    from yeastexp.training.verify import verify as verb

    found = verb(run_directory, console=_console())
    for line in found.elsewhere:
        click.echo(f"note: {line}", err=True)
    click.echo(f"steps {found.first} to {found.last} repeated: {found.compared} values, all bits equal")


@commands.command()
@click.argument("experiment", type=FILE)
@SET
@click.option("--data", "with_data", is_flag=True, help="Look through all images, and learn one batch by heart.")
@click.option("--steps", type=POSITIVE, metavar="N", help="With --data: most steps of that batch; else 300.")
@JSON
def check(experiment: Path, settings: tuple[str, ...], with_data: bool, steps: int | None, as_json: bool) -> None:
    """Name every fault of an experiment file, then try one batch through model and loss and back; write nothing.

    With --data a page of findings instead, the worst first: values, masks, splits and windows, whether labels follow
    their images under each augmentation, whether the model can learn a few windows by heart. The exit status is 2
    where there are errors, 0 where there is nothing worse than warnings. --json is for --data.

    Example: python -m yeastexp check experiments/base.toml --data
    """
    if (steps or as_json) and not with_data:
        raise click.UsageError("--steps and --json go with --data")
    if with_data:
        _preflight(experiment, settings, steps, as_json)
    else:
        _check(experiment, settings)


def _preflight(experiment: Path, settings: tuple[str, ...], steps: int | None, as_json: bool) -> None:
    from yeastexp.inspection import preflight as room

    done = room.preflight(experiment, settings, steps=steps or room.STEPS, progress=_progress)
    for line in [json.dumps(room.as_json(done), indent=1)] if as_json else room.lines(done):
        click.echo(line)
    if done.count("error"):
        sys.exit(INPUT_WRONG)


def _check(experiment: Path, settings: tuple[str, ...]) -> None:
    from yeastexp.inspection.check import check as verb

    found = verb(experiment, settings)
    names = {label: f"{label}: {count:,} pixels" for label, count in found.labels.items()}
    click.echo(f"images       {found.train_images} to train on, {found.validation_images} to validate on")
    click.echo(f"labels       {'; '.join(names.values())}")
    click.echo(f"model        {found.parameters:,} parameters")
    click.echo(f"batch        {' × '.join(map(str, found.batch_shape))} (B × C × H × W), loss {found.loss:.4f}")
    click.echo(f"epoch        {found.steps_per_epoch} steps; validation every {found.validate_every} epochs")
    click.echo(f"first step   {found.seconds:.2f} s; peak memory {found.peak_memory_mb} MB")
    click.echo(f"{experiment}: no faults")


@commands.command()
@click.argument("experiment", metavar="[EXPERIMENT|RUN]", required=False, type=ANY)
@click.option("--model", metavar="NAME", help="A registered model, in place of an experiment's.")
@SET
@click.option("--input", "image", type=(POSITIVE,) * 3, metavar="C H W", help="The image; else the training window.")
@click.option("--classes", type=click.IntRange(1), help="With --model: how many; else 2.")
@click.option("--effective", is_flag=True, help="Of a RUN: measure where its trained model looks.")
@click.option("-o", "--output", type=FILE, metavar="FILE.png", help="With --effective: draw it.")
@FORCE
@JSON
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
    """Show a model's layers with their parameters and receptive fields, the memory it takes to train, and its cost.

    Of an EXPERIMENT or a RUN, whose data need not be there, or of a --model, whose options are set as in --set width=8.
    The receptive field is exact for any model: what a position sees to each side, for every phase of its grid.
    --effective adds what a trained model makes of it: how far the gradient of an output spreads.

    Example: python -m yeastexp inspect experiments/base.toml
    """
    from yeastexp.inspection import model as room

    if (experiment is None) == (model is None) or (experiment and classes):
        raise click.UsageError("give an EXPERIMENT or a --model, and --classes with a --model alone")
    if effective and (model or settings or image):
        raise click.UsageError("--effective is of a RUN as it was trained, without --model, --set and --input")
    if output and not effective:
        raise click.UsageError("-o is for the picture of --effective")
    if experiment:
        subject = room.of_experiment(experiment, settings, image)
    else:
        subject = room.of_model(model or "", settings, image, classes or 2)
    if output:
        room.refuse_overwriting(output, force)
    found = room.inspect(subject)
    if experiment and effective:
        found = room.with_effective_field(found, experiment)
    click.echo(json.dumps(room.as_json(found), indent=1) if as_json else "\n".join(room.lines(found)))
    if output:
        room.write_picture(found, output)
        click.echo(output, err=as_json)


@commands.command()
@click.argument("experiment", type=FILE)
@click.option("-o", "--output", type=FILE, metavar="FILE.png", help="The picture; else NAME-preview.png.")
@SET
@FORCE
def preview(experiment: Path, output: Path | None, settings: tuple[str, ...], force: bool) -> None:
    """Draw what an experiment does to its training images: one sheet, as a PNG, without training.

    Some images before and after each transform and each augmentation, the first windows as training sees them, all
    with their labels outlined, and how often values occur before and after the transforms.

    Example: python -m yeastexp preview experiments/base.toml -o base.png
    """
    from yeastexp.inspection.preview import preview as verb

    click.echo(verb(experiment, settings, output, force=force))


@commands.command()
@click.argument("experiment", type=FILE)
@SET
@click.option("--folds", default="5", show_default=True, metavar="K|FILE", help="How many, or the folds of a file.")
@click.option("--repeats", type=POSITIVE, default=1, show_default=True, help="Seeds with which every fold is trained.")
@click.option("--group-by", metavar="REGEX", help="Images whose names agree in what it finds stay in one fold.")
@click.option("--blocks", is_flag=True, help="Images (or groups) that follow each other by name share a fold.")
@click.option("-o", "--output", type=ANY, metavar="DIR", help="Where to write, or a directory to go on with.")
@JSON
def crossval(
    experiment: Path,
    settings: tuple[str, ...],
    folds: str,
    repeats: int,
    group_by: str | None,
    blocks: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Train an experiment once a fold, and score every image by weights that never saw it.

    Each fold is a run directory of its own; the folds are a file that other experiments can be given. Scores are of
    the last weights: choosing the best by the images that are scored would flatter.

    Example: python -m yeastexp crossval experiments/base.toml --folds 6 --repeats 3
    """
    from rich.console import Console

    from yeastexp.evaluation import crossval as room
    from yeastexp.evaluation import out_of_fold

    folder = room.crossval(
        experiment,
        settings,
        dealt=int(folds) if folds.isdecimal() else Path(folds),
        repeats=repeats,
        group_by=group_by,
        blocks=blocks,
        output=output,
        console=Console(stderr=True) if as_json else _console(),
        say=partial(click.echo, err=True),
    )
    click.echo((folder / out_of_fold.RESULT).read_text(encoding="utf-8") if as_json else folder)


@commands.command("list")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--experiment", type=FILE, help="Count the plugins of this file in.")
@JSON
@click.option("--markdown", is_flag=True, help="Print the reference of all parts.")
def list_parts(kind: str | None, name: str | None, experiment: Path | None, as_json: bool, markdown: bool) -> None:
    """List what an experiment can name: all parts, those of one KIND, or one part with its options.

    Example: python -m yeastexp list model unet
    """
    from yeastexp.config import catalogue
    from yeastexp.config.experiment import load_plugins

    if experiment:
        load_plugins(experiment)
    found = catalogue.parts(kind, name)
    if markdown:
        click.echo(catalogue.reference(), nl=False)
    elif as_json:
        click.echo(json.dumps(found, indent=1, default=str))
    elif kind and name:
        _print_part(found[0])
    else:
        width = max((len(part["name"]) for part in found), default=0)
        for part in found:
            click.echo(f"{part['kind']:<10} {part['name']:<{width}}  {part['summary']}")


@commands.command()
@click.argument("experiment", required=False, type=FILE)
def schema(experiment: Path | None) -> None:
    """Print the JSON Schema of experiment files (with the plugins of EXPERIMENT), for editors that complete keys.

    Example: python -m yeastexp schema > experiment.schema.json
    """
    from yeastexp.config import catalogue
    from yeastexp.config.experiment import load_plugins

    if experiment:
        load_plugins(experiment)
    click.echo(json.dumps(catalogue.json_schema(), indent=1))


@commands.command()
@click.argument("images", nargs=1)
@click.argument("labels", nargs=1)
@click.option("-o", "--output", type=FILE, required=True, help="The HDF5 file to write.")
@click.option("--labels", "kind", type=click.Choice(["auto", "class", "instance"]), default="auto", show_default=True)
@click.option("--val", metavar="CHOICE", help="Validation images: '8' from the end, '0.3' of them, names or globs.")
@click.option("--test", metavar="CHOICE", help="Test images, chosen likewise; scored once, at the end.")
@click.option("--pixel-um", type=float, help="Side of a pixel in micrometres.")
@FORCE
def pack(
    images: str,
    labels: str,
    output: Path,
    kind: Literal["auto", "class", "instance"],
    val: str | None,
    test: str | None,
    pixel_um: float | None,
    force: bool,
) -> None:
    """Pack IMAGES and LABELS (folders or quoted globs of PNG or TIFF, pairs by name) into one HDF5 file.

    Values are stored as they came. Masks of 0 and 1 or of 0 and 255 are recognised; other label values need
    --labels class (they are class indices) or --labels instance (they are ids; everything above 0 is foreground).

    Example: python -m yeastexp pack images/ masks/ -o data.h5 --val 8
    """
    from yeastexp.data import pack as room

    chosen = [room.parse_choice(text) if text is not None else None for text in (val, test)]
    done = room.pack(
        [images],
        [labels],
        output,
        kind=kind,
        val=chosen[0],
        test=chosen[1],
        pixel_um=pixel_um,
        force=force,
        progress=_progress,
    )
    form = "stacked" if done.stacked else "one array an image, for their sizes or types differ"
    click.echo(f"images   {_counts(done.splits)}; {done.channels} × {done.dtype}, {form}")
    values = ", ".join(map(str, done.label_values[:8])) + (", …" if len(done.label_values) > 8 else "")
    click.echo(f"labels   {done.kind}: {values}; foreground {done.foreground:.1%}")
    for names in done.duplicates:
        click.echo(f"warning: the same picture in several splits: {', '.join(names)}", err=True)
    click.echo(done.output)


@commands.command()
@click.argument("source", type=FILE)
@click.argument("output", type=FILE)
@click.option("--fit", type=click.Choice(["all", "train"]), default="all", show_default=True, help="Images measured.")
@FORCE
def normalize(source: Path, output: Path, fit: Literal["all", "train"], force: bool) -> None:
    """Write a second file with zero mean and unit standard deviation over all images, or those to train on.

    Figures from all images let the validation images have a say; --fit train does not.

    Example: python -m yeastexp normalize data.h5 normalized.h5 --fit train
    """
    from yeastexp.data import pack as room

    done = room.normalize(source, output, fit=fit, force=force, progress=_progress)
    click.echo(f"images   {_counts(done.splits)}")
    click.echo(f"figures  mean {done.mean:.6g}, standard deviation {done.std:.6g}, from {done.fit} images")
    click.echo(done.output)


@commands.command()
@click.option("-o", "--output", type=FILE, required=True, help="The HDF5 file to write.")
@click.option("--images", type=click.IntRange(2, 99_999), default=18, show_default=True, help="How many.")
@click.option("--size", type=click.IntRange(64, 4096), default=256, show_default=True, help="Pixels of a side.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Each gives other images.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A further setting, as crowding=0.4.")
@FORCE
def synth(output: Path, images: int, size: int, seed: int, settings: tuple[str, ...], force: bool) -> None:
    """Write synthetic brightfield yeast images with their truth: those of the data set `synthetic_yeast`.

    Its further settings (`list dataset synthetic_yeast` shows them) make other fields: cells of another size or
    contrast, crowded, among walls and posts, in worse light.

    Example: python -m yeastexp synth -o data.h5 --images 18 --seed 0
    """
    from yeastexp.config.synthetic import configured
    from yeastexp.data.synth import synth as write

    made = configured(images, size, seed, settings)
    write(output, made, force=force, progress=_progress)
    side = made.look.size
    click.echo(f"images   {_counts({split: len(names) for split, names in made.splits.items()})}; {side} × {side}")
    click.echo(output)


@commands.command()
@click.argument("url")
@click.option("-o", "--output", type=ANY, required=True, metavar="DIR", help="Folder for the file or its contents.")
@click.option("--sha256", metavar="HEX", help="The digest that the file must have.")
@click.option("--max-gb", type=click.IntRange(1), default=4, show_default=True, help="Refuse more, packed or unpacked.")
@click.option("--force", is_flag=True, help="Overwrite files of the same names.")
def fetch(url: str, output: Path, sha256: str | None, max_gb: int, force: bool) -> None:
    """Download a file into a folder, check it, and unpack it there if it is a zip or tar archive.

    All of it appears or nothing: a download that breaks off begins again, and an archive that is damaged, or has links
    or paths out of the folder, is refused.

    Example: python -m yeastexp fetch https://example.org/yeast.zip -o yeast
    """
    from yeastexp.data import fetch as room
    from yeastexp.system.formatting import format_bytes

    done = room.fetch(url, output, sha256, max_gb * 10**9, force)
    there = "" if done.downloaded else ", was there already"
    click.echo(f"file     {done.file}, {format_bytes(done.file.stat().st_size)}{there}")
    click.echo(f"sha256   {done.sha256}" + (", as it should be" if sha256 else ""))
    if done.unpacked:
        tops = sorted({f"{path.parts[0]}/" if path.parts[1:] else path.name for path in done.unpacked})
        names = ", ".join(tops[:8]) + (", …" if len(tops) > 8 else "")
        click.echo(f"unpacked {len(done.unpacked)} files, {done.written} of them new: {names}")
    click.echo(output if done.unpacked else done.file)


@commands.group(no_args_is_help=True)
def study() -> None:
    """Answer a question of the exercise sheet by a computation: a table, and what it says in sentences.

    Example: python -m yeastexp study metrics
    """


@study.command("metrics", short_help="Accuracy or mean IoU: which says more, and why.")
@FOLDER
@JSON
def study_metrics(output: Path | None, as_json: bool) -> None:
    """Which of accuracy and mean IoU is more informative? Score predictions that are wrong by a known amount.

    On drawn cells that cover 2 % to 50 % of the image: nothing found, outlines shrunk, grown and shifted, small cells
    missed, dead cells taken for live.

    Example: python -m yeastexp study metrics -o figures
    """
    from yeastexp.exercise import accuracy_and_iou as room

    _report_study(room, room.study(), output, as_json)


@study.command("normalization", short_help="Over all, training or single images: what differs.")
@click.option("--data", type=FILE, help="An HDF5 file as packed, in place of synthetic images.")
@FOLDER
@JSON
def study_normalization(data: Path | None, output: Path | None, as_json: bool) -> None:
    """Normalise over all images, over the training images or each on its own: what differs, and what leaks?

    Example: python -m yeastexp study normalization --data data.h5
    """
    from yeastexp.exercise import normalization as room

    _report_study(room, room.study(data), output, as_json)


def _report_study(room: Any, done: Any, output: Path | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(room.as_json(done), indent=1))
    else:
        console = _console()
        console.print(room.table(done))
        for sentence in room.findings(done):
            console.print(f"{sentence}\n", highlight=False, markup=False)
    for path in room.write(done, output) if output else []:
        click.echo(path, err=as_json)


def _counts(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in splits.items())


@commands.command()
@click.argument("run_directory", metavar="RUN", type=ANY)
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", type=ANY, required=True, help="Folder for the masks.")
@click.option("--tta", is_flag=True, help="Average over eight turns and mirrorings of the image.")
@click.option("--probabilities", is_flag=True, help="Write OUTPUT/probabilities/…, float32 TIFF, as well.")
@click.option("--overlay", is_flag=True, help="Write OUTPUT/overlays/…, images with outlines, as well.")
@CHECKPOINT
@click.option("--tile", type=POSITIVE, metavar="PIXELS", help="Side of the pieces of large images; else by memory.")
@click.option("--format", "form", type=click.Choice(["png", "tif"]), help="Else png; tif where too large for that.")
@DEVICE
def predict(
    run_directory: Path,
    images: tuple[str, ...],
    output: Path,
    tta: bool,
    probabilities: bool,
    overlay: bool,
    checkpoint: Which,
    tile: int | None,
    form: Literal["png", "tif"] | None,
    device: str,
) -> None:
    """Segment images of any size (files, folders, globs, an HDF5 file) into masks of the same names, and a table.

    Masks hold 0 and 255 where there are two classes, else class indices; predictions.csv has size, foreground fraction,
    connected cells and seconds of each image. What memory cannot take at once is cut into pieces that overlap by the
    model's receptive field, which changes nothing; when killed, the same command goes on.

    Example: python -m yeastexp predict runs/base/001 my_images/ -o masks
    """
    from yeastexp.prediction.predict import predict as verb

    count = verb(
        run_directory,
        images,
        output,
        checkpoint=checkpoint,
        tta=tta,
        probabilities=probabilities,
        overlay=overlay,
        tile=tile,
        form=form,
        device=device,
        progress=_shares_progress,
    )
    click.echo(f"{count} mask{'' if count == 1 else 's'} in {output}")


@commands.command()
@click.argument("run_directory", metavar="RUN", type=ANY)
@DATA
@SPLIT
@CHECKPOINT
@click.option(
    "--boundary-tolerance",
    type=click.FloatRange(0, 100),
    metavar="PX",
    help="Pixels by which a boundary may be off; else the experiment's, or 2.",
)
@DEVICE
@JSON
def evaluate(
    run_directory: Path,
    data: Path | None,
    split: Split | None,
    checkpoint: Which,
    boundary_tolerance: float | None,
    device: str,
    as_json: bool,
) -> None:
    """Score a run's checkpoint on whole images, beside answers without learning; write RUN/evaluations/….

    On the validation images, or on all of another FILE. per_image.csv has a row an image and class: pixels found,
    missed and false, accuracy, IoU, Dice, boundary F1, and the cells (connected regions) in truth and prediction.

    Example: python -m yeastexp evaluate runs/base/001 --split val
    """
    from yeastexp.evaluation import record as room
    from yeastexp.evaluation.evaluate import evaluate as verb

    folder, found = verb(
        run_directory,
        data,
        split=split,
        checkpoint=checkpoint,
        tolerance_px=boundary_tolerance,
        device=device,
        progress=_progress,
    )
    for note in found.notes:
        click.echo(f"warning: {note}", err=True)
    if as_json:
        click.echo((folder / room.FIGURES).read_text(encoding="utf-8"))
        return
    console = _console()
    for table in room.tables(found):
        console.print(table)
    for sentence in room.sentences(found):
        click.echo(sentence)
    click.echo(folder)


@commands.command()
@click.argument("run_directories", metavar="RUN RUN...", nargs=-1, required=True, type=ANY)
@click.option("--metric", default="iou", show_default=True, help="A metric of an evaluation, or of all these runs.")
@click.option("--class", "class_name", metavar="NAME", help="Else the foreground; of several the mean.")
@CHECKPOINT
@DATA
@SPLIT
@DEVICE
@JSON
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Draw both scores of each image, as .png or .svg.")
def compare(
    run_directories: tuple[Path, ...],
    metric: str,
    class_name: str | None,
    checkpoint: Which,
    data: Path | None,
    split: Split | None,
    device: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Tell what differs between runs, and whether images that all of them saw can tell them apart from the first.

    Differences are taken image by image, with their 95 % interval and p of the sign-flip test. A run whose scores are
    not there yet is evaluated. Runs that were scored on different images are refused. Folders of 'crossval' can be
    named as well, of the same folds and not beside runs: each image then has the mean over seeds of weights that never
    saw it.

    Example: python -m yeastexp compare runs/base/001 runs/base/002 -o pairs.png
    """
    from yeastexp.evaluation import compare as room

    done = room.compare(
        run_directories,
        metric=metric,
        class_name=class_name,
        checkpoint=checkpoint,
        data=data,
        split=split,
        device=device,
        output=output,
        progress=_progress,
    )
    if as_json:
        click.echo(json.dumps(room.as_json(done), indent=1, allow_nan=False))
    else:
        console = _console()
        for table in room.tables(done):
            console.print(table)
        for sentence in room.findings(done):
            click.echo(sentence)
    for path in room.draw(done, output) if output else []:
        click.echo(path, err=as_json)


@commands.command()
@click.argument("run_directories", metavar="RUN [RUN...]", nargs=-1, required=True, type=ANY)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Else RUN/report.html; of several ./report.html.")
@click.option("--metric", help="Of several: what they are compared by; else iou.")
@click.option("--class", "class_name", metavar="NAME", help="Of several: of which class, as in compare.")
@DEVICE
def report(
    run_directories: tuple[Path, ...], output: Path | None, metric: str | None, class_name: str | None, device: str
) -> None:
    """Write one page on a RUN, or on the directory of a crossval, that opens from disk and asks for nothing else.

    What was run, curves, scores beside answers without learning, the worst, median and best image with their mistakes
    outlined, every image, the confusion matrix, the model beside the cells, environment and experiment. Of an
    unfinished run, what is there. Of several, what compare tells of them. An older report is overwritten.

    Example: python -m yeastexp report runs/base/001
    """
    from yeastexp import report as room

    click.echo(
        room.report(
            run_directories, output=output, metric=metric, class_name=class_name, device=device, progress=_progress
        )
    )


def main() -> None:
    """Run a command; faults of the user are lines on stderr, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # paths that are no UTF-8 are printed as they are
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            commands(standalone_mode=False)
    except UserError as error:
        _fail(*error.faults, status=error.status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(RUN_FAILED)
    except MemoryError as error:
        asked = f" ({error})" if str(error) else ""
        _fail(f"out of memory{asked}; {SMALLER}")
    except RuntimeError as error:
        _fail_if_out_of_memory(error)
        raise
    except OSError as error:
        if error.filename is None:
            raise  # what the system says of a file is no bug of ours
        _fail(f"{error.filename}: {error.strerror}; make room, or name another place")


def _fail_if_out_of_memory(error: RuntimeError) -> None:
    """PyTorch's errors are told by their class and words, for which it is loaded where it was not."""
    from yeastexp.system import failures, memory

    if memory.is_exhausted(error):
        _fail(f"out of memory ({failures.asked(error)}); {SMALLER}")


def _fail(*faults: str, status: int = RUN_FAILED) -> NoReturn:
    for fault in faults:
        click.echo(_printable(fault), err=True)
    sys.exit(status)


def _printable(text: str) -> str:
    """A text in one line that does nothing to a terminal: names of files and keys may hold anything."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """A warning as a line, without the place in the program that gave it."""
    click.echo(f"warning: {_printable(' '.join(str(message).split()))}", err=True)


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def _progress(items: Iterable[Item]) -> Iterator[Item]:
    """The items, with a bar on stderr where that is a terminal."""
    listed = list(items)
    with click.progressbar(listed, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


@contextmanager
def _shares_progress(total: int) -> Iterator[Callable[[float], None]]:
    """What to tell of each share of an image that is done, with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda share: bar.advance(task, share)


def _print_part(part: dict[str, Any]) -> None:
    click.echo(f"{part['kind']} '{part['name']}'   {part['place']}\n\n{part['doc']}\n")
    rows = [(option["name"], option["type"], _default(option)) for option in part["options"]]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for option, (name, type_, default) in zip(part["options"], rows, strict=True):
        click.echo(f"  {name:<{widths[0]}}  {type_:<{widths[1]}}  {default}  {option['description']}".rstrip())


def _default(option: Mapping[str, Any]) -> str:
    if option["required"]:
        return "required"
    if option["default"] is None:
        return "optional"
    return f"= {json.dumps(option['default'], ensure_ascii=False, default=str)}"


if __name__ == "__main__":
    main()
