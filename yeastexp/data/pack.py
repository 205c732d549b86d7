"""Images and their labels into one HDF5 file, and such a file into a normalised one."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from yeastexp.data import tiff_file
from yeastexp.data.annotations import KINDS as FORMATS
from yeastexp.data.annotations.colours import parsed
from yeastexp.data.groups import by_pattern
from yeastexp.data.hdf5_file import MAPS, UNLABELLED, Form, Origin, Reader, is_stacked, refuse_overwriting, write
from yeastexp.data.label_checks import SWAPPED, LabelChecks, unannotated
from yeastexp.data.label_sources import Drawn, LabelReading, NoLabels, has_ids, title_of
from yeastexp.data.normalization import PerChannel, one_or_each
from yeastexp.data.pairs import SHOWN, Pair, Pairs, listed, paired
from yeastexp.data.recordings.recording import Choices, Reading, Recording
from yeastexp.data.running_moments import RunningMoments
from yeastexp.data.splits import Choice, split
from yeastexp.errors import UserError
from yeastexp.sample import IGNORE
from yeastexp.system import files
from yeastexp.system.formatting import format_count

Array = npt.NDArray[Any]
Kind = Literal["auto", "mask", "class", "instance"]
KINDS = ("auto", "mask", "class", "instance")
Fit = Literal["all", "train"]
FOLDER = "folder"
"""The `group_by` of images that are grouped by the folders they lie in."""
Progress = Callable[[Iterable[str]], Iterable[str]]


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
    """What label files are that are no label images."""
    choices: tuple[str, ...] = ()
    """How files were read that could be read in several ways."""
    files: tuple[str, ...] = ()
    """What each image is, if nothing was written."""
    faults: tuple[str, ...] = ()
    """Why it would not be written, if nothing was to be."""


@dataclass(frozen=True)
class Normalized:
    """What `normalize` wrote: `mean` and `std` are those of the images that `fit` names, of several channels each."""

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
    maps: Mapping[str, str] | None = None,
    group_by: str | None = None,
    part_groups: bool = False,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress = iter,
) -> Packed:
    """Write pairs of images and labels to one file, in the values they were recorded with; nothing if `dry_run`.

    Pixels with the label `ignore` are unlabelled. `group_by` is FOLDER, for that of each image, or a regular expression
    that is matched with its name; else the frames of a stack are a group. `maps` are further labels, as of dead cells:
    where those of each lie.
    """
    if not dry_run:
        refuse_overwriting(output, force)
    faults: list[str] = []
    if pixel_um is not None and not (math.isfinite(pixel_um) and pixel_um > 0):
        raise UserError(f"pixel_um: {pixel_um} is not the size of a pixel; give a number of micrometres above 0")
    annotations = None if kind in KINDS else kind
    if annotations and annotations not in FORMATS:
        raise UserError(f"--labels {kind}: is no kind of labels; there are {', '.join((*KINDS, *FORMATS))}")
    if colours is not None and kind not in ("auto", "class"):
        raise UserError(f"--labels {kind}: labels of --colours are classes; omit one of them")
    kind = kind if colours is None else "class"
    found = paired(images, labels, choices, annotations, colours)
    pairs = found.by_name
    kind = _told_kind(kind, found)
    further = _further(images, maps or {}, pairs, choices, kind)
    layout = found.layout
    ignore = layout.ignore if layout and ignore is None and kind == layout.labels else ignore
    unlabelled = tuple(name for name, pair in pairs.items() if isinstance(pair.labels, NoLabels))
    ignore = IGNORE if unlabelled and ignore is None else ignore
    if layout and test is None:
        test = tuple(name for name, pair in pairs.items() if pair.split == "test") or None
    _refuse_to_replace_a_source(output, pairs)
    groups = _groups(pairs, group_by)
    splits: dict[str, tuple[str, ...]] = {}
    with _told_later(faults, dry_run):
        labelled = tuple(name for name in pairs if name not in set(unlabelled))
        splits = split(labelled, val, test, {} if part_groups else groups)
        splits |= {UNLABELLED: unlabelled} if unlabelled else {}
    titles = sorted({title_of(pair.labels) for pair in pairs.values() if isinstance(pair.labels, Drawn)})
    drawn = {pair.paths[1]: pair.labels.annotation for pair in pairs.values() if isinstance(pair.labels, Drawn)}
    classes = layout.class_names if layout else next((each.class_names for each in drawn.values()), ())
    classes = classes if colours is None else tuple(parsed(colours))
    notes = _unlike_names(pairs)
    notes += [f"{path}: {note}" for path, annotation in drawn.items() for note in annotation.notes]
    if layout:
        notes += [layout.title, *layout.notes]
    if unlabelled:
        notes.append(f"{format_count(len(unlabelled), 'image')} without labels kept unlabelled")
    survey = _Survey(ignore, kind, dry_run)
    with Pixels(kind == "class", ignore) as pixels:
        for name in progress(tuple(pairs)):
            survey.add(pairs[name], *pixels.read(pairs[name]))
            for key, its_pairs in further.items():
                survey.add_map(key, its_pairs[name], pixels.labels_of(its_pairs[name]))
        odd = pixels.labels.told()
    with _told_later(faults, dry_run):
        if titles and not survey.foreground:
            path = next(pair.paths[1] for pair in pairs.values() if isinstance(pair.labels, Drawn))
            raise UserError(f"{path}: holds no cell; annotate the images, or omit them")
        if ignore is not None and not survey.ignored:
            raise UserError(
                f"--ignore {ignore}: no pixel has this label (there are {_few(sorted(survey.values))}); omit it"
            )
        kind = _recognised(kind, survey)
        survey.checks.refuse(kind, sorted(survey.values))
    convert = _converter(kind, survey)

    facts = _Facts.of(pairs, found.doubtful, choices or Choices(), pixel_um)
    dtypes = {key: np.min_scalar_type(most) for key, most in survey.most.items()}
    forms = {
        name: _forms(survey.raw[name], convert)
        | {key: (survey.raw[name][0][1:], dtype) for key, dtype in dtypes.items()}
        for name in pairs
    }
    provenance = {
        "made_by": "yeastexp pack",
        "labels": kind,
        **({"label_files": titles} if titles else {}),
        **({"classes": list(classes)} if kind == "class" and classes else {}),
        **({} if ignore is None else {"ignore": ignore}),
        **facts.provenance,
        "images_sha256": _combined(survey.image_digests),
        "labels_sha256": _combined(survey.mask_digests),
    }
    channels = next(iter(survey.raw.values()))[0][0]
    named = facts.channel_names if len(facts.channel_names) == channels else ()
    origin = Origin(groups, facts.frames, named)
    if not dry_run:
        with Pixels(kind == "class", ignore) as pixels:

            def read(name: str) -> dict[str, Array]:
                raw, labels = pixels.read(pairs[name])
                others = {
                    key: pixels.labels_of(its_pairs[name]).astype(dtypes[key]) for key, its_pairs in further.items()
                }
                return {"raw": raw[0] if len(raw) == 1 else raw, **convert(labels), **others}

            write(
                output,
                splits,
                read,
                provenance=provenance,
                pixel_um=facts.pixel_um,
                origin=origin,
                force=force,
                progress=progress,
                forms=forms,
            )
    return Packed(
        output=output,
        splits={part: len(names) for part, names in splits.items()},
        stacked=is_stacked(forms.values()),
        channels=channels,
        dtype=str(np.result_type(*(dtype for _, dtype in survey.raw.values()))),
        kind=kind,
        label_values=tuple(sorted(survey.values)),
        foreground=survey.foreground / max(survey.pixels, 1),
        warnings=(*_stacks(pairs), *facts.warnings, *odd, *survey.warnings(kind)),
        pixel_um=facts.pixel_um,
        origin=origin,
        label_files=tuple(titles),
        choices=(*facts.choices, *notes),
        files=tuple(_line(pairs[name], survey, kind) for name in pairs) if dry_run else (),
        faults=tuple(faults),
        duplicates=_duplicates(survey.image_digests, splits),
    )


@contextmanager
def _told_later(faults: list[str], later: bool) -> Iterator[None]:
    """Keep what is raised, if it is told `later`, when all files have been looked at."""
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
    progress: Progress = iter,
) -> Normalized:
    """Write a second file: raw values as float32, with mean 0 and standard deviation 1 over the images of `fit`.

    That is of each channel, or of all channels `joint`ly.
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
    moments, low, high = [RunningMoments() for _ in range(count)], [math.inf] * count, [-math.inf] * count
    for name in progress(fitted):
        values = _finite(source, name, reader.read(name)["raw"])
        for index, plane in enumerate(values[None] if joint else values):
            mean = float(plane.mean())
            moments[index].merge(plane.size, mean, float(np.square(plane - mean).sum()))
            low[index], high[index] = min(low[index], float(plane.min())), max(high[index], float(plane.max()))
    for index, channel in enumerate(moments):
        if low[index] == high[index] or channel.std == 0:
            which = "all pixels" if fit == "all" else "all pixels of the training images"
            which += f" in channel {index + 1}" if count > 1 else ""
            raise UserError(f"{source}: {which} have the value {low[index]:g}, so their spread is 0; check the images")
    means, deviations = ([getattr(channel, name) for channel in moments] for name in ("mean", "std"))

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


def _refuse_to_replace_a_source(output: Path, pairs: Mapping[str, Pair]) -> None:
    if output.exists() and any(
        path.exists() and path.samefile(output) for path in {path for pair in pairs.values() for path in pair.paths}
    ):
        raise UserError(f"{output}: is one of the files that are read; name another one to write")


def _stacks(pairs: Mapping[str, Pair]) -> list[str]:
    if not (names := [name for name, pair in pairs.items() if tiff_file.may_be_a_stack(pair.paths[0])]):
        return []
    return [
        f"three planes of {listed(names)} are tagged as RGB, as tifffile tags any three; they are packed as channels; "
        "if they are a stack, save each plane as a file of its own"
    ]


def _told_kind(kind: str, found: Pairs) -> Kind:
    """What label values mean, as far as it is said or the files say it: what is drawn are cells."""
    if kind in ("mask", "class", "instance"):
        return cast(Kind, kind)
    if found.layout and found.layout.labels:
        return cast(Kind, found.layout.labels)
    pairs = found.by_name
    drawn = next((pair.labels for pair in pairs.values() if isinstance(pair.labels, Drawn)), None)
    return "instance" if drawn and has_ids(drawn) else "auto"


def _further(
    images: Sequence[str | Path],
    maps: Mapping[str, str],
    pairs: Mapping[str, Pair],
    choices: Choices | None,
    kind: Kind,
) -> dict[str, dict[str, Pair]]:
    """The pairs of further label maps. Raises UserError if an image has none."""
    further: dict[str, dict[str, Pair]] = {}
    for key, place in maps.items():
        if key not in MAPS or (key == "instances" and kind == "instance"):
            raise UserError(f"--map {key}={place}: there is no further map of this name; take {' or '.join(MAPS)}")
        further[key] = paired(images, [place], choices).by_name
        if odd := sorted(pairs.keys() ^ further[key].keys()):
            raise UserError(f"--map {key}={place}: '{odd[0]}' is in one of both labels alone; give each image both")
    return further


def _unlike_names(pairs: Mapping[str, Pair]) -> list[str]:
    """Which files were paired, if their names differ."""
    files = dict.fromkeys(pair.paths for pair in pairs.values() if not isinstance(pair.labels, NoLabels))
    if all(image.stem.removesuffix(".ome") == labels.stem.removesuffix(".ome") for image, labels in files):
        return []
    shown = ", ".join(f"{image.name} with {labels.name}" for image, labels in list(files)[:2])
    more = f" and {len(files) - 2} more pairs like these" if len(files) > 2 else ""
    return [f"{shown}{more}"]


def _groups(pairs: Mapping[str, Pair], group_by: str | None) -> dict[str, str]:
    """The groups of images by name; those that are in none are left out."""
    if group_by == FOLDER:
        return {name: pair.paths[0].parent.name or "." for name, pair in pairs.items()}
    if group_by is not None:
        return by_pattern(pairs, group_by)
    return {name: pair.group for name, pair in pairs.items() if pair.group is not None}


class Pixels:
    """Reads images with their labels, while the files of the last ones stay open."""

    def __init__(self, classes: bool = False, ignore: int | None = None) -> None:
        self._images, self.labels, self._ignore = Reading(), LabelReading(classes), ignore

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
        """The labels (H, W) of an image alone, which has some."""
        assert not isinstance(pair.labels, NoLabels)
        return self.labels.read(pair.labels, pair.label_frame)


@dataclass(frozen=True)
class _Facts:
    """What files say of their images beside pixels, and what was said of them."""

    pixel_um: float | None
    channel_names: tuple[str, ...]
    frames: dict[str, int]
    choices: tuple[str, ...]
    provenance: dict[str, Any]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Mapping[str, Pair], doubtful: Sequence[str], choices: Choices, pixel_um: float | None) -> _Facts:
        """Those of all images; what differs between them is dropped with a warning."""
        recordings = {pair.image.array.name: pair.image for pair in pairs.values()}
        warnings = []
        if lossy := [name for name, recording in recordings.items() if recording.array.kind == "JPEG"]:
            warnings.append(
                f"{listed(lossy)} {'is' if len(lossy) == 1 else 'are'} JPEG, which changes values; pack the recordings "
                "themselves if they exist"
            )
        sizes = {recording.array.pixel_um: name for name, recording in recordings.items()}
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


def _line(pair: Pair, survey: _Survey, kind: Kind) -> str:
    """What an image and its labels are, in one line."""
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


@dataclass
class _Survey:
    """What a first pass over all pairs gives, in memory that does not grow with their pixels."""

    ignore: int | None
    kind: Kind
    keeps_lines: bool = False
    """Whether ranges and cells of each image are wanted."""
    checks: LabelChecks = field(default_factory=LabelChecks)
    ignored: int = 0
    raw: dict[str, Form] = field(default_factory=dict)
    image_digests: dict[str, str] = field(default_factory=dict)
    mask_digests: dict[str, str] = field(default_factory=dict)
    values: set[int] = field(default_factory=set)
    foreground: int = 0
    pixels: int = 0
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)
    """By image, the connected regions of a mask, the classes, or the cells."""
    most: dict[str, int] = field(default_factory=dict)
    """The largest value of each further map."""

    def add(self, pair: Pair, raw: Array, labels: Array) -> None:
        """Look at an image (C, H, W) and its labels (H, W)."""
        name, (image, mask) = pair.name, pair.paths
        if raw.shape[1:] != labels.shape:
            sizes = " and ".join(f"{height} × {width}" for height, width in (raw.shape[1:], labels.shape))
            raise UserError(f"{image} and {mask}: differ in size, {sizes} pixels; give each image its own label file")
        if len(raw) == 1 and np.array_equal(raw[0], labels) and len(np.unique(labels)) > 2:
            raise UserError(f"{image} and {mask}: hold the same values; give each image its own label file")
        for first, (shape, _) in self.raw.items():
            if shape[0] != len(raw):
                raise UserError(
                    f"{image}: has {format_count(len(raw), 'channel')}, but '{first}' has {shape[0]}; pack them apart"
                )
            break
        self.raw[name] = (raw.shape, raw.dtype)
        if self.keeps_lines:
            self.ranges[name] = float(raw.min()), float(raw.max())
        self.image_digests[name] = _digest(raw)
        self.mask_digests[name] = _digest(labels)
        known = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        self.foreground += int(np.count_nonzero(labels[known] > 0))
        self.pixels += int(np.count_nonzero(known))
        self.ignored += int(np.count_nonzero(~known))
        values = np.unique(labels[known])
        self.values |= set(values.tolist())
        if self.keeps_lines:
            is_mask = self.kind in ("auto", "mask") and len(values) <= 2
            self.cells[name] = ndimage.label((labels > 0) & known)[1] if is_mask else int((values > 0).sum())
        are_ids = self.kind == "instance" or (self.kind == "auto" and len(values) > 3)
        if values.size:
            self.checks.add(name, raw, np.where(known, labels, 0), are_ids)

    def add_map(self, key: str, pair: Pair, labels: Array) -> None:
        """Look at further labels (H, W) of an image that was added."""
        if labels.shape != self.raw[pair.name][0][1:]:
            raise UserError(f"{pair.paths[1]}: differs in size from its image {pair.paths[0]}; give each its own label")
        if labels.min() < 0:
            raise UserError(f"{pair.paths[1]}: holds negative labels; --map {key} takes masks or ids of cells")
        self.most[key] = max(self.most.get(key, 0), int(labels.max()))

    def warnings(self, kind: Kind) -> Iterator[str]:
        """What may be wrong with the labels."""
        return self.checks.warnings(kind, sorted(self.values), self.foreground / max(self.pixels, 1), self.ignore)


def _digest(values: Array) -> str:
    """The SHA-256 of the values; the same for a picture saved with 8 and with 16 bit."""
    wide = values.astype("<i8" if values.dtype.kind in "ui" else "<f8")
    return hashlib.sha256(repr(values.shape).encode() + wide.tobytes()).hexdigest()


def _combined(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests.items()).encode()).hexdigest()


def _recognised(kind: Kind, survey: _Survey) -> Kind:
    """The kind of the labels, guessed if it is not given. Raises UserError if it is not clear, or does not fit."""
    values = sorted(survey.values)
    if kind == "auto" and (survey.values <= {0, 1} or survey.values <= {0, 255}):
        return "mask"
    if kind == "auto" and survey.checks.are_ids(len(survey.values)):
        return "instance"
    if kind == "auto":
        many = len(values) > 3 and (values[0], values[-1]) == (0, 255)
        smooth = "; masks with smooth edges have to be saved without" if many else ""
        if survey.ignore is None:
            smooth = unannotated(values) or smooth
        smooth += f"; {SWAPPED}" if survey.checks.swapped else ""
        raise UserError(
            f"the labels hold {_few(values)}, neither 0 and 1 nor 0 and 255; "
            f"say what they are: --labels class (class indices) or --labels instance (ids of cells){smooth}"
        )
    if values[0] < (-1 if kind == "class" else 0):
        raise UserError(f"the labels hold {_few(values)}; {kind} labels are not negative")
    return kind


def _few(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:SHOWN]))
    return f"{shown}, … {values[-1]}" if len(values) > SHOWN else shown


def _converter(kind: Kind, survey: _Survey) -> Callable[[Array], dict[str, Array]]:
    """From labels as they were recorded to the label maps that are stored, all of one type."""
    low, high = min(survey.values), max(survey.values)
    low = low if survey.ignore is None or kind == "instance" else min(low, IGNORE)
    dtype = np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)) if low < 0 else np.min_scalar_type(high)

    def convert(labels: Array) -> dict[str, Array]:
        unknown = np.zeros(labels.shape, bool) if survey.ignore is None else labels == survey.ignore
        if kind == "class":
            return {"gt": np.where(unknown, IGNORE, labels.astype(np.int64)).astype(dtype)}
        mask = (labels > 0).astype(np.uint8)
        gt = mask if survey.ignore is None else np.where(unknown, IGNORE, mask.astype(np.int8))
        return {"gt": gt, "instances": np.where(unknown, 0, labels).astype(dtype)} if kind == "instance" else {"gt": gt}

    return convert


def _forms(raw: Form, convert: Callable[[Array], dict[str, Array]]) -> dict[str, Form]:
    shape, dtype = raw
    maps = {key: (shape[1:], pixel.dtype) for key, pixel in convert(np.zeros((1, 1), np.int64)).items()}
    return {"raw": (shape[1:] if shape[0] == 1 else shape, dtype), **maps}


def _duplicates(digests: Mapping[str, str], splits: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for part, names in splits.items():
        for name in names:
            groups.setdefault(digests[name], []).append((part, name))
    across = (group for group in groups.values() if len({part for part, _ in group}) > 1)
    return tuple(tuple(f"{part}/{name}" for part, name in group) for group in across)


def _finite(source: Path, name: str, raw: Array) -> Array:
    """Raw values as float64. Raises UserError if one is not finite, or would not be as float32."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(raw.astype(np.float32)).all()
    if not finite:
        raise UserError(f"{source}: image '{name}' holds NaN or infinite values; fix or remove it")
    return raw.astype(np.float64)


def _normalized_forms(forms: Mapping[str, Form]) -> dict[str, Form]:
    shape, _ = forms["raw"]
    raw = (shape[1:] if len(shape) == 3 and shape[0] == 1 else shape, np.dtype(np.float32))
    return {**forms, "raw": raw}
