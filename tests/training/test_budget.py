"""A command with a budget is over in time, and leaves the best weights that there was time for."""

from __future__ import annotations

import csv
import json
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ignite.engine import Engine
from tiny import EXPERIMENT, quiet, write_experiment

from yeastexp.config.loading import load_experiment
from yeastexp.errors import UserError
from yeastexp.training import budget as budget_module
from yeastexp.training import checkpoints
from yeastexp.training.budget import Budget
from yeastexp.training.build import Assembly, learning_rates, schedule_of
from yeastexp.training.context import as_planned
from yeastexp.training.handlers.stopping import StopByBudget
from yeastexp.training.progress import Best, Progress
from yeastexp.training.resume import resume
from yeastexp.training.run import run
from yeastexp.training.timing import assembled
from yeastexp.training.verify import verify

RUN = Path("runs/tiny/001")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def assembly(here: Path) -> Assembly:
    """Four steps an epoch, two validation images, one test image as large."""
    text = EXPERIMENT.replace("epochs = 2", 'budget = "100s"')
    return assembled(load_experiment(write_experiment(here, text, test=1), ["validation.every=2"]))[0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, which stands still."""
    now = [1000.0]
    monkeypatch.setattr(budget_module.time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def planned(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch, step: float, validation: float, written: str = "100s"
) -> tuple[Budget, int]:
    monkeypatch.setattr(budget_module, "seconds_of_validation", lambda *anything: validation)
    budget = Budget(written, 1000.0)
    steps = budget.plan(assembly, step).train.steps
    assert steps is not None
    return budget, steps


def test_a_budget_holds_so_many_steps(assembly: Assembly, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 s 6 are a reserve, 6 for closing, 2.5 times 2 s for validation, test and pictures; 8 steps share one."""
    _, steps = planned(assembly, monkeypatch, step=0.5, validation=2.0)
    assert steps == int((100 - 6 - 6 - 2 * (1 + 0.5 + 1)) / (0.5 + 2 / 8))
    clock[0] += 30
    _, later = planned(assembly, monkeypatch, step=0.5, validation=2.0)
    assert later == int((100 - 30 - 6 - 6 - 5) / 0.75)


@pytest.mark.parametrize(("seconds", "affordable"), [(10.0, True), (10.1, False)])
def test_initial_weights_are_scored_where_it_takes_a_small_share(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch, seconds: float, affordable: bool
) -> None:
    monkeypatch.setattr(budget_module, "seconds_of_validation", lambda *anything: seconds)
    budget = Budget("100s", 1000.0)
    assert (budget.affords_validation(assembly), budget.validation) == (affordable, seconds)


@pytest.mark.parametrize(
    ("written", "count", "wanted"), [("60s", 100, 20), ("5m", 100, 100), ("2h", 100, 100), ("7s", 40, 1)]
)
def test_short_budgets_compose_fewer_scenes(here: Path, written: str, count: int, wanted: int) -> None:
    path = write_experiment(here)
    setting = f'augment=[{{name="reflect"}}, {{name="pasted_cells", count={count}, p=0.25}}]'
    experiment = load_experiment(path, [setting])
    reflect, pasted = Budget(written, 0.0).fewer_scenes(experiment).augmentations
    assert reflect == experiment.augmentations[0]
    assert (pasted.build().count, pasted.build().p, pasted.place) == (wanted, 0.25, experiment.augmentations[1].place)


def test_no_time_for_a_validation_is_time_for_steps(
    assembly: Assembly, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(assembly, monkeypatch, step=1.0, validation=60.0)[1] == 88
    assert planned(assembly, monkeypatch, step=89.0, validation=60.0)[1] == 1, "with no more time than to leave Python"
    said = (
        r"^\[train\] budget: 100s is too short; 0.0 s went by before the first step, a step takes 98.00 s, a "
        r"validation 60.0 s$"
    )
    with pytest.raises(UserError, match=said):
        planned(assembly, monkeypatch, step=98.0, validation=60.0)
    clock[0] += 90
    assert planned(assembly, monkeypatch, step=0.5, validation=0.1)[1] == 7, "of 10 s, 6 for closing, 0.3 for scores"
    with pytest.raises(UserError, match=r"90.0 s went by before the first step, a step takes 5.00 s"):
        planned(assembly, monkeypatch, step=5.0, validation=0.1)
    clock[0] += 9
    with pytest.raises(UserError, match=r"budget: 100s is too short; 99.0 s went by before the first step"):
        planned(assembly, monkeypatch, step=0.1, validation=0.1)


def test_it_is_late_by_what_steps_and_validations_took_lately(
    assembly: Assembly, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget, _ = planned(assembly, monkeypatch, step=0.5, validation=2.0)
    for moment, late in ((88.4, False), (88.6, True)):  # a step, 2.5 validations' worth and 6 s do not fit any more
        clock[0] = 1000 + moment
        assert budget.late(3) is late
    budget.validated = False
    clock[0] = 1000 + 87.0
    assert budget.late(8), "a validation comes first"
    budget._begin()
    clock[0] += 5
    budget._complete()
    assert [budget.late(3), max(budget.steps)] == [True, 5.0]
    budget.completed, clock[0] = 1040.0, 1045.0
    budget._end_in_time()
    clock[0] += 4
    budget._begin()
    assert budget.validation == 9.0, "from the last step of an epoch to the next one's first"


@pytest.mark.parametrize("begins", [0, 20, 50, 55], ids=lambda moment: f"from {moment} s on")
@pytest.mark.parametrize("slower", [1, 1.5, 3, 10], ids=lambda factor: f"{factor} times slower")
def test_a_run_ends_in_time_and_with_its_learning_rate(
    assembly: Assembly, clock: list[float], monkeypatch: pytest.MonkeyPatch, begins: float, slower: float
) -> None:
    """Of 100 s, on a clock that is pretended: a step was timed to take 0.1 s."""
    budget, steps = planned(assembly, monkeypatch, step=0.1, validation=0.5)
    progress, schedule = Progress(Best(higher_is_better=True)), schedule_of(assembly, steps)

    def asked(step: int) -> tuple[bool, int | None]:
        return budget.late(step), None if progress.remade else budget.earlier(step)

    handler, trainer = StopByBudget(asked, schedule, progress), SimpleNamespace(state=SimpleNamespace(iteration=0))
    budget.attach(Engine(lambda *_: None), Engine(lambda *_: None))
    remade = set()
    while progress.stopped is None and trainer.state.iteration < steps:
        budget._begin()
        clock[0] += 0.1 * (slower if clock[0] >= 1000 + begins else 1)
        trainer.state.iteration += 1
        budget._complete()
        handler.look(trainer)
        remade.add(progress.remade)
        if trainer.state.iteration % 8 == 0 and progress.stopped is None:
            clock[0] += 0.5 * (slower if clock[0] >= 1000 + begins else 1)
            budget.validated = True
    step = trainer.state.iteration
    assert clock[0] + 2.5 * 0.5 * slower < 1100 - 5 and len(remade - {None}) == (slower > 1)
    assert clock[0] > 1000 + (65 if slower > 3 else 80), "time is used"
    rates = [groups[0] for groups in learning_rates(assembly.experiment, steps, steps)]
    assert rates[min(progress.scheduled(schedule, step), steps - 1)] < 0.02 * max(rates)
    if slower > 1:
        assert 0 <= progress.remade.end - step <= (begins > 50) and progress.remade.end < steps


@pytest.mark.parametrize("first", [0.4, 1.0, 2.5], ids=lambda seconds: f"first validation {seconds} s")
@pytest.mark.parametrize("slower", [1, 2, 4], ids=lambda factor: f"{factor} times slower")
def test_a_short_budget_ends_with_its_learning_rate(
    assembly: Assembly, clock: list[float], monkeypatch: pytest.MonkeyPatch, first: float, slower: float
) -> None:
    """Of 30 s, of which 9 go by before the first step; the first validation takes longer than later ones."""
    clock[0] += 9
    budget, steps = planned(assembly, monkeypatch, step=0.1, validation=0.4, written="30s")
    progress, schedule = Progress(Best(higher_is_better=True)), schedule_of(assembly, steps)

    def asked(step: int) -> tuple[bool, int | None]:
        return budget.late(step), None if progress.remade else budget.earlier(step)

    handler, trainer = StopByBudget(asked, schedule, progress), SimpleNamespace(state=SimpleNamespace(iteration=0))
    budget.attach(Engine(lambda *_: None), Engine(lambda *_: None))
    while progress.stopped is None and trainer.state.iteration < steps:
        budget._begin()
        clock[0] += 0.1 * slower
        trainer.state.iteration += 1
        budget._complete()
        handler.look(trainer)
        if trainer.state.iteration % 8 == 0 and progress.stopped is None:
            clock[0] += first if trainer.state.iteration == 8 else 0.4
            budget.validated = True
    rates = [groups[0] for groups in learning_rates(assembly.experiment, steps, steps)]
    assert rates[min(progress.scheduled(schedule, trainer.state.iteration), steps - 1)] < 0.1 * max(rates)
    assert 1015 < clock[0] < 1030 - 5.3


def test_a_machine_that_slows_down_ends_the_run_in_time(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take fifty times as long as was measured; the run has its result, and says what was planned."""
    monkeypatch.setattr(budget_module, "CLOSING_SECONDS", 1.5)
    monkeypatch.setattr(budget_module, "LEAVING_SECONDS", 0.1)
    monkeypatch.setattr(budget_module, "seconds_per_step", lambda *anything, **limits: 0.005)
    forward = Assembly.loss

    def slow(self: Assembly, *given: Any) -> Any:
        time.sleep(0.25)
        return forward(self, *given)

    monkeypatch.setattr(Assembly, "loss", slow)
    began = time.monotonic()
    folder = run(write_experiment(here), ["train.budget=8s"], console=quiet())
    assert time.monotonic() - began < 8
    result = json.loads((folder / "result.json").read_text())
    assert result["stopped_by_budget"] and 1 <= result["steps"] < result["planned_steps"]
    train = tomllib.loads((folder / "experiment.toml").read_text())["train"]
    assert train["steps"] == result["planned_steps"]


@pytest.mark.parametrize(("steps", "at"), [(6, 4), (6, 6), (3, 3)])
def test_weights_that_there_was_no_time_to_score_are_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch, steps: int, at: int
) -> None:
    """In the middle of an epoch, at its end, and at the end of the run; the run can be gone on with."""
    monkeypatch.setattr(Budget, "plan", _plan(steps))
    monkeypatch.setattr(Budget, "late", lambda self, step: step >= at)
    monkeypatch.setattr(Budget, "earlier", lambda self, step: as_planned(step))
    monkeypatch.setattr(Budget, "_end_in_time", _over)
    with pytest.raises(UserError) as caught:
        run(write_experiment(here), ["train.budget=90s", "validation.every=9"], console=quiet())
    assert caught.value.status == 1
    assert str(caught.value) == (
        f"{RUN}: the budget was over before the weights after step {at} of {steps} were scored; they are in "
        f"checkpoints/last.pt; python -m yeastexp resume {RUN} continues from there"
    )
    assert checkpoints.load(RUN / "checkpoints/last.pt")["step"] == at
    assert not (RUN / "result.json").exists()
    resume(RUN, console=quiet())
    result = json.loads((RUN / "result.json").read_text())
    assert result["steps"] == steps and not result["stopped_by_budget"]
    assert not resume(RUN, console=quiet()), "it is concluded"
    assert verify(RUN, console=quiet()).last == steps
    rows = [*csv.DictReader((RUN / "metrics.csv").read_text().splitlines())]
    assert int(rows[-1]["step"]) == steps and int(rows[-1]["epoch"]) == -(-steps // 4) and rows[-1]["val/loss"]


def _plan(steps: int) -> Callable[..., Any]:
    def plan(self: Budget, assembly: Assembly, step: float | None = None) -> Any:
        return replace(assembly.experiment, train=replace(assembly.experiment.train, budget=None, steps=steps))

    return plan


def _over(self: Budget) -> None:
    raise budget_module.BudgetOver("over")


def test_a_budget_that_is_over_is_answered_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the data are read."""
    monkeypatch.setattr("yeastexp.training.run.assembled", None)
    with pytest.raises(UserError, match=r"\[train\] budget: 1s is too short; 2.\d s went by before the first step"):
        run(write_experiment(here), ["train.budget=1s"], started=time.monotonic() - 2, console=quiet())
    assert not (here / "runs").exists()
