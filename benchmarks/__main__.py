"""Measurements that anyone can repeat: `python -m benchmarks NAME`.

What a command measures is imported when it is called: the processes of contenders start with this file, and are to hold
nothing but their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.measuring import Contender

PATH = click.Path(path_type=Path, exists=True)


ROUNDS = click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="Of which medians are.")
ONLY = click.option("--only", multiple=True, metavar="NAME", help="Leave other contenders out; may be repeated.")


@click.group()
def commands() -> None:
    """Measurements that anyone can repeat; on a machine with a GPU, benchmarks/gpu.sh makes those for one."""


@commands.command()
@click.argument("data", type=PATH)
@click.argument("runs", type=PATH, nargs=-1, required=True)
@click.option("--synthetic", is_flag=True, help="Foreign fields of synthetic yeast with other settings instead.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder for a picture of each foreign image.")
def robustness(data: Path, runs: tuple[Path, ...], synthetic: bool, pictures: Path | None) -> None:
    """Foreground IoU of RUNS, and of a threshold, on the validation images of DATA and on foreign fields made of them.

    Example: python -m benchmarks robustness phase.h5 runs/mine/001 runs/mine/002
    """
    from benchmarks import robustness as robustness_of

    click.echo(robustness_of.table(data, runs, pictures, synthetic))


@commands.command()
@click.argument("data", type=PATH)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Packed file to write.")
def fields(data: Path, output: Path) -> None:
    """The foreign fields of `robustness` as a packed file with ids of cells, which `evaluate --data` scores.

    Example: python -m benchmarks fields phase.h5 -o fields.h5
    """
    from benchmarks import robustness as robustness_of
    from yeastexp.data.datasets.hdf5 import hdf5

    robustness_of.pack(hdf5(data), output)
    click.echo(output)


@commands.command()
@ROUNDS
@ONLY
def training(rounds: int, only: tuple[str, ...]) -> None:
    """Training steps a second, beside a bare loop and other trainers: an ordinary step and a tiny one.

    Example: python -m benchmarks training
    """
    from benchmarks import training as training_of

    click.echo(training_of.report(contenders=_chosen(training_of.CONTENDERS, only), rounds=rounds))


@commands.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of which medians are.")
@click.option("--side", type=click.IntRange(256), help="Pixels of the image that is predicted; else 8192.")
def gpu(rounds: int, side: int | None) -> None:
    """On a GPU: steps a second beside a bare loop, what the GPU is given and how busy it is, and prediction.

    Example: python -m benchmarks gpu --rounds 1 --side 4096
    """
    from benchmarks import gpu as gpu_of

    for part in gpu_of.report(rounds=rounds, side=side or gpu_of.SIDE):
        click.echo(f"{part}\n")


@commands.command()
@ROUNDS
@ONLY
def augmentation(rounds: int, only: tuple[str, ...]) -> None:
    """Augmented windows a second, beside other libraries with the same list of augmentations.

    Example: python -m benchmarks augmentation --only albumentations
    """
    from benchmarks import augmentation as augmentation_of

    click.echo(augmentation_of.report(contenders=_chosen(augmentation_of.CONTENDERS, only), rounds=rounds))


@commands.command()
@ROUNDS
@ONLY
def metrics(rounds: int, only: tuple[str, ...]) -> None:
    """Whole images a second whose mean IoU is counted and computed, and the answers.

    Example: python -m benchmarks metrics
    """
    from benchmarks import metrics as metrics_of

    click.echo(metrics_of.report(contenders=_chosen(metrics_of.CONTENDERS, only), rounds=rounds))


@commands.command()
@ROUNDS
def startup(rounds: int) -> None:
    """Seconds to the help, to the import of libraries, and to the first training step of a run.

    Example: python -m benchmarks startup
    """
    from benchmarks import startup as startup_of

    click.echo(startup_of.report(rounds=rounds))


@commands.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of which medians are.")
@click.option("--processes", type=click.IntRange(1), multiple=True, help="Else 1, 2 and 4.")
def scaling(rounds: int, processes: tuple[int, ...]) -> None:
    """Training steps a second of one run on several PROCESSES, beside DistributedDataParallel.

    Example: python -m benchmarks scaling --processes 1 --processes 2
    """
    from benchmarks import scaling as scaling_of

    click.echo(scaling_of.report(processes or (1, 2, 4), rounds))


@commands.command()
@ROUNDS
@ONLY
@click.option("--side", "sides", type=click.IntRange(256), multiple=True, help="Else 1024, 2048 and 4096 pixels.")
def prediction(rounds: int, only: tuple[str, ...], sides: tuple[int, ...]) -> None:
    """Megapixels a second in exact tiles, beside the whole image and MONAI; then `predict` on images of growing SIDEs.

    Example: python -m benchmarks prediction --side 8192 --side 20000
    """
    from benchmarks import prediction as prediction_of

    contenders = _chosen(prediction_of.CONTENDERS, only)
    click.echo(prediction_of.report(contenders=contenders, rounds=rounds, sides=sides or prediction_of.SIDES))


def _chosen(contenders: Sequence[Contender], only: Sequence[str]) -> list[Contender]:
    """The first one, which all are measured against, and those asked for; all where none is."""
    unknown = set(only) - {one.name for one in contenders}
    if unknown:
        known = ", ".join(one.name for one in contenders)
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; known: {known}", param_hint="--only")
    return [one for place, one in enumerate(contenders) if not only or not place or one.name in only]


if __name__ == "__main__":
    commands()
