"""Studies: degradations that are known exactly, and plots and sentences that hold."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import pytest
import tiny
import torch
from conftest import Call
from rich.console import Console
from rich.table import Table
from sklearn.metrics import accuracy_score, jaccard_score

from yeastexp.data import hdf5_file, pack
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.synth import synth
from yeastexp.drawing import plots
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.exercise import accuracy_and_iou, degradations, discs, normalization
from yeastexp.exercise.accuracy_and_iou import MetricsStudy
from yeastexp.exercise.cli import study
from yeastexp.exercise.normalization import NormalizationStudy
from yeastexp.sample import Sample
from yeastexp.system import files

CELL = 12


def square(side: int = CELL, at: int = 10, size: int = 40) -> Sample:
    """A square cell away from the border."""
    labels = torch.zeros(size, size, dtype=torch.int64)
    labels[at : at + side, at : at + side] = 1
    dead = torch.zeros_like(labels)
    dead[:4, :4] = 1
    return Sample(labels[None].float(), labels, "square", maps={"instances": labels.clone(), "dead": dead})


def area(prediction: torch.Tensor) -> int:
    assert prediction.dtype == torch.int64 and set(prediction.unique().tolist()) <= {0, 1}
    return int(prediction.sum())


@pytest.mark.parametrize("pixels", range(8))
def test_a_square_shrinks_by_so_many_pixels_on_each_side(pixels: int) -> None:
    assert area(degradations.shrunken(square(), pixels)) == max(0, CELL - 2 * pixels) ** 2


@pytest.mark.parametrize(("pixels", "corner"), [(0, 0), (1, 0), (2, 1), (3, 4), (5, 15)])
def test_a_square_grows_by_so_many_pixels_with_round_corners(pixels: int, corner: int) -> None:
    """Corner: the whole steps in both directions within so many pixels, the axes left out."""
    assert area(degradations.grown(square(), pixels)) == CELL**2 + 4 * CELL * pixels + 4 * corner


@pytest.mark.parametrize("pixels", [0, 1, 5, 11, 12, 30])
def test_a_shifted_square_overlaps_itself_by_what_is_left(pixels: int) -> None:
    sample = square(size=60)
    shifted = degradations.shifted(sample, pixels)
    assert area(shifted) == CELL**2
    assert area(shifted & sample.labels) == CELL * max(0, CELL - pixels)


def test_what_a_shift_brings_in_is_background() -> None:
    full = Sample(torch.ones(1, 4, 6), torch.ones(4, 6).long(), "full")
    assert degradations.shifted(full, 2).tolist() == [[0, 0, 1, 1, 1, 1]] * 4


@pytest.mark.parametrize("change", [degradations.shrunken, degradations.grown])
@pytest.mark.parametrize("value", [0, 1])
def test_without_an_outline_nothing_moves(change: Callable[[Sample, float], torch.Tensor], value: int) -> None:
    labels = torch.full((9, 9), value)
    assert torch.equal(change(Sample(labels[None].float(), labels, "plain"), 3), labels)


def test_beyond_the_border_of_the_image_is_no_background() -> None:
    labels = torch.zeros(10, 10).long()
    labels[:, :6] = 1
    assert area(degradations.shrunken(Sample(labels[None].float(), labels, "half"), 2)) == 10 * 4


def test_small_cells_go_by_their_area() -> None:
    instances = torch.zeros(20, 40).long()
    instances[2:6, 2:6], instances[2:14, 10:22], instances[0:2, 30:40] = 3, 5, 9  # areas 16, 144 and 20
    sample = Sample((instances > 0)[None].float(), (instances > 0).long(), "three", maps={"instances": instances})
    for diameter, left in ((0, 180), (4.5, 180), (4.6, 164), (5.0, 164), (5.1, 144), (13.5, 144), (13.6, 0)):
        assert area(degradations.without_small(sample, diameter)) == left  # 4.51, 5.05 and 13.54 pixels across


def test_dead_cells_are_added_and_images_emptied() -> None:
    sample = square()
    assert area(degradations.dead_as_live(sample)) == CELL**2 + 16
    assert area(degradations.without_image(sample, "square")) == 0 == area(degradations.all_background(sample))
    assert torch.equal(degradations.without_image(sample, "other"), sample.labels)


@pytest.mark.parametrize("share", accuracy_and_iou.FOREGROUND)
def test_fields_of_discs_have_the_wanted_share(share: float) -> None:
    for number in range(6):
        sample = discs.field(share, number)
        assert float((sample.labels == 1).float().mean()) == pytest.approx(share, abs=2e-4)
        instances, dead = sample.maps["instances"], sample.maps["dead"]
        assert torch.equal(sample.labels, (instances > 0).long()) and bool(dead.any())
        assert not bool((instances * dead).any()), "discs keep apart"
        again = discs.field(share, number)
        assert torch.equal(again.labels, sample.labels) and torch.equal(again.maps["dead"], dead)
    assert not torch.equal(discs.field(share, 0).labels, discs.field(share, 1).labels)


@pytest.mark.parametrize("pixels", [2, 6])
def test_a_disc_loses_and_gains_a_ring(pixels: int) -> None:
    """The IoU of a disc of radius r and one of r ± n is the ratio of their areas."""
    rows, columns = np.mgrid[-40:41, -40:41]
    labels = torch.from_numpy((np.hypot(rows, columns) <= 25).astype(np.int64))
    sample = Sample(labels[None].float(), labels, "disc")
    whole = area(labels)
    assert area(degradations.shrunken(sample, pixels)) / whole == pytest.approx(((25 - pixels) / 25) ** 2, abs=0.02)
    assert whole / area(degradations.grown(sample, pixels)) == pytest.approx((25 / (25 + pixels)) ** 2, abs=0.02)


@pytest.fixture(scope="module")
def metrics() -> Iterator[MetricsStudy]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many small counts, which wait for each other where the processor is shared
    yield accuracy_and_iou.study()
    torch.set_num_threads(threads)


def test_the_shares_go_from_2_to_50_percent(metrics: MetricsStudy) -> None:
    assert [round(share, 3) for share in metrics.foregrounds] == [0.02, 0.05, 0.1, 0.25, 0.5]
    assert len(metrics.rows) == len(metrics.foregrounds) * len(metrics.names) == 50


def test_all_background_scores_in_closed_form(metrics: MetricsStudy) -> None:
    for row in metrics.of(accuracy_and_iou.ALL_BACKGROUND):
        for how in accuracy_and_iou.AGGREGATIONS:
            assert row.accuracy(how) == pytest.approx(1 - row.foreground, abs=1e-12)
            assert row.iou("background", how) == pytest.approx(1 - row.foreground, abs=1e-12)
            assert row.iou("cell", how) == 0
            assert row.iou(aggregation=how) == pytest.approx((1 - row.foreground) / 2, abs=1e-12)


@pytest.mark.parametrize("name", ["grown by 6 px", "one image missed", "dead taken as live"])
def test_scores_as_scikit_learn_has_them(metrics: MetricsStudy, name: str) -> None:
    for row, share in list(zip(metrics.of(name), accuracy_and_iou.FOREGROUND, strict=True))[::3]:
        samples = accuracy_and_iou.images(share)
        truths = [sample.labels.numpy().ravel() for sample in samples]
        answers = [row.degradation.predict(sample).numpy().ravel() for sample in samples]
        pairs = list(zip(truths, answers, strict=True))
        together = np.concatenate(truths), np.concatenate(answers)
        assert row.accuracy() == pytest.approx(np.mean([accuracy_score(*pair) for pair in pairs]), abs=1e-12)
        assert row.accuracy("pooled") == accuracy_score(*together)
        for label, of in enumerate(accuracy_and_iou.CLASSES):
            ious = [jaccard_score(*pair, pos_label=label) for pair in pairs]
            assert row.iou(of) == pytest.approx(np.mean(ious), abs=1e-12)
            assert row.iou(of, "pooled") == jaccard_score(*together, pos_label=label)


def test_dead_cells_are_found_out_by_their_own_metric_alone(metrics: MetricsStudy) -> None:
    for row in metrics.rows:
        assert row.dead_fraction == (row.degradation.name == accuracy_and_iou.DEAD_AS_LIVE)


def test_more_of_the_same_error_scores_less_everywhere(metrics: MetricsStudy) -> None:
    for kind in ("shrunk", "grown", "shifted"):
        little, much = (metrics.of(f"{kind} by {pixels} px") for pixels in (2, 6))
        for one, other in zip(little, much, strict=True):
            assert one.accuracy() > other.accuracy() and one.iou() > other.iou() and one.iou("cell") > other.iou("cell")


def test_the_sentences_hold(metrics: MetricsStudy) -> None:
    """What the words say beyond their numbers: each claim from the rows themselves."""
    said = accuracy_and_iou.findings(metrics)
    low, high = metrics.foregrounds[0], metrics.foregrounds[-1]
    by_name = {row.degradation.name: row for row in metrics.at(low)}
    nothing, shrunk = by_name["all background"], metrics.of("shrunk by 2 px")
    assert "accuracy is 98.0% on images with 2.0% foreground and 50.0%" in said[0] and "0.490 and 0.250" in said[0]
    assert (
        shrunk[0].accuracy() > shrunk[-1].accuracy() + 0.1
        and abs(shrunk[0].iou("cell") - shrunk[-1].iou("cell")) < 0.04
    )
    assert re.search(r"where 2\d times as many pixels are wrong", said[1])
    grown = by_name["grown by 6 px"]
    assert grown.accuracy() < nothing.accuracy() and grown.iou() > nothing.iou() + 0.2
    assert "than: grown by 6 px" in said[2] and said[2].count(" px,") == 1
    assert by_name["shrunk by 6 px"].iou() > 0.6 > 0.3 > by_name["shrunk by 6 px"].iou("cell")
    dead, peer = (one for one in metrics.at(high) if one.degradation.name in ("dead taken as live", "shifted by 2 px"))
    assert abs(dead.iou() - peer.iou()) < 0.03 and "shifted by 2 px" in said[4]
    missed = metrics.of("one image missed")[-1]
    assert missed.iou("cell") == pytest.approx(5 / 6) and missed.iou("cell", "pooled") > 0.9
    assert said[-1].startswith("So the mean IoU is the more informative of the two.")


def test_every_number_of_the_sentences_stands_in_the_table(metrics: MetricsStudy) -> None:
    known = {f"{value:.3f}" for row in metrics.rows for value in _numbers(row.scores)}
    for sentence in accuracy_and_iou.findings(metrics):
        assert set(re.findall(r"\d\.\d{3}", sentence)) <= known


def _numbers(scores: object) -> list[float]:
    if isinstance(scores, dict):
        return [number for value in scores.values() for number in _numbers(value)]
    return [scores] if isinstance(scores, float) else []


def test_without_a_disagreement_none_is_claimed(metrics: MetricsStudy) -> None:
    kept = MetricsStudy(tuple(row for row in metrics.rows if row.degradation.name != "grown by 6 px"))
    assert accuracy_and_iou.findings(kept)[2].startswith("At 2.0% foreground no prediction with a higher mean IoU")


@pytest.mark.parametrize("width", [100, 160])
def test_the_tables_fit(metrics: MetricsStudy, width: int, small: NormalizationStudy) -> None:
    for table, rows in ((accuracy_and_iou.table(metrics), 50), (normalization.table(small), 4)):
        text = shown(table, width)
        assert "…" not in text and table.row_count == rows
    text = shown(accuracy_and_iou.table(metrics), width)
    assert "all background 2.0% 0.980 0.980 0.490 0.490 0.980 0.980 0.000 0.000 0%" in " ".join(text.split())


def shown(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_the_figure_has_a_point_a_row(metrics: MetricsStudy) -> None:
    for how in accuracy_and_iou.AGGREGATIONS:
        mean, background, cell = accuracy_and_iou.figure(metrics, how).axes
        for axes, of in ((mean, "mean"), (background, "background"), (cell, "cell")):
            for line, name in zip(axes.lines, metrics.names, strict=True):
                wanted = [[row.accuracy(how), row.iou(of, how)] for row in metrics.of(name)]
                assert np.asarray(line.get_xydata()).tolist() == wanted
        assert mean.get_ylabel() == f"IoU, {how.replace('_', ' ')}"


def write_yeast(path: Path) -> Path:
    synth(path, SyntheticYeast(images=5, size=64, seed=3))
    return path


@pytest.fixture(scope="module")
def yeast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_yeast(tmp_path_factory.mktemp("yeast") / "data.h5")


@pytest.fixture(scope="module")
def small(yeast: Path) -> NormalizationStudy:
    return normalization.study(yeast)


@pytest.mark.parametrize(("fit", "way"), [("all", normalization.ALL), ("train", normalization.TRAINING)])
def test_statistics_are_those_of_the_command_normalize(
    yeast: Path, small: NormalizationStudy, tmp_path: Path, fit: pack.Fit, way: normalization.Scope
) -> None:
    done = pack.normalize(yeast, tmp_path / "normalized.h5", fit=fit)
    assert small.rows[way].statistics == pytest.approx((done.mean, done.std), rel=1e-12)
    reader = hdf5_file.Reader(done.output)
    for split, names in reader.contents.splits.items():
        values = np.concatenate([reader.read(name)["raw"].ravel() for name in names]).astype(np.float64)
        found = small.rows[way].split(split)
        assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()), abs=1e-6)


def test_each_image_on_its_own_has_mean_0_and_deviation_1(small: NormalizationStudy) -> None:
    row = small.rows[normalization.EACH]
    assert row.statistics is None and row.std_of_means < 1e-6
    for one in row.all_images:
        assert (one.mean, one.std) == pytest.approx((0, 1), abs=1e-6)


def test_moments_of_parts_are_those_of_the_whole() -> None:
    source = np.random.default_rng(0)
    parts = [torch.from_numpy(source.normal(place, 1 + place, (1, 4, 5 + place))) for place in range(4)]
    whole = torch.cat([part.flatten() for part in parts])
    found = normalization.pooled([normalization.moments(part) for part in parts])
    assert (found.mean, found.std) == pytest.approx((float(whole.mean()), float(whole.std(correction=0))))
    assert (found.low, found.high, found.values) == (float(whole.min()), float(whole.max()), len(whole))


@pytest.mark.parametrize("factor", [1.0, normalization.BRIGHTER])
def test_the_leak_by_looking_at_every_pixel(yeast: Path, small: NormalizationStudy, factor: float) -> None:
    rows, found = (small.rows, small.leak) if factor == 1 else (small.brighter, small.brighter_leak)
    reader = hdf5_file.Reader(yeast)
    splits = reader.contents.splits
    raw = {
        split: np.concatenate([reader.read(name)["raw"].ravel() for name in names])
        * (factor if split == "val" else 1.0)
        for split, names in splits.items()
    }
    every = np.concatenate(list(raw.values()))
    assert found.mean == pytest.approx((every.mean() - raw["train"].mean()) / raw["train"].std())
    assert found.std_ratio == pytest.approx(every.std() / raw["train"].std())
    ways = [(every - data.mean()) / data.std() for data in (every, raw["train"])]
    assert found.largest == pytest.approx(float(np.abs(ways[0] - ways[1]).max()))
    train = rows[normalization.ALL].split("train")
    assert train.mean == pytest.approx(((raw["train"] - every.mean()) / every.std()).mean(), abs=1e-6)


def test_brighter_validation_images_change_the_statistics_over_all_images_alone(
    small: NormalizationStudy,
) -> None:
    training = normalization.TRAINING
    assert small.brighter[training].statistics == small.rows[training].statistics
    assert small.brighter_leak.mean > 1 > abs(small.leak.mean)
    assert small.brighter[normalization.ALL].split("train").mean < -0.3


def test_the_sentences_on_normalisation_are_made_of_its_figures(small: NormalizationStudy) -> None:
    stored, over_all, over_training, leak, brighter, each = normalization.findings(small)
    train = small.rows["as stored"].split("train")
    assert f"mean {train.mean:,.1f}, standard deviation {train.std:,.1f}" in stored
    assert "mean 0.000 and standard deviation 1.000 over all images" in over_all
    assert "0.000 and 1.000 on these" in over_training
    assert f"{small.leak.mean:+.3f} standard deviations" in leak and f"{small.leak.largest:.3f} in any pixel" in leak
    assert f"a leak of {small.brighter_leak.mean:+.3f}" in brighter
    assert "to 0.000, and" in each


def test_splits_that_are_the_same_leak_nothing(tmp_path: Path) -> None:
    image = tiny.image(0)
    hdf5_file.write(tmp_path / "same.h5", {"train": ["a"], "val": ["b"], "test": ["c"]}, lambda _: image, provenance={})
    done = normalization.study(tmp_path / "same.h5")
    assert done.leak == normalization.Leak(0.0, 1.0, 0.0)
    assert "in any pixel. The standard deviation of the images' means is 0.000." in normalization.findings(done)[3]
    assert [line.get_label() for line in normalization.figure(done).axes[0].lines] == [
        "training images",
        "validation images",
        "test images",
    ]


@pytest.fixture
def call(call: Call) -> Call:
    """`call("metrics")` runs `study`."""
    return partial(call, "study")


def test_the_command_on_metrics(
    call: Call, metrics: MetricsStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy_and_iou, "study", lambda: metrics)
    status, out, err = call("metrics", "-o", str(tmp_path / "new"))
    assert (status, err) == (0, "")
    names = ["accuracy_and_iou", "accuracy_and_iou_pooled"]
    paths = [tmp_path / "new" / f"{name}.{ending}" for name in names for ending in ("png", "svg")]
    paths.append(tmp_path / "new" / "accuracy_and_iou.json")
    assert out.splitlines()[-5:] == [str(path) for path in paths]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    words = " ".join(out.split())
    assert all(" ".join(sentence.split()) in words for sentence in accuracy_and_iou.findings(metrics))
    written = json.loads(paths[-1].read_text())
    status, out, err = call("metrics", "--json")
    assert (status, err, json.loads(out)) == (0, "", written)
    assert len(written["rows"]) == 50 and written["rows"][0]["iou"]["cell"]["pooled"] == 0
    assert paths[1].read_bytes() == plots.encode(accuracy_and_iou.figure(metrics), "svg")


def test_the_command_on_normalisation(call: Call, yeast: Path, tmp_path: Path) -> None:
    status, out, err = call("normalization", "--data", str(yeast), "--json", "-o", str(tmp_path))
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "normalization.json").read_text())
    assert err.split() == [str(tmp_path / f"normalization.{ending}") for ending in ("png", "svg", "json")]
    assert [row["way"] for row in json.loads(out)["rows"]] == list(normalization.study(yeast).rows)
    odd = shutil.copy(yeast, tmp_path / "[bold]odd.h5")
    status, out, err = call("normalization", "--data", str(odd))
    assert "[bold]odd.h5" in out.replace("\n", "")
    assert (status, err) == (0, "") and "over training images" in out and "The leak" in out


def test_without_a_file_the_images_are_synthetic(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.setattr(normalization, "SyntheticYeast", lambda: SyntheticYeast(images=3, size=64))
    status, out, _ = call("normalization")
    assert status == 0 and out.startswith("synthetic_yeast (2 train, 1 val)")


@pytest.mark.parametrize("name", list(study.commands))
def test_the_help_of_a_study_ends_in_an_example_that_parses(name: str, call: Call) -> None:
    command = study.commands[name]
    last = (command.help or "").strip().splitlines()[-1].strip()
    words = last.removeprefix(f"Example: python -m yeastexp study {name} ").split()
    assert command.make_context(name, words).params["as_json"] is False
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))
    status, out, err = call(name, "--help")
    assert (status, err) == (0, "") and last in " ".join(out.split())
    assert "..." not in call("--help")[1].partition("Commands:")[2], "a summary is cut"


def test_wrong_input(call: Call, yeast: Path, tmp_path: Path) -> None:
    normalized, constant, plain = (tmp_path / name for name in ("normalized.h5", "constant.h5", "plain"))
    pack.normalize(yeast, normalized)
    image = {"raw": np.full((8, 8), 7, np.uint8), "gt": np.zeros((8, 8), np.uint8)}
    hdf5_file.write(constant, {"train": ["a"], "val": ["b"]}, lambda _: image, provenance={})
    plain.write_text("")
    for arguments, fault in (
        (["normalization", "--data", str(normalized)], f"{normalized}: is normalised already; give the file it was"),
        (["normalization", "--data", str(tmp_path / "none.h5")], "none.h5"),
        (["normalization", "--data", str(plain)], "plain"),
        (["normalization", "--data", str(constant)], "one constant value"),
        (["normalization", "--data", str(yeast), "-o", str(plain)], f"{plain}: is a file; name a folder"),
        (["nothing"], "No such command 'nothing'"),
        (["metrics", "--data", str(yeast)], "No such option"),
    ):
        status, _, err = call(*arguments)
        assert status == 2 and fault in err and "Traceback" not in err, (arguments, err)


def test_a_disk_that_is_full_is_told(
    small: NormalizationStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        normalization.write(small, tmp_path)
    assert caught.value.status == RUN_FAILED
