"""Writes the table of `planning.md` from the results of runs: `python -m docs.planning results.jsonl`.

A result is a JSON object with `set`, `file` ("new", "starter", "without_RULE"), `seed`, `steps`, and `scores`, which is
what `evaluate --json` prints. Where `new` writes what the starter has, there are results of the starter alone.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

DOCUMENT = Path(__file__).parent / "planning.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"
METRICS = {"average_precision": "all", "iou": "cell"}
"""That is shown of a result: of those it has the first."""

Result = Mapping[str, Any]


def score(result: Result) -> float:
    """The mean over images."""
    summary = result["scores"]["summary"]
    metric = next(name for name in METRICS if name in summary)
    return float(summary[metric][METRICS[metric]]["per_image"])


def table(results: Iterable[Result]) -> str:
    """A row for each data set and file, with the scores by seed and their mean, and the difference to the starter's."""
    by_set: dict[str, dict[str, dict[int, Result]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        by_set[result["set"]][result["file"]][result["seed"]] = result
    lines = [
        "| images | file | steps | score, by seed | mean | to the starter |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, files in by_set.items():
        usual = files["starter"]
        for file in sorted(files, key=lambda file: (file != "starter", file != "new", file)):
            scores = {seed: score(result) for seed, result in sorted(files[file].items())}
            pairs = [value - score(usual[seed]) for seed, value in scores.items() if seed in usual]
            told = " ".join(f"{value:.3f}" for value in scores.values())
            difference = f"{mean(pairs):+.3f}" if file != "starter" and pairs else ""
            what = "starter = `new`" if file == "starter" and "new" not in files else file.replace("_", " ")
            steps = next(iter(files[file].values()))["steps"]
            lines.append(f"| {name} | {what} | {steps:,} | {told} | {mean(scores.values()):.3f} | {difference} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Update the page."""
    results = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    page = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}{table(results)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
