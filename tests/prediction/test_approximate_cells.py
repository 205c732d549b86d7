"""Cells of semantic runs: a watershed of the mask, called approximate, in `run`, `evaluate` and `predict`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Call
from tiny import quiet

from yeastexp.data import images, pieces
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.images import write_png
from yeastexp.errors import UserError
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.prediction import outputs, tiling
from yeastexp.prediction import predictor as predictor_module
from yeastexp.prediction.cell_table import measure
from yeastexp.prediction.predict import predict
from yeastexp.prediction.predictor import load_predictor
from yeastexp.tasks import watershed
from yeastexp.tasks.mask_cells import METHOD, MaskCells
from yeastexp.training.run import run
from yeastexp.training.run_directory import RunDirectory

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DATA = SyntheticYeast(images=6, size=96)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("semantic"))
        text = (EXPERIMENTS / "quick_cells.toml").read_text().replace('name = "instances"', 'name = "semantic"')
        Path("cells_of_masks.toml").write_text(text)
        settings = ["train.steps=60", "runtime.threads=1", "patches.size=48"]
        return run(Path("cells_of_masks.toml"), settings, console=quiet()).resolve()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in DATA.splits["val"]:
        write_png(Path("in") / f"{name}.png", DATA.arrays(name)["raw"])
    return tmp_path


def table_of(path: str | Path) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def test_metrics_of_cells_score_them_beside_baselines(finished: Path) -> None:
    result = RunDirectory(finished).read_result()
    assert result["val"]["best"]["average_precision"]["all"]["per_image"] > 0
    assert f"average_precision, count: the cells of the task 'semantic' are {METHOD}; the" in result["notes"][-1]
    assert all("average_precision" in scores for scores in result["baselines"].values())
    summary = evaluate(finished)
    assert summary is not None


def test_predict_writes_ids_and_measures_them_only_if_asked(finished: Path, here: Path) -> None:
    names = DATA.splits["val"]
    assert predict(finished, ["in"], Path("masks")) == predict(finished, ["in"], Path("out"), cells=True) == len(names)
    assert {path.suffix for path in Path("masks").iterdir()} == {".png", ".csv", ".json"}
    assert [path.name for path in Path("masks").glob("*.csv")] == ["predictions.csv"]
    task = load_predictor(finished).task
    assert getattr(task, "mask_cells") != MaskCells(), "fitted, and kept in the checkpoint"  # noqa: B009
    cells = table_of("out/cells.csv")
    assert {line["method"] for line in cells} == {METHOD}
    predict(finished, ["in"], Path("others"), cells=True, kinds=["coco", "geojson"])
    assert json.loads(Path("others/coco.json").read_text())["info"]["description"].endswith(METHOD)
    features = json.loads(Path(f"others/geojson/{names[0]}.geojson").read_text())["features"]
    assert features and {each["properties"]["metadata"]["method"] for each in features} == {METHOD}
    for name, row, before in zip(
        names, table_of("out/predictions.csv"), table_of("masks/predictions.csv"), strict=True
    ):
        mask = images.read_image(Path(f"out/{name}.png"))
        assert np.array_equal(mask, images.read_image(Path(f"masks/{name}.png")))
        labels = images.read_image(Path(f"out/cells/{name}.png"))[0]
        assert labels.dtype == np.uint16 and np.array_equal(labels, task.mask_cells.cells(mask[0] > 0))
        assert int(row["approximate_cells"]) == labels.max() > 0
        assert row["connected_regions"] == before["connected_regions"]
        assert "approximate_cells" not in before
        table = measure(labels, DATA.arrays(name)["raw"][None])
        mine = [line for line in cells if line["image"] == f"in/{name}.png"]
        assert [int(line["area"]) for line in mine] == table["area"].tolist()
        assert all(0.5 < float(line["confidence_mean"]) <= 1 for line in mine)


def test_an_image_larger_than_memory_gives_the_cells_of_the_whole(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.tile(DATA.arrays(DATA.splits["val"][0])["raw"], (2, 2))[:150, :170]
    tifffile.imwrite("large.tif", values)
    predict(finished, ["large.tif"], Path("whole"), form="tif", cells=True)
    expected = tifffile.imread("whole/cells/large.tif")
    assert expected.max() >= 4 and expected.dtype == np.uint16
    monkeypatch.setattr(images, "LARGEST", 10_000)
    monkeypatch.setattr(outputs, "LARGE", 10_000)
    monkeypatch.setattr(pieces, "BAND", 4_000)
    monkeypatch.setattr(watershed, "BAND", 3_000)
    monkeypatch.setattr(predictor_module, "AT_ONCE", 0)
    monkeypatch.setattr(tiling, "activation_bytes", lambda device: 200_000)
    for tile in (32, 112):
        out = Path(f"tiles {tile}")
        predict(finished, ["large.tif"], out, tile=tile, cells=True)
        assert np.array_equal(tifffile.imread(out / "cells/large.tif"), expected)
        assert np.array_equal(tifffile.imread(out / "large.tif"), tifffile.imread("whole/large.tif"))
        written, wanted = table_of(out / "cells.csv"), table_of("whole/cells.csv")
        sure, wanted_sure = ([float(line.pop("confidence_mean")) for line in lines] for lines in (written, wanted))
        assert sure == pytest.approx(wanted_sure, rel=1e-4)
        assert written == wanted
        assert [path.name for path in out.rglob(".*")] == [".predicted.json"]


def test_the_command_calls_them_approximate(finished: Path, here: Path, call: Call) -> None:
    status, said, _ = call("predict", finished, "in", "-o", "out", "--cells")
    cells = len(table_of("out/cells.csv"))
    assert (status, said) == (0, f"3 masks in out; {cells} cells, {METHOD}, in out/cells, measured in out/cells.csv\n")


def test_other_tasks_have_no_mask_to_cut(finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yeastexp.prediction.predict.Semantic", dict)
    with pytest.raises(
        UserError, match=r"--cells cuts masks of the task 'semantic' into cells, not those of 'semantic'"
    ):
        predict(finished, ["in"], Path("out"), cells=True)
