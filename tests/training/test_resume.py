"""An interruption leaves no trace in the result, and a run goes on as it began or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import kills
import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import EXPERIMENT, quiet, write_data

from yeastexp.data.folds import Folds
from yeastexp.errors import UserError
from yeastexp.training import checkpoints, handlers, loop
from yeastexp.training.context import RunContext
from yeastexp.training.resume import resume
from yeastexp.training.run import run
from yeastexp.training.run_directory import RunDirectory
from yeastexp.training.verify import verify

ALL_OPTIONS = EXPERIMENT.replace("levels = 2", "levels = 2\ndropout = 0.2").replace(
    "epochs = 2",
    'epochs = 3\nema_decay = 0.9\nplain_steps = 7\nmax_grad_norm = 0.5\naccumulation_steps = 3\nprecision = "bfloat16"',
)
ALL_OPTIONS += "[validation]\npatience = 9\n"
"""Twelve steps, groups of three, then one, in each epoch of four; ten steps with all augmentations."""

CONSTANT = EXPERIMENT.replace('[scheduler]\nname = "one_cycle"\n', "").replace('"adamw"', '"sgd"')
RUN = Path("runs") / "tiny" / "001"


class PowerCut(BaseException):
    """What no code expects."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.h5")
    return tmp_path


def ran(folder: Path, text: str = ALL_OPTIONS, settings: Sequence[str] = ()) -> Path:
    """The directory of a finished run, each epoch of which is saved as if it took seconds."""
    (folder / "tiny.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(handlers.checkpoints, "SHARE", 1e9)
        return run(folder / "tiny.toml", settings, console=quiet()).resolve()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all options that nobody disturbed; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder / "data.h5")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return ran(folder)


def cut(patched: pytest.MonkeyPatch, step: int, by: str) -> None:
    """Let the next training be cut short: by power when all handlers of a step are done, by a wish within the step."""
    attach = loop.attach_handlers

    def then(context: RunContext) -> None:
        def wish() -> None:
            context.interruption.wanted = True

        def fail() -> None:
            raise PowerCut

        attach(context)
        if by == "power":
            context.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=step), fail)
        else:
            context.trainer.add_event_handler(Events.ITERATION_STARTED(once=step), wish)

    patched.setattr(loop, "attach_handlers", then)


def broken(folder: Path, step: int, by: str = "power", text: str = ALL_OPTIONS, settings: Sequence[str] = ()) -> Path:
    """The directory of a run that was cut short."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises((PowerCut, UserError)) as caught:
        cut(patched, step, by)
        ran(folder, text, settings)
    if isinstance(caught.value, UserError):
        assert caught.value.status == 130
    return folder / RUN


@pytest.mark.parametrize("by", ["power", "a wish"])
@pytest.mark.parametrize("step", [1, 3, 4, 6, 7, 12])
def test_an_interruption_leaves_no_trace(here: Path, whole: Path, step: int, by: str) -> None:
    folder = broken(here, step, by)
    assert not (folder / "result.json").exists()
    torch.manual_seed(step)
    assert resume(folder, console=quiet())
    assert kills.differences(whole, folder) == []


def test_one_after_the_other_leaves_no_trace(here: Path, whole: Path) -> None:
    folder = broken(here, 3, "a wish")
    for step, by in ((5, "power"), (7, "a wish"), (10, "power")):
        with pytest.MonkeyPatch.context() as patched, pytest.raises((PowerCut, UserError)):
            cut(patched, step, by)
            resume(folder, console=quiet())
    resume(folder, console=quiet())
    assert kills.differences(whole, folder) == []
    assert len(RunDirectory(folder).read_environment()["resumed"]) == 4


@pytest.mark.parametrize("average", ["", "ema_decay = 0.9"])
def test_a_share_of_initial_weights_is_kept_through_an_interruption(here: Path, average: str) -> None:
    ran(here, settings=["train.epochs=1"]).rename(here / "initial")
    text = EXPERIMENT.replace("epochs = 2", f"epochs = 2\ninit_from = 'initial'\ninit_share = 0.25\n{average}")
    whole = ran(here, text).rename(here / "whole")
    folder = broken(here, 6, text=text)
    assert resume(folder, console=quiet())
    assert kills.differences(whole, folder) == []


@pytest.mark.parametrize("place", ["save_best", "save", "scored_baselines"])
def test_power_may_fail_at_any_place(here: Path, whole: Path, place: str) -> None:
    function = getattr(RunContext, place)

    def fails(self: RunContext) -> object:
        if self.step >= 8:
            raise PowerCut
        return function(self)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(RunContext, place, fails)
        ran(here)
    resume(here / RUN, console=quiet())
    assert kills.differences(whole, here / RUN) == []


@pytest.mark.parametrize("place", ["conclude._write_pictures", "loop.environment.ended"])
def test_a_run_that_was_cut_short_behind_its_last_step_is_concluded(here: Path, whole: Path, place: str) -> None:
    def fails(*anything: object) -> None:
        raise PowerCut

    with pytest.MonkeyPatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(f"yeastexp.training.{place}", fails)
        ran(here)
    resume(here / RUN, console=quiet())
    assert kills.differences(whole, here / RUN) == []


def test_power_may_fail_between_two_names_of_a_checkpoint(here: Path, whole: Path) -> None:
    folder = broken(here, 9)
    kept = folder / "checkpoints"
    newest = checkpoints.load(kept / "last.pt")
    (kept / "last.pt").rename(kept / "next.pt")
    said: list[str] = []
    found = checkpoints.newest(kept, said.append)
    assert found is not None and checkpoints.first_difference(found, newest) is None and not said
    assert {path.name for path in kept.iterdir()} == {"last.pt", "previous.pt"}
    resume(folder, console=quiet())
    assert kills.differences(whole, folder) == []


def test_workers_may_be_others(here: Path, whole: Path) -> None:
    folder = broken(here, 6)
    resume(folder, ["runtime.workers=2"], console=quiet())
    assert kills.differences(whole, folder) == []


def test_the_threads_are_those_of_the_run(here: Path) -> None:
    folder = broken(here, 6)
    torch.set_num_threads(2)
    resume(folder, console=quiet())
    assert torch.get_num_threads() == 1


def test_curves_do_not_tangle(here: Path) -> None:
    text = EXPERIMENT.replace("epochs = 2", "epochs = 8")
    resume(broken(here, 31, text=text), console=quiet())
    events = EventAccumulator(str(here / RUN)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [4, 8, 10, 12, 16, 20, 24, 28, 30, 32]
    steps = [event.step for event in events.Scalars("val/loss")]
    assert steps == sorted(set(steps)) and steps[-1] == 32


# Damage


def damage(path: Path) -> None:
    """Lose a tenth of a file, as a bad block does."""
    found = bytearray(path.read_bytes())
    tenth = len(found) // 10
    found[tenth : 2 * tenth] = bytes(tenth)
    path.write_bytes(bytes(found))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(here: Path, whole: Path) -> None:
    folder = broken(here, 9)
    damage(folder / "checkpoints" / "last.pt")
    resume(folder, console=quiet())
    log = (folder / "log.txt").read_text()
    assert f"{folder}/checkpoints/last.pt: damaged" in log and "; the one before is used" in log
    assert "resumed at step 4" in log
    assert (folder / "checkpoints" / "last.damaged").exists()
    assert kills.differences(whole, folder) == []


def test_without_a_good_checkpoint_it_begins_anew(here: Path, whole: Path) -> None:
    folder = broken(here, 9)
    for name in ("last.pt", "previous.pt"):
        damage(folder / "checkpoints" / name)
    resume(folder, console=quiet())
    assert "no good checkpoint; from the beginning" in (folder / "log.txt").read_text()
    assert kills.differences(whole, folder) == []


@pytest.mark.parametrize("edited", ["seed = 0", "epochs = 3"])
def test_nor_without_a_good_checkpoint_does_it_begin_an_edited_experiment(here: Path, edited: str) -> None:
    folder = broken(here, 9)
    for name in ("last.pt", "previous.pt"):
        damage(folder / "checkpoints" / name)
    path, text = folder / "experiment.toml", (folder / "experiment.toml").read_text()
    assert edited in text
    path.write_text(text.replace(edited, edited[:-1] + "7"))
    assert f"{path}: was edited since the run began" in refusal(folder)
    path.write_text(text)
    assert resume(folder, console=quiet())


# Refusals


def refusal(folder: Path, *settings: str) -> str:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}
    with pytest.raises(UserError) as caught:
        resume(folder, settings, console=quiet())
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}
    assert before.keys() - {folder / ".lock"} == after.keys() - {folder / ".lock"}
    assert caught.value.status == 2
    return str(caught.value)


def test_what_is_no_run_is_refused(here: Path) -> None:
    with pytest.raises(UserError, match=r"^runs/x: not a run directory, or a run that ended before it began"):
        resume(Path("runs/x"), console=quiet())


def test_a_finished_run_is_left_as_it_is(here: Path, whole: Path) -> None:
    shutil.copytree(whole, here / "copy")
    before = {path: path.read_bytes() for path in (here / "copy").rglob("*") if path.is_file()}
    assert not resume(here / "copy", console=quiet())
    assert not resume(here / "copy", ["runtime.workers=2"], console=quiet())
    assert {path: path.read_bytes() for path in (here / "copy").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("setting", ["train.seed=1", "model.width=4", "train.batch_size=2", "augment=[]"])
def test_what_changes_results_is_refused(here: Path, setting: str) -> None:
    assert refusal(broken(here, 6), setting) == (
        "--set: a run continues as it began; only train.epochs, train.steps, runtime.device, runtime.threads, "
        "runtime.workers, runtime.checkpoint_minutes can change. For anything else start a new run, with "
        "train.init_from to start from its weights"
    )


def test_other_data_are_refused(here: Path) -> None:
    folder = broken(here, 6)
    (here / "data.h5").unlink()
    write_data(here / "data.h5", train=5, val=1)
    assert refusal(folder) == (
        f"{folder}: '{here}/data.h5' has changed and holds other data now; bring back what the run began with, or "
        "start a new run, with train.init_from where the weights are wanted"
    )


def test_other_folds_are_refused(here: Path) -> None:
    names = [f"square_{index}" for index in range(6)]
    Folds((tuple(names[:3]), tuple(names[3:]))).write(here / "folds.json")
    folder = broken(here, 6, text=EXPERIMENT + '[validation]\nfolds = "folds.json"\nfold = 1\n')
    Folds((tuple(names[1:4]), (names[0], *names[4:]))).write(here / "folds.json")
    assert f"'{here}/folds.json' has changed and holds other folds now; bring back" in refusal(folder)


def test_other_initial_weights_are_refused_only_where_they_are_read_again(here: Path) -> None:
    first = ran(here, EXPERIMENT)
    broken(here, 6, text=EXPERIMENT, settings=[f"train.init_from={first}", "name=second"])
    second, best = here / "runs" / "second" / "001", first / "checkpoints" / "best.pt"
    checkpoints.save(best, {**checkpoints.load(best), "step": 0})
    said = f"'{best}' has changed and holds other weights now; "
    with pytest.warns(UserWarning, match=f"{said}the run goes on from its own checkpoint"):
        assert resume(second, console=quiet())
    scored = json.loads((second / "result.json").read_text())["baselines"]["initial weights"]
    assert scored == json.loads((first / "result.json").read_text())["val"]["best"]
    for path in [second / "result.json", *(second / "checkpoints").glob("[lp]*.pt")]:
        path.unlink()
    assert f"{said}bring back what the run began with" in refusal(second)


def test_initial_weights_that_are_gone_are_missed_only_where_they_are_read_again(here: Path) -> None:
    first = ran(here, EXPERIMENT)
    broken(here, 6, text=EXPERIMENT, settings=[f"train.init_from={first}", "name=second"])
    second = here / "runs" / "second" / "001"
    shutil.rmtree(first)
    with pytest.warns(UserWarning, match=f"no file '{first}/checkpoints/best.pt'; the run goes on from its own"):
        assert resume(second, console=quiet())
    assert verify(second, console=quiet()).last == 8
    # As a process leaves them that is killed while it replaces the last one.
    (second / "checkpoints" / "last.pt").rename(second / "checkpoints" / "next.pt")
    (second / "result.json").unlink()
    with pytest.warns(UserWarning, match="the run goes on from its own checkpoint"):
        assert resume(second, console=quiet())
    for path in (second / "checkpoints").glob("[lnp]*.pt"):
        path.unlink()
    (second / "result.json").unlink()
    assert f"[train] init_from: no run '{first}'" in refusal(second)


# An edited experiment


def edited(folder: Path, old: str, new: str) -> str:
    """What is said where a text of a run's experiment was replaced."""
    path = folder / "experiment.toml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    said = refusal(folder)
    path.write_text(path.read_text().replace(new, old))
    return said


EDITS = {
    "seed = 0\n": ("seed = 1\n", "train.seed was 0, is 1"),
    "batch_size = 4": ("batch_size = 2", "train.batch_size was 4, is 2"),
    "learning_rate = 0.01": ("learning_rate = 0.1", "optimizer.learning_rate was 0.01, is 0.1"),
    'name = "cross_entropy"': ('name = "dice"', "loss.name was cross_entropy, is dice"),
    "foreground_fraction = 0.0\n": ("foreground_fraction = 0.5\n", "patches.foreground_fraction was 0.0, is 0.5"),
    "width = 2": ("width = 3", "model.width was 2, is 3"),
    '[[augment]]\nname = "reflect"\nx = 0.5\ny = 0.5\n': ("", "augment.reflect was x = 0.5, y = 0.5, is nothing"),
    "deterministic = true\n": ("deterministic = false\n", "runtime.deterministic was True, is False"),
}


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut short; not to be written to."""
    folder = tmp_path_factory.mktemp("half")
    write_data(folder / "data.h5")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return broken(folder, 6, text=EXPERIMENT)


@pytest.mark.parametrize(("old", "new"), EDITS.items())
def test_an_edited_experiment_is_refused(half: Path, here: Path, old: str, new: tuple[str, str]) -> None:
    folder = here / "copy"
    shutil.copytree(half, folder)
    assert edited(folder, old, new[0]).partition(" (")[2] == (
        f"{new[1]}); put it back, or start a new run, with train.init_from to start from its weights"
    )


def test_a_length_is_edited_by_an_option_alone(half: Path, here: Path) -> None:
    folder = here / "copy"
    shutil.copytree(half, folder)
    assert edited(folder, "epochs = 2\n", "epochs = 3\n") == (
        f"{folder}/experiment.toml: is not the experiment of the checkpoint (train.epochs was 2, is 3); put it back, "
        "or start a new run, with train.init_from to start from its weights; --set makes a run longer"
    )


def test_an_edited_experiment_of_a_finished_run_is_named(here: Path, whole: Path) -> None:
    shutil.copytree(whole, here / "copy")
    assert "(train.seed was 0, is 3)" in edited(here / "copy", "seed = 0\n", "seed = 3\n")


def test_where_a_run_computes_may_be_edited(half: Path, here: Path) -> None:
    folder = here / "copy"
    shutil.copytree(half, folder)
    path = folder / "experiment.toml"
    text = path.read_text().replace("workers = 0", "workers = 1").replace("checkpoint_minutes = 10.0", "")
    path.write_text(text.replace('device = "auto"', 'device = "cpu"').replace("threads = 1", "threads = 2"))
    assert resume(folder, console=quiet())
    assert "not as at the beginning: threads was 1, is 2" in (folder / "log.txt").read_text()


def test_a_key_that_a_later_version_added_is_no_edit(half: Path, here: Path) -> None:
    folder = here / "copy"
    shutil.copytree(half, folder)
    path, text = folder / "checkpoints" / "last.pt", (folder / "experiment.toml").read_text()
    state = checkpoints.load(path)
    del state["experiment"]["runtime"]["compile"], state["experiment"]["augment"][0]["y"]
    checkpoints.save(path, state)
    assert "runtime.compile was nothing, is False" in refusal(folder)
    (folder / "experiment.toml").write_text(text.replace("compile = false\n", "").replace("y = 0.5\n", ""))
    assert resume(folder, console=quiet())


# A damaged result


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"steps": 12}', "[" * 100_000, "\0", "other"])
def test_a_damaged_result_is_written_anew(here: Path, whole: Path, text: str) -> None:
    folder = here / "copy"
    shutil.copytree(whole, folder)
    path = folder / "result.json"
    path.write_text(path.read_text().replace('"steps": 12', '"steps": 8') if text == "other" else text)
    assert resume(folder, console=quiet())
    assert kills.differences(whole, folder) == []
    assert f"{path} is damaged, or of another run" in (folder / "log.txt").read_text()
    assert not resume(folder, console=quiet())


def test_a_result_of_another_run_of_the_same_length_is_written_anew(here: Path, whole: Path) -> None:
    folder = here / "copy"
    shutil.copytree(whole, folder)
    found = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**found, "last": {**found["last"], "loss": 0.25}}))
    assert resume(folder, console=quiet())
    assert kills.differences(whole, folder) == []


# A longer run


@pytest.mark.parametrize("begun", ["finished", "cut short"])
def test_a_constant_learning_rate_lets_a_run_be_extended_to_what_a_longer_one_is(here: Path, begun: str) -> None:
    always = ["validation.every=1"]
    longer = ran(here, CONSTANT, [*always, "train.epochs=4", "name=longer"])
    shorter = ran(here, CONSTANT, always) if begun == "finished" else broken(here, 6, text=CONSTANT, settings=always)
    assert resume(shorter, ["train.epochs=4"], console=quiet())
    (here / "runs" / "tiny" / "001" / "result.json").write_text(
        (shorter / "result.json").read_text().replace('"tiny"', '"longer"')
    )
    assert kills.differences(longer, shorter) == []
    assert "epochs = 4" in (shorter / "experiment.toml").read_text()
    (noted,) = RunDirectory(shorter).read_environment()["extended"]
    assert (noted["from_steps"], noted["to_steps"]) == (8, 16)
    kept = shorter / "result_8_steps.json"
    assert kept.exists() == (begun == "finished")
    if kept.exists():
        assert json.loads(kept.read_text())["steps"] == 8


def test_a_run_may_be_cut_short_while_it_is_extended(here: Path) -> None:
    longer = ran(here, CONSTANT, ["train.epochs=4", "name=longer"])
    shorter = ran(here, CONSTANT)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(PowerCut):
        cut(patched, 9, "power")
        resume(shorter, ["train.epochs=4"], console=quiet())
    assert resume(shorter, console=quiet())
    assert checkpoints.load(shorter / "checkpoints" / "last.pt")["experiment"]["train"]["epochs"] == 4
    assert (shorter / "checkpoints" / "best.pt").read_bytes() == (longer / "checkpoints" / "best.pt").read_bytes()


def test_power_may_fail_before_the_checkpoint_of_a_longer_run(here: Path) -> None:
    def fails(self: RunContext) -> None:
        raise PowerCut

    folder = ran(here, CONSTANT)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(RunContext, "save", fails)
        resume(folder, ["train.epochs=4"], console=quiet())
    assert "(train.epochs was 2, is 4)" in refusal(folder)
    assert resume(folder, ["train.epochs=4"], console=quiet())
    assert json.loads((folder / "result.json").read_text())["steps"] == 16


def test_a_run_that_stopped_early_can_be_extended(here: Path) -> None:
    still = ["validation.patience=1", "validation.every=1", "optimizer.learning_rate=1e-12", "model.norm=none"]
    folder = ran(here, CONSTANT, ["train.epochs=4", *still])
    assert json.loads((folder / "result.json").read_text())["steps"] == 8
    assert resume(folder, ["train.epochs=6"], console=quiet())
    found = json.loads((folder / "result.json").read_text())
    assert (found["steps"], found["planned_steps"], found["stopped_early"]) == (12, 24, True)


def test_a_shorter_length_extends_nothing(here: Path) -> None:
    folder = broken(here, 5, text=CONSTANT.replace("epochs = 2", "epochs = 9"))
    assert refusal(folder, "train.epochs=4") == (
        "--set: 36 steps are planned; a length of 16 steps does not extend them"
    )


def test_a_best_checkpoint_that_was_saved_last_before_a_kill_is_scored_itself(here: Path) -> None:
    """Of a later step than the newest one; the repeated steps need not come to weights that are better, as on a GPU."""
    folder = ran(here, CONSTANT)
    path, state = folder / "checkpoints/best.pt", checkpoints.load(folder / "checkpoints/last.pt")
    assert RunDirectory(folder).read_result()["best"]["step"] == 8, "the last one, which is put aside"
    (folder / "result.json").unlink()
    checkpoints.save(folder / "checkpoints/last.pt", {**state, "best": {**state["best"], "step": 4, "value": 0.99}})
    resume(folder, console=quiet())
    best, last = (RunDirectory(folder).read_result()["val"][which] for which in ("best", "last"))
    assert RunDirectory(folder).read_result()["best"]["step"] == checkpoints.load(path)["step"] == 8 and best == last


def test_a_fitted_learning_rate_is_no_other_in_the_middle(here: Path) -> None:
    assert refusal(ran(here, EXPERIMENT), "train.epochs=4") == (
        "--set: [scheduler] 'one_cycle' was fitted to 8 steps: in a run of 16 steps the learning rate would have been "
        "another from update 1 on; start a new run"
    )


def test_what_is_done_cannot_be_undone(here: Path) -> None:
    assert refusal(ran(here, CONSTANT), "train.epochs=1") == (
        "--set: 8 steps are done; a length of 4 steps does not extend them"
    )


def test_patches_that_were_not_augmented_are_not_those_of_a_longer_run(here: Path) -> None:
    text = CONSTANT.replace("[[augment]]", '[[augment]]\nname = "gamma"\n[[augment]]', 1)
    assert refusal(ran(here, text, ["train.epochs=5", "train.plain_steps=3"]), "train.epochs=6") == (
        "--set: steps 18 to 20 had not all augmentations ([train] plain_steps = 3), which they would have in a run "
        "of 24 steps; start a new run"
    )


def test_a_run_all_of_whose_augmentations_stay_to_the_end_can_be_longer(here: Path) -> None:
    """As these only reflect and rotate: `plain_steps` leaves nothing out."""
    settings = ["validation.every=1", "train.plain_steps=3"]
    longer, shorter = (ran(here, CONSTANT, [*settings, f"train.epochs={count}"]) for count in (6, 5))
    assert "all augmentations" not in (shorter / "log.txt").read_text()
    resume(shorter, ["train.epochs=6"], console=quiet())
    found = [checkpoints.load(folder / "checkpoints" / "last.pt")["model"] for folder in (longer, shorter)]
    assert checkpoints.first_difference(*found) is None


def test_a_group_cannot_be_split(here: Path) -> None:
    settings = ["train.accumulation_steps=4", "train.steps=6"]
    assert refusal(ran(here, CONSTANT, settings), "train.steps=8") == (
        "--set: step 6 would lie within a group of [train] accumulation_steps = 4 steps of the longer run; start a new "
        "run"
    )
