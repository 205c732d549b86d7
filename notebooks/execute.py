"""Updates the outputs of the notebooks: `python -m notebooks.execute` runs all cells and shrinks their figures.

`python -m notebooks.execute python` runs `python.ipynb` alone.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).resolve().parent
NOTEBOOK, PYTHON = HERE / "exercise.ipynb", HERE / "python.ipynb"

TIMEOUT = 1200
"""Seconds per cell."""

WIDEST, QUALITY = 800, 70
"""Width in pixels and JPEG quality of the figures in the outputs."""


def read(path: Path = NOTEBOOK) -> NotebookNode:
    """A notebook as stored."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call, no-any-return]


def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook after running all cells in a folder; raises the error of a cell."""
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=TIMEOUT, coalesce_streams=True, resources=where)
    client.execute(env={**os.environ, "PYTHONPATH": str(HERE.parent)})
    return notebook


def tidied(notebook: NotebookNode) -> NotebookNode:
    """The notebook without times and machine-specific metadata, and with small figures."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:  # what a command says of its progress depends on the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                shrink(output)
            if output.output_type == "stream":
                output.text = "".join(f"{line.rstrip()}\n" for line in output.text.splitlines())
    return notebook


def shrink(output: NotebookNode) -> None:
    """Replace a figure in an output by a narrower one, with a palette (PNG) or as a JPEG, whichever is smaller."""
    picture = Image.open(io.BytesIO(base64.b64decode(output.data.pop("image/png")))).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    lines, shades = io.BytesIO(), io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(lines, "PNG", optimize=True)
    picture.save(shades, "JPEG", quality=QUALITY, optimize=True)
    kinds = {"image/png": lines.getvalue(), "image/jpeg": shades.getvalue()}
    kind = min(kinds, key=lambda name: len(kinds[name]))
    output.data[kind] = base64.b64encode(kinds[kind]).decode()
    output.metadata = {kind: output.metadata["image/png"]} if output.metadata else {}


def main() -> None:
    """Run the notebooks and write them back."""
    for path in [path for path in (NOTEBOOK, PYTHON) if path.stem in (sys.argv[1:] or path.stem)]:
        with tempfile.TemporaryDirectory() as folder:
            done = tidied(executed(read(path), Path(folder)))
        nbformat.write(done, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
