"""Restores a model after a run on the meta device, for models that keep a tensor at their first run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put back the attributes, parameters, buffers and children of all layers, as far as a run has replaced them."""
    # A model may make its map of coordinates at the first run and use it ever after. Made without pixels it would break
    # every run with them, so all that forward may assign is put back, the objects themselves and in their dictionaries.
    held = []
    for layer in model.modules():
        attributes = vars(layer)
        tables = {name: dict(value) for name, value in attributes.items() if isinstance(value, dict)}
        held.append((attributes, dict(attributes), tables))
    try:
        yield
    finally:
        for attributes, before, tables in held:
            attributes.clear()
            attributes.update(before)
            for name, table in tables.items():
                attributes[name].clear()
                attributes[name].update(table)
