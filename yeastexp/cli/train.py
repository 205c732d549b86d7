"""Commands that train: `run`, `resume`, `verify`, `crossval`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import click

from yeastexp.cli.options import ANY, EXPERIMENT, JSON, POSITIVE, RUN, SET, TRUST
from yeastexp.cli.together import joined
from yeastexp.errors import UserError
from yeastexp.system import deadline
from yeastexp.system.terminal import echo


@click.command(short_help="Train and evaluate an experiment.")
@click.argument("experiment", type=EXPERIMENT)
@SET
@click.option("--budget", metavar="TIME", help="Wall-clock time of the whole command (90s, 5m), instead of a length.")
@click.option("--profile", type=POSITIVE, metavar="N", help="Profile N training steps and print where time is spent.")
@TRUST
@click.pass_obj
def run(started: float, experiment: Path, settings: tuple[str, ...], budget: str | None, profile: int | None) -> None:
    """Train and evaluate an experiment; the last line printed is its run directory.

    Example: python -m yeastexp run experiments/base.toml --set train.epochs=2
    """
    with _answered(budget, started) as end:
        with deadline.loading(end, _too_short(budget)) if budget and end else nullcontext():
            from yeastexp.system.console import console
            from yeastexp.training.run import run
        if budget:
            settings = (*settings, f"train.budget={json.dumps(budget)}")
        with joined():
            echo(run(experiment, settings, started=started, console=console(), profiled=profile or 0))


def _too_short(budget: str) -> str:
    return f"[train] budget: {budget} is too short to begin with"


@contextmanager
def _answered(budget: str | None, started: float) -> Iterator[float | None]:
    """Hold a budget while libraries are loaded as well, which takes long on a busy machine.

    Gives the time at which the command has to end, None without a valid budget. Raises UserError if that has passed.
    """
    # An invalid budget is reported later, with all other faults of the experiment.
    from yeastexp.config.settings import seconds

    try:
        end = started + seconds(budget) - deadline.LEAVING_SECONDS if budget else None
    except (ValueError, KeyError):
        end = None
    if budget is None or end is None:
        yield None
        return
    with deadline.at(end, lambda: UserError(_too_short(budget))):
        yield end


@click.command(short_help="Continue an interrupted run, exact to the bit.")
@RUN
@SET
@TRUST
@click.pass_obj
def resume(started: float, run_directory: Path, settings: tuple[str, ...]) -> None:
    """Continue an interrupted run from its newest intact checkpoint; the result is the same to the bit.

    A finished run is left as it is. Other files than the run read, and an edited experiment.toml, are refused. --set
    can change runtime.device, threads, workers and checkpoint_minutes. A larger train.epochs or train.steps extends a
    run whose learning-rate schedule does not depend on its length.

    Example: python -m yeastexp resume runs/base/001
    """
    from yeastexp.system.console import console
    from yeastexp.training.resume import resume

    with joined():
        if not resume(run_directory, settings, started=started, console=console()):
            remedy = "with a constant learning rate, a larger train.epochs extends it"
            echo(f"{run_directory}: already finished; {remedy}", err=True)
        echo(run_directory)


@click.command(short_help="Repeat the end of a run and compare it bit by bit.")
@RUN
@TRUST
def verify(run_directory: Path) -> None:
    """Repeat the training steps between a run's last two checkpoints and compare the results bit by bit.

    If they differ, the first difference is printed and the exit status is 1. The run directory is not changed.

    Example: python -m yeastexp verify runs/base/001
    """
    from yeastexp.system.console import console
    from yeastexp.training.verify import verify

    verified = verify(run_directory, console=console())
    for line in verified.elsewhere:
        echo(f"note: {line}", err=True)
    echo(f"steps {verified.first} to {verified.last} repeated: {verified.compared} values, all bits equal")


@click.command(short_help="Train once per fold; score out-of-fold predictions.")
@click.argument("experiment", type=EXPERIMENT)
@SET
@click.option("--folds", default="5", show_default=True, metavar="K|FILE", help="How many folds, or a file of folds.")
@click.option("--repeats", type=POSITIVE, default=1, show_default=True, help="How many seeds to train each fold with.")
@click.option("--group-by", metavar="REGEX", help="Keep images whose names agree in what it matches in one fold.")
@click.option("--blocks", is_flag=True, help="Keep images (or groups) that are neighbours by name in one fold.")
@click.option("-o", "--output", type=ANY, metavar="DIR", help="Where to write, or a cross-validation to continue.")
@click.option("--jobs", type=POSITIVE, default=1, show_default=True, metavar="N", help="Folds at a time, as processes.")
@JSON
@TRUST
def crossval(
    experiment: Path,
    settings: tuple[str, ...],
    folds: str,
    repeats: int,
    group_by: str | None,
    blocks: bool,
    output: Path | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Cross-validate an experiment: train it once per fold and score the out-of-fold predictions of every image.

    Each fold is a run directory of its own; the folds are written to a file that other experiments can use. The
    last checkpoint is scored: the best would have been selected on the images it is scored on. With --jobs, or under
    torchrun, several folds are trained at a time; if one fails, the others end after their step. The same command with
    -o continues what was interrupted.

    Example: python -m yeastexp crossval experiments/base.toml --folds 6 --repeats 3
    """
    from yeastexp.evaluation import out_of_fold
    from yeastexp.evaluation.crossval import crossval
    from yeastexp.system.console import console

    with joined() as among:
        folder = crossval(
            experiment,
            settings,
            folds=int(folds) if folds.isdecimal() else Path(folds),
            repeats=repeats,
            group_by=group_by,
            blocks=blocks,
            output=output,
            jobs=jobs,
            console=console(stderr=as_json),
            say=partial(echo, err=True),
        )
        if among.writes:
            echo(*(folder / out_of_fold.RESULT).read_text(encoding="utf-8").splitlines() if as_json else [folder])
