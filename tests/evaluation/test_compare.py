"""Runs beside each other: the scores they kept or new ones, and what may not be compared."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console
from scipy import stats
from test_evaluate import LONGER, at_home, changed, data_of, trained
from tiny import EXPERIMENT, image, write_data, write_experiment

from yeastexp.cli import commands
from yeastexp.data import hdf5_file
from yeastexp.data.pack import normalize
from yeastexp.errors import UserError
from yeastexp.evaluation import evaluate, record
from yeastexp.evaluation.compare import Comparison, compare, findings, run_scores
from yeastexp.evaluation.compare.tables import title
from yeastexp.evaluation.crossval import crossval
from yeastexp.metrics import baselines
from yeastexp.metrics.intervals import holm, interval, paired
from yeastexp.metrics.summary import as_csv
from yeastexp.system import files

IMAGES = 7


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same images, one of them cut short; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    long = trained(folder, LONGER, train=4, val=IMAGES)
    (folder / "data.h5").rename(folder / "kept.h5")
    short = trained(folder, LONGER, "train.epochs=2", "train.seed=1", train=4, val=IMAGES)
    return long, short


@pytest.fixture
def runs(whole: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of them."""
    copied = tmp_path / "runs" / "001", tmp_path / "runs" / "002"
    for old, new in zip(whole, copied, strict=True):
        shutil.copytree(old, new)
    return copied


@pytest.fixture(autouse=True)
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here looks at the baselines, which take as long as all else of an evaluation."""
    monkeypatch.setattr(baselines, "fit_threshold", lambda samples: baselines.Threshold(0.0, True, 0.0))


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs that are evaluated from now on."""
    made: list[Path] = []

    def counted(run: Path, *given: Any, **named: Any) -> Any:
        made.append(run)
        return evaluate.evaluate(run, *given, **named)

    monkeypatch.setattr(run_scores, "evaluate", counted)
    return made


def kept(run: Path, metric: str, name: str) -> dict[str, float]:
    """What a run itself wrote down of the images that validate."""
    rows = csv.DictReader((run / "per_image.csv").read_text().splitlines())
    return {row["image"]: float(row["score"]) for row in rows if (row["metric"], row["class"]) == (metric, name)}


def test_the_scores_that_runs_kept_are_compared_without_their_data(
    runs: tuple[Path, Path], evaluations: list[Path]
) -> None:
    for run in runs:
        changed(run, str(data_of(run)), "/gone/data.h5")
    done = compare(runs)
    assert evaluations == [] and done.places == [run / "per_image.csv" for run in runs]
    assert (done.class_name, done.selection.checkpoint, done.selection.split, done.selected) == (
        "cell",
        "best",
        "val",
        True,
    )
    one, other = (kept(run, "iou", "cell") for run in runs)
    assert done.images == list(one) and done.scores == [list(one.values()), list(other.values())]
    (pair,) = done.pairs
    differences = np.array(list(other.values())) - np.array(list(one.values()))
    wanted = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (pair.difference.low, pair.difference.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert pair.p == done.adjusted[0] == 2 / 2**IMAGES and pair.exact
    assert findings(done)[0].endswith("On these images runs/001 is better.")


@pytest.mark.parametrize("options", [{"metric": "dice"}, {"checkpoint": "last"}, {"split": "train"}])
def test_scores_that_are_not_there_are_made_once(
    runs: tuple[Path, Path], evaluations: list[Path], options: dict[str, Any]
) -> None:
    done = compare(runs, **options)
    assert evaluations == list(runs)
    assert all(place.name == "evaluation.json" and place.is_file() for place in done.places)
    again = compare(runs, **options)
    assert evaluations == list(runs)
    assert (again.scores, again.pairs) == (done.scores, done.pairs)
    assert done.selected == ("metric" in options)
    assert done.trained == (4 if "split" in options else 0)
    assert title(done).endswith(", trained on these images") == ("split" in options)


def test_an_evaluation_of_weights_that_changed_is_made_again(runs: tuple[Path, Path], evaluations: list[Path]) -> None:
    compare(runs, metric="dice")
    shutil.copyfile(runs[0] / "checkpoints" / "best.pt", runs[1] / "checkpoints" / "best.pt")
    done = compare(runs, metric="dice")
    assert evaluations == [*runs, runs[1]]
    assert done.scores[0] == done.scores[1] and done.pairs[0].p == 1
    assert "The scores are the same on every image." in findings(done)[0]


def test_a_run_under_way_has_no_scores_of_its_own(runs: tuple[Path, Path], evaluations: list[Path]) -> None:
    (runs[1] / "result.json").unlink()
    done = compare(runs)
    assert evaluations == list(runs)
    assert done.scores == [list(kept(run, "iou", "cell").values()) for run in runs]


def test_every_pair_is_against_the_first_and_p_is_adjusted(runs: tuple[Path, Path], tmp_path: Path) -> None:
    third = tmp_path / "runs" / "003"
    shutil.copytree(runs[1], third)
    done = compare([*runs, third])
    assert [pair.p for pair in done.pairs] == [2 / 128] * 2 and done.adjusted == [4 / 128] * 2
    assert [sentence.partition(":")[0] for sentence in findings(done)[:2]] == [
        "runs/002 against runs/001",
        "runs/003 against runs/001",
    ]
    assert "p = 0.0312 (Holm, 2 pairs)" in findings(done)[0]


def test_a_file_from_elsewhere_is_scored_whole(
    runs: tuple[Path, Path], tmp_path: Path, evaluations: list[Path]
) -> None:
    names = [f"new_{index}" for index in range(30, 35)]
    splits = {"train": names[:2], "val": names[2:]}
    hdf5_file.write(tmp_path / "new.h5", splits, lambda name: image(int(name.removeprefix("new_"))), provenance={})
    done = compare(runs, data=tmp_path / "new.h5")
    assert done.images == names and not done.selected and evaluations == list(runs)
    compare(runs, data=tmp_path / "new.h5", metric="boundary_f1")
    assert evaluations == list(runs)
    assert compare(runs, data=data_of(runs[0]).with_name("kept.h5")).images == list(kept(runs[0], "iou", "cell"))


def test_a_run_on_a_normalised_copy_has_the_same_images(
    runs: tuple[Path, Path], tmp_path: Path, evaluations: list[Path]
) -> None:
    """Their scores are then made anew: what the runs kept does not tell that the images are the same."""
    normalize(data_of(runs[0]), tmp_path / "normalized.h5")
    at_home(runs[1], tmp_path / "normalized.h5")
    done = compare(runs)
    assert evaluations == list(runs) and len(done.images) == IMAGES
    assert list(done.environments) == ["digests.data.data.h5", "digests.data.normalized.h5"]


def test_other_images_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = runs
    at_home(other, write_data(tmp_path / "fewer.h5", train=4, val=IMAGES - 2))
    with pytest.raises(UserError) as caught:
        compare(runs)
    assert caught.value.status == 2
    assert str(caught.value) == (
        f"{other}: was scored on other images than {one}: 'square_9' and 1 more belong to {one} alone; compare them on "
        "one file, with --data"
    )
    names = [f"square_{index}" for index in range(4 + IMAGES)]
    splits = {"train": names[:4], "val": names[4:]}
    hdf5_file.write(
        tmp_path / "shifted.h5",
        splits,
        lambda name: image(int(name.removeprefix("square_")) + (name in names[-3:])),
        provenance={},
    )
    at_home(other, tmp_path / "shifted.h5")
    with pytest.raises(UserError) as caught:
        compare(runs)
    assert str(caught.value) == (
        f"{other}: image 'square_8' is not the one of {one} (3 of 7 have other pixels, labels or cells under the same "
        "name); compare them on one file, with --data"
    )


def test_other_cells_of_the_same_pixels_are_refused_where_cells_are_scored(
    runs: tuple[Path, Path], tmp_path: Path, evaluations: list[Path]
) -> None:
    names = [f"square_{index}" for index in range(4 + IMAGES)]
    for run, halves in zip(runs, (1, 2), strict=True):

        def cells(name: str, halves: int = halves) -> dict[str, np.ndarray]:
            found = image(int(name.removeprefix("square_")))
            upper = np.arange(32)[:, None] < np.nonzero(found["gt"])[0].mean()
            return {**found, "instances": found["gt"] * np.where(upper, halves, 1).astype(np.uint16)}

        path = tmp_path / f"{halves}.h5"
        hdf5_file.write(path, {"train": names[:4], "val": names[4:]}, cells, provenance={})
        at_home(run, path)
        changed(run, 'name = "accuracy"', 'name = "average_precision"')
    assert len(compare(runs, metric="iou").images) == IMAGES
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            compare(runs, metric="average_precision")
        assert "(7 of 7 have other pixels, labels or cells under the same name)" in str(caught.value)
    assert evaluations == list(runs)


def test_other_classes_are_refused(runs: tuple[Path, Path]) -> None:
    changed(runs[1], '"cell"', '"yeast"')
    with pytest.raises(UserError) as caught:
        compare(runs)
    assert str(caught.value) == (
        f"{runs[1]}: has the classes background, yeast, but {runs[0]} background, cell; compare runs of one task"
    )


def test_what_cannot_be_compared_is_said(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = runs
    for arguments, options, fault in [
        ([one], {}, f"{one}: nothing to compare with; name two runs or more"),
        ([one, other, one], {}, f"{one}: is named twice; name different runs"),
        ([one, tmp_path], {}, f"{tmp_path}: not a run directory; did you mean '{other}', the newest in it?"),
        (
            [one, other],
            {"metric": "dise"},
            "--metric: 'dise' is no metric of all these runs; did you mean 'dice'? (known: accuracy, boundary_f1, "
            "dice, iou)",
        ),
        (
            [one, other],
            {"class_name": "cel"},
            "--class: the scores have none 'cel'; did you mean 'cell'? (known: background, cell, mean)",
        ),
        ([one, other], {"output": Path("pair.jpg")}, "pair.jpg: figures are written as .png or .svg; name such a file"),
        (
            [one, other],
            {"data": tmp_path / "none.h5"},
            f"{tmp_path}/none.h5: no such file; name an HDF5 file, as 'pack' makes it",
        ),
        ([one, other], {"split": "test"}, f"{data_of(one)}: has no 'test' images; choose from train, val, or 'all'"),
    ]:
        with pytest.raises(UserError) as caught:
            compare(arguments, **options)  # type: ignore[arg-type]
        assert str(caught.value) == fault
        assert caught.value.status == 2
    assert not (one / "evaluations").exists()
    (one / "checkpoints" / "last.pt").unlink()
    with pytest.raises(UserError, match=r"last\.pt: no such checkpoint"):
        compare(runs, checkpoint="last")


def test_a_metric_that_all_runs_have_is_compared(runs: tuple[Path, Path]) -> None:
    for run in runs:
        changed(run, "[train]", '[[metric]]\nname = "recall"\n[train]')
    done = compare(runs, metric="recall", class_name="background")
    assert len(done.pairs) == 1 and done.higher_is_better
    changed(runs[1], '[[metric]]\nname = "recall"\n', "")
    with pytest.raises(UserError, match="'recall' is no metric of all these runs"):
        compare(runs, metric="recall")
    assert compare(runs, metric="accuracy").class_name == "all"


def test_scores_that_are_counted_in_different_ways_are_refused(
    runs: tuple[Path, Path], validations: tuple[Path, Path]
) -> None:
    """A run's own option counts, and the default where a run leaves it out; those of other metrics do not."""
    of_cells = '[[metric]]\nname = "average_precision"\n'
    for one, other in (runs, validations):
        changed(other, "[train]", f"{of_cells}ignore_border = 12\n[train]")
        for option in ("", "ignore_border = 0\n"):
            changed(one, "[train]", f"{of_cells}{option}[train]")
            fault = f"counts 'average_precision' with ignore_border = 12, but {one} with 0; choose another --metric"
            assert refused([one, other], metric="average_precision") == f"{other}: {fault}"
            changed(one, f"{of_cells}{option}", "")
        assert compare([one, other], metric="iou").selection.metric == "iou"


def test_runs_of_one_name_are_told_by_their_paths(runs: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "runs" / "001"
    shutil.copytree(runs[1], elsewhere)
    assert [run.label for run in compare([runs[0], elsewhere]).runs] == [str(runs[0]), str(elsewhere)]


def of(scores: list[list[float]], runs: tuple[Path, Path], **changes: Any) -> Comparison:
    """A comparison of other scores."""
    done = compare(runs)
    pairs = [paired(scores[0], other) for other in scores[1:]]
    found = vars(done) | {"scores": scores, "pairs": pairs, "adjusted": holm([pair.p for pair in pairs])}
    found |= {"means": [interval(each) for each in scores]}
    return Comparison(**(found | {"images": [str(index) for index in range(len(scores[0]))]} | changes))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            [0.5, 0.6, 0.7, 0.6, 0.7, 0.9],
            "+0.1500 iou on 6 images, 95 % interval +0.0622 to +0.2378, p = 0.0312. "
            "On these images runs/002 is better.",
        ),
        (
            [0.5, 0.6, 0.7, 0.6, 0.7],
            "+0.1200 iou on 5 images, 95 % interval +0.0645 to +0.1755, p = 0.0625. "
            "The data cannot tell the two apart: so few images never give a p below 0.0625; "
            "the interval, which assumes normal differences, excludes 0.",
        ),
        (
            [0.5, 0.3, 0.5, 0.5, 0.5, 0.6, 0.4],
            "-0.0429 iou on 7 images, 95 % interval -0.1331 to +0.0474, p = 0.5000. "
            "The data cannot tell the two apart.",
        ),
        (
            [0.40003, 0.50001, 0.50004, 0.50002],
            "+0.000025 iou on 4 images, 95 % interval +0.000004 to +0.000046, p = 0.1250. "
            "The data cannot tell the two apart: so few images never give a p below 0.1250; "
            "the interval, which assumes normal differences, excludes 0.",
        ),
        (
            [0.4, 0.5, 0.5],
            "+0.0000 iou on 3 images, 95 % interval +0.0000 to +0.0000, p = 1.0000. "
            "The scores are the same on every image.",
        ),
        (
            [0.5],
            "+0.1000 iou on 1 image. The data cannot tell the two apart: so few images never give a p below 1.0000.",
        ),
        ([math.nan], "no image has a score in both."),
    ],
)
def test_what_the_scores_say(runs: tuple[Path, Path], other: list[float], sentence: str) -> None:
    one = [0.4, 0.5, 0.5, 0.5, 0.6, 0.6, 0.5][: len(other)]
    assert findings(of([one, other], runs))[0] == f"runs/002 against runs/001: {sentence}"


@pytest.mark.parametrize(
    ("first", "means"),
    [
        ([0.5, math.nan, 0.7, 0.6], "are of 3 and 4 images (runs/001, runs/002)."),
        ([0.5, math.nan, 0.7, 0.6, 0.5], "are of 4 images each, not all of them the same."),
    ],
)
def test_means_of_other_images_than_the_pairs_are_told(runs: tuple[Path, Path], first: list[float], means: str) -> None:
    other = [0.4, 0.5, 0.6, 0.5, math.nan][: len(first)]
    told = findings(of([first, other], runs))[0]
    assert "on 3 images" in told and told.endswith(f" The means in the table {means}")


def test_lower_may_be_better(runs: tuple[Path, Path]) -> None:
    scores = [[0.4] * 6, [0.5, 0.6, 0.7, 0.6, 0.7, 0.9]]
    assert findings(of(scores, runs, higher_is_better=False))[0].endswith("On these images runs/001 is better.")
    assert findings(of(scores, runs, higher_is_better=None))[0].endswith("On these images runs/002 is higher.")


def test_the_command(runs: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["compare", *map(str, runs), "-o", str(tmp_path / "pair.png")]
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert ["train.epochs", "8", "2"] in cells and ["train.seed", "0", "1"] in cells
    assert not any(row[0].startswith("dataset") for row in cells)
    assert "iou of cell: 7 images (val), best checkpoints, selected on these images" in [
        line.rstrip() for line in lines
    ]
    (second,) = [row for row in cells if row[0] == "runs/002"]
    assert second[-1] == "0.0156" and second[3].startswith("-0.")
    assert lines[-2].startswith("Each is a single run: ") and lines[-1] == str(tmp_path / "pair.png")
    with Image.open(tmp_path / "pair.png") as picture:
        assert picture.size[0] == 1400


def test_all_figures_as_json(runs: tuple[Path, Path], tmp_path: Path) -> None:
    third = tmp_path / "runs" / "003"
    shutil.copytree(runs[1], third)
    words = ["compare", *map(str, (*runs, third)), "--json", "-o", str(tmp_path / "pair.svg")]
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [run["label"] for run in found["runs"]] == ["runs/001", "runs/002", "runs/003"]
    assert found["experiment"] == {"train.epochs": [8, 2, 2], "train.seed": [0, 1, 1]} and found["environment"] == {}
    assert (found["metric"], found["class"], found["split"], found["data"]) == ("iou", "cell", "val", None)
    assert [len(row) for row in found["scores"]] == [IMAGES] * 3
    assert [(pair["one"], pair["other"], pair["p"], pair["p_holm"]) for pair in found["pairs"]] == [
        ("runs/001", "runs/002", 2 / 128, 4 / 128),
        ("runs/001", "runs/003", 2 / 128, 4 / 128),
    ]
    assert done.stderr.splitlines() == [str(tmp_path / f"pair_{index}.svg") for index in (1, 2)]
    assert all((tmp_path / f"pair_{index}.svg").read_text().startswith("<?xml") for index in (1, 2))


def test_the_command_evaluates_what_is_missing(runs: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(commands, ["compare", *map(str, runs), "--metric", "boundary_f1", "--checkpoint", "last"])
    assert done.exit_code == 0, done.output
    for run in runs:
        found = record.read(run / "evaluations" / "data-val-last")
        assert found is not None and found.checkpoint_digest == files.digest(run / "checkpoints" / "last.pt")


# Cross-validations


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds and two seeds of a tiny experiment; not to be written to."""
    folder = tmp_path_factory.mktemp("crossed")
    path = write_experiment(folder, EXPERIMENT.replace("epochs = 2", "epochs = 1"))
    return crossval(path, folds=3, repeats=2, output=folder / "cv" / "001", console=Console(file=io.StringIO()))


@pytest.fixture
def validations(crossed: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of it, without weights, of which the second has another learning rate and better scores."""
    copied = tmp_path / "cv" / "001", tmp_path / "cv" / "002"
    for new in copied:
        shutil.copytree(crossed, new, ignore=shutil.ignore_patterns("checkpoints", "pictures", "events*"))
    changed(copied[1], "learning_rate = 0.01", "learning_rate = 0.02")
    score(copied[0], lambda image, seed: 0.5 + 0.01 * image + 0.002 * seed)
    score(copied[1], lambda image, seed: 0.6 + 0.02 * image - 0.002 * seed)
    return copied


def score(folder: Path, of: Callable[[int, int], float | None]) -> None:
    """Give a cross-validation other scores, each of an image's number and a seed."""
    rows = list(csv.DictReader((folder / "per_image.csv").read_text().splitlines()))
    for row in rows:
        found = of(int(row["image"].removeprefix("square_")), int(row["seed"]))
        row["score"] = "" if found is None else str(found)
    (folder / "per_image.csv").write_text(as_csv(rows))


def test_cross_validations_are_compared_by_the_means_over_seeds(validations: tuple[Path, Path]) -> None:
    done = compare(validations)
    assert done.out_of_fold and (done.selection.checkpoint, done.selected) == ("last", False)
    assert done.images == [f"square_{index}" for index in range(6)]
    assert done.scores[0] == pytest.approx([0.501 + 0.01 * index for index in range(6)])
    assert done.scores[1] == pytest.approx([0.599 + 0.02 * index for index in range(6)])
    assert done.places == [path / "per_image.csv" for path in validations]
    assert done.experiments == {"optimizer.learning_rate": [0.01, 0.02]} and done.environments == {}
    one, other = done.spreads
    assert one.seeds == other.seeds == [0, 1]
    assert one.between_seeds == pytest.approx(0.002 / math.sqrt(2)) and one.of_mean == pytest.approx(0.001)
    assert other.between_images == pytest.approx(0.02 * np.std(range(6), ddof=1))
    said = findings(done)
    assert said[0].startswith("cv/002 against cv/001: +0.1230 iou on 6 images, 95 % interval +0.1")
    assert said[0].endswith("p = 0.0312. On these images cv/002 is better.")
    assert said[1].startswith("Each image counts once, by its out-of-fold predictions: the mean of 2 seeds.")
    assert said[2] == (
        "Scores vary (standard deviations of means) by 0.0014 from seed to seed and 0.0187 from image to image in "
        "cv/001, by 0.0014 from seed to seed and 0.0374 from image to image in cv/002."
    )
    assert len(said) == 3


def test_seeds_that_scatter_as_far_as_the_difference_are_told(validations: tuple[Path, Path]) -> None:
    score(validations[0], lambda image, seed: 0.5 + 0.1 * seed)
    score(validations[1], lambda image, seed: 0.52 + 0.1 * seed + 0.001 * image)
    assert findings(compare(validations))[0].endswith(
        "On these images cv/002 is better, but other seeds alone change the difference by ± 0.3042, so that it may "
        "vanish with them."
    )


def test_cross_validations_that_cannot_be_told_apart(validations: tuple[Path, Path]) -> None:
    score(validations[1], lambda image, seed: 0.5 + 0.01 * (5 - image))
    assert findings(compare(validations))[0].endswith("The data cannot tell the two apart.")


def test_an_image_without_a_score_is_left_out(validations: tuple[Path, Path]) -> None:
    score(validations[0], lambda image, seed: None if image == 2 or seed == 1 else 0.5)
    done = compare(validations)
    assert done.scores[0] == [0.5, 0.5, None, 0.5, 0.5, 0.5] and done.pairs[0].difference.images == 5


def test_one_seed_tells_nothing_of_seeds(validations: tuple[Path, Path]) -> None:
    for folder in validations:
        result = json.loads((folder / "crossval.json").read_text()) | {"seeds": [0], "notes": ["a leak", "another"]}
        (folder / "crossval.json").write_text(json.dumps(result))
        rows = list(csv.DictReader((folder / "per_image.csv").read_text().splitlines()))
        (folder / "per_image.csv").write_text(as_csv([row for row in rows if row["seed"] == "0"]))
    done = compare(validations)
    assert math.isnan(done.spreads[0].between_seeds)
    assert findings(done)[1:] == [
        "Each image counts once, by its out-of-fold predictions: of 1 seed. Images of one fold share a model, so that "
        "they are less independent than the test assumes.",
        "A single seed does not show how much another would change; 'crossval --repeats 3' would.",
        "Noted in training: a leak (1 more in crossval.json).",
    ]


@pytest.mark.parametrize("own_file", [False, True])
def test_runs_of_two_folds_held_out_other_images(crossed: Path, tmp_path: Path, own_file: bool) -> None:
    """Of the file that both were trained on, too: each was trained on what the other held out."""
    folds = [Path(shutil.copytree(crossed / f"seed_0_fold_{fold}", tmp_path / str(fold))) for fold in (1, 2)]
    said = refused(folds, data=data_of(folds[0]) if own_file else None)
    assert said.startswith(f"{folds[1]}: was scored on other images than {folds[0]}: 'square_")
    assert said.endswith(
        "; compare runs that held out the same images, or on a file that none was trained on, with --data"
    )


def refused(paths: Sequence[Path], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        compare(paths, **options)
    assert caught.value.status == 2
    return str(caught.value)


def test_cross_validations_of_other_folds_or_images_are_refused(validations: tuple[Path, Path]) -> None:
    one, other = validations
    folds = json.loads((other / "folds.json").read_text())
    backwards = folds | {"folds": folds["folds"][::-1], "seed": 7}
    (other / "folds.json").write_text(json.dumps(backwards))
    assert len(compare(validations).images) == 6
    (first, *_), (second, *_), _ = folds["folds"]
    moved = [
        [second if name == first else first if name == second else name for name in names] for names in folds["folds"]
    ]
    (other / "folds.json").write_text(json.dumps(folds | {"folds": moved}))
    assert refused(validations) == (
        f"{other}: has other folds than {one}, so that the training images differ; repeat one of them with "
        f"--folds {one}/folds.json"
    )
    for name in ("crossval.json", "per_image.csv"):
        (other / name).write_text((other / name).read_text().replace("square_", "round_"))
    assert refused(validations) == (
        f"{other}: has other images than {one}: 'square_0' and 5 more belong to {one} alone; cross-validate both "
        "on the same data"
    )


def as_fractions(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An image whose values are no integers, between 0 and 1."""
    return {**arrays, "raw": arrays["raw"].astype(np.float32) / 5000}


def test_images_of_the_same_names_have_to_be_the_same(validations: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = validations
    names = [f"square_{index}" for index in range(6)]
    new = tmp_path / "data.h5"

    def moved_to(**given: Any) -> None:
        hdf5_file.write(new, {"train": names[:4], "val": names[4:]}, provenance={}, force=True, **given)
        record_data()

    def record_data() -> None:
        place = other / "seed_0_fold_1" / "environment.json"
        told = json.loads(place.read_text())
        told["digests"]["data"] = {"data.h5": files.digest(new)}
        place.write_text(json.dumps(told))

    changed(other, str(data_of(other)), str(new))
    moved_to(read=lambda name: image(int(name[-1])), pixel_um=0.5)
    assert len(compare(validations).images) == 6
    moved_to(read=lambda name: image(int(name[-1]) + (name == "square_3")))
    assert refused(validations) == (
        f"{other}: image 'square_3' is not the one of {one} (1 of 6 have other pixels, labels or cells under the same "
        "name); cross-validate both on the same data"
    )
    raw = tmp_path / "raw.h5"
    splits = {"train": names[:4], "val": names[4:]}
    hdf5_file.write(raw, splits, lambda name: as_fractions(image(int(name[-1]))), provenance={})
    changed(one, str(data_of(one)), str(raw))
    for index, same in ((3, True), (4, False)):
        moved_to(read=lambda name, index=index: as_fractions(image(index if name == "square_3" else int(name[-1]))))
        normalize(new, tmp_path / "normalised.h5", force=True)
        (tmp_path / "normalised.h5").replace(new)
        record_data()
        if same:
            assert len(compare(validations).images) == 6
        else:
            assert f"{other}: image 'square_3' is not the one of {one} (1 of 6" in refused(validations)
    new.unlink()
    assert refused(validations).startswith(f"{other}: its data differ from the others' or are elsewhere, and cannot")


def test_what_of_cross_validations_cannot_be_compared_is_said(
    validations: tuple[Path, Path], runs: tuple[Path, Path]
) -> None:
    one, other = validations
    assert refused([one, runs[0]]) == (
        f"{runs[0]}: is a run, but {one} a cross-validation; compare runs with each other, and cross-validations with "
        "each other"
    )
    assert refused(validations, split="val") == (
        "--split: cross-validations are compared on the images they held out; omit it"
    )
    assert refused(validations, data=data_of(one)).startswith("--data: cross-validations are compared on the images")
    assert refused(validations, metric="dice") == (
        "--metric: 'dice' is no metric of all these cross-validations (known: accuracy, iou)"
    )
    (other / "per_image.csv").write_text("image,seed,metric,class,score\nsquare_0,9,iou,cell,1\n")
    fault = "image 'square_0' with seed 9 is not of this cross-validation"
    assert refused(validations).startswith(f"{other / 'per_image.csv'}: is damaged ({fault}); the same 'crossval'")
    (other / "crossval.json").unlink()
    assert refused(validations) == (
        f"{other}: is not finished; the same 'crossval' command with -o {other} continues it"
    )


def test_the_command_on_cross_validations(validations: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["compare", *map(str, validations), "-o", str(tmp_path / "pair.png")]
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert "iou of cell: 6 images, out-of-fold predictions of the last checkpoints" in lines
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    (second,) = [row for row in cells if row[0] == "cv/002"]
    assert second[3:5] == ["0.0374", "0.0014"] and second[-1] == "0.0312"
    assert (tmp_path / "pair.png").is_file()
    done = CliRunner().invoke(commands, ["compare", *map(str, validations), "--json"])
    found = json.loads(done.stdout)
    assert found["out_of_fold"] and found["seeds"][0]["seeds"] == [0, 1] and found["notes"] == []
    assert found["seeds"][1]["between_seeds"] == pytest.approx(0.002 / math.sqrt(2))
