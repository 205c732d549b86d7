"""Kill a small run at random moments, resume it until it is done, and compare it with one that was left alone.

    python tests/kills.py --kills 100 --workers 2

Says after each run how often it was killed and whether it ended in the same bytes; exit status 1 where one did not.
"""

from __future__ import annotations

import argparse
import csv
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import forks
import tiny

from yeastexp.training import checkpoints

TEXT = (
    tiny.EXPERIMENT.replace("epochs = 2", "epochs = 15\nema_decay = 0.9")
    .replace("levels = 2", "levels = 2\ndropout = 0.2")
    .replace("threads = 1", "threads = 1\ncheckpoint_minutes = 1e-9")
)
"""A checkpoint after every step, an average of the weights, and dropout, which draws from a generator with a state."""


@dataclass
class Ended:
    """One run that was killed: how often, and what is not as in the one that was left alone."""

    kills: int
    differences: list[str]


def command(verb: str, *words: str) -> list[str]:
    """A command line of yeastexp."""
    return [sys.executable, "-m", "yeastexp", verb, *words]


def prepare(folder: Path) -> Path:
    """The data and the experiment, and a run of it that nobody disturbs; gives that run's directory."""
    tiny.write_experiment(folder, TEXT)
    forks.run(command("run", "tiny.toml"), cwd=folder, check=True)
    return folder / "runs" / "tiny" / "001"


def disturbed(folder: Path, number: int, moments: Sequence[float], workers: int, by: signal.Signals) -> Ended:
    """Kill the run `number` after each of so many seconds, or of so many epochs (of type int), then let it end; compare
    it with run 001.
    """
    run = Path("runs") / "tiny" / f"{number:03d}"
    kills = 0
    for moment in [*moments, None]:
        begun = (folder / run / "experiment.toml").is_file()
        words = ("resume", str(run)) if begun else ("run", "tiny.toml")
        process = forks.Process(
            [*command(*words), "--set", f"runtime.workers={workers}"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if isinstance(moment, int):
                while process.poll() is None and _epochs(folder / run) < moment:
                    time.sleep(0.01)
            process.wait(0.01 if isinstance(moment, int) else moment)
        except subprocess.TimeoutExpired:
            process.send_signal(by)
            kills += 1
        _, said = process.communicate()
        if process.returncode not in (0, -by, 130):
            return Ended(kills, [f"exit status {process.returncode}: {said}"])
        if not begun and not (folder / run / "experiment.toml").is_file() and (folder / run).is_dir():
            (folder / run).rename(folder / f"unbegun_{time.monotonic_ns()}")
    return Ended(kills, differences(folder / "runs" / "tiny" / "001", folder / run))


def _epochs(run: Path) -> int:
    table = run / "metrics.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def differences(one: Path, other: Path) -> list[str]:
    """The files of a finished run that are not as in another one, times aside."""
    found = [
        name for name in ("result.json", "per_image.csv") if (one / name).read_bytes() != (other / name).read_bytes()
    ]
    if _without_times(one) != _without_times(other):
        found.append("metrics.csv")
    best = Path("checkpoints") / "best.pt"
    if (one / best).read_bytes() != (other / best).read_bytes():
        found.append("best.pt")
    lasts = [checkpoints.load(folder / "checkpoints" / "last.pt") for folder in (one, other)]
    for last in lasts:
        for row in last["rows"]:
            del row["seconds"]
    if difference := checkpoints.first_difference(*lasts):
        found.append(f"last.pt: {difference}")
    return found


def _without_times(run: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def main() -> None:
    """Kill until there were enough kills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--each", type=int, default=5, help="kills of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    words = parser.parse_args()
    source = random.Random(words.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forks.server()
        began = time.monotonic()
        prepare(folder)
        longest = time.monotonic() - began
        runs = kills = exact = 0
        while kills < words.kills:
            moments = [source.uniform(0, longest) for _ in range(min(words.each, words.kills - kills))]
            ended = disturbed(folder, runs + 2, moments, words.workers, signal.Signals[f"SIG{words.signal}"])
            runs, kills, exact = runs + 1, kills + ended.kills, exact + (not ended.differences)
            print(f"run {runs}: {ended.kills} kills; {'; '.join(ended.differences) or 'the same bytes'}", flush=True)
    print(
        f"{kills} kills by SIG{words.signal}, {words.workers} workers: {exact} of {runs} runs ended in the same bytes"
    )
    sys.exit(exact != runs)


if __name__ == "__main__":
    main()
