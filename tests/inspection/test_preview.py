"""Previews: a file that is a picture, where it goes, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import Call, WriteExperiment
from PIL import Image

from yeastexp.config.loading import load_experiment
from yeastexp.errors import UserError
from yeastexp.inspection.preview import preview
from yeastexp.training import build, contact_sheet


@pytest.fixture
def call(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`call("x.toml")` runs `preview` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return partial(call, "preview")


def test_the_picture_is_the_contact_sheet(experiment_file: WriteExperiment, tmp_path: Path) -> None:
    path = experiment_file()
    assert preview(path, ["augment=[]"], tmp_path / "new" / "sheet.png") == tmp_path / "new" / "sheet.png"
    sheet = contact_sheet.draw_contact_sheet(build.assemble(load_experiment(path, ["augment=[]"])))
    with Image.open(tmp_path / "new" / "sheet.png") as picture:
        assert (np.asarray(picture) == sheet).all()


def test_the_command(call: Call, experiment_file: WriteExperiment, tmp_path: Path) -> None:
    path = experiment_file()
    status, out, err = call(str(path))
    assert (status, out.splitlines()[-1], err) == (0, "tiny-preview.png", "")
    before = (tmp_path / "tiny-preview.png").read_bytes()
    status, out, err = call(str(path), "--set", "augment=[]")
    assert (status, out) == (2, "")
    assert err == "tiny-preview.png: exists; add --force to replace it, or name another file\n"
    assert (tmp_path / "tiny-preview.png").read_bytes() == before
    assert call(str(path), "--set", "augment=[]", "--force")[0] == 0
    assert (tmp_path / "tiny-preview.png").read_bytes() != before
    assert not (tmp_path / "runs").exists()


def test_a_picture_is_named_as_what_it_is(call: Call, experiment_file: WriteExperiment, tmp_path: Path) -> None:
    status, out, err = call(str(experiment_file()), "-o", "sheet.jpg")
    assert (status, out, err) == (2, "", "sheet.jpg: the picture is a PNG; name it sheet.png\n")
    assert not (tmp_path / "sheet.jpg").exists()


def test_faults_of_the_file_are_told_as_everywhere(experiment_file: WriteExperiment, tmp_path: Path) -> None:
    path = experiment_file({'name = "reflect"': 'name = "zscore"\nper = "dataset"'})
    with pytest.raises(UserError, match=r"tiny.toml:10:1: \[\[augment\]\] name: 'zscore' is for whole images"):
        preview(path, (), tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
