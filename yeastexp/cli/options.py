"""Types and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from yeastexp.config import starters

FILE = click.Path(path_type=Path, dir_okay=False)
ANY = click.Path(path_type=Path)


class ExperimentFile(click.Path):
    """The type of an experiment file, which may be a starter that comes with the package, such as `yeastexp:base`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the file. Raises UserError if there is no such starter."""
        return starters.find(str(value)) or super().convert(value, param, ctx)


EXPERIMENT = ExperimentFile(path_type=Path)
POSITIVE = click.IntRange(1)

RUN = click.argument("run_directory", metavar="RUN", type=ANY)
SET = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key, as in train.epochs=2.")
FORCE = click.option("--force", is_flag=True, help="Overwrite the output file.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
DATA = click.option("--data", type=FILE, help="A packed HDF5 file to use instead of the run's own data set.")
SPLIT = click.option(
    "--split",
    type=click.Choice(["val", "test", "train", "all"]),
    help="Which images; default val, or all images of --data.",
)
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Which checkpoint's weights.",
)


def _trust(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Trust plugins until the command ends."""
    from yeastexp.config import trust

    if value:
        context.with_resource(trust.trusting())


TRUST = click.option(
    "--trust-plugins",
    is_flag=True,
    expose_value=False,
    callback=_trust,
    help="Execute the plugins of a run directory though you have not run them here.",
)
DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)

_PACKING = (
    click.option(
        "--labels",
        "kind",
        metavar="KIND",
        default="auto",
        show_default=True,
        help="What labels are: mask, class, instance, or a kind of annotations, as labelme or coco.",
    ),
    click.option("--colours", metavar="CLASSES", help="Classes of masks in colours, as cell=#ff0000,dead=#00ff00."),
    click.option("--labelled-only", is_flag=True, help="Leave out images without labels."),
    click.option("--map", "maps", multiple=True, metavar="MAP=LABELS", help="Further labels, as in dead=dead_cells/."),
    click.option("--ignore", type=int, metavar="VALUE", help="Label of pixels that are not annotated, often 255."),
    click.option(
        "--val", metavar="CHOICE", help="Validation images: '8' for the last 8, '0.3' for 30 %, names or globs."
    ),
    click.option(
        "--test", metavar="CHOICE", help="Test images, chosen in the same way; to be scored once, at the end."
    ),
    click.option("--pixel-um", type=float, help="Pixel size in micrometres."),
    click.option("--axes", metavar="LETTERS", help="Axes of stacks that do not say them, as TYX or TCYX."),
    click.option("--z", metavar="PLANE", help="Of several planes in depth: max, middle, or a number from 0 on."),
    click.option("--dataset", metavar="NAME", help="The array of images in HDF5 files that hold several."),
    click.option("--label-dataset", metavar="NAME", help="The array of labels in HDF5 files that hold several."),
    click.option("--group-by", metavar="REGEX", help="Groups that no split parts: what matches in names, or 'folder'."),
    click.option("--part-groups", is_flag=True, help="Let --val and --test part groups, as the frames of a movie."),
)


def PACKING(command: Callable[..., None]) -> Callable[..., None]:  # beside the other decorators
    """Add the options that say how images and labels are packed to a command."""
    # Decorators apply from the innermost outwards: reversed, `--help` lists the options in their order above.
    for option in reversed(_PACKING):
        command = option(command)
    return command
