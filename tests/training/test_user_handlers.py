"""Handlers that a file names under `[[handler]]`: what they are given, and their state in a resumed run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import kills
import pytest
import torch
from test_resume import RUN, broken, here, ran
from tiny import EXPERIMENT, quiet, write_data

from yeastexp import plugins
from yeastexp.errors import UserError
from yeastexp.training import checkpoints
from yeastexp.training.handlers.stopping import PauseWhenInterrupted
from yeastexp.training.resume import resume
from yeastexp.training.verify import verify

__all__ = ["here"]

ENDING = """
from ignite.engine import Events
from yeastexp import handler


@handler("ending")
class Ending:
    def __init__(self, context, step: int, event: str = "ITERATION_COMPLETED") -> None:
        self.step, self.event = step, Events[event]

    def attach(self, trainer, validator) -> None:
        trainer.add_event_handler(self.event, lambda: trainer.state.iteration == self.step and trainer.terminate())
"""

PLUGIN = '''
import torch
from ignite.engine import Events
from yeastexp import handler
from yeastexp.training.step import TrainingEvents


@handler("pull")
class Pull:
    """Pulls all weights toward what they were some updates ago, the more the higher the loss was."""

    def __init__(self, context, every: int = 3, share: float = 0.5) -> None:
        self.model, self.every, self.share = context.model, every, share
        self.weights = [p.detach().clone() for p in self.model.parameters()]
        self.updates, self.scores = 0, []

    def attach(self, trainer, validator) -> None:
        trainer.add_event_handler(TrainingEvents.UPDATE_COMPLETED, self.pull)
        validator.add_event_handler(Events.COMPLETED, lambda engine: self.scores.append(engine.state.metrics["loss"]))

    @torch.no_grad()
    def pull(self) -> None:
        self.updates += 1
        for p, old in zip(self.model.parameters(), self.weights):
            p.lerp_(old, self.share)
        if self.updates % self.every == 0:
            self.weights = [p.detach().clone() for p in self.model.parameters()]

    def state_dict(self) -> dict:
        return {"weights": self.weights, "updates": self.updates, "scores": {"loss": self.scores}, "name": "pull"}

    def load_state_dict(self, state) -> None:
        self.weights, self.updates, self.scores = list(state["weights"]), state["updates"], state["scores"]["loss"]


@handler("notes")
class Notes:
    """Writes into the run directory what it is given and sees."""

    def __init__(self, context, file: str = "notes.txt") -> None:
        self.context, self.path = context, context.folder / file
        self.write(f"{context.steps} steps, {context.steps_per_epoch} an epoch, on {context.device.type}")
        (images, targets), *_ = context.batches(0, 2)
        self.write(f"{tuple(images.shape)} {tuple(targets.shape)}")
        before = [p.detach().clone() for p in context.model.parameters()]
        with context.trial() as (trial, model, optimizer):
            trial.run(context.batches(0, 2), max_epochs=1, epoch_length=2)
        moved = any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
        stayed = all(torch.equal(a, b) for a, b in zip(before, context.model.parameters()))
        self.write(f"trial: moved {moved}, stayed {stayed}, engines {context.trainer is not trial}")

    def write(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(line + "\\n")

    def attach(self, trainer, validator) -> None:
        @trainer.on(Events.EPOCH_COMPLETED)
        def note() -> None:
            self.write(f"epoch {trainer.state.epoch}: {trainer.state.updates} updates")

        @validator.on(Events.COMPLETED)
        def score() -> None:
            self.write(", ".join(sorted(validator.state.metrics)))

    def close(self) -> None:
        self.write("closed")


@handler("odd")
class Odd:
    """Has a state that no checkpoint can hold."""

    def __init__(self, context, kind: str = "set") -> None:
        self.kind = kind

    def attach(self, trainer, validator) -> None:
        pass

    def state_dict(self) -> dict:
        import numpy as np

        odd = {"set": {1, 2}, "array": np.zeros(2), "number": np.float64(0.5), "device": torch.device("cpu")}
        return {"kept": [1.5], "deep": [{"inner": odd[self.kind]}]}

    def load_state_dict(self, state) -> None:
        pass


@handler("failing")
class Failing:
    """Fails at a step, at its end, or never."""

    def __init__(self, context, step: int = 99, at_end: bool = True) -> None:
        self.step, self.at_end = step, at_end

    def attach(self, trainer, validator) -> None:
        @trainer.on(Events.ITERATION_COMPLETED(once=self.step))
        def fail() -> None:
            raise ZeroDivisionError("at its step")

    def close(self) -> None:
        if self.at_end:
            raise LookupError("at its end")


@handler("nothing")
def nothing(context) -> object:
    """Makes no handler."""
    return object()
'''


def text(*handlers: str, options: str = "epochs = 3\naccumulation_steps = 3\nema_decay = 0.9") -> str:
    """An experiment of twelve steps, four an epoch, with handlers (and keys of theirs)."""
    tables = "".join(f"[[handler]]\nname = {name}\n" for name in handlers)
    return 'plugins = ["parts.py"]\n' + EXPERIMENT.replace("epochs = 2", options) + tables


@pytest.fixture
def plugin(here: Path) -> Path:
    """The plugin beside the experiment."""
    (here / "parts.py").write_text(PLUGIN)
    return here


def test_a_handler_is_given_the_run(plugin: Path) -> None:
    run = ran(plugin, text('"notes"\nfile = "seen.txt"'))
    assert (run / "seen.txt").read_text().splitlines() == [
        "12 steps, 4 an epoch, on cpu",
        "(4, 1, 16, 16) (4, 1, 16, 16)",
        "trial: moved True, stayed True, engines True",
        "epoch 1: 2 updates",
        "epoch 2: 4 updates",
        "accuracy, iou/background, iou/cell, iou/mean, loss",
        "epoch 3: 6 updates",
        "closed",
    ]


def test_a_handler_that_only_looks_changes_no_result(plugin: Path) -> None:
    """Nor does what it does with copies and with batches of its own."""
    looking, alone = (ran(plugin, text(*handlers)) for handlers in (['"notes"'], []))
    for path in (folder / "checkpoints" / name for folder in (looking, alone) for name in ("best.pt", "last.pt")):
        state = checkpoints.load(path)
        state["experiment"].pop("handler", None)  # only the name of the experiment is another
        checkpoints.save(path, state)
    assert kills.differences(looking, alone) == []


PULLED = text('"pull"').replace("[runtime]\n", "[runtime]\ncheckpoint_minutes = 1e-9\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a handler that has a state, which nobody disturbed; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder / "data.h5")
    (folder / "parts.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patched, plugins.preserved():
        patched.chdir(folder)
        return ran(folder, PULLED)


@pytest.mark.parametrize("by", ["power", "a wish"])
@pytest.mark.parametrize("step", [3, 6, 7, 8, 11])
def test_a_resumed_run_with_the_state_of_a_handler_is_exact(plugin: Path, whole: Path, step: int, by: str) -> None:
    """Between checkpoints and at them, in the middle of an epoch too."""
    cut = broken(plugin, step, by, text=PULLED)
    torch.manual_seed(step)
    assert resume(cut, console=quiet())
    assert kills.differences(whole, cut) == []
    last = checkpoints.load(cut / "checkpoints" / "last.pt")["handlers"]["[[handler]] 0 'pull'"]
    assert last["updates"] == 6 and last["scores"]["loss"]
    assert "starts afresh" not in (cut / "log.txt").read_text()
    assert verify(cut, console=quiet()).last == 12


def test_it_does_have_a_say_in_the_result(plugin: Path) -> None:
    """Otherwise the test above would say nothing."""
    one, other = (ran(plugin, text(*handlers)) for handlers in (['"pull"'], []))
    assert "last.pt" in str(kills.differences(one, other)) and "best.pt" in kills.differences(one, other)


def test_the_log_says_which_handler_starts_afresh(plugin: Path) -> None:
    cut = broken(plugin, 6, "a wish", text=text('"pull"', '"notes"'))
    assert resume(cut, console=quiet())
    lines = [line for line in (cut / "log.txt").read_text().splitlines() if "afresh" in line]
    assert [line.partition(" ")[2] for line in lines] == [
        "[[handler]] 1 'notes' has no state in the checkpoint (no 'state_dict'): it starts afresh"
    ]


@pytest.mark.parametrize(
    ("kind", "type_name"), [("set", "set"), ("array", "ndarray"), ("number", "float64"), ("device", "device")]
)
def test_a_state_that_cannot_be_kept_is_said_before_the_first_step(plugin: Path, kind: str, type_name: str) -> None:
    with pytest.raises(UserError) as caught:
        ran(plugin, text(f'"odd"\nkind = "{kind}"'))
    assert str(caught.value) == (
        f"[[handler]] 0 'odd': its state cannot be kept: 'deep.0.inner' is of type {type_name}; 'state_dict' gives "
        "tensors and plain values"
    )
    assert caught.value.faults == (str(caught.value),)
    assert not list((plugin / "runs").rglob("*.pt")), "no checkpoint that could not be read"


def test_what_is_no_handler_is_refused(plugin: Path) -> None:
    with pytest.raises(UserError) as caught:
        ran(plugin, text('"nothing"'))
    line = 1 + text('"nothing"').splitlines().index('name = "nothing"')
    assert str(caught.value).startswith(f"{plugin}/tiny.toml:{line}")
    assert str(caught.value).endswith("[[handler]] name: 'nothing' has no 'attach'")


def test_handlers_are_closed_however_training_ends(plugin: Path) -> None:
    """The exception of the step is the one that is raised."""
    with pytest.raises(ZeroDivisionError, match="at its step"):
        ran(plugin, text('"failing"\nstep = 2\nat_end = false', '"notes"'))
    assert (plugin / RUN / "notes.txt").read_text().splitlines()[-1] == "closed"


def test_one_that_fails_at_its_end_keeps_no_other_from_its_own(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals act at once again, and other handlers are closed."""
    gently: list[bool] = []
    close = PauseWhenInterrupted.close

    def then(self: PauseWhenInterrupted) -> None:
        close(self)
        gently.append(self.interruption.gently)

    monkeypatch.setattr(PauseWhenInterrupted, "close", then)
    with pytest.raises(LookupError, match="at its end"):
        ran(plugin, text('"failing"', '"notes"'))
    assert gently == [False]
    assert (plugin / RUN / "notes.txt").read_text().splitlines()[-1] == "closed"


@pytest.mark.parametrize(
    ("step", "event"), [(3, "ITERATION_COMPLETED"), (4, "EPOCH_COMPLETED"), (8, "EPOCH_COMPLETED")]
)
def test_a_handler_may_end_the_run(here: Path, step: int, event: str) -> None:
    """With a last validation and a result, as a run that stopped early."""
    (here / "ending.py").write_text(ENDING)
    text = f'{EXPERIMENT}[[handler]]\nname = "ending"\nstep = {step}\nevent = "{event}"\n'
    folder = ran(here, f'plugins = ["ending.py"]\n{text}[validation]\nevery = 2\n')
    result = json.loads((folder / "result.json").read_text())
    assert (result["steps"], result["stopped_early"]) == (step, step < 8)
    rows = [*csv.DictReader((folder / "metrics.csv").read_text().splitlines())]
    assert [int(row["step"]) for row in rows] == list(range(4, step + 1, 4) if step % 4 == 0 else [step])
    assert not resume(folder, console=quiet()) and verify(folder, console=quiet()).last == step


def test_a_handler_ends_no_run_within_a_group(here: Path) -> None:
    (here / "ending.py").write_text(ENDING)
    text = EXPERIMENT.replace("epochs = 2", "epochs = 2\naccumulation_steps = 2")
    with pytest.raises(UserError, match="a handler ended the training after step 3, in the middle of a group of 2"):
        ran(here, f'plugins = ["ending.py"]\n{text}[[handler]]\nname = "ending"\nstep = 3\n')
