"""Measurements that anyone can repeat: `python -m benchmarks NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import robustness as robustness_of

PATH = click.Path(path_type=Path, exists=True)


@click.group()
def commands() -> None:
    """Measurements that anyone can repeat."""


@commands.command()
@click.argument("data", type=PATH)
@click.argument("runs", type=PATH, nargs=-1, required=True)
@click.option("--synthetic", is_flag=True, help="Foreign fields of synthetic yeast with other settings instead.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder for a picture of each foreign image.")
def robustness(data: Path, runs: tuple[Path, ...], synthetic: bool, pictures: Path | None) -> None:
    """Foreground IoU of RUNS, and of a threshold, on the validation images of DATA and on foreign fields made of them.

    Example: python -m benchmarks robustness phase.h5 runs/mine/001 runs/mine/002
    """
    click.echo(robustness_of.table(data, runs, pictures, synthetic))


if __name__ == "__main__":
    commands()
