"""The foreign fields: what each changes, and what it leaves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import benchmarks
from benchmarks import foreign, robustness
from benchmarks.__main__ import commands
from benchmarks.foreign import FIELDS, SYNTHETIC
from yeastexp.data import hdf5_file
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast

SIZE = 160
SCRIPT = Path(benchmarks.__file__).with_name("gpu.sh")
FAILING = {**os.environ, "PYTHON": "false"}


def discs(index: int) -> dict[str, np.ndarray]:
    """Dark discs with bright rims (raw, 16 bit) and their truth."""
    rows, columns = np.indices((SIZE, SIZE))
    raw, truth = np.random.default_rng(index).normal(500, 5, (SIZE, SIZE)), np.zeros((SIZE, SIZE), np.uint8)
    for y, x in ((45, 50), (100, 110), (110, 40)):
        away = np.hypot(rows - y - index, columns - x)
        raw += 400 * np.exp(-(((away - 12) / 2) ** 2))
        truth[away < 11] = 1
    return {"raw": np.rint(raw).astype(np.uint16), "gt": truth}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("discs") / "discs.h5"
    hdf5_file.write(path, {"train": ["0", "1"], "val": ["2", "3"]}, lambda name: discs(int(name)), provenance={})
    return path


def made(name: str, key: int = 0) -> foreign.View:
    one = discs(0)
    return foreign.foreign(one["raw"].astype(float), one["gt"].astype(np.int64), FIELDS[name], (key,))


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_an_image_with_two_classes_and_repeats(name: str) -> None:
    one, again, other = made(name), made(name), made(name, key=1)
    assert one.image.shape == one.labels.shape and set(np.unique(one.labels)) == {0, 1}
    assert np.isfinite(one.image).all() and np.array_equal(one.image, again.image)
    assert name == "inverted" or not np.array_equal(one.image, other.image)


def test_what_each_field_changes() -> None:
    truth = discs(0)["gt"]
    assert np.array_equal(made("contrast").labels, truth) and np.array_equal(made("inverted").labels, truth)
    assert made("half size").labels.shape == (80, 80) and made("size × 1.6").labels.shape == (256, 256)
    assert made("half size").labels.mean() == pytest.approx(truth.mean(), rel=0.05)
    assert all((made(name).labels <= truth).all() for name in ("structures", "walls"))
    assert made("colonies").labels.sum() > truth.sum()
    assert (made("crowded").labels >= truth).all() and made("crowded").labels.sum() > truth.sum()


def test_fields_are_packed_with_the_ids_of_their_cells(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(commands, ["fields", str(data), "-o", str(tmp_path / "fields.h5")])
    assert result.exit_code == 0 and result.output == f"{tmp_path / 'fields.h5'}\n"
    packed = Hdf5(tmp_path / "fields.h5")
    samples = [packed.read(name) for name in packed.splits["test"]]
    assert [sample.name for sample in samples] == [
        f"{name.replace(' ', '_').replace('×', 'x')}_{index}" for name in FIELDS for index in range(2)
    ]
    cells = {sample.name: len(sample.maps["instances"].unique()) - 1 for sample in samples}
    assert {cells[f"{name}_{index}"] for name in ("contrast", "half_size", "inverted") for index in range(2)} == {3}
    for sample in samples:
        assert torch.equal(sample.maps["instances"] > 0, sample.labels > 0)
    # Cells that are put down are those of the image, each with an id of its own.
    crowded = packed.read("crowded_0").maps["instances"]
    areas = [int((crowded == cell).sum()) for cell in crowded.unique() if cell]
    assert len(areas) > 3 and max(areas) <= discs(2)["gt"].sum() / 3 * 1.05


def test_scores_of_a_known_answer() -> None:
    truth = np.array([[1, 1, 0], [0, 0, 0]])
    assert robustness.foreground_iou(np.array([[0, 1, 1], [0, 0, 0]]), truth) == pytest.approx(1 / 3)
    assert np.isnan(robustness.foreground_iou(0 * truth, 0 * truth))


def test_the_table_has_a_row_a_field(data: Path, tmp_path: Path) -> None:
    lines = robustness.table(data, [], tmp_path / "seen").splitlines()
    assert lines[0] == "| field | threshold |" and lines[2].startswith("| in distribution | 0.")
    assert [line.split(" | ")[0][2:] for line in lines[3:]] == [*FIELDS, "mean out of distribution"]
    assert len(list((tmp_path / "seen").glob("*.png"))) == len(FIELDS) + 1


@pytest.fixture
def two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Synthetic fields of fewer images, for speed."""
    monkeypatch.setattr(foreign, "SYNTHETIC_IMAGES", 2)


@pytest.mark.usefixtures("two_images")
@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_synthetic_field_is_none_of_the_default(name: str) -> None:
    views = foreign.synthetic(SYNTHETIC[name])
    assert len(views) == 2
    assert all(set(np.unique(view.labels)) == {0, 1} and view.image.shape == (256, 256) for view in views)
    default = SyntheticYeast(2, seed=foreign.SYNTHETIC_SEED).read("yeast_000")
    assert not np.array_equal(views[0].image, default.image[0].numpy())


@pytest.mark.usefixtures("two_images")
def test_the_table_of_synthetic_fields(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"crowded": {"crowding": 0.4}, "dead alone": {"dead_fraction": 1.0}, "empty": {"crowding": 0.0}}
    monkeypatch.setattr(robustness, "SYNTHETIC", few)
    monkeypatch.setattr(robustness, "answers", lambda data, runs: {"all": lambda image, name: np.ones(image.shape[1:])})
    lines = robustness.table(data, [], None, of_synthetic_yeast=True).splitlines()
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == ["in distribution", *few, "mean out of distribution"]
    crowded = np.mean([view.labels.mean() for view in foreign.synthetic(few["crowded"])])
    assert lines[3] == f"| crowded | {crowded:.3f} |" and lines[4] == "| dead alone | 0.000 |"


def test_help_shows_an_example() -> None:
    assert "Example: python -m benchmarks robustness" in CliRunner().invoke(commands, ["robustness", "--help"]).output


def test_parts_of_the_script_for_a_gpu_that_fail_are_noted_and_the_next_ones_follow(tmp_path: Path) -> None:
    out = tmp_path / "gpu.txt"
    done = subprocess.run([SCRIPT, "--limit", "60", out, "--set", "train.epochs=1"], env=FAILING, stderr=-1)
    text = out.read_text()
    assert done.returncode == 1 and text.startswith("# yeastexp on a GPU, ")
    assert (text.count("\n## "), text.count("\n(exit status 1; ")) == (6, 6)


def test_the_script_for_a_gpu_ends_with_its_limit(tmp_path: Path) -> None:
    out = tmp_path / "gpu.txt"
    done = subprocess.run([SCRIPT, "--limit", "0", out], env=FAILING, stderr=-1)
    assert done.returncode == 1 and out.read_text().count("(exit status not begun, for no time is left; 0 s)") == 6
