"""What test files share: the command line, a tiny experiment, registries that every test leaves as they were."""

from __future__ import annotations

import os

# Before PyTorch looks: tests run side by side, a process and a thread each, and so does what they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import loopback
import numpy as np
import pytest
import tiny
import torch

from yeastexp import plugins
from yeastexp.__main__ import main
from yeastexp.data.transforms.pasted_cells import PastedCells
from yeastexp.inspection import plan
from yeastexp.inspection.model import analysis
from yeastexp.inspection.preflight import patch_rules
from yeastexp.nets.receptive_field import receptive_field, survey
from yeastexp.prediction import tiling
from yeastexp.sample import Sample
from yeastexp.training import contact_sheet, handlers, training_images
from yeastexp.training.training_images import composed_scenes

Call = Callable[..., tuple[int, str, str]]
WriteExperiment = Callable[..., Path]


@pytest.fixture(autouse=True)
def registries_as_they_were() -> Iterator[None]:
    """Put back what is registered and which plugins are loaded."""
    with plugins.preserved():
        yield


LONGEST = (
    "training/test_kills.py",
    "exercise/test_exercise.py",
    "training/test_run.py",
    "training/test_resume.py",
    "tasks/test_watershed.py",
    "data/test_workers.py",
    "test_cells_page.py",
    "report/test_report.py",
    "training/test_user_handlers.py",
)
"""The files whose tests take longest: begun first, so that no process waits for the last of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files come first."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let no collection of garbage look through all that was imported, which takes half a second each time."""
    import hypothesis  # noqa: F401  # pytest does so in the end, and it asks what refers to its generators

    gc.freeze()


THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """Put back the number of threads and the choice of algorithms, also after what fixtures of a module ran."""
    yield
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is remembered of plugins between commands: not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("state")
        patched.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """Files are not forced out: that guards them against a failing computer alone, and takes some seconds in all."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_previews() -> Iterator[pytest.MonkeyPatch]:
    """A few pixels in place of the preview of a run, which takes more time than all else of a tiny run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(handlers, "draw_contact_sheet", lambda assembly: np.zeros((8, 8, 3), np.uint8))
        yield patched


@pytest.fixture(scope="module")
def real_previews(quick_previews: pytest.MonkeyPatch) -> Iterator[None]:
    """For files whose tests show what a preview costs and leaves alone: `usefixtures("real_previews")`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(handlers, "draw_contact_sheet", contact_sheet.draw_contact_sheet)
        yield


FEW = 3


@pytest.fixture(scope="module")
def few_scenes() -> Iterator[None]:
    """For files that run starters as they are: `pasted_cells` composes a few scenes, and takes each of them often."""

    def composed(prepared: Any, augmentations: tuple[Any, ...], seed: int) -> tuple[list[Sample], dict[int, int]]:
        fewer = tuple(replace(each, count=FEW) if isinstance(each, PastedCells) else each for each in augmentations)
        scenes, firsts = composed_scenes(prepared, fewer, seed)
        counts = [each.count for each in augmentations if isinstance(each, PastedCells)]
        return [scenes[index % len(scenes)] for index in range(sum(counts))] if scenes else [], firsts

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training_images, "composed_scenes", composed)
        yield


REMEMBERED: dict[object, Any] = {}


@pytest.fixture(scope="session", autouse=True)
def networks_read_once() -> Iterator[None]:
    """What is read off the operators of a network of the package is read once a session; of other networks, always."""

    def once(read: Callable[..., Any]) -> Callable[..., Any]:
        def remembered(model: torch.nn.Module, *others: Any, **options: Any) -> Any:
            layers = list(model.modules()) if isinstance(model, torch.nn.Module) else [model]
            if not all(type(layer).__module__.startswith(("torch.nn.", "yeastexp.")) for layer in layers):
                return read(model, *others, **options)
            types = frozenset(parameter.dtype for parameter in model.parameters())
            key = (read, repr(model), types, others, tuple(options.items()))
            if key not in REMEMBERED:
                REMEMBERED[key] = read(model, *others, **options)
            return REMEMBERED[key]

        return remembered

    with pytest.MonkeyPatch.context() as patched:
        for place in (plan, patch_rules, tiling):
            patched.setattr(place, "receptive_field", once(receptive_field))
        patched.setattr(analysis, "survey", once(survey))
        for name in ("_operators", "peak_bytes"):
            patched.setattr(tiling, name, once(getattr(tiling, name)))
        yield


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`call("list", "model")` gives a command's exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["yeastexp", *map(str, arguments)])
        status: object = 0
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code
        assert isinstance(status, int)
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[loopback.Server]:
    """A server to which no proxy stands in the way."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with loopback.serving() as found:
        yield found


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed file of six images, 1 × 32 × 32, with four to train on; not to be written to."""
    return tiny.write_data(tmp_path_factory.mktemp("tiny_data") / "data.h5")


@pytest.fixture
def experiment_file(tmp_path: Path, tiny_data: Path) -> WriteExperiment:
    """`experiment_file({"epochs = 2": "epochs = 3"}, name="tiny.toml")` writes a tiny experiment beside its data.

    Lines keep their numbers as long as the changes keep theirs.
    """
    shutil.copyfile(tiny_data, tmp_path / "data.h5")

    def write(changes: Mapping[str, str] | None = None, name: str = "tiny.toml", text: str = tiny.EXPERIMENT) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tiny.changed(changes or {}, text))
        return path

    return write
