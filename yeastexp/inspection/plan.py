"""An experiment file written from packed data: the keys that the data decide, and measurements of them as comments.

A rule is a function of the measurements that yields the keys it sets, none if the starter's are right. Each rule stands
alone: to remove one, take it out of `RULES`.
"""

from __future__ import annotations

import os
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch

from yeastexp.config import starters
from yeastexp.config.loading import load_experiment
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.hdf5_file import refuse_overwriting
from yeastexp.data.pack import Packed, pack
from yeastexp.errors import UserError
from yeastexp.inspection.check import CheckResult, check
from yeastexp.inspection.measured import Measured
from yeastexp.nets.receptive_field import receptive_field
from yeastexp.system import files, memory
from yeastexp.system.formatting import format_bytes, format_count, format_number, format_share
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.system.terminal import printable
from yeastexp.training import build

WIDTH = 120
"""The width of a line of augmentations."""

FIELD_DIAMETERS = 2
"""The receptive field in diameters of a cell that covers the cell and its neighbours; no rule sets it, a comment says
whether it is reached."""

SMALL_PX = 14
"""The median diameter below which negatives made scores worse in the runs of docs/planning.md."""

MIXED = 6
"""Polarity counts as mixed if at least one in so many images has cells of the rarer polarity."""


KNOWN = 0.3
"""The F1 score of the pretrained weights from which on training is to change them little. With 0.03 that made scores
worse, with 0.67 better; nothing between was tried (docs/planning.md)."""

GENTLE, SHARE, PLAIN = 0.001, 0.25, 200
"""The learning rate, the share of initial weights and the steps without augmentation of `from_yeast.toml`."""


@dataclass(frozen=True)
class Choice:
    """A key of the file with its value and the reason; value None marks an augmentation that is left out."""

    key: str
    value: Any
    reason: str


Rule = Callable[[Measured], Iterator[Choice]]


def task(measured: Measured) -> Iterator[Choice]:
    """The keys that no starter can know: the channels of the images, and the classes of the labels."""
    named = f": {', '.join(measured.channel_names)}" if measured.channel_names else ""
    yield Choice("task.channels", measured.channels, f"of every image{named}")
    share = format_share(measured.foreground)
    yield Choice("task.classes", _class_names(measured), f"{share} of the pixels are not the first")


def validation_by_group(measured: Measured) -> Iterator[Choice]:
    """Choose other validation images, if some share a group with training images and whole groups can be had."""
    if not measured.parted:
        return
    count = measured.splits["val"]
    try:
        others = Hdf5(measured.path, count).splits
    except UserError:
        return
    groups = Hdf5(measured.path).groups
    # Asked of the data set as the run will open it: that it takes whole groups is its rule, and not repeated here.
    train, val = ({groups.get(name, name) for name in others[split]} for split in ("train", "val"))
    if train and not train & val:
        was = f"{format_count(len(measured.parted), 'group')} stood in training and validation images"
        yield Choice("dataset.val", count, f"{was}; these are whole ones, of about as many images")


def pasted_cells(measured: Measured) -> Iterator[Choice]:
    """Omit pasted cells, if no training image holds a whole cell to paste."""
    if not measured.has_whole_cell:
        yield Choice("augment.pasted_cells", None, "no pasted_cells: no training image holds a whole cell to paste")


def negatives(measured: Measured) -> Iterator[Choice]:
    """Add negatives, if cells are brighter than their surroundings in some images and darker in others."""
    fewer, clear = min(measured.brighter, measured.darker), measured.brighter + measured.darker
    if measured.has_ids and measured.diameter_px >= SMALL_PX and fewer and fewer * MIXED >= clear:
        reason = (
            f"cells are brighter than their surroundings in {measured.brighter} images, darker in {measured.darker}"
        )
        yield Choice("augment.invert_contrast", {}, reason)


def known_cells(measured: Measured) -> Iterator[Choice]:
    """Lower the learning rate and keep a share of the pretrained weights, if they already find the cells."""
    if measured.pretrained_f1 is not None and measured.pretrained_f1 >= KNOWN:
        reason = f"the pretrained weights find these cells (F1 {measured.pretrained_f1:.2f}), and are to change little"
        yield Choice("optimizer.learning_rate", GENTLE, reason)
        yield Choice("train.init_share", SHARE, "of the pretrained weights in those that are saved and scored")
        yield Choice("train.plain_steps", PLAIN, "the last steps are of images as they are predicted")


SCENES = 0.05
"""The share of pasted scenes that the check of a new file composes: all would take most of its time."""

RULES: tuple[Rule, ...] = (
    task,
    validation_by_group,
    pasted_cells,
    negatives,
    known_cells,
)


def new(data: Path, output: Path, *, force: bool = False, progress: ProgressBar[str] = iter) -> None:
    """Write an experiment on packed data to `output`, after `check` has accepted it.

    Raises UserError if the data or the experiment cannot be used, or if `output` exists, unless `force`.
    """
    refuse_overwriting(output, force)
    if output.exists() and data.exists() and output.samefile(data):
        raise UserError(f"{output}: is the file that is read; name another one to write")
    title = f"Written from {data.name} by 'yeastexp new'. Change what you know better, then 'check' and 'run' it."
    _write(data, output, title, progress, "pack it with other --val and --test")


def new_from_images(
    images: str,
    labels: str,
    output: Path,
    options: Mapping[str, Any],
    *,
    force: bool = False,
    progress: ProgressBar[str] = iter,
) -> Packed:
    """Pack images and labels into a file beside `output`, and write an experiment on it: both, or nothing.

    `options` are those of `pack`.
    """
    data = output.with_suffix(".h5")
    if data == output:
        raise UserError(f"{output}: is where the images are packed; name an experiment file that ends in .toml")
    for path in (output, data):
        refuse_overwriting(path, force)
    # Both are made in a folder beside the output and then moved, so that a fault on the way leaves nothing behind. The
    # paths in messages are those that the user knows.
    with files.folder(output.parent), files.staging(output.parent, f".{output.name}.") as staged:
        packed = None
        try:
            packed = pack([images], [labels], staged / data.name, **options, progress=progress)
            title = f"Written by 'yeastexp new', which packed {images} and {labels} ({packed.kind}) into {data.name}."
            _write(staged / data.name, staged / output.name, title, progress, "lower --val or --test, or add images")
        except UserError as error:
            # What is odd about the labels may be the cause.
            for warning in packed.warnings if packed else ():
                warnings.warn(warning, stacklevel=2)
            faults = (fault.replace(str(staged), str(output.parent)) for fault in error.faults)
            raise UserError(*faults, status=error.status) from None
        (staged / data.name).replace(data)
        (staged / output.name).replace(output)
    return replace(packed, output=data)


def _write(data: Path, output: Path, title: str, progress: ProgressBar[str], remedy: str) -> None:
    """Measure the data, write the experiment, check it, and write it once more with what was measured as comments.

    Raises UserError, with the `remedy`, if no image trains or validates.
    """
    measured = Measured.of(data, progress)
    if missing := [split for split in ("train", "val") if not measured.splits.get(split)]:
        raise UserError(f"{data}: has no image to {'train' if missing[0] == 'train' else 'validate'}; {remedy}")
    where = Path(os.path.relpath(data.resolve(), output.resolve().parent)).as_posix()
    choices = [choice for rule in RULES for choice in rule(measured)]
    with files.appearing(output) as temporary:
        # Some comments tell what only a valid experiment can: its receptive field, and the time of a step. So the file
        # is written without comments first, and loaded from there under the name that it is going to have.
        settings = [f"name={_string(output.stem)}"]
        try:
            temporary.write_text("\n".join(_lines(measured, where, choices)) + "\n", encoding="utf-8")
            model = build.build_model(load_experiment(temporary, settings))
            field = min(axis.size for axis in receptive_field(model, measured.channels).axes)
            checked = check(temporary, settings, scenes=SCENES)
        except UserError as error:
            faults = (fault.replace(str(temporary), str(output)) for fault in error.faults)
            raise UserError(*faults, status=error.status) from None
        if errors := [finding for finding in checked.findings if finding.severity == "error"]:
            raise UserError(*(f"{data}: {finding.about}: {finding.what}; {finding.remedy}" for finding in errors))
        comments = [f"# {printable(line)}" for line in (title, *_comments(measured, choices, field, checked))]
        text = "\n".join([*comments, *_lines(measured, where, choices)])
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _lines(measured: Measured, path: str, choices: Sequence[Choice]) -> Iterator[str]:
    """The lines of the file: keys by table, each with its reason as a comment."""
    if measured.has_ids:
        touching = f"{format_share(measured.touching)} of {format_count(measured.cells, 'cell')} touch another one"
        yield _line(f'extends = "{_extended(measured)}"', f"the labels have an id for each cell; {touching}")
    else:
        yield _line(f'extends = "{_extended(measured)}"', "the labels are masks, without ids that tell cells apart")
    changes = {choice.key.removeprefix("augment."): choice for choice in choices if choice.key.startswith("augment.")}
    if changes:
        yield from _augmentations(_starter(measured)["augment"], changes)
    parts = ", ".join(f"{count} {split}" for split, count in measured.splits.items())
    tables: dict[str, list[str]] = {"dataset": [_line(f"path = {_string(path)}", parts)]}
    for choice in choices:
        table, _, key = choice.key.partition(".")
        if table != "augment":
            tables.setdefault(table, []).append(_line(f"{key} = {_value(choice.value)}", choice.reason))
    for table, lines in tables.items():
        yield from ("", f"[{table}]", *lines)


def _augmentations(usual: Sequence[dict[str, Any]], changes: dict[str, Choice]) -> Iterator[str]:
    """The starter's list of augmentations with the changes, each of these on a line with its reason."""
    # The whole list is written out: an array of tables in a child replaces that of its parent.
    yield "augment = ["
    for name, choice in changes.items():
        omitted = choice.value is None
        yield (
            f"  # {choice.reason}"
            if omitted
            else "  " + _line(_value({"name": name, **choice.value}) + ",", choice.reason)
        )
    line = " "
    for text in (_value(augmentation) for augmentation in usual if augmentation["name"] not in changes):
        if len(line) + len(text) + 2 > WIDTH:
            yield line
            line = " "
        line += f" {text},"
    yield line
    yield "]"


def _comments(measured: Measured, choices: Sequence[Choice], field: int, checked: CheckResult) -> Iterator[str]:
    """The comments, a line for each subject: what was measured, and what follows from it."""
    keys = {choice.key for choice in choices}
    small, large = (f"{height} × {width}" for height, width in (measured.smallest, measured.largest))
    sizes = small if small == large else f"{small} to {large}"
    empty = f", {measured.empty} without cells" if measured.empty else ""
    count = format_count(sum(measured.splits.values()), "image")
    yield f"data: {count}{empty}; {sizes} px, {measured.dtype}, {format_count(measured.channels, 'channel')}"
    if measured.cells:
        low, high = measured.diameters_px
        longest = f", the longest {measured.longest_px} px" if measured.longest_px else ""
        yield f"cells: {measured.cells:,}, {_across(measured)}, 90 % of them {low:.0f} to {high:.0f} px{longest}"
    ends = " to ".join(map(format_number, measured.range))
    factor = f"{format_number(measured.contrast_ratio, 2)}-fold contrast between images"
    yield f"grey values: {ends}; {factor} ← zscore of each image by itself"
    if "augment.invert_contrast" not in keys:
        yield _polarity(measured)
    yield _groups(measured, "dataset.val" in keys)
    if measured.diameter_px:
        enough = "more than enough" if field >= 4 * measured.diameter_px else "enough"
        enough = enough if field >= FIELD_DIAMETERS * measured.diameter_px else "little, but a deeper network lost"
        diameters = f"{field / measured.diameter_px:.1f} cells across: {enough}"
    else:
        diameters = "no cells to compare it with"
    yield f"receptive field: an output depends on {field} × {field} px, {diameters}"
    if measured.pretrained_f1 is not None and measured.pretrained_f1 < KNOWN:
        score = f"the pretrained ones find few of these cells (F1 {measured.pretrained_f1:.2f})"
        yield f"weights: {score} ← the usual learning rate"
    if measured.has_ids:
        yield "metric: average_precision picks the checkpoint ← cells are to be told apart"
    else:
        nothing = format_share(1 - measured.foreground)
        yield f"metric: mean iou picks the checkpoint ← {nothing} of the pixels would be right without any cell"
    threads = format_count(checked.threads, "thread")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    yield f"machine: {threads}, {format_bytes(memory.free(torch.device('cpu')))} free, {gpu}"
    steps = 300 / checked.seconds
    batch, _, height, width = checked.batch_shape
    seen = steps * batch * height * width / measured.pixels
    yield (
        f"budget: 5 minutes are about {format_number(float(f'{steps:.2g}'))} steps here, "
        f"and each training pixel about {format_number(float(f'{seen:.2g}'))} times ← more and harder images need more"
    )


def _polarity(measured: Measured) -> str:
    """The comment on polarity, if no rule has set a key for it."""
    if measured.brighter and measured.darker:
        brighter = format_count(measured.brighter, "training image")
        return f"polarity: cells are brighter than their surroundings in {brighter}, darker in {measured.darker}"
    if clear := measured.brighter + measured.darker:
        most = "brighter" if measured.brighter else "darker"
        share = f"{clear} of {format_count(measured.splits['train'], 'training image')}"
        return f"polarity: cells are {most} than their surroundings in {share} ← constant: no negatives"
    return "polarity: cells are as bright as their surroundings ← no negatives"


def _groups(measured: Measured, whole: bool) -> str:
    """The comment on groups; `whole` if the experiment keeps whole groups together."""
    alike = f"{measured.alike} of {format_count(measured.splits['val'], 'validation image')}"
    if measured.parted and not whole:
        return f"groups: training and validation share {', '.join(measured.parted[:3])} ← scores are optimistic"
    if measured.alike:
        return f"groups: {alike} nearly equal a training image, as frames of one movie do ← scores are optimistic"
    if measured.groups:
        return f"groups: {measured.groups}, and training and validation images share none"
    return "groups: none are known; if images are frames of movies, pack them with --group-by"


def _line(text: str, reason: str) -> str:
    """A line of TOML with its reason as a comment."""
    # Reasons quote names from the data: a line break in one would end the comment.
    return f"{text}  # {printable(reason)}"


def _string(value: str) -> str:
    """A string, or another scalar, as TOML."""
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip()


def _value(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _string(value)


def _extended(measured: Measured) -> str:
    return f"{starters.PREFIX}{'cells' if measured.has_ids else 'hdf5'}"


def _starter(measured: Measured) -> dict[str, Any]:
    """The tables of the starter that the file extends."""
    path = starters.find(_extended(measured))
    assert path is not None, "comes with the package"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _as_names(names: Sequence[str]) -> list[str]:
    """Names as an experiment takes them, from those that people gave: without spaces and slashes, each once."""
    plain: list[str] = []
    for name in names:
        written = re.sub(r"[/\\\s\x00-\x1f\x7f-\x9f]+", "_", name.strip()) or "class"
        alike = sum(re.fullmatch(rf"{re.escape(written)}(_\d+)?", other) is not None for other in plain)
        plain.append(f"{written}_{alike + 1}" if alike else written)
    return plain


def _class_names(measured: Measured) -> list[str]:
    if len(measured.class_names) == measured.classes:
        return _as_names(measured.class_names)
    if measured.classes == 2:
        return ["background", "cell"]
    return ["background", *(f"class_{index}" for index in range(1, measured.classes))]


def _across(measured: Measured) -> str:
    return f"{measured.diameter_px:.0f} px across (median)"
