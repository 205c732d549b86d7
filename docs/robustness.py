"""Two tables and the plot of `robustness.md`, from the scores of runs in `robustness/runs.csv`.

    python -m docs.robustness
    python -m docs.robustness score RUN DATA SETTINGS --views 1,4,8
    python -m docs.robustness price DATA --seeds 0,1,2

A row there is a run's foreground IoU on each set of images, with so many views averaged at prediction. The first
command writes the page; the second adds the rows of a run; the third trains `hdf5.toml` on packed images, complete and
without each of its augmentations, wherever a row is missing.
"""

from __future__ import annotations

import argparse
import copy
import csv
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import robustness
from yeastexp.config import loading, starters
from yeastexp.data.datasets.hdf5 import hdf5
from yeastexp.drawing import plots
from yeastexp.prediction.predictor import load_predictor
from yeastexp.training.run import train
from yeastexp.training.run_directory import RunDirectory

HERE = Path(__file__).parent
DOCUMENT, RUNS, PLOT = HERE / "robustness.md", HERE / "robustness" / "runs.csv", HERE / "robustness" / "price.png"
IN_DISTRIBUTION = "in distribution"
TAKEN = "1", "4", "8"
BEFORE, SCRATCH, TODAY = "before", "pasted_cells, batch 8", "pretrained, pasted_cells, batch 8"
IDS = f"{TODAY}, ids packed"
COMPARED = BEFORE, "before, batch 4", "pasted_cells, batch 4", SCRATCH, TODAY, IDS
STEPS = 1000
FULL, WITHOUT, TURNS = "1,000 steps", "1,000 steps, without ", "1,000 steps, rotations and reflections alone"

Row = Mapping[str, str]


def rows(settings: str, views: str) -> list[Row]:
    """The runs of some settings."""
    with RUNS.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (row["settings"], row["views"]) == (settings, views)]


def fields() -> list[str]:
    """The names of the sets of images, that in distribution first."""
    return list(rows(BEFORE, "1")[0])[4:]


def out_of_distribution(row: Row) -> float:
    """The mean over all sets but that in distribution."""
    return mean(float(row[field]) for field in fields() if field != IN_DISTRIBUTION)


def in_distribution(row: Row) -> float:
    """The mean over the images in distribution."""
    return float(row[IN_DISTRIBUTION])


def by_field() -> str:
    """Markdown: a row a set of images, a column for what the file was and is."""
    columns = ("before", rows(BEFORE, "1")), ("from scratch", rows(SCRATCH, "4")), ("today", rows(TODAY, "4"))
    heads = " | ".join(f"{name}, seeds {', '.join(row['seed'] for row in column)}" for name, column in columns)
    lines = [f"| images | {heads} |", "| --- |" + " ---: |" * len(columns)]
    scores: dict[str, Callable[[Row], float]] = {
        field: lambda row, field=field: float(row[field])
        for field in fields()  # type: ignore[misc]
    }
    for name, score in {**scores, "mean out of distribution": out_of_distribution}.items():
        told = " | ".join(", ".join(f"{score(row):.3f}" for row in column) for _, column in columns)
        lines.append(f"| {name} | {told} |")
    return "\n".join(lines) + "\n"


def by_settings() -> str:
    """Markdown: a row a choice of settings, by the number of views."""
    heads = [f"{views} view{'s' * (views != '1')}" for views in TAKEN]
    titles = [f"{title}, {head}" for title in ("in distribution", "out of it", "colonies") for head in heads]
    lines = ["| settings | seeds | " + " | ".join(titles) + " |", "| --- | ---: |" + " ---: |" * len(titles)]
    colonies = lambda row: float(row["colonies"])  # noqa: E731
    for settings in COMPARED:
        told = [
            f"{mean(map(score, rows(settings, views))):.3f}"
            for score in (in_distribution, out_of_distribution, colonies)
            for views in TAKEN
        ]
        lines.append(f"| {settings} | {len(rows(settings, '1'))} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def draw(path: Path = PLOT) -> None:
    """What each augmentation costs in distribution and gains out of it, beside all others: the means over seeds."""
    full = {row["seed"]: row for row in rows(FULL, "4")}
    single = [settings for settings, _ in priced() if settings.startswith(WITHOUT)]
    gains = [
        [mean(score(full[row["seed"]]) - score(row) for row in rows(settings, "4")) for settings in single]
        for score in (in_distribution, out_of_distribution)
    ]
    plots.save(
        plots.paired(
            [settings.removeprefix(WITHOUT) for settings in single],
            *gains,
            labels=("in distribution", "mean out of distribution"),
            x_label="foreground IoU with it minus without it",
        ),
        path,
    )


def scores(run: Path, data: Path, views: int) -> list[float]:
    """The foreground IoU of a run's last weights, with so many views averaged, on each set of images made of `data`."""
    predictor = load_predictor(run, "last")
    task = copy.copy(predictor.task)
    task.views = views
    predictor = replace(predictor, task=task)
    ious = []
    for _, images in robustness.fields(hdf5(data), False):
        predicted = (predictor.classes_of(view.image[None].astype(np.float32), run.name) for view in images)
        ious.append(
            mean(
                robustness.foreground_iou(np.asarray(mask, np.int64), view.labels)
                for mask, view in zip(predicted, images, strict=True)
            )
        )
    return ious


def score(run: Path, data: Path, settings: str, views: Iterable[int]) -> None:
    """Add a row for each number of views to `runs.csv`."""
    experiment = RunDirectory(run).load(data=False)
    for count in views:
        row = [settings, experiment.train.seed, experiment.train.steps, count]
        ious = [f"{value:.4f}" for value in scores(run, data, count)]
        with RUNS.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([*row, *ious])


def priced() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tables of `hdf5.toml`, complete and without one augmentation after the other, by the name of the settings."""
    tables = tomllib.loads((starters.folder() / "hdf5.toml").read_text(encoding="utf-8"))
    yield FULL, tables
    augmentations = tables["augment"]
    for left_out in augmentations:
        rest = [table for table in augmentations if table is not left_out]
        yield WITHOUT + left_out["name"], {**tables, "augment": rest}
    turns = [table for table in augmentations if table["name"] in ("reflect", "rotate90")]
    yield TURNS, {**tables, "augment": turns}


def price(data: Path, seeds: Iterable[int]) -> None:
    """Train and score what the plot lacks, one run after the other, on one thread and in bfloat16."""
    for seed in seeds:
        for settings, tables in priced():
            if any(row["seed"] == str(seed) for row in rows(settings, "4")):
                continue
            changes = {
                "dataset.path": str(data.resolve()), "train.steps": STEPS, "train.seed": seed,
                "train.precision": "bfloat16", "runtime.threads": 1, "validation.every": 10**6,
            }  # fmt: skip
            with tempfile.TemporaryDirectory() as folder, chdir(folder):
                run = train(loading.experiment({"name": "priced", **tables}, changes))
                score(run.path, data, settings, [4])


def main() -> None:
    """Do what the command line asks for; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    scoring = commands.add_parser("score")
    scoring.add_argument("run", type=Path)
    scoring.add_argument("data", type=Path)
    scoring.add_argument("settings")
    scoring.add_argument("--views", default="1,4,8")
    pricing = commands.add_parser("price")
    pricing.add_argument("data", type=Path)
    pricing.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    if given.command == "score":
        score(given.run, given.data, given.settings, map(int, given.views.split(",")))
    elif given.command == "price":
        price(given.data.resolve(), map(int, given.seeds.split(",")))
    else:
        update()


def update() -> None:
    """Write the tables of the page, and its plot."""
    page = DOCUMENT.read_text(encoding="utf-8")
    for name, table in (("fields", by_field()), ("settings", by_settings())):
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- end of {name} -->")
        page = f"{before}<!-- {name} -->\n{table}<!-- end of {name} -->{after}"
    DOCUMENT.write_text(page, encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
