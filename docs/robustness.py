"""Writes two tables and the plot of `robustness.md` from the scores of runs in `robustness/runs.csv`.

    python -m docs.robustness

A row there is a run's foreground IoU on each set of images, with so many views averaged at prediction.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean

from yeastexp.drawing import plots

HERE = Path(__file__).parent
DOCUMENT, RUNS, PLOT = HERE / "robustness.md", HERE / "robustness" / "runs.csv", HERE / "robustness" / "price.png"
HOME = "in distribution"
TAKEN = "1", "4", "8"
BEFORE, AFTER = "before", "pasted_cells, batch 8"
FULL, WITHOUT = "pasted_cells, batch 4", "pasted_cells, batch 4, without "

Row = Mapping[str, str]


def rows(settings: str, views: str) -> list[Row]:
    """The runs of some settings."""
    with RUNS.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (row["settings"], row["views"]) == (settings, views)]


def fields() -> list[str]:
    """The names of the sets of images, that in distribution first."""
    return list(rows(BEFORE, "1")[0])[4:]


def abroad(row: Row) -> float:
    """The mean over all sets but that in distribution."""
    return mean(float(row[field]) for field in fields() if field != HOME)


def home(row: Row) -> float:
    """The mean over the images in distribution."""
    return float(row[HOME])


def by_field() -> str:
    """Markdown: a row a set of images, a column for what the file was and is."""
    lines = ["| images | before, seeds 0, 1, 2 | today, seeds 0, 1 |", "| --- | ---: | ---: |"]
    scores: dict[str, Callable[[Row], float]] = {
        field: lambda row, field=field: float(row[field])
        for field in fields()  # type: ignore[misc]
    }
    for name, score in {**scores, "mean out of distribution": abroad}.items():
        columns = (rows(BEFORE, "1"), rows(AFTER, "4"))
        told = " | ".join(", ".join(f"{score(row):.3f}" for row in column) for column in columns)
        lines.append(f"| {name} | {told} |")
    return "\n".join(lines) + "\n"


def by_settings() -> str:
    """Markdown: a row a choice of settings, by the number of views."""
    heads = [f"{views} view{'s' * (views != '1')}" for views in TAKEN]
    titles = [f"{title}, {head}" for title in ("in distribution", "out of it", "colonies") for head in heads]
    lines = ["| settings | seeds | " + " | ".join(titles) + " |", "| --- | ---: |" + " ---: |" * len(titles)]
    colonies = lambda row: float(row["colonies"])  # noqa: E731
    for settings in (BEFORE, "before, batch 4", AFTER, FULL, "pasted_cells, batch 4, as in cells.toml"):
        told = [
            f"{mean(map(score, rows(settings, views))):.3f}" for score in (home, abroad, colonies) for views in TAKEN
        ]
        lines.append(f"| {settings} | {len(rows(settings, '1'))} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def draw(path: Path = PLOT) -> None:
    """What each augmentation costs in distribution and gains out of it, beside all others, seed 0."""
    with RUNS.open(encoding="utf-8", newline="") as file:
        found = {row["settings"] for row in csv.DictReader(file) if row["settings"].startswith(WITHOUT)}
    single = {settings.removeprefix(WITHOUT): settings for settings in sorted(found) if " all" not in settings}
    single["pasted_cells"] = "before, batch 4"
    (full,) = (row for row in rows(FULL, "8") if row["seed"] == "0")
    rest = {name: next(row for row in rows(settings, "8") if row["seed"] == "0") for name, settings in single.items()}
    plots.save(
        plots.paired(
            list(rest),
            [home(full) - home(row) for row in rest.values()],
            [abroad(full) - abroad(row) for row in rest.values()],
            labels=("in distribution", "mean out of distribution"),
            x_label="foreground IoU with it minus without it",
        ),
        path,
    )


def main() -> None:
    """Update the page and the plot."""
    page = DOCUMENT.read_text(encoding="utf-8")
    for name, table in (("fields", by_field()), ("settings", by_settings())):
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- end of {name} -->")
        page = f"{before}<!-- {name} -->\n{table}<!-- end of {name} -->{after}"
    DOCUMENT.write_text(page, encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
