"""The notebook of the Python interface runs, and shows what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from notebooks import execute

NOTEBOOK = execute.read(execute.PYTHON)
CELLS = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


def test_the_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process and shortened, which takes a fraction of the time; a kernel runs those of the exercise sheet."""
    assert [cell.source.count('"steps": 300') for cell in CELLS] == [1, 0, 0, 0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in CELLS:
        exec(cell.source.replace('"steps": 300', '"steps": 2'), names)
    assert "image: has the shape (1, 1, 96, 96); give a list of images" in capsys.readouterr().out


def test_the_outputs_shown_are_those_of_a_full_run() -> None:
    assert [cell.execution_count for cell in CELLS] == list(range(1, len(CELLS) + 1))
    shown = [output for cell in CELLS for output in cell.outputs]
    assert {output.output_type for output in shown} == {"stream", "display_data", "execute_result"}
    (picture,) = [output.data["text/html"] for output in shown if output.output_type == "execute_result"]
    assert picture.startswith("<img ") and execute.PYTHON.stat().st_size < 60_000
