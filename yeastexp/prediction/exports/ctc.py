"""Result folders of the Cell Tracking Challenge: `01_RES/mask000.tif`, 16 bits, one file for each frame, no tracks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from yeastexp.data import tiff_file
from yeastexp.data.pieces import Size
from yeastexp.errors import UserError
from yeastexp.prediction.exports.contract import Labelled, Named, NamedT, rows_of, writing
from yeastexp.system import files

MOST = (1 << 16) - 1
SEQUENCE, FRAME = re.compile(r"\d{2,}"), re.compile(r"t(\d{3,})")


class TrackingChallenge:
    """Sequences of frames: stacks, or the images of a folder. Names that follow the challenge are kept."""

    name, title, form, needs = "ctc", "Cell Tracking Challenge", "ctc/01_RES/maskNNN.tif (no tracks)", ""

    def targets(self, images: Sequence[NamedT], output: Path) -> Mapping[Path, Sequence[NamedT]]:
        """Return a folder for each sequence."""
        sequences = _sequences(images).items()
        return {output / self.name / f"{name}_RES": [*frames.values()] for name, frames in sequences}

    def write(self, images: Sequence[Labelled], output: Path, asked: Sequence[Named]) -> None:
        """Write a folder for each sequence.

        Ids are those of each frame. Nothing links cells of two frames, so there is no `res_track.txt`.
        """
        for image in images:
            if image.most > MOST:
                raise UserError(
                    f"{image.name}: has {image.most} cells, more than the {MOST} that --as ctc holds; "
                    "omit it, or cut the image into pieces"
                )
        predicted = {image.name: image for image in images}
        for name, of_all in _sequences(asked).items():
            numbered = {number: predicted[each.name] for number, each in of_all.items() if each.name in predicted}
            if not numbered:
                continue
            _refuse_sizes(list(numbered.values()))
            digits = max(3, len(str(max(of_all))))
            # The whole folder is replaced: frames that an earlier call left would be taken for frames of this sequence.
            with writing(output / self.name / f"{name}_RES", files.replacing) as path:
                for number, image in numbered.items():
                    tiff_file.write_pages(
                        path / f"mask{number:0{digits}}.tif", (1, *image.size), np.dtype(np.uint16),
                        rows_of({0: image}, image.size), metadata=None,
                    )  # fmt: skip


def _sequences(images: Sequence[NamedT]) -> dict[str, dict[int, NamedT]]:
    """Return the images of each sequence by the numbers of the frames, and sequences by their names.

    Raises UserError if some names of a sequence are frames of the challenge and others are not, or two are one frame.
    """
    together: dict[tuple[Path, str | None], list[NamedT]] = {}
    for image in images:
        together.setdefault((image.path if image.stack else image.path.parent, image.stack), []).append(image)
    names = [stack or place.name for place, stack in together]
    # Names are kept for all sequences or for none, or else a name given here could be that of another one.
    keep = len(set(names)) == len(names) and all(SEQUENCE.fullmatch(name) for name in names)
    sequences: dict[str, dict[int, NamedT]] = {}
    for count, (name, ((_, stack), members)) in enumerate(zip(names, together.items(), strict=True), 1):
        numbers = [image.frame for image in members] if stack else _numbers(members)
        sequences[name if keep else f"{count:02}"] = dict(zip(numbers, members, strict=True))
    return sequences


def _numbers(members: Sequence[Named]) -> list[int]:
    """Return the number of each image's frame: that in its name, or its index where no name is of the challenge."""
    by_number: dict[int, Named] = {}
    others = [image for image in members if not FRAME.fullmatch(image.stem)]
    if len(others) == len(members):
        return list(range(len(members)))
    for image in members:
        if not (match := FRAME.fullmatch(image.stem)):
            raise UserError(
                f"{image.name}: its name is not that of a frame, such as t012, as others of its folder are, by which "
                "--as ctc numbers them; rename it, or predict it apart"
            )
        if (other := by_number.setdefault(int(match[1]), image)) is not image:
            raise UserError(f"{image.name}: is frame {int(match[1])} of --as ctc, as {other.name} is; rename one")
    return list(by_number)


def _refuse_sizes(members: Sequence[Labelled]) -> None:
    """Raise UserError if the frames of a sequence differ in size."""
    sizes: dict[Size, Labelled] = {}
    for image in members:
        sizes.setdefault(image.size, image)
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise UserError(
            f"{other.name}: has {second[0]} × {second[1]} pixels, but {one.name} has {first[0]} × {first[1]}, and "
            "frames of --as ctc are of one size; predict them apart"
        )
