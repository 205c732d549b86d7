"""The task `instances`, from `run` to `predict`: targets, decoding, and cells of images of any size."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from conftest import Call
from tiny import quiet

from yeastexp.data import images, pieces
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.images import write_png
from yeastexp.errors import UserError
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.nets.losses import DiceCrossEntropy
from yeastexp.prediction import outputs, tiling
from yeastexp.prediction import predictor as predictor_module
from yeastexp.prediction.cell_table import measure
from yeastexp.prediction.growing_tiff import GrowingTiffs
from yeastexp.prediction.predict import predict
from yeastexp.prediction.predictor import load_predictor
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks import watershed
from yeastexp.tasks.instances import Instances
from yeastexp.training.resume import resume
from yeastexp.training.run import run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SHORT = [
    "train.steps=100",
    "runtime.threads=1",
    "patches.size=48",
    "task.least_height=0.4",
    "task.least_foreground=0.5",
]
DATA = SyntheticYeast(images=6, size=96)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("instances"))
        return run(EXPERIMENTS / "quick_cells.toml", SHORT, console=quiet()).resolve()


def fitted(classes: int = 2, **options: Any) -> Instances:
    task = Instances(1, classes, **options)
    task.fit(DATA.read(name) for name in DATA.splits["train"])
    return task


def test_true_outputs_are_decoded_to_the_true_cells() -> None:
    task = fitted(least_area=0.0)
    for name in DATA.splits["val"]:
        sample = DATA.read(name)
        *_, outputs_ = task.certain(task.targets(sample)[None])
        prediction = task.decode(outputs_[0])
        assert prediction.instances is not None
        assert torch.equal(prediction.labels, sample.labels)
        true, found = sample.maps["instances"], prediction.instances
        pairs = torch.stack([true, found]).flatten(1).unique(dim=1)
        assert pairs.shape[1] == len(true.unique()) == len(found.unique()), "one found cell for each true one"


def test_the_loss_is_least_at_the_truth_and_leaves_unlabelled_pixels_out() -> None:
    task, criterion = fitted(), DiceCrossEntropy(2)
    sample = DATA.read(DATA.splits["val"][0])
    targets = task.targets(sample)[None]
    best = min(float(task.loss(each, targets, criterion)) for each in task.certain(targets))
    constant = min(float(task.loss(each, targets, criterion)) for each in task.constant(targets))
    assert best < 1e-3 < constant
    labels = sample.labels.clone()
    labels[:, :20] = IGNORE
    targets = task.targets(Sample(sample.image, labels, "", None, sample.maps))[None]
    *_, given = task.certain(targets)
    given[..., :20] += 100.0
    assert float(task.loss(given, targets, criterion)) < 1e-3


def test_a_cell_has_the_class_that_most_of_its_pixels_have() -> None:
    task = Instances(1, 3)
    logits = torch.zeros(4, 12, 20)
    logits[0] = 5.0
    logits[0, 2:9, 2:9] = logits[0, 2:9, 12:19] = -5.0
    logits[1, 2:9, 2:5], logits[2, 2:9, 5:9] = 5.0, 5.0
    logits[1, 2:9, 12:17], logits[2, 2:9, 17:19] = 5.0, 5.0
    logits[3, 2:9, 2:9] = logits[3, 2:9, 12:19] = 1.0
    prediction = task.decode(logits)
    assert prediction.instances is not None and prediction.instances.max() == 2
    assert set(prediction.labels[prediction.instances == 1].tolist()) == {2}
    assert set(prediction.labels[prediction.instances == 2].tolist()) == {1}
    assert set(prediction.labels[prediction.instances == 0].tolist()) == {0}


def test_no_cells_are_refused_and_what_was_fitted_comes_back() -> None:
    empty = torch.zeros(8, 8, dtype=torch.int64)
    with pytest.raises(UserError, match=r"of all training images holds no id above 0, so .* with --labels instance$"):
        Instances(1, 2).fit([Sample(torch.zeros(1, 8, 8), empty, "", None, {"instances": empty})])
    other = Instances(1, 2)
    other.load_state_dict(fitted().state_dict())
    assert other.watershed == fitted().watershed and other.watershed.smoothing_px > 0


def table_of(path: str | Path) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def test_labels_tables_and_overlays_are_those_of_the_decoder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    names = DATA.splits["val"]
    for name in names:
        write_png(Path("in") / f"{name}.png", DATA.arrays(name)["raw"])
    status, said, _ = call("predict", finished, "in", "-o", "out", "--overlay")
    predictor = load_predictor(finished)
    rows, cells = table_of("out/predictions.csv"), table_of("out/cells.csv")
    for name, row in zip(names, rows, strict=True):
        sample = DATA.read(name)
        prediction = predictor.predict(sample)
        assert prediction.instances is not None
        labels = images.read_image(Path(f"out/{name}.png"))[0]
        assert labels.dtype == np.uint16 and np.array_equal(labels, prediction.instances.numpy())
        assert int(row["cells"]) == labels.max() and float(row["foreground_fraction"]) == (labels > 0).mean()
        assert float(row["cells_per_megapixel"]) == pytest.approx(labels.max() / labels.size * 1e6)
        table = measure(labels, DATA.arrays(name)["raw"][None])
        mine = [line for line in cells if line["image"] == f"in/{name}.png"]
        assert [int(line["label"]) for line in mine] == table["label"].tolist() == list(range(1, len(mine) + 1))
        assert [int(line["intensity_sum-0"]) for line in mine] == table["intensity_sum-0"].tolist()
        assert all(0.5 < float(line["confidence_mean"]) <= 1 for line in mine)
        assert images.read_image(Path(f"out/overlays/{name}.png")).shape == (3, 96, 96)
    assert sum(int(row["cells"]) for row in rows) == len(cells) > 0
    assert (status, said) == (0, f"3 label images in out; {len(cells)} cells, measured in out/cells.csv\n")


def test_an_image_larger_than_memory_gives_the_cells_of_the_whole(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At several tile sizes, with seams through cells; the table is the same line by line."""
    monkeypatch.chdir(tmp_path)
    values = np.tile(DATA.arrays(DATA.splits["val"][0])["raw"], (2, 2))[:150, :170]
    tifffile.imwrite("large.tif", values)
    predict(finished, ["large.tif"], Path("whole"), form="tif")
    expected = tifffile.imread("whole/large.tif")
    assert expected.max() >= 4
    monkeypatch.setattr(images, "LARGEST", 10_000)
    monkeypatch.setattr(outputs, "LARGE", 10_000)
    monkeypatch.setattr(pieces, "BAND", 4_000)
    monkeypatch.setattr(predictor_module, "AT_ONCE", 0)
    monkeypatch.setattr(tiling, "activation_bytes", lambda device: 200_000)
    for tile in (32, 64, 112):
        out = Path(f"tiles {tile}")
        predict(finished, ["large.tif"], out, tile=tile)
        labels = tifffile.imread(out / "large.tif")
        assert labels.dtype == np.uint32 and np.array_equal(labels, expected)
        written, wanted = table_of(out / "cells.csv"), table_of("whole/cells.csv")
        sure, wanted_sure = ([float(line.pop("confidence_mean")) for line in lines] for lines in (written, wanted))
        assert sure == pytest.approx(wanted_sure, rel=1e-4)
        assert written == wanted
        assert [path.name for path in out.rglob(".*")] == [".predicted.json"]


@pytest.mark.parametrize("streams", [False, True])
def test_no_float_array_as_large_as_a_large_image_is_in_memory(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    """What NumPy holds grows by less than such an array, beside 4 bytes a pixel that are read and written at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outputs, "LARGE", 1 << 17)
    if streams:
        monkeypatch.setattr(images, "LARGEST", 1 << 17)
    monkeypatch.setattr(pieces, "BAND", 1 << 15)
    monkeypatch.setattr(watershed, "BAND", 1 << 15)
    monkeypatch.setattr(predictor_module, "AT_ONCE", 0)
    monkeypatch.setattr(predictor_module, "averaged", lambda image, logits, *_: logits(image))  # one view, for speed
    monkeypatch.setattr(tiling, "activation_bytes", lambda device: 30_000_000)
    values, peaks = np.tile(DATA.arrays(DATA.splits["val"][0])["raw"], (10, 8)), []
    for rows in (480, 480, 960):  # the first one fills caches
        tifffile.imwrite(f"{rows}.tif", values[:rows])
        tracemalloc.start()
        try:
            predict(finished, [f"{rows}.tif"], Path(f"out{rows}"), form="tif")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] - peaks[1] < (4 if streams else 8) * (960 - 480) * values.shape[1]
    assert len(table_of("out960/cells.csv")) > 100
    assert [path.name for path in Path().glob("out*/**/.*")] == [".predicted.json"] * 2


class Killed(BaseException):
    """What ends a process in the middle."""


def killed(*_: Any, **__: Any) -> Any:
    raise Killed


@pytest.mark.parametrize(
    ("place", "name"),
    [(GrowingTiffs, "keep"), (watershed, "_highest"), (watershed, "_merged"), (outputs, "measure_in_windows")],
)
def test_a_call_that_is_killed_goes_on_to_the_same_cells(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    """While pixels are predicted, provisional names written, names made ids, and cells measured."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("large.tif", np.tile(DATA.arrays(DATA.splits["val"][0])["raw"], (2, 2))[:150, :170])
    monkeypatch.setattr(images, "LARGEST", 10_000)
    monkeypatch.setattr(outputs, "LARGE", 10_000)
    monkeypatch.setattr(watershed, "BAND", 4_000)
    monkeypatch.setattr(predictor_module, "averaged", lambda image, logits, *_: logits(image))  # one view, for speed
    predict(finished, ["large.tif"], Path("whole"), tile=64)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(place, name, killed)
        predict(finished, ["large.tif"], Path("out"), tile=64)
    assert not Path("out/large.tif").exists()
    predict(finished, ["large.tif"], Path("out"), tile=64)
    for written in ("large.tif", "cells.csv"):
        assert Path("out", written).read_bytes() == Path("whole", written).read_bytes()


def test_it_is_evaluated_and_resumed(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    summary = evaluate(finished)
    assert summary is not None
    with pytest.raises(UserError, match=r"^--boundary-tolerance: 'boundary_f1' is no metric of this evaluation; omit"):
        evaluate(finished, tolerance_px=5)
    assert not resume(finished, console=quiet())


def test_a_hundred_thousand_cells_fit_as_fast_as_the_middle_of_them() -> None:
    ids = torch.arange(1, 102_401).view(320, 320).repeat_interleave(4, 0).repeat_interleave(4, 1)
    ids[::4], ids[:, ::4] = 0, 0
    fitted_on = []
    task = Instances(1, 2)
    task._best_depth = lambda images: fitted_on.extend(images) or 0.1  # type: ignore[method-assign, func-returns-value]
    task.fit(iter([Sample(torch.zeros(1, 1280, 1280), (ids > 0).long(), "", None, {"instances": ids})]))
    assert [part.shape for part in fitted_on] == [(1024, 1024)] and task.watershed.least_area == 1


def test_a_png_file_holds_no_more_ids_than_16_bits(finished: Path, tmp_path: Path) -> None:
    ids = np.arange(300 * 300, dtype=np.uint32).reshape(300, 300)
    predictor = load_predictor(finished)
    with pytest.raises(UserError, match=r"a\.png: 89999 cells are more than the 65535 that a PNG file holds; take"):
        outputs._write_mask(predictor, tmp_path / "a.png", ids, None)
    outputs._write_mask(predictor, tmp_path / "a.tif", ids, None)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), ids)
