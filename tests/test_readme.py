"""The README's commands, in its order, in a folder of their own; long runs are shortened."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import loopback
import pytest

from yeastexp.__main__ import main
from yeastexp.cli import commands
from yeastexp.config.loading import load_experiment
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.images import write_png

pytestmark = pytest.mark.usefixtures("few_scenes")

HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text()
SHORTENED = "train.steps=2", "patches.size=32", "train.batch_size=2", "model.width=2", "model.levels=2"
SHORT = [word for setting in SHORTENED for word in ("--set", setting)]
SMALL = ["--set", "dataset.images=6", "--set", "dataset.size=64"]
"""For the synthetic images of base.toml; the README's other experiments have images of their own."""


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language; commands have none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


COMMANDS = [line for block in blocks("") for line in block.splitlines()]
OURS = [line.partition("python -m yeastexp ")[2] for line in COMMANDS if "python -m yeastexp " in line]


def test_set_up_takes_one_line_each() -> None:
    assert COMMANDS[0] == "pip install -e . && python -m yeastexp run experiments/base.toml"
    assert COMMANDS[1] == "pip install -e '.[test]' && pytest -n auto"


def test_the_plugin_shown_is_the_file() -> None:
    plugin = (HOME / "experiments" / "my_transforms.py").read_text()
    assert plugin in blocks("python")
    assert len(plugin.splitlines()) == 8


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_experiment_shown_is_valid(text: str, tmp_path: Path) -> None:
    shutil.copytree(HOME / "experiments", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "mine.toml"
    file.write_text(text if "extends" in text else f'extends = "base.toml"\n{text}')
    assert load_experiment(file).model.name == "unet"


def test_the_engines_shown_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = [block for block in blocks("python") if "build_trainer" in block]
    base = (HOME / "experiments" / "base.toml").read_text()
    small = base.replace('synthetic_yeast"', 'synthetic_yeast"\nimages = 6\nsize = 64').replace("= 128", "= 32")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "base.toml").write_text(small)
    monkeypatch.chdir(tmp_path)
    exec(text.replace("100", "2"), {})
    assert "iou/cell" in capsys.readouterr().out


def test_every_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: loopback.Server
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(HOME / "experiments", "experiments")
    shutil.copytree(HOME / "docs" / "sweep", Path("docs") / "sweep")
    data = SyntheticYeast(images=18, size=64, seed=0)
    for name in data.splits["train"] + data.splits["val"]:
        sample = data.read(name)
        write_png(tmp_path / "images" / f"{name}.png", sample.image[0].numpy().astype("uint16"))
        write_png(tmp_path / "labels" / f"{name}.png", sample.maps["instances"].numpy().astype("uint16"))
    run_all(server.at("/yeast.zip", loopback.answer(zipped(tmp_path / "images"))), monkeypatch, capsys)
    assert len(list((tmp_path / "predicted").glob("*.png"))) == 18
    assert (tmp_path / "predicted" / "cells.csv").is_file()
    assert len(list((tmp_path / "yeast").glob("*.png"))) == 18


def zipped(folder: Path) -> bytes:
    """A zip archive of a folder's files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return file.getvalue()


def run_all(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the README's commands; `address` stands in for the one that it fetches from."""
    for line in OURS:
        words = shlex.split(line.partition(" > ")[0])
        if words[0] == "fetch":
            words[1] = address
        if words[0] == "crossval":
            words[words.index("--folds") + 1] = "2"
            words[words.index("--repeats") + 1] = "1"
        if words[0] == "sweep":
            words[words.index("--trials") + 1] = "1"
            words += ["--repeats", "0", "--pruner", "none"]
        if words[0] in ("run", "check", "crossval", "sweep"):
            words = [word for word in words if word not in ("--budget", "5m")] + SHORT
        if "--data" in words:
            words += ["--steps", "2"]
        if words[0] in ("run", "check", "crossval", "preview", "sweep") and "experiments/base.toml" in words:
            words += SMALL
        monkeypatch.setattr(sys, "argv", ["yeastexp", *words])
        try:
            main()
        except SystemExit as end:
            assert not end.code, (line, capsys.readouterr().err)
        assert capsys.readouterr().out, line


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        assert link.startswith("https://") or (HOME / link).exists(), link


def test_every_command_is_in_the_readme() -> None:
    assert set(commands.commands) <= {line.split()[0] for line in OURS}
