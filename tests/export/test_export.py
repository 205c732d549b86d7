"""Exported models: proven, the same labels through ONNX Runtime, and one line for what cannot be exported."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from conftest import Call, WriteExperiment
from torch import Tensor, nn

from yeastexp.cli import commands
from yeastexp.config import loading
from yeastexp.data import images
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.errors import UserError
from yeastexp.export import proof
from yeastexp.export.export import SUFFIXES, Exportable
from yeastexp.export.formats import EXTRA, Onnx, Program, TorchScript, example
from yeastexp.export.network import Deployed, OwnScale, normalization_of, sides
from yeastexp.prediction import tiling
from yeastexp.prediction.exported import KEY, Description, load_exported
from yeastexp.prediction.predictor import load_predictor
from yeastexp.registry import KINDS
from yeastexp.tasks.semantic import Semantic
from yeastexp.training.run import run

assert loading  # it fills the registries

TINY: dict[str, dict[str, Any]] = {"unet": {"width": 2, "levels": 2}, "fcn": {"width": 2, "levels": 3, "skips": 1}}
NOT_EXPORTABLE = {"cnn_classifier": "gives one output"}
"""By name, why: it classifies whole images, and `run` refuses it."""


PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the commands of docs/export.md print, by their last word, in a folder with a run on squares on noise."""
    folder = tmp_path_factory.mktemp("exported")
    with contextlib.chdir(folder):
        images.write_png(folder / "my_images" / "a.png", tiny.image(0)["raw"])
        shutil.move(run(tiny.write_experiment(folder), console=tiny.quiet()), folder / "runs" / "base" / "001")
        lines = {}
        for command in (line for line in PAGE.splitlines() if line.startswith("python -m yeastexp ")):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                commands(command.split()[3:], standalone_mode=False)
            lines[command.split()[-1]] = out.getvalue().splitlines()
    return {"folder": [str(folder)], **lines}


@pytest.fixture(scope="module")
def finished(printed: dict[str, list[str]]) -> Path:
    """That run."""
    return Path(printed["folder"][0]) / "runs" / "base" / "001"


@pytest.fixture(scope="module")
def model(printed: dict[str, list[str]]) -> Path:
    """The run as ONNX."""
    return Path(printed["folder"][0]) / "model.onnx"


@pytest.mark.parametrize("name", sorted(KINDS["model"]))
def test_every_registered_model_is_exported_or_said_not_to_be(name: str) -> None:
    torch.manual_seed(0)
    network = KINDS["model"][name](2, 3, **TINY.get(name, {})).eval()
    tiles = tiling.Tiling(network, 4, ((0, 0), (0, 0)), 1.0)
    if name in NOT_EXPORTABLE:
        with pytest.raises(UserError, match=f"cannot be exported: .*{NOT_EXPORTABLE[name]}"):
            sides(network, 2, tiles)
        return
    assert sides(network, 2, tiles) == (1, 1)
    deployed = Deployed(nn.Sequential(OwnScale(joint=False)), network).eval()
    shown = [proof.image(2, size, 100, 4000) for size in proof.sizes(1, 1)]
    kinds: list[Any] = [TorchScript] if name == "unet" else [TorchScript, Onnx]  # the run below is a U-Net as ONNX
    for kind in kinds:
        traced = kind(deployed, example(2, 4))
        content = traced.model.SerializeToString() if kind is Onnx else traced.bare()
        for row in proof.prove(deployed, traced.run(content), Semantic(2, 3), shown, name):
            assert row.labels_differ <= row.close


def test_an_exported_run_predicts_the_same_files(
    finished: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    for index, size in enumerate((32, 45)):
        images.write_png(tmp_path / "in" / f"{index}.png", tiny.image(index, size)["raw"])
    for options in ([], ["--tile", "16", "--tta", "--cells"]):
        for output, weights in (("by_run", finished), ("by_onnx", model)):
            assert call("predict", weights, "in", "-o", f"{output}{len(options)}", *options)[0] == 0
        masks = sorted(Path(f"by_run{len(options)}").rglob("*.png"))
        assert len(masks) == (4 if options else 2)
        for mask in masks:
            other = Path(str(mask).replace("by_run", "by_onnx"))
            assert mask.read_bytes() == other.read_bytes() and images.read_labels(mask).any()
    for options, fault in ((["--device", "cuda"], "is run on CPUs"), (["--checkpoint", "last"], "one checkpoint")):
        status, _, said = call("predict", model, "in", "-o", "x", *options)
        assert status == 2 and fault in said and said.count("\n") == 1
    status, _, said = call("predict", model, _rgb(tmp_path), "-o", "x")
    assert status == 2 and "has 3 channels; the run was trained on 1" in said


def _rgb(folder: Path) -> Path:
    images.write_png(folder / "rgb.png", np.random.default_rng(0).integers(0, 255, (3, 9, 9)).astype(np.uint8))
    return folder / "rgb.png"


def test_the_file_says_what_it_is_and_what_was_proven(finished: Path, model: Path) -> None:
    stored = onnx.load(model)
    described = Description.of({entry.key: entry.value for entry in stored.metadata_props}[KEY])
    assert described.outputs == ("background", "cell") and described.inside
    field = load_predictor(finished).tiling
    assert (described.stride, described.margins) == (field.stride, field.margins)
    assert [row["height"] for row in described.proof] == [1, 45, 131]
    assert all(row["deviation"] < 1e-5 and row["labels_differ"] == 0 for row in described.proof)
    axes = [axis.dim_param or axis.dim_value for axis in stored.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 1, "height", "width"] and stored.opset_import[0].version == 20
    assert str(finished.parents[2]) not in stored.SerializeToString().decode("latin1")


def test_the_commands_of_the_page_say_what_they_wrote(printed: dict[str, list[str]], model: Path, call: Call) -> None:
    for name, title in (("model.onnx", "ONNX, opset 20"), ("model.pt", "TorchScript"), ("model.pt2", "torch.export")):
        lines = printed[name]
        assert lines[0].startswith(f"{title}") and lines[0].endswith(
            "outputs (B, 2, H, W), any height and width from 1"
        )
        assert lines[1] == "outputs: background, cell; logits, the largest is the class of a pixel"
        assert lines[2] == "normalisation: in the graph (zscore); give it images as recorded"
        assert "proof on 1×1, 45×71, 131×190: largest deviation" in lines[4] and "0 labels of 28,086 differ" in lines[4]
        assert lines[5:] == [name]
    for suffix, load in ((".pt", torch.jit.load), (".pt2", torch.export.load)):
        extra: Any = {EXTRA: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch calls TorchScript deprecated
            load(model.with_suffix(suffix), **{"_extra_files" if suffix == ".pt" else "extra_files": extra})
        assert len(json.loads(extra[EXTRA])["proof"]) == 3
    run_directory = model.parent / "runs" / "base" / "001"
    status, _, said = call("export", run_directory, "-o", model)
    assert (status, said) == (2, f"{model}: exists; add --force to replace it, or name another file\n")


def test_normalisation_in_the_graph_is_that_of_the_transforms() -> None:
    image = proof.image(2, (31, 40), 0, 60000)
    for transform in (
        ZScore(),
        ZScore(joint=True),
        ZScore("dataset", (900.0, 30.0), (55.5, 7.0)),
        Percentile(per="dataset", at_low=3.0, at_high=700.0),
    ):
        params = transform.statistics([image[0]]) if transform.has("statistics") else None
        layers = normalization_of([transform], None, 2)
        assert layers is not None
        torch.testing.assert_close(layers(image)[0], transform.image(image[0], params), rtol=1e-6, atol=1e-6)
    assert normalization_of([Percentile()], None, 2) is None
    stored = normalization_of([], {"mean": 100.0, "std": 20.0}, 2)
    assert stored is not None and torch.equal(stored(image), (image - 100) / 20)


class Gate(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features if float(features.mean()) > 0.1 else -features


class Gated(nn.Module):
    """A network that looks at values of pixels, which no graph holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.gate = Gate()

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.gate(self.first(images))
        return outputs


def test_a_network_that_looks_at_pixels_is_refused_and_its_layer_named() -> None:
    deployed = Deployed(nn.Sequential(), Gated()).eval()
    with torch.no_grad():
        deployed.network.first.weight.fill_(1)  # type: ignore[union-attr]
        deployed.network.first.bias.fill_(0)  # type: ignore[union-attr]
    for kind in (Onnx, Program):
        with pytest.raises(UserError, match=r"^layer gate cannot be traced for torch.export: "):
            kind(deployed, example(1, 1))
    traced = TorchScript(deployed, example(1, 1))
    with pytest.raises(UserError, match=r"deviate by .* more than 0.0001 \(Converting a tensor .*; nothing was w"):
        proof.prove(
            deployed, traced.run(traced.bare()), Semantic(1, 2), [-torch.ones(1, 1, 4, 4)], "it", traced.cautions
        )


def test_what_is_python_of_plugins_stays_behind(
    experiment_file: WriteExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom yeastexp import task\nfrom yeastexp.contracts import Prediction, Task\n"
        "from yeastexp.metrics.pixels import most_likely\n"
        "@task('edges')\nclass Edges(Task):\n    planes = ()\n    def __init__(self, channels: int, classes: int):\n"
        "        self.outputs = classes\n    def targets(self, sample):\n        return sample.labels[None]\n"
        "    def loss(self, outputs, targets, criterion):\n        return criterion(outputs, targets[:, 0].long())\n"
        "    def decode(self, outputs):\n        return Prediction(most_likely(outputs))\n"
    )
    changes = {"[task]\n": '[task]\nname = "edges"\n'}
    path = run(experiment_file(changes, text=f'plugins = ["mine.py"]\n{tiny.EXPERIMENT}'), console=tiny.quiet())
    status, printed, _ = call("export", path, "-o", "edges.pt")
    assert status == 0
    assert "outputs: output_0, output_1; raw, what task 'edges' decodes of them is not in the file" in printed
    assert printed.splitlines()[-2] == "stays behind: task 'edges', Python of the run's plugins"
    described = Exportable.of(load_predictor(path)).described(path, path / "checkpoints" / "best.pt")
    props = onnx.helper.make_model(onnx.helper.make_graph([], "", [], []))
    onnx.helper.set_model_props(props, {KEY: described.as_json()})
    onnx.save(props, "edges.onnx")
    with pytest.raises(UserError, match=r"edges.onnx: its task 'edges' stayed behind as Python .*predict with the run"):
        load_exported(Path("edges.onnx"))


def test_bad_input_gets_one_line(finished: Path, model: Path, tmp_path: Path, call: Call) -> None:
    status, _, said = call("export", finished, "-o", tmp_path / "model.bin")
    assert status == 2 and "its name does not say the format" in said and ".pt2" in said
    status, _, said = call("export", finished, "-o", tmp_path / "model.bin", "--as", "onxn")
    assert status == 2 and said.startswith("--as onxn: unknown format; did you mean 'onnx'?")
    (tmp_path / "runs" / "001").mkdir(parents=True)
    assert call("export", tmp_path / "runs" / "001", "-o", tmp_path / "a.onnx")[0] == 2
    content = model.read_bytes()
    stored = onnx.load(model)
    metadata = {entry.key: entry.value for entry in stored.metadata_props}
    for name, text, fault in (
        ("format", metadata[KEY].replace('"format": 1', '"format": 9'), "of format 9, not 1"),
        ("part", metadata[KEY].replace('"zscore"', '"zscor"'), "unknown transform 'zscor'; did you mean 'zscore'?"),
        ("option", metadata[KEY].replace('"per": "image"', '"per": 3'), "transform 'zscore': per: "),
        ("json", metadata[KEY][:-20], "metadata are damaged"),
    ):
        onnx.helper.set_model_props(stored, {KEY: text})
        onnx.save(stored, tmp_path / f"{name}.onnx")
        status, _, said = call("predict", tmp_path / f"{name}.onnx", tmp_path, "-o", tmp_path / "x")
        assert status == 2 and fault in said and said.count("\n") == 1
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "folder.onnx").mkdir()
    onnx.helper.set_model_props(stored, {})
    onnx.save(stored, tmp_path / "other.onnx")
    for name, fault in (
        ("cut", "is no ONNX file, or damaged"), ("missing", "no such file"), ("other", "says nothing of task"),
    ):  # fmt: skip
        status, _, said = call("predict", tmp_path / f"{name}.onnx", tmp_path, "-o", tmp_path / "x")
        assert status == 2 and fault in said and said.count("\n") == 1
    assert not any(path.suffix in SUFFIXES for path in tmp_path.glob("model*")) and not (tmp_path / "x").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_what_installs_it(
    finished: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    status, _, said = call("export", finished, "-o", tmp_path / "a.onnx")
    wanted = f"ONNX: needs the package {package}; pip install 'yeastexp[onnx]'\n"
    assert (status, said) == (2, wanted)
    if package != "onnxscript":
        status, _, said = call("predict", model, tmp_path, "-o", tmp_path / "x")
        assert status == 2 and f"needs the package {package}; pip install 'yeastexp[onnx]'" in said
