"""The plugin of napari without napari, which tests/interop has: layers as data, and what the widget computes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from conftest import Call, WriteExperiment
from PIL import Image

import yeastexp as yx
from yeastexp.data import hdf5_file
from yeastexp.export.napari import reader, widget

PLUGIN = Path(reader.__file__).parent


def layer(data: Any, **attributes: Any) -> SimpleNamespace:
    """An image layer, as far as the widget asks for it."""
    known = {
        "data": data, "name": "image", "rgb": False, "multiscale": False, "metadata": {}, "units": ("pixel",) * 3,
        "scale": (1.0,) * data.ndim, "translate": (0.0,) * data.ndim, "rotate": 0, "shear": 0, "affine": 0,
        "axis_labels": (), "ndim": data.ndim, "world_to_data": lambda point: point,
    }  # fmt: skip
    return SimpleNamespace(**{**known, **attributes})


def opened(path: Path) -> dict[str, tuple[Any, dict[str, Any], str]]:
    """The layers of a file by their names."""
    read = reader.get_reader(str(path))
    assert read is not None
    return {keywords["name"]: (data, keywords, kind) for data, keywords, kind in read(str(path))}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of masks, whose images may be of any size."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("napari"))
        tiny.write_data(Path("data.h5"))
        Path("tiny.toml").write_text(tiny.EXPERIMENT)
        return yx.train("tiny.toml").path.resolve()


def test_the_manifest_names_what_there_is() -> None:
    manifest = yaml.safe_load((PLUGIN / "napari.yaml").read_text())
    commands = {each["id"]: each["python_name"] for each in manifest["contributions"]["commands"]}
    assert commands == {
        "yeastexp.read": f"{reader.__name__}:{reader.get_reader.__name__}",
        "yeastexp.segment": f"{widget.__name__}:{widget.segment.__name__}",
    }
    used = {each["command"] for kind in ("readers", "widgets") for each in manifest["contributions"][kind]}
    assert used == {*commands}


def test_nothing_imports_napari_before_napari_does() -> None:
    assert "napari" not in sys.modules, "though reader and widget are imported here"


def test_a_packed_file_is_a_stack_with_its_labels(tmp_path: Path) -> None:
    ids = np.zeros((20, 30), np.uint16)
    ids[2:9, 3:9] = 4
    large = {"raw": np.arange(1200, dtype=np.uint16).reshape(2, 20, 30), "gt": (ids > 0).astype(np.int8)}
    small = {"raw": large["raw"][:, :10, :12] + 7, "gt": np.full((10, 12), -1, np.int8)}
    arrays = {"a": {**large, "instances": ids}, "b": {**small, "instances": ids[:10, :12]}}
    path = tmp_path / "two.h5"
    hdf5_file.write(path, {"train": ["a"], "val": ["b"]}, arrays.__getitem__, provenance={}, pixel_um=0.5)
    layers = opened(path)
    assert [*layers] == ["two channel 0", "two names", "two channel 1", "two classes", "two instances"]
    data, keywords, kind = layers["two channel 1"]
    assert (kind, data.shape, data.dtype, data.ndim) == ("image", (2, 20, 30), np.uint16, 3)
    assert keywords["scale"] == (1, 0.5, 0.5) and keywords["units"] == ("pixel", "micrometer", "micrometer")
    assert keywords["contrast_limits"] == (600, 1199) and keywords["blending"] == "additive"
    whole = np.zeros((2, 20, 30), np.uint16)
    whole[0], whole[1, :10, :12] = large["raw"][1], small["raw"][1]
    for key in (1, -1, ..., (0, slice(3, 5)), (slice(None), 2), (1, slice(None), 4), (..., 3), slice(1, 1), [1, 0]):
        assert np.array_equal(data[key], whole[key]), key
    assert np.array_equal(np.asarray(data), whole) and data.frame(1).shape == (10, 12)
    labels, keywords, kind = layers["two instances"]
    assert (
        isinstance(labels, np.ndarray)
        and np.array_equal(labels[0], ids)
        and (kind, keywords["visible"]) == ("labels", True)
    )
    assert not layers["two classes"][1]["visible"] and layers["two classes"][0].min() == -1
    assert layers["two names"][1]["features"] == {"title": ["a (train)", "b (val)"]}


def test_label_maps_too_large_for_memory_are_read_when_shown(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "IN_MEMORY", 0)
    assert isinstance(opened(tiny_data)["data classes"][0], reader.Frames)


def test_files_of_others_are_left_to_others(tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "predictions.csv").write_text("a,b\n1,2\n")
    (tmp_path / "text.h5").write_text("no")
    for name in ("predictions.csv", "text.h5", "missing.h5"):
        assert reader.get_reader(str(tmp_path / name)) is None
    assert reader.get_reader([str(tiny_data)]) is not None


def test_predictions_lie_over_their_images(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for index in (0, 1):
        Image.fromarray(tiny.image(index, 32 + 5 * index)["raw"]).save(f"images/{index}.png")
    assert call("predict", run, "images", "-o", "out", "--cells")[0] == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    layers = opened(tmp_path / "out" / "predictions.csv")
    assert [*layers] == ["out", "out names", "out classes", "out approximate cells"]
    assert np.array_equal(layers["out"][0][1], tiny.image(1, 37)["raw"]) and layers["out"][0].shape == (2, 37, 37)
    mask = np.asarray(Image.open(tmp_path / "out" / "1.png"))
    assert np.array_equal(layers["out classes"][0][1] > 0, mask > 0)
    assert layers["out names"][1]["features"]["title"] == ["images/0.png", "images/1.png"]
    (tmp_path / "images" / "0.png").unlink()
    assert [*opened(tmp_path / "out" / "predictions.csv")] == ["out classes", "out names", "out approximate cells"]
    (tmp_path / "out" / "0.png").unlink()
    with pytest.raises(yx.UserError, match=r"out: has no mask of '0', which its table names; predict again$"):
        opened(tmp_path / "out" / "predictions.csv")


def test_one_image_has_no_axis_of_images_and_tells_of_its_cells(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(tiny.image(0)["raw"]).save("one.png")
    assert call("predict", run, "one.png", "-o", "out", "--cells")[0] == 0
    layers = opened(Path("out/predictions.csv"))
    assert {data.shape for data, _, _ in layers.values()} == {(32, 32)} and len(layers) == 3
    features = layers["out approximate cells"][1]["features"]
    assert features["index"] == [1] and float(features["area"][0]) == (layers["out approximate cells"][0] == 1).sum()


def test_the_widget_gives_what_python_gives(run: Path) -> None:
    model, image = yx.load(run), tiny.image(3, 40)["raw"]
    expected = model.predict(image)
    classes, cells = widget.segmented(model, layer(image), [], ())
    assert np.array_equal(classes[0], expected.labels) and np.array_equal(cells[0], expected.instances)
    assert (classes[1]["name"], cells[1]["name"], cells[1]["visible"]) == (
        "image classes",
        "image approximate cells",
        False,
    )
    assert classes[1]["features"]["class"] == [*model.classes]
    assert cells[1]["features"]["index"].tolist() == [*range(1, len(expected.cells) + 1)]


def test_of_a_stack_the_image_that_is_shown_or_all(run: Path) -> None:
    planes = [tiny.image(index, size)["raw"] for index, size in ((0, 40), (1, 32))]
    frames = reader.Frames([plane.shape for plane in planes], np.uint16, planes.__getitem__)
    stack = layer(frames, scale=(2.0, 0.1, 0.1), translate=(1.0, 0.0, 0.0), units=("pixel", "micrometer", "micrometer"))
    assert widget.shown_index(stack, (0.6, 3, 3)) == (1,) and widget.shown_index(stack, (9, 3, 3)) == (1,)
    model = yx.load(run)
    expected = [model.predict(plane, pixel_um=0.1) for plane in planes]
    (one, keywords, _), *_ = widget.segmented(model, stack, [], (1,))
    assert one.shape == (1, 40, 40) and keywords["translate"].tolist() == [3, 0, 0]
    assert np.array_equal(one[0, :32, :32], expected[1].labels) and not one[0, 32:].any()
    (both, keywords, _), *_ = widget.segmented(model, stack, [], None)
    assert (
        np.array_equal(both[0], expected[0].labels) and np.array_equal(both[1], one[0]) and "features" not in keywords
    )


def test_several_channels_are_the_selected_layers(experiment_file: WriteExperiment) -> None:
    asked = []

    def predict(image: np.ndarray, **_: Any) -> Any:
        asked.append(image)
        raise yx.UserError("stop")

    model: Any = SimpleNamespace(channels=2, predict=predict)
    first, second, other = layer(np.zeros((4, 5))), layer(np.ones((4, 5))), layer(np.zeros((4, 6)))
    with pytest.raises(yx.UserError, match="stop"):
        widget.segmented(model, second, [first, other, second], ())
    assert np.array_equal(asked[0], [first.data, second.data])
    with pytest.raises(
        yx.UserError, match=r"^the run takes 2 channels; select the 2 layers of its channels in the list"
    ):
        widget.segmented(model, second, [second], ())
    with pytest.raises(yx.UserError, match="stop"):
        widget.segmented(model, layer(np.full((4, 5, 4), 3), rgb=True), [], ())
    assert asked[-1].shape == (3, 4, 5)
