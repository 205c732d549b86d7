"""Experiments that come with the package, from a checkout and from a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import Call

from yeastexp.config import starters
from yeastexp.config.loading import load_experiment
from yeastexp.errors import UserError

HOME = Path(__file__).parents[2]
EXPERIMENTS = HOME / "experiments"
MINE = """\
extends = "yeastexp:hdf5"
dataset.path = "data.h5"
"""


def test_a_starter_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(MINE)
    mine = load_experiment(Path("mine.toml"), data=False)
    assert mine.name == "mine" and mine.dataset.options["path"] == tmp_path / "data.h5"
    assert [part.name for part in mine.transforms] == ["zscore", "polarity"]


@pytest.mark.parametrize("name", starters.names())
def test_every_starter_is_a_file_that_the_checkout_documents(name: str, tmp_path: Path) -> None:
    assert starters.find(f"yeastexp:{name}") == EXPERIMENTS / f"{name}.toml"
    (tmp_path / "mine.toml").write_text(f'extends = "yeastexp:{name}"\n')
    assert load_experiment(tmp_path / "mine.toml", data=False)


@pytest.mark.parametrize(
    ("extends", "fault"),
    [
        (
            "yeastexp:hdf",
            "no starter experiment 'hdf'; did you mean 'hdf5'? "
            "(known: base, cells, distance, from_yeast, handlers, hdf5, quick, quick_cells, starting_point)",
        ),
        (
            "yeastexp:../setup",
            "no starter experiment '../setup' "
            "(known: base, cells, distance, from_yeast, handlers, hdf5, quick, quick_cells, starting_point)",
        ),
        ("experiments/hdf5.toml", "no file '{folder}/experiments/hdf5.toml'; did you mean 'yeastexp:hdf5'?"),
        ("parent.toml", "no file '{folder}/parent.toml'"),
    ],
)
def test_a_parent_that_is_not_there(extends: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'extends = "{extends}"\n')
    with pytest.raises(UserError) as error:
        load_experiment(file)
    assert str(error.value) == f"{file}:1:1: extends: {fault.format(folder=tmp_path)}"


def test_a_starter_without_data_says_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "yeastexp:hdf5"\n')
    with pytest.raises(UserError) as error:
        load_experiment(tmp_path / "mine.toml")
    assert f"[dataset] path: no file '{starters.folder() / 'data.h5'}'; name yours in a file that" in str(error.value)
    assert str(error.value).endswith("or with --set dataset.path=…")


@pytest.mark.parametrize("name", starters.names())
def test_a_copy_of_a_starter_is_what_it_is(
    name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call("new", f"yeastexp:{name}", "-o", "mine.toml")
    assert (status, err) == (0, "") and out.splitlines()[0] == "mine.toml"
    assert sorted(out.splitlines()) == sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "mine.toml").write_text(f'name = "{name}"\n' + (tmp_path / "mine.toml").read_text())
    monkeypatch.chdir(EXPERIMENTS)  # from which paths of data would start that stand in both
    mine, starter = (load_experiment(path, data=False) for path in (tmp_path / "mine.toml", Path(f"{name}.toml")))
    assert mine.resolved() == starter.resolved().replace(str(EXPERIMENTS), str(tmp_path))
    assert f"experiments/{name}.toml" not in (tmp_path / "mine.toml").read_text()


def test_a_copy_replaces_nothing_unasked(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "distance.py").write_text("mine")
    said = "distance.py: exists; add --force to replace it, or name another file\n"
    assert call("new", "yeastexp:distance", "-o", "mine.toml") == (2, "", said)
    assert [path.name for path in tmp_path.iterdir()] == ["distance.py"]
    assert call("new", "yeastexp:distance", "-o", "mine.toml", "--force")[0] == 0
    for words, fault in (
        (["yeastexp:bsae"], "no starter experiment 'bsae'; did you mean 'base'?"),
        (["yeastexp:base", "labels"], "yeastexp:base is a starter, which goes without LABELS"),
        (
            ["yeastexp:base", "--val", "8"],
            "--val goes with IMAGES and LABELS, which are packed; yeastexp:base is no data",
        ),
    ):
        status, _, err = call("new", *words, "-o", "other.toml")
        assert status == 2 and fault in err


def test_commands_take_a_starter(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call("list", "metric", "--experiment", "yeastexp:distance")
    assert (status, err) == (0, "") and "distance_error" in out
    status, _, err = call("run", "yeastexp:bsae")
    assert (status, err.partition(" (")[0]) == (2, "no starter experiment 'bsae'; did you mean 'base'?")


@pytest.mark.parametrize(
    ("path", "meant"),
    [("mien.toml", "mine.toml"), ("base.toml", "yeastexp:base"), ("base", "yeastexp:base")],
)
def test_a_wrong_path_of_an_experiment_is_answered_with_the_nearest(
    path: str, meant: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(MINE)
    assert call("check", path) == (2, "", f"{path}: no such experiment file; did you mean '{meant}'?\n")


def test_a_wheel_has_the_starters_and_needs_no_checkout(tmp_path: Path) -> None:
    source, wheels, installed = (tmp_path / name for name in ("source", "wheels", "installed"))
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(HOME / name, source)
    for name in ("yeastexp", "experiments"):
        shutil.copytree(HOME / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(wheels)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    shutil.rmtree(source)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    names = [path.name for path in EXPERIMENTS.iterdir() if path.is_file()]
    assert sorted(path.name for path in (installed / "yeastexp" / "starters").iterdir()) == sorted(names)
    for name in names:
        assert (installed / "yeastexp" / "starters" / name).read_bytes() == (EXPERIMENTS / name).read_bytes()
    (tmp_path / "mine.toml").write_text(MINE)
    program = f"""
import sys
sys.path.insert(0, {str(installed)!r})
from pathlib import Path
import yeastexp
assert yeastexp.__file__.startswith({str(installed)!r})
for name in ("mine.toml", {str(installed / "yeastexp" / "starters" / "distance.toml")!r}):
    print(yeastexp.load_experiment(Path(name), data=False).name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mine", "distance"]
