"""The exercise sheet's page and notebook: what they show is what their commands print, draw and score now."""

from __future__ import annotations

import re
from pathlib import Path

import forks
import nbformat
import numpy as np
import pytest
import torch
from nbformat import NotebookNode
from PIL import Image

from docs import exercise
from notebooks import execute
from yeastexp.cli import commands
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.tensorboard import Tracker

PAGE = exercise.DOCUMENT.read_text(encoding="utf-8")
BLOCKS = list(exercise.BLOCK.finditer(PAGE))
TEXT = exercise.BLOCK.sub("", PAGE)
PROSE = re.sub(r"<!--.*?-->|^(<img|!).*?$", "", TEXT, flags=re.MULTILINE)

VARIES = re.compile(r"\d+\.\d+ s\b|(?<=memory )\d+ MB|(?<=\.py:)\d+|(?<=with )\d+ threads?\b")
"""Times, memory, lines of source files, and the threads that are fastest on a machine now."""

LARGEST_PICTURE = 200_000
LARGEST_NOTEBOOK = 1_000_000
"""Bytes."""

LEVELS = 3
"""Of 255, that a picture may differ on average: other versions of matplotlib and Pillow round otherwise."""


def stable(text: str) -> str:
    """A text without what differs from run to run."""
    return VARIES.sub("…", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands have been run."""
    return tmp_path_factory.mktemp("exercise").resolve()


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """The page with what its commands print now, training aside."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in exercise.TERMINAL.items():
            patch.setenv(name, value)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return exercise.rerun(PAGE, folder, recorded=False)


def test_every_output_is_what_the_command_prints_now(page: str) -> None:
    assert stable(page) == stable(PAGE)


@pytest.mark.parametrize("name", exercise.DRAWN)
def test_every_picture_is_what_the_command_draws_now(name: str, page: str, folder: Path) -> None:
    exercise.write_small(folder / exercise.DRAWN[name], folder / name)
    drawn, shown = (
        np.asarray(Image.open(where / name).convert("RGB"), np.int64) for where in (folder, exercise.PICTURES)
    )
    assert drawn.shape == shown.shape
    assert np.abs(drawn - shown).mean() < LEVELS


def test_the_recorded_run_is_of_this_experiment(page: str, folder: Path) -> None:
    assert exercise.stamped(PAGE, folder) == PAGE, "its options changed; run python docs/exercise.py"


def test_nothing_but_training_and_what_needs_it_is_recorded() -> None:
    recorded = [block["content"] for block in BLOCKS if block["recorded"]]
    trained, *others = [line for text in recorded for line in text.splitlines() if line.startswith("$ ")]
    assert trained == "$ python -m yeastexp run sheet.toml"
    assert recorded[0].splitlines()[-1] == exercise.RUN
    assert all(exercise.RUN in line for line in others)


def test_every_number_in_the_text_stands_in_an_output() -> None:
    """Numbers of three digits and more; those of real images stand where they were measured."""
    measured = (exercise.HERE / "robustness.md").read_text(encoding="utf-8")
    known = {number for source in (measured, *(block[0] for block in BLOCKS)) for number in numbers(source)}
    known |= {number for sum_, total in calculations() for number in numbers(f"{sum_} {total}")}
    assert [number for number in numbers(PROSE) if number not in known] == []


def numbers(text: str) -> list[str]:
    """Numbers of three digits and more, without the commas between thousands."""
    found = re.findall(r"\d[\d,.]*\d", text)
    return [number.replace(",", "") for number in found if sum(map(str.isdigit, number)) >= 3]


def calculations() -> list[tuple[str, str]]:
    """What the text works out: a calculation and what it is said to give."""
    return re.findall(r"`([\d,+·() ]+) = ([\d,]+)`", PROSE)


def test_what_the_text_works_out_is_right() -> None:
    assert len(calculations()) == 7
    for sum_, total in calculations():
        assert eval(sum_.replace(",", "").replace("·", "*")) == int(total.replace(",", "")), sum_


def test_pictures_are_small_and_shown() -> None:
    shown = re.findall(r'(?:src="|\]\()exercise/([^")]+)', PAGE)
    assert sorted(shown) == sorted(path.name for path in exercise.PICTURES.iterdir())
    assert set(shown) == {*exercise.DRAWN, *exercise.TRAINED}
    assert all((exercise.PICTURES / name).stat().st_size <= LARGEST_PICTURE for name in shown)


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
        assert (exercise.HERE / link).exists(), link


def test_logged_pictures_are_those_of_the_last_validation(tmp_path: Path) -> None:
    tracker = Tracker(RunDirectory(tmp_path))
    for step in (5, 10):
        scores = {name: {"per_image": step / 20} for name in ("background", "cell", "mean")}
        summary = {"iou": scores, "accuracy": {"all": scores["mean"]}}
        tracker.validation(step, 0.5, summary, {"all background": summary})
        tracker.picture(step, np.full((4, 6, 3), step, np.uint8))
    tracker.close()
    (tmp_path / "pictures").mkdir()
    exercise.write_logged(tmp_path, tmp_path / "pictures")
    assert (np.asarray(Image.open(tmp_path / "pictures" / "validation.png")) == 10).all()
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"validation.png", "curves.png"}


NOTEBOOK = execute.read()
SHOWN = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
TRAINED = "sheet.toml\n[task]", "run sheet.toml", 'Path("runs/sheet")', "metrics.csv"
"""What the cells say whose outputs depend on how long is trained, or that say so."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[NotebookNode]:
    """The notebook's cells of code, run with two epochs in place of forty, on one thread beside other tests."""
    copy = nbformat.from_dict(NOTEBOOK)
    (experiment,) = [cell for cell in copy.cells if "epochs = 40" in cell.source]
    experiment.source = experiment.source.replace("epochs = 40", "epochs = 2\n\n[runtime]\nthreads = 1")
    first = next(cell for cell in copy.cells if cell.cell_type == "code")
    forked = forks.on_path(tmp_path_factory.mktemp("path"))
    *lines, last = first.source.splitlines()
    its_own = "import shutil\nassert Path(shutil.which('python')).samefile(sys.executable)"
    quicker = f"os.environ['PATH'] = {str(forked)!r} + os.pathsep + os.environ['PATH']"
    first.source = "\n".join([*lines, its_own, quicker, last])
    ran = execute.tidied(execute.executed(copy, tmp_path_factory.mktemp("notebook")))
    return [cell for cell in ran.cells if cell.cell_type == "code"]


def outputs(cell: NotebookNode) -> list[tuple[str, str]]:
    """What a cell shows: the kind of each output, and its text where it is one."""
    return [
        (one.name, stable(one.text)) if one.output_type == "stream" else (one.output_type, " ".join(sorted(one.data)))
        for one in cell.outputs
    ]


def test_the_notebook_runs_and_shows_what_it_showed(done: list[NotebookNode]) -> None:
    for ran, shown in zip(done, SHOWN, strict=True):
        if any(words in shown.source for words in TRAINED):
            assert [kind for kind, _ in outputs(ran)] == [kind for kind, _ in outputs(shown)], shown.source
        else:
            assert outputs(ran) == outputs(shown), shown.source


def test_the_notebook_shows_no_warning_or_error() -> None:
    assert {kind for cell in SHOWN for kind, _ in outputs(cell)} == {"stdout", "execute_result", "display_data"}
    assert [cell.execution_count for cell in SHOWN] == list(range(1, len(SHOWN) + 1))


def test_the_notebook_is_small_and_trained_in_full() -> None:
    assert execute.NOTEBOOK.stat().st_size <= LARGEST_NOTEBOOK
    (trained,) = [cell for cell in SHOWN if "yeastexp run sheet.toml" in cell.source]
    assert trained.outputs[0].text.splitlines()[-1] == exercise.RUN


def test_page_and_notebook_use_commands_that_there_are() -> None:
    text = PAGE + "".join(cell.source for cell in NOTEBOOK.cells)
    used = set(re.findall(r"python -m yeastexp (\w+)", text))
    assert used <= set(commands.commands)
    assert {"inspect", "pack", "normalize", "preview", "study", "run"} <= used
