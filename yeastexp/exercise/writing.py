"""What a study leaves in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yeastexp.drawing import plots
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files


def write(folder: Path, name: str, figures: Mapping[str, plots.Figure], numbers: Mapping[str, Any]) -> list[Path]:
    """Plots as PNG and SVG, and the numbers as JSON under `name`, in place of those of an earlier study."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    written = []
    try:
        for title, figure in figures.items():
            for ending in ("png", "svg"):
                written.append(folder / f"{title}.{ending}")
                plots.save(figure, written[-1])
        written.append(folder / f"{name}.json")
        files.write_text(written[-1], json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        fault = f"{folder}: cannot be written to ({error.strerror}); make room or name another folder"
        raise UserError(fault, status=RUN_FAILED) from error
    return written
