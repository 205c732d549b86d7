"""The command that trains many trials of an experiment: `sweep`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yeastexp.cli.options import ANY, EXPERIMENT, FILE, JSON, POSITIVE, SET, TRUST
from yeastexp.errors import UserError
from yeastexp.system.terminal import echo

if TYPE_CHECKING:
    from yeastexp.evaluation.sweep.folder import PrunerName, SamplerName


@click.command(short_help="Search the values of an experiment's keys.")
@click.argument("experiment", type=EXPERIMENT)
@click.option("--space", type=FILE, required=True, metavar="FILE", help="TOML: keys with a range or choices each.")
@click.option("--trials", type=POSITIVE, default=50, show_default=True, metavar="N", help="Of all processes together.")
@click.option(
    "--repeats",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    metavar="N",
    help="Other seeds to train the best trial with.",
)
@click.option("--jobs", type=POSITIVE, default=1, show_default=True, metavar="N", help="Processes on this machine.")
@click.option("--storage", metavar="URL", help="A database; default a journal file in the sweep's folder.")
@click.option(
    "--sampler", type=click.Choice(["tpe", "gp", "random"]), default="tpe", show_default=True, help="Proposes values."
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "wilcoxon", "none"]),
    default="median",
    show_default=True,
    help="Ends bad trials: below the median, or worse than the best image by image.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the sampler.")
@click.option("-o", "--output", type=ANY, metavar="DIR", help="The sweep's folder; default runs/NAME_sweep.")
@SET
@JSON
@TRUST
def sweep(
    experiment: Path,
    space: Path,
    trials: int,
    repeats: int,
    jobs: int,
    storage: str | None,
    sampler: SamplerName,
    pruner: PrunerName,
    seed: int,
    output: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train an experiment with other values of its keys, proposed by Optuna, and the best ones again with other seeds.

    Each trial is a run directory. The same command, also on other machines that share the folder or the database,
    joins the sweep; if interrupted, it goes on. What another process leaves behind unfinished is taken up. A larger
    --trials adds some.

    Example: python -m yeastexp sweep experiments/base.toml --space docs/sweep/space.toml --trials 20
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("sweep: needs another package; pip install optuna") from None
    from yeastexp.evaluation.sweep.findings import findings, table
    from yeastexp.evaluation.sweep.folder import RECORD
    from yeastexp.evaluation.sweep.sweep import Request, sweep
    from yeastexp.system.console import console

    request = Request(experiment, space, settings, trials, repeats, jobs, storage, sampler, pruner, seed, output)
    folder = sweep(request, say=partial(echo, err=True))
    if as_json:
        echo(*json.dumps(json.loads((folder.path / RECORD).read_text(encoding="utf-8")), indent=1).splitlines())
        return
    record = folder.read()
    its_console = console()
    its_console.print(table(record))
    echo(*findings(record), folder.path)
