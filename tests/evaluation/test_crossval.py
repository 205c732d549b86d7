"""Cross-validation: out-of-fold predictions of every image with every seed, and continued where it was."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import kills
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from tiny import EXPERIMENT, write_data, write_experiment

from yeastexp.cli import commands
from yeastexp.config.loading import load_experiment
from yeastexp.data import images
from yeastexp.data.folds import Folds, thumbnail
from yeastexp.errors import UserError
from yeastexp.evaluation import crossval as crossval_module
from yeastexp.evaluation.crossval import CrossvalScores, crossval, summarise
from yeastexp.evaluation.out_of_fold import fold_folder
from yeastexp.prediction.predictor import load_predictor
from yeastexp.system import jobs
from yeastexp.training import checkpoints, timing
from yeastexp.training.handlers.stopping import PauseWhenInterrupted
from yeastexp.training.resume import resume
from yeastexp.training.verify import verify

NAMES = [f"square_{index}" for index in range(6)]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=160)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds and two seeds of a tiny experiment; not to be written to."""
    folder = tmp_path_factory.mktemp("crossval")
    write_data(folder / "data.h5")
    (folder / "tiny.toml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return (folder / crossval(folder / "tiny.toml", folds=3, repeats=2, console=quiet())).resolve()


def test_every_image_is_held_out_once_a_seed(done: Path) -> None:
    assert done.name == "001" and done.parent.name == "tiny_crossval"
    held = []
    for folder in sorted(done.glob("seed_*")):
        loaded = load_experiment(folder / "experiment.toml")
        splits = load_predictor(folder, "last", "cpu").experiment.validation
        assert splits.folds == done / "folds.json" and splits.fold is not None
        chosen = json.loads((done / "folds.json").read_text())["folds"][splits.fold - 1]
        kept = checkpoints.load(folder / "checkpoints" / "last.pt")["validations"]["last"]["losses"]
        assert sorted(kept) == sorted(chosen)
        held += [(loaded.train.seed, name) for name in kept]
    assert sorted(held) == sorted((seed, name) for seed in (0, 1) for name in NAMES)


@pytest.mark.parametrize(("jobs", "threads", "timed"), [(1, 2, 4), (2, 1, 2)])
def test_all_folds_have_the_threads_and_the_precision_that_are_fastest_at_their_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, threads: int, timed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing.cores, "allowed", lambda: (2, "cores of the machine"))
    monkeypatch.setattr(timing.cores.Waiting, "share", 0.0)
    times = iter([0.4, 0.3, 0.3, 0.2][-timed:])
    monkeypatch.setattr(timing, "seconds_per_step", lambda *anything, **limits: next(times))
    begun: list[list[str]] = []
    monkeypatch.setattr(crossval_module._Training, "__call__", lambda self, fold, *_: begun.append(self.options(fold)))
    monkeypatch.setattr(crossval_module, "_in_processes", lambda train, folds, *_: [train(fold) for fold in folds])
    monkeypatch.setattr(crossval_module, "_scores", None)
    with pytest.raises(TypeError):
        settings = ["train.precision=auto", "runtime.threads=auto"]
        crossval(write_experiment(tmp_path), settings, folds=2, jobs=jobs, console=quiet())
    chosen = {f"runtime.threads={threads}", "train.precision=bfloat16"}
    assert [chosen <= {*options} for options in begun] == [True] * 2 and next(times, None) is None


def test_the_scores_are_those_of_the_last_weights(done: Path) -> None:
    rows = list(csv.DictReader((done / "per_image.csv").read_text().splitlines()))
    assert len(rows) == 2 * 6 * (3 + 1)
    folder = done / "seed_1_fold_2"
    (name, *_) = json.loads((done / "folds.json").read_text())["folds"][1]
    (row,) = [r for r in rows if (r["image"], r["seed"], r["metric"], r["class"]) == (name, "1", "iou", "cell")]
    predicted = images.read_mask(folder / "predictions" / f"{name}.png")
    truth = load_predictor(folder, "last", "cpu").experiment.dataset.build().read(name).labels.numpy()
    hits, either = ((predicted == 1) & (truth == 1)).sum(), ((predicted == 1) | (truth == 1)).sum()
    assert float(row["score"]) == hits / either


def test_the_result_says_what_it_is_made_of(done: Path) -> None:
    found = json.loads((done / "crossval.json").read_text())
    assert (found["images"], found["seeds"], found["checkpoint"], found["notes"]) == (NAMES, [0, 1], "last", [])
    row = found["scores"]["iou"]["cell"]
    assert 0 <= row["low"] < row["per_image"] < row["high"] <= 1 and row["images"] == 6
    assert row["baselines"]["all background"] == 0.0 and row["baselines"]["threshold"] > 0.9


def test_a_baseline_is_one_of_all_folds(done: Path, tmp_path: Path) -> None:
    fold_runs = []
    for fold in (1, 2, 3):
        folder = fold_folder(tmp_path, 0, fold)
        folder.mkdir()
        result = json.loads((fold_folder(done, 0, fold) / "result.json").read_text())
        result["baselines"] |= {
            "in all": result["val"]["last"],
            **({} if fold == 2 else {"in two": result["val"]["last"]}),
        }
        (folder / "result.json").write_text(json.dumps(result))
        fold_runs.append(crossval_module.FoldRun(0, fold, folder))
    assert crossval_module._baselines(fold_runs).keys() == {"all background", "threshold", "in all"}


def test_spreads_are_those_of_means() -> None:
    table = np.array([[0.1, 0.2, np.nan], [0.3, 0.6, 0.5]])
    found = summarise(CrossvalScores(["a", "b", "c"], [0, 1], {("iou", "cell"): table}, {}, []))["iou"]["cell"]
    assert found["per_image"] == pytest.approx(np.mean([0.2, 0.4, 0.5]))
    assert found["between_images"] == pytest.approx(np.std([0.2, 0.4, 0.5], ddof=1))
    assert found["between_seeds"] == pytest.approx(np.std([0.15, 0.4667], ddof=1), rel=1e-3)
    alone = summarise(CrossvalScores(["a"], [0], {("iou", "cell"): np.array([[0.5]])}, {}, []))["iou"]["cell"]
    assert (alone["per_image"], alone["low"], alone["between_seeds"]) == (0.5, None, None)


def test_an_interval_is_cut_to_where_the_mean_can_lie() -> None:
    scores = {("iou", "cell"): np.array([[1.0, 0.2, 0.9]])}
    wide = summarise(CrossvalScores(["a", "b", "c"], [0], scores, {}, []))["iou"]["cell"]
    cut = summarise(CrossvalScores(["a", "b", "c"], [0], scores, {}, [], {"iou": (0.0, 1.0)}))["iou"]["cell"]
    assert (cut["low"], cut["high"]) == (0.0, 1.0) and wide["low"] < 0 and wide["high"] > 1


def test_an_interrupted_one_goes_on_and_ends_the_same(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data.h5")
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    pauses, steps = PauseWhenInterrupted.pauses, []

    def then(self: PauseWhenInterrupted, step: int) -> bool:
        steps.append(step)
        self.interruption.wanted = len(steps) == 11
        return pauses(self, step)

    output = Path("here")
    with monkeypatch.context() as patched, pytest.raises(UserError) as caught:
        patched.setattr(PauseWhenInterrupted, "pauses", then)
        crossval(tmp_path / "tiny.toml", folds=3, repeats=2, output=output, console=quiet())
    assert caught.value.status == 130
    assert caught.value.faults[1] == (
        "here: seed 0, fold 2 is not finished; the same command with -o here continues it"
    )
    crossval(tmp_path / "tiny.toml", folds=3, repeats=2, output=output, console=quiet())
    for name in ("per_image.csv", "crossval.json", "folds.json"):
        assert (output / name).read_bytes() == (done / name).read_bytes()


def test_folds_in_processes_of_their_own_end_the_same(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is killed on the way; the same command goes on, and trains no fold twice."""
    path = done.parents[2] / "tiny.toml"
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(jobs, "CONTEXT", multiprocessing.get_context("fork"))
    pauses = PauseWhenInterrupted.pauses

    def killed(self: PauseWhenInterrupted, step: int) -> bool:
        if step == 5 and multiprocessing.current_process().name == "seed 0, fold 2":
            os.kill(os.getpid(), signal.SIGKILL)
        return pauses(self, step)

    output, said = Path("in_processes"), list[str]()
    with monkeypatch.context() as patched, pytest.raises(UserError) as caught:
        patched.setattr(PauseWhenInterrupted, "pauses", killed)
        crossval(path, folds=3, output=output, jobs=2, console=quiet(), say=said.append)
    assert caught.value.status == 1
    assert caught.value.faults == (
        "seed 0, fold 2: its process was ended by SIGKILL; the system does so where memory runs out",
        f"{output}: seed 0, fold 2 is not finished; the same command with -o {output} continues it",
    )
    assert len(list(output.glob("seed_*"))) == 2
    crossval(path, folds=3, output=output, jobs=2, console=quiet(), say=said.append)
    assert "[seed 0, fold 2] in_processes/seed_0_fold_2: from step 4 of 8 on cpu" in said
    of_one_seed = [row for row in (done / "per_image.csv").read_text().splitlines() if ",1," not in row]
    assert (output / "per_image.csv").read_text().splitlines() == of_one_seed
    for folder in sorted(output.glob("seed_*")):
        assert kills.differences(done / folder.name, folder) == []
        for mask in folder.glob("predictions/*"):
            assert mask.read_bytes() == (done / folder.name / "predictions" / mask.name).read_bytes()


def test_a_directory_keeps_its_folds_and_its_experiment(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = done.parents[2] / "tiny.toml"
    monkeypatch.chdir(path.parent)
    for settings, count, message in (
        ([], 2, f"{done}/folds.json: holds other folds; name another output"),
        (["train.batch_size=2"], 3, f"{done}/experiment.toml: is of another experiment; name another output"),
    ):
        with pytest.raises(UserError) as caught:
            crossval(path, settings, folds=count, output=done, console=quiet())
        assert str(caught.value) == message


def test_one_of_a_version_with_fewer_keys_goes_on(done: Path, tmp_path: Path) -> None:
    """They have the defaults of this one."""
    copied = Path(shutil.copytree(done, tmp_path / "copied"))
    text = (copied / "experiment.toml").read_text()
    assert text.count("plain_steps = 0\n") == 1
    (copied / "experiment.toml").write_text(text.replace("plain_steps = 0\n", ""))
    crossval(done.parents[2] / "tiny.toml", folds=3, repeats=2, output=copied, console=quiet())
    assert (copied / "crossval.json").read_bytes() == (done / "crossval.json").read_bytes()


def test_a_folder_that_lacks_a_file_is_not_begun_over(done: Path, tmp_path: Path) -> None:
    path = done.parents[2] / "tiny.toml"
    for name in ("folds.json", "experiment.toml"):
        copied = Path(shutil.copytree(done, tmp_path / name))
        (copied / name).unlink()
        before = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
        with pytest.raises(UserError) as caught:
            crossval(path, folds=3, repeats=2, output=copied, console=quiet())
        assert str(caught.value) == f"{copied}/{name}: is missing; bring it back, or name another output"
        assert before == {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}


def test_nor_is_a_run_overwritten(done: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(done / "seed_0_fold_1", tmp_path / "001"))
    with pytest.raises(UserError, match=f"^{copied}/experiment.toml: is of another experiment; name another output$"):
        crossval(done.parents[2] / "tiny.toml", folds=3, output=copied, console=quiet())


def test_one_that_was_killed_before_its_experiment_stood_there_goes_on(done: Path, tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_bytes((done / "folds.json").read_bytes())
    crossval(done.parents[2] / "tiny.toml", folds=3, output=tmp_path, console=quiet())
    assert (tmp_path / "experiment.toml").read_bytes() == (done / "experiment.toml").read_bytes()


@pytest.mark.parametrize("command", [resume, verify])
def test_a_cross_validation_is_no_run(done: Path, tmp_path: Path, command: Callable[..., object]) -> None:
    copied = Path(shutil.copytree(done, tmp_path / "001"))
    with pytest.raises(UserError, match=f"^{copied}: is no run, but holds runs; did you mean '{copied}/seed_"):
        command(copied, console=quiet())


def test_folds_that_read_other_data_are_not_put_together(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(shutil.copy(done.parents[2] / "tiny.toml", tmp_path))
    write_data(tmp_path / "data.h5")
    copied = tmp_path / "copied"
    shutil.copytree(done, copied)
    (copied / "experiment.toml").write_text(load_experiment(path).resolved())
    (copied / "seed_0_fold_2" / "result.json").write_text("")
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["raw"][0, 0, 0] += 1
    with pytest.raises(UserError) as caught:
        crossval(path, folds=3, repeats=2, output=copied, console=quiet())
    assert str(caught.value) == (
        f"{copied}/seed_0_fold_1: '{tmp_path}/data.h5' has changed and holds other data now; bring back what it was "
        "begun with, or name another output"
    )


def test_a_file_of_folds_serves_another_experiment(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = done.parents[2] / "tiny.toml"
    words = [
        "crossval",
        str(path),
        "--folds",
        str(done / "folds.json"),
        "--set",
        "name=other",
        "--set",
        "train.epochs=1",
    ]
    found = CliRunner().invoke(commands, [*words, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["name"] == "other"
    other = tmp_path / "runs" / "other_crossval" / "001"
    assert (other / "folds.json").read_bytes() == (done / "folds.json").read_bytes()


@pytest.mark.parametrize("names", [[*"abc"], ["square_0", "square_2"]])
def test_folds_of_other_images_begin_nothing(done: Path, tmp_path: Path, names: list[str]) -> None:
    folds = tmp_path / "folds.json"
    Folds(((names[0],), tuple(names[1:]))).write(folds)
    with pytest.raises(UserError) as caught:
        crossval(done / "experiment.toml", folds=folds, output=tmp_path / "out", console=quiet())
    odd = "a" if "a" in names else "square_1"
    assert str(caught.value) == f"--folds: '{folds}' is of other images: '{odd}' is in one of the two alone"
    assert not (tmp_path / "out").exists()


def test_folds_of_a_file_are_not_split_anew(done: Path) -> None:
    with pytest.raises(UserError, match="is a file of folds; --group-by and --blocks are for a number of folds"):
        crossval(done / "experiment.toml", folds=done / "folds.json", blocks=True, console=quiet())


def test_no_folder_is_claimed_for_initial_weights_that_do_not_fit(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"train.init_from={fold_folder(done, 0, 1)}", "model.width=3", "model.residual=true"]
    with pytest.raises(UserError, match=r"\[train\] init_from: no kernel of"):
        crossval(done.parents[2] / "tiny.toml", settings, folds=2, console=quiet())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("folds", [0, 1])
def test_fewer_than_two_folds_are_refused(
    folds: int, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^--folds {folds}: leaves no other fold to train on; give 2 or more$"):
        crossval(done.parents[2] / "tiny.toml", folds=folds, console=quiet())
    Folds((("a", "b"),)).write(tmp_path / "one.json")
    with pytest.raises(UserError, match="1 in it, which leaves no other fold to train on"):
        crossval(done.parents[2] / "tiny.toml", folds=tmp_path / "one.json", console=quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_leaks_are_named(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    settings = ["validation.patience=9", "train.epochs=1", f"train.init_from={fold_folder(done, 0, 1)}"]
    crossval(done.parents[2] / "tiny.toml", settings, folds=2, console=quiet(), say=said.append)
    trained = "held-out images resemble images that the initial weights were trained on: 4 of 6"
    assert said[0].startswith(f"[train] init_from: {trained}")
    assert (
        said[1]
        == "[validation] patience chooses the last step by the held-out images: their scores are optimistically biased"
    )


@pytest.mark.parametrize("blocks", [False, True])
def test_look_alikes_in_different_folds_are_named(blocks: bool) -> None:
    """With a remedy, if there is one that was not taken."""
    image = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(0))
    thumbnails = dict.fromkeys("abcde", thumbnail(image))
    (said,) = crossval_module._duplicates(thumbnails, Folds((("a",), ("b",)), blocks=blocks))
    told = "images in different folds are near-duplicates, so that scores are optimistically biased: "
    told += "'b' and 'a' (correlation 1.000)"
    assert said == told + ("" if blocks else "; --group-by or --blocks keeps such images together")
    three = Folds((("a", "b", "c"), ("d", "e")), blocks=blocks)
    (said,) = crossval_module._duplicates(thumbnails, three)
    assert said.count("correlation") == 3 and " and 3 more" in said


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("fold = 1", "[validation] fold: has no effect without 'folds'"),
        ('folds = "data.h5"', "[validation] folds: has no effect without 'fold'"),
        ('folds = "none.json"\nfold = 1', "[validation] folds: no file of folds '{folder}/none.json'"),
    ],
)
def test_a_fold_needs_its_file(tmp_path: Path, written: str, fault: str) -> None:
    write_data(tmp_path / "data.h5")
    path = tmp_path / "tiny.toml"
    path.write_text(EXPERIMENT + f"[validation]\n{written}\n")
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    assert str(caught.value).endswith(fault.format(folder=tmp_path))


def test_a_fold_that_is_a_link_is_not_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)
    (tmp_path / "cv").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cv" / "seed_0_fold_1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"cv/seed_0_fold_1: is a symbolic link; put the run that it leads to"):
        crossval(Path("tiny.toml"), folds=2, output=Path("cv"), console=quiet())
    assert not list((tmp_path / "elsewhere").iterdir())
