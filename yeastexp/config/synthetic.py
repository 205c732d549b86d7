"""A synthetic data set with settings from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from yeastexp.config import toml_document
from yeastexp.data.datasets.drawn import Drawn
from yeastexp.errors import UserError
from yeastexp.registry import dataset as datasets


def configured(images: int, size: int, seed: int, settings: Sequence[str], name: str = "synthetic_yeast") -> Drawn:
    """Return the data set `name` with settings such as `crowding=0.4`, which are checked like those of a file."""
    kind = datasets.find(name)
    options: dict[str, object] = {"images": images, "size": size, "seed": seed}
    places: dict[toml_document.Keys, toml_document.Place] = {(key,): toml_document.Place(f"--{key}") for key in options}
    given = toml_document.Document(toml_document.Place(name), options, places)
    for setting in settings:
        toml_document.override(given, setting, {})
    typed, problems = kind.schema.check(given.values)
    if problems:
        raise UserError(*(f"{given.place(problem.keys)}: {problem.message}" for problem in problems))
    try:
        drawn: Drawn = kind.factory(**typed)
        return drawn
    except UserError as error:
        raise UserError(*(f"{given.place((error.key or '',))}: {fault}" for fault in error.faults)) from None
