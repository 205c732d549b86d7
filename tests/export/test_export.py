"""Exported models: proven, the same labels through ONNX Runtime, and one line for what cannot be exported."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
import yaml
from conftest import Call, WriteExperiment
from PIL import Image
from torch import Tensor, nn

import yeastexp
from yeastexp.cli import commands
from yeastexp.config import loading
from yeastexp.data import images
from yeastexp.data.normalization import Values
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.polarity import Polarity
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.errors import UserError
from yeastexp.export import bioimage_io, proof
from yeastexp.export.export import SUFFIXES, Exportable
from yeastexp.export.formats import EXTRA, Onnx, Program, TorchScript, example
from yeastexp.export.network import Deployed, OwnScale, normalization_of, sides
from yeastexp.prediction import tiling
from yeastexp.prediction.exported import KEY, Description, PlainPart, load_exported, without_normalization
from yeastexp.prediction.predictor import load_predictor
from yeastexp.registry import KINDS, Entry
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks.instances import Instances
from yeastexp.tasks.semantic import Semantic
from yeastexp.training.run import run

assert loading  # it fills the registries

TINY: dict[str, dict[str, Any]] = {"unet": {"width": 2, "levels": 2}, "fcn": {"width": 2, "levels": 2, "skips": 1}}
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
            with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patched:
                if "model.zip" in command:  # which would take seconds to trace the same network again
                    patched.setattr(Onnx, "__init__", _read_again)
                commands(command.split()[3:], standalone_mode=False)
            lines[command.split()[-1 if "--licence" not in command else -3]] = out.getvalue().splitlines()
    return {"folder": [str(folder)], **lines}


def _read_again(self: Onnx, deployed: Deployed, images: Tensor) -> None:
    self.onnx, self.model = onnx, onnx.load("model.onnx")
    without_normalization(self.model)


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
        assert lines[0].startswith(title) and lines[0].endswith("outputs (B, 2, H, W), any height and width from 1")
        assert lines[1] == "outputs: background, cell; logits, the largest is the class of a pixel"
        assert lines[2] == "normalisation: in the graph (zscore); give it images as recorded"
        assert lines[3].endswith("would be normalised by its own statistics: give it whole images, or use predict")
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


@pytest.fixture(scope="module")
def package(model: Path) -> dict[str, bytes]:
    """The files of the BioImage.IO package."""
    with zipfile.ZipFile(model.with_suffix(".zip")) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_package_says_where_tiles_are_exact_and_holds_what_it_names(
    finished: Path, package: dict[str, bytes], printed: dict[str, list[str]]
) -> None:
    rdf = yaml.safe_load(package["rdf.yaml"])
    (image,), (outputs,), weights = rdf["inputs"], rdf["outputs"], rdf["weights"]
    named = [image["test_tensor"], outputs["test_tensor"], *weights.values()]
    assert all(hashlib.sha256(package[each["source"]]).hexdigest() == each["sha256"] for each in named)
    assert {each["source"] for each in named} | {"rdf.yaml", rdf["documentation"], *rdf["covers"]} == set(package)
    field = load_predictor(finished).tiling
    halo, size = outputs["axes"][2]["halo"], image["axes"][2]["size"]
    assert max(map(max, field.margins)) <= halo < max(map(max, field.margins)) + field.stride
    assert size["step"] == field.stride and size["min"] % size["step"] == 0 and size["min"] - 2 * halo >= 1
    given, wanted = (np.load(io.BytesIO(package[each["test_tensor"]["source"]])) for each in (image, outputs))
    assert (given.shape[2] - size["min"]) % size["step"] == 0 and wanted.shape == (1, 2, *given.shape[2:])
    assert image["preprocessing"] == [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"], "eps": 1e-12}}]
    values = ((given - given.mean((2, 3))) / given.std((2, 3))).astype(np.float32)
    session = onnxruntime.InferenceSession(package["weights.onnx"], providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: values})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert rdf["license"] == "CC-BY-4.0" and rdf["format_version"] == "0.5.3" and weights["onnx"]["parent"]
    assert [axis.get("channel_names") for axis in outputs["axes"]][1] == ["background", "cell"]
    cover = Image.open(io.BytesIO(package["cover.jpg"]))
    assert cover.size == (800, 400) and len(package["cover.jpg"]) < 500_000
    readme = package["README.md"].decode()
    assert "bioimageio.core from 0.11 on mirrors" in readme
    assert "| iou | cell | " in readme and "optimistically biased" in readme and "`data.h5`: SHA-256 `" in readme
    assert "test image and cover: 'square_4', the first validation image" in printed["model.zip"]


@pytest.mark.parametrize("pixel_um", [None, 0.0645, 0.1, 0.16, 0.2, 0.3, 1.1])
def test_readers_of_a_package_compute_a_whole_halo(pixel_um: float | None) -> None:
    for margin in range(1, 200):
        halo = bioimage_io.packaged_halo(replace(DESCRIBED, margins=((margin, 1), (1, 1)), stride=4), pixel_um)
        assert margin <= halo < margin + 40 and halo % 4 == 0 and (halo * (pixel_um or 1) / (pixel_um or 1)) == halo


def test_a_package_needs_a_licence(finished: Path, tmp_path: Path, call: Call) -> None:
    for options, fault in (([], "add --licence"), (["--licence", "mine, all"], "should be an SPDX identifier")):
        status, _, said = call("export", finished, "-o", tmp_path / "a.zip", *options)
        assert status == 2 and fault in said and said.count("\n") == 1


def _by_operation(operation: dict[str, Any], image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) after a standard operation, as BioImage.IO defines it."""
    options = operation["kwargs"]
    axes = tuple(("channel", "y", "x").index(axis) for axis in options.get("axes", ()))
    numbers = {key: np.reshape(options[key], (-1, 1, 1)) for key in ("mean", "std", "gain", "offset") if key in options}
    if operation["id"] == "zero_mean_unit_variance":
        return (image - image.mean(axes, keepdims=True)) / (image.std(axes, keepdims=True) + options["eps"])
    if operation["id"] == "fixed_zero_mean_unit_variance":
        return (image - numbers["mean"]) / numbers["std"]
    if operation["id"] == "scale_linear":
        return image * numbers["gain"] + numbers["offset"]
    assert operation["id"] == "scale_range"
    ends = [options["min_percentile"], options["max_percentile"]]
    low, high = np.percentile(image, ends, axis=axes, keepdims=True)
    return (image - low) / (high - low + options["eps"])


def test_standard_operations_are_the_transforms(finished: Path) -> None:
    predictor = load_predictor(finished)
    image = proof.image(2, (31, 40), 0, 60000)[0]
    for transform in (
        *(ZScore(), ZScore(joint=True), Percentile(), Percentile(joint=True, high=90)),
        *(ZScore("dataset", 900.0, 55.5), ZScore("dataset", (900.0, 30.0), (55.5, 7.0))),
        *(
            Percentile(per="dataset", at_low=3.0, at_high=700.0),
            Percentile(per="dataset", at_low=(3.0, 1.0), at_high=(70.0, 9.0)),
        ),
    ):
        (operation,) = bioimage_io.operations(replace(predictor, transforms=(Polarity(sign=0), transform)))
        params = transform.statistics([image]) if transform.has("statistics") else None
        found = _by_operation(operation, image.double().numpy())
        np.testing.assert_allclose(found, transform.image(image, params).numpy(), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="no standard operation does what the transform Downscale does; export as onnx"):
        bioimage_io.operations(replace(predictor, transforms=(KINDS["transform"]["downscale"](factor=2),)))
    (stored,) = bioimage_io.operations(replace(predictor, transforms=(), normalization={"mean": 9.0, "std": 2.0}))
    assert stored == {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 9.0, "std": 2.0}}


def test_yaml_gives_back_what_it_was_given() -> None:
    value = {
        "text": "a: b # 'c' \"d\" é\n- e", "no": "yes", "1e5": "1e5", "y": [1e-12, 2e30, -3e-7, 0.5, None, True],
        "tables": [{"a": {"b": {}}, "c": []}, {"d": [[1, 2], ["x"]]}, {"e": [{"f": 1}]}], "empty": {},
    }  # fmt: skip
    assert yaml.safe_load(bioimage_io.yaml(value)) == value
    assert list(bioimage_io.identifiers(["a b", "a-b", "1st", "class"])) == ["a_b", "a_b_1", "_1st", "_class"]


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
    # A polarity that found no common sign changes nothing; one that did has to compute the sign of each image.
    for sign in (None, 0, (0, 0)):
        layers = normalization_of([Polarity(sign=sign), ZScore()], None, 2)
        assert layers is not None and torch.equal(layers(image), OwnScale(joint=False)(image))
    assert normalization_of([Polarity(sign=(0, 1)), ZScore()], None, 2) is None
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
    status, _, said = call("predict", model.with_suffix(".pt"), tmp_path, "-o", tmp_path / "x")
    assert status == 2 and "of exported models predict takes ONNX files" in said
    assert not any(path.suffix in SUFFIXES for path in tmp_path.glob("model*")) and not (tmp_path / "x").exists()


DESCRIBED = Description(
    format=1, version="", run="cells/001", checkpoint="", step=1, channels=1, classes=("background", "cell"),
    task=PlainPart("instances", {"views": 1}), learnt={}, outputs=("background", "cell", "hill"), transforms=(),
    inside=False, normalization=None, values={"low": 0.0, "high": 1.0}, stride=1, margins=((0, 0), (0, 0)),
    bytes_per_pixel=12.0, inexact="", off_grid="", multiple=4, smallest=8,
)  # fmt: skip
"""Of three outputs that are the image itself."""


def _three_images(described: Description, path: Path) -> Path:
    """A file whose outputs are the image, three times."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    given, outputs = (
        helper.make_tensor_value_info(name, kind, ["b", count, "h", "w"])
        for name, count in (("image", 1), ("outputs", 3))
    )
    node = helper.make_node("Concat", ["image"] * 3, ["outputs"], axis=1)
    graph = helper.make_graph([node], "three", [given], [outputs])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(made, {KEY: described.as_json()})
    onnx.save(made, path)
    return path


def test_what_a_task_learnt_travels_in_the_file(tmp_path: Path) -> None:
    task = Instances(1, 2, views=1)
    task.watershed = replace(task.watershed, least_area=7, smoothing_px=1.5, least_depth=0.2)
    predictor = load_exported(_three_images(replace(DESCRIBED, learnt=task.state_dict()), tmp_path / "a.onnx"))
    assert isinstance(predictor.task, Instances) and predictor.task.watershed == task.watershed
    assert predictor.task.views == 1 and predictor.trained_on == Values(0, 1)
    image = torch.rand(1, 8, 12, generator=torch.Generator().manual_seed(0))
    found = predictor.predict(Sample(image, torch.full((8, 12), IGNORE), ""))
    wanted = task.decode(image.expand(3, -1, -1))
    assert found.instances is not None and torch.equal(found.instances, wanted.instances)
    for size in ((8, 13), (4, 8)):
        wanted_sides = "takes sides of 8 pixels and more that are multiples of 4, not {}×{}; crop or".format(*size)
        with pytest.raises(UserError, match=wanted_sides):
            predictor.model(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("entry", KINDS["transform"].entries(), ids=lambda entry: entry.name)
def test_the_options_of_every_transform_travel(entry: Entry, tmp_path: Path) -> None:
    if any(parameter.default is parameter.empty for parameter in entry.schema.parameters):
        made = entry.factory(**{"downscale": {"factor": 2}, "crop": {"size": 8}}.get(entry.name, {}))
    else:
        made = entry.factory()
    described = replace(DESCRIBED, transforms=(PlainPart(entry.name, dict(vars(made))),), learnt=LEARNT)
    assert load_exported(_three_images(described, tmp_path / "a.onnx")).transforms == (made,)


LEARNT = Instances(1, 2).state_dict()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_what_installs_it(
    finished: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    status, _, said = call("export", finished, "-o", tmp_path / "a.onnx")
    wanted = f"ONNX: needs the package {package}; pip install onnx onnxruntime onnxscript\n"
    assert (status, said) == (2, wanted)
    if package != "onnxscript":
        status, _, said = call("predict", model, tmp_path, "-o", tmp_path / "x")
        assert status == 2 and f"needs the package {package}; pip install onnx onnxruntime onnxscript" in said


def test_python_loads_it_like_a_run(finished: Path, model: Path) -> None:
    image = tiny.image(2, 40)["raw"]
    ours, theirs = (yeastexp.load(path).predict(image) for path in (finished, model))
    assert np.array_equal(ours.labels, theirs.labels) and np.array_equal(ours.instances, theirs.instances)
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    with pytest.raises(UserError, match=r"holds one checkpoint; omit checkpoint='last'$"):
        yeastexp.load(model, "last")
    with pytest.raises(UserError, match="is run on CPUs; omit device='cuda', or predict with the run"):
        yeastexp.load(model, device="cuda")
