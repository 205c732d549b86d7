"""The weights that come with the package, and the tables and plots of `starting-point.md`, which judge them.

    python -m docs.starting_point
    python -m docs.starting_point ship RUN
    python -m docs.starting_point curves NAME IMAGES LABELS --val FRAMES --start RUN

The first command writes the page from `starting_point/runs.csv`; the second makes `yeastexp/weights/yeast` of a run of
`experiments/starting_point.toml`; the third trains what `runs.csv` lacks, one run after the other, on one thread.
Scores there are those of the last weights on the images of `--val`, which nothing was trained on, or on those of the
packed file `--data`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from yeastexp.config import pretrained
from yeastexp.drawing import plots
from yeastexp.system import files
from yeastexp.training import checkpoints
from yeastexp.training.run_directory import RunDirectory

HERE = Path(__file__).parent
DOCUMENT, RUNS = HERE / "starting-point.md", HERE / "starting_point/runs.csv"
COLUMNS = "images", "frames", "steps", "seed", "start", "AP50", "AP", "count_error", "IoU"
SCRATCH, PRETRAINED, THROUGHOUT = "scratch", "pretrained", "throughout"
BEFORE, GENTLER = "before", "gentler"
"""At random; from the weights with the keys of `from_yeast.toml`; from them with others, `KEYS`."""
SHOWN = "AP50", "AP", "IoU"
KEYS = {
    BEFORE: ("train.plain_steps=0", "optimizer.learning_rate=0.0005", "train.init_share=0"),
    THROUGHOUT: ("train.plain_steps=0",),
    GENTLER: (
        "train.plain_steps=0",
        "augment.0.p=0.1",  # pasted_cells
        "augment.3.scale=1.2",  # affine
        "augment.4.p=0.1",  # pasted_structures
        *(f"augment.{index}.p=0.15" for index in (5, 6, 7)),  # brightness_contrast, gamma, uneven_illumination
        *(f"augment.{index}.p=0.1" for index in (8, 9)),  # gaussian_blur, gaussian_noise
    ),
}
"""Settings of runs from the weights, by what `runs.csv` calls them."""

Row = Mapping[str, str]


def rows() -> list[Row]:
    """All runs: a row each, with the keys `COLUMNS`."""
    with RUNS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(images: str) -> str:
    """Markdown: a row for each number of steps and frames; mean and standard deviation over seeds of each score."""
    headings = (f"{title} from scratch | pretrained" for title in ("AP50", "mean AP", "IoU"))
    lines = [f"| steps | frames | {' | '.join(headings)} |", "|" + " ---: |" * 8]
    found = [row for row in rows() if row["images"] == images]
    for steps, frames in sorted({(int(row["steps"]), int(row["frames"])) for row in found}):
        chosen = [row for row in found if (int(row["steps"]), int(row["frames"])) == (steps, frames)]
        cells = [
            _mean_and_deviation([float(row[score]) for row in chosen if row["start"] == start])
            for score, start in itertools.product(SHOWN, (SCRATCH, THROUGHOUT))
        ]
        lines.append(f"| {steps or 'none'} | {frames or 'none'} | {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def _mean_and_deviation(scores: Sequence[float]) -> str:
    """The mean and, of several, the standard deviation (of n - 1); empty without scores."""
    if len(scores) > 1:
        return f"{mean(scores):.3f} ± {stdev(scores):.3f}"
    return f"{scores[0]:.3f}" if scores else ""


def compared(first: str, second: str, titles: tuple[str, str]) -> str:
    """Markdown: means of two starts over the seeds that both have."""
    headings = (f"{score} {titles[0]} | {titles[1]}" for score in ("AP50", "mean AP", "IoU"))
    lines = [f"| images | steps | frames | seeds | {' | '.join(headings)} |", "| --- |" + " ---: |" * 9]
    scores: dict[tuple[str, int, int], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows():
        scores[row["images"], int(row["steps"]), int(row["frames"])][row["start"]].append(row)
    for (images, steps, frames), by_start in sorted(scores.items()):
        pair = [{row["seed"]: row for row in by_start[start]} for start in (first, second)]
        if both := sorted(pair[0].keys() & pair[1].keys()):
            means = (f"{mean(float(of[seed][score]) for seed in both):.3f}" for score in SHOWN for of in pair)
            lines.append(f"| {images.replace('_', ' ')} | {steps} | {frames} | {len(both)} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def tables() -> dict[str, str]:
    """The tables of the page by name."""
    return {
        **{images: table(images) for images in sets()},
        "throughout": compared(THROUGHOUT, PRETRAINED, ("throughout", "200 plain steps")),
        "shares": compared(BEFORE, THROUGHOUT, ("without", "with")),
        "gentler": compared(THROUGHOUT, GENTLER, ("as they are", "gentler")),
    }


def draw(folder: Path = HERE / "starting_point") -> None:
    """AP50 and IoU on each set of images against the number of frames, and of steps: means over seeds."""
    drawn = ("frames", "steps", (250, 1000, 5000), "annotated frames"), ("steps", "frames", (2, 8), "training steps")
    for images, (key, fixed, values, x_label) in itertools.product(sets(), drawn):
        found = [row for row in rows() if row["images"] == images]
        panels: dict[str, list[plots.Series]] = {
            f"{score}, {images.replace('_', ' ')}": [
                curve
                for start in (SCRATCH, THROUGHOUT)
                for look, value in enumerate(values)
                if len((curve := _curve(found, score, key, fixed, value, start, look)).x) > 1
            ]
            for score in ("AP50", "IoU")
        }
        if not any(curve.hollow for curves in panels.values() for curve in curves):
            continue  # too few were trained from scratch for a curve
        figure = plots.scatter(panels, x_label=x_label, y_label="mean over seeds", joined=True)
        plots.save(figure, folder / f"{images.replace(', ', '_').replace(' ', '_')}_{key}.png")


def sets() -> list[str]:
    """The names of the sets of images."""
    return sorted({row["images"] for row in rows()})


def _curve(found: Sequence[Row], score: str, key: str, fixed: str, value: int, start: str, look: int) -> plots.Series:
    """The means of a score over seeds against `key`, of the runs whose `fixed` is `value`; without training at 0."""
    scores: dict[int, list[float]] = defaultdict(list)
    for row in found:
        untrained = row["steps"] == "0"
        if row["start"] == start and (untrained or int(row[fixed]) == value):
            scores[int(row[key])].append(float(row[score]))
    name = f"{value:,} {fixed}, {'from scratch' if start == SCRATCH else 'pretrained'}"
    return plots.Series(name, sorted(scores), [mean(scores[x]) for x in sorted(scores)], look, start == SCRATCH)


def ship(run: Path, name: str = "yeast") -> str:
    """Make the package's weights `name` of the last ones of a run, and return the SHA-256 for `pretrained.DIGESTS`.

    Kernels are kept in 16 bits: it halves the file, and no score changes in its third digit.
    """
    folder = pretrained.FOLDER / name
    state = checkpoints.load(RunDirectory(run).checkpoint("last"))
    model = {key: value.half() if value.ndim == 4 else value for key, value in state["model"].items()}
    kept = {key: state[key] for key in ("step", "experiment", "normalization", "transforms", "task")}
    (folder / pretrained.WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save(folder / pretrained.WEIGHTS, {**kept, "values": None, "model": model})
    shutil.copy(RunDirectory(run).experiment, folder)
    environment = RunDirectory(run).read_environment()
    public = {key: environment[key] for key in ("seed", "versions", "device", "threads", "started", "digests")}
    files.write_text(folder / RunDirectory(run).environment.name, json.dumps(public, indent=1) + "\n")
    return files.digest(folder / pretrained.WEIGHTS)


def train(
    name: str,
    images: Path,
    labels: Path,
    val: Sequence[str],
    start: Path,
    wanted: Iterable[tuple[int, ...]],
    starts: Sequence[str] = (SCRATCH, PRETRAINED),
    data: Path | None = None,
) -> None:
    """Train and score each run of `wanted` (frames, steps, seed), from scratch and from `start`, that lacks a row.

    Scores are on the images `val`, or on those of a packed file `data`.
    """
    known = {tuple(row[key] for key in COLUMNS[:5]) for row in rows()}
    for (frames, steps, seed), source in itertools.product(wanted, starts):
        key = (name, str(frames), str(steps), str(seed), source)
        if key in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            begun = None if source == SCRATCH else start
            settings = KEYS.get(source, ())
            run = _trained(Path(folder), images, labels, val, frames, steps, seed, begun, settings)
            scores = _scores(_evaluated(run, data) if data else RunDirectory(run).read_result()["val"]["last"])
        with RUNS.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([*key, *(f"{score:.4f}" for score in scores)])


def _trained(
    folder: Path,
    images: Path,
    labels: Path,
    val: Sequence[str],
    frames: int,
    steps: int,
    seed: int,
    start: Path | None,
    settings: Sequence[str] = (),
) -> Path:
    """The directory of one run, whose files go into `folder`."""
    paths = {path.stem: path for path in sorted(images.iterdir())}
    candidates = [stem for stem in paths if stem not in val]
    # Frames evenly spaced in time: neighbours are nearly the same image.
    chosen = [candidates[index] for index in np.unique(np.linspace(0, len(candidates) - 1, frames).round().astype(int))]
    for source in (images, labels):
        (folder / source.name).mkdir()
        for stem in (*chosen, *val):
            shutil.copy(source / paths[stem].name, folder / source.name)
    starter = "from_yeast" if start else "cells"
    text = f'extends = "yeastexp:{starter}"\n[dataset]\npath = "data.h5"\n[train]\nsteps = {steps}\nseed = {seed}\n'
    text += f'init_from = "{start.resolve().as_posix() if start else pretrained.RANDOM}"\n'
    # One validation, at the end: its seconds are no part of what is compared.
    (folder / "mine.toml").write_text(f"{text}[validation]\nevery = 1000000\n[runtime]\nthreads = 1\n")
    packing = ["pack", images.name, labels.name, "--labels", "instance", "--val", ",".join(val), "-o", "data.h5"]
    for arguments in (packing, ["run", "mine.toml", *(word for setting in settings for word in ("--set", setting))]):
        _output(arguments, folder)
    return folder / "runs" / "mine" / "001"


def _evaluated(run: Path, data: Path) -> Mapping[str, Any]:
    """The scores of a run's last weights on all images of a packed file."""
    words = ["evaluate", str(run), "--data", str(data.resolve()), "--checkpoint", "last", "--json"]
    found: Mapping[str, Any] = json.loads(_output(words, run))["summary"]
    return found


def _scores(metrics: Mapping[str, Any]) -> list[float]:
    """AP50, mean AP, relative error of the count, and foreground IoU."""
    places = (("average_precision", "AP50"), ("average_precision", "all"), ("count", "all"), ("iou", "cell"))
    return [metrics[metric][entry]["per_image"] for metric, entry in places]


def _output(arguments: Sequence[str], folder: Path) -> str:
    """What a command of the package prints."""
    command = [sys.executable, "-m", "yeastexp", *arguments]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Do what the command line asks for; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("ship").add_argument("run", type=Path)
    curves = commands.add_parser("curves")
    curves.add_argument("name")
    curves.add_argument("images", type=Path)
    curves.add_argument("labels", type=Path)
    curves.add_argument("--val", required=True, help="names of the images to score, with commas")
    curves.add_argument("--data", type=Path, help="packed file of images to score instead")
    curves.add_argument("--start", type=Path, default=Path("yeast"))
    lists = ("frames", "2,8"), ("steps", "1000"), ("seeds", "0,1,2"), ("starts", f"{SCRATCH},{PRETRAINED}")
    for name, values in lists:
        curves.add_argument(f"--{name}", default=values)
    given = parser.parse_args()
    if given.command == "ship":
        print(ship(given.run))
    elif given.command == "curves":
        frames, steps, seeds = ([*map(int, text.split(","))] for text in (given.frames, given.steps, given.seeds))
        train(
            given.name, given.images, given.labels, given.val.split(","), pretrained.located(given.start),
            itertools.product(frames, steps, seeds), given.starts.split(","), given.data,
        )  # fmt: skip
    else:
        update()


def update() -> None:
    """Write the tables of the page, and its plots."""
    page = DOCUMENT.read_text(encoding="utf-8")
    for name, text in tables().items():
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- end of {name} -->")
        page = f"{before}<!-- {name} -->\n{text}<!-- end of {name} -->{after}"
    DOCUMENT.write_text(page, encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
