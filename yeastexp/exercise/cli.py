"""The command `study`: the exercise sheet's questions, each answered by a computation."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Protocol, cast

import click

from yeastexp.system.terminal import echo

FOLDER = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write plots as PNG and SVG, and the numbers as JSON.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Study(Protocol):
    """The interface of a study's module; `result` is what its `study` returns."""

    study: Any

    def table(self, result: Any) -> Any:
        """The result as a rich table."""

    def findings(self, result: Any) -> list[str]:
        """Sentences on what the result shows."""

    def as_json(self, result: Any) -> dict[str, Any]:
        """The result as JSON."""

    def write(self, result: Any, folder: Path) -> list[Path]:
        """Write plots and numbers; their paths."""


@click.group(no_args_is_help=True, short_help="Answer a question of the exercise sheet.")
def study() -> None:
    """Answer a question of the exercise sheet by a computation: a table, and what it says in sentences.

    Example: python -m yeastexp study metrics
    """


@study.command(short_help="Accuracy or mean IoU: which says more, and why.")
@FOLDER
@JSON
def metrics(output: Path | None, as_json: bool) -> None:
    """Which of accuracy and mean IoU is more informative? Score predictions that are wrong by a known amount.

    On synthetic cells that cover 2 % to 50 % of the image: nothing found, outlines eroded, dilated and shifted, small
    cells missed, dead cells taken for living ones.

    Example: python -m yeastexp study metrics -o figures
    """
    module = _imported("accuracy_and_iou")
    _show(module, module.study(), output, as_json)


@study.command(short_help="Over all, training or single images: what differs.")
@click.option("--data", type=click.Path(path_type=Path, dir_okay=False), help="A packed HDF5 file; default synthetic.")
@FOLDER
@JSON
def normalization(data: Path | None, output: Path | None, as_json: bool) -> None:
    """Normalise over all images, over the training images or each on its own: what differs, and what leaks?

    Example: python -m yeastexp study normalization --data data.h5
    """
    module = _imported("normalization")
    _show(module, module.study(data), output, as_json)


def _imported(name: str) -> Study:
    """Import the module of a study."""
    # Only when a study is called: `--help` should not wait for PyTorch.
    return cast("Study", importlib.import_module(f"yeastexp.exercise.{name}"))


def _show(module: Study, result: Any, output: Path | None, as_json: bool) -> None:
    if as_json:
        echo(*json.dumps(module.as_json(result), indent=1).splitlines())
    else:
        importlib.import_module("yeastexp.exercise.writing").show(module.table(result), module.findings(result))
    for path in module.write(result, output) if output else []:
        echo(path, err=as_json)
