"""The page about parts of one's own: its examples run, and what it says of a kind is what the registry does."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import Call

from yeastexp.config.loading import load_experiment
from yeastexp.registry import KINDS

PAGE = (Path(__file__).parent.parent / "docs" / "your-own-part.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SMALL = ["train.steps=4", "train.batch_size=2", "patches.size=32", "runtime.threads=1"]
SMALL_DATA = ["dataset.images=4", "dataset.size=64"]
SMALL_MODEL = ["model.width=2"]


def block(kind: str, language: str) -> str:
    """The only block of a language in the section of a kind."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[kind], re.MULTILINE | re.DOTALL)
    assert isinstance(text, str)
    return text


def write(kind: str, folder: Path) -> Path:
    """The files of an example, with images for those that read some; returns the experiment."""
    plugin = block(kind, "python")
    (folder / plugin.partition("\n")[0].removeprefix("# ")).write_text(plugin)
    (folder / "mine.toml").write_text(block(kind, "toml"))
    if kind == "dataset":
        arrays = [tiny.image(index, 64) for index in range(4)]
        stacked = {"images": np.stack([a["raw"] for a in arrays]), "labels": np.stack([a["gt"] for a in arrays])}
        np.savez(folder / "arrays.npz", **stacked)  # type: ignore[arg-type]
    return folder / "mine.toml"


def settings(kind: str) -> list[str]:
    """What makes an example small."""
    return [*SMALL, *(SMALL_DATA if kind != "dataset" else []), *(SMALL_MODEL if kind != "model" else [])]


def test_every_kind_has_a_section_that_says_how_it_is_called() -> None:
    assert list(SECTIONS) == [*KINDS, "command"]
    for kind, registry in KINDS.items():
        assert f"\n| {kind} | `f({', '.join([*registry.given, '**table'])})` | " in PAGE


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_a_kind_passes_its_check(kind: str, tmp_path: Path, call: Call) -> None:
    path = write(kind, tmp_path)
    experiment = load_experiment(path, settings(kind))
    used = [part.name for part in (*experiment.parts, experiment.task.part) if part.kind == kind]
    registered = {name for name in KINDS[kind] if KINDS[kind].find(name).plugin}
    assert registered and registered <= set(used), "each part that an example registers is used"
    status, out, err = call("check", path, *(word for setting in settings(kind) for word in ("--set", setting)))
    assert status == 0, err
    assert out.endswith("no faults\n")


@pytest.mark.parametrize("kind", ["task", "metric", "handler"])
def test_what_a_check_does_not_reach_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    write(kind, tmp_path)
    words = [word for setting in settings(kind) for word in ("--set", setting)]
    status, out, err = call("run", "mine.toml", *words)
    assert status == 0, err
    log = (tmp_path / out.splitlines()[-1] / "log.txt").read_text()
    assert ("lowest validation loss: " in log) == (kind == "handler")


def test_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    (tmp_path / "sizes.py").write_text(block("command", "python"))
    monkeypatch.syspath_prepend(tmp_path)
    points = tomllib.loads(block("command", "toml"))["project"]["entry-points"]

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        return [importlib.metadata.EntryPoint(name, value, group) for name, value in points.get(group, {}).items()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    tiny.write_data(tmp_path / "data.h5")
    (tmp_path / "mine.toml").write_text(tiny.EXPERIMENT)
    status, out, err = call("sizes", tmp_path / "mine.toml")
    sys.modules.pop("sizes")
    assert (status, err) == (0, "") and out.splitlines()[0] == "square_0: 1 × 32 × 32"


def test_its_lines_fit() -> None:
    for line in PAGE.splitlines():
        assert len(line) <= 130 or line.startswith("|"), line
