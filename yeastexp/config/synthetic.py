"""The synthetic data set with settings as the command line gives them."""

from __future__ import annotations

from collections.abc import Sequence

from yeastexp.config import toml_document
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.synth import NAME
from yeastexp.errors import UserError
from yeastexp.registry import dataset as datasets


def configured(images: int, size: int, seed: int, settings: Sequence[str]) -> SyntheticYeast:
    """The data set with further settings such as `crowding=0.4`, checked as those of an experiment are."""
    given = toml_document.Document(toml_document.Place(NAME), {"images": images, "size": size, "seed": seed})
    for setting in settings:
        toml_document.override(given, setting, {})
    typed, problems = datasets.find(NAME).schema.check(given.values)
    if problems:
        raise UserError(*(f"{given.place(problem.keys)}: {problem.message}" for problem in problems))
    try:
        return SyntheticYeast(**typed)
    except UserError as error:
        raise UserError(*(f"{given.place((error.key or '',))}: {fault}" for fault in error.faults)) from None
