"""Whether a data set gives samples of the form that everybody expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from yeastexp.contracts import Dataset
from yeastexp.registry import described
from yeastexp.sample import Sample


def fault_of_dataset(dataset: Dataset) -> str | None:
    """What is wrong with a data set's attributes; None if nothing is."""
    splits: object = dataset.splits
    named = isinstance(splits, Mapping) and all(
        isinstance(names, Sequence) and all(isinstance(name, str) for name in names) and not isinstance(names, str)
        for names in splits.values()
    )
    if not isinstance(splits, Mapping) or not named:
        given = described(splits) if not isinstance(splits, Mapping) else repr(splits)[:80]
        return f"splits is {given}; give the names of the images of each, as in {{'train': ['a', 'b'], 'val': ['c']}}"
    count = Counter(name for names in splits.values() for name in names)
    if repeated := [name for name, times in count.items() if times > 1]:
        places = " and ".join(split for split, names in splits.items() for name in names if name == repeated[0])
        return f"splits names '{repeated[0]}' more than once, in {places}; an image belongs to one split, once"
    stored: object = dataset.normalization
    if stored is not None and not (isinstance(stored, Mapping) and {"mean", "std"} <= stored.keys()):
        return f"normalization is {described(stored)}; give None, or 'mean' and 'std' of each channel"
    maps: object = dataset.maps
    if not isinstance(maps, Sequence) or isinstance(maps, str):
        return f"maps is {described(maps)}; give the names of the further label maps, () for none"
    shape: object = dataset.shape(next(iter(count), "")) if count else (1, 1, 1)
    if not isinstance(shape, Sequence) or len(shape) != 3 or not all(isinstance(size, int) for size in shape):
        return f"shape('{next(iter(count))}') gives {shape!r}; give (C, H, W)"
    return None


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
