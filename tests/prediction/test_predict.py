"""Images of all sizes, forms and faults through a run."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import tiny
import torch
from conftest import Call
from PIL import Image
from rich.console import Console
from scipy import ndimage

from yeastexp.data import hdf5_file, images, pieces
from yeastexp.data.pieces import StoredImage
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.drawing import pictures
from yeastexp.errors import UserError
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.prediction import outputs, predict, tiling
from yeastexp.prediction import predictor as predictor_module
from yeastexp.prediction.growing_tiff import GrowingTiffs
from yeastexp.prediction.predictor import Predictor, Values, load_predictor
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks.semantic import Semantic
from yeastexp.training.run import run


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks of a few pixels; several threads would wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on squares of 16 bit on noise."""
    folder = tmp_path_factory.mktemp("finished")
    here = Path.cwd()
    os.chdir(folder)
    try:
        threads = torch.get_num_threads()
        found = run(tiny.write_experiment(folder), console=Console(file=io.StringIO())).resolve()
        torch.set_num_threads(threads)
    finally:
        os.chdir(here)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two images in `in`."""
    monkeypatch.chdir(tmp_path)
    for index in (0, 1):
        images.write_png(tmp_path / "in" / f"{'ab'[index]}.png", tiny.image(index)["raw"])
    return tmp_path


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


def raw(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise with bright squares, of 16 bit."""
    source = np.random.default_rng(seed)
    truth = source.random((height // 8 + 1, width // 8 + 1)) < 0.3
    values = source.normal(1000, 20, (height, width)) + 200 * truth.repeat(8, 0).repeat(8, 1)[:height, :width]
    return np.rint(values).astype(np.uint16)


def logits_of(predictor: Predictor, values: np.ndarray) -> torch.Tensor:
    """What the whole image gives at once."""
    image = torch.from_numpy(values.astype(np.float32))[None]
    return predictor.logits(Sample(image, torch.full(values.shape, IGNORE), ""), side=10**9)


def test_outputs_that_are_nan_are_no_empty_mask(finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other images are predicted."""
    in_tiles = outputs.logits_in_tiles

    def broken(predictor: Predictor, image: pieces.StoredImage, *others: Any) -> Iterator[outputs.Tile]:
        for rows, columns, logits in in_tiles(predictor, image, *others):
            yield rows, columns, logits * (float("nan") if image.name.endswith("a.png") else 1)

    monkeypatch.setattr(outputs, "logits_in_tiles", broken)
    with pytest.raises(UserError, match=r"in/a.png: the model's outputs for it are NaN; check its values"):
        predict.predict(finished, ["in"], here / "out")
    assert [path.name for path in (here / "out").glob("*.png")] == ["b.png"]


def test_masks_a_table_probabilities_and_overlays(finished: Path, here: Path) -> None:
    assert predict.predict(finished, ["in"], here / "out", probabilities=True, overlay=True) == 2
    predictor = load_predictor(finished)
    table = rows(here / "out")
    assert [(row["file"], row["height"], row["width"]) for row in table] == [
        ("in/a.png", "32", "32"),
        ("in/b.png", "32", "32"),
    ]
    for row, index in zip(table, (0, 1), strict=True):
        logits = logits_of(predictor, tiny.image(index)["raw"])
        mask = images.read_mask(here / "out" / f"{Path(row['file']).stem}.png")
        assert np.array_equal(mask == 255, logits.argmax(dim=0) == 1) and set(np.unique(mask)) == {0, 255}
        assert float(row["foreground_fraction"]) == (mask > 0).mean()
        assert int(row["connected_regions"]) == ndimage.label(mask, np.ones((3, 3)))[1] and float(row["seconds"]) > 0
        shares = tifffile.imread(here / "out" / "probabilities" / f"{'ab'[index]}.tif")
        np.testing.assert_allclose(shares, logits.softmax(dim=0)[1], rtol=1e-6)
        overlay = images.read_image(here / "out" / "overlays" / f"{'ab'[index]}.png")
        assert overlay.shape == (3, 32, 32)
        coloured = (overlay != overlay[0]).any(axis=0)
        assert coloured.any() and (mask[coloured] == 255).all(), "outlines lie inside"
    assert sorted(one.name for one in (here / "out").iterdir()) == [
        ".predicted.json", "a.png", "b.png", "overlays", "predictions.csv", "probabilities",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (97, 131)])
@pytest.mark.parametrize("side", [None, 16, 1])
def test_every_size_gives_what_the_whole_gives(finished: Path, here: Path, size: tuple[int, int], side: int) -> None:
    values = raw(*size)
    images.write_png(here / "odd" / "a.png", values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one pixel has no range
        predict.predict(finished, ["odd"], here / "out", tile=side)
    expected = logits_of(load_predictor(finished), values).argmax(dim=0) == 1
    assert np.array_equal(images.read_mask(here / "out" / "a.png") == 255, expected)


def test_the_last_checkpoint_can_be_asked_for(finished: Path, here: Path) -> None:
    predict.predict(finished, ["in"], here / "out", checkpoint="last", probabilities=True)
    expected = logits_of(load_predictor(finished, "last"), tiny.image(0)["raw"]).softmax(dim=0)[1]
    np.testing.assert_allclose(tifffile.imread(here / "out" / "probabilities" / "a.tif"), expected, rtol=1e-6)


def test_the_average_over_eight_turns(finished: Path, here: Path) -> None:
    values = raw(75, 60)
    images.write_png(here / "odd" / "a.png", values)
    predictor = load_predictor(finished)
    turned = []
    for turns in range(4):
        for mirrored in (False, True):
            laid = np.rot90(values, turns)[:, :: -1 if mirrored else 1].copy()
            found = logits_of(predictor, laid).softmax(dim=0)[1].numpy()
            turned.append(np.rot90(found[:, :: -1 if mirrored else 1], -turns))
    for tile in (None, 16):
        predict.predict(finished, ["odd"], here / "out", tta=True, probabilities=True, tile=tile)
        shares = tifffile.imread(here / "out" / "probabilities" / "a.tif")
        np.testing.assert_allclose(shares, np.mean(turned, axis=0), rtol=1e-5)


def test_an_hdf5_file(finished: Path, here: Path) -> None:
    tiny.write_data(here / "some.h5", 2, 1)
    assert predict.predict(finished, ["some.h5", "in"], here / "out") == 5
    assert [row["file"] for row in rows(here / "out")][2:] == [f"some.h5/square_{index}" for index in range(3)]
    for name, of in (("a", "square_0"), ("b", "square_1")):
        assert (here / "out" / f"{name}.png").read_bytes() == (here / "out" / f"{of}.png").read_bytes()


@pytest.mark.parametrize("given", ["packed", "packed/*.h5"])
def test_hdf5_files_of_a_folder_and_of_a_glob(finished: Path, here: Path, given: str) -> None:
    (here / "packed").mkdir()
    tiny.write_data(here / "packed" / "some.h5", 2, 1)
    assert predict.predict(finished, [given], here / "out") == 3
    assert rows(here / "out")[0]["file"] == "packed/some.h5/square_0"


def test_files_that_cannot_be_named_or_followed_cost_no_others(finished: Path, here: Path) -> None:
    (here / "in" / "loop.png").symlink_to("loop.png")
    try:
        shutil.copy(here / "in" / "a.png", os.fsencode(here / "in") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    with pytest.raises(UserError, match=r"loop\.png: cannot be opened") as caught:
        predict.predict(finished, ["in"], here / "out")
    told = "its name is not UTF-8, as names in tables have to be; rename it"
    assert sorted(fault.endswith(told) for fault in caught.value.faults) == [False, True]
    assert [row["file"] for row in rows(here / "out")] == ["in/a.png", "in/b.png"]


def test_a_normalised_hdf5_file_gives_what_its_images_give(finished: Path, here: Path) -> None:
    values = tiny.image(0)["raw"]
    with h5py.File(here / "some.h5", "w") as file:
        file["raw"] = ((values - 1020.0) / 60)[None]
        file.attrs["normalization"] = json.dumps({"mean": 1020.0, "std": 60.0})
    predict.predict(finished, ["some.h5", "in"], here / "out")
    assert (here / "out" / "000.png").read_bytes() == (here / "out" / "a.png").read_bytes()


def test_tiff_where_it_is_asked_for(finished: Path, here: Path) -> None:
    predict.predict(finished, ["in/a.png"], here / "out")
    predict.predict(finished, ["in/a.png"], here / "tiffs", form="tif")
    assert np.array_equal(tifffile.imread(here / "tiffs" / "a.tif"), images.read_mask(here / "out" / "a.png"))


def test_a_grey_image_that_is_saved_as_rgb_gives_what_the_grey_one_gives(finished: Path, here: Path) -> None:
    """As PNG, in HDF5, and in pieces."""
    values = tiny.image(0)["raw"]
    tifffile.imwrite(here / "rgb.tif", np.stack([values] * 3, axis=-1), photometric="rgb")
    with h5py.File(here / "rgb.h5", "w") as file:
        file["raw"] = np.stack([values] * 3)[None]
    assert predict.predict(finished, ["in/a.png", "rgb.tif", "rgb.h5"], here / "out") == 3
    expected = (here / "out" / "a.png").read_bytes()
    assert (here / "out" / "rgb.png").read_bytes() == (here / "out" / "000.png").read_bytes() == expected
    predictor = load_predictor(finished)
    assert np.array_equal(predictor.classes_of(np.stack([values] * 3), "x"), predictor.classes_of(values[None], "x"))


def several_classes(predictor: Predictor) -> Predictor:
    """The same with a third class."""
    model = torch.nn.Sequential(predictor.model, Third())
    task = dataclasses.replace(predictor.experiment.task, classes=("background", "cell", "bud"))
    experiment = dataclasses.replace(predictor.experiment, task=task)
    return dataclasses.replace(predictor, model=model, experiment=experiment, task=Semantic(1, 3))


class Third(torch.nn.Module):
    """Adds the mean of two classes as a third."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([logits, logits.abs().mean(dim=1, keepdim=True) - 0.4], dim=1)


def test_several_classes_are_indices_with_a_page_of_probabilities_each(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = several_classes(load_predictor(finished))
    monkeypatch.setattr(predict, "load_predictor", lambda *given: predictor)
    predict.predict(finished, ["in/a.png"], here / "out", probabilities=True)
    logits = logits_of(predictor, tiny.image(0)["raw"])
    mask = images.read_mask(here / "out" / "a.png")
    assert np.array_equal(mask, logits.argmax(dim=0)) and set(np.unique(mask)) == {0, 1, 2}
    with Image.open(here / "out" / "a.png") as displayed:
        assert displayed.mode == "P" and np.array_equal(np.asarray(displayed), mask)
        colours = np.asarray(displayed.convert("RGB"))
    assert np.array_equal(colours, pictures.coloured(mask.astype(np.int64))), "classes can be told apart in a viewer"
    shares = tifffile.imread(here / "out" / "probabilities" / "a.tif")
    np.testing.assert_allclose(shares, logits.softmax(dim=0), rtol=1e-6)
    regions = sum(ndimage.label(mask == label, np.ones((3, 3)))[1] for label in (1, 2))
    assert int(rows(here / "out")[0]["connected_regions"]) == regions


@dataclasses.dataclass(frozen=True)
class Centred(BasicTransform2D):
    """Takes off the mean of an image."""

    whole_images = True

    def image(self, image: torch.Tensor, params: Any) -> torch.Tensor:
        return image - image.mean()


# Larger than memory


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large: images stream, pieces are small, files grow."""
    monkeypatch.setattr(images, "LARGEST", 20_000)
    monkeypatch.setattr(outputs, "LARGE", 10_000)
    monkeypatch.setattr(pieces, "BAND", 4_000)
    monkeypatch.setattr(outputs, "SHOWN", 100)
    monkeypatch.setattr(predictor_module, "AT_ONCE", 0)
    monkeypatch.setattr(tiling, "activation_bytes", lambda device: 200_000)


SIZE = (250, 190)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("tta", [False, True])
def test_an_image_that_is_larger_than_memory_gives_what_the_whole_gives(finished: Path, here: Path, tta: bool) -> None:
    values = raw(*SIZE)
    tifffile.imwrite(here / "large.tif", values, tile=(64, 64), compression="zlib")
    with h5py.File(here / "large.h5", "w") as file:
        file["raw"] = values[None]
    told: list[float] = []
    predict.predict(
        finished, ["large.tif", "large.h5"], here / "out", tta=tta, probabilities=True, overlay=True,
        progress=lambda count: noted(told),
    )  # fmt: skip
    assert sum(told) == pytest.approx(2) and len(told) > 10
    predictor = load_predictor(finished)
    image = torch.from_numpy(values.astype(np.float32))[None]
    whole = predictor.logits(Sample(image, torch.full(SIZE, IGNORE), ""), side=10**9, tta=tta).softmax(dim=0)
    for name, row in zip(("large", "000"), rows(here / "out"), strict=True):
        mask = tifffile.imread(here / "out" / f"{name}.tif")
        assert np.array_equal(mask == 255, whole.argmax(dim=0) == 1) and set(np.unique(mask)) == {0, 255}
        shares = tifffile.imread(here / "out" / "probabilities" / f"{name}.tif")
        np.testing.assert_allclose(shares, whole[1], rtol=1e-5)
        assert float(row["foreground_fraction"]) == (mask > 0).mean()
        assert int(row["connected_regions"]) == ndimage.label(mask, np.ones((3, 3)))[1] > 5
        assert images.read_image(here / "out" / "overlays" / f"{name}.png").shape == (3, 84, 64)
    left = sorted(str(one.relative_to(here / "out")) for one in (here / "out").rglob(".*"))
    assert left == [".predicted.json"], "what is hidden is gone"


@contextmanager
def noted(told: list[float]) -> Iterator[Any]:
    yield told.append


@pytest.mark.usefixtures("little_memory")
def test_a_large_image_without_its_file_is_streamed_as_well(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a PNG: it could be read at once, only not be predicted so."""
    monkeypatch.setattr(images, "LARGEST", 1 << 27)
    values = raw(*SIZE)
    images.write_png(here / "odd" / "a.png", values)
    predict.predict(finished, ["odd"], here / "out")
    expected = logits_of(load_predictor(finished), values).argmax(dim=0) == 1
    assert np.array_equal(images.read_mask(here / "out" / "a.png") == 255, expected)


@pytest.mark.usefixtures("little_memory")
def test_a_png_cannot_hold_what_is_larger_than_memory(finished: Path, here: Path) -> None:
    tifffile.imwrite(here / "large.tif", raw(*SIZE))
    with pytest.raises(UserError, match=r"^large\.tif: is too large for a PNG file; take --format tif$"):
        predict.predict(finished, ["large.tif"], here / "out", form="png")


@pytest.mark.usefixtures("little_memory")
def test_a_transform_that_looks_at_all_of_an_image_needs_one_that_fits(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load_predictor(finished)
    predictor = dataclasses.replace(predictor, transforms=(Centred(), *predictor.transforms))
    monkeypatch.setattr(predict, "load_predictor", lambda *given: predictor)
    values = raw(*SIZE)
    tifffile.imwrite(here / "large.tif", values)
    with pytest.raises(UserError) as caught:
        predict.predict(finished, ["large.tif"], here / "out")
    assert str(caught.value) == (
        "large.tif: is too large for memory, and transform Centred depends on the whole image; "
        "give it a 'statistics' hook, or cut the image into pieces"
    )
    monkeypatch.setattr(images, "LARGEST", 1 << 27)
    predict.predict(finished, ["large.tif"], here / "out")
    expected = logits_of(predictor, values).argmax(dim=0) == 1
    assert np.array_equal(images.read_mask(here / "out" / "large.png") == 255, expected)


@dataclasses.dataclass(frozen=True)
class Brightest(BasicTransform2D):
    """A plugin's transform: divides by the largest value of an image."""

    def statistics(self, image: Iterable[torch.Tensor]) -> float:
        return max(float(band.max()) for band in image)

    def image(self, image: torch.Tensor, params: float) -> torch.Tensor:
        return image / params


@pytest.mark.usefixtures("little_memory")
def test_a_transform_with_statistics_of_its_own_gives_in_pieces_what_the_whole_gives(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load_predictor(finished)
    predictor = dataclasses.replace(predictor, transforms=(Brightest(), *predictor.transforms))
    monkeypatch.setattr(predict, "load_predictor", lambda *given: predictor)
    values = raw(*SIZE)
    tifffile.imwrite(here / "large.tif", values)
    predict.predict(finished, ["large.tif"], here / "out")
    expected = logits_of(predictor, values).argmax(dim=0) == 1
    assert np.array_equal(tifffile.imread(here / "out" / "large.tif") == 255, expected) and expected.any()


class Killed(BaseException):
    """What no handler catches."""


@pytest.mark.usefixtures("little_memory")
def test_a_killed_call_goes_on_with_the_next(finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "large").mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        tifffile.imwrite(here / "large" / f"{name}.tif", raw(*SIZE, seed))
    noted_rows: list[int] = []
    keep = GrowingTiffs.keep

    def noting(growing: GrowingTiffs, rows: int, seconds: float) -> None:
        keep(growing, rows, seconds)
        noted_rows.append(rows)
        if len(noted_rows) == killed_after:
            raise Killed

    monkeypatch.setattr(GrowingTiffs, "keep", noting)
    killed_after = 0
    predict.predict(finished, ["large"], here / "expected", probabilities=True)
    bands = len(noted_rows) // 2
    assert bands > 3 and noted_rows == noted_rows[:bands] * 2
    killed_after = 3 * bands + 2
    with pytest.raises(Killed):
        predict.predict(finished, ["large"], here / "out", probabilities=True)
    visible = [one.name for one in (here / "out").rglob("*") if not one.name.startswith(".")]
    assert sorted(visible) == ["a.tif", "a.tif", "probabilities"]
    predict.predict(finished, ["large"], here / "out", probabilities=True)
    assert noted_rows[killed_after:] == noted_rows[2:bands], "nothing was done again"
    for name in ("a.tif", "b.tif", "probabilities/a.tif", "probabilities/b.tif"):
        assert (here / "out" / name).read_bytes() == (here / "expected" / name).read_bytes()
    counts = [[row["connected_regions"] for row in rows(here / folder)] for folder in ("out", "expected")]
    assert counts[0] == counts[1]
    assert [one.name for one in (here / "out").rglob(".*")] == [".predicted.json"]


# Other values, other channels


def test_other_values_than_those_trained_on_are_a_warning(finished: Path, here: Path) -> None:
    for name in ("x", "y", "z"):
        images.write_png(here / "eight" / f"{name}.png", (tiny.image(0)["raw"] // 8).astype(np.uint8))
    with pytest.warns(UserWarning) as caught:
        assert predict.predict(finished, ["in", "eight"], here / "out") == 5
    low, high = (int(end) for end in (tiny.image(0)["raw"].min() // 8, tiny.image(0)["raw"].max() // 8))
    known = load_predictor(finished).trained_on
    assert known
    assert [str(one.message) for one in caught] == [
        f"eight/x.png: holds values from {low} to {high} (uint8), the training images from {known.low:g} to "
        f"{known.high:g}; each image is normalised by its own statistics, but check the masks",
        "2 more images hold such values: eight/y.png, eight/z.png",
    ]


@pytest.mark.parametrize(
    ("low", "high", "dtype", "known", "others"),
    [
        (900, 1300, "uint16", Values(880, 1350), False),
        (0, 255, "uint8", Values(570, 65535), True),
        (0, 65535, "uint16", Values(3, 250), True),
        (10, 90, "uint8", Values(3, 250), False),
        (570, 774, "uint16", Values(570, 65535), False),
        (0, 255, "uint16", Values(0, 255), False),
        (0.0, 1.0, "float32", Values(500, 4000), True),
        (-3.0, 3.0, "float32", Values(-3, 4), False),
        (0, 0, "uint8", Values(0, 250), False),
    ],
)
def test_which_values_are_others(low: float, high: float, dtype: str, known: Values, others: bool) -> None:
    assert predict._are_others(low, high, np.dtype(dtype), known) == others


@pytest.mark.parametrize(
    ("factors", "place"), [((1, 1), ""), ((1, 40), " in channel 2"), ((0.001, 1), ""), ((1, 0), "")]
)
def test_each_channel_is_compared_with_its_own_values(factors: tuple[float, float], place: str) -> None:
    trained = torch.rand(2, 9, 9) * torch.tensor([[[60_000.0]], [[200.0]]])
    known: Any = SimpleNamespace(trained_on=Values.of([trained], None), transforms=())
    image = (trained.numpy() * np.array(factors)[:, None, None]).astype(np.uint16)
    warning = predict.range_warning(known, StoredImage.of("a", image))
    assert (warning or "").partition(" (uint16)")[2].partition(",")[0] == place


def test_the_values_of_the_training_images_are_the_checkpoints_if_it_has_them(finished: Path, here: Path) -> None:
    predictor = load_predictor(finished)
    assert predictor.values == predictor.trained_on == Values(*extremes(range(4)))
    assert dataclasses.replace(predictor, values=Values(1, 2)).trained_on == Values(1, 2)
    assert dataclasses.replace(predictor, values=None).trained_on == Values(*extremes(range(4)))


def extremes(indices: range) -> tuple[float, float]:
    stack = np.stack([tiny.image(index)["raw"] for index in indices])
    return float(stack.min()), float(stack.max())


@pytest.fixture(scope="module")
def of_two_channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images whose file names their channels; the first one has the squares."""
    folder = tmp_path_factory.mktemp("two")
    names = [f"square_{index}" for index in range(6)]

    def read(name: str) -> dict[str, np.ndarray]:
        arrays = tiny.image(names.index(name))
        return {**arrays, "raw": np.stack([arrays["raw"], raw(32, 32)])}

    splits = {"train": names[:4], "val": names[4:]}
    origin = hdf5_file.Origin(channel_names=("phase", "GFP"))
    hdf5_file.write(folder / "data.h5", splits, read, provenance={}, origin=origin)
    (folder / "tiny.toml").write_text(tiny.changed({"channels = 1": "channels = 2"}, tiny.EXPERIMENT))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return run(folder / "tiny.toml", console=Console(file=io.StringIO())).resolve()


def write_ome(path: Path, names: Sequence[str]) -> None:
    values = np.stack([tiny.image(0)["raw"], raw(32, 32)])
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, values, ome=True, metadata={"axes": "CYX", "Channel": {"Name": list(names)}})


def test_channels_in_another_order_are_refused(of_two_channels: Path, here: Path) -> None:
    """The other images are predicted."""
    for name, channels in (("a", ["phase", "gfp"]), ("b", ["GFP", "phase"])):
        write_ome(here / "ome" / f"{name}.ome.tif", channels)
    with pytest.raises(UserError) as caught:
        predict.predict(of_two_channels, ["ome"], here / "out")
    assert str(caught.value) == (
        "ome/b.ome.tif: has the channels GFP, phase, but the run was trained on phase, GFP; save them in this order"
    )
    assert [row["file"] for row in rows(here / "out")] == ["ome/a.ome.tif"]


def test_so_they_are_in_data_sets(of_two_channels: Path, here: Path) -> None:
    """Which a run is scored on, or which a run trains on that begins with its weights."""
    shutil.copy(of_two_channels.parents[2] / "data.h5", here / "data.h5")
    shutil.copy(of_two_channels.parents[2] / "tiny.toml", here / "tiny.toml")
    with h5py.File(here / "data.h5", "r+") as file:
        file["channel_names"][:] = ["GFP", "phase"]
    with pytest.raises(UserError) as caught:
        evaluate(of_two_channels, here / "data.h5")
    assert str(caught.value) == (
        f"{here}/data.h5: has the channels GFP, phase, but the run was trained on phase, GFP; save them in this order"
    )
    with pytest.raises(UserError) as caught:
        run(here / "tiny.toml", [f"train.init_from='{of_two_channels}'"], console=Console(file=io.StringIO()))
    assert str(caught.value) == (
        f"[dataset]: has the channels GFP, phase, but '{of_two_channels}' ([train] init_from) was trained on phase, "
        "GFP; save them in this order"
    )


def test_channels_of_other_names_are_a_warning(of_two_channels: Path, here: Path) -> None:
    """Also of packed files without groups; none where nothing is named."""
    for name in "ab":
        write_ome(here / "ome" / f"{name}.ome.tif", ["BF", "GFP"])
    shutil.copy(of_two_channels.parents[2] / "data.h5", here / "some.h5")
    with h5py.File(here / "some.h5", "r+") as file:
        file["channel_names"][1] = "mCherry"
    values = np.stack([tiny.image(0)["raw"], raw(32, 32)])
    tifffile.imwrite(here / "plain.tif", values, imagej=True, metadata={"axes": "CYX"})
    with pytest.warns(UserWarning) as caught:
        predict.predict(of_two_channels, ["ome", "some.h5"], here / "out")
    said = "names its channels BF, GFP, the training images phase, GFP; is their order one?"
    assert [str(one.message) for one in caught] == [
        f"ome/a.ome.tif: {said}",
        f"7 more images name other channels: ome/b.ome.tif, {', '.join(f'some.h5/square_{n}' for n in range(4))}, …",
    ]
    predict.predict(of_two_channels, ["plain.tif"], here / "plain")


def test_no_values_are_known_where_the_training_images_are_gone(finished: Path, here: Path) -> None:
    predictor = load_predictor(finished)
    options = {**predictor.experiment.dataset.options, "path": here / "gone.h5"}
    part = dataclasses.replace(predictor.experiment.dataset, options=options)
    experiment = dataclasses.replace(predictor.experiment, dataset=part)
    assert dataclasses.replace(predictor, experiment=experiment, values=None).trained_on is None


# What cannot be done


def test_the_command_says_what_it_did_and_ends_with_1_where_something_failed(
    finished: Path, here: Path, call: Call
) -> None:
    def predicting(inputs: str, output: str = "out") -> tuple[int, str, str]:
        return call("predict", finished, inputs, "-o", output, "--tta")

    assert predicting("in") == (0, "2 masks in out\n", "")
    (here / "in" / "aa.png").write_bytes(b"hello")
    message = "in/aa.png: is not a PNG or TIFF file; save it as one of them\n"
    assert predicting("in") == (1, "", message)
    assert predicting("in/aa.png", "none") == (2, "", message)


def test_good_images_are_done_and_bad_ones_named(finished: Path, here: Path) -> None:
    (here / "in" / "aa.png").write_bytes(b"")
    images.write_png(here / "in" / "c.png", np.arange(192, dtype=np.uint8).reshape(3, 8, 8))
    tifffile.imwrite(here / "in" / "d.tif", np.full((8, 8), np.nan, np.float32))
    (here / "none.h5").write_bytes(b"hello")
    with pytest.raises(UserError) as caught:
        predict.predict(finished, ["in", "none.h5"], here / "out")
    assert caught.value.status == 1
    assert caught.value.faults == (
        "none.h5: is not an HDF5 file; 'yeastexp pack' makes one from images",
        "in/aa.png: is empty; copy or save it again",
        "in/c.png: has 3 channels; the run was trained on 1; save it as a grey image",
        "in/d.tif: holds NaN or infinite values; fix or remove it",
    )
    assert sorted(one.name for one in (here / "out").iterdir()) == [
        ".predicted.json",
        "a.png",
        "b.png",
        "predictions.csv",
    ]
    assert [row["file"] for row in rows(here / "out")] == ["in/a.png", "in/b.png"]


def test_an_empty_folder(finished: Path, here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(UserError, match=r"^empty: is empty; name the folder that holds the images$") as caught:
        predict.predict(finished, ["empty"], here / "out")
    assert caught.value.status == 2 and not (here / "out").exists()


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["in"], "in", "in/a.png: is one of the images; choose another folder for the masks"),
        (["in", "other"], "out", "other/a.png: its mask would have the name of that of in/a.png; predict them apart"),
    ],
)
def test_nothing_is_written_over(finished: Path, here: Path, inputs: list[str], output: str, message: str) -> None:
    images.write_png(here / "other" / "a.png", raw(8, 8))
    with pytest.raises(UserError) as caught:
        predict.predict(finished, inputs, Path(output))
    assert str(caught.value) == message
    assert not (here / "out").exists()


def test_overlays_are_not_written_over_images(finished: Path, here: Path) -> None:
    images.write_png(here / "overlays" / "a.png", tiny.image(0)["raw"])
    with pytest.raises(UserError, match=r"^overlays/a\.png: is one of the images; choose another folder"):
        predict.predict(finished, ["overlays"], Path(), overlay=True)


def test_an_odd_name_in_an_hdf5_file_is_refused(finished: Path, here: Path) -> None:
    with h5py.File(here / "some.h5", "w") as file:
        file["raw"] = tiny.image(0)["raw"][None]
        file["names"] = ["../a"]
    with pytest.raises(UserError, match=r"^some\.h5: '\.\./a' cannot be the name of an image; rename it$"):
        predict.predict(finished, ["some.h5"], here / "out")
    assert not (here / "out").exists()


def test_memory_that_does_not_suffice_is_told_of_with_the_image(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(outputs, "write_outputs", full)
    with pytest.raises(UserError, match=r"^in/a\.png: memory does not suffice; take smaller tiles, as --tile 512$"):
        predict.predict(finished, ["in/a.png"], here / "out")


def test_an_image_that_is_too_small_for_the_net_is_named(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.MaxPool2d(16), torch.nn.Upsample(scale_factor=16))
    predictor = dataclasses.replace(load_predictor(finished), model=deep)
    monkeypatch.setattr(predict, "load_predictor", lambda *given: predictor)
    images.write_png(here / "in" / "c.png", raw(8, 8))
    with pytest.raises(UserError) as caught:
        predict.predict(finished, ["in"], here / "out")
    (fault,) = caught.value.faults
    assert fault.startswith("in/c.png: layer 1 (MaxPool2d): cannot be run on an image of 1×8×8 (C×H×W): ")
    assert fault.endswith("; it takes one of 16×16 pixels") and caught.value.status == 1


@pytest.mark.parametrize("count", [1, 2])
def test_regions_are_counted_across_bands(count: int) -> None:
    mask = np.random.default_rng(count).random((60, 47)) < 0.4
    whole = ndimage.label(mask, np.ones((3, 3)))[1]
    for height in (1, 7, 13, 60):
        assert outputs.regions(mask[row : row + height] for row in range(0, 60, height)) == whole
    assert outputs.regions(iter([np.zeros((3, 4), bool)])) == 0


def test_what_keeps_one_image_from_being_written_keeps_no_other(finished: Path, here: Path) -> None:
    long = "m" * 250
    images.write_png(here / "in" / f"{long}.png", tiny.image(2)["raw"])
    (here / "out" / "a.png" / "full").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        predict.predict(finished, ["in"], here / "out")
    (fault,) = caught.value.faults
    assert fault.startswith(f"{here / 'out' / 'a.png'}: cannot be written (") and caught.value.status == 1
    assert [row["file"] for row in rows(here / "out")] == ["in/b.png", f"in/{long}.png"]
    assert (here / "out" / f"{long}.png").is_file()
    assert [one.name for one in (here / "out").glob(".*")] == [".predicted.json"]


def test_a_disk_that_is_full_ends_the_call_with_what_was_done(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "in" / "0.png").write_bytes(b"no picture")
    images.write_png(here / "in" / "c.png", tiny.image(2)["raw"])
    write = images.write_png

    def full(path: Path, values: np.ndarray, *others: Any) -> None:
        if path.name == "b.png":
            error = OSError(28, "No space left on device")
            raise images.files.unwritten(path, error) from error
        write(path, values, *others)

    monkeypatch.setattr(images, "write_png", full)
    with pytest.raises(UserError) as caught:
        predict.predict(finished, ["in"], here / "out")
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["in/0.png", str(here / "out" / "b.png")]
    assert "cannot be written (No space left on device); make room or name another" in caught.value.faults[1]
    assert [row["file"] for row in rows(here / "out")] == ["in/a.png"]
    assert not (here / "out" / "c.png").exists()
