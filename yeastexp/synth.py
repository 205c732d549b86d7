"""Synthetic images in a file of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from yeastexp import document, store
from yeastexp.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.errors import UserError
from yeastexp.registry import dataset as datasets

NAME = "synthetic_yeast"


def configured(images: int, size: int, seed: int, settings: Sequence[str]) -> SyntheticYeast:
    """The data set with further settings such as `crowding=0.4`, checked as those of an experiment are."""
    given = document.Document(document.Place(NAME), {"images": images, "size": size, "seed": seed})
    for setting in settings:
        document.override(given, setting, {})
    typed, problems = datasets.find(NAME).schema.check(given.values)
    if problems:
        raise UserError(*(f"{given.place(problem.keys)}: {problem.message}" for problem in problems))
    try:
        return SyntheticYeast(**typed)
    except UserError as error:
        raise UserError(*(f"{given.place((error.key or '',))}: {fault}" for fault in error.faults)) from None


def synth(
    output: Path,
    dataset: SyntheticYeast,
    *,
    force: bool = False,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> None:
    """Write the images of a synthetic data set, so that the data set `hdf5` reads the same samples from the file."""
    provenance = {
        "made_by": f"yeastexp {version('yeastexp')}, {NAME}",
        "seed": dataset.seed,
        **vars(dataset.look),
    }
    store.write(
        output,
        dataset.splits,
        dataset.arrays,
        provenance=provenance,
        pixel_um=dataset.pixel_um,
        force=force,
        progress=progress,
    )
