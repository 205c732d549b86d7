"""Whether a data set gives samples of the form that everybody expects."""

from __future__ import annotations

import torch
from torch import Tensor

from yeastexp.contracts import Dataset
from yeastexp.registry import described
from yeastexp.sample import Sample


def fault_of_sample(dataset: Dataset, name: str) -> str | None:
    """What is wrong with what a data set reads under a name; None if nothing is."""
    sample: object = dataset.read(name)
    if not isinstance(sample, Sample):
        return f"read('{name}') gives {described(sample)}, not a Sample"
    shape = tuple(dataset.shape(name))
    maps = [(f"maps['{key}']", value) for key, value in sample.maps.items()]
    for field, value in (("image", sample.image), ("labels", sample.labels), *maps):
        dtype, wanted = (torch.float32, shape) if field == "image" else (torch.int64, shape[1:])
        if not isinstance(value, Tensor) or value.dtype != dtype or value.shape != wanted:
            kind = str(dtype).removeprefix("torch.")
            return f"read('{name}').{field} is {described(value)}, not a tensor {wanted} of {kind}"
    if missing := set(dataset.maps) - set(sample.maps):
        return f"read('{name}').maps lacks '{min(missing)}', which is among its maps"
    return None
