"""Commands that write data sets: `pack`, `normalize`, `synth`, `fetch`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from yeastexp.cli.options import ANY, FILE, FORCE, PACKING, POSITIVE
from yeastexp.cli.output import counts, progress
from yeastexp.errors import UserError
from yeastexp.system.terminal import echo

if TYPE_CHECKING:
    from yeastexp.data.pack import Packed

DRAWN = ("synthetic_yeast", "synthetic_fields")
"""Data sets that generate their images."""

MOST_LINES = 8
"""The most lines of one kind that are printed."""


@click.command(short_help="Pack images and masks into one HDF5 file.")
@click.argument("images")
@click.argument("labels")
@click.option("-o", "--output", type=FILE, help="The HDF5 file to write.")
@PACKING
@click.option("--dry-run", is_flag=True, help="Write nothing; print what each image is.")
@FORCE
def pack(images: str, labels: str, output: Path | None, dry_run: bool, force: bool, **packing: Any) -> None:
    """Pack IMAGES and LABELS (files, folders or quoted globs, paired by name) into one HDF5 file.

    A label file has the name of its image, or a suffix such as _masks more, in a folder of its own or in the same one.
    Image values are stored unchanged. Each frame of a stack is an image, paired with that of a stack of labels, or with
    a file that has its name (stack_t0003). Masks of 0 and 1 or of 0 and 255, ids of cells in one piece each, and files
    of annotations are recognised; other label values need --labels class (class indices) or --labels instance (ids of
    cells; everything above 0 is foreground). A folder of nnU-Net, StarDist or the Cell Tracking Challenge is given as
    both. docs/formats.md lists what is read.

    Example: python -m yeastexp pack images/ masks/ -o data.h5 --val 8
    """
    from yeastexp.data import pack

    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output'.")
    options = packing_options(**packing)
    place = output or Path("data.h5")
    packed = pack.pack([images], [labels], place, **options, dry_run=dry_run, force=force, progress=progress)
    for line in packed.files:
        echo(line)
    if packed.faults:
        raise UserError(*packed.faults)
    say_packed(packed, parted=options["part_groups"])
    echo("nothing was written (--dry-run)" if dry_run else packed.output)


def packing_options(
    val: str | None,
    test: str | None,
    maps: tuple[str, ...],
    axes: str | None,
    z: str | None,
    dataset: str | None,
    label_dataset: str | None,
    **others: Any,
) -> dict[str, Any]:
    """Convert the options of `PACKING` into the arguments of `data.pack`."""
    from yeastexp.data import splits
    from yeastexp.data.recordings.recording import Choices

    return {
        "val": None if val is None else splits.parse_choice(val),
        "test": None if test is None else splits.parse_choice(test),
        "maps": dict(_map_and_place(text) for text in maps),
        "choices": Choices(axes, z, dataset, label_dataset),
        **others,
    }


def _map_and_place(text: str) -> tuple[str, str]:
    name, _, place = text.partition("=")
    if not name or not place:
        raise UserError(f"--map {text}: does not say where the labels are; write --map dead=dead_cells/")
    return name, place


def say_packed(packed: Packed, *, parted: bool) -> None:
    """Print a summary of what was packed, and warnings on what is odd about it."""
    for line in _first(packed.choices):
        echo(f"read     {line}")
    form = "stacked" if packed.stacked else "one array per image, because sizes or types differ"
    echo(f"images   {counts(packed.splits)}; {packed.channels} × {packed.dtype}, {form}")
    values = ", ".join(map(str, packed.label_values[:8])) + (", …" if len(packed.label_values) > 8 else "")
    origin = f"{packed.kind} from {', '.join(packed.label_files)}" if packed.label_files else packed.kind
    echo(f"labels   {origin}: {values}; foreground {packed.foreground:.1%}")
    if packed.origin.groups:
        how = "parted by the splits" if parted else "none of which is parted by the splits"
        echo(f"groups   {len(set(packed.origin.groups.values()))}, {how}")
    if packed.origin.channel_names:
        echo(f"channels {', '.join(packed.origin.channel_names)}")
    if packed.pixel_um:
        echo(f"pixel    {packed.pixel_um:g} µm")
    duplicates = [f"the same image in several splits: {', '.join(names)}" for names in packed.duplicates]
    for warning in (*_first(packed.warnings), *_first(duplicates)):
        echo(f"warning: {warning}", err=True)


def _first(lines: Sequence[str]) -> Iterator[str]:
    """The first lines, and the number of further ones: thousands of files may have the same fault."""
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"and {len(lines) - MOST_LINES:,} more like these"


@click.command(short_help="Write a copy with zero mean and unit standard deviation.")
@click.argument("source", type=FILE)
@click.argument("output", type=FILE)
@click.option(
    "--fit",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="Images from which mean and standard deviation are computed.",
)
@click.option("--joint", is_flag=True, help="Take all channels together, which keeps the ratios between them.")
@FORCE
def normalize(source: Path, output: Path, fit: Literal["all", "train"], joint: bool, force: bool) -> None:
    """Write a copy of an HDF5 file with zero mean and unit standard deviation over all or over the training images.

    Each channel is normalised by itself.

    With --fit all, statistics of the validation images leak into training; with --fit train they do not.

    Example: python -m yeastexp normalize data.h5 normalized.h5 --fit train
    """
    from yeastexp.data.pack import normalize

    normalized = normalize(source, output, fit=fit, joint=joint, force=force, progress=progress)
    echo(f"images   {counts(normalized.splits)}")
    means, deviations = (n if isinstance(n, tuple) else (n,) for n in (normalized.mean, normalized.std))
    for channel, (mean, std) in enumerate(zip(means, deviations, strict=True), 1):
        which = f"channel {channel}: " if len(means) > 1 else ""
        echo(f"values   {which}mean {mean:.6g}, standard deviation {std:.6g}, from {normalized.fit} images")
    echo(normalized.output)


@click.command(short_help="Write synthetic yeast images.")
@click.option("-o", "--output", type=FILE, required=True, help="The HDF5 file to write.")
@click.option("--dataset", "name", type=click.Choice(DRAWN), default=DRAWN[0], show_default=True, help="What is drawn.")
@click.option("--images", type=click.IntRange(2, 99_999), default=18, show_default=True, help="Number of images.")
@click.option("--size", type=click.IntRange(64, 4096), default=256, show_default=True, help="Side in pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of the images.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A further option, as in crowding=0.4.")
@FORCE
def synth(output: Path, name: str, images: int, size: int, seed: int, settings: tuple[str, ...], force: bool) -> None:
    """Write synthetic yeast images with their ground truth: brightfield, those of the data set `synthetic_yeast`.

    Its further options (`list dataset synthetic_yeast` shows them) change size, contrast and crowding of the cells,
    add walls and posts, or make the illumination uneven. `--dataset synthetic_fields` draws each image as another
    microscope shows it, in brightfield or phase contrast.

    Example: python -m yeastexp synth -o data.h5 --images 18 --seed 0
    """
    from yeastexp.config.synthetic import configured
    from yeastexp.data.synth import synth

    dataset = configured(images, size, seed, settings, name)
    synth(output, dataset, force=force, progress=progress)
    side = dataset.size
    echo(f"images   {counts({split: len(names) for split, names in dataset.splits.items()})}; {side} × {side}")
    echo(output)


@click.command(short_help="Download a file, check it, and unpack it.")
@click.argument("url")
@click.option("-o", "--output", type=ANY, required=True, metavar="DIR", help="Folder for the file or its contents.")
@click.option("--sha256", metavar="HEX", help="The SHA-256 digest that the file must have.")
@click.option("--max-gb", type=POSITIVE, default=4, show_default=True, help="Largest size, packed or unpacked.")
@click.option("--force", is_flag=True, help="Overwrite files of the same names.")
def fetch(url: str, output: Path, sha256: str | None, max_gb: int, force: bool) -> None:
    """Download a file into a folder, check it, and unpack it there if it is a zip or tar archive.

    All of it appears or nothing: an interrupted download starts again, and an archive that is damaged, or holds links
    or paths that lead out of the folder, is refused.

    Example: python -m yeastexp fetch https://example.org/yeast.zip -o yeast
    """
    from yeastexp.data.fetch import fetch
    from yeastexp.system.formatting import format_bytes

    fetched = fetch(url, output, sha256, max_gb * 10**9, force)
    already = "" if fetched.downloaded else ", already there"
    echo(f"file     {fetched.file}, {format_bytes(fetched.file.stat().st_size)}{already}")
    echo(f"sha256   {fetched.sha256}" + (", as expected" if sha256 else ""))
    if fetched.unpacked:
        tops = sorted({f"{path.parts[0]}/" if path.parts[1:] else path.name for path in fetched.unpacked})
        names = ", ".join(tops[:8]) + (", …" if len(tops) > 8 else "")
        echo(f"unpacked {len(fetched.unpacked)} files, {fetched.written} of them new: {names}")
    echo(output if fetched.unpacked else fetched.file)
