"""Every command on the pages of docs/ is one that there is, with options that it has, and runs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
import tiny
from conftest import Call

from yeastexp.cli import commands
from yeastexp.config.loading import load_experiment
from yeastexp.data.images import write_png
from yeastexp.training.run import train

HOME = Path(__file__).parent.parent
DOCS = HOME / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(?:torchrun .*?-m |python -m )?yeastexp (.*)$", re.MULTILINE)
INLINE = re.compile(r'`[^`]*python -m yeastexp ([^`"]*)[^`]*`|`torchrun [^`]*yeastexp ([^`]*)`')


def commands_in(text: str) -> list[str]:
    """The commands in the fenced blocks of a page, without what a shell does with their output."""
    return [line.split(" | ")[0].split(" > ")[0] for block in BLOCK.findall(text) for line in COMMAND.findall(block)]


FENCED = {page: commands_in(text) for page, text in PAGES.items()}
IN_TEXT = [
    (page, (first or second).partition(" & ")[0])
    for page, text in PAGES.items()
    for first, second in INLINE.findall(BLOCK.sub("", text))
]
DOCUMENTED = sorted({(page, line) for page, lines in FENCED.items() for line in lines} | set(IN_TEXT))

ELSEWHERE = {
    "cells.md": "tests/test_cells_page.py",
    "exercise.md": "tests/exercise/test_exercise.py",
    "run experiments/quick.toml --set runtime.shards=2": "tests/test_scaling_page.py",
    "crossval experiments/quick.toml --folds 3 --jobs 2 --set runtime.threads=1": "tests/system/test_jobs.py",
    "predict runs/mine/001 images/ -o out --dask local:2": "tests/prediction/test_cluster.py",
    "export.md": "tests/export/test_export.py",
    "report runs/base_sweep": "tests/sweep/test_sweep.py",
    "compare runs/base_sweep/trials/001 runs/base_sweep/trials/002": "tests/sweep/test_sweep.py",
    "run few.toml --set train.steps=1000": "tests/config/test_pretrained.py",
    "run experiments/starting_point.toml": "tests/config/test_pretrained.py",
    "run experiments/base.toml": "tests/test_readme.py",
    "check mine.toml": "tests/test_your_own_part.py",
    **dict.fromkeys(commands_in((HOME / "README.md").read_text(encoding="utf-8")), "tests/test_readme.py"),
}
"""Pages and commands that other tests run."""

NOT_RUN = ("predict runs/mine/001 images/ -o out --part $SLURM_ARRAY_TASK_ID/16",)
"""There is no SLURM here. Commands in tables and in running text are parsed only."""

RUN = [page for page in PAGES if page not in ELSEWHERE and {*FENCED[page]} - {*ELSEWHERE, *NOT_RUN}]
SHORT = ["--set", "train.steps=2", "--set", "patches.size=32", "--set", "train.batch_size=2", "--set", "model.width=2"]


def test_commands_are_found() -> None:
    assert len(DOCUMENTED) > 60 and {*RUN} >= {"planning.md", "scaling.md", "comparing.md", "sharing.md"}
    assert all((HOME / path).is_file() for path in ELSEWHERE.values())
    assert set(NOT_RUN) <= {line for _, line in DOCUMENTED}


@pytest.mark.parametrize(("page", "line"), DOCUMENTED)
def test_a_command_parses(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words == ["--version"]:
        return
    with commands.make_context("yeastexp", list(words)) as context:
        _, command, rest = commands.resolve_command(context, words)
        assert isinstance(command, click.Command)
        command.make_context(words[0], rest, parent=context)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A folder with what the pages' commands are given: images, labels, packed files and two small runs."""
    folder = tmp_path_factory.mktemp("pages")
    for index in range(12):
        arrays = tiny.image(index % 6, 32)
        for place, values in (("images", "raw"), ("my_images", "raw"), ("labels", "gt")):
            write_png(folder / place / f"movie{index}_t0.png", arrays[values])
    for name in ("data.h5", "mine.h5"):
        shutil.copyfile(tiny_data, folder / name)
    for text in re.findall(r"^```toml\n(.*?)^```$", PAGES["comparing.md"], re.MULTILINE | re.DOTALL):
        (folder / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name in ("base", "mine"):
            Path(f"{name}.toml").write_text(tiny.EXPERIMENT)
            train(f"{name}.toml")
    return folder


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(
    page: str, prepared: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    if page == "planning.md":
        Path("mine.toml").unlink()
    for line in FENCED[page]:
        if line in ELSEWHERE or line in NOT_RUN:
            continue
        words = shlex.split(line)
        status, out, err = call(*words, *(SHORT if words[0] == "crossval" else []))
        assert status == 0 and out, (line, err)


def test_the_files_that_are_compared_differ_in_one_thing(prepared: Path) -> None:
    plain, turned = (load_experiment(prepared / f"{name}.toml") for name in ("plain", "turned"))
    assert [part.name for part in turned.augmentations] == ["reflect", "rotate90"] and plain.augmentations == ()
    assert plain.model == turned.model and plain.train == turned.train


def test_bioimageio_is_asked_as_the_page_does() -> None:
    """The script runs in an environment of its own, where it compares the labels."""
    script = (HOME / "tests" / "interop" / "bioimageio_core.py").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", PAGES["export.md"], re.MULTILINE | re.DOTALL)
    lines = {line.strip() for line in snippet.splitlines() if re.match(r"(tensor|    sample) = ", line)}
    assert len(lines) == 2 and lines <= {line.strip() for line in script.splitlines()}
    assert all(f'"{name}": True' in script for name in re.findall(r"(skip_\w+)=True", snippet))
