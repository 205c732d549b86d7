"""The contact sheet of an experiment, written as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yeastexp import plugins
from yeastexp.config.loading import load_experiment
from yeastexp.data import hdf5_file, images
from yeastexp.errors import UserError
from yeastexp.training import build, contact_sheet


@plugins.blamed()
def preview(path: Path, settings: Sequence[str] = (), output: Path | None = None, *, force: bool = False) -> Path:
    """Write the contact sheet of an experiment file as a PNG, by default `NAME-preview.png`.

    Raises UserError if `output` has the suffix of another format, or exists, unless `force`.
    """
    if output and output.suffix.lower() not in ("", ".png"):
        raise UserError(f"{output}: the picture is a PNG; name it {output.with_suffix('.png')}")
    loaded = load_experiment(path, settings)
    output = output or Path(f"{loaded.name}-preview.png")
    hdf5_file.refuse_overwriting(output, force)
    images.write_png(output, contact_sheet.draw_contact_sheet(build.assemble(loaded)).transpose(2, 0, 1))
    return output
