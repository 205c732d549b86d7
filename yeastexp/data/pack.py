"""Packing of images and labels into one HDF5 file, and normalisation of such a file into another."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from yeastexp.data import tiff_file
from yeastexp.data.annotations import KINDS as FORMATS
from yeastexp.data.annotations.colours import parsed
from yeastexp.data.groups import by_pattern
from yeastexp.data.hdf5_file import MAPS, UNLABELLED, Form, Origin, Reader, is_stacked, refuse_overwriting, write
from yeastexp.data.label_sources import Drawn, LabelReading, NoLabels, has_ids, title_of
from yeastexp.data.normalization import PerChannel, one_or_each
from yeastexp.data.pairs import Pair, Pairs, listed, paired
from yeastexp.data.recordings.recording import Choices, Reading, Recording
from yeastexp.data.running_moments import RunningMoments
from yeastexp.data.splits import Choice, split
from yeastexp.data.survey import KINDS, Kind, Survey, converter
from yeastexp.errors import UserError
from yeastexp.sample import IGNORE
from yeastexp.system import files
from yeastexp.system.formatting import format_count
from yeastexp.system.progress_bar import ProgressBar

Array = npt.NDArray[Any]
Fit = Literal["all", "train"]
FOLDER = "folder"
"""The value of `group_by` that groups images by the folders they are in."""


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote. `duplicates` are groups of identical images in several splits, as `split/name`."""

    output: Path
    splits: dict[str, int]
    stacked: bool
    channels: int
    dtype: str
    kind: Kind
    label_values: tuple[int, ...]
    foreground: float
    duplicates: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...] = ()
    pixel_um: float | None = field(default=None, compare=False)
    origin: Origin = field(default=Origin(), compare=False)
    label_files: tuple[str, ...] = ()
    """The formats of label files that are not images."""
    choices: tuple[str, ...] = ()
    """The choices made for files that could be read in several ways."""
    files: tuple[str, ...] = ()
    """A line about each image; of a dry run only."""
    faults: tuple[str, ...] = ()
    """The errors that would have ended the packing; of a dry run only."""


@dataclass(frozen=True)
class Normalized:
    """What `normalize` wrote: `mean` and `std` over the images of `fit`, a list for several channels."""

    output: Path
    splits: dict[str, int]
    stacked: bool
    mean: PerChannel
    std: PerChannel
    fit: Fit


def pack(
    images: Sequence[str | Path],
    labels: Sequence[str | Path],
    output: Path,
    *,
    kind: str = "auto",
    val: Choice | None = None,
    test: Choice | None = None,
    ignore: int | None = None,
    pixel_um: float | None = None,
    choices: Choices | None = None,
    colours: str | None = None,
    labelled_only: bool = False,
    maps: Mapping[str, str] | None = None,
    group_by: str | None = None,
    part_groups: bool = False,
    dry_run: bool = False,
    force: bool = False,
    progress: ProgressBar[str] = iter,
) -> Packed:
    """Write pairs of images and labels to one file, without rescaling; nothing is written if `dry_run`.

    Pixels with the label `ignore` are unlabelled. With `labelled_only` images without labels are left out. `group_by`
    is FOLDER, for that of each image, or a regular expression that is matched with its name; otherwise the frames of a
    stack are a group. `maps` gives the paths of further label maps by name, as of dead cells. Raises UserError if an
    input is wrong; a dry run returns the faults of files.
    """
    # All files are read twice: what labels mean, and the types and shapes that are stored, follow from all of them
    # together, and only one image is in memory at a time. Nothing is written before every file has proved readable.
    if not dry_run:
        refuse_overwriting(output, force)
    annotations = _refuse_odd_options(kind, colours, pixel_um)
    found = paired(images, labels, choices, annotations, colours, labelled_only)
    pairs = found.by_name
    said = _Said.of(found, kind, ignore, colours)
    further = _further(images, maps or {}, pairs, choices, said.kind, labelled_only)
    _refuse_to_replace_a_source(output, pairs)
    groups = _groups(pairs, group_by)
    faults: list[str] = []
    later = partial(_told_later, faults, dry_run)
    splits: dict[str, tuple[str, ...]] = {}
    with later():
        splits = _splits(found, val, test, {} if part_groups else groups)
    survey, odd = _survey(pairs, further, said, dry_run, later, progress)
    meant = said.kind
    with later():
        meant = said.refuse_or_recognise(survey)
        _refuse_ids_twice(meant, further)
    if not survey.values:
        raise UserError(*faults)
    pairs = {name: pairs[name] for name in survey.raw}  # in a dry run, unreadable files are left out
    splits = {part: tuple(name for name in names if name in pairs) for part, names in splits.items()}
    facts = _Facts.of(pairs, found.doubtful, choices or Choices(), pixel_um)
    channels = next(iter(survey.raw.values()))[0][0]
    origin = Origin(groups, facts.frames, facts.channel_names if len(facts.channel_names) == channels else ())
    stored = _Stored(pairs, further, survey, meant)
    if not dry_run:
        with Pixels(replace(said, kind=meant)) as pixels:
            write(
                output,
                splits,
                partial(stored.read, pixels),
                provenance=_provenance(said, meant, facts, survey),
                pixel_um=facts.pixel_um,
                origin=origin,
                force=force,
                progress=progress,
                forms=stored.forms,
            )
    return Packed(
        output=output,
        splits={part: len(names) for part, names in splits.items()},
        stacked=is_stacked(stored.forms.values()),
        channels=channels,
        dtype=str(np.result_type(*(dtype for _, dtype in survey.raw.values()))),
        kind=meant,
        label_values=tuple(sorted(survey.values)),
        foreground=survey.foreground / max(survey.pixels, 1),
        warnings=(
            *_stacks(pairs),
            *_without_effect(pairs.values(), choices or Choices(), part_groups and not groups),
            *facts.warnings,
            *odd,
            *survey.warnings(meant),
        ),
        pixel_um=facts.pixel_um,
        origin=origin,
        label_files=said.titles,
        choices=(*facts.choices, *said.notes),
        files=tuple(_line(pair, survey, meant) for pair in pairs.values()) if dry_run else (),
        faults=tuple(faults),
        duplicates=_duplicates(survey.image_digests, splits),
    )


def _refuse_odd_options(kind: str, colours: str | None, pixel_um: float | None) -> str | None:
    """The annotation format that `kind` names, or None if it is a kind of label image.

    Raises UserError if an option has no valid value.
    """
    if pixel_um is not None and not (math.isfinite(pixel_um) and pixel_um > 0):
        raise UserError(f"--pixel-um: {pixel_um} is not the size of a pixel; give a number of micrometres above 0")
    if kind not in KINDS and kind not in FORMATS:
        raise UserError(f"--labels {kind}: is no kind of labels; there are {', '.join((*KINDS, *FORMATS))}")
    if colours is not None and kind not in ("auto", "class"):
        raise UserError(f"--labels {kind}: labels of --colours are classes; omit one of them")
    return None if kind in KINDS else kind


def _splits(
    found: Pairs, val: Choice | None, test: Choice | None, groups: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """The names of each split; images without labels have one of their own."""
    by_name = found.by_name.items()
    if found.layout and test is None:
        test = tuple(name for name, pair in by_name if pair.split == "test") or None
    if found.layout and val is None:
        val = tuple(name for name, pair in by_name if pair.split == "val") or None
    splits = split([name for name, pair in by_name if not isinstance(pair.labels, NoLabels)], val, test, groups)
    unlabelled = tuple(name for name, pair in by_name if isinstance(pair.labels, NoLabels))
    return splits | ({UNLABELLED: unlabelled} if unlabelled else {})


def _survey(
    pairs: Mapping[str, Pair],
    further: Mapping[str, Mapping[str, Pair]],
    said: _Said,
    dry_run: bool,
    later: Callable[[], AbstractContextManager[None]],
    progress: ProgressBar[str],
) -> tuple[Survey, Sequence[str]]:
    """What all images and labels hold, and warnings about odd labels. Faults of files go through `later`."""
    survey = Survey(said.ignore, said.kind, dry_run)
    with Pixels(said) as pixels:
        for name in progress(tuple(pairs)):
            with later():
                survey.add(pairs[name], *pixels.read(pairs[name]))
                for key, its_pairs in further.items():
                    survey.add_map(key, its_pairs[name], pixels.labels_of(its_pairs[name]))
        return survey, pixels.labels.told()


@contextmanager
def _told_later(faults: list[str], later: bool) -> Iterator[None]:
    """Add the faults of a UserError to `faults` and go on, if `later`: a dry run reports those of all files at once."""
    try:
        yield
    except UserError as error:
        if not later:
            raise
        faults += error.faults


def normalize(
    source: Path,
    output: Path,
    *,
    fit: Fit = "all",
    joint: bool = False,
    force: bool = False,
    progress: ProgressBar[str] = iter,
) -> Normalized:
    """Write a copy of a file whose raw values are float32 with mean 0 and standard deviation 1.

    Both are taken over all images of `fit`, for each channel or for all channels `joint`ly. Raises UserError if the
    file cannot be normalised: it already is, has no image to fit, or a channel without spread.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"{output}: is the file that is read; name another one to write")
    refuse_overwriting(output, force)
    reader = Reader(source)
    contents = reader.contents
    if contents.normalization is not None:
        raise UserError(f"{source}: is normalised already; give the file it was made from")
    fitted = contents.names if fit == "all" else contents.splits.get("train", ())
    if not fitted:
        raise UserError(f"{source}: has no training image to fit; use --fit all")
    count = 1 if joint else reader.shape(fitted[0])[0]
    if odd := [name for name in contents.names if not joint and reader.shape(name)[0] != count]:
        raise UserError(f"{source}: images '{fitted[0]}' and '{odd[0]}' differ in channels; make two files of them")
    means, deviations = _mean_and_std(reader, progress(fitted), fit, count)

    def read(name: str) -> dict[str, Array]:
        arrays = reader.read(name)
        centred = _finite(source, name, arrays["raw"]) - np.reshape(means, (-1, 1, 1))
        raw = (centred / np.reshape(deviations, (-1, 1, 1))).astype(np.float32)
        return {**arrays, "raw": raw[0] if len(raw) == 1 else raw}

    write(
        output,
        contents.splits,
        read,
        provenance=contents.provenance,
        pixel_um=contents.pixel_um,
        origin=contents.origin,
        normalization={
            "mean": one_or_each(means),
            "std": one_or_each(deviations),
            "fit": fit,
            "source_sha256": files.digest(source),
        },
        force=force,
        progress=progress,
        forms={name: _normalized_forms(form) for name, form in reader.forms.items()},
    )
    return Normalized(
        output=output,
        splits={part: len(names) for part, names in contents.splits.items()},
        stacked=is_stacked(_normalized_forms(form) for form in reader.forms.values()),
        mean=one_or_each(means),
        std=one_or_each(deviations),
        fit=fit,
    )


def _mean_and_std(reader: Reader, names: Iterable[str], fit: Fit, count: int) -> tuple[list[float], list[float]]:
    """The means and standard deviations of `count` channels, or of all values if it is 1, over the images `names`.

    Raises UserError if a value is not finite, or if all of a channel are equal.
    """
    moments, low, high = [RunningMoments() for _ in range(count)], [math.inf] * count, [-math.inf] * count
    for name in names:
        values = _finite(reader.path, name, reader.read(name)["raw"])
        for index, plane in enumerate(values if count > 1 else values[None]):
            # Deviations from the image's own mean, merged afterwards: a sum of squares loses its digits where the mean
            # is large beside the spread, as in 16-bit recordings.
            mean = float(plane.mean())
            moments[index].merge(plane.size, mean, float(np.square(plane - mean).sum()))
            low[index], high[index] = min(low[index], float(plane.min())), max(high[index], float(plane.max()))
    # Both are asked: of equal values the mean can be rounded, and the standard deviation is then tiny, not 0.
    for index, channel in enumerate(moments):
        if low[index] == high[index] or channel.std == 0:
            which = "all pixels" if fit == "all" else "all pixels of the training images"
            which += f" in channel {index + 1}" if count > 1 else ""
            raise UserError(
                f"{reader.path}: {which} have the value {low[index]:g}, so their spread is 0; check the images"
            )
    return [channel.mean for channel in moments], [channel.std for channel in moments]


def _refuse_to_replace_a_source(output: Path, pairs: Mapping[str, Pair]) -> None:
    if output.exists() and any(
        path.exists() and path.samefile(output) for path in {path for pair in pairs.values() for path in pair.paths}
    ):
        raise UserError(f"{output}: is one of the files that are read; name another one to write")


def _without_effect(pairs: Iterable[Pair], choices: Choices, no_groups: bool) -> list[str]:
    """The options that nothing was found for, which may be misspelt, or meant for other files."""
    pairs = list(pairs)
    images = [pair.image for pair in pairs]
    stacks = [*images, *(pair.labels for pair in pairs if isinstance(pair.labels, Recording))]
    in_hdf5 = any(isinstance(pair.labels, Drawn) and pair.labels.file.kind.name == "hdf5" for pair in pairs)
    unused = {
        f"--axes {choices.axes}: no file is a stack": choices.axes and not any(each.axes for each in stacks),
        f"--z {choices.z}: no image has planes in depth": choices.z and not any(each.z for each in stacks),
        f"--dataset {choices.dataset}: no image is in an HDF5 file": choices.dataset
        and not any(each.array.kind == "HDF5" for each in images),
        f"--label-dataset {choices.label_dataset}: no labels are in an HDF5 file": choices.label_dataset
        and not in_hdf5,
        "--part-groups: there are no groups": no_groups,
    }
    return [f"{why}, so it changes nothing; omit it" for why, is_so in unused.items() if is_so]


def _stacks(pairs: Mapping[str, Pair]) -> list[str]:
    if not (names := _may_be_frames(pairs)):
        return []
    return [
        f"three planes of {listed(names)} are tagged as RGB, as tifffile tags any three; they are packed as channels; "
        "if they are frames, pack them with --axes TYX"
    ]


def _may_be_frames(pairs: Mapping[str, Pair]) -> list[str]:
    of_one = {name: pair.paths[0] for name, pair in pairs.items() if not pair.image.is_stack}
    return [name for name, path in of_one.items() if tiff_file.may_be_a_stack(path)]


def _further(
    images: Sequence[str | Path],
    maps: Mapping[str, str],
    pairs: Mapping[str, Pair],
    choices: Choices | None,
    kind: Kind,
    labelled_only: bool,
) -> dict[str, dict[str, Pair]]:
    """The pairs of further label maps. Raises UserError if an image has none."""
    further: dict[str, dict[str, Pair]] = {}
    for key, place in maps.items():
        if key not in MAPS:
            raise UserError(f"--map {key}={place}: there is no further map of this name; take {' or '.join(MAPS)}")
        _refuse_ids_twice(kind, maps)
        labelled = paired(images, [place], choices, labelled_only=labelled_only).by_name
        # The labels themselves may be those of fewer images.
        further[key] = {name: pair for name, pair in labelled.items() if name in pairs or not labelled_only}
        if odd := sorted(pairs.keys() ^ further[key].keys()):
            raise UserError(f"--map {key}={place}: '{odd[0]}' is in one of both labels alone; give each image both")
    return further


def _refuse_ids_twice(kind: Kind, maps: Iterable[str]) -> None:
    if kind == "instance" and "instances" in maps:
        raise UserError("--map instances: the labels themselves are ids of cells; omit it, or add --labels mask")


def _unlike_names(pairs: Iterable[Pair]) -> list[str]:
    """A note that says which files were paired, if the names of any pair differ; else an empty list."""
    files = dict.fromkeys(pair.paths for pair in pairs if not isinstance(pair.labels, NoLabels))
    if all(image.stem.removesuffix(".ome") == labels.stem.removesuffix(".ome") for image, labels in files):
        return []
    shown = ", ".join(f"{image.name} with {labels.name}" for image, labels in list(files)[:2])
    more = f" and {format_count(len(files) - 2, 'more pair')} like these" if len(files) > 2 else ""
    return [f"{shown}{more}"]


def _groups(pairs: Mapping[str, Pair], group_by: str | None) -> dict[str, str]:
    """The group of each image by name; images without a group are left out."""
    if group_by == FOLDER:
        return {name: pair.paths[0].parent.name or "." for name, pair in pairs.items()}
    if group_by is not None:
        return by_pattern(pairs, group_by)
    return {name: pair.group for name, pair in pairs.items() if pair.group is not None}


class Pixels:
    """Reads images with their labels; files stay open between images, as consecutive ones are often of one file."""

    def __init__(self, said: _Said) -> None:
        self._images, self._ignore = Reading(), said.ignore
        self.labels = LabelReading(said.kind == "class", said.class_names)

    def __enter__(self) -> Pixels:
        return self

    def __exit__(self, *raised: object) -> None:
        self._images.close()
        self.labels.close()

    def read(self, pair: Pair) -> tuple[Array, Array]:
        """An image (C, H, W) and its labels (H, W)."""
        raw = self._images.read(pair.image, pair.frame)
        if isinstance(pair.labels, NoLabels):
            return raw, np.full(raw.shape[1:], self._ignore)
        return raw, self.labels_of(pair)

    def labels_of(self, pair: Pair) -> Array:
        """The labels (H, W) of an image that has labels."""
        assert not isinstance(pair.labels, NoLabels)
        return self.labels.read(pair.labels, pair.label_frame)


@dataclass(frozen=True)
class _Said:
    """What options, folders and files say of the labels before their pixels are read.

    `titles` are the formats of label files that are not images.
    """

    kind: Kind
    ignore: int | None
    titles: tuple[str, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    drawn: Path | None
    """The first file of annotations."""

    @classmethod
    def of(cls, found: Pairs, kind: str, ignore: int | None, colours: str | None) -> _Said:
        """What is said of the labels of pairs.

        The kind is the option's, or else that of the layout of the folder, or else instances if the labels are drawn
        with ids; "auto" leaves it to the pixels.
        """
        pairs, layout = found.by_name.values(), found.layout
        drawn = [pair.labels for pair in pairs if isinstance(pair.labels, Drawn)]
        if colours is not None:
            kind = "class"
        elif kind not in ("mask", "class", "instance"):
            kind = (layout and layout.labels) or ("instance" if drawn and has_ids(drawn[0]) else "auto")
        if layout and ignore is None and kind == layout.labels:
            ignore = layout.ignore
        left = sum(isinstance(pair.labels, NoLabels) for pair in pairs)
        files = {each.file.path: each.annotation for each in drawn}
        classes = layout.class_names if layout else _all_of(each.class_names for each in files.values())
        notes = _unlike_names(pairs)
        notes += [f"{path}: {note}" for path, annotation in files.items() for note in annotation.notes]
        if kind in ("mask", "instance") and len(classes) > 2 and not layout:
            notes += [f"{' and '.join(classes[1:])} as one class; --labels class keeps them apart"]
        notes += [layout.title, *layout.notes] if layout else []
        notes += [f"{format_count(left, 'image')} without labels kept unlabelled"] if left else []
        notes += [f"{format_count(found.left_out, 'image')} without labels left out"] if found.left_out else []
        return cls(
            cast(Kind, kind),
            IGNORE if left and ignore is None else ignore,
            tuple(sorted({each.file.kind.title for each in drawn})),
            classes if colours is None else tuple(parsed(colours)),
            tuple(notes),
            next(iter(files), None),
        )

    def refuse_or_recognise(self, survey: Survey) -> Kind:
        """The kind of the labels that were read. Raises UserError if they hold no cell, or their kind is not clear."""
        if self.drawn and not survey.foreground:
            raise UserError(f"{self.drawn}: holds no cell; annotate the images, or omit them")
        return survey.recognised()


def _all_of(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The names in any of the lists, in the order in which they first appear."""
    return tuple(dict.fromkeys(name for names in lists for name in names))


class _Stored:
    """The arrays of each image as they are written, and their forms."""

    def __init__(
        self, pairs: Mapping[str, Pair], further: Mapping[str, Mapping[str, Pair]], survey: Survey, kind: Kind
    ) -> None:
        self._pairs, self._further = pairs, further
        self._convert = converter(kind, survey)
        self._dtypes = {key: np.min_scalar_type(most) for key, most in survey.most.items()}
        self.forms = {name: self._forms(*survey.raw[name]) for name in pairs}

    def _forms(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Form]:
        maps = {key: (shape[1:], pixel.dtype) for key, pixel in self._convert(np.zeros((1, 1), np.int64)).items()}
        raw = shape[1:] if shape[0] == 1 else shape, dtype
        return {"raw": raw, **maps, **{key: (shape[1:], kept) for key, kept in self._dtypes.items()}}

    def read(self, pixels: Pixels, name: str) -> dict[str, Array]:
        """The arrays of one image."""
        raw, labels = pixels.read(self._pairs[name])
        others = {key: pixels.labels_of(pairs[name]).astype(self._dtypes[key]) for key, pairs in self._further.items()}
        return {"raw": raw[0] if len(raw) == 1 else raw, **self._convert(labels), **others}


@dataclass(frozen=True)
class _Facts:
    """Metadata of the recordings, and the notes and warnings about it."""

    pixel_um: float | None
    channel_names: tuple[str, ...]
    frames: dict[str, int]
    choices: tuple[str, ...]
    provenance: dict[str, Any]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Mapping[str, Pair], doubtful: Sequence[str], choices: Choices, pixel_um: float | None) -> _Facts:
        """The metadata of all images; what differs between them is dropped with a warning."""
        recordings = {pair.image.array.name: pair.image for pair in pairs.values()}
        warnings = []
        if lossy := [name for name, recording in recordings.items() if recording.array.kind == "JPEG"]:
            warnings.append(
                f"{listed(lossy)} {'is' if len(lossy) == 1 else 'are'} JPEG, which changes values; pack the recordings "
                "themselves if they exist"
            )
        sizes = {recording.array.pixel_um: name for name, recording in recordings.items()}
        # Programs convert units with rounding errors, so sizes that agree to a millionth of a micrometre are the same.
        if pixel_um is None and len({size and round(size, 6) for size in sizes}) == 1:
            pixel_um = next(iter(sizes))
        elif pixel_um is None:
            said = ", ".join(f"{'none' if size is None else f'{size:g}'} of '{name}'" for size, name in sizes.items())
            warnings.append(f"the files differ in pixel size in µm ({said}), so none is kept; --pixel-um says one")
        named = {recording.array.channel_names: name for name, recording in recordings.items()}
        if len(named) > 1:
            said = "; ".join(f"'{name}': {', '.join(names) or 'none'}" for names, name in named.items())
            warnings.append(f"the files name channels differently ({said}), so no names are kept; is their order one?")
        channel_names = next(iter(named)) if len(named) == 1 else ()
        lines = Counter(recording.described() for recording in recordings.values() if recording.axes)
        read = [f"{format_count(count, 'file')}: {line}" for line, count in lines.items()]
        if doubtful:
            read.append(
                f"two pages of {listed(doubtful)}, of which the file does not say what they are, were taken as "
                "channels, for there is one label map; --axes TYX or ZYX says otherwise"
            )
        axes = sorted({recording.letters for recording in recordings.values() if recording.axes})
        provenance = {
            **({"axes": axes} if axes else {}),
            **({"z": choices.z} if choices.z and any(recording.z for recording in recordings.values()) else {}),
        }
        frames = {name: pair.frame for name, pair in pairs.items() if pair.image.is_stack}
        return cls(pixel_um, channel_names, frames, tuple(read), provenance, tuple(warnings))


def _line(pair: Pair, survey: Survey, kind: Kind) -> str:
    """A line of text about an image and its labels, for a dry run."""
    (channels, height, width), dtype = survey.raw[pair.name]
    low, high = survey.ranges[pair.name]
    number = survey.cells[pair.name]
    cells = f"{number} classes" if kind == "class" else format_count(number, "region" if kind == "mask" else "cell")
    frame = f" frame {pair.frame}" if pair.image.is_stack else ""
    is_stack = isinstance(pair.labels, Recording) and pair.labels.is_stack
    of_labels = f" frame {pair.label_frame}" if is_stack else ""
    labels = f"{pair.paths[1]}{of_labels} ({title_of(pair.labels)}), {kind}, {cells}"
    return (
        f"{pair.name}: {pair.paths[0]}{frame} ({pair.image.described()}), {channels} × {height} × {width} {dtype}, "
        f"{low:g} to {high:g}; {title_of(pair.labels) if isinstance(pair.labels, NoLabels) else labels}"
    )


def _provenance(said: _Said, kind: Kind, facts: _Facts, survey: Survey) -> dict[str, Any]:
    return {
        "made_by": "yeastexp pack",
        "labels": kind,
        **({"label_files": list(said.titles)} if said.titles else {}),
        **({"classes": list(said.class_names)} if kind == "class" and said.class_names else {}),
        **({} if said.ignore is None else {"ignore": said.ignore}),
        **facts.provenance,
        "images_sha256": _combined(survey.image_digests),
        "labels_sha256": _combined(survey.mask_digests),
    }


def _combined(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests.items()).encode()).hexdigest()


def _duplicates(digests: Mapping[str, str], splits: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Groups of identical images that are in more than one split, as `split/name`: they would make scores too good."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for part, names in splits.items():
        for name in names:
            groups.setdefault(digests[name], []).append((part, name))
    across = (group for group in groups.values() if len({part for part, _ in group}) > 1)
    return tuple(tuple(f"{part}/{name}" for part, name in group) for group in across)


def _finite(source: Path, name: str, raw: Array) -> Array:
    """Raw values as float64. Raises UserError if one is not finite, or is beyond the range of float32."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(raw.astype(np.float32)).all()
    if not finite:
        raise UserError(f"{source}: image '{name}' holds NaN or infinite values; fix or remove it")
    return raw.astype(np.float64)


def _normalized_forms(forms: Mapping[str, Form]) -> dict[str, Form]:
    shape, _ = forms["raw"]
    raw = (shape[1:] if len(shape) == 3 and shape[0] == 1 else shape, np.dtype(np.float32))
    return {**forms, "raw": raw}
