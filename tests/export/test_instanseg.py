"""Folders for QuPath's InstanSeg: a TorchScript that labels as the run does, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Call
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import yeastexp as yx
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.polarity import Polarity
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.export import instanseg
from yeastexp.export.scripted_watershed import ScriptedWatershed
from yeastexp.prediction.predictor import load_predictor
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks.semantic import Semantic
from yeastexp.tasks.watershed import Watershed

CELLS = {
    "name": "cells",
    "extends": "yeastexp:quick_cells",
    "dataset": {"images": 3, "size": 96},
    "augment": [],
    "patches": {"size": 48},
    "model": {"width": 4, "levels": 2},
    "task": {"least_height": 0.05, "least_foreground": 0.05, "views": 8},
    "train": {"steps": 40, "batch_size": 2},
    "optimizer": {"learning_rate": 0.02},
    "validation": {"every": 40},
}

rules = st.builds(
    Watershed,
    least_height=st.floats(0.1, 0.9),
    least_depth=st.sampled_from([0.0, 0.1, 0.3]),
    least_area=st.integers(1, 20),
    least_foreground=st.floats(0, 0.9),
    smoothing_px=st.sampled_from([0.0, 0.5, 1.5, 3.3]),
    highest_pass=st.sampled_from([None, 0.8]),
)


@pytest.fixture(scope="module")
def scripted() -> torch.jit.ScriptModule:
    """The watershed, whose rule is set in each example: scripting takes longer than running."""
    return torch.jit.script(ScriptedWatershed(Watershed()))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_scripted_watershed_gives_the_same_cells(scripted: torch.jit.ScriptModule, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    source = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    hill = ndimage.gaussian_filter(source.random((height, width)), data.draw(st.floats(0.3, 5)))
    hill = (hill - hill.min()) / (np.ptp(hill) + 1e-9)
    if data.draw(st.booleans()):  # plateaus
        hill = np.round(hill * 6) / 6
    foreground = np.clip(ndimage.gaussian_filter(source.standard_normal(hill.shape), 3) * 3 + 0.6, 0, 1)
    rule = data.draw(rules)
    for name, value in vars(ScriptedWatershed(rule)).items():
        if not name.startswith("_") and name != "training":
            setattr(scripted, name, value)
    planes = hill.astype(np.float32), foreground.astype(np.float32)
    assert np.array_equal(scripted(*map(torch.from_numpy, planes)).numpy(), rule.cells(*planes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of cells, of a few steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("instanseg"))
        return yx.train(yx.experiment(CELLS, {"runtime.threads": 1})).path.resolve()


def test_the_folder_labels_as_the_run_does(run: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "qupath"
    status, out, err = call("export", run, "-o", folder, "--as", "instanseg", "--author", "A", "--licence", "MIT")
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0] == "folder for QuPath's InstanSeg: images of 1 channel to label images of cells"
    assert " 0 differ from the run's" in lines[2] and lines[4] == "pixel size: 0.2 µm, to which QuPath scales images"
    assert {path.name for path in folder.iterdir()} == {
        "instanseg.pt", "rdf.yaml", "README.md", "test_input.npy", "test_output.npy",
    }  # fmt: skip
    predictor, network = load_predictor(run, "best", "cpu"), torch.jit.load(folder / "instanseg.pt")
    predictor.model.to(memory_format=torch.contiguous_format)  # the cells of so short a run hang on the last bits
    data = yx.dataset["synthetic_yeast"](images=2, size=80, seed=7)
    image = torch.from_numpy(data.arrays(data.splits["val"][0])["raw"].astype(np.float32))[None, None, :, :72]
    images = torch.cat([image, image.flip(-1)])
    expected = [predictor.predict(Sample(each, torch.full((80, 72), IGNORE), "")).instances for each in images]
    assert all(ids is not None and ids.max() > 3 for ids in expected)
    for second in ((), (torch.tensor([1], dtype=torch.int32),)):  # which label images QuPath wants
        found = network(images, *second)
        assert (found.shape, found.dtype) == ((2, 1, 80, 72), torch.float32)
        assert all(torch.equal(*pair) for pair in zip(found[:, 0].long(), expected, strict=True))
    scaled = instanseg.as_qupath_gives(image)
    low, high = np.percentile(image.numpy(), (0.1, 99.9))
    assert np.allclose(scaled, np.clip((image.numpy() - low) / (high - low), -0.5, 1.5), atol=1e-6)
    assert torch.allclose(network.normalization(scaled), network.normalization(image), atol=0.05), (
        "as nothing is clipped"
    )
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    assert rdf["config"]["qupath"]["axes"] == [{"role": role, "step": 0.2, "unit": "um"} for role in "xy"]
    assert (rdf["authors"], rdf["license"], rdf["inputs"][0]["shape"]["min"][1]) == ([{"name": "A"}], "MIT", 1)
    assert rdf["outputs"][0]["shape"]["offset"][1] * 2 == 1, "one label image"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "instanseg.pt"}
    status, _, err = call("export", run, "-o", folder, "--as", "instanseg")
    assert status == 2 and err.endswith("is a folder with files; add --force to replace it, or name another\n")
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_cells_that_are_not_the_runs_are_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setattr(instanseg, "scripted", lambda *_: _shifted(run))
    status, _, err = call("export", run, "-o", tmp_path / "folder", "--as", "instanseg")
    assert status == 1 and "differ from the run's; nothing was written" in err and not (tmp_path / "folder").exists()


def _shifted(run: Path) -> bytes:
    """A TorchScript that labels every pixel as one cell."""

    class Wrong(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(images[:, :1])

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Wrong()), buffer)
    return buffer.getvalue()


def test_what_qupath_cannot_give_is_refused(run: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "file").write_text("")
    for output, reason in (
        ("file", f"{tmp_path / 'file'}: is a file; --as instanseg writes a folder"),
        (".", f"{tmp_path}: is a folder with files; name another folder"),
    ):
        status, _, err = call("export", run, "-o", tmp_path / output, "--as", "instanseg")
        assert status == 2 and err.splitlines()[-1].endswith(reason)
    predictor = yx.load(run).predictor
    reason = (
        "^--as instanseg: QuPath scales each image by its own percentiles, so a run has to normalise each by itself;"
    )
    instanseg.refuse_unlike_qupath(replace(predictor, transforms=(Polarity(sign=0), ZScore())))
    for transforms in ((), (ZScore("dataset", 1.0, 2.0),), (ZScore(), Percentile()), (Polarity(sign=1), ZScore())):
        with pytest.raises(yx.UserError, match=reason):
            instanseg.refuse_unlike_qupath(replace(predictor, transforms=transforms))
    with pytest.raises(
        yx.UserError, match=r"^--as instanseg: is for runs of the task 'instances', not of .*--as geojson$"
    ):
        instanseg.refuse_unlike_qupath(replace(predictor, task=Semantic(1, 2)))
