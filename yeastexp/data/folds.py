"""The images of a data set split into folds, as a file that experiments share; and near-duplicates among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from yeastexp.data import images
from yeastexp.data.groups import by_pattern, members
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.sample import channel_mean
from yeastexp.system import files

THUMBNAIL_PX = 32
"""The side of the thumbnails by which near-duplicates are searched."""

MIN_CORRELATION = 0.95
"""Of the thumbnails of two near-duplicates."""

AT_ONCE = 1024
"""Thumbnails that are compared with as many others at once, to bound the memory."""

FEWEST = 2
"""Folds: one to hold out, one to train on."""

Thumbnail = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Folds:
    """The names of each fold; those of one group (what `group_by` matches in a name) are in the same fold.

    Folds of `blocks` hold groups that follow each other by name.
    """

    folds: tuple[tuple[str, ...], ...]
    group_by: str | None = None
    seed: int = 0
    blocks: bool = False

    def splits(self, fold: int, test: Sequence[str] = ()) -> dict[str, list[str]]:
        """The splits in which a fold, counted from 1, is held out for validation."""
        held_out = list(self.folds[fold - 1])
        rest = sorted(name for names in self.folds for name in names if name not in held_out)
        return {"train": rest, "val": held_out, **({"test": list(test)} if test else {})}

    def unlike(self, names: Iterable[str]) -> str | None:
        """The first name that is either in no fold or not among `names`, None if they are the same."""
        return min({*names} ^ {name for fold in self.folds for name in fold}, default=None)

    def write(self, path: Path) -> None:
        """Write the file that [validation] folds names."""
        files.write_text(path, json.dumps(asdict(self), indent=1))


def split_into_folds(
    names: Iterable[str],
    folds: int,
    group_by: str | None = None,
    seed: int = 0,
    blocks: bool = False,
    groups: Mapping[str, str] | None = None,
) -> Folds:
    """Split images into folds, whole groups at a time, each to the fold that has fewest images so far.

    With `blocks`, groups are assigned in the order of their names, so that few frames of a time lapse have a neighbour
    in another fold. The order of `names` does not matter. `groups` are those that the data set knows, where none are
    matched. Raises UserError if there are fewer groups than folds.
    """
    if folds < FEWEST:
        raise UserError(f"--folds {folds}: leaves no other fold to train on; give {FEWEST} or more")
    names = sorted(names, key=images.natural if blocks else None)
    known = by_pattern(names, group_by) if group_by else groups or {}
    whole = members(names, known)
    if len(whole) < folds:
        what = "groups" if known else "images"
        remedy = "" if group_by or not known else " (--group-by '.+' takes each image for itself)"
        raise UserError(f"--folds {folds}: there are {len(whole)} {what}, and each fold needs one{remedy}")
    assigned = _in_blocks(whole, folds) if blocks else _evenly(whole, folds, seed)
    return Folds(tuple(tuple(sorted(fold)) for fold in assigned), group_by, seed, blocks)


def _evenly(groups: Sequence[tuple[str, ...]], folds: int, seed: int) -> list[list[str]]:
    assigned: list[list[str]] = [[] for _ in range(folds)]
    order = generator(seed, "folds").permutation(len(groups)).tolist()
    for group in sorted((groups[index] for index in order), key=len, reverse=True):
        min(assigned, key=len).extend(group)
    return assigned


def _in_blocks(groups: Sequence[tuple[str, ...]], folds: int) -> list[list[str]]:
    runs = np.array_split(np.arange(len(groups)), folds)
    return [[name for index in run for name in groups[index]] for run in runs]


def read(path: Path) -> Folds:
    """The folds of a file. Raises UserError if it holds none."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        assigned = tuple(tuple(map(str, fold)) for fold in stored["folds"])
        if len(assigned) < FEWEST:
            raise ValueError(f"{len(assigned)} in it, which leaves no other fold to train on")
        if empty := [number for number, fold in enumerate(assigned, 1) if not fold]:
            raise ValueError(f"fold {empty[0]} holds no image")
        names = [name for fold in assigned for name in fold]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"'{twice[0]}' is in it {names.count(twice[0])} times")
        return Folds(assigned, stored["group_by"], stored["seed"], stored.get("blocks", False))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a number of folds, or a file that 'crossval' wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no folds as 'crossval' writes them ({error})") from None


class FoldDataset:
    """A data set whose splits are those of a fold; its test split stays as it is.

    Raises UserError if the folds are of other images.
    """

    def __init__(self, dataset: Any, path: Path, fold: int) -> None:
        folds = read(path)
        if fold > len(folds.folds):
            raise UserError(f"[validation] fold: is {fold}, but '{path}' has {len(folds.folds)}")
        names = {name for split, members in dataset.splits.items() if split != "test" for name in members}
        if (odd := folds.unlike(names)) is not None:
            raise UserError(f"[validation] folds: '{path}' is of other images: '{odd}' is in one of the two alone")
        self.dataset = dataset
        self.splits = folds.splits(fold, dataset.splits.get("test", ()))
        self.maps = dataset.maps
        self.normalization = dataset.normalization
        self.channel_names: tuple[str, ...] = getattr(dataset, "channel_names", ())

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        shape: tuple[int, int, int] = self.dataset.shape(name)
        return shape

    def dtype(self, name: str) -> str | None:
        """The type that an image is stored in, if the data set says so."""
        return stored_dtype(self.dataset, name)

    def read(self, name: str) -> Any:
        """An image with its ground truth."""
        return self.dataset.read(name)


def stored_dtype(dataset: Any, name: str) -> str | None:
    """The type that an image is stored in, as 'uint16'; returns None if the data set has no `dtype`."""
    dtype: str | None = dataset.dtype(name) if hasattr(dataset, "dtype") else None
    return dtype


def near_duplicates(thumbnails: Mapping[str, Thumbnail], folds: Folds) -> list[tuple[str, str, float]]:
    """Pairs of images in different folds whose thumbnails correlate, with the correlation.

    A constant image correlates with no other.
    """
    fold_of = {name: index for index, names in enumerate(folds.folds) for name in names}
    names = sorted(fold_of)
    stacked = np.stack([thumbnails[name] for name in names])
    correlations = stacked @ stacked.T
    return [
        (one, other, float(correlations[i, j]))
        for i, one in enumerate(names)
        for j, other in enumerate(names[:i])
        if correlations[i, j] >= MIN_CORRELATION and fold_of[one] != fold_of[other]
    ]


def most_similar(
    thumbnails: Mapping[str, Thumbnail], names: Sequence[str], others: Sequence[str]
) -> list[tuple[str, str, float]]:
    """Each of `names` that is a near-duplicate of one of `others`, with the most similar and their correlation."""
    if not others:
        return []
    duplicates = []
    for first in range(0, len(names), AT_ONCE):
        chunk = names[first : first + AT_ONCE]
        best, place = np.full(len(chunk), -np.inf), np.zeros(len(chunk), np.int64)
        stacked = np.stack([thumbnails[name] for name in chunk])
        for begin in range(0, len(others), AT_ONCE):
            correlations = stacked @ np.stack([thumbnails[name] for name in others[begin : begin + AT_ONCE]]).T
            better = correlations.max(axis=1) > best
            place[better] = begin + correlations.argmax(axis=1)[better]
            best = np.maximum(best, correlations.max(axis=1))
        pairs = zip(chunk, place.tolist(), best.tolist(), strict=True)
        duplicates += [(name, others[index], r) for name, index, r in pairs if r >= MIN_CORRELATION]
    return duplicates


def thumbnail(image: Tensor) -> Thumbnail:
    """The grey values of an image (C, H, W) on a few pixels, with mean 0 and length 1; all 0 if it is constant."""
    grey = torch.from_numpy(channel_mean(image.numpy()))[None, None]
    small = functional.adaptive_avg_pool2d(grey, THUMBNAIL_PX).flatten()
    centred = small - small.mean()
    length = torch.linalg.vector_norm(centred)
    return np.asarray((centred / length if length > 1e-9 * small.abs().max() else torch.zeros_like(centred)).numpy())
